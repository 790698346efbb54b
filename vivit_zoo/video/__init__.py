"""A file or bytes -> frames -> a clip -> pixels.

`vivit_zoo.video.augment` is imported by its own name, since it needs torchvision.
"""

from vivit_zoo.video.clips import ClipSampler, Views, Windows, clip_indices, clip_offsets
from vivit_zoo.video.preprocess import Preprocess, normalise
from vivit_zoo.video.reader import VideoReader, read_video
from vivit_zoo.video.source import VideoError

__all__ = [
    "ClipSampler",
    "Preprocess",
    "VideoError",
    "VideoReader",
    "Views",
    "Windows",
    "clip_indices",
    "clip_offsets",
    "normalise",
    "read_video",
]
