"""transformers' ViViT (model_type vivit): names, configuration, preprocessing file, both ways."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.names import Table, count_blocks, export_tensors, import_tensors
from vivit_zoo.weights.original import as_original, fold_class_positions
from vivit_zoo.weights.report import Checkpoint, WeightsError

__all__ = [
    "TRANSFORMERS",
    "image_processor",
    "short_side",
    "to_transformers",
    "transformers_checkpoint",
    "transformers_config",
]

LAYER = "vivit.encoder.layer.{}."
# Names of transformers 4.x, of the hub's files, and of what 5.x saves; 5.x in memory: see MODERN.
TRANSFORMERS: Table = {
    "tubelet_embed.proj.weight": ("vivit.embeddings.patch_embeddings.projection.weight", "o c t h w -> o (c t h w)"),
    "tubelet_embed.proj.bias": ("vivit.embeddings.patch_embeddings.projection.bias", "o -> o"),
    "encoder.cls_token.token": ("vivit.embeddings.cls_token", "1 1 d -> d"),
    "encoder.pos_embed.table": ("vivit.embeddings.position_embeddings", "1 n d -> n d"),
    "encoder.blocks.{}.norm1.weight": (LAYER + "layernorm_before.weight", "d -> d"),
    "encoder.blocks.{}.norm1.bias": (LAYER + "layernorm_before.bias", "d -> d"),
    "encoder.blocks.{}.attn.qkv.weight": (LAYER + "attention.attention.[query|key|value].weight", "o i -> o i"),
    "encoder.blocks.{}.attn.qkv.bias": (LAYER + "attention.attention.[query|key|value].bias", "o -> o"),
    "encoder.blocks.{}.attn.proj.weight": (LAYER + "attention.output.dense.weight", "o i -> o i"),
    "encoder.blocks.{}.attn.proj.bias": (LAYER + "attention.output.dense.bias", "o -> o"),
    "encoder.blocks.{}.norm2.weight": (LAYER + "layernorm_after.weight", "d -> d"),
    "encoder.blocks.{}.norm2.bias": (LAYER + "layernorm_after.bias", "d -> d"),
    "encoder.blocks.{}.mlp.fc1.weight": (LAYER + "intermediate.dense.weight", "o i -> o i"),
    "encoder.blocks.{}.mlp.fc1.bias": (LAYER + "intermediate.dense.bias", "o -> o"),
    "encoder.blocks.{}.mlp.fc2.weight": (LAYER + "output.dense.weight", "o i -> o i"),
    "encoder.blocks.{}.mlp.fc2.bias": (LAYER + "output.dense.bias", "o -> o"),
    "encoder.norm.weight": ("vivit.layernorm.weight", "d -> d"),
    "encoder.norm.bias": ("vivit.layernorm.bias", "d -> d"),
    "head.weight": ("classifier.weight", "o i -> o i"),
    "head.bias": ("classifier.bias", "o -> o"),
}
MODERN: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"^layers\.": "encoder.layer.",
    r"attention\.([qkv])_proj": lambda found: (
        "attention.attention." + {"q": "query", "k": "key", "v": "value"}[found[1]]
    ),
    r"attention\.o_proj": "attention.output.dense",
    r"mlp\.fc1": "intermediate.dense",
    r"mlp\.fc2": "output.dense",
}
ACTS = {
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "quick_gelu": "quick_gelu",
}
# The fields that transformers' configuration has too, or that have no effect on a trained joint model.
CARRIED = (
    "num_classes", "num_frames", "image_size", "tubelet_size", "in_chans", "dim", "depth", "num_heads", "mlp_ratio",
    "qkv_bias", "act", "norm_eps", "drop", "attn_drop", "drop_path", "order",
    "temporal_depth", "temporal_num_heads", "temporal_mlp_ratio",
)  # fmt: skip
SAVED_ACTS = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}
# What transformers' VivitConfig assumes where config.json is silent.
DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "num_frames": 32,
    "tubelet_size": [2, 16, 16],
    "num_channels": 3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu_fast",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
}


def old_name(name: str) -> str:
    """Any of the known names -> the one of the table: with `vivit.` before all but the classifier."""
    name = name.removeprefix("vivit.")
    for pattern, new in MODERN.items():
        if name.startswith(("layers.", "encoder.layer.")):
            name = re.sub(pattern, new, name)
    return name if name.startswith("classifier.") else f"vivit.{name}"


def transformers_checkpoint(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> Checkpoint:
    """A ViViT of transformers in our terms.

    Args:
        config: what config.json holds; unknown keys have no effect.
        tensors: under the names of any version, with or without the prefix, the classifier, the pooler.
        source: for messages.

    Raises:
        WeightsError: where the two contradict each other, or ask for what ViViT does not have.
    """
    theirs = {old_name(name): tensor for name, tensor in tensors.items()}
    own_names: dict[str, str] = {}
    for name in tensors:
        if (other := own_names.setdefault(old_name(name), name)) != name:
            raise WeightsError(f"{source} has one tensor twice, as {other} and as {name}; delete one of them")
    head = theirs.get("classifier.weight")
    ours, notes = transformers_config(config, source, num_classes=0 if head is None else len(head))
    depth = count_blocks(theirs, "vivit.encoder.layer.")
    if depth != ours.depth:
        raise WeightsError(f"{source}: config.json says {ours.depth} layers, the weights have {depth}")
    numbered = [name.replace("{}", str(i)) for name in TRANSFORMERS for i in (range(depth) if "{}" in name else [0])]
    skipped: tuple[str, ...] = () if ours.qkv_bias else ("attn.qkv.bias",)
    skipped += () if head is not None else ("head.weight", "head.bias")
    names = [name for name in numbered if not name.endswith(skipped)] if skipped else numbered
    found, origin = import_tensors(TRANSFORMERS, names, theirs, source)
    used = {other for others in origin.values() for other in others}
    left, unknown = {}, []
    for name in theirs.keys() - used:
        if name.startswith("vivit.pooler."):
            left[own_names[name]] = "the pooler is not part of the classifier"
        elif name == "vivit.embeddings.position_ids":
            left[own_names[name]] = "a count of places, no weight"
        else:
            unknown.append(own_names[name])
    if unknown:
        raise WeightsError(f"{source} has tensors that no ViViT has: {', '.join(sorted(unknown)[:6])}")
    origin = {name: tuple(own_names[other] for other in others) for name, others in origin.items()}
    checkpoint = Checkpoint(source, ours, found, origin, left=left, notes=notes)
    checkpoint.class_names = class_names(config, ours)
    fold_class_positions(checkpoint)
    return checkpoint


def transformers_config(config: Mapping[str, Any], source: str, num_classes: int) -> tuple[ViViTConfig, list[str]]:
    """Our configuration for theirs, with notes on what had to be rounded.

    transformers drops the frames and pixels that fill no tubelet; here a clip has none of these.

    Raises:
        WeightsError: on values that ViViT cannot have.
    """
    fields = DEFAULTS | {name: value for name, value in config.items() if name in DEFAULTS and value is not None}
    act = fields["hidden_act"]
    if not isinstance(act, str) or act not in ACTS:
        raise WeightsError(f"{source}: hidden_act {act!r} is not among {', '.join(ACTS)}")
    notes = []
    try:
        tubelet = tuple(fields["tubelet_size"])
        size = fields["image_size"]
        size = (size, size) if isinstance(size, int) else tuple(size)
        sides = (fields["num_frames"], *size)
        whole = tuple(side - side % step for side, step in zip(sides, tubelet, strict=True))
        if whole != sides:
            notes.append(f"{sides} is not divisible by {tubelet}: as transformers drops the rest, this takes {whole}")
        ours = ViViTConfig(
            variant="joint",
            global_pool="token",
            num_classes=num_classes,
            num_frames=whole[0],
            image_size=whole[1:],
            tubelet_size=tubelet,
            in_chans=fields["num_channels"],
            dim=fields["hidden_size"],
            depth=fields["num_hidden_layers"],
            num_heads=fields["num_attention_heads"],
            mlp_ratio=fields["intermediate_size"] / fields["hidden_size"],
            qkv_bias=bool(fields["qkv_bias"]),
            act=ACTS[act],
            norm_eps=fields["layer_norm_eps"],
            drop=fields["hidden_dropout_prob"],
            attn_drop=fields["attention_probs_dropout_prob"],
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{source}: config.json cannot be used: {error}") from error
    return ours, notes


def class_names(config: Mapping[str, Any], ours: ViViTConfig) -> list[str] | None:
    """The names in `id2label`; None where they are missing, too few, or transformers' own LABEL_0, LABEL_1, ..."""
    labels = config.get("id2label")
    count = ours.num_classes if isinstance(ours.num_classes, int) else 0
    found = [labels.get(str(i)) for i in range(count)] if isinstance(labels, Mapping) else []
    names = [name for name in found if isinstance(name, str)]
    return names if len(names) == count > 0 and names != [f"LABEL_{i}" for i in range(count)] else None


def to_transformers(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and tensors for `VivitForVideoClassification`.

    The class token keeps the position that was folded into it; the position of its own is zero.

    Raises:
        WeightsError: for what transformers' ViViT does not have.
    """
    config = checkpoint.config
    usual = ViViTConfig(global_pool="token")
    given = config if config.global_pool else config.replace(global_pool="token")
    wrong = [
        f"{field.name} {getattr(config, field.name)!r}"
        for field in dataclasses.fields(ViViTConfig)
        if field.name not in CARRIED and getattr(given, field.name) != getattr(usual, field.name)
    ]
    labels = 0 if isinstance(config.num_classes, dict) else config.num_classes
    if labels == 0:
        wrong.append(f"num_classes {config.num_classes}")
    if wrong:
        raise WeightsError(f"transformers has no ViViT with {', '.join(wrong)}; save in our own format")
    height, width = config.frame_size
    names = checkpoint.class_names or [f"LABEL_{i}" for i in range(labels)]
    theirs = {
        "architectures": ["VivitForVideoClassification"],
        "model_type": "vivit",
        "image_size": height if height == width else [height, width],
        "num_frames": config.num_frames,
        "tubelet_size": list(config.tubelet_size),
        "num_channels": config.in_chans,
        "hidden_size": config.dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": round(config.dim * config.mlp_ratio),
        "hidden_act": SAVED_ACTS[config.act],
        "hidden_dropout_prob": config.drop,
        "attention_probs_dropout_prob": config.attn_drop,
        "layer_norm_eps": config.norm_eps,
        "qkv_bias": config.qkv_bias,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    tensors = {name: tensor.cpu() for name, tensor in checkpoint.tensors.items()}
    tensors["encoder.pos_embed.table"] = as_original(tensors["encoder.pos_embed.table"])
    t, h, w = config.tubelet_size
    return theirs, export_tensors(TRANSFORMERS, tensors, t=t, h=h, w=w)


def image_processor(config: ViViTConfig) -> dict[str, Any]:
    """preprocessor_config.json: the pixels that the model takes, for transformers' processors of images and videos."""
    height, width = config.frame_size
    return {
        "image_processor_type": "VivitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": short_side(config)},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
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
