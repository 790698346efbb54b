"""The pictures of a study: accuracies by setting, accuracy against cost, learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vivit_zoo.studies.tables import Row, interval

__all__ = ["accuracies", "accuracy_vs_gmacs", "curves"]


def accuracies(rows: Sequence[Row], file: Path) -> None:
    """The accuracy of each setting of a study: a point a seed, their mean, and its 95 % interval as a bar.

    Args:
        rows: of the study; ceilings are drawn as dotted marks.
        file: PNG to write.
    """
    fig = Figure(figsize=(8, 0.9 + 0.36 * len(rows)), layout="constrained")
    ax = fig.subplots()
    for y, row in enumerate(rows):
        percent = [100 * accuracy for accuracy in row.values("accuracy").values()]
        if percent:
            middle, half = interval(percent)
            ax.errorbar(middle, y, xerr=half or None, fmt="|", markersize=12, capsize=3, color="C0")
            ax.plot(percent, [y] * len(percent), "o", markersize=4, alpha=0.5, color="C0")
        if row.ceiling is not None:
            ax.vlines(100 * row.ceiling, y - 0.4, y + 0.4, color="grey", ls=":")
    ax.set_yticks(range(len(rows)), [row.name for row in rows], fontsize="small")
    ax.set(xlabel="test accuracy, %", xlim=(0, 104), ylim=(len(rows) - 0.5, -0.5))
    ax.grid(axis="x", alpha=0.3)
    fig.savefig(file, dpi=110)


def accuracy_vs_gmacs(rows: Sequence[Row], file: Path) -> None:
    """Accuracy against cost, a point a setting, with a bar of the 95 % interval over seeds.

    Args:
        rows: of a study; ceilings are drawn as dotted lines.
        file: PNG to write.
    """
    fig = Figure(figsize=(9, 4.2), layout="constrained")
    ax = fig.subplots()
    for row in rows:
        middle, half = interval([100 * accuracy for accuracy in row.values("accuracy").values()])
        macs = next(iter(row.values("macs").values()))
        ax.errorbar(macs / 1e9, middle, half or None, fmt="o", capsize=3, label=row.name)
    for ceiling in sorted({row.ceiling for row in rows if row.ceiling is not None}):
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
