"""WebDataset shards as a table: every member of a tar file by its place, so that any video can be read at any time.

The headers are read once, when the catalogue is made. Order, resuming and distributed evaluation are then as exact as
for files in a folder, which a stream of shards cannot give. Only uncompressed shards on a mounted disk are read: no
URLs, no `pipe:` commands, no gzip.
"""

import glob
import json
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vivit_zoo.datasets.sources import TarMember, is_video

__all__ = ["Sample", "expand", "is_shards", "read_samples"]


class Sample(NamedTuple):
    """A video of a shard and the text of its label, as far as it has them."""

    key: str
    video: TarMember | None
    label: str | None


def is_shards(source: str) -> bool:
    """Whether this names tar files: train-000.tar, train-{000..015}.tar, train-*.tar."""
    return source.endswith((".tar", ".tar.gz", ".tgz")) or ("{" in source and not Path(source).exists())


def expand(pattern: str) -> list[Path]:
    """The files of a pattern with braces ({000..015}, {a,b}) and wildcards (*, ?, [..]), sorted within wildcards.

    Raises:
        ValueError: if one of them is missing.
    """
    paths = []
    for name in _expand_braces(pattern):
        found = [name] if Path(name).exists() else sorted(glob.glob(name))
        if not found:
            raise ValueError(f"{name}: there is no such shard (from {pattern!r})")
        paths += [Path(one) for one in found]
    return paths


def _expand_braces(pattern: str) -> list[str]:
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    if bounds := re.fullmatch(r"(\d+)\.\.(\d+)", braces[1]):
        first, last = bounds.groups()
        choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        choices = braces[1].split(",")
    return [
        pattern[: braces.start()] + choice + rest
        for choice in choices
        for rest in _expand_braces(pattern[braces.end() :])
    ]


def read_samples(shards: list[Path]) -> list[Sample]:
    """The samples of all shards in order; a sample is what shares its name up to the first dot, as in WebDataset.

    The label is the text of .cls, else "label" in .json, else the text of .txt.

    Raises:
        ValueError: if a shard is compressed, truncated or damaged, or a sample has two members of one kind.
    """
    with ThreadPoolExecutor(8) as threads:  # the headers of a big shard lie far apart, so that the disk is waited for
        return [sample for samples in threads.map(_read_shard, shards) for sample in samples]


def _read_shard(path: Path) -> list[Sample]:
    groups: dict[str, dict[str, TarMember]] = {}
    with path.open("rb") as file:
        for member in _read_members(path, file):
            folder, _, base = member.member.rpartition("/")
            base, _, kind = base.partition(".")
            key = f"{folder}/{base}" if folder else base
            if groups.setdefault(key, {}).setdefault(kind.lower(), member) is not member:
                raise ValueError(f"{path}: the sample {key!r} has two members .{kind}; keys must be unique in a shard")

        samples = []
        for key, members in groups.items():
            label = None
            if found := members.get("cls") or members.get("json") or members.get("txt"):
                file.seek(found.offset)
                label = _label(found, file.read(found.size))
            videos = [member for member in members.values() if is_video(member.member)]
            samples.append(Sample(f"{path}::{key}", videos[0] if videos else None, label))
    return samples


def _label(member: TarMember, data: bytes) -> str | None:
    try:
        text = data.decode().strip()
        value = json.loads(text).get("label") if member.member.endswith(".json") else text
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{member.name}: holds no label ({error})") from error
    if not isinstance(value, str | int | None):
        raise ValueError(f"{member.name}: the label {value!r} is neither a number nor a name")
    return None if value is None else str(value)


def _read_members(path: Path, file: BinaryIO) -> list[TarMember]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            members = [TarMember(path, one.name, one.offset_data, one.size) for one in tar if one.isfile()]
            end = tar.offset
    except tarfile.ReadError as error:
        file.seek(0)
        packed = file.read(2) == b"\x1f\x8b"
        what = (
            "compressed; gunzip it, videos do not shrink" if packed else f"truncated, damaged or no tar file ({error})"
        )
        raise ValueError(f"{path}: the shard is {what}") from error
    file.seek(end)
    if file.read(512) != bytes(512):  # tarfile takes a damaged header, or none, for the end
        raise ValueError(f"{path}: the shard is truncated or damaged at byte {end}, after {len(members)} files")
    return members
