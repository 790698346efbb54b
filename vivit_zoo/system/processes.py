"""How worker processes and the cells of a study are started."""

import multiprocessing
from typing import Any

__all__ = ["process_context"]


def process_context(*modules: str) -> Any:
    """Return the multiprocessing context: a fork server that has not decoded a video.

    FFmpeg's locks and threads do not survive a fork. A child of a process that had decoded a video was seen to hang in
    its first `av.open`.

    Args:
        modules: names of modules that the server imports once for all processes.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vivit_zoo.system.server", *modules])
    return context
