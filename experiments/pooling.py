"""A class token, or the average of all tokens?

    python experiments/pooling.py --seeds 3

Paper: Models 1 and 2 have a class token; Models 3 and 4, where it would belong to no position, use an average. It
reports no comparison. (The GFLOPs of Table 2 show which is used: those of Model 2 are the ones with a token.)

Seen: no difference for the factorised encoder; joint attention learns sooner with a token.
"""

import sys

from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Both, where there is a choice."""
    return [
        Setting(f"{name}, {pool}", base.change_model(variant=variant, global_pool=pool))
        for variant, name in {"factorised_encoder": "factorised encoder", "joint": "joint"}.items()
        for pool in ("avg", "token")
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/pooling"))
