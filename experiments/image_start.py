"""How much does a start from an image model help?

    python experiments/image_start.py --seeds 3

Paper, section 3.4: ViViT starts from an image model, since there are few labelled videos; without it, it is less
accurate. Here the image model (still_digits.py) was trained on the number of a digit and has never seen a motion. The
videos are NumberedDigits, where each clip has two labels, the number and the order of its two motions, like noun and
verb in Epic Kitchens; "accuracy" counts clips with both right.

Expected: with the image model the number is recognised far better at the same budget, however the tubelets start. The
order, about which still images say nothing, is no better, and is learned later with the central frame, which starts
blind to time.

Seen: as expected, and both effects are large: with the image model more than twice as many numbers are right, but the
order, which random weights learn within these steps, is not learned. So both together are right less often.
"""

import dataclasses
import sys

from still_digits import pretrained

from vivit_zoo.datasets import NumberedDigits
from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import Start, TrainConfig

NUMBERED = dataclasses.replace(
    BASE.change_model(variant="factorised_encoder", num_classes={"number": 10, "order": len(NumberedDigits.orders)}),
    data=dataclasses.replace(BASE.data, train="numbered_digits"),
    layer_decay=0.6,  # else the image model's layers forget the number within these few steps
)


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
    sys.exit(run_from_command_line(__doc__, NUMBERED, settings, out="runs/image_start"))
