"""Train models on clips: configuration, training loop, data loading, checkpoints, and the command line of a recipe.

Names are imported on first use, so importing this package loads nothing heavy.
"""

from typing import TYPE_CHECKING

from vivit_zoo.system.lazy import import_on_use

if TYPE_CHECKING:
    from vivit_zoo.training.config import Start, TrainConfig
    from vivit_zoo.training.loop import Trained, train
    from vivit_zoo.training.losses import binary_cross_entropy, cross_entropy, squared_error
    from vivit_zoo.training.mixing import cutmix, mixup
    from vivit_zoo.training.optim import WeightAverage, warmup_cosine
    from vivit_zoo.training.options import make_parser
    from vivit_zoo.training.run import train_and_report, train_from_command_line

__all__ = [
    "Start",
    "TrainConfig",
    "Trained",
    "WeightAverage",
    "binary_cross_entropy",
    "cross_entropy",
    "cutmix",
    "make_parser",
    "mixup",
    "squared_error",
    "train",
    "train_and_report",
    "train_from_command_line",
    "warmup_cosine",
]

__getattr__ = import_on_use(
    __name__,
    {
        "config": ["Start", "TrainConfig"],
        "loop": ["Trained", "train"],
        "losses": ["binary_cross_entropy", "cross_entropy", "squared_error"],
        "mixing": ["cutmix", "mixup"],
        "optim": ["WeightAverage", "warmup_cosine"],
        "options": ["make_parser"],
        "run": ["train_and_report", "train_from_command_line"],
    },
)
