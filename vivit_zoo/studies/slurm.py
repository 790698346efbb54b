"""Run cells on a SLURM cluster through submitit, one job for each cell.

A submitted cell has job.json in its folder, so that a later call finds the job and does not submit the cell again. The
logs are in the folder jobs of the study.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import psutil
from tqdm import tqdm

from vivit_zoo.studies.launch import Runnable, hold, run_alone

__all__ = ["Slurm", "run_on_slurm"]

Cluster = Literal["slurm", "local"]

# States in which squeue may still list a job that will not run again.
DEAD = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
    """The resources of each cell's job.

    Args:
        partition: None for the cluster's default.
        minutes: time limit of a job; a cell that needs longer is queued again and resumes from its checkpoint.
        gpus: of a job.
        cpus: of a job, and its number of threads.
        mem_gb: memory of a job; None for the cluster's default.
        constraint: features that the node must have, as sbatch's --constraint.
        parallel: the most jobs of the study that run at the same time.
        timeouts: how often a cell may reach its time limit before it counts as failed.
        notice: seconds before the time limit at which a job gets a signal to save.
        sbatch: any other option of sbatch, such as --slurm.sbatch.account lab.
    """

    partition: str | None = None
    minutes: int = 24 * 60
    gpus: int = 1
    cpus: int = 8
    mem_gb: float | None = None
    constraint: str | None = None
    parallel: int = 256
    timeouts: int = 10
    notice: int = 120
    sbatch: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("minutes", "cpus", "parallel", "notice"):
            if getattr(self, name) < 1:
                raise ValueError(f"slurm.{name} {getattr(self, name)} is not positive")
        for name in ("gpus", "timeouts"):
            if getattr(self, name) < 0:
                raise ValueError(f"slurm.{name} {getattr(self, name)} is negative")
        if self.mem_gb is not None and self.mem_gb <= 0:
            raise ValueError(f"slurm.mem_gb {self.mem_gb} is not positive")
        if self.notice >= 60 * self.minutes:
            raise ValueError(f"slurm.notice {self.notice} s is not less than the time limit of {self.minutes} minutes")


@dataclasses.dataclass(frozen=True)
class _Submitted:
    """The job of a cell, as in its job.json."""

    id: str
    cluster: Cluster
    log: str

    @classmethod
    def read(cls, cell: Runnable) -> "_Submitted | None":
        try:
            return cls(**json.loads((cell.folder / "job.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def write(self, cell: Runnable) -> None:
        (cell.folder / "job.json").write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")


class _CellJob:
    """The function of a job. At SLURM's signal of the time limit or of preemption it saves and is queued again."""

    def __init__(self, cell: Runnable, threads: int) -> None:
        self.cell, self.threads = cell, threads

    def __call__(self) -> None:
        from submitit import JobEnvironment

        # submitit's handler of USR2 queues the job again and exits at once; it ignores SIGTERM. `train` handles SIGTERM
        # if nobody else does: it saves and exits. So while it runs, USR2 is passed on as SIGTERM.
        usr2 = signal.Signals["SIGUSR2"]  # by name, since Windows has none
        requeue: Any = signal.getsignal(usr2)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        noticed = False

        def save_first(signum: int, frame: FrameType | None) -> None:
            nonlocal noticed
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                requeue(signum, frame)
            noticed = True
            signal.raise_signal(signal.SIGTERM)

        signal.signal(usr2, save_first)
        try:
            run_alone(self.cell, self.threads, log=JobEnvironment().paths.stdout)
        except SystemExit:
            if noticed:
                requeue(usr2, None)
            raise

    def checkpoint(self) -> Any:
        """The function of the job when it is queued again: the same, since a cell resumes from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_on_slurm(
    cells: Sequence[Runnable], out: Path, slurm: Slurm, wait: bool = True, cluster: Cluster = "slurm"
) -> None:
    """Submit the cells that are not done and have no running or queued job, as one job array, and wait for all jobs.

    A cell that failed has error.txt in its folder, which names the log. Ctrl-C stops waiting, but not the jobs.

    Args:
        cells: in the order in which to run them.
        out: folder of the study, visible from the nodes of the cluster; the logs go into `out`/jobs.
        slurm: resources of each job.
        wait: wait for the jobs, or else return when they are submitted; a later call waits and collects the results.
        cluster: "local" runs the same jobs on this machine with submitit's local executor, all at once, as a test.

    Raises:
        ImportError: if submitit is missing.
        OSError: if there is no SLURM here, or it rejects the jobs.
        SystemExit: with code 130 on Ctrl-C.
    """
    executor = _executor(out / "jobs", slurm, cluster)
    with hold(out, wait=True):  # the second of two calls at once finds the jobs of the first
        missing = [cell for cell in cells if not cell.done]
        known = [(cell, job) for cell in missing if (job := _Submitted.read(cell))]
        alive = _alive(job for _, job in known)
        jobs = [(cell, job) for cell, job in known if job.id in alive]
        busy = {cell.folder for cell, _ in jobs}
        new = [cell for cell in missing if cell.folder not in busy]
        handles = _submit(executor, new, slurm.cpus)
        for cell, handle in zip(new, handles, strict=True):
            job = _Submitted(handle.job_id, cluster, str(handle.paths.stdout))
            job.write(cell)
            jobs.append((cell, job))
    ids = sorted({job.id.split("_")[0] for _, job in jobs})
    if jobs:
        before = f"; {len(busy)} were submitted before" if busy else ""
        print(f"{len(new)} cells submitted{before}. Jobs: {' '.join(ids)}. Logs: {out / 'jobs'}", file=sys.stderr)
    if not wait:
        return
    try:
        _wait(jobs, len(cells), poll=10.0 if cluster == "slurm" else 0.5)
        if cluster == "local":
            for handle in handles:
                handle.wait()  # its process is a child of this one
    except KeyboardInterrupt:
        cancel = "scancel" if cluster == "slurm" else "kill"
        hint = f"the same command waits for them again, '{cancel} {' '.join(ids)}' stops them"
        print(f"\nthe jobs continue; {hint}", file=sys.stderr)
        raise SystemExit(130) from None


def _executor(folder: Path, slurm: Slurm, cluster: Cluster) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ImportError("submitting jobs needs submitit: pip install 'vivit-zoo[slurm]'") from error
    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise OSError("sbatch is not found; run this on a login node of the cluster, or use --launcher local")
    executor = submitit.AutoExecutor(folder, cluster, slurm_max_num_timeout=slurm.timeouts)
    executor.update_parameters(
        name="vivit-zoo",
        timeout_min=slurm.minutes,
        gpus_per_node=slurm.gpus or None,
        cpus_per_task=slurm.cpus,
        mem_gb=slurm.mem_gb,
        stderr_to_stdout=True,
        slurm_partition=slurm.partition,
        slurm_constraint=slurm.constraint,
        slurm_array_parallelism=slurm.parallel,
        slurm_signal_delay_s=slurm.notice,
        slurm_additional_parameters={"requeue": True, **slurm.sbatch},
    )
    return executor


def _submit(executor: Any, cells: Sequence[Runnable], threads: int) -> list[Any]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if not cells:
        return []
    for cell in cells:
        cell.folder.mkdir(parents=True, exist_ok=True)
        cell.error_file.unlink(missing_ok=True)
    try:
        with _same_imports(), executor.batch():
            handles = [executor.submit(_CellJob(cell, threads)) for cell in cells]
    except (FailedJobError, FailedSubmissionError) as error:
        raise OSError(f"SLURM rejected the jobs: {error}") from error
    return handles


@contextmanager
def _same_imports() -> Iterator[None]:
    """Set PYTHONPATH so that jobs find the same modules as this process; SLURM passes variables on."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _wait(jobs: Sequence[tuple[Runnable, _Submitted]], cells: int, poll: float) -> None:
    """Wait until no job is running or queued; then each cell without a result has error.txt."""
    waiting, missed = list(jobs), set[str]()
    with tqdm(
        total=cells, initial=cells - len(jobs), desc="cells", unit="cell", dynamic_ncols=True, disable=None
    ) as progress:
        while waiting:
            alive = _alive(job for _, job in waiting)
            left = []
            for cell, job in waiting:
                # A job is gone when it is missing twice: queues and shared file systems are a little late.
                gone = job.id not in alive and (cell.error_file.exists() or job.id in missed)
                if cell.done or gone:
                    _explain(cell, job)
                    progress.update()
                else:
                    left.append((cell, job))
            waiting, missed = left, {job.id for _, job in left} - alive
            if waiting:
                time.sleep(poll)


def _explain(cell: Runnable, job: _Submitted) -> None:
    """Write error.txt for a job that wrote none, such as one that was cancelled or ran out of memory."""
    if not cell.done and not cell.error_file.exists():
        log = Path(job.log)
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else "(no log)"
        tail = "\n".join(text.splitlines()[-20:])
        cell.error_file.write_text(f"{tail}\njob {job.id} ended without a result\nlog: {log}\n", encoding="utf-8")


def _alive(jobs: Iterable[_Submitted]) -> set[str]:
    """The ids of the jobs that are running or queued, or will be again."""
    jobs = list(jobs)
    local = {job.id for job in jobs if job.cluster == "local" and _is_controller(int(job.id))}
    return local | _queued({job.id for job in jobs if job.cluster == "slurm"})


def _is_controller(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "submitit.local._local" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def _queued(ids: set[str]) -> set[str]:
    """Those of the jobs that are in SLURM's queue; all of them if it does not answer."""
    if not ids:
        return set()
    arrays = ",".join(sorted({job_id.split("_")[0] for job_id in ids}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={arrays}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ids
    except FileNotFoundError:
        raise OSError(f"squeue is not found; run this where the jobs {arrays} were submitted") from None
    if done.returncode:
        return set() if "Invalid job id" in done.stderr else ids
    states = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())
    return {job_id for job_id in ids if states.get(job_id, "COMPLETED") not in DEAD}
