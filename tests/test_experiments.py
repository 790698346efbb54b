"""The experiments run from end to end, on sets far too small to learn from."""

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from vivit_zoo import ViViT
from vivit_zoo.ablation import run_cell
from vivit_zoo.cells import Cell
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.preprocess import normalise
from vivit_zoo.speed import Case, Speed

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def experiment(monkeypatch, tmp_path):
    """An experiment's module by name; what it keeps between calls goes to a folder of the test's."""
    monkeypatch.syspath_prepend(EXPERIMENTS)

    def load(name):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "CACHE", tmp_path)
        return module

    return load


@pytest.fixture
def benchmark(monkeypatch):
    """`experiments/benchmark.py`."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("benchmark")


def shrink(base, **changes):
    return dataclasses.replace(
        base.change_model(dim=24, depth=1, temporal_depth=1),
        **({"steps": 2, "batch_size": 4, "eval_every": 1, "eval_clips": 4, "device": "cpu", "workers": 0} | changes),
    )


def test_the_same_clips_come_from_memory_and_from_each_layout_of_files(experiment, tmp_path, capsys):
    from_disk = experiment("from_disk")
    data = dataclasses.replace(from_disk.FROM_DISK.data, train_clips=24, test_clips=12)
    base = shrink(from_disk.FROM_DISK, data=data)
    settings = from_disk.settings(base)
    assert "digits-24-12: 36 clips in" in capsys.readouterr().out
    assert from_disk.settings(base) == settings
    assert "clips in" not in capsys.readouterr().out  # rendered once

    memory, *files = [setting.train.data.build(base.model.input_shape) for setting in settings]
    for split in ("train", "test"):
        drawn = [(video, memory.classes[label]) for video, label in getattr(memory, split)]
        for one in files:
            for video, label in getattr(one, split):
                differences = [(normalise(video.squeeze()) - other.squeeze()).abs().mean() for other, _ in drawn]
                assert min(differences) < 0.02
                assert drawn[torch.stack(differences).argmin()][1] == one.classes[label]

    assert [setting.name for setting in settings] == ["memory", "list file", "folder by class", "WebDataset shards"]
    for setting in settings:
        cell = Cell(setting, 0, tmp_path)
        run_cell(cell, threads=1)
        assert cell.result["loader_clips_per_second"] > 0
        assert cell.result["model_clips_per_second"] >= cell.result["clips_per_second"] * 0.99


def test_an_image_start_begins_where_the_image_model_ended(experiment, monkeypatch, tmp_path, capsys):
    image_start = experiment("image_start")
    monkeypatch.setattr(image_start, "PRETRAINING", image_start.PRETRAINING | {"images": 64, "warmup_steps": 0})
    settings = image_start.settings(shrink(image_start.IMAGE_START))
    folder = Path(settings[1].train.start.source)
    weights = folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert image_start.settings(shrink(image_start.IMAGE_START)) == settings
    assert weights.stat().st_mtime_ns == before  # trained once
    assert "that knows" in capsys.readouterr().out

    config = settings[1].train.model.replace(num_frames=1, tubelet_size=(1, *settings[1].train.model.tubelet_size[1:]))
    frame = ViViT(config).eval()
    assert not settings[1].train.start.init(frame).notes  # such as of another activation
    vit = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    image = torch.stack([image for image, _ in image_start.StillDigits("test", 3)])
    assert torch.allclose(frame.forward_features(image[:, :, None]), vit(image), atol=1e-5)


def test_a_still_digit_is_a_moving_one_that_stands_nearly_upright(experiment):
    still, moving = experiment("image_start").StillDigits("test", 40), MovingDigits("test", 40)
    for index in range(40):
        drawn, like = still._draw(index), moving._draw(index)
        assert all(np.array_equal(drawn[name], like[name]) for name in ("digit", "size", "place"))
        assert (abs(drawn["angle"]) < 0.32).all()
        assert drawn["label"] == moving.numbers[like["digit"]]
    image, number = still[3]
    assert image.shape == (1, 32, 32)
    assert number == still._draw(3)["label"]


def test_each_part_of_the_benchmark_has_cases_with_candidates(benchmark):
    def of(*variants, side, **what):
        return benchmark.models("B/16x2", side, "cpu", *variants, **what)

    plans = {name: part(of, 224) for name, part in benchmark.PARTS.items()}
    for plan in plans.values():
        assert all(len({one.name for one in models}) == len(models) >= 2 for _, models in plan)
    assert {case.dtype for case, _ in plans["inference"]} == {"float32", "bfloat16"}
    assert [case.shape[2] for case, _ in plans["frames"]] == [8, 16, 32, 64, 128]
    assert [case.shape[3] for case, _ in plans["sides"]] == [128, 160, 224, 288, 384]
    assert all("joint, checkpointing" in {one.name for one in models} for _, models in plans["training"])
    assert {case.shape[0] for case, _ in plans["gpu"]} == {1, 4, 16, 64}


def test_growth_is_the_exponent_over_tokens(benchmark):
    cases = {t: Case(shape=(1, 3, t, 32, 32)) for t in (64, 8, 32)}
    speeds = [
        Speed(candidate="one", compile=False, case=case, seconds=(0.5 * t**2,), peak_bytes=7 * t)
        for t, case in cases.items()
    ]
    failed = Speed(candidate="two", compile=False, case=cases[8], failure="OOM")
    assert benchmark.growth([*speeds, failed]).splitlines()[2:] == ["| one | 2.00 | 1.00 |"]


def test_kernels_are_forms_of_the_same_function(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    kernels = importlib.import_module("kernels")
    monkeypatch.setattr(kernels, "TOKENS", 196)  # the grid of four frames has as many
    with torch.inference_mode():
        for name, (x, forms, exact) in kernels.groups(torch.float32).items():
            first, *others = (form(x) for form in forms.values())
            for form, out in zip([*forms][1:], others, strict=True):
                if out.shape == first.shape and "another function" not in form and "without" not in form:
                    torch.testing.assert_close(out, first, rtol=1e-4, atol=1e-4, msg=f"{name}: {form}")
            if exact:
                torch.testing.assert_close(first.double(), exact(x.double()), rtol=1e-4, atol=1e-4)
