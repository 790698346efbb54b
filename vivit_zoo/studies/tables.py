"""Results of a study as a table: means with intervals, differences between rows seed by seed, what is known of cost."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

__all__ = [
    "Row",
    "difference",
    "interval",
    "markdown",
    "note",
    "read_rows",
    "study_table",
    "with_interval",
    "write_rows",
]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """One setting of a study: what `run_cell` found, by seed.

    Args:
        name: of the setting.
        results: by seed; those of the seeds that are finished.
        ceiling: accuracy that cannot be passed by design, in [0, 1], or None.
        state: in a word, where there are no results: "failed", "unfinished".
    """

    name: str
    results: dict[int, dict[str, Any]]
    ceiling: float | None = None
    state: str = ""

    def values(self, *keys: str) -> dict[int, float]:
        """A number of the results by seed, such as `values("head_accuracy", "number")`; of those that have it."""
        found: dict[int, Any] = dict(self.results)
        for key in keys:
            found = {seed: value[key] for seed, value in found.items() if value.get(key) is not None}
        return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval by Student's t; a half of 0 for a single value, which has none."""
    if len(values) < 2:
        return values[0], 0.0
    return mean(values), float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / len(values) ** 0.5


def study_table(rows: Sequence[Row], pace: bool = True) -> str:
    """The study in Markdown, one line a setting; accuracies in percent.

    Means over the seeds with their 95 % intervals. The differences are from the first row, taken seed by seed; bold are
    those whose interval leaves out zero. Columns that say nothing are left out.

    Args:
        rows: of the study.
        pace: whether to tell clips a second, in training and of loader and model alone, and memory: what another
            machine would do otherwise.
    """
    heads = dict.fromkeys(head for row in rows for result in row.results.values() for head in result["head_accuracy"])
    columns: dict[str, Callable[[Row], str]] = {
        "setting": lambda row: row.name,
        "accuracy": lambda row: _percent(row.values("accuracy")) or row.state,
        "difference": lambda row: _difference(row, rows[0]),
        **{head: partial(_percent_of_head, head=head) for head in heads},
        "frames shuffled": lambda row: _percent(row.values("shuffled_accuracy")),
        "halves swapped: reversed": lambda row: _percent(row.values("reversed_when_swapped")),
        "ceiling": lambda row: "" if row.ceiling is None else f"{100 * row.ceiling:.1f}",
        "params": lambda row: _same(row.values("params"), "{:,.0f}", 1),
        "GMACs": lambda row: _same(row.values("macs"), "{:.3g}", 1e9),
    }
    if pace:
        columns |= {
            "clips/s": lambda row: _pace(row.values("clips_per_second")),
            "loader alone": lambda row: _pace(row.values("loader_clips_per_second")),
            "model alone": lambda row: _pace(row.values("model_clips_per_second")),
            "peak MB": lambda row: _same(row.values("peak_bytes"), "{:.0f}", 1e6),
        }
    said = {title: [cell(row) for row in rows] for title, cell in columns.items()}
    return markdown({title: cells for title, cells in said.items() if any(cells)}, left=("setting",))


def _percent_of_head(row: Row, head: str) -> str:
    return _percent(row.values("head_accuracy", head))


def _same(values: dict[int, float], form: str, unit: float) -> str:
    """What hardly depends on the seed, of which the largest is told."""
    return form.format(max(values.values()) / unit) if values else ""


def _percent(values: dict[int, float]) -> str:
    return with_interval([100 * value for value in values.values()])


def note(rows: Sequence[Row]) -> str:
    """What the numbers are, and of which machine."""
    results = [result for row in rows for result in row.results.values()]
    seeds = len({seed for row in rows for seed in row.results})
    spread = f"{seeds} seeds, mean ± 95 % interval" if seeds > 1 else "one seed"
    return f"Accuracies in percent; {spread}. {'; '.join(sorted({result['machine'] for result in results}))}"


def difference(one: Row, other: Row, *keys: str) -> list[float]:
    """How much better one setting is than another under each seed that both have, in percent."""
    here, there = (row.values(*keys or ("accuracy",)) for row in (one, other))
    return [100 * (here[seed] - there[seed]) for seed in sorted(here.keys() & there.keys())]


def _difference(row: Row, first: Row) -> str:
    differences = difference(row, first)
    if row is first or not differences:
        return ""
    middle, half = interval(differences)
    text = with_interval(differences, "+")
    return f"**{text}**" if 0 < half < abs(middle) else text


def with_interval(values: Sequence[float], sign: str = "") -> str:
    """Mean and interval in words; `sign` is "+" where a positive one shall have one."""
    if not values:
        return ""
    middle, half = interval(values)
    return f"{middle:{sign}.1f}" + (f" ± {half:.1f}" if len(values) > 1 else "")


def _pace(values: dict[int, float]) -> str:
    return f"{mean(values.values()):.0f}" if values else ""


def markdown(columns: dict[str, list[str]], left: Sequence[str] = ()) -> str:
    """Columns of text by title as a Markdown table that can be read as it is; all to the right but those named."""
    width = {title: max(map(len, [title, *cells])) for title, cells in columns.items()}

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width[title]) if title in left else cell.rjust(width[title])
            for title, cell in zip(columns, cells, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width[title] if title in left else "-" * (width[title] - 1) + ":" for title in columns]
    return "\n".join(line(cells) for cells in [list(columns), rule, *zip(*columns.values(), strict=True)])


def write_rows(rows: Sequence[Row], file: Path) -> None:
    """Keep the results of a study as JSON, for `read_rows`."""
    file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read_rows(file: Path) -> list[Row]:
    """The rows that `write_rows` kept."""
    rows = [Row(**row) for row in json.loads(file.read_text())]
    return [Row(row.name, {int(s): r for s, r in row.results.items()}, row.ceiling, row.state) for row in rows]
