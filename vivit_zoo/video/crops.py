"""A rectangle of scaled frames, and which part of the stored frames shows it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Crop", "Span", "source_span"]

_FAR = 0.002  # scaled pixels of misplacement that one more scaled pixel in the source part is worth


@dataclass(frozen=True)
class Crop:
    """A rectangle of frames that are scaled first.

    Args:
        scaled: (h, w) to which whole frames are scaled, in pixels.
        corner: (top, left) of the rectangle in the scaled frames.
        size: (h, w) of the rectangle.

    Raises:
        ValueError: if the rectangle does not lie within the scaled frames.
    """

    scaled: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        for whole, start, length in zip(self.scaled, self.corner, self.size, strict=True):
            if not (0 <= start <= start + length <= whole and length > 0):
                raise ValueError(
                    f"the crop of {self.size} at {self.corner} must lie within frames scaled to {self.scaled}"
                )

    def turned(self, transpose: bool, flip_rows: bool, flip_columns: bool) -> "Crop":
        """The crop to take of stored frames so that it is this one after `transpose`, then the flips, are applied."""
        corner = tuple(
            whole - start - length if flip else start
            for whole, start, length, flip in zip(
                self.scaled, self.corner, self.size, (flip_rows, flip_columns), strict=True
            )
        )
        order = -1 if transpose else 1
        scaled, corner, size = (tuple(pair)[::order] for pair in (self.scaled, corner, self.size))
        return Crop(scaled, corner, size)  # type: ignore[arg-type]


class Span(NamedTuple):
    """Samples from `start` to before `stop`, the number of pixels to scale them to, and where the crop begins there."""

    start: int
    stop: int
    scaled: int
    offset: int


def source_span(start: int, length: int, scaled: int, whole: int, step: int) -> Span:
    """The samples of a side that a crop shows, chosen so that they scale to whole pixels nearly exactly.

    A part that begins at a whole sample seldom begins at a whole scaled pixel. Among the possible beginnings and ends,
    multiples of `step` or the end of the side, this takes those with the smallest misplacement and the fewest samples.

    Args:
        start, length: of the crop, in pixels after scaling.
        scaled, whole: pixels of the whole side after and before scaling.
        step: samples of the side that share their colour.
    """
    ratio = scaled / whole
    first = max(0, int(start / ratio) - 2)
    last = min(whole, int((start + length) / ratio) + 3)
    starts = np.arange(0, first + 1, step)
    begin = int(starts[np.argmin(_misplaced(starts * ratio) + _FAR * ratio * (first - starts))])
    stops = np.append(np.arange(last + -last % step, whole, step), whole)
    end = int(stops[np.argmin(_misplaced((stops - begin) * ratio) + _FAR * ratio * (stops - last))])
    offset = start - round(begin * ratio)
    return Span(begin, end, max(round((end - begin) * ratio), offset + length), offset)


def _misplaced(places: np.ndarray) -> np.ndarray:
    return np.abs(places - np.rint(places))
