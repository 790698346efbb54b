"""Probes of frozen features as a study: probes times seeds -> a table with intervals."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from vivit_zoo.evaluation.probe import FrozenFeatures, ProbeConfig, fit_probe
from vivit_zoo.studies import pictures
from vivit_zoo.studies.comparisons import Design, Row, write_results
from vivit_zoo.studies.tables import note, study_table
from vivit_zoo.system.machine import describe_machine
from vivit_zoo.training.checkpoint import write_whole

__all__ = ["probe_from_command_line", "probe_rows", "report_probes"]

Features = Mapping[str, tuple[FrozenFeatures, FrozenFeatures]]
"""Name of the features -> those of the training clips and of the test clips."""


def probe_rows(
    features: Callable[[int], Features],
    probes: Sequence[str],
    seeds: Sequence[int],
    num_classes: int,
    config: ProbeConfig | None = None,
    device: torch.device | str = "cpu",
    ceilings: Mapping[str, float] | None = None,
) -> list[Row]:
    """Fit every probe to every kind of features with every seed.

    Args:
        features: the features for a seed, by name; "" for the only ones. They are computed once a seed.
        probes: names from `vivit_zoo.evaluation.probe.PROBES`.
        seeds: of the fits.
        num_classes: number of classes.
        config: how probes are fitted.
        device: that fits them.
        ceilings: name of a row -> the accuracy that cannot be passed by construction.

    Returns:
        A row for each kind of features and probe, with results by seed.
    """
    config = config or ProbeConfig()
    rows: dict[str, Row] = {}
    for seed in seeds:
        found = features(seed)
        pairs = [(kind, probe) for kind in found for probe in probes]
        for kind, probe in tqdm(pairs, desc=f"probes, seed {seed}", leave=False, disable=None):
            name = f"{kind}, {probe}" if kind else probe
            started = time.process_time()
            fitted = fit_probe(probe, *found[kind], num_classes, config, seed, device)
            row = rows.setdefault(name, Row(name, {}, (ceilings or {}).get(name)))
            row.results[seed] = {
                **fitted,
                "head_accuracy": {},
                "config": asdict(config),
                "core_seconds": time.process_time() - started,
                "machine": describe_machine(torch.device(device)),
                "cell": f"{name}, seed {seed}",
            }
    return list(rows.values())


def report_probes(rows: Sequence[Row], out: Path) -> str:
    """Write table.md, results.json and pictures into a folder, and return the table."""
    out.mkdir(parents=True, exist_ok=True)
    design = Design()
    text = f"{study_table(rows, design, pace=False)}\n\n{note(rows, design)}"
    write_whole(out / "table.md", lambda file: file.write_text(f"{text}\n", encoding="utf-8"))
    write_whole(out / "results.json", lambda file: write_results(rows, design, file))
    pictures.measured(rows, design.measure, out / "points.png")
    if len(rows) > 1:
        pictures.forest(rows, design, out / "forest.png")
    return text


def probe_from_command_line(question: str, rows: Callable[[Sequence[int]], list[Row]], out: str) -> int:
    """The command line of an experiment with probes: --seeds and --out; prints and writes the table.

    Args:
        question: the experiment's docstring, shown by --help.
        rows: makes the rows from the seeds.
        out: default folder of the results.
    """
    parser = argparse.ArgumentParser(
        description=question, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, 0, 1, ... (1)")
    parser.add_argument("--out", type=Path, default=Path(out), help=f"folder of the results ({out})")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"seeds {options.seeds} is not positive")
    print(report_probes(rows(range(options.seeds)), options.out))
    print(f"\nwritten to {options.out}: table.md, results.json and pictures")
    return 0
