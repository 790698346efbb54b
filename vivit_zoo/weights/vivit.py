"""transformers' ViViT (model_type vivit): names, defaults, preprocessing file."""

from typing import Any

from torch import Tensor

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.family import Family, defaults
from vivit_zoo.weights.names import Table, layers
from vivit_zoo.weights.original import as_original, fold_class_positions
from vivit_zoo.weights.processing import Processing, processing_to_json

__all__ = ["BLOCKS", "EMBEDDING", "VIVIT", "image_processor", "short_side"]

LAYER = "encoder.layer.{}."
# Names of transformers 4.x, of the hub's files, and of what 5.x saves; 5.x in memory: see `renames`.
EMBEDDING: Table = {
    "tubelet_embed.proj.weight": ("embeddings.patch_embeddings.projection.weight", "o c t h w -> o (c t h w)"),
    "tubelet_embed.proj.bias": ("embeddings.patch_embeddings.projection.bias", "o -> o"),
}
BLOCKS: Table = layers(
    ("encoder.blocks.{}.norm1", LAYER + "layernorm_before"),
    ("encoder.blocks.{}.attn.qkv", LAYER + "attention.attention.[query|key|value]"),
    ("encoder.blocks.{}.attn.proj", LAYER + "attention.output.dense"),
    ("encoder.blocks.{}.norm2", LAYER + "layernorm_after"),
    ("encoder.blocks.{}.mlp.fc1", LAYER + "intermediate.dense"),
    ("encoder.blocks.{}.mlp.fc2", LAYER + "output.dense"),
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


def image_processor(config: ViViTConfig, processing: Processing | None = None) -> dict[str, Any]:
    """preprocessor_config.json: the pixels that our models take, for transformers' processors of images and videos."""
    usual = Processing(short_side=short_side(config))
    return processing_to_json(processing or usual, config.frame_size) | {
        "image_processor_type": "VivitImageProcessor",
        "rescale_factor": 1 / 127.5,
        "offset": True,
        # With rescaling to [-1, 1] done, normalising as well would leave the range that the weights were trained on.
        "do_normalize": False,
        "image_mean": [0.5] * config.in_chans,
        "image_std": [0.5] * config.in_chans,
    }


def short_side(config: ViViTConfig) -> int:
    """Pixels of a frame's short side before it is cropped, in the paper's proportion of 256 to 224."""
    return round(min(config.frame_size) * 256 / 224)


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
    processor=("preprocessor_config.json", image_processor),
)
