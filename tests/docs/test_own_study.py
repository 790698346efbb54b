"""The page on studies: its question runs as it stands, its picture's numbers are what it says."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from vivit_zoo.studies import ClipsToReach, read_results

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/own-study.md").read_text()
(QUESTION,) = [
    code for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if "__main__" in code
]


def test_a_new_question_is_a_file_of_at_most_forty_lines_that_runs(tmp_path, monkeypatch, capfd):
    assert len(QUESTION.splitlines()) <= 40
    file = tmp_path / "mlp_width.py"
    file.write_text(QUESTION)
    small = "--seeds 1 --steps 3 --eval_every 1 --batch_size 4 --eval_clips 4 --data.test_clips 8 --device cpu"
    small += " --model.dim 24 --model.depth 1 --model.temporal_depth 1"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(file), *small.split()])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(file), run_name="__main__")
    out, err = capfd.readouterr()
    assert "clips to 90 %" in out
    assert "3 of 3 cells done" in err
    folder = tmp_path / "runs/mlp_width"
    rows, design = read_results(folder / "results.json")
    assert design.measure == ClipsToReach(accuracy=0.9)
    assert [len(row.results) for row in rows] == [1, 1, 1]
    for name in re.findall(r"`(\w+\.(?:png|md|json))`", PAGE.partition("## What to measure")[0]):
        assert (folder / name).exists(), name


def test_the_picture_shows_what_the_page_says():
    found = runpy.run_path(str(ROOT / "docs/draw_sequential.py"))["wrong_by_seeds"](studies=4000)
    assert found["confidence sequence"][-1] <= 0.05
    assert found["Student's interval"][-1] > 0.2
