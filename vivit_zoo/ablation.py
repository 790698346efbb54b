"""Ablation studies: settings times seeds make cells; each is trained in its own folder; they make the table.

A cell is a folder with config.json, metrics.jsonl, checkpoint.pt and, once it is finished, result.json. A second run
skips what is finished and resumes what is not.
"""

import dataclasses
import hashlib
import inspect
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import re
import signal
import sys
import traceback
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from jsonargparse import ArgumentParser, DefaultHelpFormatter
from torch import nn
from tqdm import tqdm

from vivit_zoo import plots
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.evaluate import evaluate, shuffle_frames, swap_halves
from vivit_zoo.flops import count_macs, count_params
from vivit_zoo.model import ViViT, ViViTConfig
from vivit_zoo.train import DATASETS, TrainConfig, cpu_capabilities, read_metrics, train, write_whole

__all__ = ["BASE", "Cell", "Setting", "report", "run_from_command_line", "run_study", "table"]

# What studies start from: a model that learns MovingDigits in less than a minute on two cores. Positions are
# sine-cosine, because learned ones start small (0.02, as in the original) beside the tokens (1), which costs the joint
# model, the one that must find time and space in one table, many steps at the bag's ceiling before it sees the order.
BASE = TrainConfig(
    model=ViViTConfig(
        num_classes=len(MovingDigits.classes),
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
    data="moving_digits",
    steps=300,
    batch_size=32,
    lr=2e-3,
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of a study.

    Args:
        name: of the row.
        train: the configuration; the study sets its seed.
        ceiling: the accuracy that cannot be passed by design, in [0, 1]; None where there is no such bound below 1.
        encoder: an encoder class of your own in place of the variant's, as for `ViViT`; importable, so that other
            processes find it.
    """

    name: str
    train: TrainConfig
    ceiling: float | None = None
    encoder: type[nn.Module] | None = None

    def build(self) -> ViViT:
        """The untrained model."""
        return ViViT(self.train.model, self.encoder)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting under one seed, and its folder."""

    setting: Setting
    seed: int
    out: Path

    @property
    def train(self) -> TrainConfig:
        """The configuration to run."""
        return dataclasses.replace(self.setting.train, seed=self.seed)

    @property
    def folder(self) -> Path:
        """Named after the whole configuration, so that a changed one never meets the results of another."""
        slug = re.sub(r"\W+", "-", self.setting.name).strip("-").lower()
        encoder = inspect.getsource(self.setting.encoder) if self.setting.encoder else ""
        identity = dataclasses.replace(self.train, workers=0).to_json() + encoder  # workers change no clip
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return self.out / "cells" / f"{slug[:60]}-seed{self.seed}-{digest}"

    @property
    def error_file(self) -> Path:
        """Says why the cell failed, if it did."""
        return self.folder / "error.txt"

    @property
    def result(self) -> dict[str, Any] | None:
        """What `run_cell` wrote, or None before that."""
        try:
            return json.loads((self.folder / "result.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # cut short by a full disk, say: then it is done again
            return None


def run_cell(cell: Cell, threads: int, bar: int = 0) -> None:
    """Train a cell, test it, with the controls, and write result.json."""
    torch.set_num_threads(threads)
    config = cell.train
    trained = train(config, cell.folder, cell.setting.encoder, bar=bar)
    device, loader = trained.device, trained.test_loader
    plain = evaluate(trained.model, loader, device)
    shuffled = evaluate(trained.model, loader, device, change=shuffle_frames())
    swapped = evaluate(trained.model, loader, device, change=swap_halves)
    reverse = torch.tensor([DATASETS[config.data].reversed_label(label) for label in plain.labels.tolist()])
    result = {
        "accuracy": plain.accuracy(),
        "shuffled_accuracy": shuffled.accuracy(),
        "reversed_when_swapped": swapped.accuracy(reverse),
        "params": count_params(trained.model),
        "macs": count_macs(cell.setting.build, (1, *config.model.input_shape)),
        "clips_per_second": trained.clips_per_second,
        "peak_bytes": trained.peak_bytes,
        "machine": describe_machine(device),
    }
    write_whole(cell.folder / "result.json", lambda file: file.write_text(json.dumps(result, indent=2)))


def describe_machine(device: torch.device) -> str:
    """Device, Python and torch in one line, to stand beside numbers."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpu = cpu_capabilities().get("cpu_name", platform.machine())
        name = f"{cpu} CPU, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    return f"{name}, Python {platform.python_version()}, torch {torch.__version__}"


def run_study(settings: Sequence[Setting], seeds: Iterable[int], out: Path, jobs: int = 1) -> list[Cell]:
    """Run every setting under every seed, each cell in a process of its own, and return the cells.

    A cell that fails leaves error.txt in its folder and does not stop the others.

    Args:
        settings: the rows; each is built once before anything runs, so that a wrong one fails at once.
        seeds: of the cells; a study runs seed by seed, so that a stopped one has whole tables.
        out: folder of the study.
        jobs: cells at a time.

    Raises:
        ValueError: on a setting that cannot be built or does not fit its data, on two of one name, without seeds.
        OSError: if `out` cannot be written.
    """
    if jobs < 1:
        raise ValueError(f"jobs {jobs} is not positive")
    for setting in settings:
        _check_setting(setting)
    cells = [Cell(setting, seed, out) for seed in seeds for setting in settings]
    if not cells:
        raise ValueError("a study needs at least one setting and one seed")
    if len({cell.folder for cell in cells}) < len(cells):
        raise ValueError(f"settings share a name: {', '.join(setting.name for setting in settings)}")
    out.mkdir(parents=True, exist_ok=True)
    waiting = [cell for cell in cells if cell.result is None]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = _process_context()
    running: dict[int, tuple[Cell, BaseProcess]] = {}
    progress = tqdm(total=len(cells), initial=len(cells) - len(waiting), desc="cells", unit="cell", dynamic_ncols=True)
    try:
        while waiting or running:
            for slot in set(range(jobs)) - running.keys():
                if waiting:
                    cell = waiting.pop(0)
                    process = context.Process(target=_run_cell_logged, args=(cell, threads, slot + 1))
                    process.start()
                    running[slot] = cell, process
            multiprocessing.connection.wait([process.sentinel for _, process in running.values()])
            for slot, (cell, process) in list(running.items()):
                if process.exitcode is not None:
                    if process.exitcode < 0:  # by a signal, such as the system's when memory ran out: it left no word
                        cell.folder.mkdir(parents=True, exist_ok=True)
                        cell.error_file.write_text(f"killed by signal {-process.exitcode}\n")
                    del running[slot]
                    progress.update()
    except KeyboardInterrupt:
        for _, process in running.values():
            process.join(5)  # the terminal told them too; they need no more than this to leave
        print(f"\nstopped; the same command goes on from here ({out})", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        for _, process in running.values():
            process.kill()
        progress.close()
    return cells


def _check_setting(setting: Setting) -> None:
    config, dataset = setting.train.model, DATASETS[setting.train.data]
    with torch.device("meta"):
        setting.build()
    clip = tuple(dataset("train")[0][0].shape)
    if clip != config.input_shape:
        raise ValueError(f"{setting.name}: the model takes {config.input_shape}, {setting.train.data} has {clip}")
    classes = len(dataset.classes)
    if config.num_classes != classes:
        raise ValueError(f"{setting.name}: num_classes is {config.num_classes}, {setting.train.data} has {classes}")


def _run_cell_logged(cell: Cell, threads: int, bar: int) -> None:
    try:
        cell.folder.mkdir(parents=True, exist_ok=True)
        cell.error_file.unlink(missing_ok=True)
        run_cell(cell, threads, bar)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception:
        cell.error_file.write_text(traceback.format_exc())
        raise SystemExit(1) from None


def _process_context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    # The server imports torch once for all cells, and each cell's memory can be measured on its own.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vivit_zoo.ablation"])
    return context


def table(cells: Sequence[Cell]) -> str:
    """The study in Markdown, one row a setting; accuracies in percent, as mean ± standard deviation over seeds."""
    header = [
        "variant",
        "accuracy",
        "frames shuffled",
        "halves swapped: reversed",
        "ceiling",
        "params",
        "GMACs",
        "clips/s",
        "peak MB",
    ]
    rows = [_row(setting, results) for setting, results in _by_setting(cells)]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    rule = ["-" * widths[0], *["-" * (width - 1) + ":" for width in widths[1:]]]
    lines = [
        " | ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, rule, *rows]
    ]
    return "\n".join(f"| {line} |" for line in lines)


def _by_setting(cells: Sequence[Cell]) -> list[tuple[Setting, list[dict[str, Any]]]]:
    settings = {cell.setting.name: cell.setting for cell in cells}
    results = [(cell.setting.name, cell.result) for cell in cells]
    return [(settings[name], [r for n, r in results if n == name and r is not None]) for name in settings]


def _row(setting: Setting, results: list[dict[str, Any]]) -> list[str]:
    if not results:
        return [setting.name, "failed", *[""] * 7]

    def percent(key: str) -> str:
        values = [100 * result[key] for result in results]
        return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"

    peaks = [result["peak_bytes"] for result in results if result["peak_bytes"] is not None]
    return [
        setting.name,
        percent("accuracy"),
        percent("shuffled_accuracy"),
        percent("reversed_when_swapped"),
        "" if setting.ceiling is None else f"{100 * setting.ceiling:.1f}",
        f"{results[0]['params']:,}",
        f"{results[0]['macs'] / 1e9:.3g}",
        f"{mean(result['clips_per_second'] for result in results):.0f}",
        f"{max(peaks) / 1e6:.0f}" if peaks else "",
    ]


def run_from_command_line(
    question: str, base: TrainConfig, settings: Callable[[TrainConfig], list[Setting]], out: str
) -> int:
    """The command line of an experiment: run its study, print and write the table, draw the pictures.

    Args:
        question: the experiment's docstring, shown by --help.
        base: the defaults; every field can be overridden on the command line, such as --steps 100 --model.depth 2.
        settings: makes the rows from the base.
        out: default folder of the study.

    Returns:
        The exit code: 0, or 1 if cells failed, or 2 if a setting cannot be built.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no cell outlives its study
    parser = ArgumentParser(description=question, formatter_class=_HelpAsWritten, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds: 0, 1, ...")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the study")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, which share the cores")
    parser.add_class_arguments(TrainConfig, skip={"seed", "model.variant"})
    defaults = dataclasses.asdict(base)
    del defaults["seed"], defaults["model"]["variant"]
    parser.set_defaults(defaults)
    options = parser.parse_args()
    try:
        instantiated = vars(parser.instantiate(options))
        seeds, out_dir, jobs = (instantiated.pop(name) for name in ("seeds", "out", "jobs"))
        cells = run_study(settings(TrainConfig(**instantiated)), range(seeds), out_dir, jobs)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return report(cells, out_dir)


def report(cells: Sequence[Cell], out: Path) -> int:
    """Print the table; write it to table.md, with the pictures beside it; return 1 if cells failed, else 0."""
    failed = [cell for cell in cells if cell.result is None]
    finished = [cell for cell in cells if cell.result is not None]
    text = table(cells)
    print(text)
    if finished:
        machines = sorted({cell.result["machine"] for cell in finished if cell.result})
        seeds = len({cell.seed for cell in finished})
        spread = f"{seeds} seeds, mean ± standard deviation" if seeds > 1 else "one seed"
        note = f"Accuracies in percent; {spread}. {'; '.join(machines)}"
        write_whole(out / "table.md", lambda file: file.write_text(f"{text}\n\n{note}\n"))
        _draw(finished, out)
        print(f"{note}\n\nwritten to {out}: table.md, accuracy_vs_gmacs.png, curves.png, clips.png")
    for cell in failed:
        print(f"FAILED {cell.setting.name}, seed {cell.seed}: {cell.error_file}", file=sys.stderr)
    return 1 if failed else 0


def _draw(finished: Sequence[Cell], out: Path) -> None:
    costs = {
        setting.name: (results[0]["macs"], [result["accuracy"] for result in results])
        for setting, results in _by_setting(finished)
    }
    ceilings = {cell.setting.ceiling for cell in finished if cell.setting.ceiling is not None}
    plots.accuracy_vs_gmacs(costs, ceilings, out / "accuracy_vs_gmacs.png")
    curves: dict[str, list[list[dict[str, float]]]] = {}
    for cell in finished:
        curves.setdefault(cell.setting.name, []).append(read_metrics(cell.folder / "metrics.jsonl"))
    plots.curves(curves, out / "curves.png")
    dataset = DATASETS[finished[0].train.data]
    plots.clips(dataset("train"), dataset.classes, out / "clips.png")


class _HelpAsWritten(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of an experiment's docstring."""
