"""How long should tubelets be?

    python experiments/tubelet_length.py --seeds 3

Paper, Figure 8 (tubelets of 16x8, 16x4 and 16x2 on Kinetics-400): for all models, the shorter, the better and dearer.

Expected: 2 frames, which show a motion each, are best for the budget; a tubelet of one frame shows none, so that the
temporal encoder must find it; of 8, two tubelets tell the halves of a clip apart, and little more.

Seen: 2 frames are best. One is worst by far, at chance: a shorter tubelet helps only as long as it shows what there is
to see. Seeds with 4 and 8 differ more than the lengths do.
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
