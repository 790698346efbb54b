"""Sliding windows: which frames of a video each of them takes."""

import numpy as np
import pytest

from vivit_zoo.video.clips import Windows
from vivit_zoo.video.reader import VideoError


class Numbered:
    """A video of so many frames at 10 a second."""

    def __init__(self, length):
        self.length, self.times = length, np.arange(length) / 10

    def __len__(self):
        return self.length


@pytest.mark.parametrize(
    ("windows", "length", "expected"),
    [
        (Windows(frames=4, stride=2), 16, [[0, 2, 4, 6], [8, 10, 12, 14]]),
        (Windows(frames=4, stride=2), 17, [[0, 2, 4, 6], [8, 10, 12, 14], [16, 16, 16, 16]]),
        (Windows(frames=4, stride=2, policy="error"), 17, [[0, 2, 4, 6], [8, 10, 12, 14]]),
        (Windows(frames=4, stride=2, hop=1), 11, [[0, 2, 4, 6], [2, 4, 6, 8], [4, 6, 8, 10]]),
        (Windows(frames=3, stride=1, hop=5), 9, [[0, 1, 2], [5, 6, 7]]),
        (Windows(frames=3, stride=1, hop=5), 11, [[0, 1, 2], [5, 6, 7], [10, 10, 10]]),
        (Windows(frames=4, stride=2), 3, [[0, 2, 2, 2]]),
        (Windows(frames=2, fps=5.0), 8, [[0, 2], [4, 6]]),
        (Windows(frames=2, fps=5.0), 9, [[0, 2], [4, 6], [8, 8]]),
        (Windows(frames=2, fps=20.0, hop=1), 2, [[0, 0], [0, 1], [1, 1]]),
        (Windows(frames=4, stride=1, policy="wrap"), 6, [[0, 1, 2, 3], [4, 5, 0, 1]]),
    ],
    ids=str,
)
def test_windows_cover_the_video(windows, length, expected):
    assert windows.indices(Numbered(length)).tolist() == expected


def test_windows_that_cannot_be():
    with pytest.raises(ValueError, match="hop 0 is not positive"):
        Windows(hop=0)
    with pytest.raises(VideoError, match="3 frames are too few"):
        Windows(frames=4, stride=1, policy="error").indices(Numbered(3))
