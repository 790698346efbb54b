"""The residual blocks: `Mlp`, `DropPath`, `Block` (Models 1, 2 and 4) and `FactorisedBlock` (Model 3)."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vivit_zoo.attention import Attend, Attention, attend, attend_over_time

__all__ = ["ACTS", "Block", "DropPath", "FactorisedBlock", "Mlp", "Order", "gelu_tanh", "quick_gelu"]

Order = Literal["space_time", "time_space"]


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form, the one that the released ViViT checkpoints were trained with."""
    return F.gelu(x, approximate="tanh")


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), the form of OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)


ACTS: dict[str, Callable[[Tensor], Tensor]] = {"gelu_tanh": gelu_tanh, "gelu": F.gelu, "quick_gelu": quick_gelu}


class Mlp(nn.Module):
    """Linear, activation, Linear: (..., d) -> (..., d).

    Kernels start Xavier-uniform and biases from N(0, 1e-6), as in the original code.

    Args:
        dim: width d.
        hidden: width between the two layers.
        act: the activation, a function of a tensor.
        drop: dropout rate after the activation and after the second layer, in [0, 1).
    """

    def __init__(
        self, dim: int, hidden: int, *, act: Callable[[Tensor], Tensor] = gelu_tanh, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = act
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class DropPath(nn.Module):
    """Stochastic depth: zeroes whole samples of the first axis with probability `rate` in training: (b, ...) -> same.

    One draw serves all frames and places of a video. What is kept is scaled by 1 / (1 - rate), so that evaluation needs
    no change; this is timm's convention, the original ViViT code does not rescale.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop path rate {rate} is not in [0, 1)")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class Block(nn.Module):
    """Pre-norm transformer block, x + attn(norm1(x)), then x + mlp(norm2(x)): (..., n, d) -> (..., n, d).

    Args:
        dim: width d of the tokens.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`, rounded to the nearest integer.
        attend: the attention strategy, see `vivit_zoo.attention`. `attend_split_heads` makes this Model 4's block.
        qkv_bias: whether queries, keys and values have a bias.
        act: activation of the MLP.
        norm_eps: epsilon of the LayerNorms.
        drop: dropout rate after the attention's projection and in the MLP, in [0, 1).
        attn_drop: dropout rate of the attention weights, in [0, 1).
        drop_path: rate of stochastic depth, in [0, 1); each residual branch draws for itself, once per sample.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        attend: Attend = attend,
        qkv_bias: bool = True,
        act: Callable[[Tensor], Tensor] = gelu_tanh,
        norm_eps: float = 1e-6,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, attend=attend, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=drop)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), act=act, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class FactorisedBlock(Block):
    """Model 3's block, attention over space, then over time, then the MLP: (b, t, n, d) -> (b, t, n, d).

    Paper section 3.3, Equations 4 to 6. `attn` and `norm1` are the spatial attention's, so that an image model's block
    maps onto this one by name; `attn_time` and `norm_time` are what Model 3 adds.

    Args:
        dim, num_heads, **options: as in `Block`.
        order: "space_time" as in the paper, or "time_space".

    Raises:
        ValueError: on any other `order`.
    """

    def __init__(self, dim: int, num_heads: int, *, order: Order = "space_time", **options: Any) -> None:
        super().__init__(dim, num_heads, **options)
        if order not in get_args(Order):
            raise ValueError(f"order {order!r} is unknown; choose from {', '.join(get_args(Order))}")
        self.order = order
        self.norm_time = nn.LayerNorm(dim, eps=self.norm1.eps)
        self.attn_time = Attention(
            dim,
            num_heads,
            attend=attend_over_time,
            qkv_bias=self.attn.qkv.bias is not None,
            attn_drop=self.attn.attn_drop,
            proj_drop=self.attn.proj_drop.p,
        )

    def forward(self, x: Tensor) -> Tensor:
        space, time = (self.norm1, self.attn), (self.norm_time, self.attn_time)
        for norm, attn in (space, time) if self.order == "space_time" else (time, space):
            x = x + self.drop_path(attn(norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
