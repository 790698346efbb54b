"""Writing weights: `save_pretrained` and `push_to_hub`."""

import dataclasses
import json
import re
import tempfile
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vivit_zoo import __version__
from vivit_zoo.weights.card import NEW, model_card
from vivit_zoo.weights.load import MODEL_TYPE
from vivit_zoo.weights.processing import own_processor
from vivit_zoo.weights.report import Checkpoint, WeightsError
from vivit_zoo.weights.transformers import to_transformers

__all__ = ["push_to_hub", "save_pretrained"]

FORMATS = ("vivit_zoo", "transformers")


def save_pretrained(checkpoint: Checkpoint, folder: str | PathLike[str], format: str = "vivit_zoo") -> None:
    """Write config.json, model.safetensors and preprocessor_config.json; see `ViViT.save_pretrained`."""
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is unknown; choose from {', '.join(FORMATS)}")
    _check_tensors(checkpoint)
    if format == "transformers":
        config, tensors, extra = to_transformers(checkpoint)
    else:
        config = {"model_type": MODEL_TYPE, "vivit_zoo_version": __version__}
        config |= dataclasses.asdict(checkpoint.config)
        config |= {"class_names": checkpoint.class_names, "problem_type": checkpoint.problem_type}
        config["processing"] = checkpoint.processing and dataclasses.asdict(checkpoint.processing)
        config["positions_filter"] = checkpoint.positions_filter
        tensors = {name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        extra = {"preprocessor_config.json": own_processor(checkpoint.config, checkpoint.processing)}
    folder = Path(folder)
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in {"config.json": config, **extra}.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Everything is written to a temporary folder first: if that fails or is interrupted, the old files stay.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as aside:
            for name, text in texts.items():
                (Path(aside) / name).write_text(text, encoding="utf-8")
            save_file(tensors, Path(aside) / "model.safetensors", metadata={"format": "pt"})
            for name in (*texts, "model.safetensors"):
                (Path(aside) / name).replace(folder / name)
    except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError: tensors that share memory
        if isinstance(error, OSError) and error.strerror:
            raise WeightsError(f"{folder} was not written: {error.strerror}; give a folder that can be") from error
        raise WeightsError(f"{folder} was not written: {error}") from error


def _check_tensors(checkpoint: Checkpoint) -> None:
    """Raise a `WeightsError` for tensors that a file of plain numbers cannot hold, such as quantised ones."""
    for name, tensor in checkpoint.tensors.items():
        if type(tensor) is not Tensor or tensor.is_quantized or tensor.is_meta or tensor.layout != torch.strided:
            kind = type(tensor).__name__ if type(tensor) is not Tensor else f"{tensor.dtype}, {tensor.layout}"
            kind = "on the meta device" if isinstance(tensor, Tensor) and tensor.is_meta else kind
            raise WeightsError(
                f"{name} is not a plain dense tensor ({kind}), so the model cannot be saved. Save the model before it "
                "is quantised or sharded, and repeat that after loading"
            )


def push_to_hub(
    checkpoint: Checkpoint,
    repo_id: str,
    *,
    format: str = "vivit_zoo",
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a ViViT",
    license: str | None = None,
    card: str | None = None,
) -> str:
    """See `ViViT.push_to_hub`."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            save_pretrained(checkpoint, folder, format)
            text = model_card(checkpoint, repo_id, format, license=license) if card is None else card
            text = re.sub(rf"\b{NEW}[\w.-]+", repo_id, text)
            (Path(folder) / "README.md").write_text(text, encoding="utf-8")
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            )
    except WeightsError:
        raise
    except Exception as error:  # of requests or of httpx, which depends on the version of huggingface_hub
        raise WeightsError(f"{repo_id} was not written: {type(error).__name__}: {error}") from error
    return str(commit.commit_url)
