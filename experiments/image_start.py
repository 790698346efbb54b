"""How much does a start from an image model help?

    python experiments/image_start.py --seeds auto --max-seeds 8

Paper, section 3.4: ViViT starts from an image model, since there are few labelled videos; without it, it is less
accurate. Here the image model (still_digits.py) was trained on the number of a digit and has never seen a motion. The
videos are NumberedDigits, where each clip has two labels, the number and the order of its two motions, like noun and
verb in Epic Kitchens.

The image model itself recognises 40 % of the numbers, at all angles and from 8x8 pixels. A start helps if the video
model is soon where the image model is, so that the measure is the clips until 30 % of the numbers, three quarters of
that. Two starts count as equal if the ratio is below 1.25. What the start does to the order is asked in
training_data.py.

Expected: with the image model the number is recognised after far fewer clips, however the tubelets start.

Seen: so. Within 500 clips the start has 30 % of the numbers, and random weights do not get there within 9,600.
"""

import dataclasses
import sys

from still_digits import pretrained

from vivit_zoo.datasets import NumberedDigits
from vivit_zoo.studies.measures import ClipsToReach
from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import Start, TrainConfig

NUMBERED = dataclasses.replace(
    BASE.change_model(variant="factorised_encoder", num_classes={"number": 10, "order": len(NumberedDigits.orders)}),
    data=dataclasses.replace(BASE.data, train="numbered_digits"),
    layer_decay=0.6,  # else the image model's layers forget the number within these few steps
)
# An evaluation every five steps: with the image model, the number is soon there.
SOON = dataclasses.replace(NUMBERED, steps=300, eval_every=5, eval_clips=200)
NUMBER = ClipsToReach(head="number", accuracy=0.3)


def settings(base: TrainConfig) -> list[Setting]:
    """Random weights and the image model's."""
    source = pretrained(base.model)
    starts = {
        "random weights": Start(),
        "image model, central frame": Start(source=source, tubelet="central_frame"),
        "image model, filter inflation": Start(source=source, tubelet="filter_inflation"),
    }
    return [Setting(name, dataclasses.replace(base, start=start)) for name, start in starts.items()]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, SOON, settings, out="runs/image_start", measure=NUMBER))
