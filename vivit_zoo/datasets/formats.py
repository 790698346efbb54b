"""The formats that data sets of videos come in: one function each, from a source to a `Listing`.

A new format is one more function, and a line in one of the tables `COLUMNS` and `FOLDERS`, which tell formats by what
is in them.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vivit_zoo.datasets.folders import folder_by_class
from vivit_zoo.datasets.listing import Listing, Sample, place_at, video_at
from vivit_zoo.datasets.published import epic_kitchens, kinetics, something_something
from vivit_zoo.datasets.rows import Line, Problem, Row, parse_json, read_csv, read_jsonl, read_lines, read_text
from vivit_zoo.datasets.shards import expand, read_samples
from vivit_zoo.datasets.sources import FrameFolder, TableRow, is_video

__all__ = ["hugging_face", "read_listing", "webdataset"]

_PATHS = ("path", "file_name", "filename", "file", "video", "video_path", "filepath")
_LABELS = ("label", "labels", "class", "class_name", "label_name", "category", "target", "score")


def read_listing(source: Path, root: Path | None, video_key: str = "", targets: Sequence[str] = ()) -> Listing:
    """A file or folder, by the first format that fits; see `read_catalogue`.

    Raises:
        ValueError: if none does, or targets are given and the format has no columns for them.
    """
    if source.is_dir():
        for marks, read_folder in FOLDERS:
            if found := [path for mark in marks for path in sorted(source.glob(mark))]:
                return read_folder(Options(source, found[0], root or source, video_key, targets))
        _refuse_targets(source, targets)
        return folder_by_class(source)
    if not source.is_file():
        raise ValueError(f"{source}: there is no such file or folder")
    if is_video(source):
        raise ValueError(f"{source} is a single video; give a list of videos with labels, or a folder of class folders")
    listing = _read_file(source, root or source.parent, targets)
    listing.suffix = source.suffix
    return listing


def _refuse_targets(source: Path, targets: Sequence[str]) -> None:
    if targets:
        raise ValueError(
            f"{source}: has no columns, so it cannot have the targets {', '.join(targets)}; write a csv with a header, "
            f"path,{','.join(targets)}"
        )


def _read_file(source: Path, root: Path, targets: Sequence[str]) -> Listing:
    if source.suffix == ".json":
        _refuse_targets(source, targets)
        return something_something(source, root)
    lines = read_lines(read_text(source))
    if not lines:
        raise ValueError(f"{source}: the file is empty")
    if source.suffix == ".jsonl":
        rows, problems = read_jsonl(lines)
        listing = table(rows, root, source, targets)
        listing.problems += problems
        return listing
    for delimiter in ",\t; ":
        try:
            names = {name.strip().lower() for name in next(csv.reader([lines[0][1]], delimiter=delimiter))}
        except csv.Error:
            continue
        for columns, read_rows in COLUMNS:
            if names & columns if read_rows is table else names >= columns:
                rows, problems = read_csv(lines, delimiter, str(source))
                if targets and read_rows is not table:
                    _refuse_targets(source, targets)
                listing = table(rows, root, source, targets) if targets else read_rows(rows, root, source)
                listing.problems += problems
                listing.header = lines[0][1]
                return listing
    _refuse_targets(source, targets)
    return list_file(lines, root, source)


def list_file(lines: list[Line], root: Path, source: Path) -> Listing:
    """Lines `path label`, split from the right at a tab, a comma or a space, whichever fits most lines.

    Lists of raw frames are `folder count label` or `folder offset count label`, as of TSN and mmaction2.
    """
    separators = [mark for mark in ("\t", ",") if any(mark in line for _, line in lines)]
    choices = [_split_lines(lines, root, separator) for separator in (*separators, None)]
    most = max(len(choice.samples) for choice in choices)
    best = [choice for choice in choices if len(choice.samples) == most]
    if len(best) > 1 and most:  # two separators fit; then the files tell
        best.sort(key=lambda choice: -sum(sample.video.exists() for sample in choice.samples))
    frames = _frame_list(lines, root) if most < len(lines) else Listing()
    listing = frames if len(frames.samples) > most else best[0]
    if listing.samples:
        return listing
    number, line = lines[0]
    if all(is_video(line.strip()) for _, line in lines):
        folder = Path(line.strip()).parent.name
        hint = f"; the folders in the paths may be the classes, here {folder!r}" if folder else ""
        raise ValueError(
            f"{source}: its lines are paths of videos without labels, such as {line.strip()!r}, as in the test lists "
            f"of UCF101{hint}. Write lines 'path,label'"
        )
    raise ValueError(
        f"{source}, line {number}: {line!r} is not 'path label' with the path of a video or of a folder of images "
        f"under {root}, and no other line is. Lines are split from the right at a tab, a comma or a space, the same in "
        "all lines (a label of several words needs a tab or a comma before it); lists of raw frames are 'folder count "
        "label' or 'folder offset count label'"
    )


def _split_lines(lines: list[Line], root: Path, separator: str | None) -> Listing:
    """Lines `path label` with one separator; None for spaces."""
    listing = Listing(header="")
    for number, line in lines:
        where = f"line {number}"
        try:
            path, label = _split(line, separator)
            video = place_at(root / path)
        except ValueError as error:
            listing.problems.append(Problem(where, str(error)))
            continue
        if video is None:
            listing.problems.append(
                Problem(where, f"{line!r} is not 'path label' with the path of a video or of a folder of images")
            )
        else:
            listing.samples.append(Sample(video, label, where, line))
    return listing


def _split(line: str, separator: str | None) -> tuple[str, str]:
    cells = line.rsplit(separator, 1)
    if separator == ",":
        try:
            cells = next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise ValueError(f"{line!r} cannot be split into cells ({error})") from error
    path, label = ",".join(cells[:-1]).strip(), cells[-1].strip()
    if not path.isprintable():
        raise ValueError(f"the path {path!r} has characters that cannot be printed")
    if not path and is_video(label):
        raise ValueError(f"{line!r} has no label")
    if not path:
        raise ValueError(f"{line!r} is not 'path label'")
    return path, label


def _frame_list(lines: list[Line], root: Path) -> Listing:
    """Lines `folder count label` or `folder offset count label`; empty if no such folder is there.

    The offset counts the frames before the first: 0 for a clip that starts with the first image of the folder.
    """
    pattern = re.compile(r"(.+?)(?:[\s,]+([0-9]{1,9}))?[\s,]+([0-9]{1,9})[\s,]+([^\s,]+)")
    found = [pattern.fullmatch(line.strip()) for _, line in lines]
    with_offset = Counter(match[2] is not None for match in found if match)[True] * 2 > sum(map(bool, found))
    listing = Listing(header="")
    for (number, line), match in zip(lines, found, strict=True):
        if match is None or (match[2] is not None) != with_offset:
            form = "folder offset count label" if with_offset else "folder count label"
            listing.problems.append(Problem(f"line {number}", f"{line!r} is not '{form}', as most lines are"))
        else:
            folder, offset, count, label = match.groups()
            video = FrameFolder(root / folder, int(offset or 0), int(count))
            listing.samples.append(Sample(video, label, f"line {number}", line))
    return listing if any(sample.video.exists() for sample in listing.samples) else Listing()


def table(rows: list[Row], root: Path, source: Path, targets: Sequence[str] = ()) -> Listing:
    """Columns with a header, one of paths and one of labels; also VideoFolder's metadata.csv and metadata.jsonl.

    With `targets`, a label is the list of the values in these columns.
    """
    if not rows:  # none, or none that can be used
        return Listing(header="")
    columns = list(dict.fromkeys(column for row in rows for column in row.cells))
    path_column = next((name for name in _PATHS if name in columns), None)
    wanted = [name.strip().lower() for name in targets]
    if absent := [name for name in wanted if name not in columns]:
        raise ValueError(
            f"{source}: there is no column {absent[0]!r} for a target; the columns are {', '.join(columns)}"
        )
    label_columns = wanted or [name for name in _LABELS if name in columns][:1]
    if path_column is None or not label_columns:
        raise ValueError(
            f"{source}: of the columns {', '.join(columns)} one must hold the paths, called "
            f"{', '.join(_PATHS)}, and one the labels, called {', '.join(_LABELS)}"
        )
    listing = Listing(header="")
    for row in rows:
        try:
            if missing := [column for column in (path_column, *label_columns) if column not in row.cells]:
                raise ValueError(f"has no {missing[0]!r}")
            video = video_at(root, row.cells[path_column])
        except ValueError as error:
            listing.problems.append(Problem(row.where, str(error)))
        else:
            cells = [row.cells[name] for name in label_columns]
            label = cells if targets else cells[0]
            listing.samples.append(Sample(video, label, row.where, row.text))
    return listing


def webdataset(source: str, video_key: str = "") -> Listing:
    """WebDataset shards, by a pattern such as train-{000..015}.tar or train-*.tar; see `vivit_zoo.datasets.shards`."""
    listing = Listing()
    for sample in read_samples(expand(source), video_key):
        if sample.video is None:
            listing.absent.append(sample.key)
        elif sample.problem:
            listing.problems.append(Problem(sample.key, sample.problem))
        else:
            listing.samples.append(Sample(sample.video, sample.label, sample.key))
    return listing


def hugging_face(data: Any, video_key: str = "") -> Listing:
    """A `datasets.Dataset`: its column of videos (or "video", "path", ...) and of labels, names or numbers."""
    features = getattr(data, "features", None)
    if features is None or not hasattr(data, "cast_column") or not hasattr(data, "__len__"):
        raise ValueError(
            f"a source is a path, a pattern of shards or a datasets.Dataset; got a {type(data).__name__}"
            + ("; choose a split, such as data['train']" if isinstance(data, dict) else "")
        )
    data = data.with_format(None)  # plain Python values, in any format of the caller
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    video = _column(features, [name for name, kind in kinds.items() if kind == "Video"], _PATHS, video_key)
    label = _column(features, [name for name in features if _names_classes(features[name])], _LABELS)
    if video is None or label is None:
        raise ValueError(
            f"the columns are {', '.join(features)}; one must hold videos (datasets.Video, or called "
            f"{', '.join(_PATHS)}) and one labels (datasets.ClassLabel, or called {', '.join(_LABELS)})"
        )
    if kinds[video] == "Video":  # as bytes and paths: we decode them ourselves
        data = data.cast_column(video, type(features[video])(decode=False))
    texts = getattr(features[video], "dtype", "") in ("string", "large_string")
    paths = data[video] if texts else [None] * len(data)
    samples = [
        Sample(TableRow(data, row, video, path), value, f"row {row}")
        for row, (path, value) in enumerate(zip(paths, data[label], strict=True))
    ]
    return Listing(samples, classes=_names_classes(features[label]))


def _names_classes(feature: Any) -> list[str] | None:
    """The names that a ClassLabel, or a list of them, gives its numbers."""
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return list(names) if names else None


def _column(features: Any, of_kind: list[str], names: Sequence[str], key: str = "") -> str | None:
    """The column with a key or, without one, the only one of its kind, or else the first with one of the names.

    Raises:
        ValueError: if several could be meant, or none has the key.
    """
    if key and key not in features:
        raise ValueError(f"the columns are {', '.join(features)}; none is called {key!r}")
    if key:
        return key
    named = [name for name in names if name in features]
    if len(of_kind) > 1 and not set(named) & set(of_kind):
        raise ValueError(
            f"any of the columns {', '.join(of_kind)} could be meant; name the one of the video with video_key=, and "
            "the one of the labels 'label'"
        )
    return next((name for name in named if name in of_kind), None) or next(iter(of_kind + named), None)


def saved_to_disk(folder: Path, video_key: str = "") -> Listing:
    """A folder that `datasets.Dataset.save_to_disk` wrote."""
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise ImportError("reading Hugging Face data sets takes: pip install 'vivit_zoo[hf]'") from error
    return hugging_face(load_from_disk(str(folder)), video_key)


def _refuse_dict(folder: Path) -> Listing:
    try:
        splits = [str(split) for split in parse_json(read_text(folder / "dataset_dict.json"))["splits"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}/dataset_dict.json: names no splits ({error})") from error
    raise ValueError(f"{folder}: holds the splits {', '.join(splits)}; name one: {folder / splits[0]}")


def _table_of_folder(source: "Options") -> Listing:
    return read_listing(source.file, source.root, targets=source.targets)


class Options(NamedTuple):
    """What a format of folders gets: the folder, the file that shows the format, the root, and options of reading."""

    folder: Path
    file: Path
    root: Path
    video_key: str
    targets: Sequence[str]


COLUMNS: list[tuple[set[str], Callable[[list[Row], Path, Path], Listing]]] = [
    ({"youtube_id", "time_start", "time_end"}, kinetics),
    ({"video_id", "verb_class", "noun_class"}, epic_kitchens),
    (set(_PATHS), table),
]
FOLDERS: list[tuple[Iterable[str], Callable[[Options], Listing]]] = [
    (["dataset_dict.json"], lambda source: _refuse_dict(source.folder)),
    (["state.json"], lambda source: saved_to_disk(source.folder, source.video_key)),
    (["metadata.csv", "metadata.jsonl"], lambda source: _table_of_folder(source)),
    (["*.tar"], lambda source: webdataset(f"{source.folder}/*.tar", source.video_key)),
]
