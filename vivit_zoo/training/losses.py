"""Targets and losses for one or several heads: cross-entropy, binary cross-entropy, squared error; weights of classes.

All losses are means over the clips of a batch, also with weights, so that the sum of the parts of a batch does not
depend on how it is split over processes and accumulated parts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Heads", "balanced_weights", "binary_cross_entropy", "cross_entropy", "one_hot", "squared_error"]

Heads = Tensor | Mapping[str, Tensor]
"""A tensor, or for several heads a dictionary of tensors by head."""


def one_hot(label: Heads, num_classes: int | Mapping[str, int]) -> Any:
    """Convert class numbers to one-hot probabilities: (b,) -> (b, classes) float32, or a dictionary by head.

    Args:
        label: class numbers, int64.
        num_classes: as in `ViViTConfig`.

    Raises:
        ValueError: if a label is not a class, or the heads differ.
    """
    if not isinstance(label, Tensor) or not isinstance(num_classes, int):
        return {head: one_hot(one, classes) for head, one, classes in _by_head(label, num_classes)}
    # On other devices this check would wait for the device; there F.one_hot raises the error.
    if label.device.type == "cpu" and len(label) and not 0 <= label.min() <= label.max() < num_classes:
        raise ValueError(
            f"labels go from {label.min()} to {label.max()}; {num_classes} classes are 0 to {num_classes - 1}"
        )
    return F.one_hot(label, num_classes).float()


def cross_entropy(logits: Heads, target: Heads, label_smoothing: float = 0.0, weights: Heads | None = None) -> Tensor:
    """Return the mean cross-entropy of a batch, averaged over heads: (b, classes), (b,) or (b, classes) -> ().

    As in the original code, labels y become y (1 - s) + s / classes, and the loss of Epic Kitchens is the mean of the
    losses of noun and verb. With weights w it is the mean over the clips of -sum_c w_c y_c log p_c; unlike
    `torch.nn.functional.cross_entropy` with class numbers, the sum is not divided by the weights of the batch.

    Args:
        logits: (b, classes).
        target: class numbers (b,) or probabilities (b, classes).
        label_smoothing: s in [0, 1].
        weights: of the classes, (classes,), for several heads by head; None for equal weights.

    Raises:
        ValueError: if the heads differ.
    """
    if isinstance(logits, Tensor) and isinstance(target, Tensor):
        if weights is not None and not target.is_floating_point():
            target = F.one_hot(target, logits.shape[1]).to(logits.dtype)
        return F.cross_entropy(logits, target, weight=weights, label_smoothing=label_smoothing)  # type: ignore[arg-type]
    pairs = _by_head(logits, target)
    by_head: Mapping[str, Any] = {} if weights is None else weights  # type: ignore[assignment]
    losses = [cross_entropy(one, aim, label_smoothing, by_head.get(head)) for head, one, aim in pairs]
    return torch.stack(losses).mean()


def binary_cross_entropy(
    logits: Tensor, target: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Return the mean binary cross-entropy over clips and classes, for several labels a clip: (b, classes) x 2 -> ().

    Args:
        logits: (b, classes); the probabilities are their sigmoids.
        target: (b, classes) in [0, 1]: 1 for the classes of a clip, else 0, or a mixture of such.
        label_smoothing: s in [0, 1]; targets y become y (1 - s) + s / 2.
        weights: of the positive term of each class, (classes,): the loss of a class is
            -(w y log p + (1 - y) log(1 - p)); None for 1.

    Raises:
        ValueError: if logits and target differ in shape.
    """
    target = target * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights)


def squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over clips and targets: (b, targets) x 2 -> ().

    Raises:
        ValueError: if the shapes differ.
    """
    if outputs.shape != target.shape:
        raise ValueError(f"outputs are {tuple(outputs.shape)}, targets {tuple(target.shape)}; they must be equal")
    return (outputs - target).square().mean()


def balanced_weights(labels: Sequence[Any], num_classes: int, several: bool = False) -> Tensor:
    """Return weights that make up for unequal numbers of clips: labels of all training clips -> (classes,) float32.

    For one label a clip these are clips / (classes x clips of the class), as scikit-learn's
    `compute_class_weight("balanced", ...)`, where classes without a clip are not counted: the mean weight over the
    clips is 1. For several labels a clip they weight the positive term of a class: clips without it / clips with it.
    Classes without a clip have weight 1.

    Args:
        labels: class numbers, or for several labels a clip tuples of them.
        num_classes: number of classes.
        several: whether a clip has several labels.
    """
    numbers = [number for label in labels for number in (label if several else (label,))]
    counts = torch.bincount(torch.tensor(numbers, dtype=torch.long), minlength=num_classes).double()
    weights = (len(labels) - counts) / counts if several else len(labels) / (counts.count_nonzero() * counts)
    # A class that all clips have has no negative to make up for.
    return torch.where((counts > 0) & (weights > 0), weights, torch.ones_like(weights)).float()


def _by_head(one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """Pair two mappings by head."""
    names = [sorted(heads) if isinstance(heads, Mapping) else "one unnamed" for heads in (one, other)]
    if names[0] != names[1]:
        raise ValueError(f"the heads differ: {names[0]} and {names[1]}")
    return [(head, one[head], other[head]) for head in one]
