"""transformers' TimeSformer (arXiv 2102.05095): divided attention is Model 3, time before space; joint is Model 1."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.family import Family, defaults
from vivit_zoo.weights.names import Fold, Table, exactly, layers
from vivit_zoo.weights.processing import Processing
from vivit_zoo.weights.vivit import BLOCKS, LAYER

__all__ = ["TIMESFORMER"]

TOKEN = Fold("class token + its position", lambda token, table: token.double().flatten() + table[0, 0].double())
POSITIONS = Fold("positions in time + positions in space", exactly(lambda time, space: time[0, :, None] + space[0, 1:]))
# temporal_dense after the projection of the attention over time: two linear layers in a row are one.
DENSE_WEIGHT = Fold("times temporal_dense", exactly(lambda proj, dense: dense @ proj))
DENSE_BIAS = Fold("through temporal_dense", exactly(lambda proj, weight, bias: weight @ proj + bias))


TABLE: Table = {
    **layers(("tubelet_embed.proj", "embeddings.patch_embeddings.projection"), weight="o c h w -> o (c h w)"),
    "encoder.cls_token.token": ("embeddings.cls_token + embeddings.position_embeddings", TOKEN),
    "encoder.pos_embed.table": ("embeddings.time_embeddings + embeddings.position_embeddings", POSITIONS),
    **BLOCKS,
    **layers(
        ("encoder.blocks.{}.attn.qkv", LAYER + "attention.attention.qkv"),
        ("encoder.norm", "layernorm"),
        ("head", "classifier"),
    ),
}
TIME = LAYER + "temporal_attention."
DIVIDED: Table = {
    **layers(
        ("encoder.blocks.{}.norm_time", LAYER + "temporal_layernorm"),
        ("encoder.blocks.{}.attn_time.qkv", TIME + "attention.qkv"),
    ),
    "encoder.blocks.{}.attn_time.proj.weight": (
        f"{TIME}output.dense.weight + {LAYER}temporal_dense.weight", DENSE_WEIGHT,
    ),
    "encoder.blocks.{}.attn_time.proj.bias": (
        f"{TIME}output.dense.bias + {LAYER}temporal_dense.[weight|bias]", DENSE_BIAS,
    ),
}  # fmt: skip


def _read(theirs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    kinds = {"divided_space_time": "factorised_self_attention", "joint_space_time": "joint"}
    kind = theirs["attention_type"]
    if kind not in kinds:
        raise ValueError(f"attention_type {kind!r} classifies each frame on its own; known are {', '.join(kinds)}")
    return {"variant": kinds[kind], "share_class_token": kind == "divided_space_time"}


def _table(config: ViViTConfig) -> Table:
    return {**TABLE, **DIVIDED} if config.share_class_token else TABLE


TIMESFORMER = Family(
    name="TimeSformer",
    architecture="TimesformerForVideoClassification",
    prefix="timesformer.",
    defaults=defaults(
        image_size=224, patch_size=16, num_frames=8, attention_type="divided_space_time", drop_path_rate=0.0
    ),
    fixed={"global_pool": ("token",), "order": ("time_space",)},
    read=_read,
    table=_table,
    processing=Processing(short_side=224, mean=(0.45,) * 3, std=(0.225,) * 3),
    positions_filter="nearest",
)
