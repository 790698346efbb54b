"""Weights out: `save_pretrained` and `push_to_hub`."""

import dataclasses
import json
import tempfile
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from vivit_zoo.weights.load import MODEL_TYPE
from vivit_zoo.weights.report import Checkpoint, WeightsError
from vivit_zoo.weights.transformers import to_transformers

__all__ = ["model_card", "push_to_hub", "save_pretrained"]

FORMATS = ("vivit_zoo", "transformers")


def save_pretrained(checkpoint: Checkpoint, folder: str | PathLike[str], format: str = "vivit_zoo") -> None:
    """Write config.json and model.safetensors; see `ViViT.save_pretrained`."""
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is unknown; choose from {', '.join(FORMATS)}")
    extra: dict[str, Any] = {}
    if format == "transformers":
        config, tensors, extra["preprocessor_config.json"] = to_transformers(checkpoint)
    else:
        config = {"model_type": MODEL_TYPE, "vivit_zoo_version": version("vivit-zoo")}
        config |= dataclasses.asdict(checkpoint.config) | {"class_names": checkpoint.class_names}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    folder = Path(folder)
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in {"config.json": config, **extra}.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # All is written aside first: what fails or is interrupted half way leaves what was there before.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as aside:
            for name, text in texts.items():
                (Path(aside) / name).write_text(text)
            save_file(tensors, Path(aside) / "model.safetensors", metadata={"format": "pt"})
            for name in (*texts, "model.safetensors"):
                (Path(aside) / name).replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder} was not written: {error}") from error


def push_to_hub(
    checkpoint: Checkpoint,
    repo_id: str,
    *,
    format: str = "vivit_zoo",
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a ViViT",
) -> str:
    """See `ViViT.push_to_hub`."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            save_pretrained(checkpoint, folder, format)
            (Path(folder) / "README.md").write_text(model_card(checkpoint, repo_id, format))
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            )
    except OSError as error:
        raise WeightsError(f"{repo_id} was not written: {error}") from error
    return str(commit.commit_url)


def model_card(checkpoint: Checkpoint, repo_id: str, format: str = "vivit_zoo") -> str:
    """README.md for the hub: what the model is, how to load it, what it expects."""
    config = checkpoint.config
    library = "transformers" if format == "transformers" else "vivit_zoo"
    count = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    fields = "\n".join(
        f"| {name} | {value} |" for name, value in dataclasses.asdict(config).items() if value is not None
    )
    c, t, h, w = config.input_shape
    return f"""---
library_name: {library}
pipeline_tag: video-classification
tags:
- vivit
- video-classification
---

# {repo_id}

A Video Vision Transformer (ViViT, [arXiv 2103.15691](https://arxiv.org/abs/2103.15691)), variant `{config.variant}`,
with {count:,} parameters.

```python
from vivit_zoo import ViViT

model = ViViT.from_pretrained("{repo_id}")
logits = model(video)  # video: (batch, {c}, {t}, {h}, {w}), floating-point pixels in the range of its training
```

| field | value |
|---|---|
{fields}
"""
