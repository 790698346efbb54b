"""Folders of videos: class folders, and videos found by their names anywhere below a root."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vivit_zoo.datasets.listing import Listing, Sample
from vivit_zoo.datasets.sources import FrameFolder, VideoFile, is_image, is_junk, is_video

__all__ = ["folder_by_class", "only_file", "videos_by_stem"]

_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


def folder_by_class(folder: Path) -> Listing:
    """root/class/.../clip.mp4; the class folders in sorted order are the classes, as in torchvision's ImageFolder.

    A folder of images without videos is a video. Folders without videos are no classes; other files are left out.
    """
    names = sorted(name for name in os.listdir(folder) if (folder / name).is_dir() and not is_junk(name))
    if not names:
        raise ValueError(f"{folder}: it holds no class folders; put videos into a folder for each, or give a list file")
    if {name.lower() for name in names} <= _SPLITS:
        raise ValueError(f"{folder}: holds splits, not classes; name one of them: {', '.join(names)}")
    listing, others = Listing(header="path,label", suffix=".csv"), Counter[str]()
    classes: list[str] = []
    for name in names:
        before = len(listing.samples)
        for place, files in walk(folder / name, listing.notes, folder):
            videos = [file for file in files if is_video(file)]
            if not videos and any(map(is_image, files)):
                listing.samples.append(_sample(FrameFolder(place), place, folder, name, len(classes)))
                continue
            for file in videos:
                listing.samples.append(_sample(VideoFile(place / file), place / file, folder, name, len(classes)))
            others.update(Path(file).suffix or file for file in files if not is_video(file))
        if len(listing.samples) > before:
            classes.append(name)
    listing.classes = classes
    if empty := [name for name in names if name not in classes]:
        listing.notes.append(f"{len(empty)} folders without videos are no classes: {_few(empty)}")
    if others:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in others.most_common(9))
        listing.notes.append(f"{others.total()} files left out, whose names are not those of videos: {kinds}")
    if loose := sum(is_video(name) and not is_junk(name) for name in os.listdir(folder)):
        listing.notes.append(f"{loose} videos left out, which are in no class folder")
    return listing


def _sample(video: VideoFile | FrameFolder, path: Path, root: Path, name: str, label: int) -> Sample:
    where = str(path)
    inside = where if root == Path() else where[len(str(root)) :].lstrip("/\\")
    return Sample(video, label, where, f"{_cell(inside)},{_cell(name)}")


def _cell(text: str) -> str:
    """A text as a cell of a csv."""
    return f'"{text.replace(chr(34), 2 * chr(34))}"' if re.search(r'[",\r\n]', text) else text


def walk(folder: Path, notes: list[str] | None = None, root: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Each folder from this one down and its files, sorted, without junk; a link that leads back up is not followed.

    Args:
        folder: to start in.
        notes: to add one to for each link that is not followed.
        root: a folder above it, to which no link may lead back either.
    """
    pending: list[tuple[Path, tuple[tuple[int, int], ...]]] = [(folder, (_identity(root),) if root else ())]
    while pending:
        place, above = pending.pop()
        identity = _identity(place)
        if identity in above:
            if notes is not None:
                notes.append(f"the link {place} leads back up and is not followed")
            continue
        folders: list[str] = []
        files: list[str] = []
        with os.scandir(place) as entries:
            for entry in entries:
                if not is_junk(entry.name):
                    (folders if _is_folder(entry) else files).append(entry.name)
        yield place, sorted(files)
        pending += [(place / name, (*above, identity)) for name in sorted(folders, reverse=True)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(place: Path) -> tuple[int, int]:
    """What a folder and all links to it have in common."""
    status = place.stat()
    return status.st_dev, status.st_ino


def videos_by_stem(root: Path) -> dict[str, list[Path]]:
    """The videos below a folder by their names without endings.

    Raises:
        ValueError: if there is no such folder.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder to look for the videos in; give root=")
    found: dict[str, list[Path]] = {}
    for place, files in walk(root):
        for file in filter(is_video, files):
            found.setdefault(Path(file).stem, []).append(place / file)
    return found


def only_file(files: dict[str, list[Path]], name: str) -> VideoFile | None:
    """The one video with a name, or None.

    Raises:
        ValueError: if there are several.
    """
    found = files.get(name, [])
    if len(found) > 1:
        raise ValueError(f"{name} may be any of {', '.join(map(str, sorted(found)))}; keep one of them")
    return VideoFile(found[0]) if found else None


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
