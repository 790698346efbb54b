"""Which variant learns to count how often a digit turns back, and from how many clips?

    python experiments/counted_turns.py              # one seed
    python experiments/counted_turns.py --seeds 3    # with the spread over seeds; finished cells are kept

In TurningDigits a digit moves up or down in four pieces and turns back one to three times. The order of the pieces
decides: a frame is right in a third of the clips, an unordered bag of pieces in half. A model has to compare the motion
at one time with the motions at other times. The paper has no such task.

The measure is the clips until 90 %, of at most 19,200. Two variants count as equal if the ratio is below 1.25. The two
controls cannot get there and are not compared; they show that their ceilings hold. Runs that do not get there are long,
so that there are three seeds of each.

Expected, after a pilot of Models 1 and 2 with another seed: Model 2, whose temporal encoder compares whole frames, is
the fastest.

Seen: Model 2 gets there under all three seeds, after 4,700 to 13,300 clips, the others under none within 19,200. The
ratio varies so much that three seeds decide nothing. The controls stay at their ceilings.
"""

import dataclasses
import sys

from variants import settings as variants

from vivit_zoo.datasets import TurningDigits
from vivit_zoo.studies.measures import ClipsToReach
from vivit_zoo.studies.study import UNTIL_LEARNED, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig

TURNING = dataclasses.replace(
    UNTIL_LEARNED.change_model(num_classes=len(TurningDigits.counts)),
    data=dataclasses.replace(UNTIL_LEARNED.data, train="turning_digits"),
)


def settings(base: TrainConfig) -> list[Setting]:
    """The four variants and the two controls."""
    *four, pooled, frame = variants(base)
    return [
        *four,
        dataclasses.replace(pooled, ceiling=TurningDigits.bag_ceiling),
        dataclasses.replace(frame, ceiling=TurningDigits.frame_ceiling),
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, TURNING, settings, out="runs/counted_turns", measure=ClipsToReach()))
