"""Does a larger model learn better?

    python experiments/model_size.py --seeds 3

Paper, Figure 7 (B against L, Model 1): on Kinetics-400, from an image start, the larger is better.

Expected: width helps at the same number of steps, until the learning rate no longer fits; depth hardly helps.

Seen: nothing beyond the noise. The base model reaches the maximum, and seeds of the other widths differ widely.
"""

import sys

from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Widths at the base's depth, depths at its width."""
    model = base.change_model(variant="factorised_encoder")
    dim, depth = model.model.dim, model.model.depth
    sizes = [(dim, depth), (dim // 2, depth), (dim * 3 // 2, depth), (dim, 2 * depth)]
    return [Setting(f"width {d}, depth {n}", model.change_model(dim=d, depth=n)) for d, n in sizes]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/model_size"))
