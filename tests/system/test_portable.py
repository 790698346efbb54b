"""What the sources must not do, so that they also run on Windows and macOS."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [file for folder in ("vivit_zoo", "experiments", "docs", ".ci") for file in (ROOT / folder).rglob("*.py")]
OPTIONS_OF_OPEN = {"mode", "buffering", "encoding", "errors", "newline"}
OTHER_OPEN = ("av", "os", "tarfile", "Image")  # modules whose `open` takes no encoding


def opens_text(call: ast.Call) -> bool:
    """Whether a call reads or writes a text file."""
    match call.func:
        case ast.Attribute(attr="read_text" | "write_text"):
            return True
        case ast.Attribute(attr="open", value=ast.Name(id=name)) if name in OTHER_OPEN:
            return False
        case ast.Name(id="open") | ast.Attribute(attr="open"):
            values = [*call.args, *(option.value for option in call.keywords if option.arg == "mode")]
            modes = [value.value for value in values if isinstance(value, ast.Constant)]
            return {option.arg for option in call.keywords} <= OPTIONS_OF_OPEN and not any("b" in m for m in modes)
    return False


def without_encoding(source: str) -> list[str]:
    """The calls that open a text file in the encoding of the machine, which on Windows is not UTF-8."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and opens_text(node)]
    return [ast.unparse(call) for call in calls if not any(option.arg == "encoding" for option in call.keywords)]


def test_text_files_are_utf8_on_every_machine():
    assert len(SOURCES) > 100
    assert {str(file): found for file in SOURCES if (found := without_encoding(file.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("file.read_text()", 1),
        ("file.write_text(text, errors='replace')", 1),
        ("open(name)", 1),
        ("file.open('a')", 1),
        ("file.open(mode='w')", 1),
        ("file.open('a', encoding='utf-8')", 0),
        ("file.open('rb')", 0),
        ("open(name, 'wb')", 0),
        ("av.open(name)", 0),
        ("source.open(threads=1)", 0),
    ],
)
def test_what_counts_as_a_text_file(source, found):
    assert len(without_encoding(source)) == found
