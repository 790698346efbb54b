"""Cells as jobs: through submitit's local executor, and with stand-ins for SLURM's commands."""

import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit

from tests.studies.test_launch import Sketch, await_file
from vivit_zoo.studies.slurm import Slurm, _CellJob, run_on_slurm


@dataclasses.dataclass(frozen=True)
class Noticed(Sketch):
    """A cell that gets SLURM's notice of the time limit in its first run, and finishes in its second."""

    def run(self, threads: int, bar: int) -> None:
        if not (self.folder / "noticed").exists():
            (self.folder / "noticed").touch()
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        super().run(threads, bar)

    def evaluate(self) -> None:
        """Nobody listens to SIGTERM, as in an evaluation, where there is nothing to save."""
        await_file(self.folder / "never")


def test_grid_of_jobs(tmp_path, capsys):
    """A failing cell names its log while the others finish, a noticed one goes on; a second call runs the missing."""
    cells = [
        Sketch(tmp_path / "cells" / "finish"),
        Sketch(tmp_path / "cells" / "fail", "fail"),
        Noticed(tmp_path / "cells" / "training", "save_on_sigterm"),
    ]
    run_on_slurm(cells, tmp_path, Slurm(gpus=0, cpus=1), cluster="local")
    assert [cell.done for cell in cells] == [True, False, True]
    *_, error, log = cells[1].error_file.read_text().splitlines()
    assert error == "RuntimeError: broken on purpose"
    assert "RuntimeError: broken on purpose" in Path(log.removeprefix("log: ")).read_text()
    assert (cells[2].folder / "saved").read_text() == "once "
    assert "3 cells submitted. " in capsys.readouterr().err

    (cells[1].folder / "healed").touch()
    before = {cell.folder: (cell.folder / "job.json").read_text() for cell in cells}
    run_on_slurm(cells, tmp_path, Slurm(gpus=0, cpus=1), cluster="local")
    assert "1 cells submitted. " in capsys.readouterr().err
    assert cells[1].done
    assert not cells[1].error_file.exists()
    assert [before[cell.folder] == (cell.folder / "job.json").read_text() for cell in cells] == [1, 0, 1]


@pytest.mark.parametrize("does", ["save_on_sigterm", "evaluate"])
def test_notice_saves_and_queues_again(tmp_path, monkeypatch, does):
    def requeue(number, frame):
        with (tmp_path / "requeued").open("a") as file:
            file.write("once ")
        raise SystemExit(144)

    monkeypatch.setattr(submitit, "JobEnvironment", lambda: SimpleNamespace(paths=SimpleNamespace(stdout="a log")))
    before = signal.signal(signal.SIGUSR2, requeue), signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        job = _CellJob(Noticed(tmp_path, does), threads=1)
        with pytest.raises(SystemExit, match="144"):
            job()
    finally:
        signal.signal(signal.SIGUSR2, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert (tmp_path / "requeued").read_text() == "once "
    assert (tmp_path / "saved").exists() == (does == "save_on_sigterm")
    assert not (tmp_path / "error.txt").exists()
    assert job.checkpoint().function is job


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """SLURM's commands: sbatch keeps the script and counts up from job 17; squeue prints the file queue."""
    commands = tmp_path / "bin"
    commands.mkdir()
    sbatch = f"""
        cd {tmp_path}; n=$((17 + $(ls | grep -c '^script')))
        [ -e refuse ] && {{ echo 'sbatch: error: invalid partition specified' >&2; exit 1; }}
        cp "$1" script$n && echo "Submitted batch job $n" """
    squeue = f"cat {tmp_path}/queue 2>/dev/null || {{ cat {tmp_path}/complaint >&2; exit 1; }}"
    for name, script in {"sbatch": sbatch, "squeue": squeue, "srun": ""}.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return tmp_path


def job_ids(cells):
    return [json.loads((cell.folder / "job.json").read_text())["id"] for cell in cells]


def test_jobs_are_submitted_once(cluster, capsys):
    cells = [Sketch(cluster / "cells" / name) for name in "abc"]
    slurm = Slurm(partition="gpu", minutes=90, cpus=4, mem_gb=16, parallel=2, sbatch={"account": "lab"})
    run_on_slurm(cells, cluster, slurm, wait=False)
    assert job_ids(cells) == ["17_0", "17_1", "17_2"]
    flags = [line.removeprefix("#SBATCH --") for line in (cluster / "script17").read_text().splitlines()]
    for flag in ("partition=gpu", "time=90", "cpus-per-task=4", "gpus-per-node=1", "mem=16GB", "array=0-2%2"):
        assert flag in flags
    assert {"account=lab", "requeue", "signal=USR2@120", "open-mode=append"} <= set(flags)
    assert str(cluster / "jobs") in capsys.readouterr().err

    (cluster / "queue").write_text("17_0 RUNNING\n17_1 PENDING\n17_2 NODE_FAIL\n")
    run_on_slurm(cells, cluster, slurm, wait=False)
    assert job_ids(cells) == ["17_0", "17_1", "18"]
    assert "1 cells submitted; 2 were submitted before. Jobs: 17 18." in capsys.readouterr().err

    (cluster / "queue").unlink()
    (cluster / "complaint").write_text("slurm_load_jobs error: Unable to contact slurm controller")
    run_on_slurm(cells, cluster, slurm, wait=False)
    assert job_ids(cells) == ["17_0", "17_1", "18"]
    (cluster / "complaint").write_text("slurm_load_jobs error: Invalid job id specified")
    run_on_slurm(cells, cluster, slurm, wait=False)
    assert job_ids(cells) == ["19_0", "19_1", "19_2"]


def test_a_job_that_left_no_word_gets_one(cluster):
    cells = [Sketch(cluster / "cells" / "a"), Sketch(cluster / "cells" / "b")]
    (cluster / "queue").write_text("17_0 OUT_OF_MEMORY\n17_1 COMPLETED\n")
    cells[1].folder.mkdir(parents=True)
    (cluster / "jobs").mkdir()
    log = cluster / "jobs" / "17_0_0_log.out"
    log.write_text("step 7\nslurmstepd: error: Detected 1 oom-kill event\n")
    run_on_slurm(cells, cluster, Slurm())
    expected = f"step 7\nslurmstepd: error: Detected 1 oom-kill event\njob 17_0 ended without a result\nlog: {log}\n"
    assert cells[0].error_file.read_text() == expected
    assert cells[1].error_file.read_text().startswith("(no log)\njob 17_1 ended without a result\n")


def test_what_cannot_be_launched_says_so(cluster, monkeypatch):
    cells = [Sketch(cluster / "cells" / "a")]
    (cluster / "refuse").touch()
    with pytest.raises(OSError, match=r"(?s)SLURM rejected the jobs: .*invalid partition specified"):
        run_on_slurm(cells, cluster, Slurm())
    monkeypatch.setenv("PATH", str(cluster))
    with pytest.raises(OSError, match="sbatch is not found"):
        run_on_slurm(cells, cluster, Slurm())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"pip install 'vivit-zoo\[slurm\]'"):
        run_on_slurm(cells, cluster, Slurm())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cpus": 0}, "slurm.cpus 0 is not positive"),
        ({"gpus": -1}, "slurm.gpus -1 is negative"),
        ({"mem_gb": 0.0}, "slurm.mem_gb 0.0 is not positive"),
        ({"minutes": 2}, "slurm.notice 120 s is not less than the time limit of 2 minutes"),
    ],
)
def test_wrong_demands(wrong, message):
    with pytest.raises(ValueError, match=message):
        Slurm(**wrong)
