"""Imported for its effect by the server process that starts other processes, and by nothing else.

A terminal and SLURM signal all processes of a job. If the server ended, the workers that it started would end before
the training process has saved. So the server ignores these signals. What it starts takes them as usual again, except
Ctrl-C, which only the main process answers: it stops its workers itself, and they print no tracebacks.
"""

import os
import signal
import sys

__all__: list[str] = []


def _set_handlers(action: signal.Handlers) -> None:
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):  # submitit sends SIGUSR2
        signal.signal(getattr(signal, name), action)


signal.signal(signal.SIGINT, signal.SIG_IGN)
_set_handlers(signal.SIG_IGN)
assert sys.platform != "win32"  # which has no fork server
os.register_at_fork(after_in_child=lambda: _set_handlers(signal.SIG_DFL))
