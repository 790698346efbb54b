"""The formats that data sets of videos come in: one function each, from a source to a `Listing`.

A new format is one more function here, and a line in one of the tables `COLUMNS` and `FOLDERS`, which tell formats by
what is in them.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vivit_zoo.datasets.shards import expand, read_samples
from vivit_zoo.datasets.sources import FrameFolder, Place, TableRow, VideoFile, is_image, is_video

__all__ = ["Classes", "Listing", "read_listing"]

Label = int | str | dict[str, int] | dict[str, str]
Classes = Sequence[str] | dict[str, Sequence[str]]
Rows = list[dict[str, str]]

_PATHS = ("path", "file_name", "filename", "file", "video", "video_path", "filepath")
_LABELS = ("label", "class", "class_name", "label_name", "category", "target")
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


@dataclass
class Listing:
    """What a source lists: videos with labels, which are names (str) or numbers (int), or either by head.

    Args:
        videos: where each lies.
        labels: one for each.
        classes: those that the source itself names, in its order.
        absent: names of videos that are listed but not there.
        notes: what was passed over, in words.
    """

    videos: list[Place] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    classes: Classes | None = None
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, video: Place | None, label: Label, name: str = "") -> None:
        """One more video, or the name of an absent one."""
        if video is None:
            self.absent.append(name)
        else:
            self.videos.append(video)
            self.labels.append(label)


def read_listing(source: Path, root: Path | None) -> Listing:
    """A file or folder, by the first format that fits; see `read_catalogue`."""
    if source.is_dir():
        for marks, read_folder in FOLDERS:
            if found := [path for mark in marks for path in sorted(source.glob(mark))]:
                return read_folder(source, found[0], root or source)
        return folder_by_class(source)
    if not source.is_file():
        raise ValueError(f"{source}: there is no such file or folder")
    if is_video(source):
        raise ValueError(f"{source} is a single video; give a list of videos with labels, or a folder of class folders")
    root = root or source.parent
    if source.suffix == ".json":
        return something_something(source, root)
    lines = _read_text(source).splitlines()
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise ValueError(f"{source}: the file is empty")
    if source.suffix == ".jsonl":
        return table(
            [_parse_json(line, f"{source}, line {number}") for number, line in enumerate(lines, 1)], root, source
        )
    for delimiter in ",\t; ":
        names = {name.strip().lower() for name in next(csv.reader(lines[:1], delimiter=delimiter))}
        for columns, read_rows in COLUMNS:
            if names & columns if read_rows is table else names >= columns:
                rows = [
                    {str(name).strip().lower(): value or "" for name, value in row.items()}
                    for row in csv.DictReader(lines, delimiter=delimiter, restval="")
                ]
                return read_rows(rows, root, source)
    return list_file(lines, root, source)


def list_file(lines: list[str], root: Path, source: Path) -> Listing:
    """Lines `path label`, split from the right at a tab, a comma or a space, whichever fits all lines."""
    bad: dict[str, tuple[int, str]] = {}
    for name, separator in {"tab": "\t", "comma": ",", "space": None}.items():
        listing, labels = Listing(), []
        for number, line in enumerate(lines, 1):
            cells = next(csv.reader([line])) if separator == "," else line.rsplit(separator, 1)
            path, label = ",".join(cells[:-1]).strip(), cells[-1].strip()
            video = _video_at(root / path) if path and label else None
            if video is None:
                bad[name] = (number, line)
                break
            labels.append(label)
            listing.videos.append(video)
        else:
            listing.labels = as_numbers(labels)
            return listing
    if frames := frame_list(lines, root):
        return frames
    number, line = max(bad.values())
    raise ValueError(
        f"{source}, line {number}: {line!r} is not 'path label' with the path of a video or of a folder of images "
        f"under {root}. Lines are split from the right at a tab, a comma or a space, the same in all lines (a label of "
        "several words needs a tab or a comma before it); lists of raw frames are 'folder count label' or 'folder "
        "offset count label'"
    )


def frame_list(lines: list[str], root: Path) -> Listing | None:
    """Lines `folder count label` or `folder offset count label`, as of TSN and mmaction2; None if they are not.

    The offset counts the frames before the first: 0 for one that starts with the first image, whatever its number.
    """
    pattern = re.compile(r"(.+?)(?:[\s,]+(\d+))?[\s,]+(\d+)[\s,]+([^\s,]+)")
    found = [pattern.fullmatch(line.strip()) for line in lines]
    listing, labels = Listing(), []
    for match in found:
        if match is None:
            return None
        folder, offset, count, label = match.groups()
        listing.videos.append(FrameFolder(root / folder, int(offset or 0), int(count)))
        labels.append(label)
    listing.labels = as_numbers(labels)
    return listing if any(video.exists() for video in listing.videos) else None


def table(rows: Rows, root: Path, source: Path) -> Listing:
    """Columns with a header, one of paths and one of labels; also VideoFolder's metadata.csv and metadata.jsonl."""
    path_column = next((name for name in _PATHS if name in rows[0]), None) if rows else None
    label_column = next((name for name in _LABELS if name in rows[0]), None) if rows else None
    if path_column is None or label_column is None:
        raise ValueError(
            f"{source}: of the columns {', '.join(rows[0]) if rows else '(no rows)'} one must hold the paths, called "
            f"{', '.join(_PATHS)}, and one the labels, called {', '.join(_LABELS)}"
        )
    videos = [root / row[path_column] for row in rows]
    labels = as_numbers([str(row[label_column]).strip() for row in rows])
    return Listing([FrameFolder(path) if path.is_dir() else VideoFile(path) for path in videos], labels)


def kinetics(rows: Rows, root: Path, source: Path) -> Listing:
    """Kinetics' csv: files {youtube_id}_{time_start:06}_{time_end:06}.* anywhere under the root; many are gone."""
    if rows and "label" not in rows[0]:
        raise ValueError(f"{source}: has no column 'label'; the lists of the test split without labels cannot be used")
    files, listing = _by_stem(root), Listing()
    for row in rows:
        name = f"{row['youtube_id']}_{int(float(row['time_start'])):06}_{int(float(row['time_end'])):06}"
        listing.add(_only(files, name), row["label"], name)
    listing.classes = sorted({row["label"] for row in rows})
    return listing


def something_something(source: Path, root: Path) -> Listing:
    """Something-Something v2: train.json or validation.json with labels.json beside it; files {id}.* under the root."""
    clips = _read_json(source)
    if not (isinstance(clips, list) and clips and isinstance(clips[0], dict) and "template" in clips[0]):
        raise ValueError(f"{source}: is not as Something-Something's train.json, a list of entries with a 'template'")
    beside = sorted(source.parent.glob("*labels.json"))
    if len(beside) != 1:
        raise ValueError(f"{source}: labels.json must lie beside it, once; found {[path.name for path in beside]}")
    numbers = {name: int(number) for name, number in _read_json(beside[0]).items()}
    files, listing = _by_stem(root), Listing(classes=sorted(numbers, key=lambda name: numbers[name]))
    for clip in clips:
        listing.add(_only(files, clip["id"]), clip["template"].replace("[", "").replace("]", ""), clip["id"])
    return listing


def epic_kitchens(rows: Rows, root: Path, source: Path) -> Listing:
    """EPIC-KITCHENS-100's csv: labels by head, verb and noun. Takes the folder of frames, or the part of the video.

    They are looked for where the data set's own downloader lays them: P01/rgb_frames/P01_01/, P01/videos/P01_01.MP4, or
    directly under the root. Names of the classes come from EPIC_100_verb_classes.csv and ..noun.. beside the list.
    """
    listing = Listing(classes={head: _epic_classes(source, head) for head in ("verb", "noun")})
    places: dict[str, Path | None] = {}
    for row in rows:
        name, person = row["video_id"], row["video_id"].split("_")[0]
        if name not in places:
            inside = [f"{person}/rgb_frames/{name}", f"{person}/{name}", name]
            inside += [f"{person}/videos/{name}.MP4", f"{person}/{name}.MP4", f"{name}.MP4"]
            places[name] = next((root / place for place in inside if (root / place).exists()), None)
        place = places[name]
        video: Place | None = None
        if place is not None and place.is_dir():  # frames are numbered from 1
            first, last = int(row["start_frame"]), int(row["stop_frame"])
            video = FrameFolder(place, first - 1, last - first + 1)
        elif place is not None:
            video = VideoFile(place, _seconds(row["start_timestamp"]), _seconds(row["stop_timestamp"]))
        listing.add(video, {"verb": int(row["verb_class"]), "noun": int(row["noun_class"])}, name)
    return listing


def _epic_classes(source: Path, head: str) -> list[str]:
    file = source.with_name(f"EPIC_100_{head}_classes.csv")
    if not file.exists():
        return [str(number) for number in range({"verb": 97, "noun": 300}[head])]
    rows = list(csv.DictReader(_read_text(file).splitlines()))
    return [row["key"] for row in sorted(rows, key=lambda row: int(row["id"]))]


def _seconds(timestamp: str) -> float:
    hours, minutes, seconds = timestamp.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def folder_by_class(folder: Path) -> Listing:
    """root/class/.../clip.mp4; the class folders in sorted order are the classes, as in torchvision's ImageFolder.

    A folder of images without videos is a video. Other files are passed over and counted.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(
            f"{folder}: nothing in it tells classes; put videos into a folder for each, or give a list file"
        )
    if {name.lower() for name in names} <= _SPLITS:
        raise ValueError(f"{folder}: holds splits, not classes; name one of them: {', '.join(names)}")
    listing, others = Listing(classes=names), Counter[str]()
    loose = sum(is_video(entry) for entry in folder.iterdir())
    for name in names:
        for place, subfolders, files in os.walk(folder / name, followlinks=True):
            subfolders.sort()
            files = sorted(file for file in files if not file.startswith("."))
            videos = [file for file in files if is_video(file)]
            if not videos and any(map(is_image, files)):
                listing.add(FrameFolder(Path(place)), name)
                continue
            for file in videos:
                listing.add(VideoFile(Path(place, file)), name)
            others.update(Path(file).suffix or file for file in files if not is_video(file))
    if others:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in others.most_common(9))
        listing.notes.append(f"{others.total()} files passed over, whose names are not those of videos: {kinds}")
    if loose:
        listing.notes.append(f"{loose} videos passed over, which lie in no class's folder")
    return listing


def webdataset(source: str) -> Listing:
    """WebDataset shards, by a pattern such as train-{000..015}.tar or train-*.tar; see `vivit_zoo.datasets.shards`."""
    listing, labels = Listing(), []
    for sample in read_samples(expand(source)):
        if sample.video is None:
            listing.absent.append(sample.key)
        elif sample.label is None:
            raise ValueError(
                f"{sample.key}: the sample has no label; it comes as .cls, as 'label' in .json, or as .txt"
            )
        else:
            listing.videos.append(sample.video)
            labels.append(sample.label)
    listing.labels = as_numbers(labels)
    return listing


def hugging_face(data: Any) -> Listing:
    """A `datasets.Dataset`: its column of videos (or "video", "path", ...) and of labels, names or numbers."""
    features = getattr(data, "features", None)
    if features is None or not hasattr(data, "cast_column") or not hasattr(data, "__len__"):
        raise ValueError(
            f"a source is a path, a pattern of shards or a datasets.Dataset; got a {type(data).__name__}"
            + ("; choose a split, such as data['train']" if isinstance(data, dict) else "")
        )
    of_kind = {name: type(feature).__name__ for name, feature in features.items()}
    video = next((name for name, kind in of_kind.items() if kind == "Video"), None)
    video = video or next((name for name in _PATHS if name in features), None)
    label = next((name for name, kind in of_kind.items() if kind == "ClassLabel"), None)
    label = label or next((name for name in _LABELS if name in features), None)
    if video is None or label is None:
        raise ValueError(
            f"the columns are {', '.join(features)}; one must hold videos (datasets.Video, or called "
            f"{', '.join(_PATHS)}) and one labels (datasets.ClassLabel, or called {', '.join(_LABELS)})"
        )
    if of_kind[video] == "Video":  # as bytes and paths: we decode them ourselves
        data = data.cast_column(video, type(features[video])(decode=False))
    labels, classes = list(data[label]), getattr(features[label], "names", None)
    labels = labels if all(isinstance(value, int) for value in labels) else [str(value) for value in labels]
    return Listing([TableRow(data, row, video) for row in range(len(data))], labels, classes)


def saved_to_disk(folder: Path, _: Path, __: Path) -> Listing:
    """A folder that `datasets.Dataset.save_to_disk` wrote."""
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise ImportError("reading Hugging Face data sets takes: pip install 'vivit_zoo[hf]'") from error
    return hugging_face(load_from_disk(str(folder)))


def as_numbers(labels: list[str]) -> list[int] | list[str]:
    """Labels as numbers if all of them are written so, else as names."""
    return [int(x) for x in labels] if all(re.fullmatch(r"-?\d+", x) for x in labels) else labels


COLUMNS: list[tuple[set[str], Callable[[Rows, Path, Path], Listing]]] = [
    ({"youtube_id", "time_start", "time_end"}, kinetics),
    ({"video_id", "verb_class", "noun_class"}, epic_kitchens),
    (set(_PATHS), table),
]
FOLDERS: list[tuple[Iterable[str], Callable[[Path, Path, Path], Listing]]] = [
    (["dataset_dict.json"], lambda folder, *_: _refuse_dict(folder)),
    (["state.json"], saved_to_disk),
    (["metadata.csv", "metadata.jsonl"], lambda folder, file, root: read_listing(file, root)),
    (["*.tar"], lambda folder, *_: webdataset(f"{folder}/*.tar")),
]


def _refuse_dict(folder: Path) -> Listing:
    splits = _read_json(folder / "dataset_dict.json")["splits"]
    raise ValueError(f"{folder}: holds the splits {', '.join(splits)}; name one: {folder / splits[0]}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is neither a list in UTF-8 text, nor shards (.tar), nor a folder") from error


def _read_json(path: Path) -> Any:
    return _parse_json(_read_text(path), str(path))


def _parse_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name}: is no JSON ({error})") from error


def _video_at(path: Path) -> Place | None:
    """The file with a video's name, or the folder of images; None for anything else."""
    if is_video(path):
        return VideoFile(path)
    return FrameFolder(path) if path.is_dir() else None


def _by_stem(root: Path) -> dict[str, list[Path]]:
    """The videos under a folder by their names without endings."""
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder to look for the videos in; give root=")
    found: dict[str, list[Path]] = {}
    for place, _, files in os.walk(root, followlinks=True):
        for file in filter(is_video, files):
            found.setdefault(Path(file).stem, []).append(Path(place, file))
    return found


def _only(files: dict[str, list[Path]], name: str) -> VideoFile | None:
    found = files.get(name, [])
    if len(found) > 1:
        raise ValueError(f"{name}: which one of {', '.join(map(str, sorted(found)))} is meant? Keep one of them")
    return VideoFile(found[0]) if found else None
