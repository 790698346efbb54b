"""Targets and losses of a batch, for one head or several: soft labels, mixup, cross-entropy."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Heads", "cross_entropy", "mixup", "one_hot"]

Heads = Tensor | Mapping[str, Tensor]
"""A tensor; of a model with several heads, a tensor for each by its name."""


def one_hot(label: Heads, num_classes: int | Mapping[str, int]) -> Any:
    """Class numbers as probabilities: (b,) -> (b, classes) float32; of several heads by head.

    Args:
        label: class numbers, int64.
        num_classes: as of `ViViTConfig`.

    Raises:
        ValueError: on a label that is no class, or heads that differ.
    """
    if not isinstance(label, Tensor) or not isinstance(num_classes, int):
        return {head: one_hot(one, classes) for head, one, classes in _by_head(label, num_classes)}
    # On another device a look at the labels would wait for it; there one_hot itself refuses them.
    if label.device.type == "cpu" and len(label) and not 0 <= label.min() <= label.max() < num_classes:
        raise ValueError(
            f"labels go from {label.min()} to {label.max()}; {num_classes} classes are 0 to {num_classes - 1}"
        )
    return F.one_hot(label, num_classes).float()


def mixup(video: Tensor, target: Heads, alpha: float) -> tuple[Tensor, Any]:
    """Each clip mixed with its partner in the reversed batch: (b, c, t, h, w), (b, classes) -> same.

    As the original: pixels and labels become w x + (1 - w) x', with one weight w ~ Beta(alpha, alpha) a batch; each
    process draws its own, from torch's global generator of the CPU. The paper's alpha is 0.1 for Epic Kitchens and 0.3
    for Something-Something v2 (Table 7).

    Args:
        video: floating-point, as `normalise` gives it, on any device.
        target: probabilities, as `one_hot` gives them.
        alpha: of the distribution; 0 for no mixing.

    Raises:
        TypeError: on whole numbers, which cannot be mixed.
        ValueError: if alpha is negative.
    """
    if alpha < 0:
        raise ValueError(f"alpha {alpha} is negative; 0 is no mixing")
    weight = torch.distributions.Beta(alpha, alpha).sample().item() if alpha else 1.0

    def mix(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise TypeError(f"{x.dtype} cannot be mixed; use `normalise` for the video and `one_hot` for the labels")
        return x * weight + x.flip(0) * (1 - weight) if alpha else x

    return mix(video), mix(target) if isinstance(target, Tensor) else {head: mix(one) for head, one in target.items()}


def cross_entropy(logits: Heads, target: Heads, label_smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy of a batch, of several heads their mean: (b, classes), (b,) or (b, classes) -> ().

    As the original: labels y become y (1 - s) + s / classes, and Epic Kitchens' loss is the mean of noun's and verb's.

    Args:
        logits: (b, classes).
        target: class numbers (b,) or probabilities (b, classes).
        label_smoothing: s, in [0, 1].

    Raises:
        ValueError: if the heads differ.
    """
    if isinstance(logits, Tensor) and isinstance(target, Tensor):
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    losses = [cross_entropy(one, aim, label_smoothing) for _, one, aim in _by_head(logits, target)]
    return torch.stack(losses).mean()


def _by_head(one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """Two mappings side by side."""
    names = [sorted(heads) if isinstance(heads, Mapping) else "one unnamed" for heads in (one, other)]
    if names[0] != names[1]:
        raise ValueError(f"the heads differ: {names[0]} here, {names[1]} there")
    return [(head, one[head], other[head]) for head in one]
