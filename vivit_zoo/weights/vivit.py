"""transformers' ViViT (model_type vivit): names, defaults, preprocessing file."""

from torch import Tensor

from vivit_zoo.weights.family import Family, defaults
from vivit_zoo.weights.names import Table, layers, transformer_block
from vivit_zoo.weights.original import as_original, fold_class_positions

__all__ = ["BLOCKS", "EMBEDDING", "LAYER", "VIVIT"]

LAYER = "encoder.layer.{}."
# Names of transformers 4.x, of the hub's files, and of what 5.x saves; 5.x in memory: see `renames`.
EMBEDDING: Table = layers(
    ("tubelet_embed.proj", "embeddings.patch_embeddings.projection"), weight="o c t h w -> o (c t h w)"
)
BLOCKS: Table = transformer_block(
    "encoder.blocks.{}.",
    LAYER,
    qkv="attention.attention.[query|key|value]",
    proj="attention.output.dense",
    mlp=("intermediate.dense", "output.dense"),
)
TABLE: Table = {
    **EMBEDDING,
    "encoder.cls_token.token": ("embeddings.cls_token", "1 1 d -> d"),
    "encoder.pos_embed.table": ("embeddings.position_embeddings", "1 n d -> n d"),
    **BLOCKS,
    **layers(("encoder.norm", "layernorm"), ("head", "classifier")),
}


def _prepare(tensors: dict[str, Tensor]) -> None:
    """The class token keeps the position that was folded into it; the position of its own is zero."""
    tensors["encoder.pos_embed.table"] = as_original(tensors["encoder.pos_embed.table"])


VIVIT = Family(
    name="ViViT",
    architecture="VivitForVideoClassification",
    prefix="vivit.",
    renames={
        r"^layers\.": "encoder.layer.",
        r"^(encoder\.layer\.\d+\.attention\.)([qkv])_proj": lambda found: (
            found[1] + "attention." + {"q": "query", "k": "key", "v": "value"}[found[2]]
        ),
        r"^(encoder\.layer\.\d+\.attention\.)o_proj": r"\1output.dense",
        r"^(encoder\.layer\.\d+\.)mlp\.fc1": r"\1intermediate.dense",
        r"^(encoder\.layer\.\d+\.)mlp\.fc2": r"\1output.dense",
    },
    defaults=defaults(image_size=224, num_frames=32, tubelet_size=[2, 16, 16], hidden_act="gelu_fast"),
    fixed={"variant": ("joint",), "global_pool": ("token", None), "class_token": (None, True)},
    table=lambda config: TABLE,
    left={
        r"pooler\.": "the pooler is not part of the classifier",
        r"embeddings\.position_ids": "a count of places, no weight",
    },
    finish=fold_class_positions,
    prepare=_prepare,
    writable=True,
)
