"""transformers' VideoPrism (arXiv 2402.13217): Model 2 with its temporal encoder at each place over the frames."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vivit_zoo.config import AttentionPoolConfig, ViViTConfig
from vivit_zoo.weights.family import Family, defaults
from vivit_zoo.weights.names import Fold, Table, count_blocks, exactly, layers
from vivit_zoo.weights.processing import Processing
from vivit_zoo.weights.report import Checkpoint

__all__ = ["VIDEOPRISM"]


# In the dtype of the file, as its own code does.
PLUS_ONE = Fold("weight + 1", lambda weight: weight + 1, lambda weight: [weight - 1])


def _half(half: str, number: int) -> Table:
    ours, theirs = f"encoder.{half}.blocks.{{}}.", f"{half}_layers.{{}}."
    return {
        f"encoder.{half}.pos_embed.table": (f"{half}_embeddings.position_embeddings", "1 n d -> n d"),
        **_blocks(ours, theirs),
        **layers((f"encoder.{half}.norm", f"layernorm{number}"), weight=PLUS_ONE),
    }


def _blocks(ours: str, theirs: str) -> Table:
    norms = (ours + "norm1", theirs + "layernorm_before"), (ours + "norm2", theirs + "layernorm_after")
    return {
        **layers(*norms, weight=PLUS_ONE),
        **layers(*((ours + name, theirs + name) for name in ("mlp.fc1", "mlp.fc2"))),
        **layers((ours + "attn.qkv", theirs + "attention.[q_proj|k_proj|v_proj]")),
        **layers((ours + "attn.proj", theirs + "attention.o_proj")),
    }


PATCHES = "spatial_embeddings.patch_embeddings.projection."
TABLE: Table = {
    "tubelet_embed.proj.weight": (PATCHES + "weight", "o c t h w -> o (c t h w)"),
    "tubelet_embed.proj.bias": (PATCHES + "bias", "o -> o"),
    **_half("spatial", 1),
    **_half("temporal", 2),
    **layers(("head", "classifier")),
}


def _table(config: ViViTConfig) -> Table:
    if config.attn_pool is None:
        return TABLE
    inner = config.attn_pool.inner_dim or config.dim

    def scaled(q: Tensor, scale: Tensor) -> Tensor:
        # 1.442695041 as in their code: 1 / softplus(0).
        factor = (1.442695041 * F.softplus(scale)).repeat(config.num_heads)
        return q * (factor if q.ndim == 1 else factor[:, None])

    def unscaled(q: Tensor) -> Sequence[Tensor]:
        return q, torch.zeros(inner // config.num_heads, dtype=q.dtype)

    scale = Fold("times softplus(per_dim_scale) / softplus(0)", exactly(scaled), unscaled)
    ours = "encoder.temporal.attn_pool."
    table = {
        **TABLE,
        ours + "query": ("head.pooling_attention_query", "1 1 d -> d"),
        ours + "q.weight": ("head.q_proj.weight + head.per_dim_scale", scale),
        ours + "q.bias": ("head.q_proj.bias + head.per_dim_scale", scale),
        **layers((ours + "kv", "head.[k_proj|v_proj]"), (ours + "proj", "head.o_proj")),
        **layers((ours + "norm", "head_layernorm"), weight=PLUS_ONE),
        **_blocks(ours + "blocks.{}.", "auxiliary_layers.{}."),
    }
    if not config.qkv_bias:
        missing = "zero: the source has no bias here"
        table |= {
            f"{ours}{name}.bias": ("", Fold(missing, partial(torch.zeros, n * inner)))
            for n, name in ((1, "q"), (2, "kv"))
        }
    return table


def _read(theirs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if "head.q_proj.weight" not in tensors:
        return {"global_pool": "avg"}
    depth = count_blocks(tensors, "auxiliary_layers.")  # of the video tower of a video-text model
    if depth and (theirs["intermediate_size"] != 4 * theirs["hidden_size"] or not theirs["qkv_bias"]):
        raise ValueError("its video tower has MLPs that are not 4 times as wide, or no biases of queries")
    pool = AttentionPoolConfig(depth=depth, inner_dim=len(tensors["head.q_proj.weight"]), mlp_ratio=None)
    return {"global_pool": "attention", "attn_pool": pool}


def _refuse(config: ViViTConfig) -> list[str]:
    wanted = AttentionPoolConfig(inner_dim=round(config.dim * config.mlp_ratio), mlp_ratio=None)
    return [] if config.attn_pool == wanted else [f"attn_pool {config.attn_pool}"]


def _finish(checkpoint: Checkpoint) -> None:
    if checkpoint.config.attn_pool and checkpoint.config.attn_pool.depth:
        checkpoint.notes.append("the source divides the pooled features by their length; here they come as they are")


VIDEOPRISM = Family(
    name="VideoPrism",
    architecture="VideoPrismForVideoClassification",
    prefix="vision_model.",
    renames={r"^(video_model\.)?(vision_model\.)?": ""},
    left={r"text_model\.": "the text tower"},
    bare=("classifier.", "head.", "head_layernorm."),
    defaults=defaults(("num_hidden_layers",), image_size=288, num_frames=16, hidden_act="gelu_python")
    | {"tubelet_size": [1, 18, 18]}
    | {"num_spatial_layers": 12, "num_temporal_layers": 4, "attn_logit_softcapping": 50.0},
    fields={
        "depth": "num_spatial_layers",
        "temporal_depth": "num_temporal_layers",
        "attn_softcap": "attn_logit_softcapping",
    },
    fixed={"variant": ("factorised_encoder",), "temporal_per_place": (True,), "global_pool": ("attention",)},
    ignored=frozenset({"drop_path", "order", "share_class_token", "attn_pool"}),
    read=_read,
    table=_table,
    processing=Processing(short_side=None, filter="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3),
    positions_filter="antialiased",
    finish=_finish,
    writable=True,
    refuse=_refuse,
    processor=(
        "video_preprocessor_config.json",
        lambda config: {"video_processor_type": "LlavaOnevisionVideoProcessor"},
    ),
)
