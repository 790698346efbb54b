"""The variants of the paper's section 3.3 side by side, each (b, t, n, d) -> (b, d).

An encoder is any module that is built from `(t, n, dim, depth, num_heads, ...)` and maps the grid of tokens to one
vector a video. `vivit_zoo.model.ViViT` takes one of these by name, or your own class.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict, Unpack

import torch
from einops import rearrange
from einops.layers.torch import Reduce
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vivit_zoo.attention import attend_split_heads
from vivit_zoo.blocks import Block, FactorisedBlock, Order
from vivit_zoo.tokens import ClassToken, PosEmbed, RegisterTokens

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderOptions",
    "FactorisedDotProduct",
    "FactorisedEncoder",
    "FactorisedSelfAttention",
    "GridEncoder",
    "Joint",
]


class EncoderOptions(TypedDict, total=False):
    """What every encoder takes beside its sizes; see `Encoder` and `vivit_zoo.blocks.Block` for the meanings."""

    global_pool: str
    pos_embed: Callable[..., nn.Module]
    mlp_ratio: float
    qkv_bias: bool
    act: Callable[[Tensor], Tensor]
    norm_eps: float
    pre_norm: bool
    drop: float
    attn_drop: float
    drop_path: float


class Encoder(nn.Module):
    """Positions, class token, blocks, norm and pooling over a grid of tokens: (..., *grid, d) -> (..., d).

    On its own it runs over one axis and takes everything before it as batch; it is both halves of Model 2 so.

    Args:
        *grid: number of places along each axis that is pooled at the end.
        dim, depth, num_heads: width, number of blocks, attention heads.
        block: makes a block from (dim, num_heads, **block_options).
        global_pool: "token" (a class token's output), "avg" or "max" over the grid.
        pos_embed: makes the position embedding from (*grid, dim=dim).
        reg_tokens: number of register tokens (arXiv 2309.16588), which attend as all tokens do and are never pooled.
        pre_norm: whether a LayerNorm stands before the first block, as in CLIP.
        drop: dropout rate after the positions and in the blocks, in [0, 1).
        drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first (paper, Equation 10).
        **block_options: the other options of the block.

    Raises:
        ValueError: on a `global_pool` that this encoder does not have.
    """

    pools: tuple[str, ...] = ("token", "avg", "max")

    def __init__(
        self,
        *grid: int,
        dim: int,
        depth: int,
        num_heads: int,
        block: Callable[..., nn.Module] = Block,
        global_pool: str = "token",
        pos_embed: Callable[..., nn.Module] = PosEmbed,
        reg_tokens: int = 0,
        norm_eps: float = 1e-6,
        pre_norm: bool = False,
        drop: float = 0.0,
        drop_path: float = 0.0,
        **block_options: Any,
    ) -> None:
        super().__init__()
        if global_pool not in self.pools:
            why = f"{type(self).__name__} has no class token: " if global_pool == "token" else ""
            raise ValueError(
                f"{why}global_pool {global_pool!r} is not possible here; choose from {', '.join(self.pools)}"
            )
        self.global_pool = global_pool
        self.grad_checkpointing = False
        self.pos_embed = pos_embed(*grid, dim=dim)
        self.pos_drop = nn.Dropout(drop)
        self.num_registers = reg_tokens
        self.reg_tokens = RegisterTokens(reg_tokens, dim) if reg_tokens else nn.Identity()
        self.cls_token = ClassToken(dim) if global_pool == "token" else nn.Identity()
        self.norm_pre = nn.LayerNorm(dim, eps=norm_eps) if pre_norm else nn.Identity()
        ramp = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            block(dim, num_heads, norm_eps=norm_eps, drop=drop, drop_path=rate, **block_options) for rate in ramp
        )
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward_features(self, x: Tensor) -> Tensor:
        """The tokens after the last norm, not pooled: (..., n, d) -> (..., n, d).

        A class token comes before them, and registers between the two.
        """
        return self.run_blocks(self.cls_token(self.reg_tokens(self.add_positions(x))))

    def add_positions(self, x: Tensor) -> Tensor:
        return self.pos_drop(self.pos_embed(x))

    def run_blocks(self, x: Tensor) -> Tensor:
        x = self.norm_pre(x)
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.norm(x)

    def pool(self, x: Tensor) -> Tensor:
        """(..., n, d) -> (..., d)."""
        if self.global_pool == "token":
            return x[..., 0, :]
        x = x[..., self.num_registers :, :]
        return x.mean(dim=-2) if self.global_pool == "avg" else x.amax(dim=-2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.forward_features(x))


class Joint(Encoder):
    """Model 1, spatio-temporal attention: all tokens of the video are one sequence. (b, t, n, d) -> (b, d)."""

    def __init__(
        self,
        t: int,
        n: int,
        dim: int,
        depth: int,
        num_heads: int,
        *,
        reg_tokens: int = 0,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(t, n, dim=dim, depth=depth, num_heads=num_heads, reg_tokens=reg_tokens, **options)

    def forward_features(self, x: Tensor) -> Tensor:
        """(b, t, n, d) -> (b, t·n, d), after the class token and the registers where there are any."""
        x = rearrange(self.add_positions(x), "b t n d -> b (t n) d")
        return self.run_blocks(self.cls_token(self.reg_tokens(x)))


class FactorisedEncoder(nn.Module):
    """Model 2: a spatial encoder for each frame, pooled, then a temporal one over the frames. (b, t, n, d) -> (b, d).

    Args:
        t, n, dim, depth, num_heads, **options: as everywhere; `depth` is the spatial encoder's. Both encoders pool
            alike and have a drop-path ramp of their own.
        temporal_depth: blocks of the temporal encoder. 0 is the paper's baseline: the frames' mean, no parameters.
        temporal_num_heads, temporal_mlp_ratio: the temporal encoder's own; None takes the spatial encoder's.
        reg_tokens: number of registers of each frame; like `pre_norm`, of the spatial encoder alone.
    """

    def __init__(
        self,
        t: int,
        n: int,
        dim: int,
        depth: int,
        num_heads: int,
        *,
        temporal_depth: int = 4,
        temporal_num_heads: int | None = None,
        temporal_mlp_ratio: float | None = None,
        reg_tokens: int = 0,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__()
        self.spatial = Encoder(n, dim=dim, depth=depth, num_heads=num_heads, reg_tokens=reg_tokens, **options)
        options["pre_norm"] = False
        options["pos_embed"] = partial(options.get("pos_embed", PosEmbed), frame=None)  # time is no plane
        if temporal_mlp_ratio is not None:
            options["mlp_ratio"] = temporal_mlp_ratio
        self.temporal = (
            Encoder(t, dim=dim, depth=temporal_depth, num_heads=temporal_num_heads or num_heads, **options)
            if temporal_depth
            else Reduce("b t d -> b d", "mean")
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal(self.spatial(x))


class GridEncoder(Encoder):
    """An encoder whose blocks see the whole grid, so that a class token has no place in it: (b, t, n, d) -> (b, d).

    Built like `Joint`, with any block that maps (b, t, n, d) to itself; pools over t and n, by default "avg".
    """

    pools = ("avg", "max")

    def __init__(
        self,
        t: int,
        n: int,
        dim: int,
        depth: int,
        num_heads: int,
        *,
        block: Callable[..., nn.Module],
        **options: Unpack[EncoderOptions],
    ) -> None:
        options.setdefault("global_pool", "avg")
        super().__init__(t, n, dim=dim, depth=depth, num_heads=num_heads, block=block, **options)

    def pool(self, x: Tensor) -> Tensor:
        return super().pool(rearrange(x, "b t n d -> b (t n) d"))


class FactorisedSelfAttention(GridEncoder):
    """Model 3: each block attends over space, then over time. (b, t, n, d) -> (b, d).

    Args:
        t, n, dim, depth, num_heads, **options: as everywhere, without a class token.
        order: "space_time" as in the paper, or "time_space".
    """

    def __init__(
        self,
        t: int,
        n: int,
        dim: int,
        depth: int,
        num_heads: int,
        *,
        order: Order = "space_time",
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(t, n, dim, depth, num_heads, block=partial(FactorisedBlock, order=order), **options)


class FactorisedDotProduct(GridEncoder):
    """Model 4: half of each block's heads attend over time, the other half over space. (b, t, n, d) -> (b, d).

    Args:
        t, n, dim, depth, num_heads, **options: as everywhere, without a class token and with an even number of heads.

    Raises:
        ValueError: if `num_heads` is odd.
    """

    def __init__(self, t: int, n: int, dim: int, depth: int, num_heads: int, **options: Unpack[EncoderOptions]) -> None:
        if num_heads % 2:
            raise ValueError(f"factorised dot-product attention halves the heads; num_heads {num_heads} is odd")
        super().__init__(t, n, dim, depth, num_heads, block=partial(Block, attend=attend_split_heads), **options)


ENCODERS: dict[str, type[nn.Module]] = {
    "joint": Joint,
    "factorised_encoder": FactorisedEncoder,
    "factorised_self_attention": FactorisedSelfAttention,
    "factorised_dot_product": FactorisedDotProduct,
}
