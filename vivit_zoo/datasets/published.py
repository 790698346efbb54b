"""The lists of published data sets: Kinetics, Something-Something v2, EPIC-KITCHENS-100."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vivit_zoo.datasets.folders import only_file, videos_by_stem
from vivit_zoo.datasets.labels import class_names
from vivit_zoo.datasets.listing import Listing, Sample
from vivit_zoo.datasets.rows import Problem, Row, parse_json, read_csv, read_lines, read_text
from vivit_zoo.datasets.sources import FrameFolder, Place, VideoFile

__all__ = ["epic_kitchens", "kinetics", "something_something"]


def kinetics(rows: list[Row], root: Path, source: Path) -> Listing:
    """Kinetics' csv: files {youtube_id}_{time_start:06}_{time_end:06}.* anywhere under the root; many are gone."""
    if rows and "label" not in rows[0].cells:
        raise ValueError(f"{source}: has no column 'label'; the lists of the test split without labels cannot be used")
    listing = Listing(classes=class_names([row.cells["label"] for row in rows]))  # also of the videos that are gone
    files = videos_by_stem(root)

    def read(row: Row) -> None:
        start, end = (_number(row.cells, column, float) for column in ("time_start", "time_end"))
        name = f"{_text(row.cells, 'youtube_id')}_{int(start):06}_{int(end):06}"
        if (video := only_file(files, name)) is None:
            listing.absent.append(name)
        else:
            listing.samples.append(Sample(video, row.cells["label"], row.where, row.text))

    _read_each(rows, read, listing)
    return listing


def something_something(source: Path, root: Path) -> Listing:
    """Something-Something v2: train.json or validation.json with labels.json beside it; files {id}.* under the root."""
    clips = _read_json(source)
    if not (isinstance(clips, list) and clips and any(isinstance(clip, dict) and "template" in clip for clip in clips)):
        raise ValueError(f"{source}: is not like Something-Something's train.json, a list of entries with a 'template'")
    beside = sorted(source.parent.glob("*labels.json"))
    if len(beside) != 1:
        raise ValueError(f"{source}: needs one labels.json in the same folder; found {[path.name for path in beside]}")
    listing = Listing(classes=_labels_json(beside[0]), header="[", footer="]")
    files = videos_by_stem(root)
    rows = [Row(number, json.dumps(clip), clip) for number, clip in enumerate(clips, 1)]

    def read(row: Row) -> None:
        if not isinstance(row.cells, dict):
            raise ValueError(f"{row.cells!r} is no object")
        name = str(row.cells.get("id", ""))
        label = _text(row.cells, "template").replace("[", "").replace("]", "")
        if (video := only_file(files, name)) is None:
            listing.absent.append(name)
        else:
            listing.samples.append(Sample(video, label, f"entry {row.line}", row.text))

    _read_each(rows, read, listing, "entry")
    return listing


def _labels_json(file: Path) -> list[str]:
    """The names in labels.json, {"name": "number"}, in the order of their numbers."""
    numbers = _read_json(file)
    try:
        by_number = {int(number): name for name, number in numbers.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: must be an object of names with their numbers ({error})") from error
    if sorted(by_number) != list(range(len(numbers))):
        raise ValueError(f"{file}: its numbers must be 0 to {len(numbers) - 1}, each once")
    return [by_number[number] for number in range(len(numbers))]


def epic_kitchens(rows: list[Row], root: Path, source: Path) -> Listing:
    """EPIC-KITCHENS-100's csv: labels by head, verb and noun. Takes the folder of frames, or the part of the video.

    They are looked for where the data set's own downloader puts them: P01/rgb_frames/P01_01/, P01/videos/P01_01.MP4, or
    directly under the root. Names of the classes come from EPIC_100_verb_classes.csv and ..noun.. beside the list.
    """
    heads = ("verb", "noun")
    listing = Listing(heads=heads, classes={head: _epic_classes(source, head) for head in heads})
    places: dict[str, Path | None] = {}

    def read(row: Row) -> None:
        name = _text(row.cells, "video_id")
        person = name.split("_")[0]
        if name not in places:
            inside = [f"{person}/rgb_frames/{name}", f"{person}/{name}", name]
            inside += [f"{person}/videos/{name}.MP4", f"{person}/{name}.MP4", f"{name}.MP4"]
            places[name] = next((root / place for place in inside if (root / place).exists()), None)
        place = places[name]
        if place is None:
            listing.absent.append(name)
            return
        video: Place
        if place.is_dir():  # frames are numbered from 1
            first, last = (_number(row.cells, column, int) for column in ("start_frame", "stop_frame"))
            if not 1 <= first <= last:
                raise ValueError(f"start_frame {first} and stop_frame {last} are no part of a video")
            video = FrameFolder(place, int(first) - 1, int(last) - int(first) + 1)
        else:
            start, stop = (_seconds(row.cells, column) for column in ("start_timestamp", "stop_timestamp"))
            if not start < stop:
                raise ValueError(f"start_timestamp {start:g} s and stop_timestamp {stop:g} s are no part of a video")
            video = VideoFile(place, start, stop)
        label = {head: row.cells[f"{head}_class"] for head in heads}
        listing.samples.append(Sample(video, label, row.where, row.text))

    _read_each(rows, read, listing)
    return listing


def _epic_classes(source: Path, head: str) -> list[str]:
    file = source.with_name(f"EPIC_100_{head}_classes.csv")
    if not file.exists():
        return [str(number) for number in range({"verb": 97, "noun": 300}[head])]
    rows, problems = read_csv(read_lines(read_text(file)), ",", str(file))
    if problems:
        raise ValueError(f"{file}, {problems[0]}")
    try:
        names = {int(row.cells["id"]): row.cells["key"] for row in rows}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file}: must have the columns id, of numbers, and key ({error})") from error
    if sorted(names) != list(range(len(rows))):
        raise ValueError(f"{file}: its ids must be 0 to {len(rows) - 1}, each once")
    return [names[number] for number in range(len(rows))]


def _read_each(rows: list[Row], read: Callable[[Row], None], listing: Listing, kind: str = "line") -> None:
    """Read every row; those that cannot be used become problems."""
    for row in rows:
        try:
            read(row)
        except ValueError as error:
            listing.problems.append(Problem(f"{kind} {row.line}", str(error)))


def _text(cells: dict[str, Any], column: str) -> str:
    value = cells.get(column)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"the cell {column!r} is {'missing' if value is None else repr(value)}, not a text")
    return value


def _number(cells: dict[str, Any], column: str, kind: Callable[[Any], float]) -> float:
    value = cells.get(column)
    try:
        number = kind(value)
        if not 0 <= number < 1e12:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"the cell {column!r} is {value!r}, not a number from 0 on") from None
    return number


def _seconds(cells: dict[str, Any], column: str) -> float:
    """A time such as 01:02:03.50 in seconds."""
    try:
        hours, minutes, seconds = (float(part) for part in str(cells.get(column)).split(":"))
        time = hours * 3600 + minutes * 60 + seconds
        if not 0 <= time < 1e9:
            raise ValueError
    except ValueError:
        raise ValueError(f"the cell {column!r} is {cells.get(column)!r}, not a time such as 00:01:02.50") from None
    return time


def _read_json(path: Path) -> Any:
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error})") from error
