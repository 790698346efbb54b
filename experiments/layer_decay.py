"""Which learning rates destroy what an image model knows, and which prevent a video model from learning the rest?

    python experiments/layer_decay.py --seeds 3

With layer-wise decay the learning rate of each layer is that of the next layer times a factor, as usual in fine-tuning.
The paper fine-tunes all layers with one rate. Videos are NumberedDigits, the image model is still_digits.py's.

Expected: with a smaller factor more of the number is kept, and the order is learned later. Random weights, which have
nothing to keep, are better with one rate.

Seen: the first holds for the number, as far as the seeds agree. The second does not: for random weights a smaller
factor is no worse, and here rather better.
"""

import dataclasses
import sys

from image_start import NUMBERED
from still_digits import pretrained

from vivit_zoo.studies.study import Setting, run_from_command_line
from vivit_zoo.training.config import Start, TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Three factors, of the image model and of random weights."""
    starts = {"image model": Start(source=pretrained(base.model)), "random weights": Start()}
    return [
        Setting(f"{name}, {decay or 1:g}", dataclasses.replace(base, start=start, layer_decay=decay))
        for name, start in starts.items()
        for decay in (None, 0.75, 0.6)
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, NUMBERED, settings, out="runs/layer_decay"))
