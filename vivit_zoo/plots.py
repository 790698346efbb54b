"""Pictures of plain numbers: clips, confusion matrices, speeds, attention maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor
from torch.utils.data import Dataset

__all__ = [
    "attention_film",
    "attention_sheet",
    "clips",
    "confusion",
    "speeds",
]


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
            if known:
                ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ax.yaxis.set_major_formatter("{x:,g}")
            ax.minorticks_off()
        else:
            ax.set_yticks(range(len(lines)), lines if i == 1 else [""] * len(lines))
            ax.set(xlabel=what, ylim=(len(lines) - 0.4, -0.6))
    if len(sizes) > 1:
        fig.legend(loc="outside right upper", fontsize="small")
    fig.savefig(file, dpi=120)


def attention_sheet(frames: np.ndarray, rows: Mapping[str, Tensor], file: Path, note: str = "", most: int = 16) -> None:
    """Frames side by side and, below them, the same under the heat of each row, from its least to its greatest value.

    Args:
        frames: one of each temporal place, (t, H, W, c) uint8, gray or RGB.
        rows: what it is -> shares of the places, (t, h, w), of which 1 / (t·h·w) is an even share; or their colours,
            (t, h, w, 3) in [0, 1], which are shown alone.
        file: PNG to write.
        note: below the picture.
        most: columns; of more temporal places so many are shown, evenly spread.
    """
    shown = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)
    pictures = {"frames": frames[shown].repeat(3 // frames.shape[-1], axis=-1)}
    for name, shares in rows.items():
        if shares.ndim == 4:
            colours = F.interpolate(shares[shown].movedim(-1, 1).float(), size=frames.shape[1:3]).movedim(1, -1)
            pictures[name] = (255 * colours.numpy()).round().astype(np.uint8)
            continue
        even = shares.numel() * shares
        label = f"{name}: {even.min().item():.2g} to {even.max().item():.2g} times an even share"
        pictures[label] = _heated(frames[shown], _stretched(shares)[shown])
    height, width = frames.shape[1:3]
    fig = Figure(figsize=(12, (12 / len(shown) * height / width + 0.25) * len(pictures) + 0.3), layout="constrained")
    for (label, row), ax in zip(pictures.items(), fig.subplots(len(pictures), 1, squeeze=False).flat, strict=True):
        gap = max(1, width // 50)
        row = np.pad(row, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
        ax.imshow(rearrange(row, "t h w c -> h (t w) c"), interpolation="nearest")
        ax.set_title(label, loc="left", fontsize="small", pad=2)
        ax.axis("off")
    fig.supxlabel(note, fontsize="small")
    fig.savefig(file, dpi=150)


def attention_film(frames: np.ndarray, shares: Tensor, file: Path, fps: float) -> None:
    """Frames beside themselves under the heat of their shares, from the least to the greatest, as an animated GIF.

    Args:
        frames: (f, H, W, c) uint8, gray or RGB.
        shares: of the places of each frame, (f, h, w).
        file: GIF to write.
        fps: frames a second; above 50, which viewers of GIFs slow down, 50.
    """
    from PIL import Image

    both = np.concatenate([frames.repeat(3 // frames.shape[-1], axis=-1), _heated(frames, _stretched(shares))], axis=2)
    first, *others = [Image.fromarray(frame) for frame in both]
    first.save(file, save_all=True, append_images=others, duration=max(20, round(1000 / fps)), loop=0)


def _stretched(shares: Tensor) -> Tensor:
    """From the least, 0, to the greatest, 1; 0 where all are the same."""
    least, greatest = shares.aminmax()
    return (shares - least) / (greatest - least).clamp(min=1e-12)


def _heated(frames: np.ndarray, heat: Tensor) -> np.ndarray:
    """Frames (f, H, W, c) uint8, in gray, under heat (f, h, w) in [0, 1], a square a place: (f, H, W, 3) uint8."""
    gray = frames.mean(-1, keepdims=True)
    heat = F.interpolate(heat[:, None].float(), size=frames.shape[1:3])[:, 0]
    colour = 255 * matplotlib.colormaps["inferno"](heat.numpy())[..., :3]
    opaque = 0.15 + 0.5 * heat[..., None].numpy()
    return (gray * (1 - opaque) + colour * opaque).round().astype(np.uint8)


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"
