"""Weights in and out: dictionaries of tensors, the names they have elsewhere, and a report of where each went.

The formats are transformers' ViViT, the original JAX code's checkpoints, timm's image models, and our own. Each is a
table of names beside ours; a source becomes a `Checkpoint` in our names, and `fill` puts it into a model with nothing
silent.
"""

from vivit_zoo.weights.image import config_for_image
from vivit_zoo.weights.load import from_pretrained, read_checkpoint
from vivit_zoo.weights.report import Checkpoint, LoadReport, WeightsError
from vivit_zoo.weights.save import push_to_hub, save_pretrained
from vivit_zoo.weights.start import config_for_start, init_from_image

__all__ = [
    "Checkpoint",
    "LoadReport",
    "WeightsError",
    "config_for_image",
    "config_for_start",
    "from_pretrained",
    "init_from_image",
    "push_to_hub",
    "read_checkpoint",
    "save_pretrained",
]
