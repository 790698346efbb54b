"""Which parts of a pretrained video model should learn from few videos?

    python experiments/few_videos.py --seeds 5    # about eight minutes of one core

The model names the two motions of a clip (motions.py) and learns their order from 120 clips. The last row is that of
arXiv 2306.04822. Probes have five times the learning rate: with that of the others they had 68 and 53 % in two seeds.

Expected: the linear probe stays behind; the temporal half comes close to full fine-tuning.

Seen: within these 100 steps it is better to train less: the temporal half and the linear probe beat full fine-tuning.
"""

import dataclasses
import sys

from motions import SHAPES, pretrained

from vivit_zoo.datasets import MovingDigits
from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import Start, TrainConfig

DATA = dataclasses.replace(BASE.data, train_clips=120, test_clips=300)
MODEL = SHAPES["VideoPrism"].replace(num_classes=len(MovingDigits.orders))
FEW = dataclasses.replace(BASE, model=MODEL, data=DATA, steps=100, batch_size=16, eval_every=100, eval_clips=100)


def settings(base: TrainConfig) -> list[Setting]:
    """All of the model, and parts of it."""
    base = dataclasses.replace(base, start=Start(source=pretrained("VideoPrism")))
    probe = dataclasses.replace(base, lr=5 * base.lr)
    return [
        Setting("full fine-tuning", base),
        Setting("linear probe", dataclasses.replace(probe.change_model(global_pool="avg"), only="head")),
        Setting("attentive probe", dataclasses.replace(probe, only="pool")),
        Setting("temporal half, spatial frozen", dataclasses.replace(base, only="temporal")),
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, FEW, settings, out="runs/few_videos"))
