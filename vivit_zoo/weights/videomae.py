"""transformers' VideoMAE (arXiv 2203.12602): the joint encoder without class token, over fixed positions."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.family import Family, defaults
from vivit_zoo.weights.names import ZERO_KEY_BIAS, Table, layers
from vivit_zoo.weights.processing import Processing
from vivit_zoo.weights.vivit import BLOCKS, EMBEDDING

__all__ = ["VIDEOMAE"]

TABLE: Table = {
    **EMBEDDING,
    **BLOCKS,
    "encoder.blocks.{}.attn.qkv.bias": ("encoder.layer.{}.attention.attention.[q_bias|v_bias]", ZERO_KEY_BIAS),
    **layers(("head", "classifier")),
}


def _read(theirs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    fields: dict[str, Any] = {"qkv_bias": bool(theirs.get("qkv_bias", theirs["qv_bias"]))}
    if "fc_norm.weight" in tensors:
        return fields
    if "classifier.weight" in tensors:
        raise ValueError("its classifier reads the first patch (use_mean_pooling is false), which no ViViT does")
    last = "before_pool" if "layernorm.weight" in tensors else "none"
    return fields | {"last_norm": last, "last_norm_eps": None}


def _table(config: ViViTConfig) -> Table:
    if config.last_norm == "none":
        return TABLE
    return {**TABLE, **layers(("encoder.norm", "fc_norm" if config.last_norm == "after_pool" else "layernorm"))}


VIDEOMAE = Family(
    name="VideoMAE",
    architecture="VideoMAEForVideoClassification",
    prefix="videomae.",
    bare=("classifier.", "fc_norm."),
    renames={r"(attention\.attention\.)(query|value)\.bias": lambda found: f"{found[1]}{found[2][0]}_bias"},
    defaults=defaults(
        ("qkv_bias",), image_size=224, patch_size=16, num_frames=16, tubelet_size=2, layer_norm_eps=1e-12, qv_bias=True
    )
    | {"use_mean_pooling": True},
    fields={"qkv_bias": "qv_bias"},
    fixed={
        "variant": ("joint",),
        "global_pool": ("avg",),
        "class_token": (None, False),
        "pos_embed": ("sincos_1d",),
        "last_norm": ("after_pool",),
        "last_norm_eps": (1e-5,),  # of fc_norm, whatever that of the blocks
    },
    read=_read,
    table=_table,
    left={
        r"decoder\.|encoder_to_decoder\.|mask_token$": "the decoder of the pretraining",
        r"embeddings\.position_embeddings$": "fixed positions, computed here",
    },
    processing=Processing(short_side=224, stride=4, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    writable=True,
    processor=(
        "preprocessor_config.json",
        {"image_processor_type": "VideoMAEImageProcessor", "video_processor_type": "VideoMAEVideoProcessor"},
    ),
)
