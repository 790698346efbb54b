"""The page of results says what the studies found."""

import math
import re
from pathlib import Path

import pytest

from tests.studies.test_tables import row
from vivit_zoo.studies.comparisons import Design, compare, write_results
from vivit_zoo.studies.measures import ClipsToReach

ROOT = Path(__file__).parents[2]


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import table

    return table


def test_page_and_tables_are_those_of_the_results(table):
    studies = table.read_studies()
    assert (ROOT / "docs/results.md").read_text() == table.page(studies)
    for study, (rows, design) in studies.items():
        text = (ROOT / "docs/results" / study / "table.md").read_text()
        assert text.startswith(table.study_table(rows, design, pace=study in table.PACED))
        for name in ("points.png", "forest.png"):
            assert (ROOT / "docs/results" / study / name).exists()


def test_every_study_has_three_seeds(table):
    studies = table.read_studies()
    assert set(table.STUDIES) == studies.keys()
    for study, (rows, _) in studies.items():
        assert all(len(one.results) >= 3 for one in rows), study


def finding(table, better):
    return table.Finding("a claim", "Table 0", "variants", ("one", "other"), better)


def verdict_of(table, differences, better):
    one = row("one", {i: 0.4 + d / 100 for i, d in enumerate(differences)})
    other = row("other", dict.fromkeys(range(len(differences)), 0.4))
    design = Design()
    return table.Verdict(finding(table, better), compare(one, other, design), design)


@pytest.mark.parametrize(
    ("differences", "better", "verdict"),
    [
        ([12.0, 12.5, 13.0], True, "confirmed"),
        ([2.0, 2.5, 3.0], True, "confirmed"),
        ([-12.0, -12.5, -13.0], True, "refuted"),
        ([0.2, -0.5, 0.3], True, "refuted, equal within ±5"),
        ([20, -25, 30], True, "open, about 50 seeds"),
        ([2.0, 2.5, 3.0], False, "confirmed"),
        ([20.0, 25.0, 30.0], False, "refuted"),
        ([-20.0, -25.0, -30.0], False, "refuted"),
        ([0.2, -0.5, 0.3], False, "confirmed"),
        ([20, -30, 10], False, "open, about 110 seeds"),
        ([2.0], True, "open, one seed"),
        ([], True, "no results"),
    ],
)
def test_verdict(table, differences, better, verdict):
    assert verdict_of(table, differences, better).text == verdict


def test_fewer_clips_are_better(table):
    rows = [row(name, {0: 0.9, 1: 0.9, 2: 0.9}) for name in ("one", "other")]
    for one, clips in zip(rows, ([1000, 1100, 1050], [3000, 3100, 3050]), strict=True):
        for seed, count in enumerate(clips):
            one.results[seed] |= {"clips": count, "reached": True}
    design = Design(ClipsToReach())
    assert table.Verdict(finding(table, True), compare(*rows, design), design).text == "confirmed"
    assert table.Verdict(finding(table, True), compare(*rows[::-1], design), design).text == "refuted"
    assert table.Verdict(finding(table, False), compare(*rows, design), design).text == "refuted"
    design = Design(ClipsToReach(), margin=math.log(4))
    assert table.Verdict(finding(table, False), compare(*rows, design), design).text == "confirmed"


def test_verdicts_are_also_judged_all_together(table, monkeypatch):
    """One of ten findings with p = 0.02 does not survive all of them, and one with p < 0.001 does."""
    fields = {"machine": "a machine", "core_seconds": 1.0}
    weak, strong = (0.05, 0.06, 0.10), (0.2, 0.21, 0.205)
    rows = [row(name, dict.fromkeys(range(3), 0.4), **fields) for name in ("base", "weak", "strong", "none")]
    for one, gains in zip(rows[1:], (weak, strong, (0.2, -0.3, 0.1)), strict=True):
        for seed, gain in enumerate(gains):
            one.results[seed] |= {"accuracy": 0.4 + gain}
    names = ["weak", "strong", *["none"] * 8]
    monkeypatch.setattr(
        table, "FINDINGS", [table.Finding(f"{name} is better", "", "variants", (name, "base")) for name in names]
    )
    lines = table.findings({"variants": (rows, Design())}).splitlines()
    ends = [[cell.strip() for cell in line.strip("|").split("|")[4:]] for line in lines[2:5]]
    assert ends == [["confirmed", "no"], ["confirmed", "yes"], ["open, about 110 seeds", ""]]


def test_findings_name_rows_that_are_there(table):
    finding = table.FINDINGS[0]
    rows: list = [
        row(finding.settings[0], {0: 0.9, 1: 0.95, 2: 0.92}),
        row(finding.settings[1], {0: 0.5, 1: 0.5, 2: 0.5}),
    ]
    all_rows = [*rows, row("joint (Model 1)", {0: 0.5})]
    text = table.findings({finding.study: (all_rows, Design())}).splitlines()
    assert "| +42.3 ± 6.3" in text[2]
    assert "| confirmed" in text[2]
    with pytest.raises(ValueError, match=f"variants has no row {re.escape(repr(finding.settings[1]))}; it has"):
        table.findings({finding.study: (rows[:1], Design())})


def studies_of(table, one, other):
    """A study with a finding by head, seed by seed; both rows have a run that another study has, too."""
    finding = next(finding for finding in table.FINDINGS if finding.head)
    fields = {"machine": "a machine", "core_seconds": 1800.0}
    rows = [
        row(name, dict.fromkeys(shares, 0.5), head_accuracy={"number": 0.5, "order": 0.5}, **fields)
        for name, shares in zip(finding.settings, (one, other), strict=True)
    ]
    for kept, shares in zip(rows, (one, other), strict=True):
        for seed, share in shares.items():
            kept.results[seed] |= {"cell": f"{kept.name}-{seed}", "head_accuracy": {"number": share, "order": 0.5}}
    return finding, {finding.study: (rows, Design()), "positions": (rows[:1], Design())}


def test_a_finding_by_head_compares_that_head(table):
    finding, studies = studies_of(table, {0: 0.9, 1: 0.91}, {0: 0.5, 1: 0.51})
    (line,) = [line for line in table.findings(studies).splitlines() if finding.claim in line]
    assert "| +40.0 ± 0.0" in line
    assert "| confirmed" in line


def test_the_page_says_what_is_missing_and_counts_shared_runs_once(table):
    """A failed setting, of which no seed has a result, is no reason for no page."""
    finding, studies = studies_of(table, {0: 0.9, 1: 0.91, 2: 0.92}, {})
    text = table.page(studies)
    (line,) = [line for line in text.splitlines() if finding.claim in line]
    assert "| no results" in line
    assert "\n3 runs, 1.5 hours of one core in all, on a machine. With one seed, " in text
    assert f"{finding.study} takes longest: 30 minutes of one core.\n" in text
    assert "clips/s" not in text


def test_without_results_there_is_no_page(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "docs/results")
    monkeypatch.setattr("sys.argv", ["table.py", "--runs", str(tmp_path / "runs")])
    with pytest.raises(SystemExit):
        table.main()
    assert "no study has a results.json" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_all_studies_run_with_the_seeds_of_their_docstrings_and_share_cells(table, monkeypatch, tmp_path):
    """The first that fails ends it; the same command then resumes."""
    calls: list = []

    def run(command):
        calls.append([Path(command[1]).stem, *command[2:]])
        return 1 if len(calls) == 3 else 0

    monkeypatch.setattr(table, "run_study", run)
    monkeypatch.setattr("sys.argv", ["table.py", "--run", "--runs", str(tmp_path)])
    assert table.main() == 1
    assert len(calls) == 3
    calls = [[]] * 3
    assert table.run_all(tmp_path) == 0
    assert [name for name, *_ in calls[3:]] == table.STUDIES
    assert ["positions", *in_common(tmp_path, "positions"), "--seeds", "5"] in calls
    assert ["variants", *in_common(tmp_path, "variants"), "--seeds", "3"] in calls


def test_ctrl_c_waits_for_the_study_that_runs_and_ends_the_others(table, monkeypatch, tmp_path):
    """The terminal interrupts both; the study saves its runs, or is killed while it starts."""
    started = []

    class Study:
        def __init__(self, command):
            started.append(command)
            self.answers = iter([0] if len(started) < 2 else [KeyboardInterrupt, -2])

        def wait(self):
            answer = next(self.answers)
            if answer is KeyboardInterrupt:
                raise answer
            return answer

    monkeypatch.setattr(table.subprocess, "Popen", Study)
    monkeypatch.setattr("sys.argv", ["table.py", "--run", "--runs", str(tmp_path)])
    assert table.main() == 130
    assert len(started) == 2


def in_common(runs, study):
    return ["--out", str(runs / study), "--cells", str(runs / "cells")]


def test_results_are_of_the_seeds_that_the_docstring_says(table):
    for study, (rows, design) in table.read_studies().items():
        arguments = table.command(study)
        seeds = arguments[arguments.index("--seeds") + 1]
        most = max(len(one.results) for one in rows)
        assert design.sequential == (seeds == "auto"), study
        if design.sequential:
            assert most <= int(arguments[arguments.index("--max-seeds") + 1]), study
        else:
            assert most == int(seeds), study


def test_new_results_are_collected_and_drawn(table, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "RESULTS", tmp_path / "docs/results")
    monkeypatch.setattr("sys.argv", ["table.py", "--runs", str(tmp_path / "runs")])
    (tmp_path / "README.md").write_text("<!-- results: docs/results/positions/table.md -->\n<!-- end of results -->")
    fields = {"machine": "a machine", "core_seconds": 1.0}
    rows = [row(name, {0: 0.5, 1: 0.6}, **fields) for name in "ab"]
    for one in rows:
        for seed in one.results:
            one.results[seed]["cell"] = f"{one.name}{seed}"
    (tmp_path / "runs/positions").mkdir(parents=True)
    write_results(rows, Design(margin=3.0), tmp_path / "runs/positions/results.json")
    (tmp_path / "runs/positions/clips.png").write_text("")
    table.main()
    written = {file.name for file in (tmp_path / "docs/results/positions").iterdir()}
    assert written == {"results.json", "table.md", "points.png", "forest.png"}
    assert table.read_studies() == {"positions": (rows, Design(margin=3.0))}
    assert "equal within ±3" in (tmp_path / "docs/results.md").read_text()


def test_results_of_fewer_runs_replace_none(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results")
    for folder, seeds in {"runs": 1, "results": 3}.items():
        (tmp_path / folder / "positions").mkdir(parents=True)
        rows = [row("a", dict.fromkeys(range(seeds), 0.5))]
        write_results(rows, Design(), tmp_path / folder / "positions/results.json")
    table.collect(tmp_path / "runs")
    assert len(table.read_studies()["positions"][0][0].results) == 3
    assert "has the results of 3 runs" in capsys.readouterr().out
