"""Labels: one set of rules for all formats, from a cell's text or a JSON value to class numbers or scores.

A label is a class number, a class name, several of these, or a score, as the task says. What is none is refused with
the reason: an empty cell, `nan`, a decimal number in place of a class number, a list in place of one label. Labels of
one source are of one kind, numbers or names.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from vivit_zoo.datasets.rows import parse_json, read_text
from vivit_zoo.datasets.sources import is_video

__all__ = [
    "Classes",
    "Label",
    "LabelError",
    "Numbered",
    "Task",
    "check_task",
    "class_names",
    "number_labels",
    "read_class_list",
]

Task = Literal["single_label", "multi_label", "regression"]
Label = int | tuple[int, ...] | float | tuple[float, ...] | dict[str, int]
Classes = Sequence[str] | dict[str, Sequence[str]]

SCORE = "score"  # the name of a target that has none
MOST_CLASSES = 1_000_000  # with more, numbers are dates or ids: a model's head would have a row for each number below
# What spreadsheets, pandas and databases write where there is no value.
_MISSING = {"nan", "-nan", "null", "none", "na", "n/a", "<na>", "#n/a"}
_HEADERS = {"class", "classes", "class_name", "name", "names", "label", "labels", "category"}
_HEADERS |= {"classname", "id,name"}


class LabelError(ValueError):
    """A value that is no label; the message says why and what to do."""


class Numbered(NamedTuple):
    """The labels of a source as numbers.

    Args:
        labels: a class number for each value, a rising tuple of them, a score or a tuple of scores; None for a value
            that is no label.
        classes: names by class number, for several heads a dictionary of them; names of the targets for scores.
        problems: why a value is no label, by its place.
        notes: what is allowed but looks like a mistake.
        by_name: whether the values are names of classes, or numbers that the source itself names.
    """

    labels: list[Any]
    classes: Classes
    problems: dict[int, str]
    notes: list[str]
    by_name: bool = False


def check_task(task: str, targets: Sequence[str] = ()) -> None:
    """Refuse an unknown task, and targets of a task that has none.

    Raises:
        ValueError: with the tasks that there are.
    """
    if task not in get_args(Task):
        raise ValueError(f"task {task!r} is unknown; choose from {', '.join(get_args(Task))}")
    if targets and task != "regression":
        raise ValueError(f"targets {', '.join(targets)} are of the task 'regression'; leave them out for {task!r}")
    if len({name.strip().lower() for name in targets}) < len(targets):
        raise ValueError(f"targets {', '.join(targets)} name a column twice")


def number_labels(
    values: Sequence[Any], task: Task = "single_label", own: Sequence[str] | None = None,
    given: Sequence[str] | None = None, targets: Sequence[str] = (),
) -> Numbered:  # fmt: skip
    """Labels as they stand in a source -> class numbers or scores.

    Numbers stay as they are, unless source and caller both name the classes: then the names decide.

    Args:
        values: texts, or values of JSON or of a table; with `targets` a list of them for each video.
        task: what a label is.
        own: names by class number that the source gives.
        given: names by class number that the caller gives, such as those of the training set.
        targets: names of the scores of a video, for "regression"; () for one score without a name.

    Raises:
        ValueError: if the names of the classes cannot be used, or the labels fit them in two ways.
    """
    own, given = _names(own, "the source"), _names(given, "the caller")
    if task == "regression":
        scores, problems = _parse(values, partial(_scores, targets) if targets else _score)
        return Numbered(scores, list(targets) or [SCORE], problems, [])
    known = {*(own or ()), *(given or ())}
    parse = (lambda value: (_one(value, known),)) if task == "single_label" else (lambda value: _several(value, known))
    parsed, problems = _parse(values, parse)
    parsed = _of_one_kind(parsed, problems, known)
    labels = {one for several in parsed for one in several or ()}
    if any(isinstance(one, int) for one in labels):
        numbering = _by_number(labels, own, given)
    else:
        numbering = _by_name(labels, own, given)
    classes, notes, number_of = numbering
    numbers: list[Any] = []
    for row, several in enumerate(parsed):
        try:
            found = None if several is None else tuple(sorted(number_of(one) for one in several))
        except LabelError as error:
            found, problems[row] = None, str(error)
        numbers.append(found[0] if found and task == "single_label" else found)
    by_name = own is not None or any(isinstance(one, str) for one in labels)
    return Numbered(numbers, classes, problems, notes, by_name)


def class_names(values: Sequence[Any]) -> list[str] | None:
    """The sorted class names among labels as they stand in a source; None where they are numbers."""
    parsed = _of_one_kind(_parse(values, lambda value: (_one(value, ()),))[0], {}, ())
    names = sorted({one for labels in parsed for one in labels or () if isinstance(one, str)})
    _check_spellings(names)
    return names or None


def read_class_list(file: Path) -> list[str]:
    """The names of classes from a file with one a line, in the order of their numbers from 0.

    Raises:
        ValueError: naming the line, if it is empty, repeats a name, is a header or no text that can be printed, or if
            the lines begin or end with numbers, or are JSON.
    """
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file; give one with the names of the classes, one a line")
    text = read_text(file).replace("\r\n", "\n").replace("\r", "\n").rstrip()
    lines = [line.strip() for line in text.split("\n")]
    if not text:
        raise ValueError(f"{file}: the list of classes is empty")
    if re.sub(r"\s", "", lines[0].lower()) in _HEADERS:
        raise ValueError(f"{file}, line 1: {lines[0]!r} looks like a header; remove it, or it would be class 0")
    if lines[0].startswith(("[", "{")):
        raise ValueError(f"{file}, line 1: {_short(lines[0])} looks like JSON; write one name a line")
    for verb, pattern in (
        ("begins", r"(?P<number>\d+)[\s,;:.]+(?P<name>\S.*)"),
        ("ends", r"(?P<name>.*\S)[\s,;:]+(?P<number>\d+)"),
    ):
        numbered = [re.fullmatch(pattern, line) for line in lines]
        if verb == "ends" and len({match["name"] for match in numbered if match}) < len(lines):
            continue  # such as "stage 1" and "stage 2"
        if len(lines) > 1 and all(numbered) and {int(match["number"]) for match in numbered if match} in (
            set(range(len(lines))), set(range(1, len(lines) + 1)),
        ):  # fmt: skip
            raise ValueError(
                f"{file}, line 1: {lines[0]!r} {verb} with a number, as all lines do; give the names alone, in the "
                "order of their numbers from 0, and count the labels from 0"
            )
    for number, line in enumerate(lines, 1):
        if not line.isprintable():
            raise ValueError(f"{file}, line {number}: {line!r} is no name alone; write one name a line, and no tab")
    return _names(lines, str(file)) or []


def _names(names: Sequence[str] | None, whose: str) -> list[str] | None:
    """Names of classes, checked and in one spelling of Unicode."""
    if names is None:
        return None
    if isinstance(names, dict):
        raise ValueError(f"one label a video, but classes are given by head: {', '.join(names)}")
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{whose} names class {number} {name!r}; a name is a text that is not empty")
    spelt = [unicodedata.normalize("NFC", name) for name in names]
    if doubled := [name for name, count in Counter(spelt).items() if count > 1]:
        raise ValueError(f"{whose} names {len(doubled)} classes twice: {_some(doubled)}")
    return spelt


def _parse(values: Sequence[Any], parse: Callable[[Any], Any]) -> tuple[list[Any], dict[int, str]]:
    parsed: list[Any] = []
    problems = {}
    seen: dict[str, Any] = {}  # texts come many times
    for row, value in enumerate(values):
        found = seen.get(value) if isinstance(value, str) else None
        if found is None:
            try:
                found = parse(value)
            except LabelError as error:
                problems[row] = str(error)
            else:
                if isinstance(value, str):
                    seen[value] = found
        parsed.append(found)
    return parsed, problems


def _one(value: Any, known: Collection[str]) -> int | str:
    """A class number or a class name."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if not isinstance(value, str):
        raise LabelError(_why_no_label(value))
    text = _clean(value)
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if text in known:
        return text
    if not text:
        raise LabelError("the label is empty")
    if text.lower() in _MISSING:
        raise LabelError(f"the label {text!r} stands for a missing value; if a class is called so, name the classes")
    if re.fullmatch(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?inf(inity)?", text, re.IGNORECASE):
        raise LabelError(_why_no_label_number(text))
    if ";" in text or text[0] in "[{" or re.fullmatch(r"\d+(\s*[,|/ ]\s*\d+)+", text):
        raise LabelError(
            f"the label {_short(text)} looks like several labels; one is wanted. For several, separated by ';' or as a "
            "JSON list, the task is multi_label"
        )
    if is_video(text):
        raise LabelError(f"the label {_short(text)} is the name of a file; put quotes around a path with a comma in it")
    if not text.isprintable():
        raise LabelError(f"the label {_short(text)} has characters that cannot be printed, such as the end of a line")
    return text


def _clean(text: str) -> str:
    return unicodedata.normalize("NFC", text.lstrip("\ufeff").strip())


def _why_no_label(value: Any) -> str:
    if value is None:
        return "the label is missing (null)"
    if isinstance(value, bool):
        return f"the label {value!r} is a truth value; write a class number or a name"
    if isinstance(value, Real):
        return _why_no_label_number(value)
    if isinstance(value, list | tuple):
        return f"the label {_short(value)} is a list; one label is wanted. For several the task is multi_label"
    return f"the label {_short(value)} is of the type {type(value).__name__}; write a class number or a name"


def _why_no_label_number(value: Any) -> str:
    return (
        f"the label {_cut(str(value))} is no class number, which is whole; for scores the task is regression, and a "
        "class called so needs the names of the classes"
    )


def _several(value: Any, known: Collection[str]) -> tuple[int | str, ...]:
    """Class numbers or names: of a list, of a JSON list as text, or of a text with ';' between them."""
    if isinstance(value, str):
        text = _clean(value)
        if not text:
            raise LabelError("the label is empty; write [] for a video without any of the classes")
        if text.startswith("["):
            try:
                value = parse_json(text)
            except ValueError as error:
                raise LabelError(f"the label {_short(text)} is no JSON list ({error})") from error
        else:
            value = text.split(";")
    elif not isinstance(value, list | tuple):
        value = [value]
    labels = tuple(_one(one, known) for one in value)
    if len(set(labels)) < len(labels):
        raise LabelError(
            f"the labels {_short(value)} name a class twice; give the numbers or names of the classes that apply, not "
            "a row of zeros and ones"
        )
    return labels


def _scores(targets: Sequence[str], values: Sequence[Any]) -> tuple[float, ...]:
    scores = []
    for name, value in zip(targets, values, strict=True):
        try:
            scores.append(_score(value))
        except LabelError as error:
            raise LabelError(f"{name}: {error}") from error
    return tuple(scores)


def _score(value: Any) -> float:
    if isinstance(value, str):
        text = _clean(value)
        if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
            decimal = "; write a decimal point" if re.fullmatch(r"-?\d+,\d+", text) else ""
            raise LabelError(f"the label {_short(text)} is no number{decimal}" if text else "the label is empty")
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise LabelError("the label is missing (null)" if value is None else f"the label {_short(value)} is no number")
    try:
        score = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        score = float("inf")
    if not isfinite(score):
        raise LabelError(f"the label {_short(value)} is no finite number")
    return score


def _of_one_kind(parsed: list[Any], problems: dict[int, str], known: Collection[str]) -> list[Any]:
    """All numbers or all names; the rows of the rarer kind become problems."""
    kinds = Counter("name" if isinstance(one, str) else "number" for labels in parsed for one in labels or ())
    if len(kinds) < 2:
        return parsed
    if all(str(one) in known for labels in parsed for one in labels or ()):
        return [labels and tuple(str(one) for one in labels) for labels in parsed]
    usual = "number" if kinds["number"] >= kinds["name"] else "name"
    checked = list(parsed)
    for row, labels in enumerate(parsed):
        odd = [one for one in labels or () if (usual == "name") != isinstance(one, str)]
        if odd:
            other = "name" if usual == "number" else "number"
            problems[row] = f"the label {_short(odd[0])} is a {other}, where {kinds[usual]} labels are {usual}s"
            checked[row] = None
    return checked


Numbering = tuple[Sequence[str], list[str], Callable[[Any], int]]  # names of the classes, notes, label -> class number


def _by_name(labels: set[str], own: list[str] | None, given: list[str] | None) -> Numbering:
    names = given or own or sorted(labels)
    if given is None and own is None:
        _check_spellings(names)
    numbers = {name: number for number, name in enumerate(names)}

    def number_of(label: str) -> int:
        if label not in numbers:
            raise LabelError(
                f"the label {label!r} is not among the {len(names)} classes, such as {_some(names[:3])}; the classes "
                "of a test set are those of the training set"
            )
        return numbers[label]

    return names, [], number_of


def _by_number(labels: set[int], own: list[str] | None, given: list[str] | None) -> Numbering:
    if own is not None and given is not None:  # the source's own numbers and names, in another order than the caller's
        _, notes, own_number = _by_number(labels, own, None)
        names, _, number_of_name = _by_name(set(own), None, given)
        return names, notes, lambda label: number_of_name(own[own_number(label)])
    named, used = own or given, {label for label in labels if 0 <= label < MOST_CLASSES}
    top = max(used, default=-1)
    names = named or [str(number) for number in range(top + 1)]
    from_one = used == set(range(1, top + 1)) and top > 1
    shift = f"; labels seem to be counted from 1, they go to {top}: subtract 1 from each" if from_one else ""
    notes = []
    if given is not None and any(name.isdigit() and name != str(number) for number, name in enumerate(names)):
        raise ValueError("labels are numbers, and so are the names of the classes given, in another order")
    if from_one and top < len(names):
        notes.append(
            f"labels go from 1 to {top}, and none is 0. If they are counted from 1, subtract 1 from each: class "
            "numbers are counted from 0"
        )

    def number_of(label: int) -> int:
        if label < 0:
            raise LabelError(f"the label {label} is below 0, where class numbers begin; -1 often stands for no label")
        if named is None and label >= MOST_CLASSES:
            raise LabelError(
                f"the label {_cut(str(label))} is no class number, of which there are at most {MOST_CLASSES}, "
                "counted from 0; number the classes without gaps, or give their names"
            )
        if label >= len(names):
            raise LabelError(f"the label {label} is not in 0 to {len(names) - 1}, the numbers of the classes{shift}")
        return label

    return names, notes, number_of


def _check_spellings(names: list[str]) -> None:
    """Refuse names that only capitals, spaces, hyphens or underscores tell apart."""
    spelt: dict[str, str] = {}
    for name in names:
        other = spelt.setdefault(re.sub(r"[\s_-]+", " ", name).casefold(), name)
        if other != name:
            found = f"the labels {other!r} and {name!r} seem to be one class in two spellings"
            raise ValueError(f"{found}; spell it alike, or give the names of the classes")


def _short(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _some(values: Sequence[Any]) -> str:
    return ", ".join(map(repr, values[:5])) + (", ..." if len(values) > 5 else "")
