"""Which learning rates lose what an image model knows, and which keep a video model from learning the rest?

    python experiments/layer_decay.py --seeds 3

Layer-wise decay gives each layer the learning rate of the one above times a factor: the usual way to fine-tune. The
paper fine-tunes all layers at one rate. Videos are NumberedDigits, the image model is still_digits.py's.

Expected: the smaller the factor, the more of the number is kept and the later the order comes; random weights, which
have nothing to keep, are better off with one rate.

Seen: the first holds for the number, as far as the seeds agree; for random weights the opposite, a smaller factor is no
worse and here rather better.
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
