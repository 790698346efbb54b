"""How long should tubelets be?

    python experiments/tubelet_length.py --seeds 3

Paper, Figure 8 (tubelets of 16x8, 16x4 and 16x2 on Kinetics-400): for all models, shorter is more accurate and more
expensive.

Expected: 2 frames, which show a motion, are best for the budget. A tubelet of one frame shows none, so the temporal
encoder has to find it. With 8 frames, two tubelets distinguish the halves of a clip and little more.

Seen: 2 frames are best. One frame is by far the worst, at chance: a shorter tubelet helps only as long as it shows the
motion. Seeds with 4 and 8 frames differ more than the two lengths do.
"""

import sys

from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Of the factorised encoder, with as many frames in all."""
    model, patch = base.change_model(variant="factorised_encoder"), base.model.tubelet_size[1:]
    return [Setting(f"tubelets of {t}", model.change_model(tubelet_size=(t, *patch))) for t in (2, 1, 4, 8)]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/tubelet_length"))
