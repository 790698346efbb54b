"""How long should tubelets be?

    python experiments/tubelet_length.py --seeds auto --max-seeds 26

Paper, Figure 8 (tubelets of 16x8, 16x4 and 16x2 on Kinetics-400): for all models, shorter is more accurate and more
expensive.

All three lengths can show a motion and distinguish the halves of a clip, so that all can learn MovingDigits. The
question is how soon: the measure is the clips until 90 %, and two lengths count as equal if the ratio is below 1.25.

Expected: 2 frames take the fewest clips. With 8 frames, two tubelets distinguish the halves and little more, and in two
clips of three one of them contains the switch.

Seen: 8 frames take about three times as many clips as 4. Between 2 and 4 frames 26 seeds decide nothing: the ratio is
between 0.8 and 1.5, close to the margin. In computation 4 frames are better: 2 frames, with twice the tokens, take
twice the GMACs to get there, which is decided.
"""

import sys

from vivit_zoo.studies.measures import ClipsToReach
from vivit_zoo.studies.study import UNTIL_LEARNED, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Of the factorised encoder, with as many frames in all; the middle one first, to compare the others with it."""
    model, patch = base.change_model(variant="factorised_encoder"), base.model.tubelet_size[1:]
    return [Setting(f"tubelets of {t}", model.change_model(tubelet_size=(t, *patch))) for t in (4, 2, 8)]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, UNTIL_LEARNED, settings, out="runs/tubelet_length", measure=ClipsToReach()))
