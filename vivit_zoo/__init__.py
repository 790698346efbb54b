"""vivit_zoo: modular ViViT (Video Vision Transformer, arXiv 2103.15691) variants for research.

The blocks are importable one by one (`vivit_zoo.attention`, `blocks`, `tokens`, `encoders`); the models are built by
`create_model`. Importing this package loads torch and einops only.
"""

from typing import TYPE_CHECKING, Any

from vivit_zoo.model import SIZES, ViViT, ViViTConfig, create_model

if TYPE_CHECKING:
    from vivit_zoo.weights import LoadReport, WeightsError, init_from_image

__version__ = "0.1.0"
__all__ = [
    "SIZES",
    "LoadReport",
    "ViViT",
    "ViViTConfig",
    "WeightsError",
    "create_model",
    "init_from_image",
]


def __getattr__(name: str) -> Any:
    # The weights need more than torch and einops, so they are imported when they are first asked for.
    if name in ("LoadReport", "WeightsError", "init_from_image"):
        import vivit_zoo.weights

        return getattr(vivit_zoo.weights, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
