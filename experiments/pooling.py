"""A class token, or the average of all tokens?

    python experiments/pooling.py --seeds 3

Paper: Models 1 and 2 have a class token, Models 3 and 4, where it would belong to no place, an average; it prints no
comparison. (GFLOPs of Table 2 tell them apart: Model 2's are those of a token.)

Seen: for the factorised encoder no difference; joint attention learns sooner with a token.
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
