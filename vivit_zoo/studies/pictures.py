"""The pictures of a study: its measure by setting, differences from the first setting, cost, learning curves."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from vivit_zoo.studies.comparisons import Comparison, Design, Row, compare
from vivit_zoo.studies.measures import Measure
from vivit_zoo.studies.statistics import t_interval

__all__ = ["compared", "curves", "draw_results", "forest", "measure_vs_gmacs", "measured"]


def draw_results(rows: Sequence[Row], design: Design, folder: Path) -> None:
    """The pictures that follow from the results of a study: points.png, cost.png and, of several rows, forest.png."""
    measured(rows, design.measure, folder / "points.png")
    measure_vs_gmacs(rows, design.measure, folder / "cost.png")
    if len(rows) > 1:
        forest(rows, design, folder / "forest.png")


def measured(rows: Sequence[Row], measure: Measure, file: Path) -> None:
    """What a study measures of each setting: a point for each seed, their mean, and its 95 % interval as a bar.

    An interval that leaves the possible range, such as an accuracy above 100 %, is not drawn: points show it better.

    Args:
        rows: of the study; ceilings of accuracies are dotted lines.
        measure: of the study. Runs that are censored are hollow triangles.
        file: PNG to write.
    """
    fig = Figure(figsize=(8, 0.9 + 0.36 * len(rows)), layout="constrained")
    ax = fig.subplots()
    for y, row in enumerate(rows):
        values = row.measured(measure)
        open_ended = set(row.censored(measure))
        if values:
            _interval_bar(ax, list(values.values()), y, measure)
        for seed, value in values.items():
            marker, fill = (">", "none") if seed in open_ended else ("o", "full")
            ax.plot(measure.shown(value), y, marker, color="C0", markersize=4, alpha=0.6, fillstyle=fill)
        if row.ceiling is not None and not measure.log:
            ax.vlines(100 * row.ceiling, y - 0.4, y + 0.4, color="grey", ls=":")
    ax.set_yticks(range(len(rows)), [row.name for row in rows], fontsize="small")
    ax.set(xlabel=_label(measure), ylim=(len(rows) - 0.5, -0.5))
    _scale(ax, measure)
    ax.grid(axis="x", alpha=0.3)
    fig.savefig(file, dpi=110)


def _interval_bar(ax: Any, values: Sequence[float], y: float, measure: Measure) -> None:
    middle, half = t_interval(values)
    ax.plot(measure.shown(middle), y, "|", markersize=14, color="C0")
    if math.isfinite(half) and (measure.log or 0 <= middle - half <= middle + half <= 100):
        ends = [measure.shown(middle - half), measure.shown(middle + half)]
        ax.plot(ends, [y, y], color="C0", lw=1.2, marker="|", markersize=6)


def _label(measure: Measure) -> str:
    return measure.title if measure.log else f"{measure.title}, %" if measure.head else "test accuracy, %"


def _scale(ax: Any, measure: Measure, axis: str = "x") -> None:
    if measure.log:
        _log_scale(ax, axis)
    else:
        ax.set(**{f"{axis}lim": (0, 104)})


def _log_scale(ax: Any, axis: str) -> None:
    ax.set(**{f"{axis}scale": "log"})
    one = getattr(ax, f"{axis}axis")
    low, high = one.get_view_interval()
    one.set_major_locator(LogLocator(subs=range(1, 10) if high < 5 * low else (1, 2, 5)))
    one.set_major_formatter("{x:,g}")
    one.set_minor_formatter(NullFormatter())


def forest(rows: Sequence[Row], design: Design, file: Path) -> None:
    """The difference of each setting from the first with its 95 % interval, and the margin of equality as a band.

    Args:
        rows: of the study.
        design: how they are compared.
        file: PNG to write.
    """
    found = [(row.name, compare(row, rows[0], design)) for row in rows[1:]]
    lines = [(name, one, design) for name, one in found if one is not None]
    compared({f"{design.measure.versus} of {design.measure.title}, from {rows[0].name}": lines}, file)


def compared(panels: Mapping[str, Sequence[tuple[str, Comparison, Design]]], file: Path) -> None:
    """Comparisons as intervals around zero, or around a ratio of 1: filled if decided, hollow if open.

    Args:
        panels: label of the axis -> lines of a name, the comparison and its design, all of one kind of measure.
        file: PNG to write.
    """
    heights = [0.5 + len(lines) for lines in panels.values()]
    longest = max((len(name) for lines in panels.values() for name, *_ in lines), default=0)
    fig = Figure(figsize=(5.5 + 0.065 * longest, 0.8 * len(panels) + 0.3 * sum(heights)), layout="constrained")
    axes = fig.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (label, lines) in zip(axes, panels.items(), strict=True):
        log = any(design.measure.log for *_, design in lines)
        for y, (_, one, design) in enumerate(lines):
            measure = design.measure
            low, high = (measure.shown(sign * design.within) for sign in (-1, 1))
            ax.fill_betweenx([y - 0.5, y + 0.5], low, high, color="grey", alpha=0.15, lw=0)
            color = "C0" if one.decision.decided else "grey"
            if math.isfinite(one.half):
                ends = np.array([one.middle - one.half, one.middle + one.half])
                ends = np.exp(ends) if log else ends.clip(-100, 100)  # no difference of accuracies is larger
                ax.plot(ends, [y, y], color=color, lw=1.5)
            marker = {1: ">", -1: "<", 0: "o"}[one.bound]
            fill = color if one.decision.decided else "white"
            ax.plot(measure.shown(one.middle), y, marker, color=color, markersize=6, markerfacecolor=fill)
        ax.axvline(1.0 if log else 0.0, color="black", lw=0.8)
        ax.set_yticks(range(len(lines)), [name for name, *_ in lines], fontsize="small")
        ax.set(xlabel=label, ylim=(len(lines) - 0.5, -0.5))
        if log:
            _log_scale(ax, "x")
        ax.grid(axis="x", alpha=0.3)
    fig.savefig(file, dpi=110)


def measure_vs_gmacs(rows: Sequence[Row], measure: Measure, file: Path) -> None:
    """What a study measures against the cost of a clip: a small point for each seed, a large one for the mean.

    Args:
        rows: of a study; ceilings of accuracies are dotted lines.
        measure: of the study.
        file: PNG to write.
    """
    fig = Figure(figsize=(9, 4.2), layout="constrained")
    ax = fig.subplots()
    for i, row in enumerate(rows):
        values = list(row.measured(measure).values())
        if not values:
            continue
        macs = next(iter(row.values("macs").values())) / 1e9
        color = f"C{i % 10}"
        ax.plot([macs] * len(values), [measure.shown(one) for one in values], ".", color=color, markersize=5, alpha=0.5)
        ax.plot(macs, measure.shown(t_interval(values)[0]), "o", color=color, label=row.name)
    for ceiling in sorted({row.ceiling for row in rows if row.ceiling is not None and not measure.log}):
        ax.axhline(100 * ceiling, color="grey", lw=0.8, ls=":")
        at = (0.99, 100 * ceiling)
        where = ("axes fraction", "data")
        ax.annotate(f"ceiling {100 * ceiling:.1f}", at, xycoords=where, ha="right", va="bottom", color="grey")
    ax.set(xlabel="GMACs a clip", ylabel=_label(measure))
    _scale(ax, measure, "y")
    fig.legend(loc="outside right upper", fontsize="small")
    fig.savefig(file, dpi=120)


def curves(metrics: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], file: Path) -> None:
    """Training loss and accuracy on some test clips over the steps: the median over the seeds, and a band of all.

    A run that stopped early keeps its last values, so that median and band are always of all seeds.

    Args:
        metrics: setting -> for each seed the lines of its metrics.jsonl, with "step", "loss" and "accuracy" in [0, 1].
        file: PNG to write.
    """
    fig = Figure(figsize=(12, 4), layout="constrained")
    for ax, (name, scale) in zip(fig.subplots(1, 2), {"loss": 1.0, "accuracy": 100.0}.items(), strict=True):
        for i, (setting, seeds) in enumerate(metrics.items()):
            steps = sorted({line["step"] for lines in seeds for line in lines})
            values = scale * np.array([_at(steps, lines, name) for lines in seeds if lines])
            if not len(values):
                continue
            color = f"C{i % 10}"
            ax.plot(steps, np.median(values, 0), color=color, label=setting if name == "loss" else None)
            if len(values) > 1:
                ax.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.15, lw=0)
        label, top = {"loss": ("training loss", None), "accuracy": ("accuracy in training, %", 104)}[name]
        ax.set(xlabel="step", ylabel=label, ylim=(0, top))
    fig.legend(loc="outside right upper", fontsize="small")
    fig.savefig(file, dpi=120)


def _at(steps: Sequence[float], lines: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    """The values of one run at these steps: interpolated, and after its end the last."""
    return np.interp(steps, [line["step"] for line in lines], [line[name] for line in lines])
