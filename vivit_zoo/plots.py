"""The pictures of a study, drawn from plain numbers."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["accuracy_vs_gmacs", "clips", "curves"]


def accuracy_vs_gmacs(
    costs: Mapping[str, tuple[float, Sequence[float]]], ceilings: Iterable[float], file: Path
) -> None:
    """Accuracy against cost, a point a setting, with a bar of one standard deviation over seeds.

    Args:
        costs: setting -> (multiply-accumulates of one clip, accuracies in [0, 1], one a seed).
        ceilings: accuracies in [0, 1], drawn as dotted lines.
        file: PNG to write.
    """
    fig = Figure(figsize=(9, 4.2), layout="constrained")
    ax = fig.subplots()
    for name, (macs, accuracies) in costs.items():
        percent = [100 * accuracy for accuracy in accuracies]
        error = stdev(percent) if len(percent) > 1 else None
        ax.errorbar(macs / 1e9, mean(percent), error, fmt="o", capsize=3, label=name)
    for ceiling in sorted(ceilings):
        ax.axhline(100 * ceiling, color="grey", lw=0.8, ls=":")
        at = (0.99, 100 * ceiling)
        where = ("axes fraction", "data")
        ax.annotate(f"ceiling {100 * ceiling:.1f}", at, xycoords=where, ha="right", va="bottom", color="grey")
    ax.set(xlabel="GMACs a clip", ylabel="test accuracy, %", ylim=(0, 104))
    fig.legend(loc="outside right upper", fontsize="small")
    fig.savefig(file, dpi=120)


def curves(metrics: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], file: Path) -> None:
    """Training loss and accuracy on some test clips over the steps, a colour a setting, a line a seed.

    Args:
        metrics: setting -> for each seed the lines of its metrics.jsonl, with "step", "loss" and "accuracy" in [0, 1].
        file: PNG to write.
    """
    fig = Figure(figsize=(12, 4), layout="constrained")
    left, right = fig.subplots(1, 2)
    for i, (name, seeds) in enumerate(metrics.items()):
        for j, lines in enumerate(seeds):
            steps = [line["step"] for line in lines]
            left.plot(steps, [line["loss"] for line in lines], color=f"C{i}", label=None if j else name)
            right.plot(steps, [100 * line["accuracy"] for line in lines], color=f"C{i}")
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    right.set(xlabel="step", ylabel="accuracy on the way, %", ylim=(0, 104))
    fig.legend(loc="outside right upper", fontsize="small")
    fig.savefig(file, dpi=120)


def clips(dataset: Dataset[tuple[Tensor, int]], classes: Sequence[str], file: Path) -> None:
    """One clip of each class, its frames side by side, written to a PNG; videos are (c, t, h, w) in [-1, 1]."""
    found: dict[int, torch.Tensor] = {}
    index = 0
    while len(found) < len(classes):
        video, label = dataset[index]
        found.setdefault(label, video)
        index += 1
    fig = Figure(figsize=(12, 0.95 * len(classes)), layout="constrained")
    for label, ax in enumerate(fig.subplots(len(classes), 1)):
        frames = F.pad((found[label] + 1) / 2, (1, 1), value=0.5)  # a grey line between frames
        ax.imshow(rearrange(frames, "c t h w -> h (t w) c").numpy(), cmap="gray", vmin=0, vmax=1)
        ax.set_title(classes[label], loc="left", fontsize="small", pad=2)
        ax.axis("off")
    fig.savefig(file, dpi=120)
