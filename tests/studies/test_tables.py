"""Tables of studies: intervals, paired differences, decisions, which columns there are."""

import dataclasses
import math

from vivit_zoo.studies.comparisons import Design, Row, read_results, write_results
from vivit_zoo.studies.measures import Accuracy, ClipsToReach
from vivit_zoo.studies.tables import markdown, note, study_table


def row(name, accuracies, ceiling=None, state="", **result):
    fields = {"shuffled_accuracy": 0.25, "reversed_when_swapped": 0.9, "params": 1234, "macs": 24_200_000}
    fields |= {"clips_per_second": 100.0, "loader_clips_per_second": 900.0, "model_clips_per_second": 110.0}
    fields |= {"peak_bytes": 5_000_000, "head_accuracy": {}} | result
    return Row(name, {seed: fields | {"accuracy": a} for seed, a in accuracies.items()}, ceiling, state)


def cells_of(table):
    return [[text.strip() for text in line.strip("|").split("|")] for line in table.splitlines()]


def test_study_table():
    rows = [
        row("model", {0: 0.98, 1: 1.0}),
        row("control", {0: 0.5}, ceiling=0.5, peak_bytes=None),
        row("broken", {}, state="failed"),
    ]
    header, rule, model, control, broken = cells_of(study_table(rows))
    assert header[:3] == ["setting", "accuracy", "difference"]
    assert "decision" not in header  # one common seed decides nothing
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
    assert better[2:4] == ["**+5.3 ± 1.4**", "higher"]
    assert as_good[2:4] == ["+0.0 ± 49.7", "open, about 64 seeds"]


def test_decisions_name_the_margin():
    rows = [row("first", {0: 0.5, 1: 0.7, 2: 0.9}), row("other", {0: 0.51, 1: 0.711, 2: 0.912})]
    assert cells_of(study_table(rows))[3][2:4] == ["**+1.1 ± 0.2**", "higher, equal within ±5"]
    assert cells_of(study_table(rows, Design(margin=1.0)))[3][3] == "higher"
    assert cells_of(study_table(rows, Design(sequential=True)))[3][2:4] == ["**+1.1 ± 0.8**", "higher, equal within ±5"]


def test_heads_have_columns():
    rows = [row("a", {0: 0.4}, head_accuracy={"noun": 0.5, "verb": 0.8}), row("b", {})]
    header, _, a, _ = cells_of(study_table(rows))
    assert header[2:4] == ["noun", "verb"]
    assert a[2:4] == ["50.0", "80.0"]
    header, _, a, _ = cells_of(study_table(rows, Design(Accuracy("verb"))))
    assert header[1:4] == ["verb", "noun", "all heads"]
    assert a[1:4] == ["80.0", "50.0", "40.0"]


def test_clips_to_reach_are_geometric_means_and_say_what_did_not_get_there():
    rows = [row(name, {0: 0.9, 1: 0.92}) for name in ("first", "slower", "never")]
    for one, clips in zip(rows, ([1000, 4000], [1210, 4840], [19_200, 19_200]), strict=True):
        for seed, count in enumerate(clips):
            one.results[seed] |= {"clips": count, "reached": count < 19_200}
    header, _, first, slower, never = cells_of(study_table(rows, Design(ClipsToReach())))
    assert header[1:6] == ["clips to 90 %", "ratio", "decision", "reached", "accuracy then"]
    assert first[5] == "91.0 ± 12.7"
    assert first[1].startswith("2,000 (")
    assert slower[2:5] == ["**1.21 (1.21 to 1.21)**", "more, equal within a ratio of 1.25", "2 of 2"]
    assert never[1] == "over 19,200 (19,200 to 19,200)"
    assert never[2].startswith("over 9.60 (")
    assert never[4] == "0 of 2"


def test_clips_are_also_shown_as_computation_where_settings_differ_in_it():
    """A training step takes three forward passes. Of two lower bounds there is no ratio."""
    rows = [row(name, {0: 0.9, 1: 0.92, 2: 0.9}) for name in ("first", "cheap", "never", "broken")]
    rows[3].results.clear()
    for one, clips, macs in zip(rows, (1000, 1000, 4000), (2e9, 5e8, 1e9), strict=False):
        for seed in one.results:
            one.results[seed] |= {"clips": clips * 2**seed, "reached": clips < 4000, "macs": macs}
    design = Design(ClipsToReach())

    def columns(*some):
        header, _, *lines = cells_of(study_table(some, design, pace=False))
        return header[-2:], [line[-2:] for line in lines]

    titles, (first, cheap, never, broken) = columns(*rows)
    assert titles == ["GMACs to 90 %", "ratio of GMACs"]
    assert [one[0].split(" (")[0] for one in (first, cheap, never)] == ["12,000", "3,000", "over 24,000"]
    assert [first[1], cheap[1], broken] == ["", "**0.25 (0.25 to 0.25)**", ["", ""]]
    assert never[1] == "**over 2.00 (2.00 to 2.00)**"
    too = dataclasses.replace(rows[2], name="neither")
    assert [line[1] for line in columns(rows[2], rows[1], too)[1]] == ["", "**under 0.12 (0.12 to 0.12)**", ""]
    assert columns(rows[0], rows[0])[0] == ["params", "GMACs"]


def test_trained_accuracies_show_how_much_they_still_rose():
    rows = [row("a", {0: 0.9, 1: 0.9}, rise=0.02)]
    header, _, a = cells_of(study_table(rows, Design(Accuracy(trained=True))))
    assert a[header.index("rise at the end")] == "2.0 ± 0.0"
    assert "rise at the end" not in cells_of(study_table(rows))[0]


def test_cost_is_the_largest_and_pace_the_mean():
    """Memory is what a run may need; the pace is what to expect."""
    rows = [row("a", {0: 0.5, 1: 0.5})]
    rows[0].results[1] |= {"peak_bytes": 9_000_000, "clips_per_second": 300.0}
    rows[0].results[0]["peak_bytes"] = 10_000_000
    *_, a = cells_of(study_table(rows))
    assert (a[-4], a[-1]) == ("200", "10")


def test_note_tells_all_seeds_and_machines():
    rows = [row("a", {0: 0.5}, machine="one"), row("b", {0: 0.5, 2: 0.5}, machine="another")]
    assert note(rows) == "Accuracies in percent; 1 to 2 seeds, mean ± 95 % interval. another; one"
    assert note(rows[:1]) == "Accuracies in percent; one seed. one"
    assert note(rows[1:], Design(ClipsToReach())) == (
        "Accuracies in percent; 2 seeds, geometric mean (95 % interval). another"
    )
    assert "Seeds were added until" in note(rows[1:], Design(sequential=True))


def test_markdown_aligns():
    lines = markdown({"name": ["a", "long one"], "n": ["12", "3"]}, left=("name",)).splitlines()
    assert lines == ["| name     |  n |", "| -------- | -: |", "| a        | 12 |", "| long one |  3 |"]


def test_results_survive_json(tmp_path):
    rows = [row("a", {0: 0.4, 11: 0.5}, ceiling=0.5), row("b", {}, state="failed")]
    for design in (Design(), Design(ClipsToReach("verb", 0.8), margin=math.log(2), sequential=True, alpha=0.01)):
        write_results(rows, design, tmp_path / "results.json")
        kept, same = read_results(tmp_path / "results.json")
        assert kept == rows
        assert same == dataclasses.replace(design, margin=design.within)
