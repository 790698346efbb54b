"""Does it matter whether Model 3 attends over space or over time first?

    python experiments/block_order.py --seeds 3

Paper, section 3.3: the order makes no difference.

Seen: here the order changes the speed of learning. After these few steps, the model with space first has learned the
order of the motions under most seeds, the model with time first under none.
"""

import sys

from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """The paper's order, and the other."""
    model = base.change_model(variant="factorised_self_attention")
    return [
        Setting("space, then time", model),
        Setting("time, then space", model.change_model(order="time_space")),
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/block_order"))
