"""Files of a run: configuration, metrics and checkpoints, readable at any time even if the run is killed."""

import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

__all__ = ["Checkpoints", "Metrics", "claim_folder", "fill_in", "flatten", "read_metrics", "write_whole"]

Identify = Callable[[dict[str, Any]], dict[str, Any]]


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Replace a file atomically, so that a reader never sees a part of the content, even if this process is killed."""
    part = file.with_name(file.name + ".part")
    write(part)
    with part.open("rb+") as written:  # write the content to the disk before the name
        os.fsync(written.fileno())
    os.replace(part, file)


def claim_folder(folder: Path, config: dict[str, Any], identify: Identify | None = None) -> None:
    """Write the configuration of a run to config.json, unless there are checkpoints of it or of another configuration.

    Args:
        folder: folder of the run; created if missing.
        config: configuration of the run.
        identify: returns the fields of a configuration that the result depends on, by dotted name, such as
            `TrainConfig.identify`; by default all.

    Raises:
        ValueError: if the folder has a run with another configuration, or with one that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, text = folder / "config.json", json.dumps(config, indent=2)
    if file.exists() and any(folder.glob("checkpoints/*.pt")):  # without checkpoints the configuration may change
        try:
            found = dict(json.loads(file.read_text(encoding="utf-8")))
            theirs, mine = map(identify or flatten, (found, json.loads(text)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} cannot be read ({error}); choose another folder, or delete this one") from error
        if theirs != mine:
            changed = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
            raise ValueError(
                f"{folder} has a run with another configuration (it differs in {', '.join(changed)}); choose another "
                "folder, or delete this one"
            )
        return  # as it was written: the folders of cells are recognised by it
    write_whole(file, lambda part: part.write_text(text, encoding="utf-8"))


def fill_in(config: dict[str, Any], like: Any) -> dict[str, Any]:
    """Return a configuration with the defaults of the fields that it lacks, as one from an earlier version does.

    The metadata "before" of a field says what was done before there was the field, where that is not its default.

    Args:
        config: as JSON.
        like: an instance of the dataclass, which says what fields there are.
    """
    filled = dict(config)
    for field in dataclasses.fields(like):
        now = getattr(like, field.name)
        if field.name in config:
            if dataclasses.is_dataclass(now) and isinstance(config[field.name], dict):
                filled[field.name] = fill_in(config[field.name], now)
            continue
        default: Any = field.metadata.get("before", field.default)
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is not dataclasses.MISSING:
            nested = dataclasses.is_dataclass(default) and not isinstance(default, type)
            values = dataclasses.asdict(default) if nested else default
            filled[field.name] = json.loads(json.dumps(values))
    return filled


def flatten(config: dict[str, Any], without: tuple[str, ...] = (), prefix: str = "") -> dict[str, Any]:
    """Flatten nested fields into a dictionary with dotted names, except the names in `without`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = flatten(value, without, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        flat |= {name: one for name, one in inner.items() if name not in without}
    return flat


class Checkpoints:
    """The checkpoints of a run: the newest ones as `folder`/{step:08d}.pt, and the best one as best.pt.

    Args:
        folder: folder for the checkpoints only; created if missing.
        keep: number of newest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder, self.keep = folder, keep

    def files(self) -> list[Path]:
        """Return all files except the best, oldest first."""
        return sorted(self.folder.glob("[0-9]*.pt"))

    def newest(self) -> dict[str, Any] | None:
        """Load the newest readable checkpoint to the CPU; return None if there is no file.

        Raises:
            ValueError: if there are checkpoints and none can be read.
        """
        error: Exception | None = None
        for file in reversed(self.files()):
            try:
                return torch.load(file, weights_only=True, map_location="cpu")
            except Exception as reason:  # torch raises many types for a broken file
                error = reason
                warnings.warn(f"{file} cannot be read ({reason}); using the checkpoint before it", stacklevel=2)
        if error is not None:
            raise ValueError(f"no checkpoint in {self.folder} can be read; delete it to start again") from error
        return None

    def write(self, step: int, content: dict[str, Any], best: bool = False) -> None:
        """Write a checkpoint, then remove those that are too old.

        Args:
            step: step of the run.
            content: tensors, numbers, strings, and lists and dictionaries of them.
            best: whether this is the best checkpoint so far.

        Raises:
            OSError: if the checkpoint cannot be written; earlier checkpoints are kept.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob("*.part"):  # left by a process that was killed
            left.unlink()
        file = self.folder / f"{step:08d}.pt"
        try:
            write_whole(file, partial(torch.save, content))
        except RuntimeError as error:  # torch raises this if the disk is full
            raise OSError(f"{file} cannot be written ({error}); is the disk full?") from error
        if best:
            write_whole(self.folder / "best.pt", partial(shutil.copyfile, file))
        files = self.files()
        place = files.index(file)  # those after it are damaged
        for old in files[: max(0, place + 1 - self.keep)] + files[place + 1 :]:
            old.unlink()


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Read the lines of a metrics.jsonl; skip an incomplete last line."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found = []
    for line in lines:
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


class Metrics:
    """Writes lines of JSON to a file, after removing lines past the step that training resumes from."""

    def __init__(self, file: Path, keep_until: int) -> None:
        self.file = file
        kept = [json.dumps(line) + "\n" for line in read_metrics(file) if line["step"] <= keep_until]
        write_whole(file, lambda part: part.write_text("".join(kept), encoding="utf-8"))

    def write(self, **values: Any) -> None:
        """Append a line."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
