"""Imported for its effect, by the server that starts processes and by nothing else: it outlives signals to a whole job.

A terminal and SLURM signal all processes of a job. Were the server gone, the workers that it started would leave before
the training process has saved. What it starts takes signals as usual again.
"""

import os
import signal

__all__: list[str] = []


def _at(action: signal.Handlers) -> None:
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):  # of submitit's notice the last
        signal.signal(getattr(signal, name), action)


_at(signal.SIG_IGN)
os.register_at_fork(after_in_child=lambda: _at(signal.SIG_DFL))
