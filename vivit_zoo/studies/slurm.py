"""Run cells on a SLURM cluster through submitit, one cell a job.

A cell that was submitted has job.json in its folder, so that a later call knows the job and never submits the cell
twice. The logs are in the folder jobs beside the cells.
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
    """What each cell's job asks of SLURM.

    Args:
        partition: the cluster's default if not given.
        minutes: time limit of a job; a cell that needs longer is queued again and goes on from its checkpoint.
        gpus: of a job.
        cpus: of a job, and its number of threads.
        mem_gb: memory of a job; the cluster's default if not given.
        constraint: features that the node must have, as sbatch's --constraint.
        parallel: jobs of the study that run at a time, at most.
        timeouts: how often a cell may reach its time limit before it counts as failed.
        notice: seconds before the time limit at which a job is told, for saving.
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
            raise ValueError(f"slurm.notice {self.notice} seconds is no less than the time limit, {self.minutes} min")


@dataclasses.dataclass(frozen=True)
class _Submitted:
    """The job of a cell, as job.json keeps it."""

    id: str
    cluster: Cluster
    log: str

    @classmethod
    def read(cls, cell: Runnable) -> "_Submitted | None":
        try:
            return cls(**json.loads((cell.folder / "job.json").read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def write(self, cell: Runnable) -> None:
        (cell.folder / "job.json").write_text(json.dumps(dataclasses.asdict(self)))


class _CellJob:
    """What a job runs. On SLURM's notice of the time limit or of preemption it saves, and the job is queued again."""

    def __init__(self, cell: Runnable, threads: int) -> None:
        self.cell, self.threads = cell, threads

    def __call__(self) -> None:
        from submitit import JobEnvironment

        # submitit has set USR2 to queue the job again and leave at once, and SIGTERM to nothing. `train` listens to a
        # SIGTERM that nobody else does, saves and leaves: so the notice goes there first, while it is at work.
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        noticed = False

        def save_first(signum: int, frame: FrameType | None) -> None:
            nonlocal noticed
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                requeue(signum, frame)
            noticed = True
            signal.raise_signal(signal.SIGTERM)

        signal.signal(signal.SIGUSR2, save_first)
        try:
            run_alone(self.cell, self.threads, log=JobEnvironment().paths.stdout)
        except SystemExit:
            if noticed:
                requeue(signal.SIGUSR2, None)
            raise

    def checkpoint(self) -> Any:
        """What runs when the job is queued again: the same, as a cell goes on from its own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_on_slurm(
    cells: Sequence[Runnable], out: Path, slurm: Slurm, wait: bool = True, cluster: Cluster = "slurm"
) -> None:
    """Submit the cells that are not done and have no living job, as one job array, and wait for all jobs.

    A cell that failed has error.txt in its folder, which names the log. Ctrl-C stops the waiting and no job.

    Args:
        cells: in the order to run them.
        out: folder of the study; the logs go into `out`/jobs. Nodes of the cluster must see it.
        slurm: of each job.
        wait: or return when they are submitted; a later call waits and collects.
        cluster: "local" runs the same jobs on this machine by submitit's local executor, all at once, to try it out.

    Raises:
        ImportError: without submitit.
        OSError: if there is no SLURM here, or it refuses the jobs.
        SystemExit: with 130 on Ctrl-C.
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
        before = f"; {len(busy)} were before" if busy else ""
        print(f"{len(new)} cells submitted{before}. Jobs: {' '.join(ids)}. Logs: {out / 'jobs'}", file=sys.stderr)
    if not wait:
        return
    try:
        _wait(jobs, len(cells), poll=10.0 if cluster == "slurm" else 0.5)
        if cluster == "local":
            for handle in handles:
                handle.wait()  # for its process, which is a child of ours
    except KeyboardInterrupt:
        cancel = "scancel" if cluster == "slurm" else "kill"
        print(f"\nthe jobs go on; the same command waits again, '{cancel} {' '.join(ids)}' ends them", file=sys.stderr)
        raise SystemExit(130) from None


def _executor(folder: Path, slurm: Slurm, cluster: Cluster) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ImportError("jobs are submitted by submitit; pip install 'vivit-zoo[slurm]'") from error
    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise OSError("there is no sbatch here; start from a node that submits to SLURM, or use --launcher local")
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
        raise OSError(f"SLURM refused the jobs: {error}") from error
    return handles


@contextmanager
def _same_imports() -> Iterator[None]:
    """Jobs find the modules that this process finds, such as one beside the experiment; SLURM hands variables on."""
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
    """Until no job lives; then a cell without a result has error.txt."""
    waiting, missed = list(jobs), set[str]()
    with tqdm(total=cells, initial=cells - len(jobs), desc="cells", unit="cell", dynamic_ncols=True) as progress:
        while waiting:
            alive = _alive(job for _, job in waiting)
            left = []
            for cell, job in waiting:
                # Gone is who is missed twice: queues and shared disks show what happened a little later.
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
    """A word for a job that left none, such as one that was cancelled or needed more memory than it had asked for."""
    if not cell.done and not cell.error_file.exists():
        log = Path(job.log)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else "(no log)"
        cell.error_file.write_text(f"{tail}\njob {job.id} ended without a result\nlog: {log}\n")


def _alive(jobs: Iterable[_Submitted]) -> set[str]:
    """The ids of those that run or wait, or will again."""
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
    """Of these, those that SLURM has in its queue; all of them while it gives no answer."""
    if not ids:
        return set()
    arrays = ",".join(sorted({job_id.split("_")[0] for job_id in ids}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={arrays}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ids
    except FileNotFoundError:
        raise OSError(f"no squeue here to ask after the jobs {arrays}; start from where they were submitted") from None
    if done.returncode:
        return set() if "Invalid job id" in done.stderr else ids
    states = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())
    return {job_id for job_id in ids if states.get(job_id, "COMPLETED") not in DEAD}
