"""`DataConfig`: from a few plain values to the data sets of a run."""

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vivit_zoo.datasets.catalogue import Catalogue, read_catalogue, warn_of_shared_videos
from vivit_zoo.datasets.cups import HiddenDigits
from vivit_zoo.datasets.digits import MovingDigits, NumberedDigits
from vivit_zoo.datasets.embedded import EmbeddedClips
from vivit_zoo.datasets.labels import Task, check_task
from vivit_zoo.datasets.shards import is_shards
from vivit_zoo.datasets.turns import TurningDigits
from vivit_zoo.datasets.videos import VideoClips, VideoViews
from vivit_zoo.video.augment import Augment, mirrored_classes
from vivit_zoo.video.clips import ClipSampler, Policy, Views, Where

__all__ = ["DataConfig", "DataSets", "check_sources"]

EMBEDDED: dict[str, type[EmbeddedClips]] = {
    "moving_digits": MovingDigits,
    "numbered_digits": NumberedDigits,
    "hidden_digits": HiddenDigits,
    "turning_digits": TurningDigits,
}
AS_VIDEOS = ":videos"


@dataclass(frozen=True)
class DataSets:
    """What a run reads: clips to train on, one view of each test video for a look on the way, and all its views.

    `classes` are their names by number, or a dictionary of them by head; `views` is how many the test has of a video;
    `names` are those of the test videos, None where they have none.
    """

    train: Any
    look: Any
    test: Any
    classes: Any
    views: int = 1
    names: list[str] | None = None

    @property
    def num_classes(self) -> int | dict[str, int]:
        """As a model that fits has it."""
        if isinstance(self.classes, dict):
            return {head: len(names) for head, names in self.classes.items()}
        return len(self.classes)

    def check_classes(self, num_classes: int | dict[str, int]) -> None:
        """Refuse a model that has other heads.

        Raises:
            ValueError: with the numbers of classes on both sides.
        """
        if num_classes != self.num_classes:
            raise ValueError(f"the model's num_classes is {num_classes}, the data set has {self.num_classes}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the clips of a run come from, and which they are. The model says how many frames of which size they have.

    Args:
        train: an embedded data set ("moving_digits", "numbered_digits", "hidden_digits" or "turning_digits"), or
            training videos, in any form that `read_catalogue` reads: a list file, a folder of class folders, shards,
            ... Embedded clips have a fixed size and go to the model as they are; with the suffix ":videos", such as
            "moving_digits:videos", they are read like video files, so that the options below apply to them.
        test: the videos to test on; not for what is built in, which has its own.
        held_out: share of the training videos of each class to test on in place of training on them, where there is no
            `test` and nothing built in; always the last ones, see `Catalogue.hold_out`.
        root: folder that paths in lists start from; "" for the folder of the list.
        difficulty: level of an embedded data set that has several, "hidden_digits" or "turning_digits"; None for the
            first.
        task: what the label of a video is: "single_label", one class; "multi_label", several classes, separated by ";"
            or in a JSON list; or "regression", a score. What is built in has one class.
        targets: for "regression", the columns of a csv or jsonl that hold the scores of a video; () for one score, in
            the column of labels.
        video_key: which video of a shard's sample or of a row is meant, where there are several, see `read_catalogue`.
        train_clips, test_clips: how many clips; of what is built in alone.
        stride: distance in frames between two frames of a clip.
        fps: in place of the stride, frames of a clip for a second of the video.
        where: "random", "uniform" or "centre": which clip of a video is trained on, see `ClipSampler`.
        policy: for a video shorter than a clip: "repeat_last", "wrap", "error" or "mask", see `clip_indices`.
        views: clips and crops of the final test; the looks on the way take one clip and one crop.
        augment: of the training clips; its size is the model's. Not of what is built in.
        mirror: whether the words left, right, clockwise, ... in the classes' names tell what a mirror image shows, see
            `vivit_zoo.video.augment.mirrored_classes`; else all classes are flipped alike.
        backend: that decodes files, "pyav" or "torchcodec".
        max_broken: share of the videos in [0, 1] that may be unreadable; a run that meets more stops.
    """

    train: str = "moving_digits"
    test: str = ""
    held_out: float = 0.0
    root: str = ""
    difficulty: int | None = None
    task: Task = "single_label"
    targets: tuple[str, ...] = ()
    video_key: str = ""
    train_clips: int = 100_000
    test_clips: int = 1_000
    stride: int = 2
    fps: float | None = None
    where: Where = "random"
    policy: Policy = "repeat_last"
    views: tuple[int, int] = (4, 3)
    augment: Augment = field(default_factory=Augment)
    mirror: bool = False
    backend: str = "pyav"
    max_broken: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        check_task(self.task, self.targets)
        for name in ("train_clips", "test_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not positive")
        if not 0 <= self.max_broken <= 1:
            raise ValueError(f"max_broken {self.max_broken} is a share, from 0 to 1")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out {self.held_out} is a share, from 0 to below 1")
        if len(self.views) != 2:
            raise ValueError(f"views {self.views} must be two numbers, clips and crops, such as (4, 3)")
        object.__setattr__(self, "views", tuple(self.views))
        if self.train.partition(":")[0] in EMBEDDED and not self.embedded:
            choices = (name + suffix for name in EMBEDDED for suffix in ("", AS_VIDEOS))
            raise ValueError(f"train {self.train!r} is not there; built in are {', '.join(choices)}")
        if self.embedded:
            for name in ("test", "held_out", "root", "video_key"):
                if value := getattr(self, name):
                    empty = 0 if name == "held_out" else '""'
                    raise ValueError(
                        f"{self.train} has its own test clips and no files; {name} is {value!r}, give {name} {empty}"
                    )
            if self.task != "single_label":
                raise ValueError(f"{self.train} has one class a clip; the task {self.task!r} needs videos of your own")
        if not self.embedded and self.difficulty is not None:
            raise ValueError(
                f"difficulty {self.difficulty} is of embedded data sets only; leave it out for {self.train!r}"
            )
        if not self.embedded and not self.test and not self.held_out:
            raise ValueError(
                f"train {self.train!r} needs videos to test on: give test, in any of the same forms, or the share "
                f"held_out of the training videos; only what is built in has its own: {', '.join(EMBEDDED)}"
            )

    @property
    def embedded(self) -> bool:
        """Whether the clips are built in."""
        return self.train.removesuffix(AS_VIDEOS) in EMBEDDED

    def build(self, clip: tuple[int, int, int, int]) -> DataSets:
        """The data sets of a run whose clips are (c, t, h, w).

        Raises:
            ValueError: if a source cannot be read, or has no such clips.
        """
        if not self.embedded:
            reading: dict[str, Any] = {name: getattr(self, name) for name in ("task", "video_key", "targets")}
            reading["root"] = self.root or None
            train = read_catalogue(self.train, **reading)
            if not self.test:
                return self._videos(clip, *train.hold_out(self.held_out))
            classes = None if self.task == "regression" else train.classes or None
            test = read_catalogue(self.test, classes=classes, **reading)
            if train.by_name and not test.by_name and train.classes:
                first = next(iter(train.classes.values())) if isinstance(train.classes, dict) else train.classes
                warnings.warn(
                    f"{self.test}: its labels are numbers, those of {self.train} names; 0 is taken for {first[0]!r}",
                    stacklevel=2,
                )
            warn_of_shared_videos(train, test)
            return self._videos(clip, train, test)
        make = EMBEDDED[self.train.removesuffix(AS_VIDEOS)]
        train_clips = make("train", self.train_clips, difficulty=self.difficulty)
        test_clips = make("test", self.test_clips, difficulty=self.difficulty)
        if self.train.endswith(AS_VIDEOS):
            return self._videos(clip, train_clips.videos(), test_clips.videos())
        if clip != (has := tuple(train_clips[0][0].shape)):
            raise ValueError(f"the model takes {clip}, {self.train} has {has}; {self.train}{AS_VIDEOS} is cut to fit")
        return DataSets(train_clips, test_clips, test_clips, make.classes)

    def _videos(self, clip: tuple[int, int, int, int], train: Catalogue, test: Catalogue) -> DataSets:
        channels, frames, *size = clip
        if channels not in (1, 3):
            raise ValueError(f"the model takes {channels} channels; videos have 3, or 1 for gray models")
        timing: dict[str, Any] = {"frames": frames, "stride": self.stride, "fps": self.fps, "policy": self.policy}
        reading: dict[str, Any] = {"gray": channels == 1, "backend": self.backend}
        # Targets may be called left and right too, but a score has no mirror image.
        mirror = _mirrored(train.classes) if self.mirror and self.task != "regression" else {}
        augment = replace(self.augment, size=(size[0], size[1]), mirror=mirror)
        clips, crops = self.views
        return DataSets(
            VideoClips(train, ClipSampler(where=self.where, **timing), augment, **reading),
            VideoViews(test, Views(clips=1, crops=1, **timing), augment.preprocess, **reading),
            VideoViews(test, Views(clips=clips, crops=crops, **timing), augment.preprocess, **reading),
            train.classes,
            clips * crops,
            [entry.video.name for entry in test.entries],
        )


def check_sources(*sources: str) -> None:
    """Check that files and folders of videos are there, without reading them: before weights are fetched for a run.

    Args:
        *sources: as for `DataConfig.train`; an empty one is left out.

    Raises:
        ValueError: naming the first one that is absent.
    """
    for source in sources:
        other = source.removesuffix(AS_VIDEOS) in EMBEDDED or is_shards(source) or "://" in source or "pipe:" in source
        if source and not other and not Path(source).exists():
            raise ValueError(f"{source}: there is no such file or folder")


def _mirrored(classes: Any) -> dict[Any, Any]:
    if isinstance(classes, dict):
        return {head: mirrored_classes(names) for head, names in classes.items()}
    return mirrored_classes(classes)
