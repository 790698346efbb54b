import dataclasses
import json

import pytest
import torch
from conftest import tiny_config

from vivit_zoo.ablation import BASE
from vivit_zoo.train import ShuffledForever, TrainConfig, train, warmup_cosine, write_whole


def small(**changes):
    """A run of seconds that has dropout, so that the random state matters too."""
    fields = {
        "model": BASE.model.replace(dim=24, depth=1, drop=0.1),
        "steps": 6,
        "batch_size": 8,
        "eval_every": 2,
        "test_clips": 16,
        "warmup_steps": 2,
        "device": "cpu",
    }
    return dataclasses.replace(BASE, **(fields | changes))


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    whole = train(small(), tmp_path / "whole")

    class Stop(Exception):
        pass

    import vivit_zoo.train as module

    calls, evaluate = [], module.evaluate

    def stop_at_second(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise Stop  # after step 4, before its checkpoint: the run loses two steps
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(module, "evaluate", stop_at_second)
    with pytest.raises(Stop):
        train(small(), tmp_path / "stopped")
    monkeypatch.setattr(module, "evaluate", evaluate)
    assert torch.load(tmp_path / "stopped" / "checkpoint.pt")["step"] == 2
    resumed = train(small(), tmp_path / "stopped")

    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "stopped")
    ]
    assert [line["step"] for line in lines[1]] == [2, 4, 6]
    assert lines[0] == lines[1]


def test_seeds_differ_and_repeat(tmp_path):
    weights = [train(small(seed=seed), tmp_path / str(i)).model.head.weight for i, seed in enumerate((0, 0, 1))]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_loss_falls_on_few_clips(tmp_path):
    """Thirty-two clips are learned by heart."""
    model = BASE.model.replace(dim=48, depth=2)
    train(small(model=model, train_clips=32, batch_size=32, steps=60, eval_every=30, lr=3e-3), tmp_path)
    first, last = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert last < 0.5 * first


def test_loader_processes_make_the_same_clips(tmp_path):
    weights = [train(small(workers=workers), tmp_path / str(workers)).model.head.weight for workers in (0, 1)]
    assert torch.equal(*weights)


def test_schedule():
    shares = [warmup_cosine(step, 4, 12) for step in range(12)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert shares[8] == pytest.approx(0.5)
    assert warmup_cosine(12, 4, 12) == pytest.approx(0)


def test_order_of_clips_starts_anywhere():
    def first(n, start):
        return [index for index, _ in zip(ShuffledForever(5, seed=3, start=start), range(n), strict=False)]

    order = first(20, 0)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert order[:5] != order[5:10]
    for start in (1, 5, 7, 13):
        assert first(6, start) == order[start : start + 6]


def test_files_are_replaced_as_a_whole(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")

    def fail(part):
        part.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(file, fail)
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "kinetics"}, "data 'kinetics' is unknown; choose from moving_digits"),
        ({"steps": 0}, "steps 0 is not positive"),
        ({"test_clips": 0}, "test_clips 0 is not positive"),
    ],
)
def test_bad_runs(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(model=tiny_config(), **changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_device():
    with pytest.raises(ValueError, match="device 'cuda' is not available here"):
        TrainConfig(model=tiny_config(), device="cuda")
