"""Every command of the README, the docs and the experiments' docstrings: the program's own parser takes it. The
newcomer's path really runs."""

import argparse
import ast
import os
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import jsonargparse
import pytest
import timm
import torch
from accelerate.commands.launch import launch_command_parser
from timm.models import save_for_hf
from torch.distributed.run import get_args_parser

from tests.docs.test_pages import PAGES
from tests.footage import write_set, write_video
from vivit_zoo import ViViT
from vivit_zoo.cli import main

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = r"(?:vivit-zoo|python experiments/|torchrun|accelerate launch|srun)"
IN_TEXT = re.compile(rf"`({PROGRAMS}[^`]* --[^`]*)`")
IN_DOCSTRING = re.compile(rf"^    ({PROGRAMS}(?:.*\\\n)*.*)$", re.MULTILINE)
STUDIES = [f.name for f in (ROOT / "experiments").glob("*.py") if "_from_command_line(" in f.read_text()]
# Commands, by how they begin, that no test here runs, and why; the parser of each takes it all the same, but for those
# that .ci/run runs as they stand or in a folder of its own.
BY_CI = ("pytest", "ruff", "mypy", "mkdocs", "source", "python -m venv", "pip install")
NOT_RUN = {
    "torchrun": "tests/training/test_run.py runs a script so, on two processes",
    "accelerate launch": "starts one process without GPUs",
    "srun": "needs SLURM",
    **{f"python experiments/{name}": "takes minutes; tests/studies runs such studies" for name in STUDIES},
    "python experiments/recipes/own_videos.py": "needs weights from the hub; the newcomer's path is run with others",
    "vivit-zoo train own_videos": "likewise",
    "vivit-zoo classify": "likewise",
    "vivit-zoo features": "likewise; tests/evaluation/test_features.py runs it",
    "vivit-zoo probe": "likewise; tests/studies/test_probes.py runs it",
    "vivit-zoo attend": "likewise; tests/interpret/test_overlay.py runs it on small ones",
    "python experiments/table.py": "writes into the docs; tests/experiments/test_results.py runs its parts",
    "python experiments/benchmark.py": "measures, or writes into the docs; tests/experiments runs its parts",
    "python experiments/seeds_together.py": "needs a GPU; tests/experiments/test_seeds_together.py runs it on the CPU",
    "vivit-zoo train --data.train videos/train": "tests/training/test_run.py trains with masks",
    "vivit-zoo train rendered_digits": "tests/docs/test_multi_label.py runs it on few clips",
    "vivit-zoo check-data data/digits/train.csv": "likewise",
    "vivit-zoo check-data videos/train": "the newcomer's path runs it on another folder",
    "vivit-zoo summary": "run by tests/test_cli.py",
    "vivit-zoo bench": "takes minutes; tests/bench/test_measure.py runs it on a small model",
}
# What is run, with what makes it small.
RUN = {"python experiments/render_digits.py": ["--clips", "10"]}


def commands_of(lines):
    """The commands of lines of a shell: joined at a backslash, parted at &&, without comments."""
    for line in lines.replace("\\\n", " ").splitlines():
        for command in line.split("&&"):
            if words := shlex.split(command, comments=True):
                yield shlex.join(words)


COMMANDS = sorted({c for page in PAGES for block in SHELL.findall(page.read_text()) for c in commands_of(block)})
MENTIONED = {" ".join(c.split()) for page in PAGES for c in IN_TEXT.findall(page.read_text())}
for file in (ROOT / "experiments").rglob("*.py"):
    doc = ast.get_docstring(ast.parse(file.read_text())) or ""
    MENTIONED |= {c for found in IN_DOCSTRING.findall(doc) for c in commands_of(found)}
# From nothing to a model that names one's classes.
PATH = next(block for block in SHELL.findall((ROOT / "docs/index.md").read_text()) if "own_videos" in block)


class Parsed(Exception):
    """The parser has taken the arguments."""


@pytest.fixture
def parse(monkeypatch):
    """Start a program and stop it when its parser is through; a wrong argument is an error."""

    def stopping(parse_args):
        def parse_and_stop(self, *args, **kwargs):
            parse_args(self, *args, **kwargs)
            raise Parsed

        return parse_and_stop

    def run(program, *arguments):
        with monkeypatch.context() as patch:
            for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
                patch.setattr(parser, "parse_args", stopping(parser.parse_args))
            patch.setattr(sys, "argv", [program, *arguments])
            patch.syspath_prepend((ROOT / program).parent)
            with pytest.raises(Parsed):
                main(arguments) if program == "vivit-zoo" else runpy.run_path(str(ROOT / program), run_name="__main__")

    return run


def launched(words):
    """The script and its arguments out of a launcher's command, whose options its own parser takes."""
    match words:
        case ["srun", *rest]:  # srun's own options need SLURM
            return launched(rest[rest.index("torchrun") :])
        case ["torchrun", *rest]:
            options = get_args_parser().parse_args(rest)
            return [options.training_script, *options.training_script_args]
        case ["accelerate", "launch", *rest]:
            options = launch_command_parser().parse_args(rest)
            return [options.training_script, *options.training_script_args]
        case ["python", *rest]:
            return rest
        case ["vivit-zoo", *_]:
            return words
    pytest.fail(f"nobody looks at this command: {shlex.join(words)}")


@pytest.mark.parametrize("command", sorted({*COMMANDS, *MENTIONED}))
def test_command_is_taken(command, parse):
    if command.startswith("pip install -e "):
        target = shlex.split(command)[-1]
        extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", target)[1]
        assert set(extras.split(",") if extras else ()) <= EXTRAS.keys()
    elif not command.startswith(BY_CI):
        program, *arguments = launched(shlex.split(command))
        if arguments:
            parse(program, *arguments)
        else:  # and some scripts take none
            assert (ROOT / program).exists()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(tuple(RUN))])
def test_command_runs(command, tmp_path, monkeypatch):
    (small,) = [options for start, options in RUN.items() if command.startswith(start)]
    words = [*launched(shlex.split(command)), *small]
    monkeypatch.chdir(tmp_path)
    if words[0] == "vivit-zoo":
        assert main(words[1:]) == 0
    else:
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def test_every_command_is_run_or_there_is_a_reason():
    path = [shlex.join(shlex.split(line)) for line in PATH.splitlines()]
    rest = [c for c in COMMANDS if c not in path and not c.startswith((*BY_CI, *RUN, *NOT_RUN))]
    assert rest == []
    programs = {command.split()[0] for command in COMMANDS}
    assert {"vivit-zoo", "python", "pip", "torchrun", "accelerate", "srun"} <= programs


@pytest.mark.parametrize(
    "command",
    [
        "vivit-zoo classify a.mp4 --checkpoint x --vews 4x3",
        "python experiments/variants.py --seed 3",
        "python experiments/recipes/own_videos.py --data.trian clips",
        "torchrun --nproc-per-nodes 4 experiments/recipes/own_videos.py",
        "accelerate launch --num_procs 4 experiments/recipes/own_videos.py",
    ],
)
def test_a_wrong_command_would_be_noticed(command, parse, capsys):
    with pytest.raises(SystemExit, match="2"):
        test_command_is_taken(command, parse)
    capsys.readouterr()


def test_a_newcomers_path_is_at_most_ten_lines_and_the_same_everywhere():
    assert len(PATH.splitlines()) <= 10
    assert PATH in (ROOT / "docs/training.md").read_text()


def test_a_newcomers_path_from_clips_to_named_classes(tmp_path, monkeypatch, capsys):
    """The lines of the page, one after the other, on nine clips; a tiny image model stands for the official weights."""
    monkeypatch.chdir(tmp_path)
    os.symlink(ROOT / "experiments", "experiments")
    write_set(tmp_path / "clips" / "train", 2)
    write_set(tmp_path / "clips" / "test", 1)
    write_video(tmp_path / "new.mp4", 20)
    sizes = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}
    image_model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
    save_for_hf(image_model, "image_model", model_args=sizes, safe_serialization=True)
    small = ["--start.source", "local-dir:image_model", "--model.num_frames", "4", "--epochs", "2", "--batch_size", "3"]
    small += ["--workers", "0", "--data.views", "[1,1]", "--device", "cpu"]

    install, check, train, classify = (shlex.split(line) for line in PATH.splitlines())
    assert install[0] == "pip"
    assert main([*check[1:], "--workers", "0"]) == 0
    monkeypatch.setattr(sys, "argv", [*train[1:], *small])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(train[1], run_name="__main__")
    start = (tmp_path / "runs/own_videos/start.txt").read_text()
    assert "weights from local-dir:image_model" in start
    out = capsys.readouterr().out
    assert "6 of 6 videos looked at, 0 broken" in out
    assert "3 test videos" in out
    assert main([*classify[1:], "--views", "1x1", "--device", "cpu"]) == 0
    assert {"jump", "run", "walk"} <= set(capsys.readouterr().out.split())
    model = ViViT.from_pretrained("runs/own_videos/model")
    assert not torch.equal(model.head.weight, torch.zeros_like(model.head.weight))
