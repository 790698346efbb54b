"""Which variant learns the order of two motions from the fewest clips?

    python experiments/learning_speed.py                                # one seed
    python experiments/learning_speed.py --seeds auto --max-seeds 32    # until each difference from Model 1 is decided

After enough steps all four variants know every order on MovingDigits (variants.py), so that the question is how soon. A
run stops when it knows 90 % of new clips. The schedule of the learning rate is that of 600 steps for all.

Paper, Table 2: on Kinetics-400, where data are plenty, Model 1 is the most accurate, and on Epic Kitchens, where they
are few, Model 2 is.

Seen: Model 2 takes 0.77 of the clips of Model 1 (0.60 to 0.99), decided after 30 seeds. Models 3 and 4 take 0.8 to 0.9
of them, which 32 seeds leave open. In computation Models 2 and 4 are ahead: they take 0.60 and 0.65 of the GMACs of
Model 1, both decided. The seeds of Model 1 differ least. The learning curves are of the seeds from 5 on.
"""

import sys

from variants import settings as variants

from vivit_zoo.studies.measures import ClipsToReach
from vivit_zoo.studies.study import UNTIL_LEARNED, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """The four variants; the controls would never get there."""
    return variants(base)[:4]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, UNTIL_LEARNED, settings, out="runs/learning_speed", measure=ClipsToReach()))
