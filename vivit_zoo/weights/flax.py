"""flax's msgpack files without flax or jax: nested dictionaries of tensors, with strict handling of broken files.

Arrays are extension type 1, numpy scalars type 3: [shape, dtype name, bytes in C order, little-endian], themselves
msgpack. Arrays beyond 2^30 bytes are a map of flat chunks. Nothing in such a file can run code.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import torch
from torch import Tensor

from vivit_zoo.weights.report import WeightsError

__all__ = ["flatten_tree", "read_msgpack"]

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bool": torch.bool,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
}
CHUNKED = "__msgpack_chunked_array__"


def read_msgpack(source: Path | bytes) -> dict[str, Any]:
    """The tree of a file or of its bytes; arrays become tensors of their own dtype.

    Raises:
        WeightsError: if the file is truncated, no msgpack, or has arrays that contradict themselves.
    """
    name = "the data" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        tree = msgpack.unpackb(data, ext_hook=_read_extension, raw=False, strict_map_key=False)
        if not isinstance(tree, dict):
            raise ValueError(f"it holds a {type(tree).__name__}, not a map")
        return _join_chunks(tree)
    except (msgpack.UnpackException, ValueError, TypeError, LookupError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{name} is no flax checkpoint, or is cut short: {error or type(error).__name__}") from error


def _read_extension(code: int, data: bytes) -> Any:
    if code == 1:
        return _read_array(data)
    if code == 3:
        return _read_array(data).reshape(())
    if code == 2:
        real, imaginary = msgpack.unpackb(data)
        return complex(real, imaginary)
    raise ValueError(f"extension type {code} is not flax's")


def _read_array(data: bytes) -> Tensor:
    shape, dtype_name, content = msgpack.unpackb(data, raw=True)
    name = dtype_name.decode() if isinstance(dtype_name, bytes) else str(dtype_name)
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r} is unknown")
    if not isinstance(shape, list | tuple) or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError(f"shape {shape!r} is none")
    if not isinstance(content, bytes):
        raise ValueError("an array has no bytes")
    dtype = DTYPES[name]
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {tuple(shape)} and dtype {name} has {len(content)} bytes")
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


def _join_chunks(tree: dict[Any, Any]) -> Any:
    if CHUNKED in tree:
        shape = [tree["shape"][str(i)] for i in range(len(tree["shape"]))]
        chunks = [tree["chunks"][str(i)] for i in range(len(tree["chunks"]))]
        if not chunks or not all(isinstance(chunk, Tensor) for chunk in chunks):
            raise ValueError("a chunked array has no chunks")
        flat = torch.cat([chunk.flatten() for chunk in chunks])
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != flat.numel():
            raise ValueError(f"a chunked array of shape {shape} has {flat.numel()} elements")
        return flat.reshape(shape)
    return {key: _join_chunks(value) if isinstance(value, dict) else value for key, value in tree.items()}


def flatten_tree(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A tree as one dictionary with names like `Transformer/encoder_norm/scale`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten_tree(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
