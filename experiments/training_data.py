"""Does an image start help more when there are fewer videos?

    python experiments/training_data.py --seeds 3

Paper, sections 3.4 and 4: ViViT needs large data sets, and fewer videos with an image start and with regularisation.

Videos are NumberedDigits, the image model is still_digits.py's. Expected: the fewer clips, the larger the difference in
the number; with 250 clips, seen about twenty times each, neither order nor number of new clips is recognised well.

Seen: the image start is about as far ahead in the number with 250 clips as with 100,000, and 250 clips are enough to
learn the order from random weights. The limit here is the number of steps, not the number of clips.
"""

import dataclasses
import sys

from image_start import NUMBERED
from still_digits import pretrained

from vivit_zoo.studies.study import Setting, run_from_command_line
from vivit_zoo.training.config import Start, TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Random weights and the image model's, on ever fewer clips, for as many steps."""
    starts = {"random weights": Start(), "image model": Start(source=pretrained(base.model))}
    return [
        Setting(
            f"{clips:,} clips, {name}",
            dataclasses.replace(base, start=start, data=dataclasses.replace(base.data, train_clips=clips)),
        )
        for clips in (100_000, 1_000, 250)
        for name, start in starts.items()
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, NUMBERED, settings, out="runs/training_data"))
