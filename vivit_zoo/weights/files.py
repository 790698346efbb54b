"""Files of weights: where a source is, which format it has, and the tensors in it. Only tensors are ever unpickled."""

import argparse
import json
import re
import struct
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vivit_zoo.weights import hub
from vivit_zoo.weights.report import WeightsError

__all__ = [
    "MODEL_TYPE",
    "PROCESSOR_FILES",
    "Found",
    "find",
    "plain",
    "read_json",
    "read_pickle",
    "read_shapes",
    "read_tensors",
]

MODEL_TYPE = "vivit_zoo"
# Names that end so are files, which are not looked for on the hub.
FILE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".msgpack", ".json")
# In the order of preference; a .bin only where there is no safetensors.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ORIGINAL_FILE = "checkpoint"
# Where transformers' models say which pixels they take, in the order in which it reads them.
PROCESSOR_FILES = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")
# What training scripts save beside the tensors: options and numbers of numpy, whose unpickling runs no code.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.float64(0).__reduce__()[0],
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")),
]


class Found(NamedTuple):
    """A file of weights, its format, and the config.json beside it where there is one."""

    path: Path
    kind: str
    config: dict[str, Any] | None


def find(source: str | PathLike[str], revision: str | None = None, token: str | bool | None = None) -> Found:
    """The file of weights of a source: a file, a folder, or an id on the hub.

    Raises:
        WeightsError: if there is none, or the hub cannot be reached.
        TypeError: if the source is neither a string nor a path.
    """
    path = local_path(source)
    if not path.exists():
        path = download(str(source), revision, token)
    if path.is_dir():
        path = _file_in(path)
    kind = file_kind(path)
    if kind == "json" and path.name == "config.json":
        return find(path.parent)
    beside = path.parent / "config.json"
    has_config = kind in ("safetensors", "torch", "json") and beside.exists()
    return Found(path, kind, read_json(beside) if has_config else None)


def _file_in(folder: Path) -> Path:
    if (folder / "config.json").exists():
        found = [name for name in WEIGHT_FILES if (folder / name).exists()]
        if not found:
            raise WeightsError(f"{folder} has a config.json but no weights; expected one of {', '.join(WEIGHT_FILES)}")
        return folder / found[0]
    if (folder / ORIGINAL_FILE).is_file():
        return folder / ORIGINAL_FILE
    inside = ", ".join(sorted(file.name for file in folder.iterdir())[:6]) or "nothing"
    raise WeightsError(f"{folder} has neither config.json nor {ORIGINAL_FILE}; it holds {inside}")


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


def file_kind(path: Path) -> str:
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
    if 0x80 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF):  # msgpack's dictionaries, of which flax's files are one
        return "msgpack"
    raise WeightsError(
        f"{path} is no checkpoint: it begins with {head[:8]!r}, unlike files of safetensors, torch, numpy and flax. "
        "Give a folder with config.json and model.safetensors, such a file, or a hub id"
    )


def read_tensors(path: Path, kind: str) -> dict[str, Tensor]:
    """The tensors of a file, or of all files of an index, in float32."""
    if kind == "json":
        shards = read_json(path).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise WeightsError(f"{path} has no weight_map")
        tensors: dict[str, Tensor] = {}
        for name in sorted(set(shards.values())):
            if Path(name).name != name or not (path.parent / name).is_file():
                raise WeightsError(f"{path} names {name!r}, which is not in its folder")
            tensors |= read_tensors(path.parent / name, file_kind(path.parent / name))
        return tensors
    if kind == "safetensors":
        try:
            return plain(load_file(path), str(path))
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{path} is no safetensors file, or is cut short; fetch or save it again ({error})"
            ) from error
    loaded = read_pickle(path)
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds no dictionary of tensors")
    return plain(loaded, str(path))


def read_shapes(path: Path, kind: str) -> dict[str, Tensor] | None:
    """The tensors of a file of safetensors on the meta device: names and shapes, without the numbers.

    Returns:
        None for other formats, which have to be read for that.
    """
    if kind != "safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is no safetensors file, or is cut short; fetch or save it again ({error})"
        ) from error
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def read_pickle(path: Path) -> Any:
    """What a file of torch's holds, if that is tensors, numbers, strings, options and containers of these.

    Raises:
        WeightsError: if the file is broken, or holds anything else.
    """
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's restricted unpickler fails in as many ways as files can be broken; there is no common class of these.
        # Only its first sentence: the next ones advise to switch the restriction off.
        first = str(error).split("\n")[0].split(". ")[0]
        raise WeightsError(
            f"{path} was not loaded: it is cut short or holds more than tensors, and only tensors are read, so that no "
            f"code in it runs ({first}); of a model that was saved whole, save model.state_dict()"
        ) from error


def plain(tensors: Mapping[Any, Any], source: str) -> dict[str, Tensor]:
    """The tensors in float32.

    Raises:
        WeightsError: on one that holds no real numbers, such as a quantised one.
    """
    for name, x in tensors.items():
        if "_packed_params" in str(name) or (isinstance(x, Tensor) and x.is_quantized):
            raise WeightsError(f"{source}: {name} is quantised; give the model before its quantisation")
        if not isinstance(x, Tensor):
            raise WeightsError(f"{source}: {name} is a {type(x).__name__}, not a tensor")
        if x.is_meta or x.is_complex() or x.layout != torch.strided:
            raise WeightsError(
                f"{source}: {name} is no plain array of real numbers but {x.device}, {x.dtype}, {x.layout}; save it as "
                "float32, dense, on the CPU"
            )
    return {str(name): tensor.detach().float() for name, tensor in tensors.items()}


def download(source: str, revision: str | None = None, token: str | bool | None = None) -> Path:
    """The folder in the hub's cache with config.json and weights, or an original checkpoint.

    Raises:
        WeightsError: if there is none, or the hub cannot be reached.
    """
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.startswith(".")
    if not is_id or Path(source).suffix in FILE_SUFFIXES:
        raise WeightsError(f"{source} is neither a file nor a folder here, and no id on the hub (such as owner/name)")
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    unreachable = hub.hub_error()
    # The cache alone, without waiting for a network that is not there.
    options: dict[str, Any] = {"local_files_only": True} if unreachable else {}

    def fetch(name: str, optional: bool = False) -> Path | None:
        try:
            return Path(huggingface_hub.hf_hub_download(source, name, revision=revision, token=token, **options))
        except LocalEntryNotFoundError as error:
            if optional:
                return None
            raise WeightsError(
                f"{source} is no file or folder here, and {name} of the hub's {source} is not in the cache and could "
                f"not be fetched: the hub cannot be reached ({type(unreachable or error.__cause__ or error).__name__})"
            ) from error
        except EntryNotFoundError:
            return None
        except (HFValidationError, OSError, ValueError) as error:
            advice = hub.cache_advice(error)
            raise WeightsError(f"{source} is no file or folder here, and the hub says: {error}{advice}") from error

    if config := fetch("config.json"):
        for name in WEIGHT_FILES:
            if weights := fetch(name):
                if name.endswith(".index.json"):
                    shards = read_json(weights).get("weight_map")
                    for shard in sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []:
                        fetch(shard)
                for processor in PROCESSOR_FILES if read_json(config).get("model_type") != MODEL_TYPE else ():
                    fetch(processor, optional=True)
                return config.parent
        raise WeightsError(f"the hub's {source} has none of {', '.join(WEIGHT_FILES)}")
    if original := fetch(ORIGINAL_FILE):
        return original.parent
    raise WeightsError(f"the hub's {source} has neither config.json nor {ORIGINAL_FILE}")
