"""What a run optimises for each task: targets, mixing, loss, scores, and the units of a regression."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from vivit_zoo.datasets import DataSets
from vivit_zoo.evaluation.multi_label import MultiLabelScores
from vivit_zoo.evaluation.predictions import Predictions
from vivit_zoo.evaluation.regression import RegressionScores
from vivit_zoo.evaluation.scores import Scores
from vivit_zoo.training.config import TrainConfig
from vivit_zoo.training.losses import balanced_weights, binary_cross_entropy, cross_entropy, one_hot, squared_error
from vivit_zoo.training.mixing import mix
from vivit_zoo.weights.report import ProblemType

__all__ = ["KINDS", "PROBLEM_TYPES", "Objective", "TargetScale"]

KINDS: dict[str, type[Predictions]] = {
    "single_label": Scores,
    "multi_label": MultiLabelScores,
    "regression": RegressionScores,
}
"""Task of the data -> class of the scores."""

PROBLEM_TYPES: dict[str, ProblemType] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""Task of the data -> what the outputs of the model mean."""


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the targets of a regression in the training set, (targets,) each.

    The model is trained on normalised targets, so that the learning rate does not depend on their units.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of_labels(cls, labels: Sequence[Any], names: Sequence[str]) -> Self:
        """Measure the scores of all training videos.

        Raises:
            ValueError: if all scores of a target are equal.
        """
        scores = torch.tensor(labels, dtype=torch.float64).reshape(len(labels), -1)
        scale = cls(scores.mean(0), scores.std(0, correction=0))
        for name, mean, deviation in zip(names, scale.mean.tolist(), scale.deviation.tolist(), strict=True):
            if not deviation > 1e-12 * abs(mean):
                raise ValueError(
                    f"all {len(labels)} training videos have the {name} {mean:g}; there is nothing to learn"
                )
        return scale

    @classmethod
    def from_json(cls, values: Mapping[str, Sequence[float]]) -> Self:
        """Undo `to_json`."""
        return cls(*(torch.tensor(values[name], dtype=torch.float64) for name in ("mean", "deviation")))

    def to_json(self) -> dict[str, list[float]]:
        """Return both as lists."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def normalise(self, labels: Tensor) -> Tensor:
        """(b, targets) in units -> the same with mean 0 and deviation 1 over the training set, float32."""
        mean, deviation = (x.to(labels.device, torch.float32) for x in (self.mean, self.deviation))
        return (labels - mean) / deviation

    def in_units(self, outputs: Tensor) -> Tensor:
        """Undo `normalise`."""
        mean, deviation = (x.to(outputs.device, torch.float32) for x in (self.mean, self.deviation))
        return outputs.float() * deviation + mean

    @torch.no_grad()
    def fold_into(self, head: nn.Linear) -> None:
        """Change a head that predicts normalised targets, in place, into one that predicts them in units."""
        mean, deviation = (x.to(head.weight) for x in (self.mean, self.deviation))
        head.weight.mul_(deviation[:, None])
        head.bias.mul_(deviation).add_(mean)


class Objective:
    """The targets, the loss and the scores of a run.

    Args:
        config: of the run.
        data: the data sets of the run; the labels of all training videos are read only if something depends on them.
        device: device of the model.
        scale: of a resumed regression, from `state`; None to measure the training set.

    Attributes:
        kind: class of the scores.
        scale: of a regression; None for other tasks.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: DataSets,
        device: torch.device | str = "cpu",
        scale: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.config, self.task = config, config.data.task
        self.kind = KINDS[self.task]
        self.scale: TargetScale | None = None
        if self.task == "regression":
            self.scale = (
                TargetScale.of_labels(data.train.labels(), data.classes)
                if scale is None
                else TargetScale.from_json(scale)
            )
        weights = _weights(config, data, device)
        losses: dict[str, Callable[..., Tensor]] = {
            "single_label": partial(cross_entropy, label_smoothing=config.label_smoothing, weights=weights),
            "multi_label": partial(binary_cross_entropy, label_smoothing=config.label_smoothing, weights=weights),
            "regression": squared_error,
        }
        self.loss = losses[self.task]

    def prepare(self, video: Tensor, label: Any) -> tuple[Tensor, Any]:
        """Return clips and targets to train on, mixed if the run does so.

        Args:
            video: (b, c, t, h, w), normalised.
            label: class numbers (b,), or by head; for several labels (b, classes) of 0 and 1; for numbers (b, targets).
        """
        target = label if self.scale is None else self.scale.normalise(label)
        if not self.config.mixup and not self.config.cutmix:
            return video, target
        if self.task == "single_label":
            target = one_hot(target, self.config.model.num_classes)
        return mix(video, target, self.config.mixup, self.config.cutmix)

    def in_units(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """Return the model, or for a regression a function that returns its outputs in the units of the labels."""
        scale = self.scale
        return model if scale is None else lambda *inputs: scale.in_units(model(*inputs))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs: the scale of a regression."""
        return {} if self.scale is None else {"scale": self.scale.to_json()}


def _weights(config: TrainConfig, data: DataSets, device: torch.device | str) -> Any:
    """Weights of the classes, (classes,) or by head; None for none."""
    if config.class_weights is None:
        return None
    if config.class_weights != "balanced":
        return torch.tensor(config.class_weights, device=device)
    labels, classes = data.train.labels(), data.num_classes
    if isinstance(classes, int):
        return balanced_weights(labels, classes, config.data.task == "multi_label").to(device)
    heads = {head: [label[head] for label in labels] for head in classes}
    return {head: balanced_weights(heads[head], count).to(device) for head, count in classes.items()}
