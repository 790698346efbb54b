"""The command line of a training run, from end to end: what it writes, what it says, with which code it leaves."""

import csv
import dataclasses
import json
import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vivit_zoo.training.run as command
from tests.conftest import tiny_config
from tests.footage import BROKEN, write_broken_set, write_set, write_video
from vivit_zoo import ViViT
from vivit_zoo.cli import main
from vivit_zoo.datasets import DataConfig, MovingDigits
from vivit_zoo.studies.cells import BASE
from vivit_zoo.training.checkpoint import Checkpoints
from vivit_zoo.training.config import Start, TrainConfig
from vivit_zoo.training.run import train_from_command_line
from vivit_zoo.video.augment import Augment

ROOT = Path(__file__).parents[2]
TINY = TrainConfig(
    model=tiny_config(num_frames=4, image_size=16, tubelet_size=(2, 8, 8), depth=1, num_classes=0),
    data=DataConfig(train="sound", held_out=0.2, views=(2, 1)),
    steps=2,
    batch_size=4,
    eval_every=2,
    device="cpu",
)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A command line as a function; it works in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def of(*arguments, base=TINY, **options):
        monkeypatch.setattr(sys, "argv", ["recipe.py", *arguments])
        return train_from_command_line("What for?", base, "run", **options)

    return of


def read(folder):
    return json.loads((folder / "result.json").read_text())


def test_rendered_digits_from_the_command_to_named_classes(run, tmp_path, capsys):
    script = runpy.run_path(str(ROOT / "experiments" / "render_digits.py"))
    for split, clips in {"train": 24, "test": 7}.items():
        script["render"](tmp_path / "digits", split, clips, scale=1)
    augment = Augment(scale_jitter=(1, 1), flip=0, colour=0, gray=0)
    data = DataConfig(train="digits/train", test="digits/test.txt", stride=1, augment=augment, views=(1, 1))
    base = dataclasses.replace(BASE, model=BASE.model.replace(num_classes=0, dim=24, depth=1), data=data, device="cpu")
    arguments = ["--steps", "4", "--batch_size", "6", "--eval_every", "2", "--ema", "0.5"]
    assert run(*arguments, base=base, paper={"top-1": 80.0, "top-5": 94.7}) == 0

    out = capsys.readouterr().out
    assert re.search(r"^top-1 +\d+\.\d +80\.0$", out, re.MULTILINE)
    assert "7 test videos, 1 view each" in out
    assert "could not be read" not in out
    result = read(tmp_path / "run")
    assert result["metrics"].keys() == {"top-1", "top-5"}
    assert result["versions"]["torch"] == torch.__version__.split("+")[0]
    assert 0 <= result["waiting"] < 1
    with (tmp_path / "run" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["name"] for row in rows) == sorted(map(str, Path("digits/test").glob("*/*.mp4")))
    assert {row["label"] for row in rows} <= set(MovingDigits.classes)
    hits = sum(row["label"] == row["top1"] for row in rows)
    assert result["metrics"]["top-1"] == pytest.approx(hits / 7)
    assert (tmp_path / "run" / "confusion.png").stat().st_size > 5000

    model = ViViT.from_pretrained(tmp_path / "run" / "model")
    assert model.class_names == sorted(MovingDigits.classes)
    average = Checkpoints(tmp_path / "run" / "checkpoints").newest()["average"]
    assert all(torch.equal(tensor, average[name]) for name, tensor in model.state_dict().items())
    video = next(Path("digits/test").glob("*/*.mp4"))
    options = ["--checkpoint", "run/model", "--device", "cpu", "--json"]  # no others: the model knows its test
    assert main(["classify", str(video), *options]) == 0
    (row,) = [row for row in rows if row["name"] == str(video)]
    best = json.loads(capsys.readouterr().out)["classes"][0]
    assert (best["name"], best["probability"]) == (row["top1"], pytest.approx(float(row["top1_probability"]), abs=1e-5))

    assert run(*arguments, base=base) == 0  # goes on where it was: at the end, which it tests again
    assert read(tmp_path / "run")["metrics"] == result["metrics"]


@pytest.mark.filterwarnings("ignore:30 of 30 test videos are training videos")
def test_thirty_clips_of_which_five_are_broken(run, tmp_path, capsys):
    write_broken_set(tmp_path / "set")
    arguments = ["--data.train", "set", "--data.test", "set", "--steps", "12"]
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert "recipe.py: 2 of 30 videos cannot be read, more than the 5.0% that may be broken (max_broken):\n" in err
    assert "Traceback" not in err
    named = [name for name, (_, why) in BROKEN.items() if re.search(f"^  set/{name}: {why}", err, re.MULTILINE)]
    assert len(named) == 2

    assert run(*arguments, "--data.max_broken", "0.2", "--workers", "1") == 0  # in the same folder
    out = capsys.readouterr().out
    assert "25 test videos, 2 views each" in out
    for split in ("train", "test"):
        assert f"5 {split} videos could not be read:" in out
        told = read(tmp_path / "run")["broken"][split]
        for line, (name, (_, why)) in zip(told, sorted(BROKEN.items()), strict=True):
            assert re.match(f"set/{name}: {why}", line)
            assert f"\n  {line}\n" in out


def test_short_videos_with_masks_from_training_to_their_classes(run, tmp_path, capsys, monkeypatch):
    """The videos have 20 frames, and clips of 4 frames at a stride of 8 need 25."""
    write_set(tmp_path / "sound", 5)
    seen, forward = [], ViViT.forward

    def watch(model, video, mask=None):
        seen.append(mask)
        return forward(model, video, mask)

    monkeypatch.setattr(ViViT, "forward", watch)
    short = ["--data.policy", "mask", "--data.stride", "8"]
    assert run(*short, "--steps", "4", "--batch_size", "3", "--eval_every", "2", "--workers", "1") == 0
    assert {mask.sum().item() / len(mask) for mask in seen} == {3}
    with (tmp_path / "run" / "predictions.csv").open() as file:
        row = next(csv.DictReader(file))
    capsys.readouterr()
    assert main(["classify", row["name"], "--checkpoint", "run/model", "--device", "cpu", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["classes"][0]
    assert (best["name"], best["probability"]) == (row["top1"], pytest.approx(float(row["top1_probability"]), abs=1e-5))


def test_a_model_like_its_start_with_the_classes_of_the_data(run, tmp_path):
    write_set(tmp_path / "sound", 5)
    ViViT(TINY.model.replace(num_classes=9, num_frames=6)).save_pretrained(tmp_path / "start")
    base = dataclasses.replace(TINY, start=Start(source="start", positions="resize")).change_model(
        **dataclasses.asdict(command.ViViTConfig(num_classes=0, drop_path=0.1))
    )
    assert run("--model.num_frames", "8", "--epochs", "3", base=base, like_start=True) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert {"num_classes": 3, "drop_path": 0.1, "num_frames": 8, "dim": 24}.items() <= config["model"].items()
    # Twelve of the fifteen videos are trained on, four a step.
    assert (config["steps"], config["warmup_steps"], config["eval_every"]) == (9, 0, 3)
    assert read(tmp_path / "run")["test_videos"] == 3


@pytest.mark.filterwarnings("ignore:2 of 2 test videos are training videos")
def test_several_heads_have_a_picture_and_a_line_each(run, tmp_path, capsys):
    (tmp_path / "epic" / "P01" / "videos").mkdir(parents=True)
    write_video(tmp_path / "epic" / "P01" / "videos" / "P01_01.MP4", 60)
    header = "participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,verb_class,noun_class"
    lines = [f"P01,P01_01,00:00:0{i}.00,00:00:0{i}.90,1,2,{i},{i + 5}" for i in range(2)]
    (tmp_path / "epic" / "EPIC_100_train.csv").write_text("\n".join([header, *lines, ""]))
    data = DataConfig(train="epic/EPIC_100_train.csv", test="epic/EPIC_100_train.csv", views=(1, 1))
    assert run(base=dataclasses.replace(TINY, data=data, mixup=0.3), paper={"action top-1": 44.0}) == 0
    assert re.search(r"^action top-1 +\d+\.\d +44\.0$", capsys.readouterr().out, re.MULTILINE)
    accuracy = read(tmp_path / "run")["metrics"]
    assert accuracy.keys() == {f"{name} top-{k}" for name in ("verb", "noun", "action") for k in (1, 5)}
    assert {file.name for file in (tmp_path / "run").glob("*.png")} == {"confusion_verb.png", "confusion_noun.png"}
    names = ViViT.from_pretrained(tmp_path / "run" / "model").class_names
    assert {head: len(of_head) for head, of_head in names.items()} == {"verb": 97, "noun": 300}


def test_what_cannot_be_used_is_one_line(run, tmp_path, capsys):
    def told(*arguments, **options):
        assert run(*arguments, **options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert told("--data.train", "gone") == "recipe.py: gone: there is no such file or folder"
    assert told("--lr", "-1") == "recipe.py: lr -1.0 is not positive"
    assert told("--data.held_out", "1") == "recipe.py: held_out 1.0 is a share, from 0 to below 1"
    assert "steps and epochs are both given" in told("--steps", "3", "--epochs", "2")
    start = ["--start.source", "runs/first/model"]
    assert told(*start, like_start=True) == "recipe.py: sound: there is no such file or folder"
    write_set(tmp_path / "sound", 2)
    assert "is neither a file nor a folder here" in told(*start, like_start=True)
    assert told("--epochs", "-1") == "recipe.py: epochs -1.0 is not positive"
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "00000001.pt").touch()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "recipe.py: run has a run with another configuration (it differs in" in told()


def test_exit_codes_of_signals_and_of_memory(run, monkeypatch, capsys):
    def raising(error):
        def train_and_report(*_):
            raise error

        monkeypatch.setattr(command, "train_and_report", train_and_report)
        return run(base=TINY.change_model(num_classes=3))

    assert raising(KeyboardInterrupt()) == 130
    with pytest.raises(SystemExit, match="143"):
        raising(SystemExit(143))
    assert raising(torch.OutOfMemoryError("CUDA out of memory")) == 2
    assert "try --grad_checkpointing true" in capsys.readouterr().err


SCRIPT = """
import dataclasses, sys, torch
from vivit_zoo.datasets import DataConfig
from vivit_zoo.studies.cells import BASE
from vivit_zoo.training.run import train_from_command_line

if __name__ == "__main__":
    torch.set_num_threads(1)
    model = BASE.model.replace(num_classes=0)
    data = DataConfig(test_clips=7)
    base = dataclasses.replace(BASE, model=model, data=data, batch_size=4, eval_every=2, device="cpu")
    sys.exit(train_from_command_line("What for?", base, "run"))
"""


@pytest.mark.slow
def test_two_processes_with_shards_write_one_whole_model(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    arguments = ["--shard", "true", "--steps", "4", "--model.dim", "24", "--model.depth", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, *launch, str(script), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("7 test videos") == 1
    assert read(tmp_path / "run")["processes"] == 2
    model = ViViT.from_pretrained(tmp_path / "run" / "model")
    assert model.class_names == list(MovingDigits.classes)
    assert model.config.dim == 24
