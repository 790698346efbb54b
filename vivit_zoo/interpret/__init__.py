"""Attention maps, attention rollout and colours of the features of a model, and pictures of them on the video.

Names are imported on first use, so importing this package loads nothing heavy.
"""

from typing import TYPE_CHECKING

from vivit_zoo.system.lazy import import_on_use

if TYPE_CHECKING:
    from vivit_zoo.interpret.attention_rollout import rollout
    from vivit_zoo.interpret.colours import dense_features, pca
    from vivit_zoo.interpret.grid import tokens_to_grid
    from vivit_zoo.interpret.maps import Maps, attention_maps, head_maps
    from vivit_zoo.interpret.overlay import attend_file
    from vivit_zoo.interpret.recording import attention_layers

__all__ = [
    "Maps",
    "attend_file",
    "attention_layers",
    "attention_maps",
    "dense_features",
    "head_maps",
    "pca",
    "rollout",
    "tokens_to_grid",
]

__getattr__ = import_on_use(
    __name__,
    {
        "colours": ["dense_features", "pca"],
        "grid": ["tokens_to_grid"],
        "maps": ["Maps", "attention_maps", "head_maps"],
        "overlay": ["attend_file"],
        "recording": ["attention_layers"],
        "attention_rollout": ["rollout"],
    },
)
