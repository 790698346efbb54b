"""transformers' V-JEPA 2 (arXiv 2506.09985): the joint encoder with rotary positions, and an attentive classifier."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vivit_zoo.config import AttentionPoolConfig, RotaryConfig, ViViTConfig
from vivit_zoo.weights.family import Family, defaults
from vivit_zoo.weights.folds import halves_from_pairs
from vivit_zoo.weights.names import Fold, Table, layers, transformer_block
from vivit_zoo.weights.processing import Processing

__all__ = ["VJEPA2"]

LAYER, QKV, CROSS = "encoder.layer.{}.", "attention.[query|key|value]", "pooler.cross_attention_layer."
PATCHES, OURS, POOL = "encoder.embeddings.patch_embeddings.proj", "encoder.blocks.{}.", "encoder.attn_pool."
TABLE: Table = {
    **layers(("tubelet_embed.proj", PATCHES), weight="o c t h w -> o (c t h w)"),
    **transformer_block(OURS, LAYER, norms=("norm1", "norm2"), qkv=QKV, proj="attention.proj"),
    **layers(("encoder.norm", "encoder.layernorm")),
}
POOLER: Table = {
    **transformer_block(
        POOL + "blocks.{}.",
        "pooler.self_attention_layers.{}.",
        norms=("layer_norm1", "layer_norm2"),
        qkv="self_attn.[q_proj|k_proj|v_proj]",
        proj="self_attn.out_proj",
    ),
    **layers((POOL + "norm_pre", CROSS + "layer_norm1"), (POOL + "norm", CROSS + "layer_norm2")),
    **layers((POOL + "q", CROSS + "cross_attn.q_proj"), (POOL + "kv", CROSS + "cross_attn.[k_proj|v_proj]")),
    **layers(("head", "classifier"), *((f"{POOL}mlp.fc{i}", f"{CROSS}mlp.fc{i}") for i in (1, 2))),
    POOL + "query": ("pooler.query_tokens", "1 1 d -> d"),
    # Theirs adds the attention to the query, and has no projection after it.
    POOL + "proj.weight": ("pooler.query_tokens", Fold("identity", lambda query: torch.eye(query.shape[-1]))),
    POOL + "proj.bias": ("pooler.query_tokens", Fold("the query, which is added there", torch.flatten)),
}


def _read(theirs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if "pooler.query_tokens" not in tensors:
        return {"global_pool": "avg"}
    pool = AttentionPoolConfig(depth=theirs["num_pooler_layers"], pre_norm=True)
    return {"global_pool": "attention", "attn_pool": pool}


def _table(config: ViViTConfig) -> Table:
    def rotary(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([halves_from_pairs(q, config.num_heads), halves_from_pairs(k, config.num_heads), v])

    fold = Fold("rotary pairs of channels moved from neighbours to halves", rotary)
    qkv = layers((OURS + "attn.qkv", LAYER + QKV), weight=fold, bias=fold)
    return {**TABLE, **qkv, **(POOLER if config.global_pool == "attention" else {})}


VJEPA2 = Family(
    name="V-JEPA 2",
    architecture="VJEPA2ForVideoClassification",
    prefix="vjepa2.",
    bare=("classifier.", "pooler."),
    defaults=defaults(("num_channels", "intermediate_size", "hidden_dropout_prob"))
    | {"crop_size": 256, "patch_size": 16, "in_chans": 3, "frames_per_clip": 64, "tubelet_size": 2}
    | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "mlp_ratio": 4.0}
    | {"drop_path_rate": 0.0, "num_pooler_layers": 3},
    fields={"image_size": "crop_size", "num_frames": "frames_per_clip", "in_chans": "in_chans"},
    fixed={
        "variant": ("joint",),
        "pos_embed": ("none",),
        "rope": (RotaryConfig(axes="thw", base=10000.0, coords="index", tiled=True),),
    },
    read=_read,
    table=_table,
    left={r"predictor\.": "the predictor of the pretraining"},
    processing=Processing(short_side=292, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
)
