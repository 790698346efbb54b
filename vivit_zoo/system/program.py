"""The messages of commands: the name of the running one, warnings in one line, unknown options."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

__all__ = ["PROGRAM", "error_text", "plain_warnings", "program", "unknown_argument"]

PROGRAM = "__program__"  # a global of a script that `vivit-zoo train` or `vivit-zoo study` runs


def program() -> str:
    """The name of the command, such as "vivit-zoo train" or "own_videos.py"."""
    return getattr(sys.modules["__main__"], PROGRAM, None) or Path(sys.argv[0]).name


@contextmanager
def plain_warnings(name: str = "") -> Iterator[None]:
    """Print warnings that are for the user as "name: warning: text", without the file and line of the code.

    Args:
        name: of the command; by default that of `program`.
    """
    name, usual = name or program(), warnings.formatwarning

    def format_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, UserWarning):
            return f"{name}: warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning
    try:
        yield
    finally:
        warnings.formatwarning = usual


def error_text(error: BaseException) -> str:
    """The message of an error; of one about a file, its name and the reason, without the number of the error."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def unknown_argument(word: str, options: Iterable[str]) -> str:
    """What to say of a word on the command line that no option takes, with the options of similar names."""
    if not word.startswith("-"):
        return f"{word!r} is one argument too many"
    name = word.partition("=")[0]
    similar = get_close_matches(name, list(options), 2)
    return f"there is no option {name}" + (f"; did you mean {' or '.join(similar)}?" if similar else "")
