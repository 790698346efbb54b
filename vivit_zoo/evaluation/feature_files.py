"""Files of features: one safetensors file for each video, written part by part, and read as a whole."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

__all__ = ["FeatureWriter", "VideoFeatures", "list_features", "read_features", "read_metadata"]

# numpy's name -> that of the format
DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64", "bool": "BOOL"}


@dataclass(frozen=True)
class VideoFeatures:
    """The features of a video.

    Args:
        video: name of the video.
        label: a class number, by head where there are several, a list of them, or a score; None if unknown.
        class_name: name of the class, in the same form; None if unknown.
        settings: how the features were made.
        tensors: "times" (windows, frames) in seconds, "frames" (windows, frames) numbers, "features" (windows, d), and
            "layer.{n}.{output}" (windows, ...) of the chosen layers; see `vivit_zoo.evaluation.features`.
    """

    video: str
    label: Any
    class_name: Any
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def list_features(folder: str | Path) -> list[Path]:
    """Return the files of features in a folder, in the order of their names.

    Raises:
        ValueError: if there are none.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: there are no files of features (*.safetensors) in it")
    return files


def read_metadata(file: str | Path) -> dict[str, Any]:
    """Read what a file of features says of itself: "video", "label", "class_name" and "settings".

    Raises:
        ValueError: if the file cannot be read, or has no such entries.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            found = opened.metadata() or {}
        return {name: json.loads(found[name]) for name in ("video", "label", "class_name", "settings")}
    except (KeyError, OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is not a file of features: {error!r}") from error


def read_features(file: str | Path, names: Collection[str] | None = None) -> VideoFeatures:
    """Read a file of features.

    Args:
        file: the file.
        names: the tensors to read; None for all.

    Raises:
        ValueError: if the file cannot be read, or has no tensor of such a name.
    """
    metadata = read_metadata(file)
    with safe_open(file, framework="pt") as opened:
        known = list(opened.keys())
        for name in names or ():
            if name not in known:
                raise ValueError(f"{file} has no tensor {name!r}; it has {', '.join(sorted(known))}")
        tensors = {name: opened.get_tensor(name) for name in (known if names is None else names)}
    return VideoFeatures(**metadata, tensors=tensors)


class FeatureWriter:
    """Writes the tensors of a safetensors file part by part, so that they never have to fit into memory.

    The file has another name, with the suffix .part, until `finish`; a process that is killed leaves no incomplete file
    under the right name.

    Args:
        file: the file.
        arrays: name of each tensor -> its shape and numpy's name of its dtype.
        metadata: text of each entry of the metadata.

    Attributes:
        arrays: name -> a numpy array to fill.
    """

    def __init__(
        self, file: Path, arrays: Mapping[str, tuple[Sequence[int], str]], metadata: Mapping[str, str]
    ) -> None:
        self.file, self.part = file, file.with_name(file.name + ".part")
        header: dict[str, Any] = {"__metadata__": dict(metadata)}
        end = 0
        # The longest numbers first: then each tensor begins at a multiple of the size of its numbers.
        for name in sorted(arrays, key=lambda name: (-np.dtype(arrays[name][1]).itemsize, name)):
            shape, dtype = arrays[name]
            start, end = end, end + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with self.part.open("wb") as written:
            written.write(len(text).to_bytes(8, "little") + text)
            written.truncate(8 + len(text) + end)
        self.arrays: dict[str, np.ndarray] = {
            name: np.memmap(
                self.part, dtype, "r+", 8 + len(text) + header[name]["data_offsets"][0], tuple(map(int, shape))
            )
            for name, (shape, dtype) in arrays.items()
        }

    def finish(self) -> None:
        """Write everything to the disk and give the file its name."""
        for array in self.arrays.values():
            assert isinstance(array, np.memmap)
            array.flush()
        self.arrays = {}
        with self.part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(self.part, self.file)

    def discard(self) -> None:
        """Delete what was written."""
        self.arrays = {}
        self.part.unlink(missing_ok=True)
