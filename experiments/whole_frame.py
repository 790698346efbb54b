"""Base of the studies that cut, scale or change the clips of MovingDigits: read as videos, whole and unchanged."""

from dataclasses import replace

from vivit_zoo.datasets import DataConfig, MovingDigits
from vivit_zoo.studies.study import BASE
from vivit_zoo.video.augment import Augment

WHOLE_FRAME = Augment(
    size=MovingDigits.side, short_side=MovingDigits.side, scale_jitter=(1, 1), flip=0, colour=0, gray=0
)
AS_VIDEOS = replace(
    BASE, data=DataConfig(train="moving_digits:videos", train_clips=10_000, stride=1, views=(1, 1), augment=WHOLE_FRAME)
)
