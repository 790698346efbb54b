"""Results of a study as a Markdown table: means with intervals, comparisons with the first row, cost."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean

from vivit_zoo.studies.comparisons import Comparison, Design, Row, compare
from vivit_zoo.studies.measures import Accuracy, ClipsToReach, Measure
from vivit_zoo.studies.statistics import t_interval
from vivit_zoo.system.markdown import markdown

__all__ = ["decision_text", "difference_text", "markdown", "mean_text", "note", "study_table"]

PERCENT = Accuracy()


def study_table(rows: Sequence[Row], design: Design | None = None, pace: bool = True) -> str:
    """A study in Markdown, one line for each setting.

    The first column is what the study measures, as the mean over the seeds with its 95 % interval. The second is the
    difference from the first row, seed by seed; it is bold if its interval excludes zero. Empty columns are left out.
    Clips to reach an accuracy are also shown as computation, with ratios, if the settings differ in GMACs.

    Args:
        rows: of the study.
        design: how they are compared; by default accuracies of a fixed number of seeds.
        pace: whether to show clips per second, of training and of loader and model alone, and memory: what differs on
            another machine.
    """
    design = design or Design()
    measure = design.measure
    heads = dict.fromkeys(head for row in rows for result in row.results.values() for head in result["head_accuracy"])
    compared = {row.name: None if row is rows[0] else compare(row, rows[0], design) for row in rows}
    columns: dict[str, Callable[[Row], str]] = {
        "setting": lambda row: row.name,
        measure.title: lambda row: mean_text(row, measure) or row.state,
        measure.versus: lambda row: difference_text(compared[row.name], design),
        "decision": lambda row: (
            "out of reach" if measure.out_of_reach(row.ceiling) else decision_text(compared[row.name], design)
        ),
    }
    if isinstance(measure, ClipsToReach):
        columns["reached"] = lambda row: _reached(row, measure)
        columns["accuracy then"] = partial(
            _percent, keys=("head_accuracy", measure.head) if measure.head else ("accuracy",)
        )
    else:
        columns |= {head: partial(_percent, keys=("head_accuracy", head)) for head in heads if head != measure.head}
        if measure.head:
            columns["all heads"] = partial(_percent, keys=("accuracy",))
    if isinstance(measure, Accuracy) and measure.trained:
        columns["rise at the end"] = partial(_percent, keys=("rise",))
    columns |= {
        "frames shuffled": partial(_percent, keys=("shuffled_accuracy",)),
        "halves swapped: reversed": partial(_percent, keys=("reversed_when_swapped",)),
        "ceiling": lambda row: "" if row.ceiling is None else f"{100 * row.ceiling:.1f}",
        "params": lambda row: _largest(row.values("params"), "{:,.0f}", 1),
        "trained": lambda row: _largest(_fewer(row), "{:,.0f}", 1),
        "GMACs": lambda row: _largest(row.values("macs"), "{:.3g}", 1e9),
    }
    if isinstance(measure, ClipsToReach) and len({_clip_cost(row) for row in rows if row.results}) > 1:
        columns[measure.title.replace("clips", "GMACs")] = lambda row: mean_text(row, measure, _clip_cost(row))
        columns["ratio of GMACs"] = lambda row: (
            # Of two lower bounds the ratio says nothing.
            ""
            if row.censored(measure) and rows[0].censored(measure)
            else difference_text(compared[row.name], design, _clip_cost(row) - _clip_cost(rows[0]))
        )
    if pace:
        columns |= {
            "clips/s": lambda row: _pace(row.values("clips_per_second")),
            "loader alone": lambda row: _pace(row.values("loader_clips_per_second")),
            "model alone": lambda row: _pace(row.values("model_clips_per_second")),
            "peak MB": lambda row: _largest(row.values("peak_bytes"), "{:.0f}", 1e6),
        }
    texts = {title: [cell(row) for row in rows] for title, cell in columns.items()}
    return markdown({title: cells for title, cells in texts.items() if any(cells)}, left=("setting", "decision"))


def mean_text(row: Row, measure: Measure, shift: float = 0.0) -> str:
    """The mean of a setting with its interval; "over" it, if some runs did not reach what was to be reached.

    Args:
        row: the setting.
        measure: of the study.
        shift: added to all numbers, on the measure's scale.
    """
    values = [value + shift for value in row.measured(measure).values()]
    if not values:
        return ""
    text = measure.text(*t_interval(values))
    return f"over {text}" if row.censored(measure) else text


def difference_text(compared: Comparison | None, design: Design, shift: float = 0.0) -> str:
    """A comparison's mean and interval, bold if it excludes zero; "over" or "under", if censored runs make it so.

    Args:
        compared: the comparison; None for no text.
        design: of the study.
        shift: added to all differences, on the measure's scale.
    """
    if compared is None:
        return ""
    middle = compared.middle + shift
    text = design.measure.difference(middle, compared.half)
    text = {1: f"over {text}", -1: f"under {text}", 0: text}[compared.bound]
    return f"**{text}**" if abs(middle) > compared.half else text


def decision_text(compared: Comparison | None, design: Design) -> str:
    """What a comparison decides, in words; if it is open, about how many seeds it takes."""
    if compared is None or len(compared.values) < 2:
        return ""
    decision, measure = compared.decision, design.measure
    parts = [measure.words[decision.sign > 0]] if decision.sign else []
    if decision.equal:
        parts.append(f"equal within {measure.margin_text(design.within)}")
    if parts:
        return ", ".join(parts)
    if not math.isfinite(compared.half):
        return "open"
    return f"open, about {compared.needed} seeds" if compared.needed else "open, over 1,000 seeds"


def _reached(row: Row, measure: Measure) -> str:
    return f"{len(row.results) - len(row.censored(measure))} of {len(row.results)}" if row.results else ""


def _percent(row: Row, keys: tuple[str, ...]) -> str:
    values = [100 * value for value in row.values(*keys).values()]
    return PERCENT.text(*t_interval(values)) if values else ""


def _fewer(row: Row) -> dict[int, float]:
    """The number of parameters that train, where others are frozen."""
    trained, params = row.values("trained_params"), row.values("params")
    return {seed: count for seed, count in trained.items() if count < params[seed]}


def _clip_cost(row: Row) -> float:
    """The logarithm of the GMACs of training on one clip: the backward pass takes as many as two forward passes."""
    return math.log(3 * max(row.values("macs").values()) / 1e9) if row.results else 0.0


def _largest(values: dict[int, float], form: str, unit: float) -> str:
    """The largest of numbers that hardly depend on the seed."""
    return form.format(max(values.values()) / unit) if values else ""


def _pace(values: dict[int, float]) -> str:
    return f"{mean(values.values()):.0f}" if values else ""


def note(rows: Sequence[Row], design: Design | None = None) -> str:
    """What the numbers of a table are, and the machine that they are from."""
    design = design or Design()
    results = [result for row in rows for result in row.results.values()]
    counts = sorted({len(row.results) for row in rows if row.results})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seeds"
    if counts[-1] == 1:
        parts = ["one seed"]
    elif isinstance(design.measure, ClipsToReach):
        parts = [f"{seeds}, geometric mean (95 % interval)"]
    else:
        parts = [f"{seeds}, mean ± 95 % interval"]
    if design.sequential:
        parts.append("Seeds were added until a difference was decided; the intervals of the differences allow for that")
    parts.append("; ".join(sorted({result["machine"] for result in results})))
    return "Accuracies in percent; " + ". ".join(parts)
