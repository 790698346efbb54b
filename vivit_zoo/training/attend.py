"""Attention in training on a CPU, where separate products of short sequences are faster than the fused kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from vivit_zoo.attention import Attend, Attention, attend

__all__ = ["SHORT", "attend_short", "short_attention"]

SHORT = 32
"""The longest sequences that `attend_short` takes apart, in tokens."""

LANES = 16
"""Numbers that a vector instruction takes. A softmax over shorter rows is several times as fast if they are columns."""


def attend_short(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, mask: Tensor | None = None) -> Tensor:
    """`attend`, by separate products if the sequences are short: (..., h, n, d) -> (..., h, n, d).

    Forward and backward pass of the fused kernel have costs that only long sequences make up for. The results are
    equal up to rounding. Masks and dropout of weights are left to the fused kernel.
    """
    if k.shape[-2] > SHORT or dropout or mask is not None:
        return attend(q, k, v, dropout, mask)
    q = q * q.shape[-1] ** -0.5
    if k.shape[-2] < LANES:
        return (k @ q.mT).softmax(dim=-2).mT @ v
    return (q @ k.mT).softmax(dim=-1) @ v


@contextmanager
def short_attention(model: nn.Module) -> Iterator[None]:
    """Context manager in which the layers of a model that attend by `attend` attend by `attend_short`.

    That includes `partial(attend_over_time, attend=attend)` and the like, which the factorised encoders use. Other
    strategies stay.
    """
    layers = [module for module in model.modules() if type(module) is Attention]
    before = [layer.attend for layer in layers]
    try:
        for layer in layers:
            layer.attend = _replaced(layer.attend)
        yield
    finally:
        for layer, strategy in zip(layers, before, strict=True):
            layer.attend = strategy


def _replaced(strategy: Attend) -> Attend:
    if strategy is attend:
        return attend_short
    if isinstance(strategy, partial) and strategy.keywords.get("attend") is attend:
        return partial(strategy.func, *strategy.args, **(strategy.keywords | {"attend": attend_short}))
    return strategy
