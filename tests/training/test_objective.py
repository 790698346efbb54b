"""Targets, losses and units of each task, and runs on several labels and on numbers from a table to `classify`."""

import csv
import dataclasses
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.conftest import tiny_config
from vivit_zoo import ViViT
from vivit_zoo.cli import main
from vivit_zoo.datasets import DataConfig, DataSets, MovingDigits
from vivit_zoo.training.checkpoint import read_metrics
from vivit_zoo.training.config import TrainConfig
from vivit_zoo.training.objective import Objective, TargetScale
from vivit_zoo.training.run import train_from_command_line
from vivit_zoo.video.augment import Augment

ROOT = Path(__file__).parents[2]
TASKS = {"multi_label": ("mAP", ["clockwise", "down", "right"]), "regression": ("rmse", ["right", "clockwise"])}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A folder with clips whose motions have names and speeds, in train.csv and test.csv."""
    folder = tmp_path_factory.mktemp("digits")
    script = runpy.run_path(str(ROOT / "experiments" / "render_digits.py"))
    for split, clips in {"train": 12, "test": 7}.items():
        script["render"](folder, split, clips, scale=1)
    return folder


def data_of(folder, task):
    targets = TASKS[task][1] if task == "regression" else ()
    still = Augment(size=16, scale_jitter=(1, 1), flip=0, colour=0, gray=0)
    reading = {"stride": 1, "views": (2, 1), "augment": still, "targets": targets}
    return DataConfig(train=str(folder / "train.csv"), test=str(folder / "test.csv"), task=task, **reading)


class Labels:
    """A training set of which nothing is read but the labels."""

    def __init__(self, labels):
        self.own = labels

    def labels(self):
        return self.own


def objective(labels, classes, task="single_label", scale=None, **changes):
    data = DataConfig() if task == "single_label" else DataConfig(train="x.csv", held_out=0.5, task=task)
    counts = {head: len(own) for head, own in classes.items()} if isinstance(classes, dict) else len(classes)
    config = TrainConfig(model=tiny_config(num_classes=counts), data=data, **changes)
    return Objective(config, DataSets(Labels(labels), None, None, classes), scale=scale)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=9), st.integers(0, 99))
def test_normalised_targets_and_folded_heads_undo_each_other(scores, seed):
    torch.manual_seed(seed)
    labels = [(score, index) for index, score in enumerate(scores)]
    if max(scores) - min(scores) < 1e-3 * max(map(abs, scores)) or len(set(scores)) < 2:
        with pytest.raises(ValueError, match="have the speed"):
            TargetScale.of_labels([(scores[0], index) for index in range(len(scores))], ["speed", "size"])
        return
    scale = TargetScale.of_labels(labels, ["speed", "size"])
    normal = scale.normalise(torch.tensor(labels, dtype=torch.float32))
    torch.testing.assert_close(normal.mean(0), torch.zeros(2), atol=2e-3, rtol=0)
    torch.testing.assert_close(normal.std(0, correction=0), torch.ones(2), atol=1e-3, rtol=0)
    again = TargetScale.from_json(json.loads(json.dumps(scale.to_json())))
    head, features = nn.Linear(3, 2), torch.randn(4, 3)
    expected = again.in_units(head(features))
    scale.fold_into(head)
    torch.testing.assert_close(head(features), expected, rtol=1e-4, atol=1e-3)


def test_weights_of_classes_enter_the_loss():
    labels, logits = [0, 0, 0, 1], torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    target = torch.tensor([0, 1])
    each = nn.functional.cross_entropy(logits, target, reduction="none")
    for weights, expected in {"balanced": (2 / 3, 2.0), (3.0, 1.0): (3.0, 1.0), None: (1.0, 1.0)}.items():
        loss = objective(labels, ["a", "b"], class_weights=weights).loss(logits, target)
        torch.testing.assert_close(loss, (each * torch.tensor(expected)).mean())
    heads = {"noun": ["a", "b"], "verb": ["c", "d"]}
    by_head = objective([{"noun": n, "verb": 0} for n in labels], heads, class_weights="balanced")
    loss = by_head.loss({"noun": logits, "verb": logits}, {"noun": target, "verb": target})
    noun = (each * torch.tensor([2 / 3, 2.0])).mean()
    torch.testing.assert_close(loss, (noun + each.mean()) / 2)  # of verbs there is one, of weight 1
    several = objective([(0,), (0, 1), (0,), ()], ["a", "b"], "multi_label", class_weights="balanced")
    hot = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    weights = torch.tensor([1 / 3, 3.0])
    expected = nn.functional.binary_cross_entropy_with_logits(logits, hot, pos_weight=weights)
    torch.testing.assert_close(several.loss(logits, hot), expected)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_clips_and_targets_are_mixed_alike(task):
    label = torch.tensor([0, 1, 1]) if task == "single_label" else torch.tensor([[1.0, 0], [1, 1], [0, 0]])
    torch.manual_seed(0)
    run = objective([0, 1], ["a", "b"], task, cutmix=1.0)
    video = torch.arange(3.0)[:, None, None, None, None].expand(3, 1, 2, 8, 8)
    mixed, target = run.prepare(video, label)
    share = (mixed[0] == 0).float().mean()
    hot = nn.functional.one_hot(label, 2).float() if task == "single_label" else label
    torch.testing.assert_close(target, share * hot + (1 - share) * hot.flip(0))
    assert 0 < share < 1


def test_a_target_that_never_changes_is_refused():
    with pytest.raises(ValueError, match="all 2 training videos have the size 3; there is nothing to learn"):
        objective([(1.0, 3.0), (2.0, 3.0)], ["speed", "size"], "regression")


def test_a_resumed_regression_keeps_its_scale():
    """Also if the training set has changed since, such as by a video that is gone."""
    labels = torch.tensor([[1.0], [5.0]])
    first = objective([1.0, 2.0, 6.0], ["speed"], "regression")
    torch.testing.assert_close(first.prepare(labels, labels)[1], (labels - 3) / (14 / 3) ** 0.5)
    resumed = objective([2.0, 6.0], ["speed"], "regression", scale=first.state()["scale"])
    assert torch.equal(resumed.prepare(labels, labels)[1], first.prepare(labels, labels)[1])
    outputs = resumed.in_units(lambda video, mask: video * mask)(torch.tensor([[0.0], [1.0]]), torch.ones(2, 1))
    torch.testing.assert_close(outputs, torch.tensor([[3.0], [3 + (14 / 3) ** 0.5]]))
    assert objective([0, 1], ["a", "b"]).state() == {}


@pytest.mark.parametrize("task", TASKS)
def test_from_a_table_to_classify(task, rendered, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    metric, names = TASKS[task]
    model = tiny_config(num_frames=4, image_size=16, tubelet_size=(2, 8, 8), depth=1, num_classes=0)
    base = TrainConfig(model=model, data=data_of(rendered, task), steps=6, batch_size=3, eval_every=1, device="cpu")
    base = dataclasses.replace(base, ema=0.5, warmup_steps=0, lr=0.01)
    monkeypatch.setattr(sys, "argv", ["recipe.py"])
    assert train_from_command_line("What for?", base, "run") == 0
    out = capsys.readouterr().out
    assert "confusion" not in out

    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    best = torch.load(tmp_path / "run/checkpoints/best.pt", weights_only=True)
    values = {line["step"]: line[metric] for line in lines}
    wanted = max(values.values()) if metric == "mAP" else min(values.values())
    assert values[best["step"]] == wanted
    assert len(set(values.values())) > 1
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["metric"] == metric
    assert metric in result["metrics"]
    card = (tmp_path / "run/model/README.md").read_text()
    assert f"| {metric} on 7 test videos, 2 views each |" in card
    assert f'"type": "{metric}"' in card

    trained = ViViT.from_pretrained(tmp_path / "run/model")
    assert trained.class_names == names
    assert trained.problem_type == ("regression" if task == "regression" else "multi_label_classification")
    with (tmp_path / "run/predictions.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["name"].endswith("5.mp4"))
    options = ["--checkpoint", "run/model", "--views", "2x1", "--stride", "1", "--device", "cpu", "--json"]
    assert main(["classify", row["name"], *options]) == 0
    found = json.loads(capsys.readouterr().out)
    if task == "regression":  # in the units of the table
        own = [MovingDigits("train", 12).speeds(index)["right"] for index in range(12)]
        assert best["scale"]["mean"][0] == pytest.approx(sum(own) / 12, abs=1e-4)
        speeds = MovingDigits("test", 7).speeds(5)
        assert {name: float(row[name]) for name in names} == {
            name: pytest.approx(speeds[name], abs=1e-4) for name in names
        }
        predicted = {one["name"]: one["value"] for one in found["values"]}
        assert predicted == {name: pytest.approx(float(row[f"{name}_predicted"]), rel=1e-3) for name in names}
        assert -3 < predicted["right"] < 6
        assert {"rmse_right", "mae_clockwise", "r2"} <= result["metrics"].keys()
    else:
        assert row["labels"] == "down;right"
        first = found["classes"][0]
        assert first["name"] == row["top1"]
        assert first["probability"] == pytest.approx(float(row["top1_probability"]), rel=1e-3)
        assert result["metrics"].keys() == {"mAP", "AP clockwise", "AP down", "AP right"}
