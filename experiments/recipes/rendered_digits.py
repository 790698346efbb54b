"""Several labels a video, or several numbers: a small model on the clips that experiments/render_digits.py writes.

    python experiments/render_digits.py --clips 2000 --out data/digits
    python experiments/recipes/rendered_digits.py
    python experiments/recipes/rendered_digits.py --data.task regression --data.targets '[right,down,clockwise]' \
        --out runs/digit_speeds

The first task is which motions occur in a clip: right, down, clockwise; each clip has two of the three. The second is
how fast each motion is, in pixels or radians a frame, 0 where it does not occur. A single frame shows neither: guessing
gives a mean average precision of about 0.67, and an r2 of 0. Clips are whole files of 16 frames; nothing is augmented,
because a mirror image would move to the left.

Seen: see docs/multi-label.md.
"""

import dataclasses
import sys

from vivit_zoo.datasets import DataConfig
from vivit_zoo.studies.cells import BASE as EMBEDDED
from vivit_zoo.training.run import train_from_command_line
from vivit_zoo.video.augment import Augment

BASE = dataclasses.replace(
    EMBEDDED,
    model=EMBEDDED.model.replace(num_classes=0),
    data=DataConfig(
        train="data/digits/train.csv",
        test="data/digits/test.csv",
        task="multi_label",
        stride=1,
        views=(1, 1),
        augment=Augment(size=32, scale_jitter=(1, 1), flip=0, colour=0, gray=0),
    ),
    steps=200,
    workers=1,
)

if __name__ == "__main__":
    sys.exit(train_from_command_line(__doc__, BASE, out="runs/digit_motions"))
