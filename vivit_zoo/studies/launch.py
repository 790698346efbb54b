"""Run cells on this machine, each in its own process, and on its own GPU where there are several.

A cell is an object with a folder that knows whether it is done and how to run, see `Runnable`. Its folder holds its
state: error.txt if it failed, and a lock that is held by the process that runs it.
"""

import errno
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
from typing import Protocol

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from vivit_zoo.system.processes import process_context

__all__ = ["Busy", "Runnable", "available_cores", "hold", "run_alone", "run_locally", "visible_gpus"]

# What cells import beside their own module, and what takes seconds: the embedded data's digits. Skipped if missing.
SLOW_IMPORTS = ("sklearn.datasets",)
GRACE = 30.0  # seconds between SIGTERM, on which `train` saves and exits, and SIGKILL; SLURM's default too
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # some clusters mount file systems that have none


class Runnable(Protocol):
    """A cell that can be launched. It is pickled, so its class must be importable."""

    @property
    def folder(self) -> Path:
        """The cell's folder, used by no other cell."""

    @property
    def error_file(self) -> Path:
        """A file in the folder that says why the cell failed, if it did."""

    @property
    def done(self) -> bool:
        """Whether the result is in the folder."""

    @property
    def cost(self) -> float:
        """The expected amount of computation, in any unit. The progress bar is weighted by it."""

    @property
    def summary(self) -> str:
        """One line with the name and, if it is done, the result."""

    def run(self, threads: int, bar: int) -> None:
        """Run to the end, resuming an interrupted run; `bar` is the terminal line of the cell's progress bar."""


class Busy(Exception):
    """Another process holds the folder; the message names the process."""


@contextmanager
def hold(folder: Path, wait: bool = False) -> Iterator[None]:
    """Lock a folder until the end of the block or of the process, however it ends.

    Args:
        folder: created if missing; the lock is a file named lock in it, and lock.holder says who holds it.
        wait: wait for the process that holds the lock, instead of raising.

    Raises:
        Busy: if another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / "lock"), folder / "lock.holder"
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        # On Windows nobody else can read a file that is locked, so the holder's name has a file of its own.
        name = holder.read_text(encoding="utf-8").strip() if holder.exists() else ""
        raise Busy(f"is already run by {name or 'another process'}") from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in WITHOUT_LOCKS:
            raise
        print(f"{folder}: cannot lock ({error}); do not run two studies in the same folder", file=sys.stderr)
    try:
        holder.write_text(f"pid {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def run_alone(cell: Runnable, threads: int, bar: int = 0, log: Path | None = None) -> None:
    """Run a cell, unless it is done or another process runs it.

    Raises:
        SystemExit: with code 1 if the cell failed; the traceback is in error.txt, with the name of the log if given.
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
        cell.error_file.write_text(traceback.format_exc() + (f"log: {log}\n" if log else ""), encoding="utf-8")
        raise SystemExit(1) from None


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as a value of CUDA_VISIBLE_DEVICES that selects it alone."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return [str(i) for i in range(count)] if named is None else [name.strip() for name in named.split(",")[:count]]


def available_cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_locally(cells: Sequence[Runnable], jobs: int | None = None, gpus: Sequence[str] = ()) -> None:
    """Run the cells that are not done, each in its own process.

    Each finished cell is reported in one line on stderr, above a progress bar with the number of cells that are done
    and an estimate of the remaining time. A cell that fails leaves error.txt in its folder and does not stop the
    others. When the study is stopped (Ctrl-C, SIGTERM, or any other way), its cells get SIGTERM, and SIGKILL after
    `GRACE` seconds.

    Args:
        cells: in the order in which to start them.
        jobs: number of cells that run at the same time and share the cores. Default: one for each GPU; without GPUs,
            one for each core, with one thread each, because two threads on one cell are slower than two cells.
        gpus: values of CUDA_VISIBLE_DEVICES, assigned to the jobs in turn; if empty, the variable is not changed.

    Raises:
        ValueError: if `jobs` is not positive.
        SystemExit: with code 130 on Ctrl-C.
    """
    cores = available_cores()
    jobs = len(gpus) or cores if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs {jobs} is not positive")
    waiting = [cell for cell in cells if not cell.done]
    threads = max(1, cores // jobs)
    # The fork server imports torch once for all cells, and each process has its own peak memory.
    context = process_context(__name__, *sorted({type(cell).__module__ for cell in cells}), *SLOW_IMPORTS)
    running: dict[int, tuple[Runnable, BaseProcess]] = {}
    with _Progress(cells, waiting) as progress:
        try:
            while waiting or running:
                for slot in sorted(set(range(jobs)) - running.keys())[: len(waiting)]:
                    cell, gpu = waiting.pop(0), gpus[slot % len(gpus)] if gpus else None
                    process = context.Process(target=_run_in_process, args=(cell, threads, slot + 1, gpu))
                    running[slot] = cell, process
                    process.start()
                progress.show(len(running))
                multiprocessing.connection.wait([process.sentinel for _, process in running.values()], timeout=1.0)
                for slot, (cell, process) in list(running.items()):
                    if process.exitcode is not None:
                        _explain(cell, process.exitcode)
                        del running[slot]
                        progress.finish(cell)
            progress.show(0)
        except KeyboardInterrupt:
            print("\nstopping; run the same command again to resume", file=sys.stderr)
            raise SystemExit(130) from None
        finally:
            _stop([process for _, process in running.values() if process.pid is not None])


class _Progress:
    """The progress of a study: a bar, weighted by the cells' costs, and a line for each cell that finishes.

    Where stderr is no terminal, a line for each change takes the place of the bar.
    """

    def __init__(self, cells: Sequence[Runnable], waiting: Sequence[Runnable]) -> None:
        self.cells, self.done = len(cells), len(cells) - len(waiting)
        total = sum(cell.cost for cell in cells)
        left = sum(cell.cost for cell in waiting)
        self.bar = tqdm(
            desc=self._counts(0),
            total=total,
            initial=total - left,
            smoothing=0,  # the remaining time from the average rate
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, about {remaining} left",
            disable=None,
        )
        self.shown = ""

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, running: int) -> None:
        """Update the counts, and on a terminal the clock."""
        text = self._counts(running)
        if not self.bar.disable:
            self.bar.set_description_str(text)
        elif text != self.shown:
            print(text, file=sys.stderr, flush=True)
        self.shown = text

    def _counts(self, running: int) -> str:
        return f"{self.done} of {self.cells} cells done, {running} running"

    def finish(self, cell: Runnable) -> None:
        """Count a cell that has ended, and print its line."""
        self.done += 1
        self.bar.update(cell.cost)
        tqdm.write(cell.summary, file=sys.stderr)


def _explain(cell: Runnable, exitcode: int) -> None:
    """Write error.txt for a cell whose process wrote none, such as one killed by the system when memory ran out."""
    if exitcode and not cell.done and not cell.error_file.exists():
        reason = f"killed by signal {-exitcode}" if exitcode < 0 else f"exited with code {exitcode}"
        cell.folder.mkdir(parents=True, exist_ok=True)
        cell.error_file.write_text(reason + "\n", encoding="utf-8")


def _stop(processes: Sequence[BaseProcess]) -> None:
    try:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + GRACE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:  # a second Ctrl-C does not wait
        for process in processes:
            process.kill()


def _run_in_process(cell: Runnable, threads: int, bar: int, gpu: str | None) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # leave the terminal's process group: Ctrl-C reaches only the study, which stops its cells
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    threading.Thread(target=_exit_with_study, daemon=True).start()
    run_alone(cell, threads, bar)


def _exit_with_study() -> None:
    study = multiprocessing.parent_process()
    assert study is not None
    study.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(143)
