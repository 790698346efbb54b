"""The original JAX code's checkpoints (google-research/scenic, projects/vivit): names, layouts, and what a file tells.

Depths, widths, heads, class tokens and tubelets are read from the tensors, never from a configuration: the released
factorised-encoder checkpoint does not match its own. What no tensor tells is an argument.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.flax import flatten_tree, read_msgpack
from vivit_zoo.weights.names import Fold, Table, count_blocks, import_tensors, nest
from vivit_zoo.weights.report import Checkpoint, WeightsError

__all__ = ["ORIGINAL", "ORIGINAL_FACTORISED", "read_image", "read_params", "read_video"]

BLOCK = {
    "norm1.weight": ("LayerNorm_0/scale", "d -> d"),
    "norm1.bias": ("LayerNorm_0/bias", "d -> d"),
    "attn.qkv.weight": ("MultiHeadDotProductAttention_0/[query|key|value]/kernel", "i heads d -> (heads d) i"),
    "attn.qkv.bias": ("MultiHeadDotProductAttention_0/[query|key|value]/bias", "heads d -> (heads d)"),
    "attn.proj.weight": ("MultiHeadDotProductAttention_0/out/kernel", "heads d o -> o (heads d)"),
    "attn.proj.bias": ("MultiHeadDotProductAttention_0/out/bias", "o -> o"),
    "norm2.weight": ("LayerNorm_1/scale", "d -> d"),
    "norm2.bias": ("LayerNorm_1/bias", "d -> d"),
    "mlp.fc1.weight": ("MlpBlock_0/Dense_0/kernel", "i o -> o i"),
    "mlp.fc1.bias": ("MlpBlock_0/Dense_0/bias", "o -> o"),
    "mlp.fc2.weight": ("MlpBlock_0/Dense_1/kernel", "i o -> o i"),
    "mlp.fc2.bias": ("MlpBlock_0/Dense_1/bias", "o -> o"),
}
# Model 3's blocks have names of their own: the spatial half is the image model's block, the temporal half is added.
SPACE = {"LayerNorm_0": "LayerNorm_space", "LayerNorm_1": "LayerNorm_mlp", "MlpBlock_0": "MlpBlock"}
SPACE["MultiHeadDotProductAttention_0"] = "MultiHeadDotProductAttention_space"
FACTORISED_BLOCK = {
    name: (SPACE[theirs.split("/")[0]] + theirs[theirs.index("/") :], layout)
    for name, (theirs, layout) in BLOCK.items()
} | {
    name.replace("norm1", "norm_time").replace("attn.", "attn_time."): (
        theirs.replace("LayerNorm_0", "LayerNorm_time").replace("Attention_0", "Attention_time"),
        layout,
    )
    for name, (theirs, layout) in BLOCK.items()
    if name.startswith(("norm1", "attn"))
}
ENDS = {
    "pos_embed.table": ("posembed_input/pos_embedding", "1 n d -> n d"),
    "norm.weight": ("encoder_norm/scale", "d -> d"),
    "norm.bias": ("encoder_norm/bias", "d -> d"),
}
REST = {
    "tubelet_embed.proj.weight": ("embedding/kernel", "t h w c o -> o (c t h w)"),
    "tubelet_embed.proj.bias": ("embedding/bias", "o -> o"),
    "encoder.cls_token.token": ("cls", "1 1 d -> d"),
    "encoder.spatial.cls_token.token": ("cls_SpatialTransformer", "1 1 d -> d"),
    "encoder.temporal.cls_token.token": ("cls_TemporalTransformer", "1 1 d -> d"),
    "pre_logits.0.weight": ("pre_logits/kernel", "i o -> o i"),
    "pre_logits.0.bias": ("pre_logits/bias", "o -> o"),
    "head.weight": ("output_projection/kernel", "i o -> o i"),
    "head.bias": ("output_projection/bias", "o -> o"),
}


def _stack(ours: str, theirs: str, block: Table = BLOCK) -> dict[str, tuple[str, str | Fold]]:
    return nest(ENDS, f"{ours}.", f"{theirs}/") | nest(block, f"{ours}.blocks.{{}}.", f"{theirs}/encoderblock_{{}}/")


ORIGINAL: Table = (
    REST
    | _stack("encoder", "Transformer")
    | _stack("encoder.spatial", "SpatialTransformer")
    | _stack("encoder.temporal", "TemporalTransformer")
)
ORIGINAL_FACTORISED: Table = REST | _stack("encoder", "Transformer", FACTORISED_BLOCK)
TRAINING_STATE = "of the training, no weight"


def read_params(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The parameters of a checkpoint file under their own names, and what else is in it, with the reason to leave it.

    Raises:
        WeightsError: if the file is broken or has no parameters where the original code puts them.
    """
    tree = read_msgpack(file)
    node: Any = tree
    for path in (["optimizer", "target"], ["params"], []):
        node = tree
        for key in path:
            node = node.get(key) if isinstance(node, Mapping) else None
        if isinstance(node, Mapping) and (path or "embedding" in node):
            break
    else:
        raise WeightsError(
            f"{file} has no optimizer/target, no params and no embedding; it has {', '.join(map(str, tree))}"
        )
    left: dict[str, str] = {}
    if path:
        top, *below = path
        left = {str(key): TRAINING_STATE for key in tree if key != top}
        left |= {f"{top}/{key}": TRAINING_STATE for key in tree[top] if below and key not in below}
    prefix = "".join(f"{key}/" for key in path)
    while set(node) == {"params"} and isinstance(node["params"], Mapping):
        node, prefix = node["params"], prefix + "params/"
    params: dict[str, Tensor] = {}
    for name, value in flatten_tree(node).items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{file}: {prefix}{name} is a {type(value).__name__}, not an array")
        params[name] = value.float()
    return _number_per_kind(params), left


def _number_per_kind(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Modern names for those from before flax's Linen, where a block's parts were numbered through (MlpBlock_3)."""
    if not any("/MlpBlock_3/" in name for name in params):
        return params
    modern = {"LayerNorm_2": "LayerNorm_1", "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0"}
    modern |= {"MlpBlock_3": "MlpBlock_0"}
    pattern = "|".join(f"(?<=/){old}(?=/)" for old in modern)
    renamed = {re.sub(pattern, lambda found: modern[found[0]], name): tensor for name, tensor in params.items()}
    return {re.sub(r"^head/", "output_projection/", name): tensor for name, tensor in renamed.items()}


def read_video(file: Path, **given: Any) -> Checkpoint:
    """A video checkpoint in our terms.

    Args:
        file: named `checkpoint` in the releases.
        **given: fields of `ViViTConfig`: always `num_frames` and `image_size`; `variant` where two have the same
            tensors (joint and factorised dot-product without class token); `order` of the factorised self-attention;
            `sampled_frames` under uniform frame sampling; `global_pool="max"`. An `order` that is not given is taken
            to be the paper's, and a note in the report says so.

    Raises:
        WeightsError: on a broken file, or arguments that are missing or contradict it.
    """
    params, left = read_params(file)
    facts = read_facts(params, str(file))
    for name in ("num_frames", "image_size"):
        if name not in given:
            raise WeightsError(f"{file} does not say its {name}; pass {name}=... as it was trained")
    fitting = facts.pop("variant")
    variant = given.get("variant", fitting[0] if len(fitting) == 1 else None)
    if variant not in fitting:
        say = "does not say its variant; pass" if variant is None else f"is no {variant}; it can be"
        raise WeightsError(f"{file} {say} variant={' or '.join(fitting)}")
    for name in facts.keys() & given.keys():
        if (name != "global_pool" or given[name] == "token") and given[name] != facts[name]:
            raise WeightsError(f"{file} has {name} {facts[name]}, not {given[name]}")
    checkpoint = to_checkpoint(params, left, _config(file, facts | given | {"variant": variant}), str(file))
    if any("_time/" in name for name in params) and "order" not in given:
        checkpoint.notes.append(
            f"order is taken to be {checkpoint.config.order!r}, which the file does not say; pass order=... as trained"
        )
    return checkpoint


def read_image(file: Path, grid: tuple[int, int, int]) -> Checkpoint:
    """An image (or video) checkpoint as a model to start from: an image ViT is a joint ViViT of one frame.

    Args:
        file: as for `read_video`.
        grid: places (t, h, w) of the table that will start from it, taken as the file's own where their number agrees;
            otherwise the file's images were square.

    Raises:
        WeightsError: on a broken file, or where the file does not tell how its places lie.
    """
    params, left = read_params(file)
    facts = read_facts(params, str(file))
    variants = facts.pop("variant")
    prefix = _stack_name(params)
    places = _table(params, prefix, str(file)).shape[1] - any(name in params for name in ("cls", f"cls_{prefix}"))
    t, h, w = grid
    if places == t * h * w:
        frames = t
    elif params["embedding/kernel"].ndim == 5 and prefix == "Transformer":
        frames, rest = divmod(places, h * w)
        if rest or not frames:
            raise WeightsError(
                f"{file} has {places} places in one table, which no number of frames of {h}x{w} gives; load it with "
                "ViViT.from_pretrained and its own sizes, and pass the model"
            )
    elif places == h * w:
        frames = 1
    else:
        frames, h = 1, math.isqrt(places)
        w = h
        if h * w != places:
            raise WeightsError(f"{file} has {places} places, neither {h}x{w} nor a square")
    temporal = params.get("TemporalTransformer/posembed_input/pos_embedding")
    if temporal is not None and temporal.ndim == 3:
        frames = temporal.shape[1] - ("cls_TemporalTransformer" in params)
    t, ph, pw = facts["tubelet_size"]
    facts |= {"variant": variants[0], "num_frames": frames * t, "image_size": (h * ph, w * pw)}
    return to_checkpoint(params, left, _config(file, facts), str(file))


def _config(file: Path, fields: Mapping[str, Any]) -> ViViTConfig:
    try:
        return ViViTConfig(**fields)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{file}: {error}") from error


def _table(params: Mapping[str, Tensor], stack: str, source: str) -> Tensor:
    table = params.get(f"{stack}/posembed_input/pos_embedding")
    if table is None or table.ndim != 3:
        raise WeightsError(f"{source} has no {stack}/posembed_input/pos_embedding with 3 axes")
    return table


def _stack_name(params: Mapping[str, Tensor]) -> str:
    """Of the encoder that sees the frames' places."""
    spatial = "SpatialTransformer"
    return spatial if any(name.startswith(f"{spatial}/") for name in params) else "Transformer"


def read_facts(params: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The fields of `ViViTConfig` that the tensors tell; `variant` as a list of those that fit.

    Raises:
        WeightsError: if they are no ViT's.
    """
    kernel = params.get("embedding/kernel")
    if kernel is None or kernel.ndim not in (4, 5):
        raise WeightsError(f"{source} has no embedding/kernel with 4 or 5 axes: no ViT of the original code")
    stack = _stack_name(params)
    factorised = stack == "SpatialTransformer"
    block = f"{stack}/encoderblock_0"
    time = f"{block}/MultiHeadDotProductAttention_time/query/kernel" in params
    query = f"{block}/MultiHeadDotProductAttention_{'space' if time else '0'}/query/kernel"
    mlp = f"{block}/MlpBlock{'' if time else '_0'}/Dense_0/kernel"
    absent = [name for name in (query, mlp) if name not in params]
    if absent:
        raise WeightsError(f"{source} lacks {', '.join(absent)}: no ViT of the original code")
    t, h, w, c, dim = kernel.shape if kernel.ndim == 5 else (1, *kernel.shape)  # 4 axes: of an image model
    head, hidden = params.get("output_projection/kernel"), params.get("pre_logits/kernel")
    token = ("cls_SpatialTransformer" if factorised else "cls") in params
    if params[query].ndim != 3 or params[mlp].ndim != 2 or not dim:
        raise WeightsError(
            f"{source} has wrong shapes: {query} {tuple(params[query].shape)}, {mlp} {params[mlp].shape}"
        )
    facts: dict[str, Any] = {
        "num_classes": 0 if head is None else head.shape[-1],
        "tubelet_size": (t, h, w),
        "in_chans": c,
        "dim": dim,
        "depth": count_blocks(params, f"{stack}/encoderblock_"),
        "num_heads": params[query].shape[1],
        "mlp_ratio": params[mlp].shape[1] / dim,
        "global_pool": "token" if token else "avg",
    }
    if hidden is not None:
        facts["representation_size"] = hidden.shape[-1]
    if factorised:
        facts["variant"] = ["factorised_encoder"]
        facts["temporal_depth"] = count_blocks(params, "TemporalTransformer/encoderblock_")
        if facts["temporal_depth"]:
            first = "TemporalTransformer/encoderblock_0"
            query, mlp = f"{first}/MultiHeadDotProductAttention_0/query/kernel", f"{first}/MlpBlock_0/Dense_0/kernel"
            absent = [name for name in (query, mlp) if name not in params or params[name].ndim < 2]
            if absent:
                raise WeightsError(f"{source} lacks {', '.join(absent)}, or has it in another shape")
            facts["temporal_num_heads"] = params[query].shape[1]
            facts["temporal_mlp_ratio"] = params[mlp].shape[1] / dim
    elif time:
        facts["variant"] = ["factorised_self_attention"]
    else:
        facts["variant"] = ["joint"] if token else ["joint", "factorised_dot_product"]
    return facts


def to_checkpoint(params: Mapping[str, Tensor], left: dict[str, str], config: ViViTConfig, source: str) -> Checkpoint:
    """The original's tensors under our names, positions in the grid's shape."""
    factorised = any("_space/" in name for name in params)
    table = ORIGINAL_FACTORISED if factorised else ORIGINAL
    names = _names_of(params, table)
    kernel = params["embedding/kernel"]
    five_axes = {"embedding/kernel": kernel if kernel.ndim == 5 else kernel[None]}
    tensors, origin = import_tensors(table, names, {**params, **five_axes}, source)
    used = {theirs for others in origin.values() for theirs in others}
    unknown = [name for name in params if name not in used]
    if unknown:
        raise WeightsError(f"{source} has tensors that no ViViT has: {', '.join(unknown[:6])}")
    checkpoint = Checkpoint(source, config, tensors, origin, left=left)
    fold_class_positions(checkpoint)
    return checkpoint


def _names_of(params: Mapping[str, Tensor], table: Table) -> list[str]:
    """Our names of what is there; a block is there as a whole or not."""
    names = []
    for ours, (theirs, _) in table.items():
        for number in range(count_blocks(params, theirs.split("{}")[0])) if "{}" in ours else [None]:
            first = re.sub(r"\[(.*?)\|.*?\]", r"\1", theirs)
            if number is not None:
                names.append(ours.replace("{}", str(number)))
            elif first in params:
                names.append(ours)
    return names


def fold_class_positions(checkpoint: Checkpoint) -> None:
    """Tables (1 + n, d) of sequences with a class token -> class token + row 0, and the grid's (*grid, d), in place.

    Exact: the sum of both is all that the model ever sees of them. It stays in float64, see `fill`.

    Raises:
        WeightsError: where a table's length does not fit the configuration.
    """
    tensors, (t, h, w) = checkpoint.tensors, checkpoint.config.grid
    for name in [name for name in tensors if name.endswith("pos_embed.table")]:
        prefix = name.removesuffix("pos_embed.table")
        grid = {"encoder.spatial.": (h * w,), "encoder.temporal.": (t,)}.get(prefix, (t, h * w))
        table, token = tensors[name], f"{prefix}cls_token.token"
        extra = 1 if token in tensors else 0
        if table.ndim != 2 or len(table) != math.prod(grid) + extra:
            config = checkpoint.config
            raise WeightsError(
                f"{checkpoint.source} has {len(table) - extra} positions in {' + '.join(checkpoint.origin[name])}, but "
                f"{config.num_frames} frames{_sampled(config)} of {config.frame_size[0]}x{config.frame_size[1]} in "
                f"tubelets of {'x'.join(map(str, config.tubelet_size))} make {math.prod(grid)}; give the sizes it was "
                "trained with"
            )
        if extra:
            checkpoint.class_position = table[0] if prefix != "encoder.temporal." else checkpoint.class_position
            tensors[token] = tensors[token].double() + table[0].double()
            checkpoint.origin[token] += checkpoint.origin[name]
            checkpoint.how[token] = "class token + its position"
        tensors[name] = table[extra:].reshape(*grid, -1)


def _sampled(config: ViViTConfig) -> str:
    return "" if config.sampled_frames is None else f", {config.embedded_frames} of them sampled,"


def as_original(table: Tensor, class_position: Tensor | None = None) -> Tensor:
    """A grid's positions (*grid, d) as the originals keep them, (1 + n, d); zero for the class token if not given."""
    rows = rearrange(table.flatten(end_dim=-2), "n d -> n d")
    first = torch.zeros_like(rows[:1]) if class_position is None else class_position[None]
    return torch.cat([first, rows])
