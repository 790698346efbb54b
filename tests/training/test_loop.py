"""The training loop in one process. Resuming is in test_resume.py, several processes are in test_distributed.py."""

import dataclasses
import json

import pytest
import torch

from tests.conftest import tiny_config
from tests.training.runs import assert_same_run, last, metrics, small
from vivit_zoo import ViViT
from vivit_zoo.datasets import DataConfig, MovingDigits
from vivit_zoo.studies.cells import BASE
from vivit_zoo.training import loop as train_module
from vivit_zoo.training.checkpoint import Checkpoints, read_metrics
from vivit_zoo.training.config import Start, TrainConfig
from vivit_zoo.training.loop import train


def test_seeds_differ_and_repeat(tmp_path):
    weights = [train(small(seed=seed), tmp_path / str(i)).model.head.weight for i, seed in enumerate((0, 0, 1))]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_loss_falls_on_few_clips(tmp_path):
    """Thirty-two clips are learned by heart."""
    model = BASE.model.replace(dim=48, depth=2)
    data = DataConfig(train_clips=32, test_clips=16)
    train(small(model=model, data=data, batch_size=32, steps=60, eval_every=30, lr=3e-3), tmp_path)
    first, last = [line["loss"] for line in metrics(tmp_path)]
    assert last < 0.5 * first


def test_worker_processes_make_the_same_clips(tmp_path):
    train(small(), tmp_path / "0")
    train(small(workers=1), tmp_path / "1")
    assert_same_run(tmp_path / "0", tmp_path / "1")


def test_parts_of_a_step_add_up(tmp_path):
    """Without dropout an accumulated gradient is that of the whole step."""
    config = small(model=BASE.model.replace(dim=24, depth=1), opt="momentum", lr=0.1)
    whole, parts = (train(dataclasses.replace(config, accumulate=n), tmp_path / str(n)).model for n in (1, 4))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_steps_are_those_of_torch(tmp_path):
    """Two steps by hand: label smoothing, clipped gradients, momentum, decay of the matrices alone, the rates."""
    data = DataConfig(train_clips=8, test_clips=4)
    fields = {"opt": "momentum", "lr": 0.5, "momentum": 0.8, "weight_decay": 0.1, "clip_grad": 0.05}
    config = small(model=BASE.model.replace(dim=24, depth=1), data=data, steps=2, warmup_steps=0, **fields)
    config = dataclasses.replace(config, label_smoothing=0.2)
    torch.manual_seed(config.seed)
    model = ViViT(config.model)
    matrices = [p for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith("token")]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.5, momentum=0.8)
    clips = [MovingDigits("train", 8)[i] for i in range(8)]
    video, label = torch.stack([video for video, _ in clips]), torch.tensor([label for _, label in clips])
    for rate in (0.5, 0.25):
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = torch.nn.functional.cross_entropy(model(video), label, label_smoothing=0.2)
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05) > 0.05
        optimizer.step()
        optimizer.zero_grad()
    trained = train(config, tmp_path).model
    for (name, a), b in zip(trained.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=name)


def test_a_tracker_that_is_not_there(tmp_path):
    warned = pytest.warns(UserWarning, match="no supported trackers")
    with warned, pytest.raises(ImportError, match="tracker 'comet_ml' is not installed"):
        train(small(tracker="comet_ml"), tmp_path)


def test_averaged_weights_are_what_is_tested_and_returned(tmp_path):
    config = small(ema=0.9, steps=3, eval_every=3, warmup_steps=0, lr=0.05)
    trained = train(config, tmp_path)
    checkpoint = last(tmp_path)
    for name, parameter in trained.model.named_parameters():
        assert torch.equal(parameter, checkpoint["average"][name])
    assert not torch.equal(checkpoint["average"]["head.weight"], checkpoint["model"]["head.weight"])
    # The head starts at zero, and so does its average: after the first step it has 9/10 of the new weights, and so on.
    assert checkpoint["average"]["head.weight"].abs().max() < checkpoint["model"]["head.weight"].abs().max()


def test_layers_below_learn_more_slowly(tmp_path):
    config = small(layer_decay=0.5, steps=2, warmup_steps=0, opt="momentum")
    groups = last_groups(train, config, tmp_path)
    assert len({group["lr_scale"] for group in groups}) > 2
    for group in groups:
        assert group["lr"] == pytest.approx(config.lr * 0.5 * group["lr_scale"])  # the second of two steps of a cosine


def last_groups(train, config, folder):
    train(config, folder)
    groups = {}
    for group in last(folder)["optimizer"]["param_groups"]:
        groups[group["lr_scale"]] = group
    return list(groups.values())


def test_training_stops_at_the_accuracy_asked_for(tmp_path):
    """At the first evaluation that reaches it; a second call trains no further, and its model is the same."""
    whole = small(steps=12, lr=2e-2, warmup_steps=0)
    train(whole, tmp_path / "whole")
    lines = metrics(tmp_path / "whole")
    goal = sorted({line["accuracy"] for line in lines})[1]
    first = next(line["step"] for line in lines if line["accuracy"] >= goal)
    assert first < 12
    config = dataclasses.replace(whole, stop_accuracy=goal)
    stopped = train(config, tmp_path / "stopped")
    assert metrics(tmp_path / "stopped") == [line for line in lines if line["step"] <= first]
    assert stopped.clips == first * whole.batch_size
    again = train(config, tmp_path / "stopped")
    assert again.clips == stopped.clips
    assert metrics(tmp_path / "stopped")[-1]["step"] == first
    for a, b in zip(stopped.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_training_stops_at_the_accuracy_of_one_head(tmp_path):
    heads = small(
        model=BASE.model.replace(dim=24, depth=1, num_classes={"number": 10, "order": 6}),
        data=DataConfig(train="numbered_digits", test_clips=64),
        eval_clips=64,
    )
    config = dataclasses.replace(heads, stop_accuracy=1 / 64, stop_head="order")
    assert train(config, tmp_path).clips == 2 * config.batch_size
    (line,) = metrics(tmp_path)
    assert line["accuracy_order"] >= 1 / 64
    assert line["accuracy"] <= min(line["accuracy_order"], line["accuracy_number"])


def test_checkpoints_kept_are_the_last_and_the_best(tmp_path):
    train(small(keep=2), tmp_path)
    assert [file.name for file in Checkpoints(tmp_path / "checkpoints").files()] == ["00000004.pt", "00000006.pt"]
    best = torch.load(tmp_path / "checkpoints" / "best.pt", weights_only=True)
    accuracies = {line["step"]: line["accuracy"] for line in metrics(tmp_path)}
    assert best["best"] == accuracies[best["step"]] == max(accuracies.values())


def test_another_configuration_needs_another_folder(tmp_path):
    train(small(), tmp_path)
    with pytest.raises(ValueError, match=r"another configuration \(it differs in lr, model\.depth, model\.drop\)"):
        train(small(lr=0.5, model=BASE.model.replace(dim=24, depth=2)), tmp_path)
    train(small(keep=3), tmp_path)  # changes no result


def test_a_start_from_other_weights_is_reported(tmp_path):
    train(small(steps=2), tmp_path / "first").model.save_pretrained(tmp_path / "model")
    start = Start(source=str(tmp_path / "model"))
    config = small(start=start, steps=2, lr=1e-12)
    train(config, tmp_path / "second")
    weights = [last(tmp_path / name)["model"]["tubelet_embed.proj.weight"] for name in ("first", "second")]
    torch.testing.assert_close(*weights)
    assert "tubelet_embed.proj.weight" in (tmp_path / "second" / "start.txt").read_text()
    with pytest.raises(ValueError, match="temporal 'none' is unknown; choose from zero_out"):
        Start(temporal="none")


def test_activations_recomputed_change_nothing(tmp_path):
    plain, checkpointed = (
        train(small(grad_checkpointing=on, model=BASE.model.replace(dim=24, depth=1)), tmp_path / str(on)).model
        for on in (False, True)
    )
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_trackers_are_told_what_the_metrics_are(tmp_path, monkeypatch):
    from accelerate.tracking import GeneralTracker

    told = []

    class Tracker(GeneralTracker):
        name, requires_logging_directory, tracker = "told", False, None

        def store_init_configuration(self, values):
            told.append(values)

        def log(self, values, step):
            told.append({"step": step} | values)

    class Accelerator(train_module.Accelerator):
        def __init__(self, log_with, **kwargs):
            super().__init__(log_with=Tracker() if log_with == "told" else log_with, **kwargs)

    monkeypatch.setattr(train_module, "Accelerator", Accelerator)
    train(small(tracker="told", steps=4), tmp_path)
    assert told[0]["lr"] == small().lr
    assert told[0]["model.dim"] == small().model.dim
    assert {type(value) for value in told[0].values()} <= {bool, int, float, str}
    assert told[1:] == read_metrics(tmp_path / "metrics.jsonl")


@pytest.mark.ecosystem
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
def test_tensorboard_gets_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small(tracker="tensorboard", steps=4, eval_every=2), tmp_path / "run")
    (folder,) = {file.parent for file in (tmp_path / "run" / "run").glob("events.*")}
    events = EventAccumulator(str(folder)).Reload()
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    for name in ("loss", "accuracy", "lr"):
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx({line["step"]: line[name] for line in metrics})


@pytest.mark.ecosystem
@pytest.mark.filterwarnings("ignore")  # wandb's own
def test_wandb_writes_into_the_folder_of_the_run_and_resumes_it(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second resumes a run that is finished
        train(small(tracker="wandb", steps=2, eval_every=2), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    ids = {folder.name.rpartition("-run-")[2] for folder in (tmp_path / "run" / "wandb").glob("offline-run-*")}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps 0 is not positive"),
        ({"ema": 1.0}, r"ema 1.0 is not in \[0, 1\)"),
        ({"layer_decay": 1.5}, "layer_decay 1.5 is not in"),
        ({"batch_size": 6, "accumulate": 4}, "batch_size 6 is not divisible by accumulate 4"),
        ({"mixup": -0.1}, "mixup -0.1 is negative"),
        ({"mixup": 0.2, "data": DataConfig(policy="mask")}, "mixup and CutMix mix clips whose masks differ"),
        ({"cutmix": -0.1}, "cutmix -0.1 is negative"),
        ({"cutmix": 1.0, "data": DataConfig(policy="mask")}, "mixup and CutMix mix clips whose masks differ"),
        ({"sampling": "even"}, "sampling 'even' is unknown; choose from shuffled, balanced"),
        ({"aug_repeats": 0}, "aug_repeats 0 is not positive"),
        ({"aug_repeats": 2}, "would repeat equal clips: moving_digits is not augmented; use moving_digits:videos"),
        (
            {"aug_repeats": 3, "accumulate": 2, "batch_size": 8, "data": DataConfig(train="moving_digits:videos")},
            "batch_size 8 is not divisible by accumulate 2 times aug_repeats 3",
        ),
        ({"class_weights": (1.0, 2.0)}, "class_weights has 2 weights, but there are 5 classes"),
        ({"class_weights": "even"}, "class_weights 'even' must be 'balanced' or a list of weights"),
        ({"class_weights": (1.0, -2.0, 1, 1, 1)}, "that are not negative and not all 0"),
        (
            {"class_weights": (1.0, 2.0), "model": tiny_config(num_classes={"noun": 2, "verb": 2})},
            "class_weights are a list, but the model has the heads noun, verb; use 'balanced'",
        ),
        ({"stop_accuracy": 90}, r"stop_accuracy 90 is not in \(0, 1\]"),
        ({"stop_accuracy": 0.9, "stop_head": "verb"}, "stop_head 'verb' is unknown; the model has one unnamed head"),
    ],
)
def test_bad_runs(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"model": tiny_config()} | changes))


OTHER = {"train": "list.csv", "held_out": 0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"label_smoothing": 0.1},
            "label_smoothing 0.1 cannot be used with data.task 'regression': it smooths",
        ),
        ({"cutmix": 1.0}, "cutmix 1.0 cannot be used with data.task 'regression': it mixes labels by an area"),
        ({"class_weights": "balanced"}, "it weights classes; leave it at None"),
        ({"sampling": "balanced"}, "it balances classes; leave it at 'shuffled'"),
        ({"stop_accuracy": 0.5}, "stop_accuracy 0.5 cannot be used with data.task 'regression'"),
        (
            {"data": DataConfig(**OTHER, task="multi_label"), "stop_accuracy": 0.5},
            "with data.task 'multi_label': it is",
        ),
        (
            {"data": DataConfig(**OTHER, task="multi_label"), "model": tiny_config(num_classes={"noun": 2, "verb": 2})},
            "several heads, noun, verb, have one label each; data.task must be 'single_label'",
        ),
    ],
)
def test_what_a_task_cannot_have(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"model": tiny_config(), "data": DataConfig(**OTHER, task="regression")} | changes))
    several = {"cutmix": 1.0, "mixup": 0.1, "class_weights": "balanced", "sampling": "balanced", "label_smoothing": 0.1}
    TrainConfig(model=tiny_config(), data=DataConfig(**OTHER, task="multi_label"), **several)
    TrainConfig(model=tiny_config(), data=DataConfig(**OTHER, task="regression"), mixup=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_clips": 0}, "test_clips 0 is not positive"),
        ({"train": "kinetics"}, "train 'kinetics' needs videos to test on"),
        ({"test": "here"}, "moving_digits has its own test clips"),
        ({"max_broken": 5}, "max_broken 5 is a share"),
        ({"views": (4,)}, r"views \(4,\) must be two numbers"),
    ],
)
def test_bad_data(changes, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**changes)


def test_data_that_the_model_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="num_classes is 5, the data set has 6"):
        train(small(model=BASE.model.replace(num_classes=5)), tmp_path / "a")
    with pytest.raises(ValueError, match="moving_digits has"):
        train(small(model=BASE.model.replace(num_frames=8)), tmp_path / "b")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_device():
    with pytest.raises(ValueError, match="device 'cuda' is not available here"):
        TrainConfig(model=tiny_config(), device="cuda")


def test_a_whole_configuration_survives_json():
    config = small(start=Start(source="x"), data=DataConfig(views=(2, 3)))
    assert json.loads(config.to_json())["data"]["views"] == [2, 3]
    names = {f.name for f in dataclasses.fields(config)} - set(config.free)
    assert {name.split(".")[0] for name in config.identity()} == names
    assert "data.views" in config.identity()
    assert "data.max_broken" not in config.identity()
