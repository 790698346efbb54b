"""Tables of studies: intervals, paired differences, which columns are told."""

import json

import pytest
from scipy import stats

from vivit_zoo.studies.tables import Row, interval, markdown, note, study_table


def row(name, accuracies, ceiling=None, state="", **result):
    fields = {"shuffled_accuracy": 0.25, "reversed_when_swapped": 0.9, "params": 1234, "macs": 24_200_000}
    fields |= {"clips_per_second": 100.0, "loader_clips_per_second": 900.0, "model_clips_per_second": 110.0}
    fields |= {"peak_bytes": 5_000_000, "head_accuracy": {}} | result
    return Row(name, {seed: fields | {"accuracy": a} for seed, a in accuracies.items()}, ceiling, state)


def cells_of(table):
    return [[text.strip() for text in line.strip("|").split("|")] for line in table.splitlines()]


def test_interval_is_students():
    values = [0.9, 0.95, 0.97, 0.91]
    middle, half = interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=middle, scale=stats.sem(values))
    assert (middle - half, middle + half) == pytest.approx((low, high))
    assert interval([0.5]) == (0.5, 0.0)


def test_study_table():
    rows = [
        row("model", {0: 0.98, 1: 1.0}),
        row("control", {0: 0.5}, ceiling=0.5, peak_bytes=None),
        row("broken", {}, state="failed"),
    ]
    header, rule, model, control, broken = cells_of(study_table(rows))
    assert header[:3] == ["setting", "accuracy", "difference"]
    assert header[-4:] == ["clips/s", "loader alone", "model alone", "peak MB"]
    assert set("".join(rule)) == {"-", ":"}
    pace = ["100", "900", "110"]
    assert model == ["model", "99.0 ± 12.7", "", "25.0 ± 0.0", "90.0 ± 0.0", "", "1,234", "0.0242", *pace, "5"]
    assert control == ["control", "50.0", "-48.0", "25.0", "90.0", "50.0", "1,234", "0.0242", *pace, ""]
    assert broken == ["broken", "failed", *[""] * 10]
    assert [line[:8] for line in cells_of(study_table(rows, pace=False))] == [
        line[:8] for line in (header, rule, model, control, broken)
    ]


def test_differences_are_taken_seed_by_seed():
    """Seeds that differ much and settings that differ little but always; only common seeds count."""
    rows = [
        row("first", {0: 0.5, 1: 0.7, 2: 0.9}),
        row("better", {2: 0.95, 1: 0.75, 0: 0.56, 3: 0.1}),
        row("as good", {0: 0.7, 1: 0.5, 2: 0.9}),
    ]
    _, _, first, better, as_good = cells_of(study_table(rows))
    assert first[2] == ""
    assert better[2] == "**+5.3 ± 1.4**"
    assert as_good[2] == "+0.0 ± 49.7"


def test_heads_have_columns():
    rows = [row("a", {0: 0.4}, head_accuracy={"noun": 0.5, "verb": 0.8}), row("b", {})]
    header, _, a, _ = cells_of(study_table(rows))
    assert header[2:4] == ["noun", "verb"]
    assert a[2:4] == ["50.0", "80.0"]


def test_cost_is_the_largest_and_pace_the_mean():
    """Memory is what a run may need; the pace is what to expect."""
    rows = [row("a", {0: 0.5, 1: 0.5})]
    rows[0].results[1] |= {"peak_bytes": 9_000_000, "clips_per_second": 300.0}
    rows[0].results[0]["peak_bytes"] = 10_000_000
    *_, a = cells_of(study_table(rows))
    assert (a[-4], a[-1]) == ("200", "10")


def test_note_tells_all_seeds_and_machines():
    rows = [row("a", {0: 0.5}, machine="one"), row("b", {0: 0.5, 2: 0.5}, machine="another")]
    assert note(rows) == "Accuracies in percent; 2 seeds, mean ± 95 % interval. another; one"
    assert note(rows[:1]) == "Accuracies in percent; one seed. one"


def test_markdown_aligns():
    lines = markdown({"name": ["a", "long one"], "n": ["12", "3"]}, left=("name",)).splitlines()
    assert lines == ["| name     |  n |", "| -------- | -: |", "| a        | 12 |", "| long one |  3 |"]


def test_rows_survive_json(tmp_path):
    from vivit_zoo.studies.tables import read_rows, write_rows

    rows = [row("a", {0: 0.4, 11: 0.5}, ceiling=0.5), row("b", {}, state="failed")]
    write_rows(rows, tmp_path / "results.json")
    assert read_rows(tmp_path / "results.json") == rows
    assert json.loads((tmp_path / "results.json").read_text())[0]["name"] == "a"
