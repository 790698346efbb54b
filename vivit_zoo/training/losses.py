"""Targets and losses for one or several heads: soft labels, mixup, cross-entropy."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Heads", "cross_entropy", "mixup", "one_hot"]

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


def mixup(video: Tensor, target: Heads, alpha: float) -> tuple[Tensor, Any]:
    """Mix each clip with its partner in the reversed batch: (b, c, t, h, w), (b, classes) -> same.

    As in the original code, pixels and labels become w x + (1 - w) x', with one weight w ~ Beta(alpha, alpha) per
    batch. Each process draws its own weight from torch's global CPU generator. The paper uses alpha = 0.1 for Epic
    Kitchens and 0.3 for Something-Something v2 (Table 7).

    Args:
        video: floating-point clips, as from `normalise`, on any device.
        target: probabilities, as from `one_hot`.
        alpha: parameter of the Beta distribution; 0 for no mixing.

    Raises:
        TypeError: if video or target are integers.
        ValueError: if alpha is negative.
    """
    if alpha < 0:
        raise ValueError(f"alpha {alpha} is negative; use 0 for no mixing")
    weight = torch.distributions.Beta(alpha, alpha).sample().item() if alpha else 1.0

    def mix(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise TypeError(f"{x.dtype} cannot be mixed; use `normalise` for the video and `one_hot` for the labels")
        return x * weight + x.flip(0) * (1 - weight) if alpha else x

    return mix(video), mix(target) if isinstance(target, Tensor) else {head: mix(one) for head, one in target.items()}


def cross_entropy(logits: Heads, target: Heads, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of a batch, averaged over heads: (b, classes), (b,) or (b, classes) -> ().

    As in the original code, labels y become y (1 - s) + s / classes, and the loss of Epic Kitchens is the mean of the
    losses of noun and verb.

    Args:
        logits: (b, classes).
        target: class numbers (b,) or probabilities (b, classes).
        label_smoothing: s in [0, 1].

    Raises:
        ValueError: if the heads differ.
    """
    if isinstance(logits, Tensor) and isinstance(target, Tensor):
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    losses = [cross_entropy(one, aim, label_smoothing) for _, one, aim in _by_head(logits, target)]
    return torch.stack(losses).mean()


def _by_head(one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """Pair two mappings by head."""
    names = [sorted(heads) if isinstance(heads, Mapping) else "one unnamed" for heads in (one, other)]
    if names[0] != names[1]:
        raise ValueError(f"the heads differ: {names[0]} and {names[1]}")
    return [(head, one[head], other[head]) for head in one]
