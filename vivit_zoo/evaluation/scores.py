"""Scores of models that give each clip one class: accuracies, confusion matrices."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from vivit_zoo.evaluation.predictions import Predictions

__all__ = ["Scores"]


@dataclass(frozen=True)
class Scores(Predictions):
    """Logits and labels of a data set whose clips have one class each, on the CPU.

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

    metric: ClassVar[str] = "accuracy"

    def _check_labels(self) -> None:
        clips, classes = self.logits.shape
        if clips and not 0 <= self.labels.min() <= self.labels.max() < classes:
            raise ValueError(
                f"labels are from {self.labels.min()} to {self.labels.max()}, but the model has {classes} classes, "
                f"0 to {classes - 1}; are the labels from another data set?"
            )

    def metrics(self, classes: Any = None) -> dict[str, float]:
        """Return "accuracy", and for several heads also "accuracy_noun", ..."""
        heads = {f"accuracy_{head}": one.accuracy() for head, one in self.heads.items() if head}
        return {"accuracy": self.accuracy(), **heads}

    def report(self, classes: Any = None) -> dict[str, float]:
        """Return "top-1" and "top-5", for several heads "noun top-1", ..., and "action top-1" for all together.

        Of at most five classes there is no top-5.
        """
        heads = self.heads
        parts = heads if "" in heads else {**heads, "action": self}
        tops = {name: (1, 5) if one.classes > 5 else (1,) for name, one in parts.items()}
        return {f"{name} top-{k}".strip(): one.accuracy(top=k) for name, one in parts.items() for k in tops[name]}

    @property
    def classes(self) -> int:
        """The number of classes, or of the combinations of all heads."""
        return math.prod(x.shape[1] for x in (self.logits.values() if isinstance(self.logits, dict) else [self.logits]))

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

    def _columns(self, classes: Sequence[str] | None, top: int) -> list[dict[str, Any]]:
        best = self.logits.softmax(1).topk(min(top, self.logits.shape[1]))
        rows: list[dict[str, Any]] = []
        for label, *answers in torch.cat([self.labels[:, None], best.indices], 1).tolist():
            named = [label, *answers] if classes is None else [classes[number] for number in (label, *answers)]
            shares = [round(share, 6) for share in best.values[len(rows)].tolist()]
            rows.append({"label": named[0], "top": [list(pair) for pair in zip(named[1:], shares, strict=True)]})
        return rows
