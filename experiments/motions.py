"""Train small video models to start from: they name the two motions of a clip, not their order.

    python experiments/motions.py    # trains both, into runs/; the experiments that need one do the same

The clips are those of MovingDigits, the class is the unordered pair of motions. So the features know motions, and
nothing in the training asks for their order, which the experiments then ask for. The models have the shapes of two
families of pretrained video models (docs/pretrained-video.md), a few layers deep.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from pretraining import fit
from torch import nn
from torch.utils.data import DataLoader

from vivit_zoo import ViViT, ViViTConfig
from vivit_zoo.config import AttentionPoolConfig
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.evaluation.evaluate import evaluate
from vivit_zoo.studies.study import BASE
from vivit_zoo.training.checkpoint import write_whole
from vivit_zoo.training.losses import cross_entropy

TRAINING: dict[str, Any] = {"steps": 300, "batch_size": 32, "lr": 2e-3, "warmup_steps": 30, "weight_decay": 0.05}
SHAPES: dict[str, ViViTConfig] = {
    # Frames are encoded apart, then each place over time.
    "VideoPrism": BASE.model.replace(
        variant="factorised_encoder",
        temporal_per_place=True,
        attn_softcap=50.0,
        global_pool="attention",
        attn_pool=AttentionPoolConfig(inner_dim=144, mlp_ratio=None),
    ),
    # All tokens attend to all, with positions in time from the first block on.
    "VideoMAE": BASE.model.replace(variant="joint", pos_embed="sincos_1d", last_norm="after_pool", act="gelu"),
}
TEST_CLIPS = 1_000
CACHE = Path("runs")


class MotionPairs(MovingDigits):
    """The clips of `MovingDigits`; the class is which two motions they show, in either order."""

    classes: ClassVar = ("right and down", "right and clockwise", "down and clockwise")

    def _label(self, draw: Mapping[str, Any]) -> int:
        return int(sum(draw["motion"])) - 1


def pretrained(shape: str, seed: int = 0) -> str:
    """The folder of the trained model of a shape, as `ViViT.from_pretrained` takes it; trained if it is not there."""
    config = SHAPES[shape].replace(num_classes=len(MotionPairs.classes))
    identity = json.dumps([config.to_json(), TRAINING, seed]).encode()
    folder = CACHE / f"motions-{shape}-{hashlib.sha256(identity).hexdigest()[:8]}"
    if not (folder / "accuracy.json").exists():
        torch.manual_seed(seed)
        model = ViViT(config)
        accuracy = pretrain(model, seed=seed, **TRAINING)
        model.save_pretrained(folder)
        write_whole(folder / "accuracy.json", lambda file: file.write_text(json.dumps(accuracy), encoding="utf-8"))
    accuracy = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    print(f"{folder}: names the motions of {accuracy:.1%} of the test clips")
    return str(folder)


def pretrain(model: nn.Module, steps: int, batch_size: int, seed: int, **options: Any) -> float:
    """Train a model on pairs of motions, each clip seen once; return its accuracy on clips of the test split."""
    clips = MotionPairs("train", steps * batch_size, seed)
    fit(model, clips, cross_entropy, "motions", batch_size=batch_size, **options)
    return evaluate(model.eval(), DataLoader(MotionPairs("test", TEST_CLIPS), 250)).accuracy()


if __name__ == "__main__":
    for shape in SHAPES:
        pretrained(shape)
