"""Learning rate schedule, fused optimisers and moving average of the weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["WeightAverage", "use_fused_kernel", "warmup_cosine"]


def warmup_cosine(step: int, warmup_steps: int, steps: int) -> float:
    """Return the factor of the peak learning rate at a step: linear warm-up from 0, then cosine decay to 0.

    As in the original code, the first step of a warm-up has rate 0, and the cosine repeats after the last step.
    """
    rise = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    return rise * 0.5 * (1 + math.cos(math.pi * (max(0, step - warmup_steps) / (steps - warmup_steps) % 1)))


def use_fused_kernel(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimiser of torch that has a fused kernel use it: one call for all parameters, equal up to rounding."""
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"] = True


class WeightAverage:
    """Exponential moving average of a model's parameters, sharded like the parameters.

    Args:
        model: the model; the average starts with its parameters.
        decay: decay in [0, 1). After n updates it is limited to (1 + n) / (10 + n), so that the first values lose their
            weight quickly.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Update the average with the current parameters, after `updates` earlier updates."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.parameters], 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Copy the average into the model."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.copy_(average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Context manager in which the model has the average as its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # Swap values, not storages: sharded parameters are views and must keep their storage.
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = average.clone()
            average.copy_(parameter)
            parameter.copy_(kept)
