"""Cells of studies: which configuration they have, and what their results say."""

import dataclasses
import json
from functools import partial
from types import SimpleNamespace

import torch
from torch import nn

from vivit_zoo.datasets import DataConfig, MovingDigits
from vivit_zoo.evaluation.evaluate import swap_halves
from vivit_zoo.studies import cells as cells_module
from vivit_zoo.studies.measures import ClipsToReach
from vivit_zoo.studies.study import (
    BASE,
    Cell,
    Setting,
    run_cell,
)
from vivit_zoo.training.checkpoint import flatten, read_metrics
from vivit_zoo.training.loop import Trained

SMALL = dataclasses.replace(
    BASE.change_model(dim=24, depth=1, temporal_depth=1),
    steps=4,
    batch_size=4,
    eval_every=2,
    data=DataConfig(test_clips=12),
    eval_clips=8,
    device="cpu",
)


def test_a_cell_is_its_configuration(tmp_path):
    """A changed one has another folder; the same under another name, in another study, shares it."""
    cell = Cell(Setting("joint (Model 1)", SMALL), 0, tmp_path)
    others = [
        dataclasses.replace(cell, seed=1),
        dataclasses.replace(cell, setting=Setting("joint (Model 1)", SMALL.change_model(depth=2))),
        dataclasses.replace(cell, setting=Setting("joint (Model 1)", dataclasses.replace(SMALL, lr=1e-4))),
        *(
            dataclasses.replace(cell, setting=Setting("joint (Model 1)", SMALL, encoder=encoder))
            for encoder in (Broken, MeanOfTokens, partial(MeanOfTokens, power=2), partial(MeanOfTokens, power=3))
        ),
    ]
    assert cell.folder.name.startswith("joint-")
    assert len({c.folder for c in [cell, *others]}) == 8
    assert dataclasses.replace(cell, setting=Setting("base", SMALL, ceiling=0.5)).folder == cell.folder


def test_a_finished_cell_is_used_after_options_were_added(tmp_path):
    """Also one with an own encoder, unless its source has changed; the new options must have their defaults."""
    for encoder in (None, MeanOfTokens):
        cell = Cell(Setting("joint", SMALL, encoder=encoder), 0, tmp_path)
        config = json.loads(cell.train.to_json())
        del config["mixup"], config["data"]["difficulty"], config["model"]["temporal_per_place"]
        earlier = cell.folder.with_name(cell._name(flatten(config, SMALL.free), cells_module._source(encoder)))
        assert earlier != cell.folder
        earlier.mkdir()
        for damaged in ("", "null", "[1]", '{"model": null}'):  # in the folder of any other cell
            (earlier / "result.json").write_text("{}")
            (earlier / "config.json").write_text(damaged)
            assert dataclasses.replace(cell).folder == cell.folder
        (earlier / "result.json").unlink()
        (earlier / "config.json").write_text(json.dumps(config))
        assert dataclasses.replace(cell).folder == cell.folder  # nothing was done there
        (earlier / "result.json").write_text("{}")
        assert dataclasses.replace(cell).folder == earlier
        others = [
            dataclasses.replace(cell, seed=1),
            dataclasses.replace(cell, setting=Setting("joint", dataclasses.replace(SMALL, mixup=0.1), encoder=encoder)),
            dataclasses.replace(cell, setting=Setting("joint", SMALL.change_model(depth=2), encoder=encoder)),
            dataclasses.replace(cell, setting=Setting("joint", SMALL, encoder=partial(MeanOfTokens, power=2))),
        ]
        assert earlier not in {other.folder for other in others}


class Broken(nn.Module):
    """Built without complaint, fails in the first step."""

    def __init__(self, dim):
        super().__init__()

    def forward(self, x):
        raise RuntimeError("broken on purpose")


class MeanOfTokens(nn.Module):
    """Somebody's own encoder."""

    def __init__(self, dim, power=1):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x):
        return self.linear(x).mean((1, 2))


def test_a_result_tells_each_head_the_controls_and_the_seconds_of_all_cores(tmp_path, monkeypatch):
    def scores(value, **heads):
        return SimpleNamespace(accuracy=lambda labels=None: value, heads=heads, labels=torch.arange(6))

    def swapped_accuracy(labels):
        assert labels.tolist() == [MovingDigits.reversed_label(label) for label in range(6)]
        return 0.875

    found = {
        None: scores(0.5, **{"": scores(0.5), "verb": scores(0.75)}),
        "shuffled": scores(0.25),
        swap_halves: SimpleNamespace(accuracy=swapped_accuracy),
    }
    cell = Cell(Setting("one", SMALL), 0, tmp_path)

    def train(config, folder, encoder, bar):
        folder.mkdir()
        paces = ({"loader_clips_per_second": pace, "model_clips_per_second": 2 * pace} for pace in (1, 3))
        lines = ({"accuracy": 0.5} | pace for pace in paces)
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        data = SimpleNamespace(classes=MovingDigits.orders)
        return Trained(
            cell.setting.build(), torch.device("cpu"), data, lambda change=None: found[change], 40, 8.0, None
        )

    threads, kept = [], []
    monkeypatch.setattr(cells_module, "train", train)
    monkeypatch.setattr(cells_module, "keep_freed_memory", lambda: kept.append(1))
    monkeypatch.setattr(cells_module, "shuffle_frames", lambda: "shuffled")
    # A quarter of the time the process waits for its three cores, which another process uses.
    clock = SimpleNamespace(
        perf_counter=iter((0.0, 6.0, 7.0, 8.0)).__next__, process_time=iter((1.0, 1.0 + 3 * 6.0)).__next__
    )
    monkeypatch.setattr(cells_module, "time", clock)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    run_cell(cell, threads=3)
    assert (threads, kept) == ([3], [1])
    expected = {
        "accuracy": 0.5,
        "shuffled_accuracy": 0.25,
        "reversed_when_swapped": 0.875,
        "head_accuracy": {"verb": 0.75},
        "loader_clips_per_second": 1.5,  # the harmonic mean, as each line is of as many clips
        "model_clips_per_second": 3.0,
        "core_seconds": 3 * 0.75 * (40 / 8.0 + 7.0 - 6.0),
    }
    assert {name: cell.result[name] for name in expected} == expected


def test_a_result_of_clips_to_reach_says_when_and_whether(tmp_path):
    easy, hard = (
        Setting(f"{share}", ClipsToReach(accuracy=share).configure(dataclasses.replace(SMALL, eval_every=1)))
        for share in (1 / 12, 1.0)
    )
    for setting, reached in ((easy, True), (hard, False)):
        cell = Cell(setting, 0, tmp_path)
        run_cell(cell, threads=1)
        looks = read_metrics(cell.folder / "metrics.jsonl")
        assert cell.result["reached"] is reached
        assert (looks[-1]["step"] < SMALL.steps) is reached
        assert cell.result["clips"] <= looks[-1]["step"] * SMALL.batch_size
        assert "rise" in cell.result
    assert cell.result["clips"] == SMALL.steps * SMALL.batch_size
    assert f"100% not reached after 16 clips, {cell.result['core_seconds']:.0f} core seconds" in cell.summary
