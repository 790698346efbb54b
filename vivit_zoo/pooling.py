"""Attention pooling: a learned query attends to all tokens."""

from collections.abc import Callable
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from vivit_zoo.attention import Attend, attend
from vivit_zoo.blocks import Block
from vivit_zoo.mlp import Mlp, Norm, gelu_tanh, layer_norm

__all__ = ["AttentionPool"]


class AttentionPool(nn.Module):
    """One query attends to the tokens; a norm and an MLP follow: (..., n, d) -> (..., d).

    With a mask (..., n) to those tokens alone for which it is True.

    "Set Transformer", arXiv 1810.00825, section 3.2; CoCa, arXiv 2205.01917, section 3.2. With y = proj(attention), the
    result is y + mlp(norm(y)), or norm(y) where there is no MLP.

    Args:
        dim: width d of the tokens.
        num_heads: number of attention heads; must divide `inner_dim`.
        depth: blocks of self-attention among the tokens before the query.
        inner_dim: width of query, keys and values together; None for `dim`.
        mlp_ratio: hidden width of the MLP over `dim`; None for no MLP.
        pre_norm: whether a norm of the tokens stands before keys and values.
        attend: the attention strategy of the blocks; the query attends by `attention.attend` in any case.
        act: activation of the MLPs.
        norm: makes each norm from its width.
        drop, attn_drop: dropout rates in the blocks, in [0, 1).

    Raises:
        ValueError: if `num_heads` does not divide `inner_dim`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        depth: int = 0,
        inner_dim: int | None = None,
        mlp_ratio: float | None = 4.0,
        pre_norm: bool = False,
        attend: Attend = attend,
        act: Callable[[Tensor], Tensor] = gelu_tanh,
        norm: Norm = layer_norm,
        drop: float = 0.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        inner = inner_dim or dim
        if inner % num_heads:
            raise ValueError(f"the pooling's width {inner} is not divisible by its num_heads {num_heads}")
        self.num_heads = num_heads
        block = partial(Block, dim, num_heads, attend=attend, act=act, norm=norm, drop=drop, attn_drop=attn_drop)
        self.blocks = nn.ModuleList(block() for _ in range(depth))
        self.norm_pre = norm(dim) if pre_norm else nn.Identity()
        self.query = nn.Parameter(torch.empty(dim))
        self.q = nn.Linear(dim, inner)
        self.kv = nn.Linear(dim, 2 * inner)
        self.proj = nn.Linear(inner, dim)
        self.norm = norm(dim)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), act=act, drop=drop) if mlp_ratio else None
        nn.init.trunc_normal_(self.query, std=0.02)
        for weight in (self.q.weight, *self.kv.weight.chunk(2), self.proj.weight):
            nn.init.xavier_uniform_(weight)
        for layer in (self.q, self.kv, self.proj):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        k, v = rearrange(self.kv(self.norm_pre(x)), "... n (kv h d) -> kv ... h n d", kv=2, h=self.num_heads)
        y = attend(self._q(k).expand(*k.shape[:-2], -1, -1), k, v, 0.0, mask)
        y = self.proj(rearrange(y, "... h 1 d -> ... (h d)"))
        return self.norm(y) if self.mlp is None else y + self.mlp(self.norm(y))

    def weights(self, tokens: Tensor) -> Tensor:
        """How much each head attends to each of the tokens that `kv` takes: (..., n, d) -> (..., h, n), sums to 1."""
        k = rearrange(self.kv(tokens), "... n (kv h d) -> kv ... h n d", kv=2, h=self.num_heads)[0]
        return (self._q(k) @ k.mT * k.shape[-1] ** -0.5).softmax(dim=-1).squeeze(-2)

    def _q(self, like: Tensor) -> Tensor:
        return rearrange(self.q(self.query.to(like.dtype)), "(h d) -> h 1 d", h=self.num_heads)
