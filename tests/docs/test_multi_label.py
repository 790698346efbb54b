"""The commands of the page on several labels and numbers run one after the other, on few clips and few steps."""

import json
import re
import runpy
import shlex
import sys
from glob import glob
from pathlib import Path

from tests.docs.test_commands import ROOT, SHELL, commands_of
from vivit_zoo import ViViT
from vivit_zoo.cli import main

PAGE = (ROOT / "docs/multi-label.md").read_text(encoding="utf-8")
MOTIONS = ["clockwise", "down", "right"]
SMALL = {
    "python experiments/render_digits.py": ["--clips", "20", "--scale", "1"],
    "vivit-zoo check-data": ["--workers", "0"],
    "vivit-zoo train": [
        *("--steps", "4", "--batch_size", "5", "--eval_every", "2", "--warmup_steps", "0", "--workers", "0"),
        *("--model.dim", "24", "--model.depth", "1", "--device", "cpu"),
    ],
    "vivit-zoo classify": ["--device", "cpu"],
}


def run(command, monkeypatch):
    (small,) = [options for start, options in SMALL.items() if command.startswith(start)]
    words = [file for word in shlex.split(command) for file in (sorted(glob(word)) if "*" in word else [word])]
    if words[0] == "vivit-zoo":
        return main([*words[1:], *small])
    monkeypatch.setattr(sys, "argv", [*words[1:], *small])
    runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    return 0


def test_the_commands_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = [c for block in SHELL.findall(PAGE) for c in commands_of(block) if "digit" in c]
    assert len(commands) == 7
    for command in commands:
        assert run(command, monkeypatch) == 0, command
    out = capsys.readouterr().out
    assert "20 of 20 videos looked at, 0 broken" in out
    assert re.search(r"^mAP +\d+\.\d$", out, re.MULTILINE)
    assert re.search(r"^rmse_clockwise +0\.\d+$", out, re.MULTILINE)
    for name, problem_type, classes in (
        ("digit_motions", "multi_label_classification", MOTIONS),
        ("digit_speeds", "regression", ["right", "down", "clockwise"]),
    ):
        model = ViViT.from_pretrained(Path("runs") / name / "model")
        assert (model.problem_type, model.class_names) == (problem_type, classes)
        result = json.loads((Path("runs") / name / "result.json").read_text(encoding="utf-8"))
        assert result["test_videos"] == 2
    (video,) = glob("data/digits/test/clockwise then down/*.mp4")
    assert re.search(rf"{video}\n( +-?[\d.e-]+  (right|down|clockwise)\n?){{3}}$", out)
