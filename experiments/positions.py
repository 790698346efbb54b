"""Which positions?

    python experiments/positions.py --seeds 3

Paper, section 3.4: learned ones, which come from the image model; the original code also has sine-cosine ones and none.

Expected: without any, joint attention is a bag of tubelets: at most half. The factorised encoder too, for its temporal
encoder does not know the frames' order. Learned ones start at a fiftieth of the tokens' size and need more steps.

Seen: so. Within these steps learned positions do as little as none: half, which is what can be known without an order.
"""

import sys

from vivit_zoo.datasets import MovingDigits
from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.loop import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Fixed, learned and none, of the factorised encoder and of joint attention."""
    return [
        Setting(
            f"{name}, {kind}",
            base.change_model(variant=variant, pos_embed=kind),
            MovingDigits.bag_ceiling if kind == "none" else None,
        )
        for variant, name in {"factorised_encoder": "factorised encoder", "joint": "joint"}.items()
        for kind in ("sincos_3d", "learned", "none")
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/positions"))
