"""What a start can come from: a model in memory, a name, a folder, a file, a dictionary of tensors."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.files import Found, find, local_path, read_pickle, read_tensors
from vivit_zoo.weights.hugging_face import FAMILIES as IMAGE_FAMILIES
from vivit_zoo.weights.hugging_face import family, read_hugging_face, read_pixels
from vivit_zoo.weights.image import image_checkpoint
from vivit_zoo.weights.load import read_found
from vivit_zoo.weights.npz import read_npz
from vivit_zoo.weights.report import Checkpoint, WeightsError
from vivit_zoo.weights.state_dicts import read_state_dict
from vivit_zoo.weights.timm import load_timm, read_timm
from vivit_zoo.weights.torchvision import is_torchvision, read_torchvision
from vivit_zoo.weights.videoprism_npz import is_videoprism, read_videoprism

__all__ = ["Source", "open_source"]

Source = nn.Module | str | PathLike[str] | Mapping[str, Any]
# Modules that hold another one and change nothing of what it computes, and where.
WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "ModelEma": "ema",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
    "OptimizedModule": "_orig_mod",
    "FeatureGetterNet": "model",
}


def open_source(source: Source, arch: str | None = None) -> Checkpoint | Path:
    """A source in our terms, or the file of an original JAX checkpoint, which only the model to fill can interpret.

    Raises:
        WeightsError: if it cannot be found or read, or is no ViT.
        TypeError: if it is none of the kinds of sources.
    """
    if isinstance(source, nn.Module):
        return _read_module(source)
    if isinstance(source, Mapping):
        return image_checkpoint(read_state_dict(source, arch, "the given dictionary"))
    path, name = local_path(source), str(source)
    if not path.exists() and ("/" not in name or ":" in name):
        return image_checkpoint(read_timm(load_timm(name), name))
    if path.suffix == ".npz" and path.is_file():
        return read_videoprism(path) if is_videoprism(path) else read_npz(path)
    found = find(source)
    config = found.config if arch is None else None
    if found.kind == "msgpack":
        return found.path
    if found.kind == "npz":
        return read_videoprism(found.path) if is_videoprism(found.path) else read_npz(found.path)
    if config is None:
        content = read_pickle(found.path) if found.kind == "torch" else read_tensors(found.path, found.kind)
        return image_checkpoint(read_state_dict(content, arch, name))
    return _read_folder(found, config, name)


def _read_folder(found: Found, config: Mapping[str, Any], name: str) -> Checkpoint:
    folder = found.path.parent
    if "architecture" in config:
        return image_checkpoint(read_timm(load_timm(f"local-dir:{folder}"), name))
    if family(config):
        tensors = read_tensors(found.path, found.kind)
        return image_checkpoint(read_hugging_face(config, tensors, name, read_pixels(folder)))
    return read_found(found)


def _read_module(module: nn.Module) -> Checkpoint:
    while (held := WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, held)
    config = getattr(module, "config", None)
    if isinstance(config, ViViTConfig):
        return Checkpoint.of_model(module)
    source = "the given image model"
    state: dict[str, Any] = module.state_dict()
    if any(".lora_" in name or ".base_layer." in name for name in state):
        raise WeightsError(
            f"{source} has LoRA adapters; merge them, in PEFT by model = model.merge_and_unload(), and pass the result"
        )
    if any("_packed_params" in name for name in state) or any(
        isinstance(t, Tensor) and t.is_quantized for t in state.values()
    ):
        raise WeightsError(f"{source} is quantised; pass the model before its quantisation")
    if family(config):
        assert config is not None
        return image_checkpoint(
            read_hugging_face(
                config.to_dict(), {name: tensor.detach().float() for name, tensor in state.items()}, source
            )
        )
    if is_torchvision(module):
        return image_checkpoint(read_torchvision(module, source))
    try:
        return image_checkpoint(read_timm(module, source))
    except WeightsError as error:
        if isinstance(kind := getattr(config, "model_type", None), str):
            known = ", ".join(IMAGE_FAMILIES)
            raise WeightsError(f"{error}; its model_type is {kind}, those of transformers read are {known}") from error
        raise
