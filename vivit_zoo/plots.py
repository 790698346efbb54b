"""The pictures of a study, drawn from plain numbers."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from einops import rearrange
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["accuracy_vs_gmacs", "clips", "confusion", "curves", "speeds"]


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


def confusion(matrix: Tensor, classes: Sequence[str], file: Path, worst: int = 20) -> None:
    """Which class was taken for which, with the most frequent mistakes in words beside it.

    Rows are shares of a class's clips, so that rare classes are seen as well; a class without clips is blank. Up to 30
    classes are named at the axes and have their percentages in the fields. More are numbered, and mistakes with 5 % or
    more of a class's clips are dots, whose area is their share.

    Args:
        matrix: (classes, classes) numbers of clips, a row a label, as `Scores.confusion` counts them.
        classes: their names.
        file: PNG to write.
        worst: number of mistakes to list.

    Raises:
        ValueError: if there is not one name a class.
    """
    count = len(classes)
    if tuple(matrix.shape) != (count, count):
        raise ValueError(f"a matrix {tuple(matrix.shape)} is not of {count} classes")
    clips_of = matrix.sum(1, keepdim=True)
    shares = matrix / clips_of  # nan for a class without clips, which imshow leaves blank
    named = count <= 30
    side = 2.5 + 0.42 * count if named else 8.5
    fig = Figure(figsize=(side + 6, max(side, 4)), layout="constrained")
    ax, text = fig.subplots(1, 2, width_ratios=(side, 6))
    # The root makes a mistake of a percent or two visible beside the diagonal.
    image = ax.imshow(100 * shares.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    ax.set(xlabel="answer", ylabel="label")
    if named:
        ax.set_xticks(range(count), [_short(name, 24) for name in classes], rotation=90)
        ax.set_yticks(range(count), [_short(name, 24) for name in classes])
        for label, answer in matrix.nonzero().tolist():
            share = shares[label, answer].item()
            color = "white" if share > 0.3 else "black"
            ax.text(answer, label, f"{100 * share:.0f}", ha="center", va="center", fontsize="x-small", color=color)
    else:
        labels, answers = ((shares >= 0.05) & ~torch.eye(count, dtype=torch.bool)).nonzero(as_tuple=True)
        ax.scatter(answers, labels, s=150 * shares[labels, answers], color="C3", linewidths=0)
    fig.colorbar(image, ax=ax, label="% of the label's clips", shrink=0.6, ticks=[0, 1, 5, 20, 50, 100])
    name = [_short(one, 30) + ("" if named else f" ({i})") for i, one in enumerate(classes)]
    mistakes = matrix.clone().fill_diagonal_(0).flatten()
    lines = [f"accuracy {matrix.trace() / clips_of.sum():.1%} of {clips_of.sum()} clips; most frequent mistakes:", ""]
    for place in mistakes.argsort(descending=True, stable=True)[:worst].tolist():
        label, answer = divmod(place, count)
        if mistakes[place]:
            of = f"{mistakes[place]} of {clips_of[label].item()}"
            lines.append(f"{of:>9}  {name[label]} → {name[answer]}")
    text.axis("off")
    text.text(0, 1, "\n".join(lines), va="top", fontsize="small", family="monospace", transform=text.transAxes)
    fig.savefig(file, dpi=120)


def speeds(lines: Mapping[str, Sequence[tuple[float, float, float]]], xlabel: str, file: Path) -> None:
    """Time and peak memory of a clip or a batch against its size, a line a candidate; bars where there is one size.

    Args:
        lines: candidate -> for each size it, the seconds of a clip and the bytes of a batch; nan for what is not known.
        xlabel: what the size is.
        file: PNG to write.
    """
    sizes = sorted({size for points in lines.values() for size, _, _ in points})
    height = 4.2 if len(sizes) > 1 else 1.2 + 0.3 * len(lines)
    fig = Figure(figsize=(12, height), layout="constrained")
    for i, (ax, what) in enumerate(zip(fig.subplots(1, 2), ("ms a clip", "peak MB a batch"), strict=True), 1):
        scale = 1e3 if i == 1 else 1e-6
        for j, (name, points) in enumerate(lines.items()):
            if len(sizes) > 1:
                points = sorted(points)
                values = [scale * point[i] for point in points]
                label = name if i == 1 else None
                # More candidates than colours: the second ten are dashed.
                style = {"color": f"C{j % 10}", "ls": "--" if j > 9 else "-", "marker": "."}
                ax.plot([point[0] for point in points], values, label=label, **style)
            else:
                value = scale * points[0][i]
                ax.barh(j, value, color=f"C{j % 10}")
                ax.text(
                    0,
                    j,
                    " unknown" if value != value else f" {value:,.0f}" if value >= 1000 else f" {value:.4g}",
                    va="center",
                )
        if len(sizes) > 1:
            known = any(point[i] > 0 for points in lines.values() for point in points)  # nan is not
            ax.set(xlabel=xlabel, ylabel=what, xscale="log", yscale="log" if known else "linear")
            ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
            ax.minorticks_off()
        else:
            ax.set_yticks(range(len(lines)), lines if i == 1 else [""] * len(lines))
            ax.set(xlabel=what, ylim=(len(lines) - 0.4, -0.6))
    if len(sizes) > 1:
        fig.legend(loc="outside right upper", fontsize="small")
    fig.savefig(file, dpi=120)


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"
