"""Statistics of studies: intervals of paired differences, when to stop adding seeds, many comparisons, power.

Differences between two settings are taken seed by seed, so that what a seed does to both cancels. There are two kinds
of 95 % intervals of their mean. `t_interval` is Student's, for a number of seeds that was fixed beforehand. If the
results decide whether seeds are added, `anytime_interval` is needed, which holds for all numbers of seeds at once.

Functions of n, means and deviations take arrays as well, so that thousands of studies can be simulated together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; importing scipy.stats takes seven times as long

__all__ = [
    "ALPHA",
    "LEAST_SEEDS",
    "Decision",
    "Simulation",
    "anytime_interval",
    "anytime_p_value",
    "anytime_width",
    "decide",
    "equivalence_p_value",
    "holm",
    "seeds_needed",
    "simulate_sequential",
    "t_interval",
    "t_p_value",
    "t_width",
]

ALPHA = 0.05
LEAST_SEEDS = 3  # before a difference may count as decided
# The variance of the effect, in units of the noise, for which the anytime interval is tuned. Any value gives a valid
# interval; this one needs few seeds for effects from 1 to 5, which is where the differences of these studies are.
PRIOR = 10.0


def t_width(n: Any, alpha: float = ALPHA) -> Any:
    """Half the width of Student's interval of a mean of n values, in sample standard deviations; inf for n = 1."""
    n = np.asarray(n, dtype=float)
    return np.where(n > 1, stdtrit(np.maximum(n - 1, 1), 1 - alpha / 2) / np.sqrt(n), np.inf)


def anytime_width(n: Any, alpha: float = ALPHA) -> Any:
    """Half the width of the anytime interval of a mean of n values, in sample standard deviations; inf for small n.

    The interval consists of the means that a t-test by betting does not reject. Its statistic is the ratio of the
    likelihoods of the scale-free data under an effect mean / deviation ~ N(0, `PRIOR`) and under no effect, which is a
    nonnegative martingale with mean 1 and stays below 1 / alpha forever with probability 1 - alpha (Ville). So all
    intervals of a growing sample hold at once with probability 1 - alpha, whatever decides when it stops growing. See
    Lai (1976), On confidence sequences, and Wang & Ramdas (2023), Anytime-valid t-tests, https://arxiv.org/abs/2310.03722.
    """
    n, c = np.asarray(n, dtype=float), 1 / PRIOR
    rest = 1 - (alpha**2 * c / (n + c)) ** (1 / n)
    room = n * (n - rest * (n + c))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((room > 0) & (n > 1), np.sqrt(rest * (n + c) * (n - 1) / room), np.inf)


def t_interval(values: Sequence[float], alpha: float = ALPHA) -> tuple[float, float]:
    """Mean and half the width of its interval by Student's t; inf for a single value."""
    return _interval(values, t_width(len(values), alpha))


def anytime_interval(values: Sequence[float], alpha: float = ALPHA) -> tuple[float, float]:
    """Mean and half the width of its interval under optional stopping, see `anytime_width`."""
    return _interval(values, anytime_width(len(values), alpha))


def _interval(values: Sequence[float], width: Any) -> tuple[float, float]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(width) * spread if np.isfinite(width) else float("inf")


@dataclass(frozen=True)
class Decision:
    """What an interval decides about a difference.

    Args:
        sign: -1 or 1 if the interval excludes zero, and on which side it is; else 0.
        equal: whether the whole interval is within the margin of zero.
    """

    sign: int
    equal: bool

    @property
    def decided(self) -> bool:
        """Whether the difference is away from zero, or equal within the margin, or both."""
        return self.equal or self.sign != 0


def decide(middle: float, half: float, margin: float) -> Decision:
    """What the interval middle ± half decides; see `Decision`."""
    away, equal = _decide(middle, half, margin)
    return Decision(int(np.sign(middle)) if away else 0, bool(equal))


def _decide(middle: Any, half: Any, margin: float) -> tuple[Any, Any]:
    return np.abs(middle) > half, np.abs(middle) + half <= margin


def t_p_value(values: Sequence[float]) -> float:
    """The two-sided p-value of Student's test that the mean is zero; 1 for a single value."""
    return _t_p_value(values, 0.0)


def equivalence_p_value(values: Sequence[float], margin: float) -> float:
    """The p-value of the hypothesis that the mean is not within the margin of zero, by two one-sided t-tests.

    It is at most `ALPHA` exactly if the interval of `t_interval` is within the margin: the larger of the two one-sided
    p-values, doubled.
    """
    if abs(np.mean(values)) >= margin:
        return 1.0
    return max(_t_p_value(values, margin), _t_p_value(values, -margin))


def _t_p_value(values: Sequence[float], at: float) -> float:
    n, away = len(values), abs(float(np.mean(values)) - at)
    if n < 2:
        return 1.0
    spread = float(np.std(values, ddof=1))
    if spread == 0:
        return 0.0 if away > 0 else 1.0
    return float(2 * stdtr(n - 1, -away * np.sqrt(n) / spread))


def anytime_p_value(values: Sequence[float], at: float = 0.0) -> float:
    """The p-value of the hypothesis that the mean is `at`, under optional stopping, see `anytime_width`."""
    n, c = len(values), 1 / PRIOR
    centred = np.asarray(values, dtype=float) - at
    squares = float((centred**2).sum())
    if n < 2 or squares == 0:
        return 1.0
    left = 1 - float(centred.sum()) ** 2 / ((n + c) * squares)
    return min(1.0, float(np.sqrt((n + c) / c) * left ** (n / 2)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's method, in the given order.

    Rejecting where they are at most alpha makes a wrong rejection among all with a probability of at most alpha,
    whatever the dependence.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def seeds_needed(
    middle: float,
    spread: float,
    margin: float,
    alpha: float = ALPHA,
    width: Callable[[Any, float], Any] = anytime_width,
    most: int = 1000,
) -> int | None:
    """About how many seeds a difference takes to be decided, if its mean and standard deviation stay as they are.

    Args:
        middle: mean of the differences so far.
        spread: their standard deviation.
        margin: within which two settings count as equal.
        alpha: of the interval.
        width: of the interval, `anytime_width` or `t_width`.
        most: None is returned if more would be needed, such as for a difference close to the margin.
    """
    n = np.arange(LEAST_SEEDS, most + 1)
    widths = width(n, alpha)
    half = np.full(len(n), np.inf)
    half[np.isfinite(widths)] = widths[np.isfinite(widths)] * spread
    away, equal = _decide(middle, half, margin)
    decided = n[away | equal]
    return int(decided[0]) if len(decided) else None


@dataclass(frozen=True)
class Simulation:
    """How simulated studies ended that add seeds until each comparison is decided.

    Args:
        away: share of the studies in which some comparison was decided to be away from zero.
        equal: share in which some comparison was decided to be equal within the margin.
        seeds: number of seeds at which each study stopped, (studies,).
    """

    away: float
    equal: float
    seeds: np.ndarray


def simulate_sequential(
    effect: float,
    margin: float,
    max_seeds: int = 30,
    comparisons: int = 1,
    studies: int = 10_000,
    seed: int = 0,
) -> Simulation:
    """Simulate studies under the rule of `--seeds auto`: add a seed until all comparisons are decided.

    All rows of a study are compared with its first. Its noise is in all differences, and so is a noise of each row's
    own; the differences have a standard deviation of 1.

    Args:
        effect: mean of each difference, in units of its standard deviation.
        margin: within which two settings count as equal, in the same unit.
        max_seeds: at which a study stops undecided.
        comparisons: rows besides the first; the error is divided among them.
        studies: number of simulated studies.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((studies, 1, max_seeds))
    rows = rng.standard_normal((studies, comparisons, max_seeds))
    differences = effect + (rows - first) / np.sqrt(2)
    n = np.arange(1, max_seeds + 1)
    middle = differences.cumsum(-1) / n
    variance = ((differences**2).cumsum(-1) - n * middle**2) / np.maximum(n - 1, 1)
    width = anytime_width(n, ALPHA / comparisons)
    half = np.where(n >= LEAST_SEEDS, width, np.inf) * np.sqrt(np.maximum(variance, 1e-30))
    away, equal = _decide(middle, half, margin)
    decided = away | equal
    ever = decided.any(-1)
    stop = np.where(ever, decided.argmax(-1), max_seeds - 1)[..., None]  # of each comparison, which then stays decided
    ended_away, ended_equal = (np.take_along_axis(one, stop, -1)[..., 0] for one in (away, equal))
    return Simulation(
        away=float(ended_away.any(-1).mean()),
        equal=float(ended_equal.any(-1).mean()),
        seeds=1 + stop[..., 0].max(-1),
    )
