"""Who attends to whom.

`Attention` owns the projections; an *attention strategy* decides which tokens see each other. A strategy is a plain
function of queries, keys and values without parameters, so the same weights can be run under any of them, and a window,
a causal mask or a recorder of the attention maps is somebody's own function, passed in.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["Attend", "Attention", "attend", "attend_over_time", "attend_split_heads"]

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""A strategy: q, k, v of shape (..., h, n, d) and the dropout rate of the attention weights -> (..., h, n, d)."""


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ / √d) v within each sequence: (..., h, n, d) -> (..., h, n, d).

    Everything before the heads is batch, so on (b, t, h, n, d) each frame attends to itself alone (spatial attention).
    """
    batch = q.shape[:-3]
    # The fused kernels take exactly four axes; more would silently fall back to the unfused one.
    q, k, v = (x.flatten(end_dim=-4) if len(batch) > 1 else x for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    return out.unflatten(0, batch) if len(batch) > 1 else out


def attend_over_time(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Each place attends to the same place in all frames: (b, t, h, n, d) -> (b, t, h, n, d).

    Paper section 3.3, Models 3 and 4: the softmax runs over t, everything else is batch.
    """
    q, k, v = (rearrange(x, "b t h n d -> b n h t d") for x in (q, k, v))
    return rearrange(attend(q, k, v, dropout), "b n h t d -> b t h n d")


def attend_split_heads(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """First half of the heads over time, second half over space: (b, t, h, n, d) -> (b, t, h, n, d).

    Paper section 3.3, Model 4 (factorised dot-product attention), heads in the order of the original code. Of an odd
    number of heads time gets the larger half.
    """
    (q_time, q_space), (k_time, k_space), (v_time, v_space) = (x.chunk(2, dim=-3) for x in (q, k, v))
    over_time = attend_over_time(q_time, k_time, v_time, dropout)
    over_space = attend(q_space, k_space, v_space, dropout)
    # Joined as (b, t, n, h, d) in memory, so that whoever flattens the heads next need not copy.
    return torch.cat([x.transpose(-3, -2) for x in (over_time, over_space)], dim=-2).transpose(-3, -2)


class Attention(nn.Module):
    """Multi-head self-attention: (..., n, d) -> (..., n, d).

    Args:
        dim: width d of the tokens.
        num_heads: number of heads h; must divide `dim`.
        attend: which tokens see each other: `attend`; `attend_over_time` and `attend_split_heads`, which need the whole
            grid (b, t, n, d); or an `Attend` of your own.
        qkv_bias: whether queries, keys and values have a bias.
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
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

        for weight in (*self.qkv.weight.chunk(3), self.proj.weight):
            nn.init.xavier_uniform_(weight)
        for bias in (self.qkv.bias, self.proj.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "... n (qkv h d) -> qkv ... h n d", qkv=3, h=self.num_heads)
        x = self.attend(q, k, v, self.attn_drop if self.training else 0.0)
        x = rearrange(x, "... h n d -> ... n (h d)")
        return self.proj_drop(self.proj(x))

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, attend={getattr(self.attend, '__name__', self.attend)}"
