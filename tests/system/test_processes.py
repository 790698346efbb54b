"""Processes that are started by the fork server."""

import os
import subprocess
import sys

import pytest

SLOW = "import time\ntime.sleep(2)\n"  # stands for torch, which the server imports before it starts a process
START = """
import os, signal
from vivit_zoo.system.processes import process_context

def stop(*_):
    raise KeyboardInterrupt

if __name__ == "__main__":
    signal.signal(signal.SIGALRM, stop)
    context = process_context("slow")
    process = context.Process(target=print, args=(context.Lock(),))
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        process.start()
    except KeyboardInterrupt:
        raise SystemExit(130)
"""
UNREADABLE = """
from vivit_zoo.system.processes import process_context

class Broken:
    def __reduce__(self):
        return open, ("none.txt",)

if __name__ == "__main__":
    process = process_context().Process(target=print, args=(Broken(),))
    process.start()
    process.join()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork server")
@pytest.mark.parametrize(("script", "code", "error"), [(START, 130, ""), (UNREADABLE, 0, "none.txt")])
def test_a_process_whose_start_was_stopped_prints_no_traceback(script, code, error, tmp_path):
    """The program and its locks are gone when the server comes to start the process. Other errors are printed."""
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    path = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, check=False, env=path, cwd=tmp_path
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, bool(error)), done.stderr
    assert error in done.stderr
