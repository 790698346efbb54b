"""The page of results says what the studies found."""

import re
from pathlib import Path

import pytest

from tests.studies.test_tables import row

ROOT = Path(__file__).parents[2]


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import table

    return table


def test_page_and_tables_are_those_of_the_results(table):
    studies = table.read_studies()
    assert (ROOT / "docs/results.md").read_text() == table.page(studies)
    for study, rows in studies.items():
        text = (ROOT / "docs/results" / study / "table.md").read_text()
        assert text.startswith(table.study_table(rows, pace=study in table.PACED))


def test_every_study_has_three_seeds(table):
    studies = table.read_studies()
    assert set(table.STUDIES) == studies.keys()
    for study, rows in studies.items():
        assert all(len(one.results) >= 3 for one in rows), study


@pytest.mark.parametrize(
    ("differences", "better", "verdict"),
    [
        ([2.0, 2.5, 3.0], True, "confirmed"),
        ([-2.0, -2.5, -3.0], True, "refuted"),
        ([2.0, -2.5, 3.0], True, "within the noise"),
        ([2.0, 2.5, 3.0], False, "confirmed"),
        ([20.0, 25.0, 30.0], False, "refuted"),
        ([-20.0, -25.0, -30.0], False, "refuted"),
        ([0.2, -0.5, 0.3], False, "confirmed"),
        ([20, -50, 30], False, "within the noise"),
        ([2.0], True, "one seed tells nothing"),
        ([], True, "no results"),
    ],
)
def test_verdict(table, differences, better, verdict):
    assert table.verdict(differences, better) == verdict


def test_findings_name_rows_that_are_there(table):
    finding = table.FINDINGS[0]
    rows = [row(finding.settings[0], {0: 0.9, 1: 0.95, 2: 0.92}), row(finding.settings[1], {0: 0.5, 1: 0.5, 2: 0.5})]
    text = table.findings({finding.study: rows + [row(name, {0: 0.5}) for name in ("joint (Model 1)",)]}).splitlines()
    assert "| +42.3 ± 6.3" in text[2]
    assert "| confirmed" in text[2]
    with pytest.raises(ValueError, match=f"variants has no row {re.escape(repr(finding.settings[1]))}; it has"):
        table.findings({finding.study: rows[:1]})


def studies_of(table, one, other):
    """A study with a finding by head, seed by seed; both rows have a run that another study has, too."""
    finding = next(finding for finding in table.FINDINGS if finding.study == "image_start" and finding.head)
    fields = {"machine": "a machine", "core_seconds": 1800.0}
    rows = [
        row(name, dict.fromkeys(shares, 0.5), head_accuracy={"number": 0.5, "order": 0.5}, **fields)
        for name, shares in zip(finding.settings, (one, other), strict=True)
    ]
    for kept, shares in zip(rows, (one, other), strict=True):
        for seed, share in shares.items():
            kept.results[seed] |= {"cell": f"{kept.name}-{seed}", "head_accuracy": {"number": share, "order": 0.5}}
    return finding, {finding.study: rows, "positions": rows[:1]}


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
    assert "\n3 runs, 1.5 hours of one core in all, on a machine.\n" in text
    assert f"python experiments/{finding.study}.py --seeds 3 --jobs 2" in text
    assert "clips/s" not in text


def test_without_results_there_is_no_page(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "docs/results")
    monkeypatch.setattr("sys.argv", ["table.py", "--runs", str(tmp_path / "runs")])
    with pytest.raises(SystemExit):
        table.main()
    assert "no study has a results.json" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_new_is_collected(table, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "docs/results")
    (tmp_path / "runs/positions").mkdir(parents=True)
    for name in ("results.json", "accuracies.png", "clips.png"):
        (tmp_path / "runs/positions" / name).write_text("[]")
    table.collect(tmp_path / "runs")
    assert {file.name for file in (tmp_path / "docs/results/positions").iterdir()} == {"results.json", "accuracies.png"}
    assert table.read_studies() == {"positions": []}
