"""The residual blocks: `DropPath`, `Block` (Models 1, 2 and 4) and `FactorisedBlock` (Model 3)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vivit_zoo.attention import Attend, Attention, attend, attend_over_time
from vivit_zoo.mlp import Mlp, Norm, gelu_tanh, layer_norm
from vivit_zoo.tokens import average

__all__ = ["Block", "DropPath", "FactorisedBlock", "Order"]

Order = Literal["space_time", "time_space"]


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

    Its call takes the tokens and, optionally, a mask (..., n) for the attention strategy.

    Args:
        dim: width d of the tokens.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`, rounded to the nearest integer.
        attend: the attention strategy, see `vivit_zoo.attention`. `attend_split_heads` makes this Model 4's block.
        rope: makes the rotary positions of the attention, such as `partial(RotaryEmbed, 14 * 14, ...)`.
        rel_pos: makes a module whose call is the strategy in place of `attend`, such as
            `partial(RelativePositionBias, 14 * 14, ...)`.
        qkv_bias: whether queries, keys and values have a bias.
        act: activation of the MLP.
        gated: whether the MLP is gated, see `Mlp`.
        norm: makes each norm of the block from its width.
        qk_norm: whether queries and keys are normalised in each head.
        attn_inner_norm: whether a norm stands before the attention's output projection.
        mlp_inner_norm: whether a norm stands before the MLP's second layer.
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
        rope: Callable[[], nn.Module] | None = None,
        rel_pos: Callable[[], nn.Module] | None = None,
        qkv_bias: bool = True,
        act: Callable[[Tensor], Tensor] = gelu_tanh,
        gated: bool = False,
        norm: Norm = layer_norm,
        qk_norm: bool = False,
        attn_inner_norm: bool = False,
        mlp_inner_norm: bool = False,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self._attention = partial(
            Attention,
            dim,
            num_heads,
            qkv_bias=qkv_bias,
            qk_norm=norm if qk_norm else None,
            inner_norm=norm if attn_inner_norm else None,
            attn_drop=attn_drop,
            proj_drop=drop,
        )
        self.norm1 = norm(dim)
        self.rel_pos = rel_pos() if rel_pos else None
        strategy = attend if self.rel_pos is None else self.rel_pos.forward
        self.attn = self._attention(attend=strategy, rope=rope() if rope else None)
        self.norm2 = norm(dim)
        inner_norm = norm if mlp_inner_norm else None
        self.mlp = Mlp(dim, round(dim * mlp_ratio), act=act, gated=gated, inner_norm=inner_norm, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class FactorisedBlock(Block):
    """Model 3's block, attention over space, then over time, then the MLP: (b, t, n, d) -> (b, t, n, d).

    Paper section 3.3, Equations 4 to 6. `attn` and `norm1` are the spatial attention's, so that an image model's block
    maps onto this one by name; `attn_time` and `norm_time` are what Model 3 adds. A mask (b, t, n) is of whole frames,
    so it holds over time alone.

    Args:
        dim, num_heads, **options: as in `Block`.
        order: "space_time" as in the paper, or "time_space".
        rope_time: makes the rotary positions of the attention over time.
        clip_tokens: number of tokens, first on the axis n, that belong to the clip and are the same in all frames: they
            take the mean over the frames of their attention over space, and no part in the attention over time
            (TimeSformer, arXiv 2102.05095). Other tokens without a place belong to their frame.

    Raises:
        ValueError: on any other `order`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        order: Order = "space_time",
        rope_time: Callable[[], nn.Module] | None = None,
        clip_tokens: int = 0,
        attend: Attend = attend,
        norm: Norm = layer_norm,
        **options: Any,
    ) -> None:
        super().__init__(dim, num_heads, attend=attend, norm=norm, **options)
        if order not in get_args(Order):
            raise ValueError(f"order {order!r} is unknown; choose from {', '.join(get_args(Order))}")
        self.order = order
        self.clip_tokens = clip_tokens
        self.norm_time = norm(dim)
        over_time = partial(attend_over_time, attend=attend)
        self.attn_time = self._attention(attend=over_time, rope=rope_time() if rope_time else None)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for branch in (self._space, self._time) if self.order == "space_time" else (self._time, self._space):
            x = x + self.drop_path(branch(x, mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _space(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attn(self.norm1(x))
        if not (n := self.clip_tokens):
            return x
        of_clip, of_frames = x[..., :n, :], x[..., n:, :]
        mean = average(of_clip.transpose(1, 2), mask if mask is None else mask.mT[:, :n])
        return torch.cat([mean[:, None].expand_as(of_clip), of_frames], dim=-2)

    def _time(self, x: Tensor, mask: Tensor | None) -> Tensor:
        n = self.clip_tokens
        x = self.attn_time(self.norm_time(x[..., n:, :]), mask if mask is None else mask[..., n:])
        return F.pad(x, (0, 0, n, 0)) if n else x
