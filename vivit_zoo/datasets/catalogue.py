"""Which videos with which labels: a catalogue, read from any of the forms that data sets of videos come in."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from vivit_zoo.datasets.formats import Classes, Listing, hugging_face, read_listing, webdataset
from vivit_zoo.datasets.shards import is_shards
from vivit_zoo.datasets.sources import Place

__all__ = ["Catalogue", "Entry", "read_catalogue"]

MOST_CLASSES = 1_000_000  # with more, numbers are dates or ids: a model would have a row of its head for each below


class Entry(NamedTuple):
    """A video and its class number, or its class number by head."""

    video: Place
    label: int | dict[str, int]


@dataclass(frozen=True)
class Catalogue:
    """Videos with labels, and the names of the classes.

    Args:
        entries: the videos, in the source's order.
        classes: names by class number; for several heads a dictionary of them.
        absent: names of videos that the source lists but that are not there.
        notes: what else was passed over, in words.
    """

    entries: Sequence[Entry]
    classes: Classes
    absent: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def hold_out(self, share: float) -> tuple["Catalogue", "Catalogue"]:
        """The catalogue in two: without and with the last videos of each class.

        They are the last in the source's order, sorted names in a folder: parts of one recording, whose names begin
        alike, so stay together, but for one recording a class at most. A class keeps at least one video to train on,
        and gives at least one to test on where it has two.

        Args:
            share: of the videos of each class, in (0, 1), rounded.

        Raises:
            ValueError: if that leaves nothing to test on.
        """
        places: dict[str, list[int]] = {}
        for place, entry in enumerate(self.entries):
            places.setdefault(str(entry.label), []).append(place)
        held: set[int] = set()
        for of_class in places.values():
            count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
            held.update(of_class[len(of_class) - count :])
        if not held:
            raise ValueError(f"each of the {len(places)} classes has one video; there is none to hold out for testing")
        parts = [[e for i, e in enumerate(self.entries) if (i in held) == out] for out in (False, True)]
        return replace(self, entries=parts[0]), replace(self, entries=parts[1])


def read_catalogue(
    source: Any, root: str | os.PathLike[str] | None = None, classes: Classes | None = None
) -> Catalogue:
    """The videos of a source with their labels. The form is told from what is in it:

    - a text file of lines `path label`, split from the right at a tab, a comma or a space; labels are numbers or names;
    - a text file of raw frames, `folder count label` or `folder offset count label` (TSN, mmaction2), where a folder
      holds numbered images;
    - a csv with a header, of which one column is `path`, `file_name`, ... and one `label`, `class`, ...;
    - a folder of class folders, `class/.../clip.mp4`, or with folders of images in place of clips;
    - a folder with metadata.csv or metadata.jsonl (`file_name`, `label`), Hugging Face's VideoFolder;
    - the csv of Kinetics, the json of Something-Something v2, the csv of EPIC-KITCHENS-100 (labels by head);
    - WebDataset shards: a tar file, a pattern (`train-{000..015}.tar`, `train-*.tar`) or a folder of them;
    - a Hugging Face `datasets.Dataset`, or the folder that its `save_to_disk` wrote.

    Videos that a data set lists but that are gone, and files that are passed over, are counted in a warning.

    Args:
        source: a path, a pattern of shards, or a `datasets.Dataset`.
        root: folder that relative paths start from; by default the one that the list lies in.
        classes: names by class number (for several heads a dictionary of them): those of the training set, when a test
            set is read. By default the source's own names, the sorted names of its labels, or its numbers.

    Raises:
        ValueError: if the form cannot be told, no listed video is there, or a label is not among the classes.
        ImportError: if a folder that `save_to_disk` wrote is read without `datasets`.
    """
    if not isinstance(source, str | os.PathLike):
        listing, name = hugging_face(source), "the data set"
    else:
        name = os.fspath(source)
        if "://" in name or name.startswith("pipe:"):
            raise ValueError(
                f"{name}: neither URLs nor pipes are read; copy the files to a disk, or mount their storage"
            )
        listing = (
            webdataset(name) if is_shards(name) else read_listing(Path(name), None if root is None else Path(root))
        )
    _check_videos(listing, name)
    if isinstance(listing.labels[0], dict):
        heads = {head: [label[head] for label in listing.labels] for head in listing.labels[0]}
        own, known = _by_head(listing.classes, heads), _by_head(classes, heads)
        numbered = {head: _number(labels, own[head], known[head], f"{name}, {head}") for head, labels in heads.items()}
        numbers: Sequence[Any] = [
            dict(zip(numbered, row, strict=True)) for row in zip(*(x for x, _ in numbered.values()), strict=True)
        ]
        named: Classes = {head: names for head, (_, names) in numbered.items()}
    else:
        if isinstance(classes, dict):
            raise ValueError(f"{name}: has one label a video, but classes are given by head: {', '.join(classes)}")
        numbers, named = _number(listing.labels, listing.classes, classes, name)
    entries = [Entry(video, number) for video, number in zip(listing.videos, numbers, strict=True)]
    catalogue = Catalogue(entries, named, listing.absent, listing.notes)
    for note in catalogue.notes:
        warnings.warn(f"{name}: {note}", stacklevel=2)
    if catalogue.absent:
        missing, total = len(catalogue.absent), len(catalogue.absent) + len(catalogue)
        warnings.warn(f"{name}: {missing} of {total} videos are absent, such as {catalogue.absent[0]}", stacklevel=2)
    return catalogue


def _check_videos(listing: Listing, name: str) -> None:
    if not listing.videos:
        absent = f"; all {len(listing.absent)} are absent, such as {listing.absent[0]}" if listing.absent else ""
        raise ValueError(f"{name}: there are no videos in it{absent}. Is root= the folder that holds them?")
    if not any(video.exists() for video in listing.videos):
        raise ValueError(
            f"{name}: none of its {len(listing.videos)} videos is there, such as {listing.videos[0].name}; give the "
            "folder that the paths start from with root="
        )


def _by_head(classes: Any, heads: dict[str, list[Any]]) -> dict[str, Sequence[str] | None]:
    if classes is None:
        return dict.fromkeys(heads)
    if not isinstance(classes, dict) or classes.keys() != heads.keys():
        raise ValueError(f"labels are by head, {', '.join(heads)}; classes must be a dictionary with these keys")
    return classes


def _number(labels: list[Any], own: Any, given: Sequence[str] | None, name: str) -> tuple[list[int], list[str]]:
    """Labels as class numbers, and the names of the classes.

    Numbers stay as they are, unless the source and the caller both name the classes: then names decide.
    """
    if isinstance(labels[0], int):
        if own is None and given is None and max(labels) > MOST_CLASSES:
            raise ValueError(
                f"{name}: the label {max(labels)} is no class number, of which there are at most "
                f"{MOST_CLASSES}, counted from 0; number the classes without gaps, or give their names"
            )
        names = list(own or (given if given is not None else map(str, range(max(labels) + 1))))
        if outside := sorted({label for label in labels if not 0 <= label < len(names)}):
            raise ValueError(f"{name}: the labels {_some(outside)} are not in 0 to {len(names) - 1}")
        if own is None and given is not None and any(x.isdigit() and x != str(i) for i, x in enumerate(names)):
            raise ValueError(f"{name}: labels are numbers, and so are the names of the classes given, in another order")
        if own is None or given is None:
            return labels, names
        labels = [names[label] for label in labels]
    names = list(given or own or sorted(set(labels)))
    numbers = {label: number for number, label in enumerate(names)}
    if unknown := sorted(set(labels) - numbers.keys()):
        raise ValueError(
            f"{name}: {len(unknown)} labels are not among the {len(names)} classes: {_some(unknown)}; the classes of a "
            "test set are those of the training set"
        )
    return [numbers[label] for label in labels], names


def _some(values: Sequence[Any]) -> str:
    return ", ".join(map(repr, values[:5])) + (", ..." if len(values) > 5 else "")
