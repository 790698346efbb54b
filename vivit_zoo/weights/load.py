"""`ViViT.from_pretrained`: find the files, recognise their format, adapt them to what is asked, fill a model."""

import json
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.names import count_blocks
from vivit_zoo.weights.original import read_video
from vivit_zoo.weights.report import Checkpoint, LoadReport, Value, WeightsError, check, fill
from vivit_zoo.weights.resize import resize_kernel, resize_positions
from vivit_zoo.weights.transformers import transformers_checkpoint

__all__ = ["MODEL_TYPE", "download", "load_pretrained", "local_path", "read_checkpoint", "read_json"]

MODEL_TYPE = "vivit_zoo"
# In the order of preference; a .bin only where there is no safetensors.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ORIGINAL_FILE = "checkpoint"
# What can be changed about trained weights; the rest would make them another model's.
CHANGES = (
    "num_frames", "image_size", "tubelet_size", "sampled_frames", "num_classes", "drop", "attn_drop", "drop_path",
)  # fmt: skip
# What an original checkpoint does not say.
UNSAID = ("variant", "num_frames", "image_size", "order", "sampled_frames", "global_pool")
NOT_FIELDS = ("model_type", "vivit_zoo_version", "class_names")
LARGEST = 1 << 24

Model = TypeVar("Model", bound=nn.Module)


def load_pretrained(
    make: Callable[[ViViTConfig], Model],
    source: str | PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    **changes: Any,
) -> tuple[Model, Checkpoint, LoadReport]:
    """Read a checkpoint, adapt it to the changes, build a model and fill it: what `ViViT.from_pretrained` does.

    Args:
        make: builds the model from a configuration; called on the meta device first.
        source, revision, token, **changes: see `ViViT.from_pretrained`.

    Returns:
        The model, the checkpoint in our terms, and the report of every tensor.

    Raises:
        WeightsError: if the source cannot be found, read or used.
    """
    checkpoint = read_checkpoint(source, revision=revision, token=token, **changes)
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
            if name.startswith("encoder.temporal."):
                table = resize_positions(table, (new_t,))
            elif name.startswith("encoder.spatial."):
                table = resize_positions(table.unflatten(0, (h, w)), (new_h, new_w)).flatten(0, 1)
            else:
                table = resize_positions(table.unflatten(1, (h, w)), config.grid).flatten(1, 2)
            how = f"linear from {t}x{h}x{w} places to {new_t}x{new_h}x{new_w}"
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
    source: str | PathLike[str], *, revision: str | None = None, token: str | bool | None = None, **given: Any
) -> Checkpoint:
    """A ViViT checkpoint of any of the formats, in our terms; see `ViViT.from_pretrained` for the arguments.

    Raises:
        WeightsError: on every source that cannot be used.
        TypeError: if it is neither a string nor a path.
    """
    path = local_path(source)
    if not path.exists():
        path = download(str(source), revision, token)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        if (path / "config.json").exists():
            found = [name for name in WEIGHT_FILES if (path / name).exists()]
            if not found:
                raise WeightsError(
                    f"{path} has a config.json but no weights; expected one of {', '.join(WEIGHT_FILES)}"
                )
            path = path / found[0]
        elif (path / ORIGINAL_FILE).is_file():
            path = path / ORIGINAL_FILE
        else:
            inside = ", ".join(sorted(file.name for file in path.iterdir())[:6]) or "nothing"
            raise WeightsError(f"{path} has neither config.json nor {ORIGINAL_FILE}; it holds {inside}")
    kind = _kind(path)
    if kind == "json" and path.name == "config.json":
        return read_checkpoint(folder, **given)
    if kind == "npz":
        raise WeightsError(f"{path} is an image model's .npz; build a model and start it with init_from_image")
    if kind == "msgpack":
        return read_video(path, **{name: value for name, value in given.items() if name in UNSAID})
    config_file = folder / "config.json"
    if not config_file.exists():
        raise WeightsError(f"{path} needs a config.json beside it")
    config = read_json(config_file)
    model_type = config.get("model_type")
    if model_type not in ("vivit", MODEL_TYPE):
        hint = ": a timm image model; start a ViViT from it with init_from_image" if "architecture" in config else ""
        raise WeightsError(f"{config_file} has model_type {model_type!r}, neither 'vivit' nor {MODEL_TYPE!r}{hint}")
    tensors = _read_tensors(path, kind)
    if model_type == "vivit":
        return transformers_checkpoint(config, tensors, str(folder))
    return _own_checkpoint(config, tensors, str(folder))


def local_path(source: str | PathLike[str]) -> Path:
    """Where a source would be on this machine, whether something is there or not.

    Raises:
        WeightsError: if it is empty, or no path of this machine.
        TypeError: if it is neither a string nor a path.
    """
    if not isinstance(source, str | PathLike):
        raise TypeError(f"the source {source!r} is no name; give a hub id, a folder or a file as a string or a path")
    if source == "":
        raise WeightsError("the source is an empty string; give a hub id, a folder or a file ('.' for this folder)")
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder that is closed, an unknown ~user
        raise WeightsError(f"{source} cannot be looked up: {error}") from error
    return path


def _own_checkpoint(config: dict[str, Any], tensors: dict[str, Tensor], source: str) -> Checkpoint:
    fields = {name: value for name, value in config.items() if name not in NOT_FIELDS}
    try:
        if _largest(fields) > LARGEST:
            raise ValueError(f"a value is beyond {LARGEST}")
        ours = ViViTConfig.from_json(json.dumps(fields))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{source}: config.json cannot be used: {error}") from error
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
    return Checkpoint(source, ours, tensors, {name: (name,) for name in tensors}, class_names=names)


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


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WeightsError: if it is none.
    """
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise WeightsError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{file} holds a {type(content).__name__}, not an object")
    return content


def _kind(path: Path) -> str:
    """Format of a file by its content: safetensors, torch, npz, json or msgpack."""
    try:
        with path.open("rb") as file:
            head = file.read(10)
        if head.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(path) as archive:
                return "npz" if any(name.endswith(".npy") for name in archive.namelist()) else "torch"
    # zipfile raises NotImplementedError for versions that it does not know, UnicodeDecodeError for damaged names, ...
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise WeightsError(f"{path} cannot be read, or is damaged or cut short: {error}") from error
    if not head:
        raise WeightsError(f"{path} is empty")
    if head[8:] == b'{"' or path.suffix == ".safetensors":
        return "safetensors"
    if head.lstrip()[:1] == b"{" and path.suffix == ".json":
        return "json"
    if (head[:1] == b"\x80" and len(head) > 1) or path.suffix in (".bin", ".pt", ".pth"):
        return "torch"
    return "msgpack"


def _read_tensors(path: Path, kind: str) -> dict[str, Tensor]:
    """The tensors of a file, or of all files of an index, in float32."""
    if kind == "json":
        shards = read_json(path).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise WeightsError(f"{path} has no weight_map")
        tensors: dict[str, Tensor] = {}
        for name in sorted(set(shards.values())):
            if Path(name).name != name or not (path.parent / name).is_file():
                raise WeightsError(f"{path} names {name!r}, which is not in its folder")
            tensors |= _read_tensors(path.parent / name, _kind(path.parent / name))
        return tensors
    try:
        loaded = load_file(path) if kind == "safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no safetensors file, or is cut short: {error}") from error
    except Exception as error:
        # torch's restricted unpickler fails in as many ways as files can be broken; there is no common class of these.
        # Only its first sentence: the next ones advise to switch the restriction off.
        first = str(error).split("\n")[0].split(". ")[0]
        raise WeightsError(
            f"{path} was not loaded: it is cut short or holds more than tensors, and only tensors are read, so that no "
            f"code in it runs ({first})"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds no dictionary of tensors")
    for name, x in loaded.items():
        if x.is_meta or x.is_quantized or x.is_complex() or x.layout != torch.strided:
            raise WeightsError(
                f"{path}: {name} is no plain array of real numbers but {x.device}, {x.dtype}, {x.layout}; save it as "
                "float32, dense, on the CPU"
            )
    return {str(name): tensor.float() for name, tensor in loaded.items()}


def download(source: str, revision: str | None = None, token: str | bool | None = None) -> Path:
    """The folder in the hub's cache with config.json and weights, or an original checkpoint.

    Raises:
        WeightsError: if there is none, or the hub cannot be reached.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) or source.startswith("."):
        raise WeightsError(f"{source} is neither a file nor a folder here, and no id on the hub (such as owner/name)")
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    def fetch(name: str) -> Path | None:
        try:
            return Path(huggingface_hub.hf_hub_download(source, name, revision=revision, token=token))
        except LocalEntryNotFoundError as error:
            raise WeightsError(
                f"{source} is no file or folder here, and {name} of the hub's {source} is not in the cache and could "
                f"not be fetched: the hub cannot be reached ({type(error.__cause__ or error).__name__})"
            ) from error
        except EntryNotFoundError:
            return None
        except (HFValidationError, OSError, ValueError) as error:
            raise WeightsError(f"{source} is no file or folder here, and the hub says: {error}") from error

    if config := fetch("config.json"):
        for name in WEIGHT_FILES:
            if weights := fetch(name):
                if name.endswith(".index.json"):
                    shards = read_json(weights).get("weight_map")
                    for shard in sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []:
                        fetch(shard)
                return config.parent
        raise WeightsError(f"the hub's {source} has none of {', '.join(WEIGHT_FILES)}")
    if original := fetch(ORIGINAL_FILE):
        return original.parent
    raise WeightsError(f"the hub's {source} has neither config.json nor {ORIGINAL_FILE}")
