"""Ablation studies: settings times seeds make cells; each is trained in its own folder; together they make the table.

A cell's folder has config.json, metrics.jsonl, checkpoints and, when it is finished, result.json, or error.txt if it
failed. A second run skips finished cells and resumes the others.
"""

import dataclasses
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from vivit_zoo import plots
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.datasets.config import AS_VIDEOS, EMBEDDED
from vivit_zoo.studies import pictures
from vivit_zoo.studies.cells import BASE, TRAINED, UNTIL_LEARNED, Cell, Setting, check_setting, run_cell
from vivit_zoo.studies.comparisons import Design, Row, compare, write_results
from vivit_zoo.studies.launch import hold, run_locally, visible_gpus
from vivit_zoo.studies.measures import Accuracy, Measure
from vivit_zoo.studies.slurm import Slurm, run_on_slurm
from vivit_zoo.studies.statistics import ALPHA, LEAST_SEEDS
from vivit_zoo.studies.tables import note, study_table
from vivit_zoo.system.pipes import exit_if_pipe_closes
from vivit_zoo.system.program import error_text, plain_warnings
from vivit_zoo.training.checkpoint import read_metrics, write_whole
from vivit_zoo.training.config import TrainConfig
from vivit_zoo.training.help import STUDY_HELP
from vivit_zoo.training.options import make_parser

__all__ = [
    "BASE",
    "TRAINED",
    "UNTIL_LEARNED",
    "Cell",
    "Setting",
    "add_seeds",
    "plan_study",
    "report",
    "rows_of",
    "run_cell",
    "run_from_command_line",
    "run_study",
]


def plan_study(
    settings: Sequence[Setting],
    seeds: Iterable[int],
    out: Path,
    shared: Path | None = None,
    measure: Measure | None = None,
) -> list[Cell]:
    """The cells of every setting with every seed, seed by seed, so that a stopped study has whole tables.

    Args:
        settings: the rows. Each is built once before anything runs, so that a wrong one fails at once.
        seeds: of the cells.
        out: folder of the study; created if missing.
        shared: folder for the cells that other studies may use too; by default cells/ in the study's own.
        measure: of the study, which configures the runs; by default `Accuracy`.

    Raises:
        ValueError: if a setting cannot be built or does not fit its data, if two are the same or have the same name,
            or if there are no seeds.
        OSError: if `out` cannot be written.
    """
    measure = measure or Accuracy()
    settings = [dataclasses.replace(setting, train=measure.configure(setting.train)) for setting in settings]
    for setting in settings:
        check_setting(setting)
    cells = [Cell(setting, seed, shared or out / "cells") for seed in seeds for setting in settings]
    if not cells:
        raise ValueError("a study needs at least one setting and one seed")
    names = ", ".join(setting.name for setting in settings)
    if len({setting.name for setting in settings}) < len(settings):
        raise ValueError(f"settings share a name: {names}")
    if len({cell.folder for cell in cells}) < len(cells):
        raise ValueError(f"settings are the same in all but their names: {names}")
    out.mkdir(parents=True, exist_ok=True)
    return cells


def run_study(
    settings: Sequence[Setting],
    seeds: Iterable[int],
    out: Path,
    jobs: int | None = None,
    shared: Path | None = None,
    measure: Measure | None = None,
) -> list[Cell]:
    """Run every setting with every seed on this machine, as `run_locally` does, and return the cells.

    Args:
        settings: as for `plan_study`, which documents the errors too.
        seeds: of the cells.
        out: folder of the study.
        jobs: number of cells that run at the same time; by default one for each GPU, or else one for each core.
        shared: folder for the cells, see `plan_study`.
        measure: of the study, see `plan_study`.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs {jobs} is not positive")
    cells = plan_study(settings, seeds, out, shared, measure)
    _run_here(cells, jobs)
    return cells


def _run_here(cells: Sequence[Cell], jobs: int | None) -> None:
    on_cpu = all(cell.train.device == "cpu" for cell in cells)
    # Seed by seed, so that a stopped study has whole tables; cheap cells first, so that there is soon a result to see.
    order = sorted(cells, key=lambda cell: (cell.seed, cell.cost))
    run_locally(order, jobs, [] if on_cpu else visible_gpus())


def add_seeds(
    plan: Callable[[Sequence[Setting], Iterable[int]], list[Cell]],
    run: Callable[[list[Cell]], None],
    settings: Sequence[Setting],
    design: Design,
    max_seeds: int,
) -> list[Cell]:
    """Run a study with more and more seeds, until the difference of each setting from the first is decided.

    All settings start with `LEAST_SEEDS` seeds. Then each round adds a seed to the first setting and to those whose
    difference is neither away from zero nor equal within the margin, by intervals that hold whenever a study stops.
    Settings that cannot reach what is measured, such as controls, are not compared and keep their first seeds. So do
    settings of which no run reached it, if none of the first setting did: more such runs would say as little.

    Args:
        plan: makes the cells of some settings and seeds, like `plan_study`.
        run: runs cells.
        settings: the rows; the first is what the others are compared with.
        design: sequential, with the error divided among the comparisons.
        max_seeds: at which the study stops.

    Returns:
        The cells of the settings and seeds that were needed, seed by seed.

    Raises:
        ValueError: if there is nothing to compare or `max_seeds` is too small.
    """
    if len(settings) < 2:
        raise ValueError("seeds 'auto' needs two settings or more, since it decides on their differences")
    if max_seeds < LEAST_SEEDS:
        raise ValueError(f"max_seeds {max_seeds} is less than {LEAST_SEEDS}, with which every study starts")
    cells = plan(settings, range(LEAST_SEEDS))
    run(cells)
    for seed in range(LEAST_SEEDS, max_seeds):
        first, *others = rows_of(cells)
        compared = {row.name: compare(row, first, design) for row in others if not row.state}
        undecided = {name for name, one in compared.items() if one is None or not one.decision.decided}
        undecided -= {cell.setting.name for cell in cells if not cell.done}  # failed, and would fail again
        undecided -= {row.name for row in others if design.measure.out_of_reach(row.ceiling)}
        if len(first.censored(design.measure)) == len(first.results):
            undecided -= {row.name for row in others if len(row.censored(design.measure)) == len(row.results)}
        if not undecided or not all(cell.done for cell in cells if cell.setting.name == first.name):
            break
        more = plan([settings[0], *(one for one in settings if one.name in undecided)], [seed])
        run(more)
        cells += more
    return cells


def rows_of(cells: Sequence[Cell]) -> list[Row]:
    """The cells by setting, with the results that there are."""
    rows = []
    for setting in {cell.setting.name: cell.setting for cell in cells}.values():
        own = [cell for cell in cells if cell.setting.name == setting.name]
        state = "failed" if any(cell.error_file.exists() for cell in own) else "unfinished"
        results = {cell.seed: cell.result | {"cell": cell.folder.name} for cell in own if cell.result}
        rows.append(Row(setting.name, results, setting.ceiling, "" if results else state))
    return rows


@plain_warnings()
@exit_if_pipe_closes()
def run_from_command_line(
    question: str,
    base: TrainConfig,
    settings: Callable[[TrainConfig], list[Setting]],
    out: str,
    finish: Callable[[list[Cell], Path], None] | None = None,
    measure: Measure | None = None,
) -> int:
    """The command line of an experiment: run its study, print and write the table, draw the pictures.

    Args:
        question: the experiment's docstring, shown by --help.
        base: the defaults; every field can be overridden on the command line, such as --steps 100 --model.depth 2.
        settings: makes the rows from the base.
        out: default folder of the study.
        finish: called with the finished cells and the folder, after the report.
        measure: what the study compares; by default the accuracy after all steps.

    Returns:
        The exit code: that of `report`, or 2 if a setting cannot be built or nothing can be launched.
    """
    measure = measure or Accuracy()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no cell outlives its study
    parser = make_parser(question, base, skip=("seed", "model.variant"), short_help=STUDY_HELP)
    parser.add_argument(
        "--seeds",
        type=int | Literal["auto"],
        default=1,
        help="number of seeds, 0, 1, ...; or auto: add seeds until each difference from the first row is decided",
    )
    parser.add_argument("--max-seeds", type=int, default=30, help="at which --seeds auto stops")
    parser.add_argument(
        "--margin",
        type=float | None,
        default=None,
        help=f"within which two rows count as equal: {measure.margin_help}",
    )
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the study")
    parser.add_argument(
        "--cells", type=Path | None, default=None, help="folder for cells that studies share; by default in --out"
    )
    parser.add_argument(
        "--jobs",
        type=int | None,
        default=None,
        help="cells that run at the same time and share the cores; default: one for each GPU, else one for each core",
    )
    parser.add_argument(
        "--launcher",
        choices=["local", "slurm", "submitit-local"],
        default="local",
        help="local: processes here; slurm: a job for each cell; submitit-local: such jobs here, all at once",
    )
    parser.add_argument("--no-wait", action="store_true", help="submit, report the results that there are and return")
    parser.add_class_arguments(Slurm, "slurm")
    options = parser.parse_args()
    try:
        given = vars(parser.instantiate(options))
        seeds, max_seeds, margin = (given.pop(name) for name in ("seeds", "max_seeds", "margin"))
        out_dir, shared, jobs = (given.pop(name) for name in ("out", "cells", "jobs"))
        launcher, no_wait, slurm = (given.pop(name) for name in ("launcher", "no_wait", "slurm"))
        rows = settings(TrainConfig(**given).change_model(variant=base.model.variant))  # which is no option
        design = Design(measure, None if margin is None else measure.read_margin(margin))
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs {jobs} is not positive")
        if seeds == "auto" and no_wait:
            raise ValueError("seeds 'auto' has to wait for results; leave out --no-wait, or give a number of seeds")
        plan = partial(plan_study, out=out_dir, shared=shared, measure=measure)
        cluster: Literal["slurm", "local"] = "slurm" if launcher == "slurm" else "local"

        def run(cells: list[Cell]) -> None:
            if launcher == "local":
                _run_here(cells, jobs)
            else:
                run_on_slurm(cells, out_dir, slurm, not no_wait, cluster)

        if seeds == "auto":
            compared = sum(not measure.out_of_reach(row.ceiling) for row in rows) - 1
            design = dataclasses.replace(design, sequential=True, alpha=ALPHA / max(1, compared))
            cells = add_seeds(plan, run, rows, design, max_seeds)
        else:
            cells = plan(rows, range(seeds))
            run(cells)
    except (ImportError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error_text(error)}", file=sys.stderr)
        return 2
    with hold(out_dir, wait=True):  # another call may report on the same folder
        code = report(cells, out_dir, design)
        if finish:
            finish([cell for cell in cells if cell.done], out_dir)
        return code


def report(cells: Sequence[Cell], out: Path, design: Design | None = None) -> int:
    """Print the table; write it with the results and pictures; name the cells that failed and their error files.

    Returns:
        0 if all cells are finished, 1 if some failed, 3 if none failed and some still wait or run.
    """
    design = design or Design()
    finished = [cell for cell in cells if cell.done]
    failed = [cell for cell in cells if not cell.done and cell.error_file.exists()]
    rows = rows_of(cells)
    text = study_table(rows, design)
    print(text)
    if finished:
        about = note(rows, design)
        write_whole(out / "table.md", lambda file: file.write_text(f"{text}\n\n{about}\n", encoding="utf-8"))
        write_whole(out / "results.json", lambda file: write_results(rows, design, file))
        _draw(finished, design, out)
        print(f"{about}\n\nwritten to {out}: table.md, results.json and pictures")
    for cell in cells:
        if cell in failed:
            print(f"FAILED {cell.setting.name}, seed {cell.seed}: {cell.error_file}{_why(cell)}", file=sys.stderr)
        elif cell not in finished:
            print(f"UNFINISHED {cell.setting.name}, seed {cell.seed}: {cell.folder}", file=sys.stderr)
    return 1 if failed else 0 if len(finished) == len(cells) else 3


def _why(cell: Cell) -> str:
    """The end of error.txt: the error's last line and, if the cell has one, its log."""
    lines = [line for line in cell.error_file.read_text(encoding="utf-8").splitlines() if line.strip()]
    count = 2 if lines and lines[-1].startswith("log: ") else 1
    return "".join(f"; {line}" for line in lines[-count:])


def _draw(finished: Sequence[Cell], design: Design, out: Path) -> None:
    rows = rows_of(finished)
    pictures.draw_results(rows, design, out)
    curves: dict[str, list[list[dict[str, float]]]] = {}
    for cell in finished:
        curves.setdefault(cell.setting.name, []).append(read_metrics(cell.folder / "metrics.jsonl"))
    pictures.curves(curves, out / "curves.png")
    data = finished[0].train.data
    if data.embedded:
        clips = EMBEDDED[data.train.removesuffix(AS_VIDEOS)](difficulty=data.difficulty)
        if isinstance(clips.classes, dict):  # NumberedDigits, which look the same
            clips = MovingDigits()
        plots.clips(clips, list(clips.classes), out / "clips.png")
