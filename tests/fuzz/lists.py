"""Lists, tables, folders of metadata and shards, damaged."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.datasets.test_formats import EPIC, KINETICS
from tests.datasets.test_shards import write_shard
from tests.fuzz.mutate import Fuzzer, Read, mutate
from vivit_zoo.datasets import read_catalogue
from vivit_zoo.datasets.labels import read_class_list
from vivit_zoo.datasets.rows import RowsError

CLIPS = [{"id": "a", "template": "Holding [something]"}, {"id": "b", "template": "Dropping [something]"}]
LABELS = json.dumps({"Holding something": "0", "Dropping something": "1"})
TABLE = 'path,label\na.mp4,walk\n"b.mp4","run, fast"\nsub/c.mp4,0\nv,3;5\nd.mp4,nan\n'
ROWS = [{"path": "a.mp4", "label": 0}, {"path": "b.mp4", "label": [1, 2]}, {"path": "v", "label": 0.5}]
FILES = {  # the file to damage, and what is in it and beside it
    "list": ("list.txt", {"list.txt": "a.mp4 0\nsub/c.mp4 1\nv 2\nb.mp4\trun\n"}),
    "frames": ("list.txt", {"list.txt": "v 0 1 0\nv 1 1 3\n"}),
    "csv": ("list.csv", {"list.csv": TABLE}),
    "jsonl": ("list.jsonl", {"list.jsonl": "\n".join(map(json.dumps, ROWS))}),
    "metadata": ("metadata.csv", {"metadata.csv": TABLE.replace("path", "file_name")}),
    "Kinetics": ("k.csv", {"k.csv": KINETICS}),
    "Something-Something": ("train.json", {"train.json": json.dumps(CLIPS), "labels.json": LABELS}),
    "labels.json": ("labels.json", {"train.json": json.dumps(CLIPS), "labels.json": LABELS}),
    "EPIC-KITCHENS": ("EPIC.csv", {"EPIC.csv": EPIC}),
    "EPIC's classes": (
        "EPIC_100_verb_classes.csv",
        {"EPIC.csv": EPIC, "EPIC_100_verb_classes.csv": "id,key\n0,a\n1,b\n"},
    ),
}
VIDEOS = ["a.mp4", "b.mp4", "sub/c.mp4", "v/1.jpg", "v/2.jpg", "-A0x-abc_12_000003_000013.mp4", "P01/P01_01.MP4"]


def _catalogue(folder: Path, kind: str) -> Read:
    file, texts = FILES[kind]
    for name in VIDEOS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name, text in texts.items():
        (folder / name).write_text(text)
    source = folder if kind == "metadata" else folder / next(iter(texts))
    return _damage(folder / file, partial(_read, source, folder))


def _shard(folder: Path) -> Read:
    members = {"a.mp4": b"video" * 99, "a.cls": b"1", "b.json": b'{"label": "run"}', "b.mp4": b"x", "c.a.mp4": b"y"}
    shard = write_shard(folder / "0.tar", members)
    return _damage(shard, partial(_read, shard, folder))


def _class_list(folder: Path) -> Read:
    file = folder / "names.txt"
    file.write_text("run\nwalk fast\n3 jumps\n")
    return _damage(file, lambda rng: _own(folder, lambda: read_class_list(file)))


def _read(source: Path, folder: Path, rng: np.random.Generator) -> None:
    task = rng.choice(["single_label", "multi_label", "regression"], p=[0.6, 0.3, 0.1])
    _own(folder, lambda: read_catalogue(source, task=task, strict=rng.random() < 0.5))


def _own(folder: Path, read: Callable[[], object]) -> None:
    """A ValueError of another class, such as UnicodeDecodeError, or one that names no file, is none of ours."""
    try:
        read()
    except ValueError as error:
        if type(error) not in (ValueError, RowsError) or str(folder) not in str(error):
            raise TypeError(f"no error of our own: {type(error).__name__}: {error}") from error
        raise


def _damage(file: Path, read: Read) -> Read:
    good = file.read_bytes()

    def damaged(rng: np.random.Generator) -> None:
        file.write_bytes(mutate(good, rng))
        read(rng)

    return damaged


FUZZERS = {kind: Fuzzer(partial(_catalogue, kind=kind), (ValueError,)) for kind in FILES} | {
    "shards": Fuzzer(_shard, (ValueError,)),
    "list of classes": Fuzzer(_class_list, (ValueError,)),
}
