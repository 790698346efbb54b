"""Two processes on a CPU (gloo) do what one does: copies of the model (DDP) and shards of it (FSDP2)."""

import dataclasses
import socket
import time
from types import SimpleNamespace

import pytest
import torch

from tests.training.runs import clips_as_videos, last, metrics, small_momentum, train_as_one_of_two
from vivit_zoo.evaluation.scores import Scores
from vivit_zoo.system.processes import process_context
from vivit_zoo.training.checkpoint import Checkpoints
from vivit_zoo.training.distributed import get_random, set_random
from vivit_zoo.training.loop import train

# The shards are on CPUs here.
pytestmark = pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on GPUs only")


def start(folder, runs):
    """Start two processes, as torchrun does, that do some runs one after the other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = process_context("tests.training.runs")
    processes = [context.Process(target=train_as_one_of_two, args=(rank, port, runs, folder)) for rank in (0, 1)]
    for process in processes:
        process.start()
    return processes


def join(processes):
    """Wait for the processes and return their exit codes."""
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def assert_same_weights(one, other, atol=1e-6):
    a, b = last(one), last(other)
    assert a["step"] == b["step"]
    for kind in ("model", "average"):
        assert a[kind].keys() == b[kind].keys()
        for name in a[kind]:
            torch.testing.assert_close(a[kind][name], b[kind][name], rtol=0, atol=atol)
    for name, state in a["optimizer"]["state"].items():
        for slot, tensor in state.items():
            torch.testing.assert_close(tensor, b["optimizer"]["state"][name][slot], rtol=0, atol=atol)


def test_two_processes_train_and_test_as_one(tmp_path):
    runs = {"copies": small_momentum(), "shards": small_momentum(shard=True)}
    processes = start(tmp_path, {"odd": small_momentum(batch_size=6)} | runs)
    scores = train(small_momentum(), tmp_path / "one").test()
    assert scores.indices.tolist() == list(range(17))
    assert join(processes) == [0, 0]
    for name in runs:
        assert_same_weights(tmp_path / "one", tmp_path / name)
        found = Scores.load(tmp_path / f"{name}.npz")
        assert torch.equal(found.indices, scores.indices)  # each clip once, although 17 is odd
        torch.testing.assert_close(found.logits, scores.logits, rtol=0, atol=1e-5)
        for line, expected in zip(metrics(tmp_path / name), metrics(tmp_path / "one"), strict=True):
            assert line == pytest.approx(expected, abs=1e-5)
    # A batch that cannot be split over two processes is an error in both.
    for rank in (0, 1):
        message = (tmp_path / f"odd-{rank}.txt").read_text()
        assert "batch_size 6 cannot be split over 2 processes with accumulate 2" in message
    assert not Checkpoints(tmp_path / "odd" / "checkpoints").files()


@pytest.mark.slow
def test_two_processes_train_frozen_models_and_balanced_classes_as_one(tmp_path):
    frozen = small_momentum(steps=4, eval_every=2, only="temporal")
    of_frozen = {"frozen copies": frozen, "frozen shards": dataclasses.replace(frozen, shard=True)}
    balanced = small_momentum(
        steps=4, eval_every=2, data=clips_as_videos(21), sampling="balanced", class_weights="balanced", aug_repeats=2
    )
    processes = start(tmp_path, {"balanced": balanced} | of_frozen)
    train(frozen, tmp_path / "frozen")
    train(balanced, tmp_path / "one balanced")
    assert join(processes) == [0, 0]
    assert_same_weights(tmp_path / "one balanced", tmp_path / "balanced")
    for name in of_frozen:
        assert_same_weights(tmp_path / "frozen", tmp_path / name)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_another_number_of_processes(tmp_path):
    """On SIGTERM, as SLURM sends it, both processes agree on a step, save and exit. One process finishes the run."""
    run = small_momentum(steps=40, eval_every=8)
    train(run, tmp_path / "whole")
    processes = start(tmp_path, {"stopped": dataclasses.replace(run, shard=True)})
    first_evaluation = tmp_path / "stopped" / "metrics.jsonl"
    while not (first_evaluation.exists() and first_evaluation.read_text()):
        assert all(process.is_alive() for process in processes)
        time.sleep(0.01)
    for process in processes:
        process.terminate()
    assert join(processes) == [143, 143]
    assert 8 < last(tmp_path / "stopped")["step"] < 40
    file = tmp_path / "stopped" / "config.json"
    file.write_text(file.read_text().replace('"shard": true', '"shard": false'))
    train(run, tmp_path / "stopped")
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped", atol=1e-5)  # rounding of 40 steps


def test_sharding_a_run_of_one_process_changes_nothing(tmp_path):
    runs = [
        train(dataclasses.replace(small_momentum(steps=2), shard=on), tmp_path / str(on)).model for on in (False, True)
    ]
    for a, b in zip(*(run.parameters() for run in runs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_generator_of_the_device_goes_on_where_it_was(kind, monkeypatch):
    """With a stand-in for the device's generator: these machines are not here."""
    generator = torch.Generator().manual_seed(7)
    module = getattr(torch, kind)
    monkeypatch.setattr(module, "get_rng_state", lambda *_: generator.get_state())
    monkeypatch.setattr(module, "set_rng_state", lambda state, *_: generator.set_state(state))
    accelerator = SimpleNamespace(device=torch.device(kind), num_processes=1, process_index=0)
    states = get_random(accelerator)
    expected = torch.rand(3, generator=generator), torch.rand(3)
    set_random(states, accelerator)
    assert torch.equal(torch.rand(3, generator=generator), expected[0])
    assert torch.equal(torch.rand(3), expected[1])
    set_random(states, SimpleNamespace(device=torch.device("cpu"), num_processes=1, process_index=0))  # another device
