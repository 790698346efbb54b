"""Decoded frames to crops of RGB in one step of FFmpeg's converter.

Decoded frames are YUV, with the colours of 2x2 pixels stored once. To convert a frame to RGB, resize it, and cut out a
crop makes three arrays, of which the first is the largest. libswscale does all three in one pass over the part of the
frame that the crop shows.
"""

from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from vivit_zoo.video.crops import Crop, source_span

__all__ = ["CropConverter"]

# Planar YUV of 8 bits: how many (rows, columns) of the luma share a sample of colour. Frames of other formats are
# scaled as a whole.
_PLANAR = {
    f"yuv{kind}{name}p": shared
    for name, shared in {"420": (2, 2), "422": (1, 2), "444": (1, 1)}.items()
    for kind in ("", "j")
}


class CropConverter:
    """Convert decoded frames to a crop of them: channels (h, w) uint8 in [0, 255].

    Scaling is bilinear and antialiased, by libswscale, directly from the stored YUV samples to the scaled size. Only
    the part of a frame that the crop shows is read. Since the part begins and ends at whole samples, its scaled pixels
    may lie up to about 0.1 pixels beside those of the scaled whole frame.

    Args:
        crop: of the frames as they are stored.
        gray: the luma in place of RGB.
        threads: of the converter.
    """

    def __init__(self, crop: Crop, gray: bool, threads: int) -> None:
        self.crop, self.threads = crop, threads
        self.format = "gray" if gray else "gbrp"
        self._order = [0] if gray else [2, 0, 1]
        self._reformatter = VideoReformatter()
        self._source: Any = None
        self._parts: list[tuple[np.ndarray, tuple[slice, slice]]] = []  # of the source's planes, and where it is from
        self._key: tuple[int, int, str] | None = None

    def __call__(self, frame: Any) -> list[np.ndarray]:
        """A frame of PyAV -> its channels.

        Raises:
            av.error.FFmpegError, MemoryError, ValueError: if it cannot be converted.
        """
        key = (frame.height, frame.width, frame.format.name)
        if key != self._key:
            self._key = key
            self._plan(*key)
        source = frame if self._source is None else self._cut(frame)
        rows, columns = self._rows, self._columns
        scaled = self._reformatter.reformat(
            source,
            columns.scaled,
            rows.scaled,
            self.format,
            interpolation=Interpolation.BILINEAR,
            threads=self.threads,
        )
        height, width = self.crop.size
        return [
            _samples(scaled.planes[place])[rows.offset : rows.offset + height, columns.offset : columns.offset + width]
            for place in self._order
        ]

    def _plan(self, height: int, width: int, format_name: str) -> None:
        steps = _PLANAR.get(format_name, (height, width))
        sides = zip(self.crop.corner, self.crop.size, self.crop.scaled, (height, width), steps, strict=True)
        self._rows, self._columns = rows, columns = [source_span(*side) for side in sides]
        self._source, self._parts = None, []
        if (rows.stop - rows.start, columns.stop - columns.start) == (height, width):
            return
        self._source = av.VideoFrame(columns.stop - columns.start, rows.stop - rows.start, format_name)
        for place, plane in enumerate(self._source.planes):
            down, across = steps if place else (1, 1)
            top, left = rows.start // down, columns.start // across
            taken = slice(top, top + plane.height), slice(left, left + plane.width)
            self._parts.append((_samples(plane)[: plane.height, : plane.width], taken))

    def _cut(self, frame: Any) -> Any:
        """The part of a frame that is scaled, as a frame that the next call overwrites."""
        source = self._source
        for (part, taken), whole in zip(self._parts, frame.planes, strict=True):
            part[...] = _samples(whole)[taken]
        source.colorspace, source.color_range = frame.colorspace, frame.color_range
        source.color_primaries, source.color_trc = frame.color_primaries, frame.color_trc
        return source


def _samples(plane: Any) -> np.ndarray:
    """The memory of a plane of 8 bits, (rows, bytes a row)."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
