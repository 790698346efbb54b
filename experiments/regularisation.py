"""What does each regulariser add on few videos?

    python experiments/regularisation.py --seeds 3

Paper, Table 4 (Model 2, Epic Kitchens, each added to those before): random crop, flip and colour jitter 38.4 %; + start
from Kinetics 39.6; + stochastic depth 40.2; + RandAugment 41.1; + label smoothing 43.1; + mixup 43.7.

Here 500 clips are seen about ten times each. There is no crop and no flip, since they would change the class. The
strengths are the paper's for Epic Kitchens (Table 7). RandAugment's Cutout was made for frames of 224 pixels and covers
all of 32: it removes whole clips, one in six. The question is about a budget: the measure is the accuracy after 150
steps (4,800 clips), and regularised models may learn more in more steps.

Seen: the opposite. 500 clips are enough for a model without any regulariser, so nothing is to be gained, and
RandAugment at this strength, with everything added to it, prevents learning within this budget.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Any

from whole_frame import AS_VIDEOS

from vivit_zoo.studies.study import Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig

FEW = replace(AS_VIDEOS.change_model(variant="factorised_encoder"), data=replace(AS_VIDEOS.data, train_clips=500))


def augmented(config: TrainConfig, **changes: Any) -> TrainConfig:
    """With another augmentation."""
    return replace(config, data=replace(config.data, augment=replace(config.data.augment, **changes)))


def settings(base: TrainConfig) -> list[Setting]:
    """Each row has what the rows above it have."""
    changes: list[tuple[str, Callable[[TrainConfig], TrainConfig]]] = [
        ("none", lambda c: c),
        ("+ colour jitter", lambda c: augmented(c, colour=0.8)),
        ("+ stochastic depth 0.2", lambda c: c.change_model(drop_path=0.2)),
        ("+ RandAugment 2, 15", lambda c: augmented(c, rand_augment_layers=2, rand_augment_magnitude=15)),
        ("+ label smoothing 0.2", lambda c: replace(c, label_smoothing=0.2)),
        ("+ mixup 0.1", lambda c: replace(c, mixup=0.1)),
    ]
    steps = accumulate(changes, lambda config, change: change[1](config), initial=base)
    return [Setting(name, config) for (name, _), config in zip(changes, list(steps)[1:], strict=True)]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, FEW, settings, out="runs/regularisation"))
