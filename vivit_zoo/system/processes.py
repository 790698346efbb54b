"""How processes are started: those that read videos, and the cells of a study."""

import multiprocessing
from typing import Any

__all__ = ["process_context"]


def process_context(*modules: str) -> Any:
    """The context to start processes from: a server that has decoded nothing, since forks of one that has may hang.

    FFmpeg's locks and threads do not survive a fork: the child of a process that had decoded a video was seen to stop
    for good in its first `av.open`.

    Args:
        modules: names of those that the server imports once, for all processes.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vivit_zoo.system.server", *modules])
    return context
