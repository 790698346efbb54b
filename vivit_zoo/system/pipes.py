"""End quietly where the reader of the output has gone, as `head` does after ten lines."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["BROKEN_PIPE", "exit_if_pipe_closes"]

BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells report a program that writes into a closed pipe


@contextmanager
def exit_if_pipe_closes() -> Iterator[None]:
    """Exit without a traceback if stdout is closed within the block; as a decorator, within the function.

    Raises:
        SystemExit: with code 141.
    """
    try:
        try:
            yield
        finally:  # also when argparse exits after --help
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout again when it exits, which would print the same error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None
