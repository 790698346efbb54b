"""Data sets of videos: each item is (video (c, t, h, w), label), or ((v, c, t, h, w), label) for testing in v views.

Videos of files are uint8 in [0, 255]; those of the embedded data sets (`MovingDigits`, ...) are floating-point in
[-1, 1]. A label is a class number, or for several heads a dictionary of them; `.classes` names the classes in the same
form.
"""

from typing import TYPE_CHECKING

from vivit_zoo.system.lazy import import_on_use

if TYPE_CHECKING:
    from vivit_zoo.datasets.catalogue import Catalogue, read_catalogue
    from vivit_zoo.datasets.check import check_videos
    from vivit_zoo.datasets.config import DataConfig, DataSets
    from vivit_zoo.datasets.cups import HiddenDigits
    from vivit_zoo.datasets.digits import MovingDigits, NumberedDigits
    from vivit_zoo.datasets.embedded import EmbeddedClips
    from vivit_zoo.datasets.turns import TurningDigits
    from vivit_zoo.datasets.videos import VideoClips, VideoViews

__all__ = [
    "Catalogue",
    "DataConfig",
    "DataSets",
    "EmbeddedClips",
    "HiddenDigits",
    "MovingDigits",
    "NumberedDigits",
    "TurningDigits",
    "VideoClips",
    "VideoViews",
    "check_videos",
    "read_catalogue",
]

__getattr__ = import_on_use(
    __name__,
    {
        "catalogue": ["Catalogue", "read_catalogue"],
        "check": ["check_videos"],
        "config": ["DataConfig", "DataSets"],
        "cups": ["HiddenDigits"],
        "digits": ["MovingDigits", "NumberedDigits"],
        "embedded": ["EmbeddedClips"],
        "turns": ["TurningDigits"],
        "videos": ["VideoClips", "VideoViews"],
    },
)
