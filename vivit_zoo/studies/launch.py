"""Run cells on this machine: each in a process of its own, and on a GPU of its own where there are several.

A cell is anything with a folder that knows when it is done and how to run, see `Runnable`. Whatever happens to it, its
folder tells: a cell that failed has error.txt, one that runs is locked by the process that runs it.
"""

import multiprocessing
import multiprocessing.connection
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Protocol

import torch
from tqdm import tqdm

from vivit_zoo.system.processes import process_context

__all__ = ["Busy", "Runnable", "hold", "run_alone", "run_locally", "visible_gpus"]

GRACE = 30.0  # seconds between SIGTERM, on which `train` saves and leaves, and SIGKILL; SLURM's default too


class Runnable(Protocol):
    """What can be launched; pickled, so importable."""

    @property
    def folder(self) -> Path:
        """Its own, of no other cell."""

    @property
    def error_file(self) -> Path:
        """In the folder; says why the cell failed, if it did."""

    @property
    def done(self) -> bool:
        """Whether the result is in the folder."""

    def run(self, threads: int, bar: int) -> None:
        """Run to the end, from where an earlier run was stopped; `bar` is the terminal's line for a progress bar."""


class Busy(Exception):
    """Another process holds the folder; says which."""


@contextmanager
def hold(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a folder alone, until the end of the block or of the process, whatever ends it.

    Args:
        folder: made if missing; gets a file named lock.
        wait: for the one that holds it now, rather than raise.

    Raises:
        Busy: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        if not _lock(file, wait):
            file.seek(0)
            raise Busy(f"runs already in {file.read().strip() or 'another process'}")
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def _lock(file: IO, wait: bool) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:  # some clusters mount their disks without locks: no reason to run nothing there
        print(f"{file.name}: no locks here ({error}), so two studies of one folder go unnoticed", file=sys.stderr)
    return True


def run_alone(cell: Runnable, threads: int, bar: int = 0, log: Path | None = None) -> None:
    """Run a cell, unless it is done or another process runs it.

    Raises:
        SystemExit: with 1 if the cell failed; what it raised is in error.txt, with the name of the log if there is one.
    """
    try:
        with hold(cell.folder):
            cell.error_file.unlink(missing_ok=True)
            if not cell.done:
                cell.run(threads, bar)
    except Busy as busy:
        print(f"{cell.folder.name} {busy}", file=sys.stderr)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception:
        if log:
            traceback.print_exc()
        cell.error_file.write_text(traceback.format_exc() + (f"log: {log}\n" if log else ""))
        raise SystemExit(1) from None


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as a value of CUDA_VISIBLE_DEVICES that shows it alone."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return [str(i) for i in range(count)] if named is None else [name.strip() for name in named.split(",")[:count]]


def run_locally(cells: Sequence[Runnable], jobs: int | None = None, gpus: Sequence[str] = ()) -> None:
    """Run the cells that are not done, each in a process of its own.

    A cell that fails leaves error.txt in its folder and does not stop the others. When the study is stopped (Ctrl-C,
    SIGTERM, or however it dies), its cells are told by SIGTERM, and killed if that has not ended them after `GRACE`.

    Args:
        cells: in the order to run them.
        jobs: cells at a time, which share the cores; by default one a GPU, or one.
        gpus: values of CUDA_VISIBLE_DEVICES, dealt out to the jobs in turn; none leaves the variable as it is.

    Raises:
        ValueError: if `jobs` is not positive.
        SystemExit: with 130 on Ctrl-C.
    """
    jobs = max(1, len(gpus)) if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs {jobs} is not positive")
    waiting = [cell for cell in cells if not cell.done]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # The server imports torch once for all cells, and each cell's memory can be measured on its own.
    context = process_context(__name__, *sorted({type(cell).__module__ for cell in cells}))
    running: dict[int, tuple[Runnable, BaseProcess]] = {}
    progress = tqdm(total=len(cells), initial=len(cells) - len(waiting), desc="cells", unit="cell", dynamic_ncols=True)
    try:
        while waiting or running:
            for slot in sorted(set(range(jobs)) - running.keys())[: len(waiting)]:
                cell, gpu = waiting.pop(0), gpus[slot % len(gpus)] if gpus else None
                process = context.Process(target=_run_in_process, args=(cell, threads, slot + 1, gpu))
                running[slot] = cell, process
                process.start()
            multiprocessing.connection.wait([process.sentinel for _, process in running.values()])
            for slot, (cell, process) in list(running.items()):
                if process.exitcode is not None:
                    _explain(cell, process.exitcode)
                    del running[slot]
                    progress.update()
    except KeyboardInterrupt:
        print("\nstopping; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        _stop([process for _, process in running.values() if process.pid is not None])
        progress.close()


def _explain(cell: Runnable, exitcode: int) -> None:
    """A word for a cell that left none, such as one that the system killed when memory ran out."""
    if exitcode and not cell.done and not cell.error_file.exists():
        reason = f"killed by signal {-exitcode}" if exitcode < 0 else f"left with exit code {exitcode}"
        cell.folder.mkdir(parents=True, exist_ok=True)
        cell.error_file.write_text(reason + "\n")


def _stop(processes: Sequence[BaseProcess]) -> None:
    try:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + GRACE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:  # a second Ctrl-C waits no longer
        for process in processes:
            process.kill()


def _run_in_process(cell: Runnable, threads: int, bar: int, gpu: str | None) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # out of the terminal's group: Ctrl-C reaches the study alone, which tells its cells, once
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    threading.Thread(target=_leave_with_study, daemon=True).start()
    run_alone(cell, threads, bar)


def _leave_with_study() -> None:
    study = multiprocessing.parent_process()
    assert study is not None
    study.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(143)
