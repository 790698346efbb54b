"""Draws how often studies stop wrongly, and with how many seeds, into docs/results/sequential.png.

python docs/draw_sequential.py
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vivit_zoo.studies.statistics import ALPHA, anytime_width, simulate_sequential, t_width

OUT = Path(__file__).parent / "results" / "sequential.png"
MOST = 30
MARGINS = (0.5, 1.0)  # in standard deviations of a difference
EFFECTS = np.linspace(0, 5, 21)


def wrong_by_seeds(most: int = MOST, studies: int = 10_000) -> dict[str, np.ndarray]:
    """For both intervals the share of studies without a difference that have found one after each number of seeds."""
    n = np.arange(1, most + 1)
    differences = np.random.default_rng(0).standard_normal((studies, most))
    middle = differences.cumsum(1) / n
    spread = np.sqrt(np.maximum((differences**2).cumsum(1) - n * middle**2, 1e-30) / np.maximum(n - 1, 1))
    found = {}
    for name, width in {"Student's interval": t_width, "confidence sequence": anytime_width}.items():
        away = (np.abs(middle) > width(n) * spread) & (n >= 3)
        found[name] = np.logical_or.accumulate(away, 1).mean(0)
    return found


def main() -> None:
    """Simulate and draw."""
    fig = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = fig.subplots(1, 2)
    for name, share in wrong_by_seeds().items():
        left.plot(np.arange(1, MOST + 1), 100 * share, label=name)
    left.axhline(100 * ALPHA, color="grey", ls=":", label=f"{ALPHA:.0%}")
    left.set(xlabel="seeds so far", ylabel="null studies with a difference, %", ylim=(0, None), xlim=(1, MOST))
    left.legend(fontsize="small")
    for margin in MARGINS:
        seeds = np.array([simulate_sequential(effect, margin, max_seeds=MOST).seeds for effect in EFFECTS])
        (line,) = right.plot(EFFECTS, seeds.mean(1), label=f"margin of {margin:g}")
        low, high = np.percentile(seeds, [25, 75], axis=1)
        right.fill_between(EFFECTS, low, high, color=line.get_color(), alpha=0.15, lw=0)
    right.set(xlabel="difference, standard deviations", ylabel=f"seeds, at most {MOST}", ylim=(0, MOST + 1))
    right.legend(fontsize="small", title="mean, and middle half")
    fig.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
