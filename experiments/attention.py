"""Is the moving object what the model looks at?

    python experiments/attention.py              # trains the four variants on MovingDigits, a minute each on two cores
    python experiments/attention.py --seeds 3    # finished cells are kept

The paper shows no attention maps.
"""

import sys
from pathlib import Path
from statistics import mean

import torch
from einops import reduce
from torch import Tensor
from variants import settings as variants

from vivit_zoo.ablation import BASE, Cell, Setting, run_from_command_line
from vivit_zoo.checkpoint import write_whole
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.maps import rollout
from vivit_zoo.model import ViViT
from vivit_zoo.train import TrainConfig, train

CLIPS = 200


def settings(base: TrainConfig) -> list[Setting]:
    """The four variants, without the controls."""
    return variants(base)[:4]


def covered(video: Tensor, model: ViViT) -> Tensor:
    """What share of each tubelet's pixels the digit covers: (b, 1, T, H, W) in [-1, 1] -> (b, t, n) in [0, 1]."""
    t, h, w = model.config.tubelet_size
    digit = (video > -0.4).float()  # the noise ends at -0.8
    return reduce(digit, "b 1 (t pt) (h ph) (w pw) -> b t (h w)", "mean", pt=t, ph=h, pw=w)


def preference(relevance: Tensor, cover: Tensor) -> Tensor:
    """The digit's share of the relevance over its share of the area, for each clip; 1 is none: (b, t, n) -> (b,)."""
    return (relevance * cover).sum((1, 2)) / cover.mean((1, 2))


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/attention"))
