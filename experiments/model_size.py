"""Does a larger model learn better?

    python experiments/model_size.py --seeds auto --max-seeds 16

Paper, Figure 7 (B against L, Model 1): on Kinetics-400, from an image start, the larger is better.

All sizes can learn MovingDigits, so that the question is how soon: the measure is the clips until 90 %. Two sizes count
as equal if the ratio is below 1.25.

Expected: width helps at the same learning rate, until the rate no longer fits; depth hardly helps.

Seen: 16 seeds decide nothing about clips. All runs get there, wider models after slightly fewer clips (a factor of 0.9
for half more width) and deeper ones after more. In computation the smaller model is better: half the width gets there
with a third of the GMACs, half more width takes nearly twice and twice the depth nearly three times as many. All three
are decided.
"""

import sys

from vivit_zoo.studies.measures import ClipsToReach
from vivit_zoo.studies.study import UNTIL_LEARNED, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Widths at the base's depth, depths at its width."""
    model = base.change_model(variant="factorised_encoder")
    dim, depth = model.model.dim, model.model.depth
    sizes = [(dim, depth), (dim // 2, depth), (dim * 3 // 2, depth), (dim, 2 * depth)]
    return [Setting(f"width {d}, depth {n}", model.change_model(dim=d, depth=n)) for d, n in sizes]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, UNTIL_LEARNED, settings, out="runs/model_size", measure=ClipsToReach()))
