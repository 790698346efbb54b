"""transformers' VideoPrism (arXiv 2402.13217): Model 2 with its temporal encoder at each place over the frames."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from einops import einsum
from torch import Tensor

from vivit_zoo.config import AttentionPoolConfig, ViViTConfig
from vivit_zoo.weights.family import Family, defaults
from vivit_zoo.weights.names import ZERO_BIAS, Fold, Rows, Table, exactly, layers, transformer_block
from vivit_zoo.weights.processing import Processing

__all__ = ["POOL", "VIDEOPRISM", "block"]

SCALE = 1.442695041  # 1 / softplus(0), as in their code
PATCHES, POOL = "spatial_embeddings.patch_embeddings.projection", "encoder.temporal.attn_pool."
PLUS_ONE = Fold("weight + 1", lambda weight: weight + 1, lambda weight: [weight - 1])  # in the dtype of the file
block = partial(transformer_block, norm_weight=PLUS_ONE)


def _table(config: ViViTConfig) -> Table:
    table = layers(("tubelet_embed.proj", PATCHES), weight="o c t h w -> o (c t h w)")
    for half, norm in (("spatial", "layernorm1"), ("temporal", "layernorm2")):
        table[f"encoder.{half}.pos_embed.table"] = (f"{half}_embeddings.position_embeddings", "1 n d -> n d")
        table |= block(f"encoder.{half}.blocks.{{}}.", f"{half}_layers.{{}}.")
        table |= layers((f"encoder.{half}.norm", norm), weight=PLUS_ONE)
    return {**table, **layers(("head", "classifier")), **(_pool(config) if config.attn_pool else {})}


def _pool(config: ViViTConfig) -> Table:
    def scaled(q: Tensor, scale: Tensor) -> Tensor:
        return einsum(q, (SCALE * F.softplus(scale)).repeat(config.num_heads), "f ..., f -> f ...")

    scale = Fold("times softplus(scale)", exactly(scaled), lambda q: (q, q.new_zeros(len(q) // config.num_heads)))
    table: Rows = {
        POOL + "query": ("head.pooling_attention_query", "1 1 d -> d"),
        **{f"{POOL}q.{kind}": (f"head.q_proj.{kind} + head.per_dim_scale", scale) for kind in ("weight", "bias")},
        **layers((POOL + "kv", "head.[k_proj|v_proj]"), (POOL + "proj", "head.o_proj")),
        **layers((POOL + "norm", "head_layernorm"), weight=PLUS_ONE),
    }
    absent = {} if config.qkv_bias else {"q": "head.q_proj.weight", "kv": "head.[k_proj|v_proj].weight"}
    return table | {f"{POOL}{name}.bias": (theirs, ZERO_BIAS) for name, theirs in absent.items()}


def _read(theirs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    q = tensors.get("head.q_proj.weight")
    return {"global_pool": "avg"} if q is None else {"attn_pool": AttentionPoolConfig(inner_dim=len(q), mlp_ratio=None)}


def _refuse(config: ViViTConfig) -> list[str]:
    wanted = AttentionPoolConfig(inner_dim=round(config.dim * config.mlp_ratio), mlp_ratio=None)
    wrong = {
        f"attn_pool {config.attn_pool}": config.attn_pool != wanted,
        f"tubelet_size {config.tubelet_size}": config.tubelet_size[0] != 1,
        "attn_softcap None": config.attn_softcap is None,
        "qkv_bias False beside attn_pool, whose biases stay": not config.qkv_bias,
    }
    return [what for what, is_wrong in wrong.items() if is_wrong]


VIDEOPRISM = Family(
    name="VideoPrism",
    architecture="VideoPrismForVideoClassification",
    prefix="vision_model.",
    bare=("classifier.", "head.", "head_layernorm."),
    defaults=defaults(("num_hidden_layers",), image_size=288, num_frames=16, hidden_act="gelu_python")
    | {"num_spatial_layers": 12, "num_temporal_layers": 4, "tubelet_size": [1, 18, 18], "attn_logit_softcapping": 50.0},
    fields={"depth": "num_spatial_layers"},
    fixed={"variant": ("factorised_encoder",), "temporal_per_place": (True,), "global_pool": ("attention",)},
    ignored=frozenset({"drop_path", "order", "share_class_token", "attn_pool"}),
    read=_read,
    table=_table,
    processing=Processing(short_side=None, filter="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3),
    positions_filter="antialiased",
    writable=True,
    refuse=_refuse,
    processor=("video_preprocessor_config.json", {"video_processor_type": "LlavaOnevisionVideoProcessor"}),
)
