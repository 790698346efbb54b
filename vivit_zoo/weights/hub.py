"""Whether the Hugging Face hub can be reached, asked once and without waiting."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["cache_advice", "cache_if_unreachable", "hub_error"]

TIMEOUT = 10.0  # seconds


def hub_error() -> Exception | None:
    """The error of a first request to the hub, or None.

    huggingface_hub repeats a request that finds no network six times, which takes half a minute.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except Exception as error:  # of requests or of httpx, which depends on the version of huggingface_hub
        return error
    return None


@contextmanager
def cache_if_unreachable() -> Iterator[Exception | None]:
    """Let other libraries read the hub's cache alone within the block if the hub cannot be reached.

    Gives the error of `hub_error`. It sets what the environment variable HF_HUB_OFFLINE sets, which the client reads
    only when it is imported.
    """
    from huggingface_hub import constants

    error, before = hub_error(), constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or error is not None
    try:
        yield error
    finally:
        constants.HF_HUB_OFFLINE = before


def cache_advice(error: Exception) -> str:
    """What to do about an error of a cache that cannot be written, or nothing for other errors."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
        return "; set the environment variable HF_HOME to a folder where files can be written"
    return ""
