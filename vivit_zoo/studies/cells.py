"""One cell of a study: a setting with a seed, trained, tested and measured in its own folder."""

import dataclasses
import hashlib
import inspect
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import torch
from torch import nn

from vivit_zoo.config import ViViTConfig
from vivit_zoo.datasets import DataConfig, MovingDigits
from vivit_zoo.evaluation.evaluate import shuffle_frames, swap_halves
from vivit_zoo.flops import count_macs, count_params
from vivit_zoo.model import ViViT
from vivit_zoo.studies.measures import clips_to_reach, rise
from vivit_zoo.system.machine import describe_machine, keep_freed_memory
from vivit_zoo.training.checkpoint import flatten, read_metrics, write_whole
from vivit_zoo.training.config import TrainConfig
from vivit_zoo.training.freeze import freeze
from vivit_zoo.training.loop import train

__all__ = ["BASE", "TRAINED", "UNTIL_LEARNED", "Cell", "Setting", "check_setting", "run_cell"]

# The base of studies: a model that learns MovingDigits in about half a minute on one core. Positions are sine-cosine.
# Learned positions start small (0.02, as in the original) compared with the tokens (1). The joint model, which has to
# learn time and space in one table, then stays at the bag's ceiling for many steps before it learns the order.
BASE = TrainConfig(
    model=ViViTConfig(
        num_classes=len(MovingDigits.orders),
        num_frames=MovingDigits.num_frames,
        image_size=MovingDigits.side,
        tubelet_size=(2, 8, 8),
        in_chans=1,
        dim=72,
        depth=3,
        num_heads=4,
        mlp_ratio=2.0,
        temporal_depth=2,
        global_pool="avg",
        pos_embed="sincos_3d",
    ),
    data=DataConfig(test_clips=500, views=(1, 1)),
    steps=150,
    batch_size=32,
    lr=2e-3,
    warmup_steps=20,
)
# The base of studies that compare trained models: steps in which every variant learns all of MovingDigits.
TRAINED = dataclasses.replace(BASE, steps=300)
# The base of studies that measure `ClipsToReach`: a schedule in which every variant learns MovingDigits, with
# evaluations that are close enough to interpolate between two of them.
UNTIL_LEARNED = dataclasses.replace(BASE, steps=600, eval_every=10, eval_clips=200)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of a study.

    Args:
        name: of the row.
        train: the configuration; the study sets its seed.
        ceiling: the accuracy that cannot be passed by construction, in [0, 1]; None if there is no such bound below 1.
        encoder: your own encoder class instead of the variant's, as for `ViViT`, or a `functools.partial` of one. It
            must be importable by other processes.
    """

    name: str
    train: TrainConfig
    ceiling: float | None = None
    encoder: Callable[..., nn.Module] | None = None

    def build(self) -> ViViT:
        """The untrained model."""
        return ViViT(self.train.model, self.encoder)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting with one seed, in its own folder.

    The folder is named after the whole configuration, not after the setting. So a changed setting never uses the
    results of another, and studies that keep their cells in one place share the cells that they have in common. A cell
    from an earlier version of this library, whose configuration lacks options that now have their defaults, is used.

    Args:
        setting: to run.
        seed: of the run.
        cells: the folder that holds the cell's own.
    """

    setting: Setting
    seed: int
    cells: Path

    @property
    def train(self) -> TrainConfig:
        """The configuration to run."""
        return dataclasses.replace(self.setting.train, seed=self.seed)

    @cached_property  # pickled with the cell: in a job, the source of an encoder in the experiment's file is not there
    def folder(self) -> Path:
        """The cell's folder."""
        identity, source = self.train.identity(), _source(self.setting.encoder)
        folder = self.cells / self._name(identity, source)
        if not folder.exists():
            for older in sorted(self.cells.glob(f"{self.train.model.variant}-*-seed{self.seed}")):
                with suppress(OSError, TypeError, ValueError):  # damaged
                    config = dict(json.loads((older / "config.json").read_text(encoding="utf-8")))
                    started = (older / "result.json").exists() or any(older.glob("checkpoints/*.pt"))
                    # The name says what the encoder's source was.
                    same_source = older.name == self._name(flatten(config, self.train.free), source)
                    if started and same_source and self.train.identify(config) == identity:
                        return older
        return folder

    def _name(self, identity: dict[str, Any], source: str) -> str:
        digest = hashlib.sha256((json.dumps(identity) + source).encode()).hexdigest()[:12]
        return f"{self.train.model.variant}-{digest}-seed{self.seed}"

    @property
    def error_file(self) -> Path:
        """A file that says why the cell failed, if it did."""
        return self.folder / "error.txt"

    @property
    def result(self) -> dict[str, Any] | None:
        """The result that `run_cell` wrote; None if there is none yet."""
        try:
            return json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):  # truncated, such as by a full disk: it is run again
            return None

    @property
    def done(self) -> bool:
        """Whether there is a result."""
        return self.result is not None

    @property
    def cost(self) -> float:
        """Roughly the seconds that it takes, from the parameters, tokens and clips, and some for the start."""
        with torch.device("meta"):
            params = count_params(self.setting.build())
        operations = 6 * params * math.prod(self.train.model.grid) * self.train.steps * self.train.batch_size
        return 5 + operations / 1e10

    @property
    def summary(self) -> str:
        """One line with the setting, the seed and the accuracy, or why there is none."""
        name = f"{self.setting.name}, seed {self.seed}"
        if result := self.result:
            found = f"accuracy {result['accuracy']:.1%}"
            if "clips" in result:
                reached = "reached" if result["reached"] else "not reached"
                found = f"{self.train.stop_accuracy:.0%} {reached} after {result['clips']:,.0f} clips"
            return f"{name}: {found}, {result['core_seconds']:.0f} core seconds"
        return f"{name}: {f'failed, see {self.error_file}' if self.error_file.exists() else 'not finished here'}"

    def run(self, threads: int, bar: int = 0) -> None:
        """Run the cell, see `run_cell`."""
        run_cell(self, threads, bar)


def _source(encoder: Callable[..., nn.Module] | None) -> str:
    """The source of an own encoder with its arguments, which identifies it."""
    if isinstance(encoder, partial):
        return _source(encoder.func) + repr((encoder.args, encoder.keywords))
    if encoder is None:
        return ""
    try:
        return inspect.getsource(encoder)
    except (OSError, TypeError) as error:  # TypeError: of a class in a module without a file
        name = getattr(encoder, "__qualname__", repr(encoder))
        raise ValueError(
            f"the encoder {name} has no source file, such as one that is defined in a notebook; the processes of a "
            "study could not import it. Write it to a .py file and import it from there"
        ) from error


def run_cell(cell: Cell, threads: int, bar: int = 0) -> None:
    """Train and test a cell, also with the controls, and write result.json.

    Args:
        cell: to run, or to resume.
        threads: of torch.
        bar: line of the terminal for the progress bar.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    config, began, used = cell.train, time.perf_counter(), time.process_time()
    trained = train(config, cell.folder, cell.setting.encoder, bar=bar)
    started = time.perf_counter()
    plain, shuffled = trained.test(), trained.test(shuffle_frames())
    looks = read_metrics(cell.folder / "metrics.jsonl")
    result: dict[str, Any] = {
        "accuracy": plain.accuracy(),
        "head_accuracy": {head: scores.accuracy() for head, scores in plain.heads.items() if head},
        "shuffled_accuracy": shuffled.accuracy(),
        "params": count_params(trained.model),
        "trained_params": sum(one.numel() for one in trained.model.parameters() if one.requires_grad),
        "macs": count_macs(cell.setting.build, (1, *config.model.input_shape)),
        "clips_per_second": trained.clips_per_second,
        "rise": rise(looks),
        **_paces(looks),
        "peak_bytes": trained.peak_bytes,
        "machine": describe_machine(trained.device),
    }
    if config.stop_accuracy is not None:
        clips = clips_to_reach(looks, config.stop_accuracy, config.batch_size, config.stop_head)
        result |= {"clips": clips or trained.clips, "reached": clips is not None}
    if tuple(trained.data.classes) == MovingDigits.orders:  # which are pairs with an order
        reverse = torch.tensor([MovingDigits.reversed_label(label) for label in plain.labels.tolist()])
        result["reversed_when_swapped"] = trained.test(swap_halves).accuracy(reverse)
    seconds = trained.clips / trained.clips_per_second + time.perf_counter() - started
    # On a busy machine a run waits for its cores, which are then used by others: only the share that it used counts.
    cores = (time.process_time() - used) / (time.perf_counter() - began) if trained.device.type == "cpu" else 1
    result["core_seconds"] = seconds * cores
    write_whole(
        cell.folder / "result.json", lambda file: file.write_text(json.dumps(result, indent=2), encoding="utf-8")
    )


def _paces(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Clips per second of loading and of the model alone, over a run; its metrics have one line per so many clips."""
    names = ("loader_clips_per_second", "model_clips_per_second")
    return {name: harmonic_mean([line[name] for line in metrics]) for name in names}


def check_setting(setting: Setting) -> None:
    """Build a setting on the meta device, and check that it fits its data.

    Raises:
        ValueError: if it cannot be built or does not fit its data.
    """
    config = setting.train
    if config.data.task != "single_label":
        raise ValueError(
            f"{setting.name}: studies compare accuracies, which data.task {config.data.task!r} does not have"
        )
    try:
        with torch.device("meta"):
            freeze(setting.build(), config.only)
        config.data.build(config.model.input_shape).check_classes(config.model.num_classes)
    except ValueError as error:
        raise ValueError(f"{setting.name}: {error}") from error
