"""Multi-head self-attention, and the strategies that decide which tokens attend to which.

`Attention` holds the projections. An *attention strategy* maps queries, keys and values to what the heads return. It is
a function without parameters, so the same weights run under any strategy, and a window, a causal mask or a recorder of
the attention maps is your own function, passed in. What depends on places but not on who attends to whom (rotary
positions, norms of queries and keys) happens in `Attention`, before the strategy.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["Attend", "Attention", "attend", "attend_over_time", "attend_softcapped", "attend_split_heads"]

Attend = Callable[..., Tensor]
"""A strategy: q, k, v of shape (..., h, n, d) and the dropout rate of the attention weights -> (..., h, n, d).

Where tokens are to be left out it also gets `mask=`, (..., n) bool, True for those that are there as keys.
"""


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v within each sequence: (..., h, n, d) -> (..., h, n, d).

    Everything before the heads is batch, so on (b, t, h, n, d) each frame attends to itself alone (spatial attention).
    """
    batch = q.shape[:-3]
    if mask is not None:
        mask = mask.expand(*batch, -1)[..., None, None, :]
    if len(batch) > 1:  # the fused kernels take exactly four axes; more would silently fall back to the unfused one
        q, k, v = (x.flatten(end_dim=-4) for x in (q, k, v))
        mask = mask if mask is None else mask.flatten(end_dim=-4)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return out.unflatten(0, batch) if len(batch) > 1 else out


def attend_softcapped(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, mask: Tensor | None = None, *, cap: float = 50.0
) -> Tensor:
    """`attend` with scores s capped to cap · tanh(s / cap): (..., h, n, d) -> (..., h, n, d).

    Gemma 2, arXiv 2408.00118, section 2. `partial(attend_softcapped, cap=30.0)` is the strategy with another cap. No
    fused kernel of torch has a cap, so the scores of all pairs are in memory.
    """
    scores = cap * torch.tanh(q @ k.mT * (q.shape[-1] ** -0.5 / cap))
    if mask is not None:
        scores = scores.masked_fill(~mask[..., None, None, :], -torch.inf)
    return F.dropout(scores.softmax(dim=-1), dropout) @ v


def attend_over_time(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, mask: Tensor | None = None, *, attend: Attend = attend
) -> Tensor:
    """Each place attends to the same place in all frames: (b, t, h, n, d) -> (b, t, h, n, d).

    Paper section 3.3, Models 3 and 4: the softmax runs over t, everything else is batch. `attend` is the strategy
    within each sequence of t tokens.
    """
    options = {} if mask is None else {"mask": mask.mT}
    q, k, v = (rearrange(x, "b t h n d -> b n h t d") for x in (q, k, v))
    return rearrange(attend(q, k, v, dropout, **options), "b n h t d -> b t h n d")


def attend_split_heads(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, mask: Tensor | None = None, *, attend: Attend = attend
) -> Tensor:
    """First half of the heads over time, second half over space: (b, t, h, n, d) -> (b, t, h, n, d).

    Paper section 3.3, Model 4 (factorised dot-product attention), heads in the order of the original code. If the
    number of heads is odd, time gets one more. `attend` is the strategy within each sequence. A mask is of
    whole frames, so it holds over time alone.
    """
    (q_time, q_space), (k_time, k_space), (v_time, v_space) = (x.chunk(2, dim=-3) for x in (q, k, v))
    over_time = attend_over_time(q_time, k_time, v_time, dropout, mask, attend=attend)
    over_space = attend(q_space, k_space, v_space, dropout)
    # Joined as (b, t, n, h, d) in memory, so that flattening the heads next needs no copy.
    return torch.cat([x.transpose(-3, -2) for x in (over_time, over_space)], dim=-2).transpose(-3, -2)


class Attention(nn.Module):
    """Multi-head self-attention: (..., n, d) -> (..., n, d), and optionally a mask (..., n) for the strategy.

    Args:
        dim: width d of the tokens.
        num_heads: number of heads h; must divide `dim`.
        attend: the strategy: `attend`; `attend_over_time` and `attend_split_heads`, which need the whole grid
            (b, t, n, d); or your own `Attend`.
        qkv_bias: whether queries, keys and values have a bias.
        rope: a module that rotates queries and keys by their places, such as `positions.RotaryEmbed`.
        qk_norm: makes the norms of queries and keys from the width of a head; None for no norms.
        inner_norm: makes the norm before the output projection from `dim`; None for no norm.
        attn_drop: dropout rate of the attention weights, in [0, 1).
        proj_drop: dropout rate after the output projection, in [0, 1).

    Raises:
        ValueError: if `num_heads` does not divide `dim`.

    Kernels start Xavier-uniform, each of q, k and v as a matrix of its own, and biases at zero, as in the original.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        attend: Attend = attend,
        qkv_bias: bool = True,
        rope: nn.Module | None = None,
        qk_norm: Callable[[int], nn.Module] | None = None,
        inner_norm: Callable[[int], nn.Module] | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}; choose a divisor of {dim}")
        self.num_heads = num_heads
        self.attend = attend
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm, self.k_norm = (qk_norm(dim // num_heads) if qk_norm else nn.Identity() for _ in "qk")
        self.rope = nn.Identity() if rope is None else rope
        self.inner_norm = inner_norm(dim) if inner_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

        for weight in (*self.qkv.weight.chunk(3), self.proj.weight):
            nn.init.xavier_uniform_(weight)
        for bias in (self.qkv.bias, self.proj.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        options = {} if mask is None else {"mask": mask}  # so that a strategy of your own need not know masks
        q, k, v = rearrange(self.qkv(x), "... n (qkv h d) -> qkv ... h n d", qkv=3, h=self.num_heads)
        q, k = self.rope(self.q_norm(q)), self.rope(self.k_norm(k))
        x = self.attend(q, k, v, self.attn_drop if self.training else 0.0, **options)
        x = self.inner_norm(rearrange(x, "... h n d -> ... n (h d)"))
        return self.proj_drop(self.proj(x))

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, attend={getattr(self.attend, '__name__', self.attend)}"
