"""Predictions of a model on a data set: accuracies, confusion matrices, files."""

import csv
import dataclasses
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

__all__ = ["Scores"]


@dataclass(frozen=True)
class Scores:
    """Logits and labels of a data set, on the CPU.

    Models with several heads, such as noun and verb, are scored by the combination of classes. A clip is correct if all
    heads are correct, and correct in the top 5 if the combination is one of the five with the largest product of
    probabilities. This is the "action" accuracy of Epic Kitchens, as in the original code. `heads` has the scores of
    each head.

    Args:
        logits: (clips, classes) in float32, or a dictionary of logits by head.
        labels: class numbers (clips,), or a dictionary by head.
        indices: positions of the clips in the data set, (clips,); None if unknown.

    Raises:
        ValueError: if their sizes or heads differ, or a label is not a class of the model.
    """

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
        clips, classes = self.logits.shape
        if len(self.labels) != clips or (self.indices is not None and len(self.indices) != clips):
            counted = "no" if self.indices is None else len(self.indices)
            raise ValueError(
                f"there are logits of {clips} clips, {len(self.labels)} labels and {counted} indices; "
                "their numbers must be equal"
            )
        if clips and not 0 <= self.labels.min() <= self.labels.max() < classes:
            raise ValueError(
                f"labels are from {self.labels.min()} to {self.labels.max()}, but the model has {classes} classes, "
                f"0 to {classes - 1}; are the labels from another data set?"
            )

    def __len__(self) -> int:
        return len(next(iter(self.heads.values())).labels)

    @property
    def heads(self) -> dict[str, "Scores"]:
        """The scores of each head; {"": self} if there is only one head."""
        if isinstance(self.logits, Tensor):
            return {"": self}
        return {name: Scores(self.logits[name], self.labels[name], self.indices) for name in self.logits}

    def joint(self) -> "Scores":
        """Combine all heads into one, whose classes are the combinations; the class of the last head changes fastest.

        The logits are the logarithms of the products of probabilities. For {"noun": 300, "verb": 97} these are the
        29,100 actions of the original code, 116 kB per clip.
        """
        first, *others = self.heads.values()
        if not others:
            return self
        logits, labels = first.logits.log_softmax(1), first.labels
        for other in others:
            pairs = logits[:, :, None] + other.logits.log_softmax(1)[:, None]
            logits, labels = pairs.flatten(1), labels * other.logits.shape[1] + other.labels
        return Scores(logits, labels, self.indices)

    def correct(self, top: int = 1) -> Tensor:
        """Return for each clip whether the label is among the `top` most likely classes: (clips,) bool.

        Raises:
            ValueError: if top is not positive.
        """
        if top < 1:
            raise ValueError(f"top {top} is not positive")
        found = [torch.zeros(0, dtype=torch.bool)]
        for at in torch.arange(len(self)).split(512):  # the combinations of all clips may not fit into memory
            part = self._take(at).joint()
            # Of equal logits argmax takes the first, like `confusion`; topk may take any.
            best = (
                part.logits.topk(min(top, part.logits.shape[1])).indices if top > 1 else part.logits.argmax(1)[:, None]
            )
            found.append((best == part.labels[:, None]).any(1))
        return torch.cat(found)

    def accuracy(self, labels: Any = None, top: int = 1) -> float:
        """Return the share of clips in [0, 1] whose label, or other label in `labels`, is in the `top` most likely."""
        scores = self if labels is None else dataclasses.replace(self, labels=labels)
        return scores.correct(top).double().mean().item()

    def class_accuracy(self, top: int = 1) -> Tensor:
        """Return the accuracy of each class: (classes,) float64 in [0, 1]; nan for a class without clips.

        Raises:
            ValueError: if there are several heads.
        """
        logits, labels = self._only_head()
        clips = torch.bincount(labels, minlength=logits.shape[1])
        return torch.bincount(labels[self.correct(top)], minlength=len(clips)).double() / clips

    def confusion(self) -> Tensor:
        """Return the confusion matrix, with labels as rows and predictions as columns: (classes, classes) int64.

        Raises:
            ValueError: if there are several heads.
        """
        logits, labels = self._only_head()
        classes = logits.shape[1]
        pairs = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2)
        return rearrange(pairs, "(label answer) -> label answer", answer=classes)

    def _only_head(self) -> tuple[Tensor, Tensor]:
        if not isinstance(self.logits, Tensor):
            raise ValueError(f"the model has several heads; use scores.heads[name] with one of {', '.join(self.heads)}")
        return self.logits, self.labels

    def _take(self, which: Tensor) -> "Scores":
        indices = None if self.indices is None else self.indices[which]
        taken = {name: (one.logits[which], one.labels[which]) for name, one in self.heads.items()}
        return _of_heads({name: Scores(*pair, indices) for name, pair in taken.items()})

    @staticmethod
    def merge(parts: Iterable["Scores"]) -> "Scores":
        """Merge the scores of several processes, in the order of the data set.

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
            merged[name] = Scores(logits[order], labels[order], indices)
        return _of_heads(merged)

    def save(self, file: str | Path, names: Sequence[str] | None = None, classes: Any = None, top: int = 5) -> None:
        """Write predictions to a .csv or .jsonl file, or all scores, for `load`, to an .npz file.

        Each clip is a line with its index, name, label and most likely classes with their softmax probabilities.

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
        heads = self.heads
        best = {name: one.logits.softmax(1).topk(min(top, one.logits.shape[1])) for name, one in heads.items()}
        for i in range(len(self)):
            line: dict[str, Any] = {}
            if self.indices is not None:
                line["index"] = int(self.indices[i])
            if names is not None:
                line["name"] = names[line["index"]]
            for head, one in heads.items():
                called = classes[head] if head and classes is not None else classes
                numbers = [int(one.labels[i]), *best[head].indices[i].tolist()]
                label, *answers = numbers if called is None else [called[number] for number in numbers]
                probabilities = [round(share, 6) for share in best[head].values[i].tolist()]
                prefix = f"{head}_" if head else ""
                line[f"{prefix}label"] = label
                line[f"{prefix}top"] = [list(pair) for pair in zip(answers, probabilities, strict=True)]
            yield line

    @staticmethod
    def load(file: str | Path) -> "Scores":
        """Load scores that `save` wrote to an .npz file.

        Raises:
            ValueError: if the file was not written by `save`.
        """
        try:
            with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            indices = tensors.pop("indices", None)
            names = dict.fromkeys(name.rpartition("/")[0] for name in tensors)
            return _of_heads(
                {name: Scores(tensors[f"{name}/logits"], tensors[f"{name}/labels"], indices) for name in names}
            )
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{file} was not written by Scores.save: {error!r}") from error


def _of_heads(heads: dict[str, Scores]) -> Scores:
    """Undo `Scores.heads`."""
    if heads.keys() == {""}:
        return heads[""]
    indices = next(iter(heads.values())).indices
    return Scores({name: x.logits for name, x in heads.items()}, {name: x.labels for name, x in heads.items()}, indices)


def _flatten(line: dict[str, Any]) -> dict[str, Any]:
    """Give each of the most likely classes, and each probability, its own column."""
    flat: dict[str, Any] = {}
    for key, value in line.items():
        if not isinstance(value, list):
            flat[key] = value
            continue
        for rank, (answer, probability) in enumerate(value, 1):
            flat |= {f"{key}{rank}": answer, f"{key}{rank}_probability": probability}
    return flat
