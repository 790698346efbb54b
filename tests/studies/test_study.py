"""Studies: cells, skipping, resuming, failing, the table."""

import dataclasses
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.studies.test_cells import SMALL, Broken, MeanOfTokens
from vivit_zoo import ViViT
from vivit_zoo.datasets import DataConfig, HiddenDigits, MovingDigits, TurningDigits
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.flops import count_params
from vivit_zoo.studies.comparisons import Design, read_results
from vivit_zoo.studies.slurm import Slurm
from vivit_zoo.studies.study import (
    BASE,
    Cell,
    Setting,
    plan_study,
    report,
    rows_of,
    run_from_command_line,
    run_study,
)

VARIANTS_SCRIPT = Path(__file__).parents[2] / "experiments" / "variants.py"


def fake_cells(tmp_path, accuracies, **result):
    """Cells with results that nothing was trained for."""
    fields = {"shuffled_accuracy": 0.25, "reversed_when_swapped": 0.9, "params": 1234, "macs": 24_200_000}
    fields |= {"clips_per_second": 100.0, "loader_clips_per_second": 900.0, "model_clips_per_second": 110.0}
    fields |= {"peak_bytes": 5_000_000, "machine": "a machine", "head_accuracy": {}, "core_seconds": 2.0} | result
    cells = []
    for i, (name, values) in enumerate(accuracies.items()):
        train = dataclasses.replace(SMALL, lr=0.1 / (i + 1))
        for seed, accuracy in enumerate(values):
            cell = Cell(Setting(name, train, ceiling=0.5 if name == "control" else None), seed, tmp_path / "cells")
            cell.folder.mkdir(parents=True)
            (cell.folder / "metrics.jsonl").write_text('{"step": 2, "loss": 1.5, "accuracy": 0.2}\n')
            if accuracy is None:
                cell.error_file.write_text("Traceback\n  of many lines\nRuntimeError: too hot\nlog: 17.out\n")
            else:
                (cell.folder / "result.json").write_text(json.dumps(fields | {"accuracy": accuracy}))
            cells.append(cell)
    return cells


def test_report_writes_table_and_pictures_and_names_failures(tmp_path, capsys):
    cells = fake_cells(tmp_path, {"model": [0.98, 1.0], "broken": [0.5, None]})
    assert report(cells, tmp_path) == 1
    failed = f"FAILED broken, seed 1: {cells[3].folder / 'error.txt'}; RuntimeError: too hot; log: 17.out\n"
    assert capsys.readouterr().err == failed
    assert "a machine" in (tmp_path / "table.md").read_text()
    assert read_results(tmp_path / "results.json") == (rows_of(cells), Design(margin=5.0))
    for name in ("points.png", "forest.png", "cost.png", "curves.png", "clips.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert report(cells[:3], tmp_path) == 0

    cells[3].error_file.unlink()
    capsys.readouterr()
    assert report(cells, tmp_path) == 3
    assert capsys.readouterr().err == f"UNFINISHED broken, seed 1: {cells[3].folder}\n"
    assert rows_of(cells[3:])[0].state == "unfinished"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("moving_digits", MovingDigits),
        ("numbered_digits:videos", MovingDigits),
        ("hidden_digits", HiddenDigits),
        ("turning_digits:videos", TurningDigits),
    ],
)
def test_a_study_of_embedded_clips_shows_some_of_them(tmp_path, monkeypatch, data, shown):
    cells = fake_cells(tmp_path, {"model": [0.98]})
    train = dataclasses.replace(SMALL, data=DataConfig(train=data, difficulty=3 if shown is HiddenDigits else None))
    monkeypatch.setattr(Cell, "train", train)
    found = []
    monkeypatch.setattr("vivit_zoo.plots.clips", lambda dataset, classes, file: found.append((dataset, classes)))
    report(cells, tmp_path)
    ((dataset, classes),) = found
    assert type(dataset) is shown
    assert classes == list(shown.classes)
    assert dataset.difficulty == {HiddenDigits: 3, TurningDigits: 1, MovingDigits: None}[shown]


def test_study_runs_each_cell_once_and_survives_a_failing_one(tmp_path):
    settings = [
        Setting("joint", SMALL.change_model(variant="joint")),
        Setting("broken", SMALL, encoder=Broken),
        Setting("own encoder", SMALL, encoder=MeanOfTokens),
    ]
    cells = run_study(settings, range(1), tmp_path, jobs=2)
    assert [cell.result is not None for cell in cells] == [True, False, True]
    assert "RuntimeError: broken on purpose" in (cells[1].folder / "error.txt").read_text()
    result = cells[0].result
    assert 0 <= result["accuracy"] <= 1
    assert result["params"] == count_params(ViViT(cells[0].train.model))
    assert result["peak_bytes"] > 0
    assert cells[2].result["params"] == count_params(ViViT(SMALL.model, MeanOfTokens)) < result["params"]
    config = json.loads((cells[0].folder / "config.json").read_text())
    assert config["model"]["variant"] == "joint"

    before = {cell.folder: (cell.folder / "result.json").stat().st_mtime_ns for cell in cells if cell.result}
    run_study(settings[::2], range(1), tmp_path)
    assert before == {folder: (folder / "result.json").stat().st_mtime_ns for folder in before}


def test_wrong_settings_fail_before_anything_runs(tmp_path):
    odd = Setting("odd", SMALL.change_model(variant="factorised_dot_product", num_heads=3))
    with pytest.raises(ValueError, match="num_heads 3 is odd"):
        run_study([Setting("fine", SMALL), odd], range(1), tmp_path)
    with pytest.raises(ValueError, match="settings share a name: a, a"):
        run_study([Setting("a", SMALL), Setting("a", SMALL.change_model(depth=2))], range(1), tmp_path)
    with pytest.raises(ValueError, match="settings are the same in all but their names: a, b"):
        run_study([Setting("a", SMALL), Setting("b", SMALL)], range(1), tmp_path)
    with pytest.raises(ValueError, match=r"few: the model's num_classes is 2, the data set has 6"):
        run_study([Setting("few", SMALL.change_model(num_classes=2))], range(1), tmp_path)
    with pytest.raises(ValueError, match=r"short: the model takes \(1, 8, 32, 32\), moving_digits has \(1, 16,"):
        run_study([Setting("short", SMALL.change_model(num_frames=8))], range(1), tmp_path)
    for seeds, jobs, message in [(0, 1, "at least one setting and one seed"), (1, 0, "jobs 0 is not positive")]:
        with pytest.raises(ValueError, match=message):
            run_study([Setting("a", SMALL)], range(seeds), tmp_path, jobs)
    assert not list(tmp_path.iterdir())


EXPERIMENT = """
import dataclasses, sys
from vivit_zoo.studies.study import BASE, Setting, run_from_command_line

def settings(base):
    return [Setting("first", base), Setting("second", base.change_model(variant="factorised_encoder"))]

if __name__ == "__main__":
    sys.exit(run_from_command_line("What for?", BASE, settings, out="unused"))
"""


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(tmp_path):
    """Interrupted in its second cell, the same command skips the first, resumes the second and makes the table."""
    script = tmp_path / "experiment.py"
    script.write_text(EXPERIMENT)
    tiny = "--steps 20 --eval_every 2 --batch_size 4 --data.test_clips 8 --model.dim 24 --model.depth 1 --device cpu"
    command = [sys.executable, str(script), "--out", str(tmp_path), "--jobs", "1", *tiny.split()]

    def run():
        pipe = subprocess.PIPE
        # A test run in the background of a shell may ignore SIGINT, and what it starts with it.
        usual = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=usual)

    process = run()
    deadline = time.monotonic() + 300
    while not any(tmp_path.glob("cells/factorised_encoder*/checkpoints/*.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "run the same command again to resume" in err
    assert not any(tmp_path.glob("cells/*/error.txt"))
    assert "Traceback" not in err
    first = next(tmp_path.glob("cells/joint*/result.json"))
    stamp = first.stat().st_mtime_ns
    assert not any(tmp_path.glob("cells/factorised_encoder*/result.json"))

    process = run()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert first.stat().st_mtime_ns == stamp
    assert any(tmp_path.glob("cells/factorised_encoder*/result.json"))
    assert "| second" in out
    assert (tmp_path / "table.md").exists()


@pytest.fixture
def variants(monkeypatch):
    """experiments/variants.py as a function of its command line."""
    module = runpy.run_path(str(VARIANTS_SCRIPT))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["variants.py", *arguments])
        return run_from_command_line(module["__doc__"], BASE, module["settings"], out="unused")

    return run


def test_help_lists_every_field(variants, capsys):
    with pytest.raises(SystemExit, match="0"):
        variants("--help-all")
    out = capsys.readouterr().out
    for option in ("--seeds", "--steps", "--workers", "--device", "--out", "--lr", "--model.dim", "--model.pos_embed"):
        assert f"\n  {option} " in out
    assert "Which variant of ViViT learns best" in out


def test_wrong_override_is_one_line(variants, capsys):
    assert variants("--model.num_heads", "7") == 2
    assert capsys.readouterr().err == "variants.py: dim 72 is not divisible by num_heads 7\n"
    assert variants("--steps", "0") == 2
    assert capsys.readouterr().err == "variants.py: steps 0 is not positive\n"
    assert variants("--launcher", "slurm", "--slurm.cpus", "0") == 2
    assert capsys.readouterr().err == "variants.py: slurm.cpus 0 is not positive\n"


def test_launcher_and_its_parameters_reach_submitit(variants, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("vivit_zoo.studies.study.run_on_slurm", lambda *arguments: calls.append(arguments))
    wishes = "--slurm.partition gpu --slurm.minutes 90 --slurm.gpus 2 --slurm.mem_gb 16 --slurm.sbatch.account lab"
    assert variants("--out", str(tmp_path), "--launcher", "slurm", "--no-wait", *wishes.split()) == 3
    assert variants("--out", str(tmp_path), "--launcher", "submitit-local") == 3
    slurm = Slurm(partition="gpu", minutes=90, gpus=2, mem_gb=16.0, sbatch={"account": "lab"})
    assert calls[0][1:] == (tmp_path, slurm, False, "slurm")
    assert calls[1][1:] == (tmp_path, Slurm(), True, "local")
    assert [cell.seed for cell in calls[0][0]] == [0] * 6


def test_variants_are_the_four_and_two_controls():
    settings = runpy.run_path(str(VARIANTS_SCRIPT))["settings"](BASE)
    assert [setting.ceiling for setting in settings] == [None] * 4 + [1 / 2, 1 / 6]
    assert [setting.train.model.variant for setting in settings[:4]] == list(ENCODERS)
    assert settings[4].train.model.temporal_depth == 0
    assert settings[5].train.model.embedded_frames == 1


def test_the_command_line_runs_a_sequential_study(variants, tmp_path, monkeypatch):
    planned = []

    def run(cells, jobs):
        planned.extend(cells)
        for cell in cells:
            cell.folder.mkdir(parents=True, exist_ok=True)
            (cell.folder / "metrics.jsonl").write_text('{"step": 2, "loss": 1.5, "accuracy": 0.2}\n')
            result = {"accuracy": 0.5, "head_accuracy": {}, "machine": "a machine", "macs": 1, "core_seconds": 1}
            (cell.folder / "result.json").write_text(json.dumps(result))

    monkeypatch.setattr("vivit_zoo.studies.study._run_here", run)
    assert variants("--out", str(tmp_path), "--seeds", "auto", "--margin", "2") == 0
    assert [cell.seed for cell in planned] == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    _, design = read_results(tmp_path / "results.json")
    assert design == Design(margin=2.0, sequential=True, alpha=0.01)
    assert "equal within ±2" in (tmp_path / "table.md").read_text()
    assert variants("--out", str(tmp_path), "--seeds", "auto", "--no-wait") == 2
    assert variants("--out", str(tmp_path), "--seeds", "auto", "--max-seeds", "1") == 2
    assert variants("--out", str(tmp_path), "--margin", "-1") == 2


def test_studies_may_share_their_cells(tmp_path):
    one, other = (plan_study([Setting(name, SMALL)], [0], tmp_path / name, tmp_path / "all") for name in ("a", "b"))
    assert one[0].folder == other[0].folder
    assert one[0].folder.parent == tmp_path / "all"
    assert plan_study([Setting("a", SMALL)], [0], tmp_path / "a")[0].folder.parent == tmp_path / "a" / "cells"


def test_an_encoder_without_a_source_file_is_refused_in_words(tmp_path):
    """As one of a notebook is, which the processes of the study could not import."""
    space = {"__name__": "notebook"}
    exec("from vivit_zoo.encoders import Joint\nclass Mine(Joint):\n    pass", space)
    cell = Cell(Setting("mine", BASE, encoder=space["Mine"]), 0, tmp_path)
    with pytest.raises(ValueError, match=r"the encoder Mine has no source file, .* Write it to a \.py file"):
        cell.folder  # noqa: B018
