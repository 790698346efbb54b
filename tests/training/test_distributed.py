"""Two processes on a CPU (gloo) do what one does: copies of the model (DDP) and shards of it (FSDP2)."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training.test_loop import last, metrics, small
from vivit_zoo.datasets import DataConfig
from vivit_zoo.evaluation.scores import Scores
from vivit_zoo.training.checkpoint import Checkpoints
from vivit_zoo.training.loop import train

ROOT = Path(__file__).parents[2]


def config(**changes):
    """Momentum: AdamW divides gradients of nothing but rounding, such as those of the keys' biases, by their own size.

    No dropout, which each process draws for itself. 17 test clips are odd.
    """
    fields = {"opt": "momentum", "lr": 0.1, "steps": 20, "eval_every": 10, "ema": 0.9, "accumulate": 2}
    run = small(**(fields | {"data": DataConfig(test_clips=17)} | changes))
    return run.change_model(drop=0.0, depth=2, variant="factorised_encoder")


SCRIPT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.training.test_distributed import *
torch.set_num_threads(1)
for name, run in {{runs}}:
    trained = train(run, Path(sys.argv[1]) / name)
    scores = trained.test()
    if int(os.environ.get("RANK", 0)) == 0:
        scores.save(Path(sys.argv[1]) / f"{{{{name}}}}.npz")
"""


def start(folder, runs, processes=2):
    """Launch the runs, a list of (name, configuration) in Python, one after the other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port)]
    script = folder / "script.py"
    script.write_text(SCRIPT.format(runs=runs))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, *launch, str(script), str(folder)], env=environment, stderr=subprocess.PIPE, text=True
    )


def launch(folder, runs):
    process = start(folder, runs)
    _, err = process.communicate()
    assert process.returncode == 0, err


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
    launch(tmp_path, '[("copies", config()), ("shards", config(shard=True))]')
    scores = train(config(), tmp_path / "one").test()
    assert scores.indices.tolist() == list(range(17))
    for name in ("copies", "shards"):
        assert_same_weights(tmp_path / "one", tmp_path / name)
        found = Scores.load(tmp_path / f"{name}.npz")
        assert torch.equal(found.indices, scores.indices)  # each clip once, although 17 is odd
        torch.testing.assert_close(found.logits, scores.logits, rtol=0, atol=1e-5)
        for line, expected in zip(metrics(tmp_path / name), metrics(tmp_path / "one"), strict=True):
            assert line == pytest.approx(expected, abs=1e-5)


def test_a_stopped_run_goes_on_with_another_number_of_processes(tmp_path):
    """SIGTERM, as SLURM sends it: both processes agree on a step, save and leave; one process finishes the run."""
    train(config(steps=60, eval_every=60), tmp_path / "whole")
    process = start(tmp_path, '[("stopped", config(steps=60, eval_every=60, shard=True))]')
    while process.poll() is None and not (tmp_path / "stopped" / "metrics.jsonl").exists():
        time.sleep(0.01)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode != 0
    assert "stopped after step" in err
    step = last(tmp_path / "stopped")["step"]
    assert 0 < step < 60, err
    file = tmp_path / "stopped" / "config.json"
    file.write_text(file.read_text().replace('"shard": true', '"shard": false'))
    train(config(steps=60, eval_every=60), tmp_path / "stopped")
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped", atol=1e-5)  # rounding of 60 steps


def test_a_batch_that_cannot_be_shared_out(tmp_path):
    process = start(tmp_path, '[("odd", config(batch_size=6, accumulate=2))]')
    _, err = process.communicate()
    assert process.returncode != 0
    assert "batch_size 6 cannot be shared out over 2 processes with accumulate 2" in err
    assert not Checkpoints(tmp_path / "odd" / "checkpoints").files()


def test_sharding_a_run_of_one_process_changes_nothing(tmp_path):
    runs = [train(dataclasses.replace(config(steps=2), shard=on), tmp_path / str(on)).model for on in (False, True)]
    for a, b in zip(*(run.parameters() for run in runs), strict=True):
        assert torch.equal(a, b)
