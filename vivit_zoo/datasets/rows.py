"""Text files as rows with their line numbers, and the rows that cannot be used."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Line", "Problem", "Row", "RowsError", "parse_json", "read_csv", "read_jsonl", "read_lines", "read_text"]

Line = tuple[int, str]  # its number, from 1, and its text
LONGEST_CELL = 50  # lines, beyond which a quote is taken for one that is not closed


class Problem(NamedTuple):
    """A row that cannot be used: where it is, and why."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"

    @property
    def place(self) -> int:
        """The number in "line 7" or "row 7", to sort by; 0 for other places, which are found in order."""
        number = re.fullmatch(r"\w+ (\d+)", self.where)
        return int(number[1]) if number else 0


class Row(NamedTuple):
    """A row of a table: its line, its text in the file, and its cells by column."""

    line: int
    text: str
    cells: dict[str, Any]

    @property
    def where(self) -> str:
        return f"line {self.line}"


class RowsError(ValueError):
    """Rows of a source that cannot be used; `problems` holds all of them, the message the first fifty.

    Args:
        name: of the source.
        problems: all of them.
        rows: how many the source has.
        listed: whether a list of the others can be written.
    """

    def __init__(self, name: str, problems: Sequence[Problem], rows: int, listed: bool = True) -> None:
        self.problems = list(problems)
        shown = "".join(f"\n  {problem}" for problem in self.problems[:50])
        more = f"\n  ... and {len(self.problems) - 50} more" if len(self.problems) > 50 else ""
        remedy = "Correct them" + ", or write a list of the others: vivit-zoo check-data SOURCE --fix OUT" * listed
        super().__init__(f"{name}: {len(self.problems)} of {rows} rows cannot be used:{shown}{more}\n{remedy}")


def read_text(path: Path) -> str:
    """A text file in UTF-8, without its byte order mark.

    Raises:
        ValueError: if it is something else.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"{path}: is text in UTF-16; save it as UTF-8") from error
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}: is neither a list in UTF-8 text (byte {error.start}, in line {line}, is none), nor shards "
            "(.tar), nor a folder; save a list in another encoding as UTF-8"
        ) from error


def read_lines(text: str) -> list[Line]:
    """The lines that are not blank, with their numbers. Only ends of lines end them, unlike in `str.splitlines`."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_csv(lines: Sequence[Line], delimiter: str, name: str) -> tuple[list[Row], list[Problem]]:
    """A table with a header -> its rows, with column names in small letters, and the rows that do not fit the header.

    Raises:
        ValueError: if the header cannot be read or names a column twice.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    columns: list[str] | None = None
    for number, text, cells in _records(lines, delimiter):
        found = None if isinstance(cells, str) else [cell.strip() for cell in cells]
        if columns is None:
            if found is None:
                raise ValueError(f"{name}, line {number}: the header cannot be read ({cells})")
            columns = [cell.lower() for cell in found]
            doubled = [column for column, count in Counter(columns).items() if column and count > 1]
            if doubled:
                raise ValueError(f"{name}, line {number}: the header names the column {doubled[0]!r} twice")
            continue
        where = f"line {number}"
        if found is None:
            problems.append(Problem(where, f"{cells}; a quote that belongs to a cell is written twice"))
        elif [cell.lower() for cell in found] == columns:
            problems.append(Problem(where, "the header again"))
        elif len(found) < len(columns):
            problems.append(Problem(where, f"has {len(found)} cells, the header {len(columns)}"))
        elif any(found[len(columns) :]):
            quotes = f"; put quotes around a cell with {delimiter!r} in it"
            problems.append(Problem(where, f"has {len(found)} cells, the header {len(columns)}{quotes}"))
        else:
            rows.append(Row(number, text, dict(zip(columns, found, strict=False))))
    return rows, problems


def _records(lines: Sequence[Line], delimiter: str) -> Iterator[tuple[int, str, list[str] | str]]:
    """Each record with its line, its text, and its cells or what is wrong with it.

    A line is read alone where that is possible, so that one quote that is not closed does not swallow the lines below.
    """
    at = 0
    while at < len(lines):
        number, text = lines[at]
        if '"' not in text:
            at += 1
            yield number, text, text.split(delimiter)
            continue
        cells: list[str] | str = ""
        for end in range(at + 1, min(at + LONGEST_CELL, len(lines)) + 1):
            text = "\n".join(line for _, line in lines[at:end])
            try:
                (cells,) = csv.reader([text], delimiter=delimiter, strict=True)
                at = end
                break
            except csv.Error as error:
                cells = f"cannot be split into cells ({error})"
                if "unexpected end of data" not in str(error):  # more lines do not help
                    break
            except ValueError:  # more than one record
                break
        if isinstance(cells, str):
            number, text = lines[at]
            at += 1
        yield number, text, cells


def read_jsonl(lines: Sequence[Line]) -> tuple[list[Row], list[Problem]]:
    """A JSON object a line -> rows, with column names in small letters, and the lines that are none."""
    rows: list[Row] = []
    problems: list[Problem] = []
    for number, text in lines:
        try:
            value = parse_json(text)
            if not isinstance(value, dict):
                raise ValueError(f"it is a {type(value).__name__}")
            cells = _without_doubles([(name.strip().lower(), cell) for name, cell in value.items()])
        except ValueError as error:
            problems.append(Problem(f"line {number}", f"is no JSON object ({error})"))
        else:
            rows.append(Row(number, text, cells))
    return rows, problems


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: if it is none, or names a value twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values; `json` itself keeps the last of two values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        doubled = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"it names {doubled!r} twice")
    return found
