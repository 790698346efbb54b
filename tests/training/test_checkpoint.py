"""The folder of a run: whole files, what is kept, what is found after an accident."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs import small
from vivit_zoo.datasets import DataConfig
from vivit_zoo.studies.cells import BASE
from vivit_zoo.training.checkpoint import (
    Checkpoints,
    Metrics,
    claim_folder,
    fill_in,
    flatten,
    read_metrics,
    write_whole,
)
from vivit_zoo.video.augment import Augment


def test_files_are_replaced_as_a_whole(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")

    def fail(part):
        part.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(file, fail)
    assert file.read_text() == "old"
    write_whole(file, lambda part: part.write_text("new"))
    assert file.read_text() == "new"


def content(step):
    return {"step": step, "weights": torch.full((3,), float(step))}


def test_the_last_and_the_best_are_kept(tmp_path):
    files = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert files.newest() is None
    for step in (1, 2, 10, 30, 200):
        files.write(step, content(step), best=step in (1, 10))
    assert [file.stem for file in files.files()] == ["00000030", "00000200"]
    assert files.newest()["step"] == 200
    assert torch.load(tmp_path / "checkpoints" / "best.pt", weights_only=True)["step"] == 10


def test_a_damaged_checkpoint_is_passed_over_and_told(tmp_path):
    files = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        files.write(step, content(step))
    newest = files.files()[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"00000002\.pt cannot be read"):
        assert files.newest()["step"] == 1
    files.files()[0].write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(ValueError, match=r"no checkpoint in .* can be read; delete it"),
    ):
        files.newest()


def test_a_damaged_checkpoint_does_not_outlive_the_one_written_after_it(tmp_path):
    """Else it would be the newest still, and with `keep` of 1 the only one."""
    files = Checkpoints(tmp_path, keep=2)
    files.write(2, content(2))
    files.write(4, content(4))
    files.files()[-1].write_bytes(b"")
    Checkpoints(tmp_path, keep=1).write(3, content(3))  # resumed from 2 and stopped by a signal
    assert [file.stem for file in files.files()] == ["00000003"]


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    files = Checkpoints(tmp_path)
    (tmp_path / "00000001.pt.part").write_bytes(b"half")
    assert files.newest() is None
    files.write(2, content(2))
    assert [file.name for file in tmp_path.iterdir()] == ["00000002.pt"]


def test_a_full_disk_is_told_and_leaves_what_is_there(tmp_path, monkeypatch):
    files = Checkpoints(tmp_path)
    files.write(1, content(1))

    def fail(*_):
        raise RuntimeError("unexpected pos 704 vs 598")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"00000002\.pt cannot be written .* is the disk full\?"):
        files.write(2, content(2))
    assert files.newest()["step"] == 1


def test_the_best_is_a_file_of_its_own(tmp_path):
    files = Checkpoints(tmp_path)
    files.write(1, content(1), best=True)
    with (tmp_path / "best.pt").open("r+b") as spoilt:
        spoilt.write(b"spoilt")
    assert files.newest()["step"] == 1


def test_a_folder_belongs_to_one_configuration(tmp_path):
    identify = partial(flatten, without=("workers",))
    claim_folder(tmp_path / "run", {"lr": 1, "workers": 2}, identify)
    claim_folder(tmp_path / "run", {"lr": 1, "workers": 4}, identify)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"lr": 1, "workers": 4}
    Checkpoints(tmp_path / "run" / "checkpoints").write(1, content(1))
    with pytest.raises(ValueError, match=r"another configuration \(it differs in lr, seed\)"):
        claim_folder(tmp_path / "run", {"lr": 2, "seed": 0}, identify)


@pytest.mark.parametrize("train", ["moving_digits", "moving_digits:videos"])
def test_runs_from_before_frames_were_read_fast_read_them_exactly(train):
    """So a run on videos does not go on with other frames, nor is a cell of exact frames taken for one of fast ones."""
    config = small(data=DataConfig(train=train))
    earlier = json.loads(config.to_json())
    del earlier["data"]["augment"]["exact"], earlier["mixup"]
    assert (config.identify(earlier) == config.identity()) == (train == "moving_digits")
    exact = dataclasses.replace(config.data, augment=Augment(exact=True))
    assert config.identify(earlier) == dataclasses.replace(config, data=exact).identity()


@dataclasses.dataclass
class Inner:
    width: int = 3
    sides: tuple[int, int] = (1, 2)


@dataclasses.dataclass
class Outer:
    lr: float
    inner: Inner = dataclasses.field(default_factory=Inner)
    other: Any = None
    added: Any = dataclasses.field(default_factory=Inner)


def test_defaults_stay_as_they_are():
    """Runs and cells that lack a newer field are taken for ones with its default; new fields go into the file."""
    known = json.loads((Path(__file__).parent / "defaults.json").read_text())
    assert flatten(fill_in({}, BASE)) | flatten({"model": fill_in({}, BASE.model)}) == known


def test_fields_that_an_earlier_version_lacked_have_their_defaults():
    """At every depth; what has no default stays away, and what is not there now stays."""
    whole = {"lr": 1.0, "inner": {"width": 3, "sides": [1, 2]}, "other": None, "added": {"width": 3, "sides": [1, 2]}}
    like = Outer(lr=5.0, inner=Inner(width=9))
    assert fill_in({"lr": 1.0}, like) == whole
    assert fill_in({"lr": 1.0, "inner": {"width": 4}}, like) == whole | {"inner": {"width": 4, "sides": [1, 2]}}
    assert fill_in({"old": 2}, like) == {"old": 2} | {name: one for name, one in whole.items() if name != "lr"}


def test_a_run_of_an_earlier_version_is_resumed(tmp_path):
    """Options that came since have their defaults, and the file stays as it was written."""
    identify = partial(fill_in, like=Outer(lr=1.0))
    claim_folder(tmp_path, {"lr": 1.0}, identify)
    Checkpoints(tmp_path / "checkpoints").write(1, content(1))
    claim_folder(tmp_path, fill_in({"lr": 1.0}, Outer(lr=1.0)), identify)
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 1.0}
    with pytest.raises(ValueError, match=r"\(it differs in other\)"):
        claim_folder(tmp_path, fill_in({"lr": 1.0, "other": 1}, Outer(lr=1.0)), identify)


@pytest.mark.parametrize("text", ['{"lr": ', "[1]"])
def test_a_folder_whose_configuration_was_spoilt(tmp_path, text):
    Checkpoints(tmp_path / "checkpoints").write(1, content(1))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        claim_folder(tmp_path, {"lr": 1})


def test_a_run_that_failed_before_its_first_checkpoint_may_be_mended(tmp_path):
    claim_folder(tmp_path, {"opt": "adamwx"})
    claim_folder(tmp_path, {"opt": "adamw"})
    assert json.loads((tmp_path / "config.json").read_text()) == {"opt": "adamw"}


def test_metrics_go_on_from_a_step(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "loss": 0.5}\n{"step": 6, "lo')
    assert [line["step"] for line in read_metrics(file)] == [2, 4]
    Metrics(file, keep_until=2).write(step=3, loss=0.7)
    assert [line["step"] for line in read_metrics(file)] == [2, 3]
    assert read_metrics(tmp_path / "none.jsonl") == []
