"""Imported for its effect by the server process that starts other processes, and by nothing else.

A terminal and SLURM signal all processes of a job. If the server ended, the workers that it started would end before
the training process has saved. So the server ignores these signals. What it starts takes them as usual again, except
Ctrl-C, which only the main process answers: it stops its workers itself, and they print no tracebacks. Neither does a
process that is started when the main process has been stopped.
"""

import os
import signal
import sys
from types import TracebackType

__all__: list[str] = []


def _set_handlers(action: signal.Handlers) -> None:
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):  # submitit sends SIGUSR2
        signal.signal(getattr(signal, name), action)


def _print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print why a process could not be started, unless the locks that it was to share have gone with their owner."""
    if not (isinstance(error, FileNotFoundError) and error.filename is None):  # locks are no files, so have no name
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _print_error
signal.signal(signal.SIGINT, signal.SIG_IGN)
_set_handlers(signal.SIG_IGN)
assert sys.platform != "win32"  # which has no fork server
os.register_at_fork(after_in_child=lambda: _set_handlers(signal.SIG_DFL))
