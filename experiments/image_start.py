"""What does a start from an image model bring?

    python experiments/image_start.py --seeds 3

Paper, section 3.4: ViViT is started from an image model, because videos with labels are few; without, it does not get
far. Here the image model (still_digits.py) knows which number a digit is and has never seen one move. The videos are
NumberedDigits, where each clip has two labels, the number and the order of its two motions, as a noun and a verb of
Epic Kitchens; "accuracy" is both right.

Expected: from the image model the number is known far better at the same budget, whatever the tubelets' start; the
order, of which still images tell nothing, is no better, and later with the central frame, which begins blind to time.

Seen: so, and the second weighs as much as the first: from the image model more than twice as many numbers are right,
but the order, which random weights learn in these steps, is not learned, so that both together are right less often.
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
