"""The variants of the paper's section 3.3 side by side, each (b, t, n, d) -> (b, d).

An encoder is any module that is built from `(t, n, dim, depth, num_heads, ...)` and maps the grid of tokens to one
vector a video. `vivit_zoo.model.ViViT` takes one of these by name, or your own class.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict, Unpack, cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vivit_zoo.attention import Attend, attend, attend_split_heads
from vivit_zoo.blocks import Block, FactorisedBlock, Order
from vivit_zoo.mlp import Norm, gelu_tanh, layer_norm
from vivit_zoo.pooling import AttentionPool
from vivit_zoo.positions import PosEmbed
from vivit_zoo.tokens import ClassToken, RegisterTokens, average

__all__ = [
    "ENCODERS",
    "LAST_NORMS",
    "POOLS",
    "Encoder",
    "EncoderOptions",
    "FactorisedDotProduct",
    "FactorisedEncoder",
    "FactorisedSelfAttention",
    "GridEncoder",
    "Joint",
]


POOLS = ("token", "avg", "max", "all", "attention")
LAST_NORMS = ("before_pool", "after_pool", "none")


class EncoderOptions(TypedDict, total=False):
    """Options of every encoder besides its sizes; see `Encoder` and `vivit_zoo.blocks.Block`."""

    global_pool: str
    attn_pool: Callable[..., nn.Module]
    class_token: bool
    reg_tokens: int
    pos_embed: Callable[..., nn.Module]
    rope: Callable[..., nn.Module]
    rel_pos: Callable[..., nn.Module]
    attend: Attend
    mlp_ratio: float
    gated: bool
    qkv_bias: bool
    act: Callable[[Tensor], Tensor]
    norm: Norm
    pre_norm: bool
    last_norm: str
    last_norm_eps: float
    qk_norm: bool
    attn_inner_norm: bool
    mlp_inner_norm: bool
    drop: float
    attn_drop: float
    drop_path: float


class Encoder(nn.Module):
    """Positions, class token, blocks, norm and pooling over a grid of tokens: (..., *grid, d) -> (..., d).

    It runs over one axis and treats the axes before it as batch. Model 2 consists of two of these. Its methods take an
    optional mask, True for the tokens that are there, (..., n) or what the subclass documents; those that are not there
    change nothing in the result.

    Args:
        *grid: number of places along each axis that is pooled at the end.
        dim, depth, num_heads: width, number of blocks, attention heads.
        block: makes a block from (dim, num_heads, **block_options).
        global_pool: "token" (the class token's output), "avg" or "max" over the grid, "all" (the average over the grid,
            class token and registers) or "attention" (`attn_pool` over all tokens).
        attn_pool: makes the attention pooling from (dim, norm=norm, act=act); None for an `AttentionPool` with
            `num_heads`.
        class_token: whether there is a class token; None for a class token only if it is pooled.
        reg_tokens: number of register tokens (arXiv 2309.16588); they attend as all tokens do.
        pos_embed: makes the position embedding from (*grid, dim=dim).
        rope: makes the rotary positions of a block from (*grid, dim=width of a head, num_heads=num_heads).
        rel_pos: makes the relative positions of a block from (*grid, num_heads=num_heads).
        norm: makes each norm from its width.
        pre_norm: whether a norm stands before the first block, as in CLIP.
        last_norm: where the last norm stands: "before_pool", "after_pool" or "none".
        last_norm_eps: epsilon of the last norm; None for that of the others.
        drop: dropout rate after the positions and in the blocks, in [0, 1).
        drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first (paper, Equation 10).
        **block_options: the other options of the block.

    Raises:
        ValueError: on an unknown `global_pool` or `last_norm`, or where "token" is to be pooled without a class token.
    """

    def __init__(
        self,
        *grid: int,
        dim: int,
        depth: int,
        num_heads: int,
        block: Callable[..., nn.Module] = Block,
        global_pool: str = "token",
        attn_pool: Callable[..., nn.Module] | None = None,
        class_token: bool | None = None,
        reg_tokens: int = 0,
        pos_embed: Callable[..., nn.Module] = PosEmbed,
        rope: Callable[..., nn.Module] | None = None,
        rel_pos: Callable[..., nn.Module] | None = None,
        act: Callable[[Tensor], Tensor] = gelu_tanh,
        norm: Norm = layer_norm,
        pre_norm: bool = False,
        last_norm: str = "before_pool",
        last_norm_eps: float | None = None,
        drop: float = 0.0,
        drop_path: float = 0.0,
        **block_options: Any,
    ) -> None:
        super().__init__()
        for name, value, known in (("global_pool", global_pool, POOLS), ("last_norm", last_norm, LAST_NORMS)):
            if value not in known:
                raise ValueError(f"{name} {value!r} is unknown; choose from {', '.join(known)}")
        if class_token is None:
            class_token = global_pool == "token"
        if global_pool == "token" and not class_token:
            raise ValueError("global_pool 'token' needs a class token; use class_token=True or another global_pool")
        self.grid, self.global_pool, self.last_norm = grid, global_pool, last_norm
        self.grad_checkpointing = False
        self.pos_embed = pos_embed(*grid, dim=dim)
        self.pos_drop = nn.Dropout(drop)
        self.num_prefix_tokens = class_token + reg_tokens
        self.reg_tokens = RegisterTokens(reg_tokens, dim) if reg_tokens else nn.Identity()
        self.cls_token = ClassToken(dim) if class_token else nn.Identity()
        self.norm_pre = norm(dim) if pre_norm else nn.Identity()
        if rope is not None:
            block_options["rope"] = partial(rope, *grid, dim=dim // num_heads, num_heads=num_heads)
        if rel_pos is not None:
            block_options["rel_pos"] = partial(rel_pos, *grid, num_heads=num_heads)
        ramp = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            block(dim, num_heads, act=act, norm=norm, drop=drop, drop_path=rate, **block_options) for rate in ramp
        )
        last = norm if last_norm_eps is None else partial(norm, eps=last_norm_eps)
        self.norm = nn.Identity() if last_norm == "none" else last(dim)
        make_pool = attn_pool or partial(AttentionPool, num_heads=num_heads)
        self.attn_pool = make_pool(dim, norm=norm, act=act) if global_pool == "attention" else nn.Identity()

    def forward_features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The tokens after the blocks, not pooled: (..., n, d) -> (..., prefix + n, d).

        A class token comes first, then registers, then the grid. The last norm is applied unless it stands after the
        pooling.
        """
        return self.run_blocks(self.cls_token(self.reg_tokens(self.add_positions(x))), mask)

    def token_mask(self, mask: Tensor) -> Tensor:
        """The mask with that of class token and registers, which are always there: (..., n) -> (..., prefix + n)."""
        return F.pad(mask, (self.num_prefix_tokens, 0), value=True)

    def split_prefix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class token and registers, and the grid: (..., prefix + n, d) -> (..., prefix, d), (..., *grid, d)."""
        return x[..., : self.num_prefix_tokens, :], x[..., self.num_prefix_tokens :, :]

    def add_positions(self, x: Tensor) -> Tensor:
        return self.pos_drop(self.pos_embed(x))

    def run_blocks(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Norms and blocks: (..., prefix + n, d) -> same, mask (..., n)."""
        x = self.norm_pre(x)
        inputs = () if mask is None else (self.token_mask(mask),)  # a block of your own need not know masks
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, *inputs, use_reentrant=False)
            else:
                x = block(x, *inputs)
        return self.norm(x) if self.last_norm == "before_pool" else x

    def pool(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., prefix + n, d) -> (..., d), and the last norm where it stands after the pooling; mask (..., n)."""
        if mask is not None:
            mask = self.pooled_tokens(self.token_mask(mask)[..., None]).squeeze(-1)
        x = self.pooled_tokens(x)
        if self.global_pool == "attention":
            x = self.attn_pool(x) if mask is None else self.attn_pool(x, mask)
        elif self.global_pool == "max":
            x = (x if mask is None else x.masked_fill(~mask[..., None], -torch.inf)).amax(dim=-2)
        else:
            x = average(x, mask)
        return self.norm(x) if self.last_norm == "after_pool" else x

    def pooled_tokens(self, x: Tensor) -> Tensor:
        """The tokens that are pooled, as one sequence: (..., prefix + n, d) -> (..., m, d)."""
        if self.global_pool == "token":
            return x[..., :1, :]
        return x[..., self.num_prefix_tokens :, :] if self.global_pool in ("avg", "max") else x

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.pool(self.forward_features(x, mask), mask)


class Joint(Encoder):
    """Model 1, spatio-temporal attention: all tokens of the video are one sequence. (b, t, n, d) -> (b, d).

    A mask is (b, t).
    """

    def __init__(
        self,
        t: int,
        n: int,
        dim: int,
        depth: int,
        num_heads: int,
        **options: Unpack[EncoderOptions],
    ) -> None:
        if rope := options.get("rope"):
            options["rope"] = partial(rope, flat=True)
        if rel_pos := options.get("rel_pos"):
            options["rel_pos"] = partial(rel_pos, flat=True)
        super().__init__(t, n, dim=dim, depth=depth, num_heads=num_heads, **options)

    def split_prefix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        prefix, places = super().split_prefix(x)
        return prefix, rearrange(places, "b (t n) d -> b t n d", t=self.grid[0])

    def forward_features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(b, t, n, d) -> (b, prefix + t·n, d), with the class token and the registers first."""
        x = rearrange(self.add_positions(x), "b t n d -> b (t n) d")
        return self.run_blocks(self.cls_token(self.reg_tokens(x)), mask)

    def token_mask(self, mask: Tensor) -> Tensor:
        return super().token_mask(repeat(mask, "b t -> b (t n)", n=self.grid[1]))


class FactorisedEncoder(nn.Module):
    """Model 2: a spatial encoder for each frame, pooled, then a temporal one over the frames. (b, t, n, d) -> (b, d).

    A mask is (b, t).

    Args:
        t, n, dim, depth, num_heads, **options: see `Encoder`; `depth` is the spatial encoder's. Both encoders pool
            alike and have a drop-path ramp of their own. `class_token`, `reg_tokens`, `pre_norm`, `rope` and `rel_pos`
            are the spatial encoder's; the temporal encoder has a class token where it pools one.
        temporal_depth: blocks of the temporal encoder. 0 is the paper's baseline: the frames' mean, no parameters.
        temporal_num_heads, temporal_mlp_ratio: the temporal encoder's; None takes the spatial encoder's.
        temporal_rope: makes the rotary positions of the temporal encoder's blocks from (t, dim=..., num_heads=...).
        temporal_per_place: whether the spatial encoder is not pooled, and the temporal encoder runs at each place over
            the frames, as in VideoPrism (arXiv 2402.13217); what it gives for all t·n places is pooled.

    Raises:
        ValueError: if `temporal_per_place` is to pool a class token, or has no temporal blocks.
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
        temporal_rope: Callable[..., nn.Module] | None = None,
        temporal_per_place: bool = False,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__()
        self.temporal_per_place = temporal_per_place
        pool = options.get("global_pool", "token")
        if temporal_per_place and (pool == "token" or not temporal_depth):
            raise ValueError("temporal_per_place needs temporal blocks and a global_pool other than 'token'")
        options["global_pool"] = "avg" if temporal_per_place else pool
        self.spatial = Encoder(n, dim=dim, depth=depth, num_heads=num_heads, **options)
        of_places = ("class_token", "reg_tokens", "pre_norm", "rel_pos", "rope")
        options = cast(EncoderOptions, {name: value for name, value in options.items() if name not in of_places})
        if temporal_rope is not None:
            options["rope"] = temporal_rope
        options["global_pool"] = pool
        options["pos_embed"] = partial(options.get("pos_embed", PosEmbed), frame=None)  # time has no rows and columns
        if temporal_mlp_ratio is not None:
            options["mlp_ratio"] = temporal_mlp_ratio
        self.temporal = (
            Encoder(t, dim=dim, depth=temporal_depth, num_heads=temporal_num_heads or num_heads, **options)
            if temporal_depth
            else None
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.temporal is None:
            return average(self.spatial(x), mask)
        if not self.temporal_per_place:
            return self.temporal(self.spatial(x), mask)
        x = self.spatial.forward_features(x)[..., self.spatial.num_prefix_tokens :, :]
        x = self.temporal.forward_features(rearrange(x, "b t n d -> b n t d"), mask if mask is None else mask[:, None])
        mask = mask if mask is None else repeat(mask, "b t -> b (t n)", n=x.shape[1])
        return self.temporal.pool(rearrange(x, "b n t d -> b (t n) d"), mask)


class GridEncoder(Encoder):
    """An encoder whose blocks map the whole grid to itself: (b, t, n, d) -> (b, d).

    Class token and registers are more places of each frame, first on the axis n. Pools over t and n, by default "avg";
    "token" is the mean over the frames of their class tokens. A mask is (b, t).
    """

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

    def token_mask(self, mask: Tensor) -> Tensor:
        return repeat(mask, "b t -> b t n", n=self.num_prefix_tokens + self.grid[1])

    def pooled_tokens(self, x: Tensor) -> Tensor:
        return rearrange(super().pooled_tokens(x), "b t n d -> b (t n) d")


class FactorisedSelfAttention(GridEncoder):
    """Model 3: each block attends over space, then over time. (b, t, n, d) -> (b, d).

    Args:
        t, n, dim, depth, num_heads, **options: see `GridEncoder`.
        order: "space_time" as in the paper, or "time_space".
        temporal_rope: whether the attention over time has rotary positions, too; only asked whether it is None.
        share_class_token: whether there is one class token for the clip and not one for each frame, see
            `FactorisedBlock`.

    Raises:
        ValueError: if `share_class_token` goes without a class token.
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
        temporal_rope: Callable[..., nn.Module] | None = None,
        share_class_token: bool = False,
        **options: Unpack[EncoderOptions],
    ) -> None:
        block = partial(FactorisedBlock, order=order, clip_tokens=int(share_class_token))
        if temporal_rope is not None and (rope := options.get("rope")):
            block = partial(block, rope_time=partial(rope, t, n, dim=dim // num_heads, num_heads=num_heads))
        super().__init__(t, n, dim, depth, num_heads, block=block, **options)
        if share_class_token and isinstance(self.cls_token, nn.Identity):
            raise ValueError("share_class_token needs a class token; use class_token=True or global_pool='token'")


class FactorisedDotProduct(GridEncoder):
    """Model 4: half of each block's heads attend over time, the other half over space. (b, t, n, d) -> (b, d).

    Args:
        t, n, dim, depth, num_heads, **options: see `GridEncoder`, with an even number of heads and without `rel_pos`.

    Raises:
        ValueError: if `num_heads` is odd, or with relative positions, which would have to be split over the heads.
    """

    def __init__(self, t: int, n: int, dim: int, depth: int, num_heads: int, **options: Unpack[EncoderOptions]) -> None:
        if num_heads % 2:
            raise ValueError(f"factorised dot-product attention halves the heads; num_heads {num_heads} is odd")
        if options.get("rel_pos"):
            raise ValueError("factorised dot-product attention has no relative positions")
        options["attend"] = partial(attend_split_heads, attend=options.get("attend", attend))
        super().__init__(t, n, dim, depth, num_heads, block=Block, **options)


ENCODERS: dict[str, type[nn.Module]] = {
    "joint": Joint,
    "factorised_encoder": FactorisedEncoder,
    "factorised_self_attention": FactorisedSelfAttention,
    "factorised_dot_product": FactorisedDotProduct,
}
