"""How many layers does the factorised encoder's temporal encoder need?

    python experiments/temporal_depth.py --seeds 3

Paper, Table 3 (B/16x2 on Kinetics-400): 0, 1, 4, 8 and 12 layers reach 75.8, 78.6, 78.8, 78.8 and 78.9 %: the first
layer brings nearly everything.

Expected: half without one (a bag of frames has no order); most with one; little more with further ones.

Seen: as expected up to four layers. With eight layers training has not finished after these few steps.
"""

import sys

from vivit_zoo.datasets import MovingDigits
from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig

BAG = MovingDigits.bag_ceiling


def settings(base: TrainConfig) -> list[Setting]:
    """From the paper's average-pool baseline on."""
    model = base.change_model(variant="factorised_encoder")
    return [
        Setting(f"{depth} temporal layers", model.change_model(temporal_depth=depth), None if depth else BAG)
        for depth in (0, 1, 2, 4, 8)
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/temporal_depth"))
