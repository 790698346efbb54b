"""How should Model 4 divide its heads between time and space?

    python experiments/head_split.py --seeds 3

Paper, section 3.3: half and half; it reports no comparison.

Expected: without heads over space, each position attends only to itself in other frames until the average, and a digit
moves over several positions: about half. Without heads over time, each frame attends only to itself. This is not a bag
of frames, since the tokens' positions contain the time: "right, early" and "right, late" can be recognised in single
frames and counted by the average.

Seen: as expected. Without a head over time, two seeds of three learn the two motions only, and one learns the order,
too; with all heads over time none does. One head over time is as good as half of them.
"""

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vivit_zoo.attention import attend, attend_over_time
from vivit_zoo.blocks import Block
from vivit_zoo.encoders import GridEncoder
from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def attend_split(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, *, over_time: int) -> Tensor:
    """The first heads over time, the others over space: (b, t, h, n, d) -> same."""
    (q_time, q_space), (k_time, k_space), (v_time, v_space) = (x.tensor_split([over_time], dim=-3) for x in (q, k, v))
    parts = attend_over_time(q_time, k_time, v_time, dropout), attend(q_space, k_space, v_space, dropout)
    return torch.cat(parts, dim=-3)


class SplitHeads(GridEncoder):
    """Model 4 with `over_time` of its heads over time."""

    def __init__(self, t: int, n: int, dim: int, depth: int, num_heads: int, *, over_time: int, **options: Any) -> None:
        block = partial(Block, attend=partial(attend_split, over_time=over_time))
        super().__init__(t, n, dim, depth, num_heads, block=block, **options)


def settings(base: TrainConfig) -> list[Setting]:
    """From all heads over space to all over time; the paper's half and half is the library's own."""
    model, heads = base.change_model(variant="factorised_dot_product"), base.model.num_heads
    rows = [Setting("half and half", model)]
    for k in (0, 1, heads - 1, heads):
        encoder = partial(SplitHeads, over_time=k)
        rows.append(Setting(f"{k} of {heads} over time", model, encoder=encoder))
    return rows


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/head_split"))
