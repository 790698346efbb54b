"""The experiments run from end to end, on sets far too small to learn from."""

import dataclasses
import importlib
import inspect
import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch.nn.attention.flex_attention import flex_attention

from vivit_zoo import ViViT, ViViTConfig
from vivit_zoo.bench import measure
from vivit_zoo.bench.report import Case, Speed, read, write
from vivit_zoo.datasets import DataConfig, MovingDigits, NumberedDigits
from vivit_zoo.studies.cells import Cell
from vivit_zoo.studies.study import plan_study, run_cell
from vivit_zoo.video.preprocess import normalise

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def experiment(monkeypatch, tmp_path):
    """An experiment's module by name; what it keeps between calls goes to a folder of the test's.

    Each test imports them anew: names that one takes from another while a test replaces them would stay.
    """
    monkeypatch.syspath_prepend(EXPERIMENTS)
    for path in EXPERIMENTS.glob("*.py"):
        monkeypatch.setitem(sys.modules, path.stem, None)
        del sys.modules[path.stem]

    def load(name):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "CACHE", tmp_path, raising=False)
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


def test_an_image_start_begins_where_the_image_model_ended(experiment, monkeypatch, capsys):
    still_digits, image_start = experiment("still_digits"), experiment("image_start")
    monkeypatch.setattr(still_digits, "PRETRAINING", still_digits.PRETRAINING | {"images": 64, "warmup_steps": 0})
    settings = image_start.settings(shrink(image_start.NUMBERED))
    folder = Path(settings[1].train.start.source)
    weights = folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert image_start.settings(shrink(image_start.NUMBERED)) == settings
    assert weights.stat().st_mtime_ns == before  # trained once
    assert "knows of the test split's digits number " in capsys.readouterr().out

    model = ViViT(settings[1].train.model.replace(num_frames=1, tubelet_size=(1, 8, 8))).eval()
    assert not settings[1].train.start.init(model).notes  # such as of another activation
    vit = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    image = torch.stack([image for image, _ in still_digits.StillDigits("test", 3)])
    frame = model.encoder.spatial(model.tubelet_embed(image[:, :, None]))
    assert torch.allclose(frame[:, 0], vit(image), atol=1e-5)


def test_a_still_digit_is_a_moving_one_that_stands(experiment):
    still, moving = experiment("still_digits").StillDigits("test", 40), NumberedDigits("test", 40)
    for index in range(40):
        drawn, like = still._draw(index), moving._draw(index)
        assert all(np.array_equal(drawn[name], like[name]) for name in ("digit", "size", "place", "angle"))
        label = still[index][1]
        assert label["number"] == moving[index][1]["number"]
        x, y = like["place"][0]
        assert label["column"] <= x / 4 < label["column"] + 1
        assert label["row"] <= y / 4 < label["row"] + 1
    assert still[3][0].shape == (1, 32, 32)


STUDIES = sorted(path.stem for path in EXPERIMENTS.glob("*.py") if "def settings(" in path.read_text())


@pytest.mark.parametrize("name", STUDIES)
def test_study_can_be_planned(experiment, monkeypatch, tmp_path, name):
    """Every row builds and fits its data; the docstring asks a question and gives the command."""
    monkeypatch.setattr(experiment("still_digits"), "pretrained", lambda model: "runs/still-digits-0")
    monkeypatch.setattr(experiment("motions"), "pretrained", lambda shape: "runs/motions-0")
    sys.modules.pop(name, None)  # else it would have the real one
    module = experiment(name)
    last = re.search(
        r"run_from_command_line\(\s*__doc__, (\w+), settings, out=\"(.*?)\"[,)]", inspect.getsource(module)
    )
    assert last[2] == f"runs/{name}"
    assert module.__doc__.splitlines()[0].endswith("?")
    assert f"python experiments/{name}.py" in module.__doc__
    if name != "from_disk":  # whose files are rendered, and read, in a test of their own
        base = getattr(module, last[1])
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, train_clips=100))
        assert len(plan_study(module.settings(base), range(2), tmp_path)) >= 4


def test_frozen_models_are_probed_for_the_order(experiment, monkeypatch, capsys):
    motions, frozen_order = experiment("motions"), experiment("frozen_order")
    monkeypatch.setattr(motions, "TRAINING", motions.TRAINING | {"steps": 2, "batch_size": 4, "warmup_steps": 0})
    monkeypatch.setattr(motions, "TEST_CLIPS", 8)
    monkeypatch.setattr(frozen_order, "CLIPS", {"train": 24, "test": 12})
    found = frozen_order.features(seed=0)
    assert "names the motions of" in capsys.readouterr().out
    for train, test in found.values():
        assert train.tokens.shape == (24, 8, 1, 72)
        assert test.labels.tolist() == [label for _, label in MovingDigits("test", 12)]
    # A tubelet apart has the features that it has alone, whatever the others show.
    model = ViViT.from_pretrained(motions.pretrained("VideoPrism", 0))
    clip = MovingDigits("test", 1)[0][0][None]
    changed = clip.clone()
    changed[:, :, 4:] = 0
    with torch.no_grad():
        one, other = (model.forward_intermediates(x, [2], norm=True)[1][0].mean((2, 3)) for x in (clip, changed))
    torch.testing.assert_close(one[0, 0], found["VideoPrism, spatial half"][1].tokens[0, 0, 0], atol=1e-5, rtol=1e-4)
    assert torch.equal(one[:, :2], other[:, :2])
    rows = frozen_order.probe_rows(lambda seed: found, ["linear", "knn"], [0], 6)
    assert len(rows) == 8


def test_pairs_of_motions_have_no_order(experiment):
    pairs = experiment("motions").MotionPairs("train", 60)
    ordered = MovingDigits("train", 60)
    for index in range(60):
        motions = set(ordered.classes[ordered[index][1]].split(" then "))
        assert set(pairs.classes[pairs[index][1]].split(" and ")) == motions
        assert torch.equal(ordered[index][0], pairs[index][0])


@pytest.mark.slow
def test_attention_is_measured_where_the_digit_is(experiment, tmp_path, monkeypatch, capsys):
    attention = experiment("attention")
    monkeypatch.setattr(attention, "CLIPS", 6)
    settings = attention.settings(shrink(attention.BASE, data=DataConfig(test_clips=8)))
    cells = [Cell(setting, seed, tmp_path) for seed in (0, 1) for setting in settings]
    for cell in cells:
        run_cell(cell, threads=1)
    attention.draw(cells[:4], tmp_path)
    assert "interval over clips, one seed" in (tmp_path / "preference.md").read_text()
    attention.draw(cells, tmp_path)
    text = (tmp_path / "preference.md").read_text()
    assert text in capsys.readouterr().out
    assert "standard deviation over seeds" in text
    assert [line.split(" | ")[0].strip("| ") for line in text.splitlines()[2:6]] == [one.name for one in settings]
    assert (tmp_path / "sheet.png").stat().st_size > 5000


def test_preference_is_share_over_area(experiment):
    attention = experiment("attention")
    model = ViViT(attention.BASE.model)
    video = torch.full((2, 1, 16, 32, 32), -1.0)
    video[0, :, 2:4, :8, 8:24] = 1.0  # two tubelets of 128
    video[1, :, 4, 8:16, 8:12] = 1.0  # a quarter of one
    cover = attention.covered(video, model)
    assert cover[0].nonzero().tolist() == [[1, 1], [1, 2]]
    assert cover[1].nonzero().tolist() == [[2, 5]]
    assert cover[1, 2, 5] == 0.25
    shares = torch.full((2, 8, 16), 1 / 128)
    torch.testing.assert_close(attention.preference(shares, cover), torch.ones(2))
    torch.testing.assert_close(attention.preference(2 * cover, cover), torch.tensor([64.0, 128.0]))


def test_each_part_of_the_benchmark_has_cases_with_candidates(benchmark):
    plans = {name: part(partial(benchmark.case_of, "B/16x2", "cpu"), 224) for name, part in benchmark.PARTS.items()}
    for plan in plans.values():
        assert all(len({one.name for one in models}) == len(models) >= 2 for _, models in plan)
    assert {case.dtype for case, _ in plans["inference"]} == {"float32", "bfloat16"}
    assert [case.shape[2] for case, _ in plans["frames"]] == [8, 16, 32, 64, 128]
    assert [case.shape[3] for case, _ in plans["sides"]] == [128, 160, 224, 288, 384]
    assert all("joint, checkpointing" in {one.name for one in models} for _, models in plans["training"])
    batches = {name: {case.shape[0] for case, _ in plan} for name, plan in plans.items() if name.startswith("gpu")}
    assert batches == {
        "gpu_inference": {1, 4, 8, 32},
        "gpu_training": {1, 4, 8, 32},
        "gpu_compiled": {1, 8},
        "gpu_long": {1},
    }
    assert {one.compile for _, models in plans["gpu_compiled"] for one in models} == {False, True, "reduce-overhead"}
    assert max(case.shape[2] for case, _ in plans["gpu_long"]) == 128


def test_numbers_of_another_device_do_not_replace_those_of_the_page(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "campaign", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("sys.argv", ["benchmark.py", "gpu_long", "--device", "cpu"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "benchmarks/gpu_long is for numbers of cuda: say --out" in capsys.readouterr().err


@pytest.mark.slow
def test_the_parts_for_gpus_run_to_their_end(benchmark, monkeypatch, tmp_path):
    """On a CPU, with tiny models and without a compiler."""
    sizes = {"tubelet_size": (2, 8, 8), "dim": 24, "depth": 1, "temporal_depth": 1, "num_heads": 2, "num_classes": 3}
    monkeypatch.setattr(benchmark, "named_config", lambda _, **changes: ViViTConfig(**sizes | changes))
    monkeypatch.setattr(measure, "_MEASURED_SECONDS", 1e-4)
    monkeypatch.setattr(measure, "_first_step_in_new_process", lambda *_: {"peak_bytes": 1, "seconds": 0.0})
    monkeypatch.setattr(measure, "PeakMemory", lambda _: SimpleNamespace(peak_bytes=lambda: 1))  # it collects garbage
    monkeypatch.setattr(measure, "_free_memory", lambda: None)  # likewise
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    for part in (name for name in benchmark.PARTS if name.startswith("gpu")):
        options = ["--device", "cpu", "--side", "16", "--repeats", "1", "--out", str(tmp_path / part)]
        monkeypatch.setattr("sys.argv", ["benchmark.py", part, *options])
        assert benchmark.main() == 0
        speeds, _ = read(tmp_path / part / "speeds.json")
        assert all(speed.seconds and not speed.failure for speed in speeds)
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    assert benchmark.aims().count("joint, batches of 8: times as fast as transformers sdpa") == 2


def test_aims_for_gpus_are_about_the_batch_of_the_aims(benchmark, monkeypatch, tmp_path):
    def speed(name, batch, seconds, peak):
        case = Case(shape=(batch, 3, 32, 32, 32), dtype="bfloat16", train=True)
        numbers = {"seconds": (seconds,), "matmul": (100.0,), "flops": 70, "peak_bytes": peak}
        return Speed(candidate=name, compile=False, case=case, **numbers)

    names = [*benchmark.ENCODERS, "transformers sdpa"]
    speeds = [speed(name, batch, 16.0 if "sdpa" in name else batch, 9) for name in names for batch in (8, 1)]
    (tmp_path / "gpu_training").mkdir()
    write(speeds, {}, tmp_path / "gpu_training/speeds.json")
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    rows = benchmark.aims().splitlines()[2:]
    assert rows[0] == "| joint, batches of 8: times as fast as transformers sdpa | `gpu_training` | ≥ 1.5 | 2 | met |"
    assert "| ≤ 0.5 | 1 | **not met** |" in rows[1]
    assert ["| ≥ 0.6 | 0.0875 | **not met** |" in row for row in rows[2:]] == [True] * 3


def test_growth_is_the_exponent_over_tokens(benchmark):
    """Of time over all sizes, 1.43 of these; of memory between the two largest, as small ones share a floor."""
    cases = {t: Case(shape=(1, 3, t, 32, 32)) for t in (64, 8, 32)}
    speeds = [
        Speed(candidate="one", compile=False, case=cases[t], seconds=(seconds,), peak_bytes=7 * max(t, 32))
        for t, seconds in {64: 16.0, 8: 1.0, 32: 16.0}.items()
    ]
    failed = Speed(candidate="two", compile=False, case=cases[8], failure="OOM")
    alone = Speed(candidate="three", compile=False, case=cases[8], seconds=(1.0,), peak_bytes=7)
    assert benchmark.growth([*speeds, failed, alone]).splitlines()[2:] == ["| one | 1.43 | 1.00 |"]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_kernels_are_forms_of_the_same_function(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    kernels = importlib.import_module("kernels")
    monkeypatch.setattr(kernels, "TOKENS", 196)  # the grid of four frames has as many
    monkeypatch.setattr(kernels, "MODEL", {"name": "S/16x2", "num_frames": 4, "image_size": 32})
    monkeypatch.setattr(kernels, "compiled_flex_attention", flex_attention)  # a compiler need not be there
    with torch.inference_mode():
        for name, (x, forms, exact) in kernels.groups(torch.float32).items():
            first, *others = (form(x) for form in forms.values())
            for form, out in zip([*forms][1:], others, strict=True):
                if out.shape == first.shape and "another function" not in form and "without" not in form:
                    torch.testing.assert_close(out, first, rtol=1e-4, atol=1e-4, msg=f"{name}: {form}")
            if exact:
                torch.testing.assert_close(first.double(), exact(x.double()), rtol=1e-4, atol=1e-4)
