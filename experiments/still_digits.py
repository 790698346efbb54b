"""A small image model, to start video models from: a ViT of timm's that learned which number a still digit is.

    python experiments/still_digits.py    # trains it once, into runs/; so do the experiments that need it

It sees digits of MovingDigits' training split, drawn and made noisy as there, at random places, sizes and angles, one
frame each: never a motion or a test digit. At all angles a 6 is a 9, and no model knows them apart. Its positions are
sine-cosine and fixed, those of the factorised encoder's spatial half in `BASE`, so that this half starts as the image
model, exactly.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from vivit_zoo.ablation import BASE
from vivit_zoo.checkpoint import write_whole
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.model import ViViTConfig
from vivit_zoo.optim import warmup_cosine
from vivit_zoo.tokens import sincos_3d

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
    """A digit that stands still, and which number it is: (1, 32, 32) in [-1, 1], 0 to 9."""

    num_frames = 1

    def _label(self, draw: Mapping[str, Any]) -> int:
        return int(self.numbers[draw["digit"]])

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        return [(video[:, 0], number) for video, number in super().__getitems__(indices)]


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
    identity = json.dumps([arguments, PRETRAINING]).encode()
    folder = CACHE / f"still-digits-{hashlib.sha256(identity).hexdigest()[:8]}"
    if not (folder / "accuracy.json").exists():
        torch.manual_seed(PRETRAINING["seed"])
        vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, **arguments)
        positions = sincos_3d(model.grid[1:], model.dim).flatten(0, 1)
        vit.pos_embed = nn.Parameter(positions[None], requires_grad=False)
        accuracy = pretrain(vit, **PRETRAINING)
        save_for_hf(vit, str(folder), model_args=arguments, safe_serialization=True)
        write_whole(folder / "accuracy.json", lambda file: file.write_text(json.dumps(accuracy)))
    accuracy = json.loads((folder / "accuracy.json").read_text())
    print(f"{folder}: an image model that knows {accuracy:.1%} of the test split's digits")
    return str(folder)


def pretrain(
    vit: nn.Module, images: int, batch_size: int, lr: float, warmup_steps: int, weight_decay: float, seed: int
) -> float:
    """Train an image model on still digits, each seen once; returns its accuracy on digits of the test split."""
    optimizer = create_optimizer_v2(vit, opt="adamw", lr=lr, weight_decay=weight_decay)
    batches = DataLoader(StillDigits("train", images, seed), batch_size)
    for step, (image, number) in enumerate(tqdm(batches, desc="still digits", leave=False)):
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_cosine(step, warmup_steps, len(batches))
        nn.functional.cross_entropy(vit(image), number).backward()
        nn.utils.clip_grad_norm_(vit.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    vit.eval()
    with torch.no_grad():
        right = [vit(image).argmax(-1) == number for image, number in DataLoader(StillDigits("test", 2_000), 250)]
    return torch.cat(right).float().mean().item()


if __name__ == "__main__":
    pretrained(BASE.model)
