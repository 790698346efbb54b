"""Where a video is: a file or a part of one, a folder of numbered images, a member of a tar shard, a row of a table.

Each is small, can be pickled, has a `name` for messages, and opens to something that is read as a `VideoReader` is.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from vivit_zoo.video.crops import Crop
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
    return os.path.splitext(name)[1].lower() in _VIDEOS


def is_image(name: str | Path) -> bool:
    """Whether a file's name ends as those of images do."""
    return os.path.splitext(name)[1].lower() in _IMAGES


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
    """Where a video is. `open` takes what `VideoReader` takes: gray, threads, ...; it raises VideoError."""

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
        return os.path.exists(self.path)  # False, where pathlib raises for a name too long


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
        return self.video.read(self._in_file(indices), change)

    def read_crops(self, requests: Sequence[tuple[np.ndarray, Callable[[int, int], Crop]]]) -> list[np.ndarray]:
        return self.video.read_crops([(self._in_file(indices), choose) for indices, choose in requests])

    @property
    def can_crop(self) -> bool:
        return self.video.can_crop

    def _in_file(self, indices: Sequence[int] | np.ndarray) -> list[int]:
        _check_numbers(self.name, indices, len(self))
        return [self.first + int(number) for number in indices]


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """A folder of numbered images, or `count` of them from the one at place `first` (counted from 0) on.

    The numbers in the names give the order, from the left to the right (img_00001.jpg, 7.png, 10-59-59.png,
    shot1_frame004.jpg); the names must otherwise be alike. Images of optical flow (flow_..., x_..., y_...) are left
    out.
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
        return os.path.isdir(self.folder)


@lru_cache(maxsize=64)  # the clips of one long video share their folder, which may hold a hundred thousand images
def _numbered_images(folder: Path) -> tuple[Path, ...]:
    """The images with numbers in their names, in natural order: by all numbers of a name, from the left.

    Raises:
        VideoError: if that leaves the order open, or there is no such folder.
    """
    if not os.path.isdir(folder):
        there = os.path.exists(folder)
        raise VideoError(f"{folder}: {'not a folder of images' if there else 'there is no such folder'}")
    found: dict[tuple[int, ...], Path] = {}
    kinds: dict[str, Path] = {}
    for path in folder.iterdir():
        numbers = re.findall("[0-9]+", path.stem)
        if not numbers or not is_image(path) or is_junk(path.name) or path.name.startswith(_FLOW):
            continue
        kinds.setdefault(re.sub("[0-9]+", "#", path.stem), path)
        other = found.setdefault(tuple(map(int, numbers)), path)
        if len(kinds) > 1:
            one, two = sorted(path.name for path in list(kinds.values())[:2])
            raise VideoError(f"{folder}: {one} and {two} are of two series; keep one series of images in a folder")
        if other is not path:
            one, two = sorted((other.name, path.name))
            raise VideoError(f"{folder}: {one} and {two} have the same number; keep one series of images in a folder")
    digits = {len(digits) for path in found.values() for digits in re.findall(r"[0-9]\.([0-9]+)", path.stem)}
    if len(digits) > 1:
        raise VideoError(
            f"{folder}: the numbers in the names have {min(digits)} to {max(digits)} digits behind a point, which may "
            "be decimals or numbers; write all with as many"
        )
    return tuple(found[numbers] for numbers in sorted(found))


class _FrameByFrame:
    """Frames that can be read one by one, in any order, as a video."""

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
        return read_image(self.images[number], self.gray)


def read_image(path: Path, gray: bool = False) -> Frame:
    """An image file, upright: (h, w, c) uint8 in [0, 255], of 1 or 3 channels. 16 bits are scaled to 8.

    Raises:
        VideoError: if it cannot be read, has pixels without a known range, or holds several pictures.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            # Not those of JPEG, where a phone puts a small copy behind the picture.
            pictures = getattr(image, "n_frames", 1) if image.format in ("GIF", "PNG", "TIFF", "WEBP") else 1
            if pictures > 1:
                raise VideoError(f"{path}: holds {pictures} pictures; an image of a folder is one frame")
            if image.format == "TIFF":  # Pillow maps files that it knows by name, with the sides of turned ones swapped
                image.filename = ""
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
                image = _to_eight_bits(image)
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                kind = "floating-point numbers" if image.mode == "F" else "whole numbers of 32 bits"
                raise VideoError(f"{path}: its pixels are {kind}, without a known range; save it with 8 or 16 bits")
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("L" if gray else "RGB"))
    except VideoError:
        raise
    except Exception as error:  # PIL's readers raise errors of many kinds for broken files
        raise VideoError(f"{path}: the image cannot be read ({error or type(error).__name__})") from error
    return pixels[..., None] if gray else pixels


def _to_eight_bits(image: Any) -> Any:
    """Gray pixels of 16 bits scaled to 8; the orientation is kept."""
    from PIL import Image

    scaled = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    scaled.info["exif"] = image.getexif().tobytes()
    return scaled


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
    """A row of a Hugging Face `datasets.Dataset` whose column gives paths, or paths and bytes.

    `path` is what stands there, where that is known without reading bytes.
    """

    table: Any = field(repr=False)
    row: int
    column: str
    path: str | None = None

    @property
    def name(self) -> str:
        return f"row {self.row}"

    def open(self, **options: Any) -> Reader:
        value = self.table[self.row][self.column]
        path, data = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (value, None)
        name = f"{self.name} ({path})" if path else self.name
        if data is not None:
            return VideoReader(data, name=name, **options)
        if path is None or path == "":
            raise VideoError(f"{name}: its column {self.column!r} is empty")
        if not isinstance(path, str | bytes):
            raise VideoError(f"{name}: its column {self.column!r} holds {path!r}, which is no path")
        return VideoReader(path, **options)

    def exists(self) -> bool:
        return True


def _check_numbers(name: str, indices: Sequence[int] | np.ndarray, length: int) -> None:
    for number in indices:
        if not 0 <= number < length:
            raise IndexError(f"{name}: there is no frame {number}; they are numbered 0 to {length - 1}")
