"""Which positions?

    python experiments/positions.py --seeds 5

Paper, section 3.4: learned ones, which come from the image model; the original code also has sine-cosine ones and none.
Rotary positions (arXiv 2104.09864) rotate queries and keys instead, over space alone or over time, too.

Expected: joint attention without positions sees a bag of tubelets: at most half. The same holds for the factorised
encoder, whose temporal encoder then does not know the order of the frames, and for rotary positions over space alone.
Learned positions start at a fiftieth of the tokens' size and need more steps.

Seen, in five seeds: as expected. Rotary positions over time and space are as good as the sine-cosine table in the
factorised encoder, and learn the order more slowly in joint attention. Within these steps learned positions reach half,
as none do.
"""

import sys
from typing import Any

from vivit_zoo.config import RotaryConfig
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Fixed, learned, rotary over space, rotary over time and space, and none, in two variants."""
    kinds: dict[str, tuple[dict[str, Any], float | None]] = {
        "sincos_3d": ({"pos_embed": "sincos_3d"}, None),
        "learned": ({"pos_embed": "learned"}, None),
        "rope over (h, w)": ({"pos_embed": "none", "rope": RotaryConfig(axes="hw")}, MovingDigits.bag_ceiling),
        "rope over (t, h, w)": ({"pos_embed": "none", "rope": RotaryConfig(axes="thw")}, None),
        "none": ({"pos_embed": "none"}, MovingDigits.bag_ceiling),
    }
    return [
        Setting(f"{name}, {kind}", base.change_model(variant=variant, **changes), ceiling)
        for variant, name in {"factorised_encoder": "factorised encoder", "joint": "joint"}.items()
        for kind, (changes, ceiling) in kinds.items()
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/positions"))
