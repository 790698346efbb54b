"""The folder of a run: its configuration, metrics and checkpoints, each readable at any moment, whatever was killed."""

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

__all__ = ["Checkpoints", "Metrics", "claim_folder", "flatten", "read_metrics", "write_whole"]


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Replace a file as a whole: a reader, or a run killed meanwhile, sees the old content or the new, never a part."""
    part = file.with_name(file.name + ".part")
    write(part)
    with part.open("rb+") as written:  # on the disk before the name is, should the machine stop
        os.fsync(written.fileno())
    os.replace(part, file)


def claim_folder(folder: Path, config: dict[str, Any], free: tuple[str, ...] = ()) -> None:
    """Write a run's configuration to config.json, unless there are checkpoints of another one.

    Args:
        folder: of the run; made if missing.
        config: of the run.
        free: fields that may differ between calls, because they change no result; "data.x" for x in data.

    Raises:
        ValueError: if the folder is of a run with another configuration, or of one that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, text = folder / "config.json", json.dumps(config, indent=2)
    if file.exists() and any(folder.glob("checkpoints/*.pt")):  # a run that failed before may be mended in its place
        try:
            theirs, mine = (flatten(dict(json.loads(one)), free) for one in (file.read_text(), text))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} cannot be read ({error}); choose another folder, or delete this one") from error
        if theirs != mine:
            changed = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
            raise ValueError(
                f"{folder} is of a run with another configuration (it differs in {', '.join(changed)}); choose another "
                "folder, or delete this one"
            )
    write_whole(file, lambda part: part.write_text(text))


def flatten(config: dict[str, Any], without: tuple[str, ...] = (), prefix: str = "") -> dict[str, Any]:
    """Nested fields as one dictionary with dotted names, without some of these."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = flatten(value, without, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        flat |= {name: one for name, one in inner.items() if name not in without}
    return flat


class Checkpoints:
    """The checkpoints of a run, `folder`/{step:08d}.pt: the newest ones, and best.pt, the best by a score.

    Args:
        folder: of the checkpoints alone; made if missing.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder, self.keep = folder, keep

    def files(self) -> list[Path]:
        """All but the best, oldest first."""
        return sorted(self.folder.glob("[0-9]*.pt"))

    def newest(self) -> dict[str, Any] | None:
        """The content of the newest readable checkpoint, on the CPU; None if there is no file.

        Raises:
            ValueError: if there are checkpoints and none can be read.
        """
        error: Exception | None = None
        for file in reversed(self.files()):
            try:
                return torch.load(file, weights_only=True, map_location="cpu")
            except Exception as reason:  # torch raises many kinds for a broken file, some without its name
                error = reason
                warnings.warn(f"{file} cannot be read ({reason}); taking the one before", stacklevel=2)
        if error is not None:
            raise ValueError(f"no checkpoint in {self.folder} can be read; delete it to start this run anew") from error
        return None

    def write(self, step: int, content: dict[str, Any], best: bool = False) -> None:
        """Write a checkpoint, and only then remove those that are now too old.

        Args:
            step: of the run.
            content: tensors, numbers, strings, lists and dictionaries of them.
            best: whether it is also the best so far.

        Raises:
            OSError: if it cannot be written; those before it stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob("*.part"):  # of a run killed while it wrote
            left.unlink()
        file = self.folder / f"{step:08d}.pt"
        try:
            write_whole(file, partial(torch.save, content))
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(f"{file} cannot be written ({error}); is the disk full?") from error
        if best:
            write_whole(self.folder / "best.pt", partial(shutil.copyfile, file))
        files = self.files()
        place = files.index(file)  # behind it are damaged ones, which this run began before
        for old in files[: max(0, place + 1 - self.keep)] + files[place + 1 :]:
            old.unlink()


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; one that was cut short, which can only be the last, is left out."""
    lines = file.read_text().splitlines() if file.exists() else []
    found = []
    for line in lines:
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


class Metrics:
    """Lines of JSON in a file; those past the step that training resumes from are dropped."""

    def __init__(self, file: Path, keep_until: int) -> None:
        self.file = file
        kept = [json.dumps(line) + "\n" for line in read_metrics(file) if line["step"] <= keep_until]
        write_whole(file, lambda part: part.write_text("".join(kept)))

    def write(self, **values: Any) -> None:
        """Append a line."""
        with self.file.open("a") as file:
            file.write(json.dumps(values) + "\n")
