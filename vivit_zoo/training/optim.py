"""Around the optimiser: the learning rate's schedule, and the moving average of the weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["WeightAverage", "warmup_cosine"]


def warmup_cosine(step: int, warmup_steps: int, steps: int) -> float:
    """Share of the peak learning rate at a step, as in the original code: a line up from 0, then half a cosine down.

    The first step has rate 0, if there is a warm-up; past the last step the cosine begins anew, like the original's.
    """
    rise = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    return rise * 0.5 * (1 + math.cos(math.pi * (max(0, step - warmup_steps) / (steps - warmup_steps) % 1)))


class WeightAverage:
    """An exponential moving average of a model's parameters, sharded like them.

    Args:
        model: whose parameters it begins with.
        decay: in [0, 1). After n updates it is at most (1 + n) / (10 + n), so that the start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the present parameters, after `updates` earlier ones."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.parameters], 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Give the model the average as its weights, for good."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.copy_(average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the model has the average as its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # Values, not storages: sharded parameters are views that must stay where they are.
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = average.clone()
            average.copy_(parameter)
            parameter.copy_(kept)
