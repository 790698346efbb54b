"""`Predictions`: outputs of a model and labels of a data set, merged over processes and written to files."""

import csv
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

__all__ = ["Average", "Predictions"]

Average = Literal["logits", "softmax", "sigmoid"]
"""What is averaged over the views of a video: the outputs themselves, or probabilities of one or several classes."""


@dataclass(frozen=True)
class Predictions:
    """Outputs of a model and labels of a data set, on the CPU; the base of the scores of each kind of label.

    A subclass says what labels it takes, computes metrics and makes the lines of files: see `Scores`,
    `MultiLabelScores` and `RegressionScores`.

    Args:
        logits: (clips, outputs) in float32, or a dictionary of them by head.
        labels: as the subclass takes them, (clips, ...), or a dictionary by head.
        indices: positions of the clips in the data set, (clips,); None if unknown.

    Attributes:
        metric: the key of `metrics` by which models are compared.
        higher_is_better: whether a larger value of it is better.
        average: what is averaged over the views of a video.

    Raises:
        ValueError: if their sizes or heads differ, or the labels do not fit the model.
    """

    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    average: ClassVar[Average] = "logits"

    logits: Any
    labels: Any
    indices: Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.logits, Mapping) or isinstance(self.labels, Mapping):
            names = [sorted(x) if isinstance(x, Mapping) else "one unnamed" for x in (self.logits, self.labels)]
            if names[0] != names[1]:
                raise ValueError(f"the heads of the logits are {names[0]}, those of the labels {names[1]}")
            _ = self.heads  # checks each head
            return
        clips = len(self.logits)
        if len(self.labels) != clips or (self.indices is not None and len(self.indices) != clips):
            counted = "no" if self.indices is None else len(self.indices)
            raise ValueError(
                f"there are logits of {clips} clips, {len(self.labels)} labels and {counted} indices; "
                "their numbers must be equal"
            )
        self._check_labels()

    def __len__(self) -> int:
        return len(next(iter(self.heads.values())).labels)

    @property
    def heads(self) -> dict[str, Self]:
        """The predictions of each head; {"": self} if there is only one head."""
        if isinstance(self.logits, Tensor):
            return {"": self}
        return {name: type(self)(self.logits[name], self.labels[name], self.indices) for name in self.logits}

    def metrics(self, classes: Any = None) -> dict[str, float]:
        """Return the metrics by name, in [0, 1] or in the unit of the labels; `metric` is one of them.

        Args:
            classes: names of the classes or targets, for metrics that exist for each of them.
        """
        raise NotImplementedError

    def report(self, classes: Any = None) -> dict[str, float]:
        """Return what the report of a test lists, by name: the metrics, and more where a table of them is usual."""
        return self.metrics(classes)

    @classmethod
    def quality(cls, metrics: Mapping[str, float]) -> float:
        """Return the value of `metric`, or its negative if a lower value is better; nan if it is not defined."""
        return metrics.get(cls.metric, nan) * (1 if cls.higher_is_better else -1)

    @classmethod
    def summary(cls, metrics: Mapping[str, float]) -> str:
        """Return the metric by which models are compared as text, such as "accuracy 51.2%"."""
        value = metrics.get(cls.metric, nan)
        return f"{cls.metric} {value:.1%}" if cls.higher_is_better else f"{cls.metric} {value:.4g}"

    def notes(self, classes: Any = None) -> list[str]:
        """Return what a reader of the metrics should know, such as which classes are left out."""
        return []

    def _check_labels(self) -> None:
        """Raise ValueError if the labels, of one head, do not fit the logits."""
        raise NotImplementedError

    def _columns(self, classes: Sequence[str] | None, top: int) -> list[dict[str, Any]]:
        """The answers of one head for each clip, as columns of a file."""
        raise NotImplementedError

    def _only_head(self) -> tuple[Tensor, Tensor]:
        if not isinstance(self.logits, Tensor):
            raise ValueError(f"the model has several heads; use scores.heads[name] with one of {', '.join(self.heads)}")
        return self.logits, self.labels

    def _take(self, which: Tensor) -> Self:
        indices = None if self.indices is None else self.indices[which]
        taken = {name: (one.logits[which], one.labels[which]) for name, one in self.heads.items()}
        return self._of_heads(taken, indices)

    @classmethod
    def _of_heads(cls, heads: Mapping[str, tuple[Tensor, Tensor]], indices: Tensor | None) -> Self:
        """Undo `heads`."""
        if heads.keys() == {""}:
            return cls(*heads[""], indices)
        logits, labels = ({name: pair[which] for name, pair in heads.items()} for which in (0, 1))
        return cls(logits, labels, indices)

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        """Merge the predictions of several processes, in the order of the data set.

        Clips with a negative index are dropped: they fill up a batch, or replace a file that cannot be read.

        Raises:
            ValueError: if there are no parts, a part has no indices, or a clip occurs twice.
        """
        parts = list(parts)
        if not parts or any(part.indices is None for part in parts):
            raise ValueError(
                f"cannot merge {len(parts)} parts; each needs indices, from batches of (video, label, index)"
            )
        parts = [part._take(part.indices >= 0) for part in parts if part.indices is not None]
        indices, order = torch.cat([part.indices for part in parts if part.indices is not None]).sort(stable=True)
        twice = indices[1:][indices.diff() == 0]
        if len(twice):
            raise ValueError(f"{len(twice)} clips were evaluated more than once, for example number {twice[0]}")
        merged = {}
        for name in parts[0].heads:
            of_head = [part.heads[name] for part in parts]
            logits, labels = (torch.cat([getattr(one, key) for one in of_head]) for key in ("logits", "labels"))
            merged[name] = logits[order], labels[order]
        return type(parts[0])._of_heads(merged, indices)

    def save(self, file: str | Path, names: Sequence[str] | None = None, classes: Any = None, top: int = 5) -> None:
        """Write predictions to a .csv or .jsonl file, or all outputs and labels, for `load`, to an .npz file.

        Each clip is a line with its index, its name, its label and the model's answer: the most likely classes with
        their probabilities, or the predicted numbers.

        Args:
            file: the file; its suffix determines the format.
            names: names of all clips of the data set, such as their paths; needs indices.
            classes: class names, written instead of class numbers; a dictionary by head if there are several heads.
            top: number of classes per clip.

        Raises:
            ValueError: if the suffix is another, or there are names but no indices.
        """
        file = Path(file)
        if file.suffix == ".npz":
            arrays: dict[str, Any] = {} if self.indices is None else {"indices": self.indices.numpy()}
            for name, one in self.heads.items():
                arrays |= {f"{name}/logits": one.logits.numpy(), f"{name}/labels": one.labels.numpy()}
            np.savez(file, **arrays)
            return
        if names is not None and self.indices is None:
            raise ValueError("names need indices; evaluate batches of (video, label, index)")
        lines = self._lines(names, classes, top)
        if file.suffix == ".jsonl":
            file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        elif file.suffix == ".csv":
            rows = [_flatten(line) for line in lines]
            with file.open("w", newline="", encoding="utf-8") as table:
                writer = csv.DictWriter(table, rows[0] if rows else [])
                writer.writeheader()
                writer.writerows(rows)
        else:
            raise ValueError(
                f"{file} has the suffix {file.suffix!r}; choose .csv or .jsonl for predictions, .npz for all scores"
            )

    def _lines(self, names: Sequence[str] | None, classes: Any, top: int) -> Iterator[dict[str, Any]]:
        columns = {
            head: one._columns(classes[head] if head and classes is not None else classes, top)
            for head, one in self.heads.items()
        }
        for i in range(len(self)):
            line: dict[str, Any] = {}
            if self.indices is not None:
                line["index"] = int(self.indices[i])
            if names is not None:
                line["name"] = names[line["index"]]
            for head, of_head in columns.items():
                line |= {f"{head}_{name}" if head else name: value for name, value in of_head[i].items()}
            yield line

    @classmethod
    def load(cls, file: str | Path) -> Self:
        """Load what `save` of the same class wrote to an .npz file.

        Raises:
            ValueError: if the file was not written by `save`.
        """
        try:
            with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            indices = tensors.pop("indices", None)
            names = dict.fromkeys(name.rpartition("/")[0] for name in tensors)
            heads = {name: (tensors[f"{name}/logits"], tensors[f"{name}/labels"]) for name in names}
            return cls._of_heads(heads, indices)
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{file} was not written by {cls.__name__}.save: {error!r}") from error


def _flatten(line: dict[str, Any]) -> dict[str, Any]:
    """Give each of the most likely classes, and each probability, its own column; join several labels by ";"."""
    flat: dict[str, Any] = {}
    for key, value in line.items():
        if not isinstance(value, list):
            flat[key] = value
        elif value and isinstance(value[0], list):
            for rank, (answer, probability) in enumerate(value, 1):
                flat |= {f"{key}{rank}": answer, f"{key}{rank}_probability": probability}
        else:
            flat[key] = ";".join(map(str, value))
    return flat
