"""Checkpoints of every format, damaged."""

import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tests.conftest import tiny_config
from tests.fuzz.mutate import Fuzzer, Read, mutate
from vivit_zoo import ViViT
from vivit_zoo.weights import WeightsError, init_from_image

PARITY = Path(__file__).parents[1] / "parity"


class RunsCode:
    """A pickle of it creates a file when it is loaded without restrictions."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def _folder(folder: Path, file: str, format: str = "vivit_zoo") -> Read:
    """A saved model of which one file is damaged: its configuration, index or weights."""
    torch.manual_seed(0)
    model = ViViT(tiny_config())
    model.save_pretrained(folder, format=format)
    if file == "model.safetensors.index.json":
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / file).write_text(json.dumps({"weight_map": dict.fromkeys(model.state_dict(), "part.safetensors")}))
    return _damage(folder / file, lambda: ViViT.from_pretrained(folder))


def _bin(folder: Path, zipped: bool) -> Read:
    """torch.save's two formats, a zip file and a bare pickle; one input in eight comes from a pickle with code."""
    torch.manual_seed(0)
    model, file, ran = ViViT(tiny_config()), folder / "pytorch_model.bin", folder / "ran"
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), file, _use_new_zipfile_serialization=zipped)
    harmless = _damage(file, lambda: ViViT.from_pretrained(folder))
    if zipped:
        torch.save({"weight": RunsCode(ran)}, file)
    else:
        file.write_bytes(pickle.dumps({"weight": RunsCode(ran)}, protocol=2))
    with_code = _damage(file, lambda: ViViT.from_pretrained(folder))

    def read(rng: np.random.Generator) -> None:
        try:
            (with_code if rng.random() < 1 / 8 else harmless)(rng)
        finally:
            if ran.exists():
                raise RuntimeError("code of a pickle ran")

    return read


def _msgpack(folder: Path) -> Read:
    file = folder / "checkpoint"
    file.write_bytes((PARITY / "forward/joint_token/checkpoint").read_bytes())
    return _damage(file, lambda: ViViT.from_pretrained(file, variant="joint", num_frames=6, image_size=16))


def _npz(folder: Path) -> Read:
    file = folder / "image.npz"
    file.write_bytes((PARITY / "image_vit_seed301_prelinen_names.npz").read_bytes())
    sizes = {"image_size": 16, "mlp_ratio": 56 / 24, "num_classes": 7}
    model = ViViT(tiny_config(variant="joint", **sizes))
    return _damage(file, lambda: init_from_image(model, file))


def _damage(file: Path, load: Callable[[], object]) -> Read:
    good = file.read_bytes()

    def read(rng: np.random.Generator) -> None:
        file.write_bytes(mutate(good, rng))
        load()

    return read


FUZZERS = {
    name: Fuzzer(prepare, (WeightsError,))
    for name, prepare in {
        "safetensors": partial(_folder, file="model.safetensors"),
        "config": partial(_folder, file="config.json"),
        "transformers' config": partial(_folder, file="config.json", format="transformers"),
        "index": partial(_folder, file="model.safetensors.index.json"),
        "bin": partial(_bin, zipped=True),
        "old bin": partial(_bin, zipped=False),
        "msgpack": _msgpack,
        "npz": _npz,
    }.items()
}
