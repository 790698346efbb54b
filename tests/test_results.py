"""The page of results says what the studies found."""

from pathlib import Path

import pytest
from test_tables import row

ROOT = Path(__file__).parents[1]


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
    with pytest.raises(KeyError):
        table.findings({finding.study: rows[:1]})


def test_what_is_new_is_collected(table, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "docs/results")
    (tmp_path / "runs/positions").mkdir(parents=True)
    for name in ("results.json", "accuracies.png", "clips.png"):
        (tmp_path / "runs/positions" / name).write_text("[]")
    table.collect(tmp_path / "runs")
    assert {file.name for file in (tmp_path / "docs/results/positions").iterdir()} == {"results.json", "accuracies.png"}
    assert table.read_studies() == {"positions": []}
