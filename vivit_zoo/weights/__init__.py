"""Weights in and out: dictionaries of tensors, the names they have elsewhere, and a report of where each went.

The formats are transformers' video models, the original JAX code's checkpoints, image models, and our own. Each is a
table of names beside ours; a source becomes a `Checkpoint` in our names, and `fill` puts it into a model with nothing
silent.
"""

from typing import TYPE_CHECKING

from vivit_zoo.system.lazy import import_on_use

if TYPE_CHECKING:
    from vivit_zoo.weights.load import load_pretrained, read_checkpoint
    from vivit_zoo.weights.report import Checkpoint, LoadReport, WeightsError
    from vivit_zoo.weights.save import push_to_hub, save_pretrained
    from vivit_zoo.weights.start import config_for_image, init_from_image

__all__ = [
    "Checkpoint",
    "LoadReport",
    "WeightsError",
    "config_for_image",
    "init_from_image",
    "load_pretrained",
    "push_to_hub",
    "read_checkpoint",
    "save_pretrained",
]

__getattr__ = import_on_use(
    __name__,
    {
        "load": ["load_pretrained", "read_checkpoint"],
        "report": ["Checkpoint", "LoadReport", "WeightsError"],
        "save": ["push_to_hub", "save_pretrained"],
        "start": ["config_for_image", "init_from_image"],
    },
)
