"""How should the temporal attention of Model 3 start, which no image model has?

    python experiments/temporal_start.py --seeds 3

Paper, section 3.4: with zeros, so that the model starts as the image model on each frame. The default of the original
code copies the spatial attention instead. If all weights are zero, only the last bias gets a gradient, so the temporal
attention never learns ("zero"). If only the output weights are zero, the model starts the same and learns ("zero_out",
our default).

Expected: "zero" remains a bag of frames; for the others the order is learned after enough steps.

Seen: these steps are too few for any of them to learn the order. The number shows more: a start as the image model
("zero_out", "zero") keeps what it knows, and a copy of the spatial attention does not.
"""

import dataclasses
import sys
from typing import get_args

from image_start import NUMBERED
from still_digits import pretrained

from vivit_zoo.studies.study import Setting, run_from_command_line
from vivit_zoo.training.config import Start, TrainConfig
from vivit_zoo.weights.rules import Temporal


def settings(base: TrainConfig) -> list[Setting]:
    """The four starts; all else is from the image model in every row."""
    model = base.change_model(variant="factorised_self_attention", pos_embed="learned")
    source = pretrained(base.model)
    return [
        Setting(how, dataclasses.replace(model, start=Start(source=source, temporal=how))) for how in get_args(Temporal)
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, NUMBERED, settings, out="runs/temporal_start"))
