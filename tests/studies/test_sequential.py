"""Studies that add seeds until each difference is decided."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest

from tests.studies.test_cells import SMALL
from vivit_zoo.studies.comparisons import Design
from vivit_zoo.studies.measures import Accuracy, ClipsToReach
from vivit_zoo.studies.statistics import ALPHA
from vivit_zoo.studies.study import (
    Setting,
    add_seeds,
    plan_study,
    run_study,
)


def sequential(tmp_path, accuracies, max_seeds=30, fail=(), measure=None, ceilings=None):
    """Run `add_seeds` on cells that are not trained: the accuracy of a setting by seed; returns the seeds of each."""
    settings = [
        Setting(name, dataclasses.replace(SMALL, lr=0.1 / (i + 1)), (ceilings or {}).get(name))
        for i, name in enumerate(accuracies)
    ]
    rounds = []

    def run(cells):
        rounds.append([(cell.setting.name, cell.seed) for cell in cells])
        for cell in cells:
            cell.folder.mkdir(parents=True, exist_ok=True)
            if (cell.setting.name, cell.seed) in fail:
                cell.error_file.write_text("broken")
            else:
                accuracy = accuracies[cell.setting.name](cell.seed)
                result = {
                    "accuracy": accuracy,
                    "head_accuracy": {},
                    "clips": 10_000 * accuracy,
                    "reached": accuracy < 1,
                }
                (cell.folder / "result.json").write_text(json.dumps(result))

    design = Design(measure or Accuracy(), sequential=True, alpha=ALPHA / (len(settings) - 1))
    cells = add_seeds(partial(plan_study, out=tmp_path), run, settings, design, max_seeds)
    assert [(cell.setting.name, cell.seed) for cell in cells] == [cell for one in rounds for cell in one]
    return {name: [cell.seed for cell in cells if cell.setting.name == name] for name in accuracies}


def noise(seed, salt):
    return np.random.default_rng([seed, salt]).normal(0, 0.02)


def test_seeds_are_added_until_each_difference_is_decided(tmp_path):
    seeds = sequential(
        tmp_path,
        {
            "first": lambda seed: 0.8 + noise(seed, 0),
            "far": lambda seed: 0.3 + noise(seed, 1),
            "near": lambda seed: 0.75 + noise(seed, 2),
            "equal": lambda seed: 0.8 + noise(seed, 3),
        },
    )
    far, near, equal = (len(seeds[name]) for name in ("far", "near", "equal"))
    assert 3 <= far < min(near, equal)
    assert far <= 5
    assert len(seeds["first"]) == max(near, equal) < 30
    assert all(one == list(range(len(one))) for one in seeds.values())


def test_undecided_studies_stop_at_the_most_seeds_and_failed_rows_get_no_more(tmp_path):
    accuracies = {"first": lambda seed: seed % 2, "open": lambda seed: seed // 2 % 2, "broken": lambda seed: 0.5}
    seeds = sequential(tmp_path, accuracies, max_seeds=6, fail=[("broken", 1)])
    assert {name: len(one) for name, one in seeds.items()} == {"first": 6, "open": 6, "broken": 3}
    with pytest.raises(ValueError, match="seeds 'auto' needs two settings or more"):
        add_seeds(plan_study, run_study, [Setting("alone", SMALL)], Design(), 30)
    with pytest.raises(ValueError, match="max_seeds 2 is less than 3"):
        add_seeds(plan_study, run_study, [Setting(name, SMALL) for name in "ab"], Design(), 2)


def test_settings_that_cannot_get_there_are_not_compared_and_get_no_more_seeds(tmp_path):
    accuracies = {
        "first": lambda seed: 0.5,
        "open": lambda seed: 0.4 + 0.2 * (seed % 2),
        "control": lambda seed: 0.4 + 0.2 * (seed // 2 % 2),
    }
    seeds = sequential(tmp_path, accuracies, 6, measure=ClipsToReach(), ceilings={"control": 0.5})
    assert {name: len(one) for name, one in seeds.items()} == {"first": 6, "open": 6, "control": 3}
    seeds = sequential(tmp_path / "in reach", accuracies, 6, measure=ClipsToReach(), ceilings={"control": 0.95})
    assert len(seeds["control"]) == 6


def test_settings_of_which_no_run_gets_there_get_no_more_seeds_if_the_first_does_not_either(tmp_path):
    accuracies = {"first": lambda _: 1.0, "open": lambda seed: 0.1 + 0.8 * (seed % 2), "never": lambda _: 1.0}
    seeds = sequential(tmp_path, accuracies, 6, measure=ClipsToReach())
    assert {name: len(one) for name, one in seeds.items()} == {"first": 6, "open": 6, "never": 3}
    accuracies["first"] = lambda seed: 1.0 if seed else 0.99  # got there once
    seeds = sequential(tmp_path / "once", accuracies, 6, measure=ClipsToReach())
    assert len(seeds["never"]) == 6
