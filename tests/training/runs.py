"""Small training runs and their comparison, for tests and for the processes that tests start.

Imports neither pytest nor the tests' own modules, so that those processes start quickly.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from vivit_zoo.datasets import DataConfig
from vivit_zoo.studies.cells import BASE
from vivit_zoo.training.checkpoint import Checkpoints, read_metrics
from vivit_zoo.training.config import TrainConfig
from vivit_zoo.training.loop import train

SPEEDS = {"clips_per_second", "loader_clips_per_second", "model_clips_per_second"}


def small(**changes: Any) -> TrainConfig:
    """A run of about a second. It has dropout, so that the random state matters."""
    fields = {
        "model": BASE.model.replace(dim=24, depth=1, drop=0.1),
        "data": DataConfig(test_clips=16),
        "steps": 6,
        "batch_size": 8,
        "eval_every": 2,
        "warmup_steps": 2,
        "device": "cpu",
    }
    return dataclasses.replace(BASE, **(fields | changes))


def clips_as_videos(clips: int) -> DataConfig:
    """Clips that are read and augmented as video files are."""
    return DataConfig(train="moving_digits:videos", train_clips=clips, test_clips=16, stride=1, views=(1, 1))


def small_momentum(**changes: Any) -> TrainConfig:
    """A run whose result does not depend on the number of processes.

    SGD with momentum, because AdamW divides gradients by their size, and some gradients are nothing but rounding, such
    as those of the keys' biases. No dropout, because each process draws its own masks. The number of test clips is odd.
    """
    fields = {"opt": "momentum", "lr": 0.1, "steps": 8, "eval_every": 4, "ema": 0.9, "accumulate": 2}
    run = small(**(fields | {"data": DataConfig(test_clips=17)} | changes))
    return run.change_model(drop=0.0, depth=2, variant="factorised_encoder")


def saves_at_every_step() -> TrainConfig:
    """A run that evaluates and writes a checkpoint after each of its steps."""
    return small(steps=30, batch_size=4, data=DataConfig(test_clips=4), eval_every=1, keep=2, ema=0.9)


def train_in_one_thread(config: TrainConfig, folder: Path) -> None:
    """Train in a new process, with sums in the same order as in the tests."""
    torch.set_num_threads(1)
    train(config, folder)


def train_as_one_of_two(rank: int, port: int, runs: dict[str, TrainConfig], folder: Path) -> None:
    """Do runs, and test them, as one of two processes; write the scores or the error of each."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    for name, config in runs.items():
        try:
            scores = train(config, folder / name).test()
        except ValueError as error:
            (folder / f"{name}-{rank}.txt").write_text(str(error))
            continue
        if rank == 0:
            scores.save(folder / f"{name}.npz")


def metrics(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run without its speeds."""
    return [
        {name: value for name, value in line.items() if name not in SPEEDS}
        for line in read_metrics(folder / "metrics.jsonl")
    ]


def last(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of a run."""
    checkpoint = Checkpoints(folder / "checkpoints").newest()
    assert checkpoint is not None
    return checkpoint


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, averages and optimiser state bit for bit, random state, and every line of the metrics."""
    a, b = last(one), last(other)
    for name in ("model", "average"):
        assert a.get(name, {}).keys() == b.get(name, {}).keys()
        for key in a.get(name, {}):
            assert torch.equal(a[name][key], b[name][key]), f"{name} {key}"
    for key, state in a["optimizer"]["state"].items():
        for slot, tensor in state.items():
            assert torch.equal(tensor, b["optimizer"]["state"][key][slot]), f"{slot} of {key}"
    assert torch.equal(a["random"][0]["cpu"], b["random"][0]["cpu"])
    assert (a["step"], a["best"]) == (b["step"], b["best"])
    assert metrics(one) == metrics(other)
