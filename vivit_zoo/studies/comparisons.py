"""The results of a study by setting, and how each setting compares with the first."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vivit_zoo.studies.measures import Accuracy, Measure, measure_from_json
from vivit_zoo.studies.statistics import (
    ALPHA,
    LEAST_SEEDS,
    Decision,
    anytime_interval,
    anytime_p_value,
    anytime_width,
    decide,
    equivalence_p_value,
    seeds_needed,
    t_interval,
    t_p_value,
    t_width,
)

__all__ = ["Comparison", "Design", "Row", "compare", "read_results", "write_results"]


@dataclass(frozen=True)
class Row:
    """One setting of a study with the results of `run_cell` by seed.

    Args:
        name: of the setting.
        results: by seed, of the seeds that are finished.
        ceiling: accuracy that cannot be passed by construction, in [0, 1], or None.
        state: "failed" or "unfinished" if there are no results.
    """

    name: str
    results: dict[int, dict[str, Any]]
    ceiling: float | None = None
    state: str = ""

    def values(self, *keys: str) -> dict[int, float]:
        """A number of the results by seed, such as `values("head_accuracy", "number")`, of those that have it."""
        found: dict[int, Any] = dict(self.results)
        for key in keys:
            found = {seed: value[key] for seed, value in found.items() if value.get(key) is not None}
        return found

    def measured(self, measure: Measure) -> dict[int, float]:
        """The numbers that a measure takes of the results, by seed, on its scale of comparison."""
        found = {seed: measure.value(result) for seed, result in self.results.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def censored(self, measure: Measure) -> list[int]:
        """The seeds whose number is only a lower bound."""
        return [seed for seed, result in self.results.items() if measure.censored(result)]


@dataclass(frozen=True)
class Design:
    """How the settings of a study are compared.

    Args:
        measure: the number that is compared.
        margin: on the measure's scale, within which two settings count as equal; None for the measure's own.
        sequential: whether the number of seeds depends on the results, so that intervals must hold at all times.
        alpha: probability of an error of each comparison.
    """

    measure: Measure = field(default_factory=Accuracy)
    margin: float | None = None
    sequential: bool = False
    alpha: float = ALPHA

    @property
    def within(self) -> float:
        """The margin."""
        return self.measure.margin if self.margin is None else self.margin

    @property
    def interval(self) -> Callable[[Sequence[float], float], tuple[float, float]]:
        """Of the mean of some values at a level: the mean and half the interval's width."""
        return anytime_interval if self.sequential else t_interval


@dataclass(frozen=True)
class Comparison:
    """One setting against another, seed by seed.

    Args:
        values: differences on the measure's scale, of the seeds that both have.
        middle: their mean.
        half: half the width of its interval; inf if there are too few.
        decision: what the interval decides.
        bound: 1 if the true difference is larger than the mean because of censored runs, -1 if it is smaller, else 0.
        needed: about how many seeds it takes to decide; None if more than can be told, or if it is decided.
        p_zero: p-value of no difference.
        p_unequal: p-value of a difference of the margin or more.
    """

    values: list[float]
    middle: float
    half: float
    decision: Decision
    bound: int
    needed: int | None
    p_zero: float
    p_unequal: float


def compare(one: Row, other: Row, design: Design) -> Comparison | None:
    """How one setting differs from another, by the seeds that both have; None if there are none.

    None, too, if one of them cannot get by construction to what is to be reached. Two settings are never called equal
    if a run of either is censored, since its true number is not known.
    """
    measure, margin = design.measure, design.within
    here, there = one.measured(measure), other.measured(measure)
    seeds = sorted(here.keys() & there.keys())
    if not seeds or any(measure.out_of_reach(row.ceiling) for row in (one, other)):
        return None
    values = [here[seed] - there[seed] for seed in seeds]
    middle, half = design.interval(values, design.alpha)
    if design.sequential and len(seeds) < LEAST_SEEDS:
        half = math.inf
    unknown = [len(set(row.censored(measure)) & set(seeds)) for row in (one, other)]
    decision = decide(middle, half, margin if not any(unknown) else -1.0)
    width = anytime_width if design.sequential else t_width
    spread = half / float(width(len(seeds), design.alpha)) if math.isfinite(half) else math.nan
    needed = (
        None if decision.decided or math.isnan(spread) else seeds_needed(middle, spread, margin, design.alpha, width)
    )
    if design.sequential:
        p_zero, p_margin = anytime_p_value(values), max(anytime_p_value(values, at) for at in (margin, -margin))
        p_unequal = p_margin if abs(middle) < margin else 1.0
    else:
        p_zero, p_unequal = t_p_value(values), equivalence_p_value(values, margin)
    return Comparison(
        values=values,
        middle=middle,
        half=half,
        decision=decision,
        bound=(unknown[0] > unknown[1]) - (unknown[0] < unknown[1]),
        needed=needed,
        p_zero=p_zero,
        p_unequal=1.0 if any(unknown) else p_unequal,
    )


def write_results(rows: Sequence[Row], design: Design, file: Path) -> None:
    """Write the results of a study as JSON, for `read_results`."""
    kept = {
        "measure": design.measure.to_json(),
        "margin": design.within,
        "sequential": design.sequential,
        "alpha": design.alpha,
        "rows": [asdict(row) for row in rows],
    }
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def read_results(file: Path) -> tuple[list[Row], Design]:
    """The rows and the design that `write_results` wrote."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    rows = [Row(**row) for row in kept["rows"]]
    design = Design(measure_from_json(kept["measure"]), kept["margin"], kept["sequential"], kept["alpha"])
    return [Row(row.name, {int(s): r for s, r in row.results.items()}, row.ceiling, row.state) for row in rows], design
