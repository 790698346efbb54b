"""Scores of models that predict numbers: root mean squared error, mean absolute error, coefficient of determination."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from vivit_zoo.evaluation.predictions import Predictions

__all__ = ["RegressionScores"]


@dataclass(frozen=True)
class RegressionScores(Predictions):
    """Predicted and true numbers of a data set, on the CPU.

    Args:
        logits: the predictions, (clips, targets) in float32, in the unit of the labels.
        labels: the true numbers, (clips, targets).
        indices: positions of the clips in the data set, (clips,); None if unknown.

    Raises:
        ValueError: if their sizes differ.
    """

    metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False

    def _check_labels(self) -> None:
        if self.labels.shape != self.logits.shape:
            raise ValueError(
                f"there must be a label for each of the predictions, {tuple(self.logits.shape)}; got "
                f"{tuple(self.labels.shape)}"
            )

    def errors(self) -> dict[str, Tensor]:
        """Return "rmse", "mae" and "r2" of each target: (targets,) float64.

        r2 is 1 - (sum of squared errors) / (sum of squared differences from the labels' mean), as in scikit-learn; nan
        if all labels of a target are equal.

        Raises:
            ValueError: if there are several heads.
        """
        outputs, labels = (x.double() for x in self._only_head())
        error, deviation = outputs - labels, labels - labels.mean(0)
        total = deviation.square().sum(0)
        r2 = 1 - error.square().sum(0) / total.where(total > 0, float("nan"))
        return {"rmse": error.square().mean(0).sqrt(), "mae": error.abs().mean(0), "r2": r2}

    def metrics(self, classes: Any = None) -> dict[str, float]:
        """Return "rmse", "mae" and "r2", for several targets their means and "rmse_speed", ... for each target.

        The means over several targets are of errors in deviations: each target's errors are divided by the standard
        deviation of its labels, because the targets may have different units. A value that is not defined, such as r2
        of a target whose labels are all equal, is left out.

        Args:
            classes: names of the targets; None for their numbers.
        """
        errors = self.errors()
        targets = self.logits.shape[1]
        if targets == 1:
            return {name: value.item() for name, value in errors.items() if not value.isnan().any()}
        spread = self.labels.double().std(0, correction=0)
        varies = spread > 0
        found = {name: (errors[name][varies] / spread[varies]).mean().item() for name in ("rmse", "mae")}
        found["r2"] = errors["r2"][varies].mean().item()
        for number in range(targets):
            named = number if classes is None else classes[number]
            found |= {f"{name}_{named}": value[number].item() for name, value in errors.items()}
        return {name: value for name, value in found.items() if value == value}

    def notes(self, classes: Any = None) -> list[str]:
        """Return which of several targets have equal labels and are left out of the means."""
        spread = self._only_head()[1].double().std(0, correction=0)
        constant = (spread == 0).nonzero()[:, 0].tolist()
        if self.logits.shape[1] == 1 or not constant:
            return []
        named = ", ".join(str(number if classes is None else classes[number]) for number in constant)
        return [
            f"{len(constant)} of {len(spread)} targets have one value in all test videos and are left out of rmse, "
            f"mae and r2: {named}"
        ]

    @classmethod
    def summary(cls, metrics: Mapping[str, float]) -> str:
        """Return "rmse 0.42", for several targets with their common unit."""
        several = any(name.startswith("rmse_") for name in metrics)
        return super().summary(metrics) + (" deviations" if several else "")

    def _columns(self, classes: Sequence[str] | None, top: int) -> list[dict[str, Any]]:
        names = [f"target {i}" for i in range(self.logits.shape[1])] if classes is None else classes
        rows = []
        for label, output in zip(self.labels.tolist(), self.logits.tolist(), strict=True):
            row: dict[str, Any] = {}
            for name, true, predicted in zip(names, label, output, strict=True):
                row |= {name: _rounded(true), f"{name}_predicted": _rounded(predicted)}
            rows.append(row)
        return rows


def _rounded(value: float) -> float:
    """The digits that a float32 has."""
    return float(f"{value:.7g}")
