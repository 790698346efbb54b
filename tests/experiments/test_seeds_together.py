"""Several seeds trained as one program: the weights of single runs, and a table."""

import dataclasses
import importlib

import pytest
import torch

from tests.conftest import VARIANTS
from tests.experiments.test_experiments import EXPERIMENTS


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("seeds_together")


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_seed_has_the_weights_of_a_run_of_its_own(script, variant):
    config = dataclasses.replace(
        script.TRAINED.model, variant=variant, dim=24, depth=1, temporal_depth=1, num_frames=4, image_size=16
    )
    single, start = (script.models_of(config, 3, torch.device("cpu")) for _ in range(2))
    one_by_one, (at_once, parameters) = script.alone(single), script.together(start)
    for seed in range(3):
        torch.manual_seed(seed)
        clips, labels = torch.rand(3, 4, *config.input_shape) * 2 - 1, torch.randint(config.num_classes, (3, 4))
        one_by_one(clips, labels)
        at_once(clips, labels)
    changed = 0.0
    for name, stacked in parameters.items():
        runs = torch.stack([model.get_parameter(name) for model in single])
        torch.testing.assert_close(stacked, runs, rtol=1e-3, atol=2e-5, msg=name)
        before = torch.stack([model.get_parameter(name) for model in start])
        changed = max(changed, (runs - before).abs().max().item())
    assert changed > 100 * 2e-5


def test_table(script, monkeypatch, tmp_path, capsys):
    sizes = ["--variants", "joint", "--seeds", "1", "2", "--batch", "2", "--dim", "24", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", ["seeds_together.py", *sizes, "--out", str(tmp_path)])
    script.main()
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    header, _, *rows = (line.split("|")[1:-1] for line in text.splitlines()[:4])
    assert [name.strip() for name in header[:2]] == ["variant", "seeds"]
    assert header[-1].strip() == "together, times as fast"
    assert [row[1].strip() for row in rows] == ["1", "2"]
