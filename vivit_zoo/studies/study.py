"""Ablation studies: settings times seeds make cells; each is trained in its own folder; they make the table.

A cell is a folder with config.json, metrics.jsonl, checkpoints and, once it is finished, result.json, or error.txt if
it failed. A second run skips what is finished and resumes what is not.
"""

import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vivit_zoo import plots
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.studies import pictures
from vivit_zoo.studies.cells import BASE, Cell, Setting, check_setting, run_cell
from vivit_zoo.studies.launch import hold, run_locally, visible_gpus
from vivit_zoo.studies.slurm import Slurm, run_on_slurm
from vivit_zoo.studies.tables import Row, note, study_table, write_rows
from vivit_zoo.training.checkpoint import read_metrics, write_whole
from vivit_zoo.training.help import STUDY_HELP
from vivit_zoo.training.loop import TrainConfig
from vivit_zoo.training.run import make_parser

__all__ = [
    "BASE",
    "Cell",
    "Setting",
    "plan_study",
    "report",
    "rows_of",
    "run_cell",
    "run_from_command_line",
    "run_study",
]


def plan_study(settings: Sequence[Setting], seeds: Iterable[int], out: Path, shared: Path | None = None) -> list[Cell]:
    """The cells of every setting under every seed, seed by seed, so that a stopped study has whole tables.

    Args:
        settings: the rows; each is built once before anything runs, so that a wrong one fails at once.
        seeds: of the cells.
        out: folder of the study; made if missing.
        shared: folder for the cells, which other studies may use too; by default cells/ in the study's own.

    Raises:
        ValueError: on a setting that cannot be built or does not fit its data, on two that are the same or have the
            same name, without seeds.
        OSError: if `out` cannot be written.
    """
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
    settings: Sequence[Setting], seeds: Iterable[int], out: Path, jobs: int | None = None, shared: Path | None = None
) -> list[Cell]:
    """Run every setting under every seed on this machine, as `run_locally` does, and return the cells.

    Args:
        settings: as for `plan_study`, which tells the errors too.
        seeds: of the cells.
        out: folder of the study.
        jobs: number of cells that run at the same time; by default one for each GPU, or else one for each core.
        shared: folder for the cells, see `plan_study`.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs {jobs} is not positive")
    cells = plan_study(settings, seeds, out, shared)
    on_cpu = all(cell.train.device == "cpu" for cell in cells)
    # Seed by seed, so that a stopped study has whole tables; cheap cells first, so that there is soon a result to see.
    order = sorted(cells, key=lambda cell: (cell.seed, cell.cost))
    run_locally(order, jobs, [] if on_cpu else visible_gpus())
    return cells


def rows_of(cells: Sequence[Cell]) -> list[Row]:
    """The cells by setting, with what is there of their results."""
    rows = []
    for setting in {cell.setting.name: cell.setting for cell in cells}.values():
        own = [cell for cell in cells if cell.setting.name == setting.name]
        state = "failed" if any(cell.error_file.exists() for cell in own) else "unfinished"
        results = {cell.seed: cell.result | {"cell": cell.folder.name} for cell in own if cell.result}
        rows.append(Row(setting.name, results, setting.ceiling, "" if results else state))
    return rows


def run_from_command_line(
    question: str,
    base: TrainConfig,
    settings: Callable[[TrainConfig], list[Setting]],
    out: str,
    finish: Callable[[list[Cell], Path], None] | None = None,
) -> int:
    """The command line of an experiment: run its study, print and write the table, draw the pictures.

    Args:
        question: the experiment's docstring, shown by --help.
        base: the defaults; every field can be overridden on the command line, such as --steps 100 --model.depth 2.
        settings: makes the rows from the base.
        out: default folder of the study.
        finish: what else to make of the finished cells and the folder, after the report.

    Returns:
        The exit code: that of `report`, or 2 if a setting cannot be built or nothing can be launched.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no cell outlives its study
    parser = make_parser(question, base, skip=("seed", "model.variant"), short_help=STUDY_HELP)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds: 0, 1, ...")
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
        help="local: processes here; slurm: a job a cell; submitit-local: such jobs here, all at once, to try them out",
    )
    parser.add_argument("--no-wait", action="store_true", help="submit, report what is there and return")
    parser.add_class_arguments(Slurm, "slurm")
    options = parser.parse_args()
    try:
        given = vars(parser.instantiate(options))
        seeds, out_dir, shared, jobs = (given.pop(name) for name in ("seeds", "out", "cells", "jobs"))
        launcher, no_wait, slurm = (given.pop(name) for name in ("launcher", "no_wait", "slurm"))
        rows = settings(TrainConfig(**given).change_model(variant=base.model.variant))  # which is no option
        if launcher == "local":
            cells = run_study(rows, range(seeds), out_dir, jobs, shared)
        else:
            cells = plan_study(rows, range(seeds), out_dir, shared)
            run_on_slurm(cells, out_dir, slurm, not no_wait, "slurm" if launcher == "slurm" else "local")
    except (ImportError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    with hold(out_dir, wait=True):  # another call may report on the same folder
        code = report(cells, out_dir)
        if finish:
            finish([cell for cell in cells if cell.done], out_dir)
        return code


def report(cells: Sequence[Cell], out: Path) -> int:
    """Print the table; write it and the results, with pictures; tell which cells failed, and where to look.

    Returns:
        0 if all cells are finished, 1 if some failed, 3 if none failed and some still wait or run.
    """
    finished = [cell for cell in cells if cell.done]
    failed = [cell for cell in cells if not cell.done and cell.error_file.exists()]
    rows = rows_of(cells)
    text = study_table(rows)
    print(text)
    if finished:
        about = note(rows)
        write_whole(out / "table.md", lambda file: file.write_text(f"{text}\n\n{about}\n"))
        write_whole(out / "results.json", lambda file: write_rows(rows, file))
        _draw(finished, out)
        print(f"{about}\n\nwritten to {out}: table.md, results.json and pictures")
    for cell in cells:
        if cell in failed:
            print(f"FAILED {cell.setting.name}, seed {cell.seed}: {cell.error_file}{_why(cell)}", file=sys.stderr)
        elif cell not in finished:
            print(f"UNFINISHED {cell.setting.name}, seed {cell.seed}: {cell.folder}", file=sys.stderr)
    return 1 if failed else 0 if len(finished) == len(cells) else 3


def _why(cell: Cell) -> str:
    """The end of error.txt: the error's last line and, if the cell has one, its log."""
    lines = [line for line in cell.error_file.read_text().splitlines() if line.strip()]
    count = 2 if lines and lines[-1].startswith("log: ") else 1
    return "".join(f"; {line}" for line in lines[-count:])


def _draw(finished: Sequence[Cell], out: Path) -> None:
    rows = rows_of(finished)
    pictures.accuracies(rows, out / "accuracies.png")
    pictures.accuracy_vs_gmacs(rows, out / "accuracy_vs_gmacs.png")
    curves: dict[str, list[list[dict[str, float]]]] = {}
    for cell in finished:
        curves.setdefault(cell.setting.name, []).append(read_metrics(cell.folder / "metrics.jsonl"))
    pictures.curves(curves, out / "curves.png")
    if finished[0].train.data.embedded:
        plots.clips(MovingDigits(), MovingDigits.orders, out / "clips.png")
