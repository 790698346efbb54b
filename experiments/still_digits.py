"""Train a small image model to start video models from: a timm ViT that recognises digits and their positions.

    python experiments/still_digits.py    # trains it once, into runs/; the experiments that need it do the same

It is trained on single frames: digits of MovingDigits' training split, with the same rendering and noise, at random
positions, sizes and angles. It never sees a motion or a test digit. It predicts the number of a digit (at all angles a
6 is a 9, and no model can distinguish them) and the column and row of its position, in eighths of the frame. Its
positions are fixed sine-cosine ones, those of the spatial half of the factorised encoder in `BASE`, so this half starts
exactly as the image model.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from pretraining import fit
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vivit_zoo.config import ViViTConfig
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.evaluation.evaluate import evaluate
from vivit_zoo.positions import sincos_3d
from vivit_zoo.studies.study import BASE
from vivit_zoo.training.checkpoint import write_whole
from vivit_zoo.training.losses import cross_entropy

PRETRAINING: dict[str, Any] = {
    "images": 96_000,
    "batch_size": 64,
    "lr": 3e-3,
    "warmup_steps": 100,
    "weight_decay": 0.05,
    "seed": 0,
}
CACHE = Path("runs")


class StillDigits(MovingDigits):
    """A digit that stands still: (1, 32, 32) in [-1, 1], and which number it is, in which column and in which row."""

    num_frames = 1
    classes: ClassVar = {"number": tuple("0123456789"), "column": tuple("01234567"), "row": tuple("01234567")}

    def _label(self, draw: Mapping[str, Any]) -> dict[str, int]:
        column, row = (int(at * 8 // self.side) for at in draw["place"][0])
        return {"number": int(self.numbers[draw["digit"]]), "column": column, "row": row}

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, dict[str, int]]]:
        return [(video[:, 0], label) for video, label in super().__getitems__(indices)]

    @classmethod
    def heads(cls, logits: Tensor) -> dict[str, Tensor]:
        """The logits of the heads, which an image model has side by side: (b, 26) -> (b, classes) each."""
        sizes = [len(names) for names in cls.classes.values()]
        return dict(zip(cls.classes, logits.split(sizes, 1), strict=True))


def timm_arguments(model: ViViTConfig) -> dict[str, Any]:
    """Of the timm ViT whose layers are those of a video model."""
    return {
        "img_size": model.image_size,
        "patch_size": model.tubelet_size[1:],
        "in_chans": model.in_chans,
        "embed_dim": model.dim,
        "depth": model.depth,
        "num_heads": model.num_heads,
        "mlp_ratio": model.mlp_ratio,
        "act_layer": model.act,
        "class_token": False,
        "global_pool": "avg",
        "fc_norm": False,  # the last norm before the average, as ViViT's
    }


def pretrained(model: ViViTConfig) -> str:
    """The folder of the image model that fits a video model, as `Start(source=...)` takes it; trained if not there."""
    arguments = timm_arguments(model)
    identity = json.dumps([arguments, PRETRAINING, StillDigits.classes]).encode()
    folder = CACHE / f"still-digits-{hashlib.sha256(identity).hexdigest()[:8]}"
    if not (folder / "accuracy.json").exists():
        torch.manual_seed(PRETRAINING["seed"])
        vit = timm.create_model("vit_tiny_patch16_224", num_classes=26, **arguments)
        positions = sincos_3d(model.grid[1:], model.dim).flatten(0, 1)
        vit.pos_embed = nn.Parameter(positions[None], requires_grad=False)
        accuracies = pretrain(vit, **PRETRAINING)
        save_for_hf(vit, str(folder), model_args=arguments, safe_serialization=True)
        write_whole(folder / "accuracy.json", lambda file: file.write_text(json.dumps(accuracies), encoding="utf-8"))
    accuracies = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    print(f"{folder}: knows of the test split's digits {', '.join(f'{h} {a:.1%}' for h, a in accuracies.items())}")
    return str(folder)


def pretrain(vit: nn.Module, images: int, seed: int, **options: Any) -> dict[str, float]:
    """Train an image model on still digits, each seen once; returns its accuracies on digits of the test split."""

    def loss(outputs: Tensor, label: Any) -> Tensor:
        return cross_entropy(StillDigits.heads(outputs), label)

    fit(vit, StillDigits("train", images, seed), loss, "still digits", **options)
    vit.eval()
    scores = evaluate(lambda image: StillDigits.heads(vit(image)), DataLoader(StillDigits("test", 2_000), 250))
    return {head: one.accuracy() for head, one in scores.heads.items()}


if __name__ == "__main__":
    pretrained(BASE.model)
