"""What a source lists, before its labels become numbers."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vivit_zoo.datasets.labels import Classes
from vivit_zoo.datasets.rows import Problem
from vivit_zoo.datasets.sources import FrameFolder, Place, VideoFile, is_video

__all__ = ["Listing", "Sample", "place_at", "video_at"]


class Sample(NamedTuple):
    """A video with its label.

    Args:
        video: where it is.
        label: as the source has it: a text, or a value of JSON or of a table; by head where there are several.
        where: in the source, for messages, such as "line 3".
        text: what stands there, to write a list of the samples that can be used; None where that is impossible.
    """

    video: Place
    label: Any
    where: str
    text: str | None = None


@dataclass
class Listing:
    """What a source lists.

    Args:
        samples: in the source's order.
        heads: names of the heads, where a label is a dictionary of them.
        classes: names by class number that the source itself gives, for several heads a dictionary of them.
        problems: rows that cannot be used, and why.
        absent: names of videos that are listed but not there.
        notes: what was left out, or is allowed but looks like a mistake.
        header, footer: lines before and after the samples' texts, which together are a list in the same form.
        suffix: of the name of such a list, by which its form is recognised.
    """

    samples: list[Sample] = field(default_factory=list)
    heads: Sequence[str] = ()
    classes: Classes | None = None
    problems: list[Problem] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    header: str | None = None
    footer: str | None = None
    suffix: str = ""


def video_at(root: Path, text: Any) -> Place:
    """The video with this path below a root: a file, or a folder of images.

    Raises:
        ValueError: if the text is no path.
    """
    if not isinstance(text, str):
        raise ValueError(f"the path {text!r} is no text")
    if not text.strip():
        raise ValueError("the path is empty")
    if not text.isprintable():
        raise ValueError(f"the path {text!r} has characters that cannot be printed")
    return place_at(root / text.strip()) or VideoFile(root / text.strip())


def place_at(path: Path) -> Place | None:
    """The file with a video's name, or the folder of images; None for anything else."""
    if is_video(path):
        return VideoFile(path)
    return FrameFolder(path) if os.path.isdir(path) else None  # False, where pathlib raises for a name too long
