"""`ViViT.from_pretrained`: find the files, recognise their format, adapt them to what is asked, fill a model."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.files import (
    MODEL_TYPE,
    PROCESSOR_FILES,
    Found,
    find,
    local_path,
    read_json,
    read_shapes,
    read_tensors,
)
from vivit_zoo.weights.names import count_blocks
from vivit_zoo.weights.original import read_video
from vivit_zoo.weights.processing import Processing, is_processor
from vivit_zoo.weights.report import (
    Checkpoint,
    LoadReport,
    Value,
    WeightsError,
    check,
    check_problem_type,
    fill,
)
from vivit_zoo.weights.resize import PositionsFilter, resize_kernel, resize_positions
from vivit_zoo.weights.transformers import FAMILIES, transformers_checkpoint
from vivit_zoo.weights.videoprism_npz import is_videoprism, read_videoprism

__all__ = ["MODEL_TYPE", "load_pretrained", "read_checkpoint", "read_config", "read_found"]

# What can be changed about trained weights; the rest would make them another model's.
CHANGES = (
    "num_frames", "image_size", "tubelet_size", "sampled_frames", "num_classes", "drop", "attn_drop", "drop_path",
)  # fmt: skip
# What an original checkpoint does not say.
UNSAID = ("variant", "num_frames", "image_size", "order", "sampled_frames", "global_pool")
NOT_FIELDS = ("model_type", "vivit_zoo_version", "class_names", "processing", "problem_type", "positions_filter")
LARGEST = 1 << 24

Model = TypeVar("Model", bound=nn.Module)


def load_pretrained(
    make: Callable[[ViViTConfig], Model],
    source: str | PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    tower: str | None = None,
    **changes: Any,
) -> tuple[Model, Checkpoint, LoadReport]:
    """Read a checkpoint, adapt it to the changes, build a model and fill it: what `ViViT.from_pretrained` does.

    Args:
        make: builds the model from a configuration; called on the meta device first.
        source, revision, token, tower, **changes: see `ViViT.from_pretrained`.

    Returns:
        The model, the checkpoint in our terms, and the report of every tensor.

    Raises:
        WeightsError: if the source cannot be found, read or used.
    """
    checkpoint = read_checkpoint(source, revision=revision, token=token, tower=tower, **changes)
    changes = {name: value for name, value in changes.items() if not _says(checkpoint.config, name, value)}
    config = checkpoint.config.replace(**changes)
    fixed = [name for name in changes if name not in CHANGES]
    if fixed:
        have = ", ".join(f"{name} {getattr(checkpoint.config, name)!r}" for name in fixed)
        raise WeightsError(
            f"{checkpoint.source} has {have}; trained weights can be given another {', '.join(CHANGES)}. To start "
            "another model from these, build it and call vivit_zoo.weights.init_from_image"
        )
    if config.tubelet_size[1:] != checkpoint.config.tubelet_size[1:]:
        raise WeightsError(
            f"{checkpoint.source} has patches of {checkpoint.config.tubelet_size[1:]}; only the length of its tubelets "
            "can change"
        )
    if config.pos_embed == "sincos_1d" and config.grid != checkpoint.config.grid:
        raise WeightsError(
            f"{checkpoint.source} is for {_sizes(checkpoint.config)}, not {_sizes(config)}: its fixed positions count "
            "along the sequence, so that another grid would shift them; to start another model from it, build it and "
            "call vivit_zoo.weights.init_from_image"
        )
    # On the meta device first: a broken configuration must not make a model of any size.
    try:
        with torch.device("meta"):
            skeleton = make(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{checkpoint.source}: no model can be built from its configuration: {error}") from error
    values, new, left = adapt(checkpoint, config, list(skeleton.state_dict()))
    check(skeleton, checkpoint, values, new, left)
    model = make(config)
    return model, checkpoint, fill(model, checkpoint, values, new, left)


def _sizes(config: ViViTConfig) -> str:
    height, width = config.frame_size
    return f"{config.num_frames} frames of {height}x{width}"


def _says(config: ViViTConfig, name: str, value: Any) -> bool:
    """Whether a change is none: read already, or equal."""
    if name == "image_size" and isinstance(value, int):
        value = (value, value)
    if isinstance(value, list):
        value = tuple(value)
    have = getattr(config, name, None)
    return isinstance(have, type(value)) and bool(have == value)  # not a numpy number, which ViViTConfig refuses


def adapt(
    checkpoint: Checkpoint, config: ViViTConfig, names: list[str]
) -> tuple[dict[str, Value], dict[str, str], dict[str, str]]:
    """Values for the tensors of a model that differs from the checkpoint's by `CHANGES`; what is new; what is left.

    Positions are resized over time and over space (`resize_positions`), kernels in their length (`resize_kernel`).
    Another number of classes makes a new head, except that a dictionary of heads whose numbers add up to the old takes
    its rows in turn.
    """
    values: dict[str, Value] = {}
    new: dict[str, str] = {}
    tensors, grid = checkpoint.tensors, checkpoint.config.grid
    same_head = checkpoint.config.num_classes == config.num_classes
    parts = config.num_classes if isinstance(config.num_classes, Mapping) else {}
    splits = isinstance(checkpoint.config.num_classes, int) and sum(parts.values()) == checkpoint.config.num_classes
    for name in names:
        if name.startswith("head.") and not same_head:
            kind = name.rsplit(".", 1)[1]
            if splits and f"head.{kind}" in tensors:
                start, stop = _rows(parts, name.split(".")[1])
                values[name] = Value(
                    tensors[f"head.{kind}"][start:stop], (f"head.{kind}",), f"rows {start} to {stop - 1}"
                )
            else:
                new[name] = "zero: a new head"
        elif name not in tensors:
            continue
        elif name.endswith("pos_embed.table") and grid != config.grid:
            table = tensors[name]
            (t, h, w), (new_t, new_h, new_w) = grid, config.grid
            resize = partial(resize_positions, filter=checkpoint.positions_filter)
            if name.startswith("encoder.temporal."):
                table = resize(table, (new_t,))
            elif name.startswith("encoder.spatial."):
                table = resize(table.unflatten(0, (h, w)), (new_h, new_w)).flatten(0, 1)
            else:
                table = resize(table.unflatten(1, (h, w)), config.grid).flatten(1, 2)
            how = f"{checkpoint.positions_filter} from {t}x{h}x{w} places to {new_t}x{new_h}x{new_w}"
            values[name] = Value(
                table, (name,), how if table.shape != tensors[name].shape or (h, w) != (new_h, new_w) else ""
            )
        elif name == "tubelet_embed.proj.weight" and config.tubelet_size != checkpoint.config.tubelet_size:
            kernel = resize_kernel(tensors[name], checkpoint.config.tubelet_size, config.tubelet_size[0])
            how = f"shared out from {checkpoint.config.tubelet_size[0]} frames to {config.tubelet_size[0]}"
            values[name] = Value(kernel, (name,), how)
        else:
            values[name] = Value(tensors[name], (name,))
    left = {name: "another head" for name in tensors if name.startswith("head.") and not same_head}
    return values, new, left


def _rows(parts: Mapping[str, int], head: str) -> tuple[int, int]:
    start = 0
    for name, count in parts.items():
        if name == head:
            break
        start += count
    return start, start + parts[head]


def read_checkpoint(
    source: str | PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    tower: str | None = None,
    **given: Any,
) -> Checkpoint:
    """A ViViT checkpoint of any of the formats, in our terms; see `ViViT.from_pretrained` for the arguments.

    Raises:
        WeightsError: on every source that cannot be used.
        TypeError: if it is neither a string nor a path.
    """
    return read_found(find(source, revision, token), tower, **given)


def read_found(found: Found, tower: str | None = None, **given: Any) -> Checkpoint:
    """The ViViT checkpoint in a file; see `read_checkpoint`."""
    path, kind, config = found
    one = kind in ("npz", "msgpack") or not isinstance((config or {}).get("vision_config"), Mapping)
    if tower is not None and one:
        raise WeightsError(f"{path} holds one model, so tower={tower!r} has no meaning; leave it out")
    if kind == "npz":
        if is_videoprism(path):
            return read_videoprism(path)
        raise WeightsError(f"{path} is an image model's .npz; build a model and start it with init_from_image")
    if kind == "msgpack":
        return read_video(path, **{name: value for name, value in given.items() if name in UNSAID})
    if config is None:
        raise WeightsError(f"{path} needs a config.json beside it")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in (MODEL_TYPE, *FAMILIES):
        file, known = path.parent / "config.json", ", ".join([MODEL_TYPE, *FAMILIES])
        hint = ": a timm image model; start a ViViT from it with init_from_image" if "architecture" in config else ""
        raise WeightsError(f"{file} has model_type {model_type!r}; known are {known}{hint}")
    tensors, source = read_tensors(path, kind), str(path.parent)
    if model_type in FAMILIES:
        return transformers_checkpoint(config, tensors, source, _processor(path.parent), tower)
    return _own_checkpoint(config, tensors, source)


def _processor(folder: Path) -> dict[str, Any] | None:
    """What transformers' files say of the pixels that a model takes; None where there is no such file."""
    for name in PROCESSOR_FILES:
        content = read_json(folder / name) if (folder / name).exists() else {}
        found = content.get("video_processor") or content.get("image_processor") or content
        if isinstance(found, dict) and is_processor(found):
            return found
    return None


def read_config(source: str | PathLike[str]) -> ViViTConfig | None:
    """The configuration of a folder in our own format or in one of transformers', without reading its weights.

    Returns:
        None for everything else: other formats need the weights for it, and the hub is not asked.

    Raises:
        WeightsError: if config.json cannot be used.
    """
    path = local_path(source)
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    if config.get("model_type") == MODEL_TYPE:
        return _own_config(config, str(folder))
    if config.get("model_type") not in FAMILIES:
        return None
    found = find(path)
    shapes = read_shapes(found.path, found.kind)
    return None if shapes is None else transformers_checkpoint(config, shapes, str(folder), _processor(folder)).config


def _own_config(config: Mapping[str, Any], source: str) -> ViViTConfig:
    fields = {name: value for name, value in config.items() if name not in NOT_FIELDS}
    if "transformers_version" in config:  # saved by `vivit_zoo.hf`, among transformers' own fields
        known = {field.name for field in dataclasses.fields(ViViTConfig)}
        fields = {name: value for name, value in fields.items() if name in known}
    try:
        if _largest(fields) > LARGEST:
            raise ValueError(f"a value is beyond {LARGEST}")
        return ViViTConfig.from_json(json.dumps(fields))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{source}: config.json cannot be used: {error}") from error


def _own_checkpoint(config: dict[str, Any], tensors: dict[str, Tensor], source: str) -> Checkpoint:
    ours = _own_config(config, source)
    if max(ours.depth, ours.temporal_depth or 0) > len(tensors):
        raise WeightsError(
            f"{source}: config.json says {ours.depth} blocks, but there are {len(tensors)} tensors in all"
        )
    stack = "encoder.spatial." if any(name.startswith("encoder.spatial.") for name in tensors) else "encoder."
    depth, temporal = count_blocks(tensors, f"{stack}blocks."), count_blocks(tensors, "encoder.temporal.blocks.")
    if (depth and depth != ours.depth) or (temporal and temporal != (ours.temporal_depth or temporal)):
        raise WeightsError(f"{source}: config.json says {ours.depth} blocks, the weights have {depth}")
    names = config.get("class_names")
    if names is not None and _counts(names) != ours.num_classes:
        raise WeightsError(
            f"{source}: class_names in config.json are not one name for each of {ours.num_classes} classes"
        )
    origin: dict[str, tuple[str, ...]] = {name: (name,) for name in tensors}
    check_problem_type(problem_type := config.get("problem_type"), source)
    return Checkpoint(
        source,
        ours,
        tensors,
        origin,
        class_names=names,
        processing=_processing(config, source),
        problem_type=problem_type,
        positions_filter=_positions_filter(config, source),
    )


def _processing(config: Mapping[str, Any], source: str) -> Processing | None:
    given = config.get("processing")
    try:
        return None if given is None else Processing(**given)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{source}: processing in config.json cannot be used: {error}") from error


def _positions_filter(config: Mapping[str, Any], source: str) -> PositionsFilter:
    given = config.get("positions_filter", "linear")
    for name in get_args(PositionsFilter):
        if name == given:
            return name
    known = ", ".join(get_args(PositionsFilter))
    raise WeightsError(f"{source}: positions_filter {given!r} in config.json is unknown; known are {known}")


def _counts(names: Any) -> Any:
    """How many names there are, by head where they are by head; None if something is no name."""
    if isinstance(names, dict):
        return {head: _counts(of_head) for head, of_head in names.items()}
    return len(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _largest(value: Any) -> float:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int | float) else 0
