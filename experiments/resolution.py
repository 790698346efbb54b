"""Do larger frames help, with the image model's positions resized to them?

    python experiments/resolution.py --seeds 3

Paper, Table 5 (L/16x2, Model 1, Kinetics-400): 224, 288 and 320 pixels reach 80.3, 80.7 and 81.0 %.

Here the frames are the same 32 pixels rendered smaller or larger, in patches of 8, so a larger frame contains nothing
new, only more tokens. The image model (still_digits.py) was trained at 32 pixels; its positions are interpolated.

The question is about a budget: the measure is the accuracy after 150 steps (4,800 clips), when the order is not yet
learned.

Seen: at another size the image model still recognises nearly as many numbers, so resized positions work. More tokens
with the same content add nothing within this budget.
"""

import sys
from dataclasses import replace

from image_start import NUMBERED
from still_digits import pretrained
from whole_frame import WHOLE_FRAME

from vivit_zoo.datasets import DataConfig
from vivit_zoo.studies.study import Setting, run_from_command_line
from vivit_zoo.training.config import Start, TrainConfig

LEARNED = replace(
    NUMBERED.change_model(pos_embed="learned"),
    data=DataConfig(train="numbered_digits:videos", stride=1, views=(1, 1), augment=WHOLE_FRAME),
)


def resized(base: TrainConfig, side: int, start: Start) -> TrainConfig:
    """The base on frames of another size."""
    data = replace(base.data, augment=replace(base.data.augment, size=side, short_side=side))
    return replace(base.change_model(image_size=side), data=data, start=start)


def settings(base: TrainConfig) -> list[Setting]:
    """The base's frames, smaller and larger ones."""
    start = Start(source=pretrained(base.model), positions="resize_tile")
    return [Setting(f"{side} pixels", resized(base, side, start)) for side in (32, 24, 48)]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, LEARNED, settings, out="runs/resolution"))
