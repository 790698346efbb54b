"""Launchers: who runs where, what a failed cell leaves, who holds a folder, who ends with the study."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from vivit_zoo.studies import launch
from vivit_zoo.studies.launch import Busy, available_cores, hold, run_locally, visible_gpus


def await_file(file: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file}"
        time.sleep(0.02)


@dataclasses.dataclass(frozen=True)
class Sketch:
    """A cell without training: it does as it is told, and notes where it ran."""

    folder: Path
    does: str = "finish"
    other: Path | None = None

    @property
    def error_file(self) -> Path:
        return self.folder / "error.txt"

    @property
    def done(self) -> bool:
        return (self.folder / "done").exists()

    @property
    def cost(self) -> float:
        return 1.0

    @property
    def summary(self) -> str:
        return f"{self.folder.name}: {'done' if self.done else 'not done'}"

    def run(self, threads: int, bar: int) -> None:
        (self.folder / "pid").write_text(str(os.getpid()))
        getattr(self, self.does)()
        (self.folder / "done").write_text(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {bar} {threads}")

    def finish(self) -> None:
        pass

    def fail(self) -> None:
        if not (self.folder / "healed").exists():
            raise RuntimeError("broken on purpose")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self) -> None:
        sys.exit(7)

    def meet(self) -> None:
        assert self.other is not None
        await_file(self.other / "pid")

    def save_on_sigterm(self) -> None:
        """As `train` does: a first SIGTERM, if nobody else listens, is answered by saving and leaving."""
        if not (self.folder / "saved").exists():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            signal.signal(signal.SIGTERM, self.save)
            (self.folder / "ready").touch()
            await_file(self.folder / "never", 600)

    def save(self, number: int, _: object) -> None:
        with (self.folder / "saved").open("a") as file:
            file.write("once ")
        raise SystemExit(128 + number)

    def ignore_sigterm(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (self.folder / "ready").touch()
        await_file(self.folder / "never", 600)


def test_each_job_has_its_own_gpu(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    run_locally([Sketch(a, "meet", other=b), Sketch(b, "meet", other=a), Sketch(c)], gpus=["5", "GPU-f00"])
    threads = max(1, available_cores() // 2)
    places = [f"5 1 {threads}", f"GPU-f00 2 {threads}"]
    assert [(a / "done").read_text(), (b / "done").read_text()] == places
    assert (c / "done").read_text() in places


def test_without_gpus_each_core_runs_a_cell_with_one_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "available_cores", lambda: 3)
    folders = [tmp_path / name for name in "abc"]
    cells = [
        Sketch(folder, "meet", other=other) for folder, other in zip(folders, folders[1:] + folders[:1], strict=True)
    ]
    run_locally(cells)  # each waits for another: they end only if all three run at the same time
    assert sorted((folder / "done").read_text().split()[1:] for folder in folders) == [
        ["1", "1"],
        ["2", "1"],
        ["3", "1"],
    ]

    one = Sketch(tmp_path / "d")
    run_locally([one], jobs=1)
    assert (one.folder / "done").read_text().split()[1:] == ["1", "3"]  # one job has all the cores


def test_progress_counts_cells_and_reports_each_that_ends(tmp_path, capsys):
    cells = [Sketch(tmp_path / "a"), Sketch(tmp_path / "b", "fail"), Sketch(tmp_path / "c")]
    run_locally(cells[:1])
    capsys.readouterr()
    run_locally(cells, jobs=1)
    err = capsys.readouterr().err
    assert "1 of 3 cells done, 1 running\n" in err
    assert "3 of 3 cells done, 0 running\n" in err
    assert "%|" not in err  # no bar where stderr is no terminal
    lines = err.splitlines()
    assert ["b: not done" in lines, "c: done" in lines, "a: done" in lines] == [True, True, False]


@pytest.mark.parametrize(
    ("named", "count", "expected"),
    [(None, 2, ["0", "1"]), ("3, GPU-f00", 2, ["3", "GPU-f00"]), ("3,-1,4", 1, ["3"]), ("", 0, []), (None, 0, [])],
)
def test_visible_gpus(monkeypatch, named, count, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == expected


def test_a_failed_cell_says_why_and_stops_no_other(tmp_path):
    cells = {does: Sketch(tmp_path / does, does) for does in ("fail", "die", "leave", "finish")}
    run_locally([*cells.values()])
    assert [cell.done for cell in cells.values()] == [False, False, False, True]
    assert "RuntimeError: broken on purpose" in cells["fail"].error_file.read_text()
    assert cells["die"].error_file.read_text() == "killed by signal 9\n"
    assert cells["leave"].error_file.read_text() == "exited with code 7\n"

    (tmp_path / "fail" / "healed").touch()
    run_locally([cells["fail"]])
    assert cells["fail"].done
    assert not cells["fail"].error_file.exists()


def test_a_folder_is_held_by_one(tmp_path):
    with hold(tmp_path / "new"):
        with pytest.raises(Busy, match=f"is already run by pid {os.getpid()} on "), hold(tmp_path / "new"):
            pass
        with hold(tmp_path / "another"):
            pass
    with hold(tmp_path / "new"):
        pass


STUDY = """
import signal, sys
from pathlib import Path
from tests.studies.test_launch import Sketch
from vivit_zoo.studies import launch

if __name__ == "__main__":
    launch.GRACE = 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    launch.run_locally([Sketch(Path(folder), does) for folder, does in zip(sys.argv[1::2], sys.argv[2::2])], jobs=2)
"""


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_cell_outlives_its_study(tmp_path, number):
    """Told to end, it gives its cells time to save, then kills; killed, they notice. Nobody else runs them before."""
    saving, stubborn = tmp_path / "saving", tmp_path / "stubborn"
    cells = [str(saving), "save_on_sigterm"]
    if number == signal.SIGTERM:  # killed, the study cannot kill, and the cell does so itself after half a minute
        cells += [str(stubborn), "ignore_sigterm"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    study = subprocess.Popen([sys.executable, "-c", STUDY, *cells], env=os.environ | {"PYTHONPATH": paths})
    for folder in cells[::2]:
        await_file(Path(folder) / "ready")
    pids = [int((Path(folder) / "pid").read_text()) for folder in cells[::2]]

    run_locally([Sketch(saving)])
    assert not (saving / "done").exists()

    study.send_signal(number)
    assert study.wait(60) == (143 if number == signal.SIGTERM else -9)
    await_file(saving / "saved")
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (saving / "saved").read_text() == "once "
    assert not list(tmp_path.glob("*/error.txt"))
    run_locally([Sketch(saving)])
    assert (saving / "done").exists()
