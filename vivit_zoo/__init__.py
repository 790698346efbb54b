"""vivit_zoo: modular ViViT (Video Vision Transformer, arXiv 2103.15691) variants for research.

The blocks are importable one by one (`vivit_zoo.attention`, `blocks`, `tokens`, `encoders`); the models are built by
`create_model`. A name is imported from its file when it is first used, so that importing this package takes no time.
"""

from typing import TYPE_CHECKING

from vivit_zoo.system.lazy import import_on_use

if TYPE_CHECKING:
    from vivit_zoo.config import SIZES, ViViTConfig
    from vivit_zoo.inference import optimize_for_inference
    from vivit_zoo.model import ViViT, create_model
    from vivit_zoo.weights import LoadReport, WeightsError, config_for_image, init_from_image

__version__ = "0.2.0"
__all__ = [
    "SIZES",
    "LoadReport",
    "ViViT",
    "ViViTConfig",
    "WeightsError",
    "config_for_image",
    "create_model",
    "init_from_image",
    "optimize_for_inference",
]

__getattr__ = import_on_use(
    __name__,
    {
        "config": ["SIZES", "ViViTConfig"],
        "inference": ["optimize_for_inference"],
        "model": ["ViViT", "create_model"],
        "weights": ["LoadReport", "WeightsError", "config_for_image", "init_from_image"],
    },
)
