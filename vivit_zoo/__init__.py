"""vivit_zoo: modular ViViT (Video Vision Transformer, arXiv 2103.15691) variants for research.

The blocks are importable one by one (`vivit_zoo.attention`, `blocks`, `tokens`, `encoders`); the models are built by
`create_model`. Importing this package loads torch and einops only.
"""

from vivit_zoo.model import SIZES, ViViT, ViViTConfig, create_model

__version__ = "0.1.0"
__all__ = ["SIZES", "ViViT", "ViViTConfig", "create_model"]
