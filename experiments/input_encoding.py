"""How should a video be tokenised, and from which kernel should tubelet embedding start?

    python experiments/input_encoding.py --seeds 3

Paper, Table 1 (Model 1, Kinetics-400): uniform frame sampling 78.5 %; tubelets from random weights 73.2, from filter
inflation 77.6, from the central frame 79.2. The original code has a fourth start, ARP, which gives late frames more
weight.

Videos are NumberedDigits, the image model is still_digits.py's; "accuracy" counts clips with number and order right.
With uniform frame sampling a token shows a position but no motion inside it; the number of tokens is the same.

Seen: the number, which the image model knows, is kept alike by the central frame, filter inflation and frame sampling,
and lost by a random start. ARP of two frames is the second minus the first, which is zero for a still digit: it is at
chance. The order, about which the image model knows nothing, is learned by none of them in these steps.
"""

import dataclasses
import sys
from typing import get_args

from image_start import NUMBERED
from still_digits import pretrained

from vivit_zoo.studies.study import Setting, run_from_command_line
from vivit_zoo.training.config import Start, TrainConfig
from vivit_zoo.weights.resize import Tubelet


def settings(base: TrainConfig) -> list[Setting]:
    """Frames, and tubelets from the four starts; all else is from the image model in every row."""
    start = Start(source=pretrained(base.model))
    tubelets = [
        Setting(f"tubelets, {how}", dataclasses.replace(base, start=dataclasses.replace(start, tubelet=how)))
        for how in get_args(Tubelet)
    ]
    frames = {"sampled_frames": base.model.grid[0], "tubelet_size": (1, *base.model.tubelet_size[1:])}
    return [Setting("uniform frame sampling", dataclasses.replace(base.change_model(**frames), start=start)), *tubelets]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, NUMBERED, settings, out="runs/input_encoding"))
