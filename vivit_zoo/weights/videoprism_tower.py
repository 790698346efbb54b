"""VideoPrism's video tower, alone or out of a video-text model: more blocks before the pooling, no classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vivit_zoo.config import AttentionPoolConfig, ViViTConfig
from vivit_zoo.weights.names import Table, count_blocks
from vivit_zoo.weights.report import Checkpoint
from vivit_zoo.weights.videoprism import POOL, VIDEOPRISM, block

__all__ = ["VIDEOPRISM_TOWER"]


def _table(config: ViViTConfig) -> Table:
    return {**VIDEOPRISM.table(config), **block(POOL + "blocks.{}.", "auxiliary_layers.{}.")}


def _read(theirs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if theirs["intermediate_size"] != 4 * theirs["hidden_size"] or not theirs["qkv_bias"]:
        raise ValueError("its video tower has MLPs that are not 4 times as wide, or no biases of queries")
    depth, inner = count_blocks(tensors, "auxiliary_layers."), len(tensors["head.q_proj.weight"])
    return {"attn_pool": AttentionPoolConfig(depth=depth, inner_dim=inner, mlp_ratio=None)}


def _finish(checkpoint: Checkpoint) -> None:
    checkpoint.notes.append("the source divides the pooled features by their length; here they come as they are")


VIDEOPRISM_TOWER = dataclasses.replace(
    VIDEOPRISM,
    name="video tower of VideoPrism",
    architecture="VideoPrismVideoModel",
    renames={r"^(video_model\.)?(vision_model\.)?": ""},
    left={r"text_model\.": "the text tower"},
    read=_read,
    table=_table,
    finish=_finish,
    writable=False,
)
