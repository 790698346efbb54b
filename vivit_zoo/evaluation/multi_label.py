"""Scores of models that give each clip any number of classes: average precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vivit_zoo.evaluation.predictions import Average, Predictions

__all__ = ["MultiLabelScores", "average_precision"]


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Return the average precision of one class: (clips,), (clips,) -> float in [0, 1]; nan without positives.

    As scikit-learn defines it: the mean of the precision over the positives, sum_n (R_n - R_(n-1)) P_n over the
    different scores in falling order, without interpolation. Clips with equal scores share one threshold.

    Args:
        scores: larger for clips that are more likely to have the class.
        labels: 1 or True for clips that have it, else 0.
    """
    order = scores.argsort(descending=True)
    ranked, hits = scores[order], labels[order].double()
    last_of_ties = torch.cat([ranked[1:] != ranked[:-1], torch.ones(min(1, len(ranked)), dtype=torch.bool)])
    found = hits.cumsum(0)[last_of_ties]
    precision = found / (last_of_ties.nonzero()[:, 0] + 1)
    return ((found.diff(prepend=found.new_zeros(1)) * precision).sum() / hits.sum()).item()


@dataclass(frozen=True)
class MultiLabelScores(Predictions):
    """Logits and labels of a data set whose clips have any number of classes, on the CPU.

    Args:
        logits: (clips, classes) in float32; the probabilities are their sigmoids.
        labels: (clips, classes) of 0 and 1.
        indices: positions of the clips in the data set, (clips,); None if unknown.

    Raises:
        ValueError: if their sizes differ, or labels are other numbers.
    """

    metric: ClassVar[str] = "mAP"
    average: ClassVar[Average] = "sigmoid"

    def _check_labels(self) -> None:
        if self.labels.shape != self.logits.shape or not ((self.labels == 0) | (self.labels == 1)).all():
            raise ValueError(
                f"labels of several classes a clip are 0 or 1 for each class, {tuple(self.logits.shape)}; got "
                f"{tuple(self.labels.shape)} of {self.labels.dtype}"
            )

    def average_precision(self) -> Tensor:
        """Return the average precision of each class: (classes,) float64 in [0, 1]; nan for a class without positives.

        Raises:
            ValueError: if there are several heads.
        """
        logits, labels = self._only_head()
        each = [average_precision(*pair) for pair in zip(logits.unbind(1), labels.unbind(1), strict=True)]
        return torch.tensor(each, dtype=torch.float64)

    def metrics(self, classes: Any = None) -> dict[str, float]:
        """Return "mAP", the mean of `average_precision` over the classes that have positives; {} if none has."""
        mean = self.average_precision().nanmean()
        return {} if mean.isnan() else {"mAP": mean.item()}

    def report(self, classes: Any = None) -> dict[str, float]:
        """Return "mAP", and "AP run", ... for each class that has positives."""
        each = enumerate(self.average_precision().tolist())
        named = {f"AP {i if classes is None else classes[i]}": value for i, value in each if value == value}
        return self.metrics() | named

    def notes(self, classes: Any = None) -> list[str]:
        """Return which classes have no positives and are left out of the mean."""
        without = [i for i, value in enumerate(self.average_precision().isnan().tolist()) if value]
        if not without:
            return []
        named = [str(classes[i] if classes is not None else i) for i in without[:5]]
        more = ", ..." if len(without) > 5 else ""
        return [
            f"{len(without)} of {self.logits.shape[1]} classes are in no test video and left out of mAP: "
            f"{', '.join(named)}{more}"
        ]

    def _columns(self, classes: Sequence[str] | None, top: int) -> list[dict[str, Any]]:
        best = self.logits.sigmoid().topk(min(top, self.logits.shape[1]))
        rows = []
        for label, numbers, shares in zip(self.labels, best.indices.tolist(), best.values.tolist(), strict=True):
            own = label.nonzero()[:, 0].tolist()
            if classes is not None:
                own, numbers = ([classes[number] for number in found] for found in (own, numbers))
            pairs = [[number, round(share, 6)] for number, share in zip(numbers, shares, strict=True)]
            rows.append({"labels": own, "top": pairs})
        return rows
