"""Positions: added to tokens, rotating queries and keys, or as a bias of attention.

A grid (t, n) has t temporal and n = h·w spatial places, row-major over h and w.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

__all__ = ["Computed", "PosEmbed", "RelativePositionBias", "RotaryEmbed", "sincos_1d", "sincos_3d"]


class Computed(nn.Module):
    """Buffers that are computed, neither trained nor saved.

    They are computed again after `load_state_dict`, since `to_empty()` leaves them undefined. What `compute` returns in
    float64 is rounded once, to the dtype of the buffer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(_refresh)

    def compute(self) -> dict[str, Tensor]:
        """The buffers by name."""
        return {}

    def register(self) -> None:
        for name, tensor in self.compute().items():
            dtype = torch.get_default_dtype() if tensor.is_floating_point() else tensor.dtype
            self.register_buffer(name, tensor.to(dtype), persistent=False)

    def refresh(self) -> None:
        """Compute the buffers again, on their device and in their dtype."""
        for name, tensor in self.compute().items():
            old = self.get_buffer(name)
            # A model on the meta device gets its weights with `load_state_dict(..., assign=True)`.
            setattr(self, name, tensor.to("cpu" if old.is_meta else old.device, old.dtype))


def _refresh(module: Computed, _: Any) -> None:
    module.refresh()


def sincos_1d(sizes: tuple[int, ...], dim: int) -> Tensor:
    """Sine-cosine positions along the flattened sequence, as in "Attention is all you need": (*sizes, dim).

    Sines in the even channels and cosines in the odd ones. `dim` must be even.
    """
    if dim % 2:
        raise ValueError(f"sincos_1d positions need an even dim, got {dim}")
    place = torch.arange(math.prod(sizes), dtype=torch.float64)
    omega = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10000.0) / dim))
    angle = place[:, None] * omega
    table = rearrange([angle.sin(), angle.cos()], "k n d -> n (d k)")
    return table.reshape(*sizes, dim).float()


def sincos_3d(sizes: tuple[int, ...], dim: int) -> Tensor:
    """Sine-cosine positions with an equal share of the channels for each axis: (*sizes, dim).

    For sizes (t, h, w) the original code's `sinusoidal_3d`: [sin t, cos t, sin w, cos w, sin h, cos h]. For (h, w) and
    (t,) the same without the missing axes. `dim` must be divisible by twice the number of axes.
    """
    share, rest = divmod(dim, 2 * len(sizes))
    if rest:
        raise ValueError(
            f"sincos_3d positions over {len(sizes)} axes need a dim divisible by {2 * len(sizes)}, got {dim}"
        )
    omega = 10000.0 ** -(torch.arange(share, dtype=torch.float64) / share)
    places = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in sizes), indexing="ij")
    # The original's order: time first, and of the two axes of the plane the width before the height.
    order = {1: (0,), 2: (1, 0), 3: (0, 2, 1)}[len(sizes)]
    angles = [places[axis][..., None] * omega for axis in order]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=-1).float()


class PosEmbed(Computed):
    """Add a position to each token; the table has exactly the grid's shape: (..., *grid, d) -> same.

    Args:
        *grid: number of places along each axis, such as (t, n), (n,) or (t,).
        dim: width d.
        fixed: None for a learned table that starts from N(0, 0.02), or a function of (sizes, dim) that makes a fixed
            one: `sincos_1d`, `sincos_3d`.
        frame: (h, w) where the grid's last axis is a plane of h·w places; fixed tables need it to tell rows from
            columns.

    Raises:
        ValueError: in forward, on tokens of another grid.
    """

    table: Tensor

    def __init__(
        self,
        *grid: int,
        dim: int,
        fixed: Callable[[tuple[int, ...], int], Tensor] | None = None,
        frame: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.dim, self.fixed = grid, dim, fixed
        self.sizes = grid if frame is None else (*grid[:-1], *frame)
        self.register()
        if fixed is None:
            self.table = nn.Parameter(torch.empty(*grid, dim))
            nn.init.normal_(self.table, std=0.02)

    def compute(self) -> dict[str, Tensor]:
        return {} if self.fixed is None else {"table": self.fixed(self.sizes, self.dim).reshape(*self.grid, self.dim)}

    def forward(self, x: Tensor) -> Tensor:
        # Else a grid of one place, such as a single frame, would silently be repeated over the table.
        if x.shape[-self.table.ndim :] != self.table.shape:
            raise ValueError(f"tokens of shape {tuple(x.shape)} do not end in the positions' {tuple(self.table.shape)}")
        return x + self.table

    def extra_repr(self) -> str:
        return f"{', '.join(map(str, self.table.shape))}"


class RotaryEmbed(Computed):
    """Rotate queries and keys by their places: (..., h, n, d) -> (..., h, n, d).

    RoFormer, arXiv 2104.09864. Channels i and i + d/2 are a pair, and a pair turns by the angle coordinate x frequency.
    Each axis of the grid has an equal share of the pairs, in the order of the axes; pairs left over do not turn. Tokens
    that come before the places, such as a class token, are not rotated.

    Args:
        *grid: number of places along each axis: (t, n), (n,) or (t,).
        dim: width d of a head; even.
        num_heads: number of heads, for learned frequencies.
        frame: (h, w) where the grid's last axis is a plane of h·w places.
        over_time: whether a grid (t, n) turns along t, too, or along the plane alone.
        flat: whether a grid (t, n) comes as one sequence of t·n places, as in the joint model.
        base: the K pairs of an axis have the frequencies base^(-k/K), k = 0, ..., K - 1.
        coords: "centred": 2π times the coordinate that is -1 and 1 at the edges of the grid (DINOv3, arXiv 2508.10104);
            "index": the index of the place.
        reference: (h, w), the grid whose size the indices of another plane are scaled to; None for no scaling.
        offset: added to each index before scaling.
        learned: whether each head learns the frequencies of each pair along all axes (RoPE-Mixed, arXiv 2403.13298).
        tiled: whether channels 2i and 2i + 1 of an axis, which are a pair here, have the frequencies of 2i mod K and
            2i + 1 mod K, as V-JEPA 2 (arXiv 2506.09985) was trained. Such a map does not preserve lengths.

    Raises:
        ValueError: if `dim` is odd or too narrow for one pair for each axis; on unknown `coords`; in forward, on fewer
            tokens than places.
    """

    cos: Tensor
    sin: Tensor
    places: Tensor

    def __init__(
        self,
        *grid: int,
        dim: int,
        num_heads: int = 1,
        frame: tuple[int, int] | None = None,
        over_time: bool = False,
        flat: bool = False,
        base: float = 100.0,
        coords: str = "centred",
        reference: Sequence[float] | None = None,
        offset: float = 0.0,
        learned: bool = False,
        tiled: bool = False,
    ) -> None:
        super().__init__()
        self.sizes = grid if frame is None else (*grid[:-1], *frame)
        self.axes = list(range(len(self.sizes)))[0 if over_time or frame is None else -2 :]
        self.grid, self.dim, self.flat, self.base, self.tiled = grid, dim, flat, base, tiled
        self.coords, self.reference, self.offset, self.learned = coords, reference, offset, learned
        if dim % 2 or dim < 2 * len(self.axes):
            raise ValueError(f"rotary positions over {len(self.axes)} axes need an even head width, got {dim}")
        if coords not in ("centred", "index"):
            raise ValueError(f"coords {coords!r} are unknown; choose from centred, index")
        self.register()
        if learned:
            # Along orthogonal directions, drawn for each head.
            turns = torch.stack(
                [nn.init.orthogonal_(torch.empty(len(self.axes), len(self.axes))) for _ in range(num_heads)]
            )
            freqs = einsum(turns, self._frequencies().float(), "h a s, s k -> a h s k").flatten(-2)
            self.freqs = nn.Parameter(F.pad(freqs, (0, dim // 2 - freqs.shape[-1])))

    def _frequencies(self) -> Tensor:
        """Of the pairs of each axis: (axes, K)."""
        count = self.dim // 2 // len(self.axes)
        return (self.base ** -(torch.arange(count, dtype=torch.float64) / count)).expand(len(self.axes), count)

    def _places(self) -> Tensor:
        """Coordinates along the axes that turn: (..., n, axes)."""
        sides = []
        for axis, size in enumerate(self.sizes):
            index = torch.arange(size, dtype=torch.float64)
            if self.coords == "centred":
                sides.append(2 * math.pi * ((index + 0.5) / size * 2 - 1))
            else:
                plane = axis - len(self.sizes) + 2
                scaled = self.reference is not None and len(self.sizes) > 1 and plane >= 0
                sides.append((index + self.offset) * (self.reference[plane] / size if scaled and self.reference else 1))
        places = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)[..., self.axes]
        places = places.reshape(*self.grid, len(self.axes))
        if self.flat:
            return places.flatten(end_dim=-2)
        return places if len(self.axes) == len(self.sizes) else places[0]

    def compute(self) -> dict[str, Tensor]:
        places = self._places()
        if self.learned:
            return {"places": places}
        half = torch.zeros(2, len(self.axes), self.dim // 2, dtype=torch.float64)
        for axis, freqs in enumerate(self._frequencies()):
            share = slice(axis * len(freqs), (axis + 1) * len(freqs))
            pairs = (2 * torch.arange(len(freqs)) + torch.arange(2)[:, None]) % len(freqs)
            half[:, axis, share] = freqs[pairs] if self.tiled else freqs
        angles = (places @ rearrange(half, "half a k -> a (half k)")).unsqueeze(-3)
        return {"cos": angles.cos(), "sin": angles.sin()}

    def forward(self, x: Tensor) -> Tensor:
        if self.learned:
            angles = einsum(self.places, torch.cat([self.freqs, self.freqs], dim=-1), "... n a, a h d -> ... h n d")
            cos, sin = angles.cos(), angles.sin()
        else:
            cos, sin = self.cos, self.sin
        extra = x.shape[-2] - cos.shape[-2]
        if extra < 0:
            raise ValueError(f"tokens of shape {tuple(x.shape)} are fewer than the {cos.shape[-2]} rotary positions")
        first, x = x[..., :extra, :], x[..., extra:, :]
        one, other = x.chunk(2, dim=-1)
        x = x * cos.to(x.dtype) + torch.cat([-other, one], dim=-1) * sin.to(x.dtype)
        return torch.cat([first, x], dim=-2) if extra else x

    def extra_repr(self) -> str:
        return f"{', '.join(map(str, self.sizes))}, axes={self.axes}"


class RelativePositionBias(Computed):
    """Attention with a learned bias for each head and offset (Δh, Δw) on the plane: (..., h, n, d) -> (..., h, n, d).

    Its call is an attention strategy with parameters (BEiT, arXiv 2106.08254; Swin, arXiv 2103.14030). Tokens that come
    before the places share three biases: towards places, from places, among themselves. A sequence of several frames
    has the bias of one for each pair of frames.

    Args:
        *grid: number of places along each axis: (t, n) or (n,).
        num_heads: number of heads.
        frame: (h, w) of the plane.
        flat: whether a grid (t, n) comes as one sequence of t·n places, as in the joint model.
    """

    index: Tensor

    def __init__(self, *grid: int, num_heads: int, frame: tuple[int, int], flat: bool = False) -> None:
        super().__init__()
        self.frame = frame
        self.frames = grid[0] if flat else 1
        height, width = frame
        self.table = nn.Parameter(torch.zeros(num_heads, (2 * height - 1) * (2 * width - 1) + 3))
        self.register()

    def compute(self) -> dict[str, Tensor]:
        height, width = self.frame
        place = torch.cartesian_prod(torch.arange(height), torch.arange(width))
        dh, dw = (place[:, None] - place).unbind(-1)
        return {"index": (dh + height - 1) * (2 * width - 1) + dw + width - 1}

    def bias(self, extra: int = 0) -> Tensor:
        """Added to the scores of a sequence with `extra` tokens before the places: (h, n, n)."""
        bias = self.table[:, self.index].repeat(1, self.frames, self.frames)
        if not extra:
            return bias
        heads, n, _ = bias.shape
        to_places, from_places, among = self.table[:, -3:, None].unbind(1)
        column = torch.cat([among.expand(heads, extra), from_places.expand(heads, n)], dim=1)
        rows = torch.cat([to_places[..., None].expand(heads, extra, n), bias], dim=1)
        return torch.cat([column[..., None].expand(heads, extra + n, extra), rows], dim=2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, mask: Tensor | None = None) -> Tensor:
        bias = self.bias(k.shape[-2] - self.frames * len(self.index)).to(q.dtype)
        if mask is not None:
            bias = bias.masked_fill(~mask[..., None, None, :], -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)

    def extra_repr(self) -> str:
        return f"frame={self.frame}"
