"""Which videos with which labels: a catalogue, read from any of the forms that data sets of videos come in."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from vivit_zoo.datasets.formats import hugging_face, read_listing, webdataset
from vivit_zoo.datasets.labels import Classes, Label, Numbered, Task, check_task, number_labels
from vivit_zoo.datasets.listing import Listing
from vivit_zoo.datasets.rows import Problem, RowsError
from vivit_zoo.datasets.shards import is_shards
from vivit_zoo.datasets.sources import FrameFolder, Place, TableRow, TarMember, VideoFile

__all__ = ["Catalogue", "Entry", "identity", "read_catalogue"]


class Entry(NamedTuple):
    """A video and its label: a class number, by head where there are several, a tuple of them, a score or several."""

    video: Place
    label: Label


@dataclass(frozen=True)
class Catalogue:
    """Videos with labels, and the names of the classes.

    Args:
        entries: the videos, in the source's order.
        classes: names by class number; for several heads a dictionary of them; names of the targets for scores.
        absent: names of videos that the source lists but that are not there.
        notes: what was left out, or is allowed but looks like a mistake.
        task: what a label is.
        by_name: whether the source gives names of classes, and not numbers alone.
        problems: rows that cannot be used, and why; they are not among the entries.
        rows: what the source says of each entry, to write a list of some of them; None where that is impossible.
        header, footer: what such a list begins and ends with.
        suffix: of its name, by which its form is recognised.
    """

    entries: Sequence[Entry]
    classes: Classes
    absent: Sequence[str] = ()
    notes: Sequence[str] = ()
    task: Task = "single_label"
    by_name: bool = True
    problems: Sequence[Problem] = ()
    rows: Sequence[str] | None = None
    header: str = ""
    footer: str = ""
    suffix: str = ""

    def __len__(self) -> int:
        return len(self.entries)

    def hold_out(self, share: float) -> tuple["Catalogue", "Catalogue"]:
        """The catalogue in two: without and with the last videos of each class.

        They are the last in the source's order, which in a folder is that of the names. So parts of one recording,
        whose names begin alike, stay together, except for one recording a class at most. A class keeps at least one
        video to train on, and gives at least one to test on if it has two. Of several labels of a video the first one
        counts; scores are one class.

        Args:
            share: of the videos of each class, in (0, 1), rounded.

        Raises:
            ValueError: if that leaves nothing to test on.
        """
        places: dict[Any, list[int]] = {}
        for place, entry in enumerate(self.entries):
            places.setdefault(None if self.task == "regression" else _group(entry.label), []).append(place)
        held: set[int] = set()
        for of_class in places.values():
            count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
            held.update(of_class[len(of_class) - count :])
        if not held:
            raise ValueError(
                f"each of the {len(places)} classes has one video; there is none to hold out for testing; give videos "
                "to test on, or more of a class"
            )
        parts = [[e for i, e in enumerate(self.entries) if (i in held) == out] for out in (False, True)]
        return replace(self, entries=parts[0], rows=None), replace(self, entries=parts[1], rows=None)


def _group(label: Label) -> Any:
    """What `hold_out` takes for the class of a label."""
    if isinstance(label, dict):
        return tuple(label.items())
    if isinstance(label, tuple):
        return label[:1]
    return label


def read_catalogue(
    source: Any,
    root: str | os.PathLike[str] | None = None,
    classes: Classes | None = None,
    *,
    task: Task = "single_label",
    video_key: str = "",
    targets: Sequence[str] = (),
    strict: bool = True,
) -> Catalogue:
    """The videos of a source with their labels. The format is recognised by the content:

    - a text file of lines `path label`, split from the right at a tab, a comma or a space; labels are numbers or names;
    - a text file of raw frames, `folder count label` or `folder offset count label` (TSN, mmaction2), where a folder
      holds numbered images;
    - a csv with a header, of which one column is `path`, `file_name`, ... and one `label`, `class`, ...;
    - a folder of class folders, `class/.../clip.mp4`, or with folders of images in place of clips;
    - a folder with metadata.csv or metadata.jsonl (`file_name`, `label`), Hugging Face's VideoFolder;
    - the csv of Kinetics, the json of Something-Something v2, the csv of EPIC-KITCHENS-100 (labels by head);
    - WebDataset shards: a tar file, a pattern (`train-{000..015}.tar`, `train-*.tar`) or a folder of them;
    - a Hugging Face `datasets.Dataset`, or the folder that its `save_to_disk` wrote.

    Labels have the same rules in all forms, see `vivit_zoo.datasets.labels`. Videos that a data set lists but that are
    gone, and what is left out or looks like a mistake, are reported in warnings.

    Args:
        source: a path, a pattern of shards, or a `datasets.Dataset`.
        root: folder that relative paths start from; by default the folder of the list.
        classes: names by class number (for several heads a dictionary of them): those of the training set, when a test
            set is read. By default the source's own names, the sorted names of its labels, or its numbers.
        task: "single_label"; "multi_label" for several labels a video, as a list or separated by ";", or in several
            rows; or "regression" for a score a video, or several with `targets`.
        video_key: which video of a sample or row is meant, where there are several: what follows the first dot in the
            names of a shard's members, such as "base.mp4", or a column of a `datasets.Dataset`.
        targets: for "regression", the columns of a table that hold the scores of a video; by default the one score in
            the column of labels.
        strict: refuse a source with rows that cannot be used; else they are left out and listed in `problems`.

    Raises:
        RowsError: a ValueError, with all rows that cannot be used and the reasons.
        ValueError: if no format fits, or none of the listed videos exists.
        ImportError: if a folder that `save_to_disk` wrote is read without `datasets`.
    """
    check_task(task, targets)
    listing, name = _read(source, None if root is None else Path(root), video_key, targets)
    problems = list(listing.problems)
    numbered = _labels(listing, classes, task, targets, name, problems)
    found, joined = _join_rows(listing, numbered.labels, task, problems)
    problems.sort(key=lambda problem: problem.place)
    total = len(listing.samples) + len(listing.problems)
    if strict and problems:
        raise RowsError(name, problems, total, listed=listing.header is not None)
    kept = [place for place, label in enumerate(found) if label is not None]
    _check_videos(listing, kept, name)
    texts = [listing.samples[place].text for place in kept]
    catalogue = Catalogue(
        entries=[Entry(listing.samples[place].video, found[place]) for place in kept],
        classes=numbered.classes,
        absent=listing.absent,
        notes=[*listing.notes, *numbered.notes, *joined],
        task=task,
        by_name=numbered.by_name,
        problems=problems,
        rows=None if listing.header is None else [text for text in texts if text is not None],
        header=listing.header or "",
        footer=listing.footer or "",
        suffix=listing.suffix,
    )
    for note in catalogue.notes:
        warnings.warn(f"{name}: {note}", stacklevel=2)
    if catalogue.absent:
        missing, among = len(catalogue.absent), len(catalogue.absent) + len(catalogue)
        warnings.warn(f"{name}: {missing} of {among} videos are absent, such as {catalogue.absent[0]}", stacklevel=2)
    return catalogue


def _read(source: Any, root: Path | None, video_key: str, targets: Sequence[str]) -> tuple[Listing, str]:
    """What a source lists, and its name for messages."""
    if targets and (not isinstance(source, str | os.PathLike) or is_shards(os.fspath(source))):
        raise ValueError(f"targets {', '.join(targets)} are columns of a csv or a jsonl; other sources have one score")
    if not isinstance(source, str | os.PathLike):
        return hugging_face(source, video_key), "the data set"
    name = os.fspath(source)
    if "://" in name or name.startswith("pipe:"):
        raise ValueError(f"{name}: neither URLs nor pipes are read; copy the files to a disk, or mount their storage")
    if is_shards(name):
        return webdataset(name, video_key), name
    return read_listing(Path(name), root, video_key, targets), name


def _labels(
    listing: Listing,
    classes: Classes | None,
    task: Task,
    targets: Sequence[str],
    name: str,
    problems: list[Problem],
) -> Numbered:
    """The labels of the samples as numbers; those that cannot be used are added to the problems."""
    samples = listing.samples
    if not listing.heads:
        if isinstance(listing.classes, dict) or isinstance(classes, dict):
            by_head = classes if isinstance(classes, dict) else listing.classes
            raise ValueError(
                f"{name}: has one label a video, but classes are given by head: {', '.join(by_head or ())}"
            )
        try:
            one = number_labels([sample.label for sample in samples], task, listing.classes, classes, targets)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        problems += [Problem(samples[row].where, what) for row, what in sorted(one.problems.items())]
        return one
    if task != "single_label":
        raise ValueError(f"{name}: has a label for each of {', '.join(listing.heads)}; the task must be single_label")
    own, given = _by_head(listing.classes, listing.heads), _by_head(classes, listing.heads)
    numbered = {}
    for head in listing.heads:
        try:
            values = [sample.label[head] for sample in samples]
            numbered[head] = number_labels(values, task, own[head], given[head])
        except ValueError as error:
            raise ValueError(f"{name}, {head}: {error}") from error
    wrong = {row: f"{head}: {what}" for head in listing.heads for row, what in numbered[head].problems.items()}
    problems += [Problem(samples[row].where, what) for row, what in sorted(wrong.items())]
    labels = [
        None if row in wrong else {head: numbered[head].labels[row] for head in listing.heads}
        for row in range(len(samples))
    ]
    notes = [f"{head}: {note}" for head in listing.heads for note in numbered[head].notes]
    named: dict[str, Any] = {head: numbered[head].classes for head in listing.heads}
    return Numbered(labels, named, wrong, notes, any(numbered[head].by_name for head in listing.heads))


def _by_head(classes: Any, heads: Sequence[str]) -> dict[str, Sequence[str] | None]:
    if classes is None:
        return dict.fromkeys(heads)
    if not isinstance(classes, dict) or classes.keys() != set(heads):
        raise ValueError(f"labels are by head, {', '.join(heads)}; classes must be a dictionary with these keys")
    return classes


def _join_rows(listing: Listing, labels: list[Any], task: Task, problems: list[Problem]) -> tuple[list[Any], list[str]]:
    """The labels with those of a video that is listed several times joined, or refused where they differ; notes.

    Labels by head are left alone: EPIC-KITCHENS narrates several actions of the same seconds.
    """
    if listing.heads:
        return labels, []
    rows: dict[Any, list[int]] = {}
    for row, sample in enumerate(listing.samples):
        if labels[row] is not None:
            rows.setdefault(identity(sample.video), []).append(row)
    labels, joined = list(labels), 0
    for several in rows.values():
        found = {labels[row] for row in several}
        if len(found) == 1:
            continue
        if task == "multi_label":
            first = several[0]
            labels[first] = tuple(sorted({one for label in found for one in label}))
            if listing.samples[first].text is not None:
                texts = [listing.samples[row].text or "" for row in several]
                listing.samples[first] = listing.samples[first]._replace(text="\n".join(texts))
            joined += 1
        else:
            said = ", ".join(f"{listing.samples[row].label!r} ({listing.samples[row].where})" for row in several[:5])
            hint = "; for several labels of one video the task is multi_label" if task == "single_label" else ""
            what = f"{listing.samples[several[0]].video.name} has several labels: {said}{hint}"
            problems += [Problem(listing.samples[row].where, what) for row in several]
        for row in several[task == "multi_label" :]:
            labels[row] = None
    return labels, [f"{joined} videos are listed several times; their labels are joined"] if joined else []


def identity(video: Place) -> Any:
    """What two rows of one video have in common, and no rows of two videos: its place in the file system or table."""
    if isinstance(video, VideoFile):
        return _normal(video.path), video.start, video.stop
    if isinstance(video, FrameFolder):
        return _normal(video.folder), video.first, video.count
    if isinstance(video, TableRow):
        return _normal(Path(video.path)) if video.path else (getattr(video.table, "_fingerprint", ""), video.name)
    if isinstance(video, TarMember):
        return _normal(video.shard), video.member
    return video.name


def shared_videos(train: Catalogue, test: Catalogue) -> list[str]:
    """The names of the test videos that are training videos too: equal files, shards' members or seconds of a file."""
    known = {identity(entry.video) for entry in train.entries}
    return [entry.video.name for entry in test.entries if identity(entry.video) in known]


def warn_of_shared_videos(train: Catalogue, test: Catalogue) -> None:
    """Warn if videos are in both the training and the test set."""
    if shared := shared_videos(train, test):
        warnings.warn(
            f"{len(shared)} of {len(test)} test videos are training videos too, such as {shared[0]}: the result says "
            "nothing about new videos",
            stacklevel=3,
        )


def _normal(path: Path) -> str:
    """A path from the root of the disk, without ".."; links stay, as following them asks the disk for every row."""
    return os.path.abspath(path) if ".." in (text := str(path)) or not path.is_absolute() else text


def _check_videos(listing: Listing, kept: list[int], name: str) -> None:
    if not listing.samples and not listing.problems:
        absent = f"; all {len(listing.absent)} are absent, such as {listing.absent[0]}" if listing.absent else ""
        raise ValueError(f"{name}: there are no videos in it{absent}. Is root= the folder that holds them?")
    videos = [listing.samples[place].video for place in kept]
    if videos and not any(video.exists() for video in videos):
        raise ValueError(
            f"{name}: none of its {len(videos)} videos is there, such as {videos[0].name}; give the folder that the "
            "paths start from with root="
        )
