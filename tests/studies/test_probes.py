"""Probes as a study: the command from videos to a table, and the rows."""

import json

import pytest

from tests.conftest import randomise, tiny_config
from tests.evaluation.test_probe import QUICK, still
from tests.footage import write_set
from vivit_zoo import ViViT
from vivit_zoo.cli import main
from vivit_zoo.studies.comparisons import read_results
from vivit_zoo.studies.probes import probe_from_command_line, probe_rows, report_probes


def test_rows_have_each_kind_of_features_with_each_probe(tmp_path):
    asked = []

    def features(seed):
        asked.append(seed)
        return {kind: (still(60, seed), still(40, 9)) for kind in ("one", "other")}

    rows = probe_rows(features, ["linear", "knn"], [0, 1], 3, QUICK, ceilings={"one, knn": 0.5})
    assert asked == [0, 1]
    assert [row.name for row in rows] == ["one, linear", "one, knn", "other, linear", "other, knn"]
    assert [row.ceiling for row in rows] == [None, 0.5, None, None]
    assert all(set(row.results) == {0, 1} for row in rows)
    text = report_probes(rows, tmp_path)
    assert "2 seeds, mean ± 95 % interval" in text
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text + "\n"
    kept, _ = read_results(tmp_path / "results.json")
    assert [row.results[1]["accuracy"] for row in kept] == [row.results[1]["accuracy"] for row in rows]
    assert kept[0].results[0]["config"]["lrs"] == [1e-2]


def test_the_command_from_videos_to_a_table(tmp_path, capsys, monkeypatch):
    write_set(tmp_path / "clips", per_class=5, frames=8)
    randomise(ViViT(tiny_config(image_size=(16, 16)))).save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    command = ["probe", "--checkpoint", str(tmp_path / "model"), "--train", str(tmp_path / "clips"), "--out", str(out)]
    command += ["--layers", "0", "-1", "--probes", "knn", "--seeds", "2", "--device", "cpu", "--stride", "1"]
    assert main(command) == 0
    table = capsys.readouterr().out
    for name in ("block 0, knn", "block 1, knn"):
        assert f"| {name} " in table
    assert len(list((out / "features" / "train").iterdir())) == 12  # the last of each class is held out
    assert len(list((out / "features" / "test").iterdir())) == 3
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert set(results["rows"][0]["results"]) == {"0", "1"}
    with pytest.warns(UserWarning, match="15 of 15 test videos are training videos too"):
        assert main([*command, "--test", str(tmp_path / "clips"), "--out", str(tmp_path / "other")]) == 0
    capsys.readouterr()
    monkeypatch.setattr(ViViT, "forward_features", lambda *_: pytest.fail("features were made again"))
    assert main([*command[:-2], "--stride", "1"]) == 0
    assert capsys.readouterr().out == table


def test_a_layer_that_is_not_there(tmp_path, capsys):
    write_set(tmp_path / "clips", per_class=2, frames=8)
    ViViT(tiny_config()).save_pretrained(tmp_path / "model")
    command = ["probe", "--checkpoint", str(tmp_path / "model"), "--train", str(tmp_path / "clips")]
    assert main([*command, "--layers", "7", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "layer 7 is not in -2 to 1" in capsys.readouterr().err


def test_an_experiment_with_probes_has_a_command_line(tmp_path, monkeypatch, capsys):
    def rows(seeds):
        return probe_rows(lambda seed: {"": (still(60, 0), still(40, 9))}, ["linear", "knn"], seeds, 3, QUICK)

    monkeypatch.setattr("sys.argv", ["question.py", "--seeds", "2", "--out", str(tmp_path)])
    assert probe_from_command_line("A question?", rows, "runs/question") == 0
    assert "| linear " in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["question.py", "--seeds", "0"])
    with pytest.raises(SystemExit, match="2"):
        probe_from_command_line("A question?", rows, "runs/question")
    assert "seeds 0 is not positive" in capsys.readouterr().err
