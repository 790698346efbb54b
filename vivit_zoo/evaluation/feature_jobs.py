"""The files of an extraction: which videos still need one, and the windows of each."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vivit_zoo.datasets.catalogue import Catalogue, Entry, identity
from vivit_zoo.datasets.sources import Place, Reader
from vivit_zoo.evaluation.feature_files import FeatureWriter, read_metadata
from vivit_zoo.video.clips import Sample
from vivit_zoo.video.preprocess import Preprocess
from vivit_zoo.video.reader import VideoError

__all__ = ["Job", "Sampler", "plan_jobs"]


class Sampler(Protocol):
    """Chooses frames of a video, such as `Windows` and `Views`; a dataclass."""

    def sample(self, video: Any) -> Sample:
        """Frame numbers (windows, frames), and under the policy "mask" which of them the video has."""
        ...


@dataclass
class Job:
    """A video whose features are to be written."""

    place: Place
    file: Path
    metadata: dict[str, str]
    total: int = 0
    done: int = 0
    writer: FeatureWriter | None = None
    known: dict[str, np.ndarray] = field(default_factory=dict)

    def windows(
        self, sampler: Sampler, preprocess: Preprocess, reading: Mapping[str, Any]
    ) -> Iterator[tuple[Tensor, ...]]:
        """Each window ((c, t, h, w),), or with its mask (t,) second.

        Frames are decoded once, and kept as long as the window needs them.
        """
        with self.place.open(**reading) as video:
            numbers, mask = sampler.sample(video)
            self.total = len(numbers)
            self.known = {"frames": numbers, "times": _times(video)[numbers]}
            self.known |= {} if mask is None else {"mask": mask}
            kept: dict[int, np.ndarray] = {}
            for index, window in enumerate(numbers.tolist()):
                kept = {number: frame for number, frame in kept.items() if number in set(window)}
                if new := sorted(set(window) - kept.keys()):
                    kept |= zip(new, video.read(new, change=preprocess.resize), strict=True)
                if len(sizes := {frame.shape for frame in kept.values()}) > 1:
                    raise VideoError(f"{self.place.name}: the frames change size (h, w, c): {sorted(sizes)}")
                clip = preprocess([kept[number] for number in window], layout="t h w c")
                yield (clip,) if mask is None else (clip, torch.from_numpy(mask[index]))

    def put(self, number: int, found: Mapping[str, np.ndarray]) -> None:
        """Write the features of one window; those of the last one complete the file."""
        if self.writer is None:
            shapes = {name: ((self.total, *x.shape), str(x.dtype)) for name, x in found.items()}
            shapes |= {name: (x.shape, str(x.dtype)) for name, x in self.known.items()}
            self.writer = FeatureWriter(self.file, shapes, self.metadata)
            for name, x in self.known.items():
                self.writer.arrays[name][:] = x
        for name, x in found.items():
            self.writer.arrays[name][number] = x
        self.done += 1
        if self.done == self.total:
            self.writer.finish()
            self.writer, self.known = None, {}

    def discard(self) -> None:
        """Delete what is written of the video."""
        if self.writer is not None:
            self.writer.discard()
            self.writer = None


def _times(video: Reader) -> np.ndarray:
    """When each frame is shown, in seconds; nan for folders of images, which have no rate."""
    try:
        return np.asarray(video.times, np.float64)
    except ValueError:
        return np.full(len(video), np.nan)


def plan_jobs(
    videos: Catalogue, out: Path, settings: dict[str, Any], more: dict[str, Any]
) -> tuple[list[Path], list[Job]]:
    """The files of all videos, and the jobs of those that do not exist.

    A video that is listed several times with one label counts once.
    """
    jobs: list[Job] = []
    files: dict[Path, None] = {}
    for entry in videos.entries:
        name = _class_name(entry.label, videos.classes)
        metadata = {"video": entry.video.name, "label": entry.label, "class_name": name, "settings": settings | more}
        metadata = json.loads(json.dumps(metadata))
        file = _file(out, entry, several=False)
        if file in files:  # the same seconds of a video with another label, as in EPIC-KITCHENS
            file = _file(out, entry, several=True)
        if file in files:
            continue
        files[file] = None
        if file.exists():
            _check_same(file, metadata)
        else:
            jobs.append(Job(entry.video, file, {key: json.dumps(value) for key, value in metadata.items()}))
    return list(files), jobs


def _file(out: Path, entry: Entry, several: bool) -> Path:
    """The file of a video: its name, and a number that only this video has."""
    known = [str(identity(entry.video)), entry.label] if several else str(identity(entry.video))
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:10]
    return out / f"{re.sub(r'[^0-9A-Za-z_-]+', '_', Path(entry.video.name).stem)[-60:]}-{digest}.safetensors"


def _class_name(label: Any, classes: Any) -> Any:
    if isinstance(label, dict):
        return {head: _class_name(one, classes[head]) for head, one in label.items()}
    if isinstance(label, tuple):
        return [_class_name(one, classes) for one in label]
    return classes[label] if isinstance(label, int) and classes else None


def _check_same(file: Path, metadata: dict[str, Any]) -> None:
    """Refuse a file that was made with other settings or for another label."""
    theirs = read_metadata(file)
    ours = metadata["settings"] | {"label": metadata["label"]}
    made = theirs["settings"] | {"label": theirs["label"]}
    changed = [name for name in dict.fromkeys([*ours, *made]) if ours.get(name) != made.get(name)]
    if changed := [name for name in changed if name != "checkpoint"]:
        listed = ", ".join(f"{name} {made.get(name)!r} instead of {ours.get(name)!r}" for name in changed)
        raise ValueError(f"{file} was made with {listed}; give another folder, or delete this one")
