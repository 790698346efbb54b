"""The MLP of a transformer block, its activations, and what makes a norm."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ACTS", "Mlp", "Norm", "gelu_tanh", "layer_norm", "quick_gelu"]

Norm = Callable[..., nn.Module]
"""Makes a norm from its width, such as `partial(nn.RMSNorm, eps=1e-5)`."""

layer_norm: Norm = partial(nn.LayerNorm, eps=1e-6)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form, the one that the released ViViT checkpoints were trained with."""
    return F.gelu(x, approximate="tanh")


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), the form of OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)


ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": gelu_tanh,
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
    "silu": F.silu,
}


class Mlp(nn.Module):
    """Linear, activation, Linear: (..., d) -> (..., d).

    Kernels start Xavier-uniform and biases from N(0, 1e-6), as in the original code.

    Args:
        dim: width d.
        hidden: width between the two layers.
        act: the activation, a function of a tensor.
        gated: whether the first layer computes a gate, too: act(gate) · up, with the gate in the first half of `fc1`
            (arXiv 2002.05202; SwiGLU with `act=F.silu`).
        inner_norm: makes the norm before the second layer from `hidden`; None for no norm.
        drop: dropout rate after the activation and after the second layer, in [0, 1).
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        act: Callable[[Tensor], Tensor] = gelu_tanh,
        gated: bool = False,
        inner_norm: Norm | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden if gated else hidden)
        self.act = act
        self.gated = gated
        self.inner_norm = inner_norm(hidden) if inner_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)
        for weight in (*self.fc1.weight.split(hidden), self.fc2.weight):
            nn.init.xavier_uniform_(weight)
        for layer in (self.fc1, self.fc2):
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.gated:
            gate, up = x.chunk(2, dim=-1)
            x = self.act(gate) * up
        else:
            x = self.act(x)
        return self.drop(self.fc2(self.inner_norm(self.drop(x))))
