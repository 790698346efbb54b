"""The parser of training scripts and studies: an option for every field of `TrainConfig`, errors in plain words."""

import dataclasses
import re
import sys
import types
from argparse import SUPPRESS, Action, RawDescriptionHelpFormatter
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from vivit_zoo.system.program import program, unknown_argument
from vivit_zoo.training.config import TrainConfig
from vivit_zoo.training.help import TRAIN_HELP

__all__ = ["make_parser"]

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def make_parser(
    doc: str, base: TrainConfig, skip: Collection[str] = (), short_help: str = TRAIN_HELP
) -> ArgumentParser:
    """A parser with an option for every field of `TrainConfig`, such as --lr, --model.depth, --data.train.

    --help prints the script's docstring and the options that matter first, --help-all every option.

    Args:
        doc: the script's docstring, printed as it is written.
        base: the defaults.
        skip: dotted names of fields that are no options.
        short_help: the options that --help prints.
    """
    parser = _Parser(
        prog=program(),
        usage="%(prog)s [options]",
        description=doc,
        formatter_class=_HelpAsWritten,
        allow_abbrev=False,
        add_help=False,
    )
    text = f"{doc.strip()}\n\n{short_help}"
    parser.add_argument("-h", "--help", action=_PrintAndExit, text=text, help="print the options that matter most")
    parser.add_argument("--help-all", action="help", help="print every option")
    parser.add_class_arguments(TrainConfig, skip=set(skip))
    defaults = dataclasses.asdict(base)
    for name in skip:
        *path, last = name.split(".")
        fields = defaults
        for part in path:
            fields = fields[part]
        del fields[last]
    parser.set_defaults(defaults)
    return parser


class _Parser(ArgumentParser):
    """Says in a line what is wrong, what an option takes, and which options have similar names."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with code 2."""
        print(f"{self.prog}: error: {self._in_words(message)}; {self.prog} --help-all lists all", file=sys.stderr)
        sys.exit(2)

    def _in_words(self, message: str) -> str:
        if found := re.match(r"unrecognized arguments: (.*)", message):
            names = self.get_defaults().keys()
            return unknown_argument(found[1].split()[0], [f"--{name}" for name in names])
        if found := re.match(r'Parser key "([\w.]+)":.*(?:Got value|Given value): (.*)', message, re.DOTALL):
            kind = _kind(found[1]) or getattr(self._find(found[1]), "_typehint", None)
            takes = _takes(kind) if kind is not None else "another value"
            return f"--{found[1]} takes {takes}, got {found[2].strip()!r}"
        return " ".join(message.split())

    def _find(self, name: str) -> Any:
        return next((action for action in self._actions if action.dest == name), None)


def _kind(name: str) -> Any:
    """The type of a field of `TrainConfig`, by its dotted name; None where it has none such."""
    kind: Any = TrainConfig
    for part in name.split("."):
        if not dataclasses.is_dataclass(kind):
            return None
        kind = get_type_hints(kind).get(part)
    return kind


def _takes(kind: Any) -> str:
    """What values a type has, in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"{'one of ' * (len(inner) > 1)}{', '.join(map(str, inner))}"
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else _takes(one) for one in inner)
    if origin in (tuple, list):
        count = "" if Ellipsis in inner else f"{len(inner)} "
        example = {int: "1,2,3", float: "0.5,1,2"}.get(inner[0], "a,b,c").split(",")
        several = ",".join(example if not count else (example * len(inner))[: len(inner)])
        return f"a list of {count}{WORDS.get(inner[0], 'value').removeprefix('a ')}s, such as '[{several}]'"
    if origin is dict:
        return "a dictionary, such as '{noun: 300, verb: 97}'"
    return WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")


class _PrintAndExit(Action):
    """An option that prints a text and exits."""

    def __init__(self, option_strings: list[str], dest: str = SUPPRESS, *, text: str = "", help: str = "") -> None:
        super().__init__(option_strings, dest, nargs=0, default=SUPPRESS, help=help)
        self.text = text

    def __call__(self, parser: Any, *_: Any) -> None:
        print(self.text)
        parser.exit()


class _HelpAsWritten(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """A help formatter that keeps the lines of the docstring."""
