"""Which variant of ViViT learns best for what it costs?

    python experiments/variants.py              # one seed, minutes on a laptop's CPU
    python experiments/variants.py --seeds 3    # with a spread; finished cells are kept

The paper's Table 2 compares its four models, and its average-pool baseline, on Kinetics-400 and Epic Kitchens. Here
they meet on MovingDigits, where what can be known is known by construction: each clip shows two motions, the class is
which came first. A single frame tells nothing (1/6), an unordered bag of tubelets tells the two motions but not their
order (1/2).

The question is what each can learn at all, so that the measure is the accuracy after 300 steps, in which the training
ends: the accuracy no longer rises. How soon they learn it is asked in learning_speed.py. Clips are as many as wanted,
each seen once.

Expected: the four variants near 100 % and equal within 5; the average-pool baseline at 1/2 and the single-frame model
at 1/6, within noise; every trained model at about 1/2 or below when the frames are shuffled, and answering with the
reversed class when the two halves of the clip are swapped.

Seen: so.
"""

import sys

from vivit_zoo.datasets import MovingDigits
from vivit_zoo.studies.measures import Accuracy
from vivit_zoo.studies.study import TRAINED, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """The four variants and the two controls."""
    return [
        Setting("joint (Model 1)", base.change_model(variant="joint")),
        Setting("factorised encoder (Model 2)", base.change_model(variant="factorised_encoder")),
        Setting("factorised self-attention (Model 3)", base.change_model(variant="factorised_self_attention")),
        Setting("factorised dot-product (Model 4)", base.change_model(variant="factorised_dot_product")),
        Setting(
            "average pool (baseline)",
            base.change_model(variant="factorised_encoder", temporal_depth=0),
            ceiling=MovingDigits.bag_ceiling,
        ),
        Setting(
            "single frame (control)",
            base.change_model(variant="joint", sampled_frames=1, tubelet_size=(1, *base.model.tubelet_size[1:])),
            ceiling=MovingDigits.frame_ceiling,
        ),
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, TRAINED, settings, out="runs/variants", measure=Accuracy(trained=True)))
