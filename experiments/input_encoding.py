"""How should a video be tokenised, and from which kernel should tubelet embedding start?

    python experiments/input_encoding.py --seeds auto --max-seeds 46

Paper, Table 1 (Model 1, Kinetics-400): uniform frame sampling 78.5 %; tubelets from random weights 73.2, from filter
inflation 77.6, from the central frame 79.2.

Videos are NumberedDigits, and all else is from the image model (still_digits.py), which knows 40 % of the numbers. A
start is good if that is soon of use, so that the measure is the clips until 30 % of the numbers, as in image_start.py;
two starts count as equal if the ratio is below 1.25. With uniform frame sampling a token shows a position but no motion
inside it; the number of tokens is the same.

Expected: the central frame, filter inflation and frame sampling are alike, since the digit hardly moves within two
frames. A random start has to learn the kernel. The original code has a fourth start, ARP, which is left out here: of
two frames it is the second minus the first, which is zero for a still digit.

Seen: a random start does not get there within 9,600 clips, and the others do within 500. Filter inflation takes 1.2
times the clips of the central frame (1.01 to 1.43, 41 seeds); frame sampling takes as many (39 seeds). With at most 28
seeds neither was decided.
"""

import dataclasses
import sys

from image_start import NUMBER, SOON
from still_digits import pretrained

from vivit_zoo.studies.study import Setting, run_from_command_line
from vivit_zoo.training.config import Start, TrainConfig


def settings(base: TrainConfig) -> list[Setting]:
    """Tubelets from three starts, and frames; all else is from the image model in every row."""
    start = Start(source=pretrained(base.model))
    tubelets = [
        Setting(f"tubelets, {how}", dataclasses.replace(base, start=dataclasses.replace(start, tubelet=how)))
        for how in ("central_frame", "filter_inflation", "random")
    ]
    frames = {"sampled_frames": base.model.grid[0], "tubelet_size": (1, *base.model.tubelet_size[1:])}
    return [*tubelets, Setting("uniform frame sampling", dataclasses.replace(base.change_model(**frames), start=start))]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, SOON, settings, out="runs/input_encoding", measure=NUMBER))
