"""WebDataset shards as a table: every member of a tar file by its place, so that any video can be read at any time.

The headers are read once, when the catalogue is made. Order, resuming and distributed evaluation are then as exact as
for files in a folder, which a stream of shards cannot give. Only uncompressed shards on a mounted disk are read: no
URLs, no `pipe:` commands, no gzip.
"""

import glob
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vivit_zoo.datasets.rows import parse_json
from vivit_zoo.datasets.sources import TarMember, is_junk, is_video

__all__ = ["ShardSample", "expand", "is_shards", "read_samples"]


class ShardSample(NamedTuple):
    """A video of a shard and its label, a text or a value of JSON; or what is wrong with them."""

    key: str
    video: TarMember | None
    label: Any = None
    problem: str = ""


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


def read_samples(shards: list[Path], video_key: str = "") -> list[ShardSample]:
    """The samples of all shards in order; a sample is what shares its name up to the first dot, as in WebDataset.

    The label is the text of .cls, else "label" in .json, else the text of .txt.

    Args:
        shards: tar files.
        video_key: what follows the first dot in the names of the videos, such as "base.mp4"; needed where samples have
            several videos.

    Raises:
        ValueError: if a shard is compressed, truncated or damaged, or a sample has two members of one kind.
    """
    read = partial(_read_shard, video_key=video_key.lower().lstrip("."))
    with ThreadPoolExecutor(8) as threads:  # the headers of a big shard are far apart: most of the time is waiting
        return [sample for samples in threads.map(read, shards) for sample in samples]


def _read_shard(path: Path, video_key: str) -> list[ShardSample]:
    groups: dict[str, dict[str, TarMember]] = {}
    with path.open("rb") as file:
        for member in _read_members(path, file):
            folder, _, base = member.member.rpartition("/")
            if any(is_junk(part) for part in member.member.removeprefix("./").split("/")):
                continue  # such as the ._clip.mp4 of a Mac, which is no video
            base, _, kind = base.partition(".")
            key = f"{folder}/{base}" if folder else base
            if groups.setdefault(key, {}).setdefault(kind.lower(), member) is not member:
                raise ValueError(f"{path}: the sample {key!r} has two members .{kind}; keys must be unique in a shard")
        return [_sample(f"{path}::{key}", members, file, video_key) for key, members in groups.items()]


def _sample(name: str, members: dict[str, TarMember], file: BinaryIO, video_key: str) -> ShardSample:
    videos = [kind for kind, member in members.items() if is_video(member.member)]
    if video_key:
        videos = [kind for kind in members if kind == video_key]
    if not videos:
        return ShardSample(name, None)
    video = members[videos[0]]
    if len(videos) > 1:
        return ShardSample(
            name,
            video,
            problem=f"has the videos .{', .'.join(sorted(videos))}; name one, such as video_key={videos[0]!r}",
        )
    found = members.get("cls") or members.get("json") or members.get("txt")
    if found is None:
        return ShardSample(name, video, problem="has no label, which is in .cls, as 'label' in .json, or in .txt")
    file.seek(found.offset)
    try:
        label: Any = file.read(found.size).decode("utf-8-sig")
        if found.member.lower().endswith(".json"):
            label = parse_json(label)["label"]
    except (KeyError, TypeError, ValueError) as error:
        reason = "no 'label'" if isinstance(error, KeyError) else error
        return ShardSample(name, video, problem=f"{Path(found.member).name} holds no label ({reason})")
    return ShardSample(name, video, label)


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
