"""Where a video lies: a file or a part of one, a folder of numbered images, a member of a tar shard, a row of a table.

Each is small, can be pickled, has a `name` for messages, and opens to something that is read as a `VideoReader` is.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from vivit_zoo.video.reader import Frame, VideoError, VideoReader

__all__ = [
    "ArrayReader",
    "FrameFolder",
    "Place",
    "Reader",
    "TableRow",
    "TarMember",
    "VideoFile",
    "is_image",
    "is_junk",
    "is_video",
]

_VIDEOS = {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".vob", ".webm", ".wmv"}
_VIDEOS |= {".3gp", ".m2ts", ".mts", ".ts"}
_IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# What systems and archivers leave behind beside hidden files; none of it is data.
_JUNK = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__", "#recycle"}
# Optical flow, which denseflow and mmaction2 lay beside the frames.
_FLOW = ("flow_", "x_", "y_")


def is_video(name: str | Path) -> bool:
    """Whether a file's name ends as those of videos do."""
    return Path(name).suffix.lower() in _VIDEOS


def is_image(name: str | Path) -> bool:
    """Whether a file's name ends as those of images do."""
    return Path(name).suffix.lower() in _IMAGES


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or left behind by a system or an archiver."""
    return name.startswith(".") or name.lower() in _JUNK


class Reader(Protocol):
    """An open video: what `VideoReader` offers and the samplers of clips ask for."""

    @property
    def name(self) -> str: ...
    @property
    def times(self) -> np.ndarray: ...
    def __len__(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def close(self) -> None: ...
    def read(self, indices: Sequence[int] | np.ndarray, change: Callable[[Frame], Frame] | None = None) -> np.ndarray:
        """The frames with these numbers: (t, h, w, c) uint8 in [0, 255]."""
        ...


class Place(Protocol):
    """Where a video lies. `open` takes what `VideoReader` takes: gray, threads, ...; it raises VideoError."""

    @property
    def name(self) -> str: ...
    def open(self, **options: Any) -> Reader: ...
    def exists(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file, or those of its frames that are shown from `start` to before `stop`, in seconds from the first."""

    path: Path
    start: float = 0.0
    stop: float = inf

    @property
    def name(self) -> str:
        return str(self.path) if self.stop == inf else f"{self.path} from {self.start:g} s to {self.stop:g} s"

    def open(self, **options: Any) -> Reader:
        video = VideoReader(self.path, **options)
        return video if self.stop == inf else _Part(video, self)

    def exists(self) -> bool:
        return self.path.exists()


class _Part:
    """The frames of an open video between two times; they are numbered from 0."""

    def __init__(self, video: VideoReader, source: VideoFile) -> None:
        self.name, self.video = source.name, video
        self.first, self.last = (int(at) for at in np.searchsorted(video.times, (source.start, source.stop)))
        if self.first == self.last:
            video.close()
            raise VideoError(f"{source.name}: there are no frames; the video ends at {video.times[-1]:g} s")
        times = video.times[self.first : self.last]
        self.times = times - times[0]

    def __len__(self) -> int:
        return self.last - self.first

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.video.close()

    def read(self, indices: Sequence[int] | np.ndarray, change: Callable[[Frame], Frame] | None = None) -> np.ndarray:
        _check_numbers(self.name, indices, len(self))
        return self.video.read([self.first + int(number) for number in indices], change)


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """A folder of numbered images, or `count` of them from the one at place `first` (counted from 0) on.

    The number is the last one in a file's name (img_00001.jpg, frame_0000000001.jpg, 7.png); it gives the order. Images
    of optical flow (flow_..., x_..., y_...) are passed over.
    """

    folder: Path
    first: int = 0
    count: int | None = None

    @property
    def name(self) -> str:
        return str(self.folder) if self.count is None else f"{self.folder}, {self.count} images from {self.first} on"

    def open(self, gray: bool = False, **_: Any) -> Reader:
        images = _numbered_images(self.folder)
        wanted = images[self.first :] if self.count is None else images[self.first : self.first + self.count]
        if not wanted or len(wanted) < (self.count or 0):
            raise VideoError(f"{self.name}: the folder holds only {len(images)} numbered images")
        return _Images(self.name, wanted, gray)

    def exists(self) -> bool:
        return self.folder.is_dir()


@lru_cache(maxsize=64)  # the clips of one long video share their folder, which may hold a hundred thousand images
def _numbered_images(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise VideoError(f"{folder}: {'not a folder of images' if folder.exists() else 'there is no such folder'}")
    found: dict[int, Path] = {}
    for path in folder.iterdir():
        numbers = re.findall(r"\d+", path.stem)
        if is_image(path) and numbers and not path.name.startswith(_FLOW):
            other = found.setdefault(int(numbers[-1]), path)
            if other is not path:
                raise VideoError(
                    f"{folder}: {other.name} and {path.name} have the same number; keep one series a folder"
                )
    return tuple(found[number] for number in sorted(found))


class _FrameByFrame:
    """Frames that can be had one by one, in any order, read as a video."""

    name: str

    def __len__(self) -> int:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        pass

    def read(self, indices: Sequence[int] | np.ndarray, change: Callable[[Frame], Frame] | None = None) -> np.ndarray:
        _check_numbers(self.name, indices, len(self))
        frames: dict[int, Frame] = {}
        for number in sorted({int(number) for number in indices}):
            frame = self._frame(number)
            frames[number] = frame if change is None else change(frame)
        shapes = {frame.shape for frame in frames.values()}
        if len(shapes) > 1:
            raise VideoError(f"{self.name}: the images differ in size (h, w, c): {', '.join(map(str, sorted(shapes)))}")
        return np.stack([frames[int(number)] for number in indices])

    def _frame(self, number: int) -> Frame:
        raise NotImplementedError


@dataclass
class _Images(_FrameByFrame):
    """Image files in order."""

    name: str
    images: Sequence[Path]
    gray: bool

    def __len__(self) -> int:
        return len(self.images)

    @property
    def times(self) -> np.ndarray:
        raise ValueError(f"{self.name}: images do not tell their frame rate; sample by `stride`, not by `fps`")

    def _frame(self, number: int) -> Frame:
        from PIL import Image

        try:
            with Image.open(self.images[number]) as image:
                pixels = np.asarray(image.convert("L" if self.gray else "RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for broken files of one kind or another
            raise VideoError(f"{self.images[number]}: the image cannot be read ({error})") from error
        return pixels[..., None] if self.gray else pixels


@dataclass
class ArrayReader(_FrameByFrame):
    """Frames in memory, (t, h, w, c) uint8 in [0, 255], at a rate in frames a second."""

    name: str
    frames: np.ndarray
    rate: float

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def times(self) -> np.ndarray:
        return np.arange(len(self)) / self.rate

    def _frame(self, number: int) -> Frame:
        return self.frames[number]


@dataclass(frozen=True, slots=True)
class TarMember:
    """A video inside an uncompressed tar file, found by its place and length in bytes."""

    shard: Path
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.shard}::{self.member}"

    def open(self, **options: Any) -> Reader:
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise VideoError(f"{self.name}: {error.strerror}") from error
        return VideoReader(data, name=self.name, **options)

    def exists(self) -> bool:
        return self.shard.exists()


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a Hugging Face `datasets.Dataset` whose column gives paths, or paths and bytes."""

    table: Any = field(repr=False)
    row: int
    column: str

    @property
    def name(self) -> str:
        return f"row {self.row}"

    def open(self, **options: Any) -> Reader:
        value = self.table[self.row][self.column]
        path, data = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (value, None)
        name = f"{self.name} ({path})" if path else self.name
        if data is not None:
            return VideoReader(data, name=name, **options)
        if path is None:
            raise VideoError(f"{name}: its column {self.column!r} is empty")
        return VideoReader(path, **options)

    def exists(self) -> bool:
        return True


def _check_numbers(name: str, indices: Sequence[int] | np.ndarray, length: int) -> None:
    for number in indices:
        if not 0 <= number < length:
            raise IndexError(f"{name}: there is no frame {number}; they are numbered 0 to {length - 1}")
