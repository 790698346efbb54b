"""Runs that are stopped by an exception, a signal or SIGKILL resume to the same weights."""

import os
import signal
import time

import pytest
import torch

from tests.training.runs import (
    assert_same_run,
    clips_as_videos,
    last,
    metrics,
    saves_at_every_step,
    small,
    train_in_one_thread,
)
from vivit_zoo.datasets import DataConfig
from vivit_zoo.system.processes import process_context
from vivit_zoo.training import loop as train_module
from vivit_zoo.training.checkpoint import Checkpoints
from vivit_zoo.training.loop import train

BALANCED = {"sampling": "balanced", "class_weights": "balanced", "cutmix": 1.0}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        BALANCED | {"data": DataConfig(train_clips=20, test_clips=16)},  # a step ends in the next epoch
        {"data": clips_as_videos(12), "aug_repeats": 2},
    ],
    ids=["plain", "balanced", "repeated"],
)
def test_a_run_that_broke_off_resumes_to_the_same_weights(tmp_path, monkeypatch, changes):
    config = small(**({"ema": 0.9, "mixup": 0.2, "accumulate": 2} | changes))
    whole = train(config, tmp_path / "whole")

    class Stop(Exception):
        pass

    calls, evaluate = [], train_module.evaluate

    def stop_at_second(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise Stop  # after step 4, before its checkpoint: the run loses two steps
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(train_module, "evaluate", stop_at_second)
    with pytest.raises(Stop):
        train(config, tmp_path / "stopped")
    monkeypatch.setattr(train_module, "evaluate", evaluate)
    assert last(tmp_path / "stopped")["step"] == 2
    resumed = train(config, tmp_path / "stopped")

    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [line["step"] for line in metrics(tmp_path / "stopped")] == [2, 4, 6]
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.fixture
def usual_signals():
    """As in a terminal: what is started in the background ignores Ctrl-C, and so does a run there."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves(tmp_path, monkeypatch, number):
    train(small(ema=0.5), tmp_path / "whole")
    clip_grad_norm, steps = torch.nn.utils.clip_grad_norm_, []

    def signal_in_step_3(*args):
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), number)
        return clip_grad_norm(*args)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", signal_in_step_3)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as stopped:
        train(small(ema=0.5), tmp_path / "stopped")
    if number == signal.SIGTERM:
        assert stopped.value.code == 143
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert last(tmp_path / "stopped")["step"] == 3  # nothing is lost, although the next evaluation was a step away
    train(small(ema=0.5), tmp_path / "stopped")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.usefixtures("usual_signals")
def test_a_signal_in_the_last_evaluation_is_not_lost(tmp_path, monkeypatch):
    """The long test would follow, for which a job that was told to end has no time."""
    evaluate = train_module.evaluate

    def told(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(train_module, "evaluate", told)
    with pytest.raises(SystemExit, match="143"):
        train(small(steps=2), tmp_path)
    assert last(tmp_path)["step"] == 2
    monkeypatch.setattr(train_module, "evaluate", evaluate)
    assert len(train(small(steps=2), tmp_path).test()) == 16


@pytest.mark.parametrize(("kills", "seed"), [(2, 0), pytest.param(10, 1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_run_resumes_bit_for_bit(tmp_path, kills, seed):
    """SIGKILL at random moments: during a step, an evaluation, or a checkpoint, which is written after each step."""
    train(saves_at_every_step(), tmp_path / "whole")
    generator = torch.Generator().manual_seed(seed)
    context = process_context("tests.training.runs")
    folder = tmp_path / "killed" / "checkpoints"
    for kill in range(kills + 1):
        process = context.Process(target=train_in_one_thread, args=(saves_at_every_step(), tmp_path / "killed"))
        process.start()
        if kill == kills:  # the last process may finish
            break
        target = saves_at_every_step().steps * (kill + 1) // (kills + 1)
        while process.is_alive() and not any(int(file.stem) >= target for file in Checkpoints(folder).files()):
            time.sleep(0.005)
        time.sleep(0.1 * torch.rand((), generator=generator).item())
        process.kill()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
        files = [*Checkpoints(folder).files(), *folder.glob("best.pt")]
        assert files
        for file in files:
            torch.load(file, weights_only=True)  # raises if a file is incomplete
    process.join()
    assert process.exitcode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert not list(folder.glob("*.part"))
