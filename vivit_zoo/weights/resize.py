"""Positions on another grid, kernels of another length, pixels in another range.

Positions of original checkpoints and of videos are interpolated linearly along each axis, the first place on the first
and the last on the last ("align corners"), as the original code does with `scipy.ndimage.zoom(order=1)`. Those of image
models are resized over space as timm does, bicubically and with antialiasing: shrinking without it loses the class
token's features. TimeSformer's and VideoPrism's have rules of their own. Along an axis of equal length nothing is
computed at all.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

__all__ = [
    "PositionsFilter",
    "Tubelet",
    "fold_pixels",
    "inflate_kernel",
    "resize_kernel",
    "resize_positions",
    "unfold_pixels",
]

Tubelet = Literal["central_frame", "filter_inflation", "arp", "random"]
PositionsFilter = Literal["bicubic", "bilinear", "linear", "nearest", "antialiased"]


def resize_positions(table: Tensor, sizes: tuple[int, ...], filter: PositionsFilter = "linear") -> Tensor:
    """Positions (*grid, d) -> (*sizes, d).

    "linear": along each axis on its own; along an axis of one place it is repeated, to an axis of one place goes the
    middle. "bicubic": the last two axes of the grid, h and w, bicubically with antialiasing; any before them linearly.
    "bilinear": linear between the centres of places, as RADIO's. "antialiased": the same over a wider triangle where
    places are lost, as VideoPrism's and SigLIP 2's. "nearest": the place at floor(i · old / new), as TimeSformer's.
    """
    dtype = table.dtype
    if filter == "bicubic" and table.shape[-3:-1] != sizes[-2:]:
        flat = rearrange(table.float(), "... h w d -> (...) d h w")
        flat = F.interpolate(flat, size=sizes[-2:], mode="bicubic", antialias=True)
        table = (
            rearrange(flat, "b d h w -> b h w d").unflatten(0, table.shape[:-3])
            if table.ndim > 3
            else flat[0].movedim(0, -1)
        )
    for axis, (old, new) in enumerate(zip(table.shape[:-1], sizes, strict=True)):
        if old != new:
            weights = WEIGHTS.get(filter, _linear_weights)(old, new).to(table.device)
            table = torch.tensordot(weights, table.double(), dims=([1], [axis])).movedim(0, axis)
    return table.to(dtype)


def _linear_weights(old: int, new: int) -> Tensor:
    """(new, old): each row has the shares of the two neighbours of a new place."""
    middle = (old - 1) / 2
    places = torch.linspace(0, old - 1, new, dtype=torch.float64) if new > 1 else torch.tensor([middle]).double()
    return (1 - (places[:, None] - torch.arange(old)).abs()).clamp(min=0)


def _nearest_weights(old: int, new: int) -> Tensor:
    return F.one_hot(torch.arange(new) * old // new, old).double()


def _centred_weights(old: int, new: int, antialias: bool = False) -> Tensor:
    # Along the last axis: torch's kernel is wrong for images of one column.
    places = torch.eye(old, dtype=torch.float64)[None, :, None]
    rows = F.interpolate(places, (1, new), mode="bilinear", antialias=antialias)
    return rows[0, :, 0].mT


WEIGHTS: dict[str, Callable[[int, int], Tensor]] = {
    "nearest": _nearest_weights,
    "bilinear": _centred_weights,
    "antialiased": partial(_centred_weights, antialias=True),
}


def inflate_kernel(kernel: Tensor, t: int, tubelet: Tubelet) -> Tensor:
    """An image model's kernel (d, c, h, w) -> (d, c, t, h, w), so that it sees t frames.

    "central_frame" (paper, Equation 9): the image kernel on frame t // 2, zero elsewhere. "filter_inflation" (Equation
    8): 1/t of it on each frame. "arp": on each frame its share under approximate rank pooling (arXiv 1612.00738), as
    in the original code. With one frame all of them are the image kernel itself.
    """
    if tubelet not in get_args(Tubelet) or tubelet == "random":
        raise ValueError(f"tubelet {tubelet!r} is unknown; choose from {', '.join(get_args(Tubelet))}")
    if t == 1:
        return kernel[:, :, None]
    if tubelet == "central_frame":
        shares = torch.zeros(t).double()
        shares[t // 2] = 1
    elif tubelet == "filter_inflation":
        shares = torch.full((t,), 1 / t).double()
    else:
        harmonic = torch.tensor([float(sum(Fraction(1, k) for k in range(1, i + 1))) for i in range(t + 1)]).double()
        i = torch.arange(1, t + 1)
        shares = (2 * (t - i + 1) - (t + 1) * (harmonic[t] - harmonic[i - 1])) / t
    shares = shares.to(kernel.device)
    return (repeat(kernel.double(), "d c h w -> d c t h w", t=t) * shares[:, None, None]).to(kernel.dtype)


def resize_kernel(kernel: Tensor, tubelet: tuple[int, int, int], t: int) -> Tensor:
    """A flat tubelet kernel (d, c·t'·h·w) -> (d, c·t·h·w) for tubelets of another length t.

    Each old slice is shared out to the new slices by the part of its time that they cover: from 2 to 4 frames each
    slice is halved and repeated, from 4 to 2 neighbours are added. A clip that does not move gives the same tokens as
    before.
    """
    old, h, w = tubelet
    if old == t:
        return kernel
    starts_old, starts_new = torch.arange(old).double() / old, torch.arange(t).double() / t
    overlap = torch.minimum(starts_old + 1 / old, starts_new[:, None] + 1 / t) - torch.maximum(
        starts_old, starts_new[:, None]
    )
    shares = overlap.clamp(min=0).to(kernel.device) * old  # new, old: columns sum to 1
    slices = rearrange(kernel.double(), "d (c t h w) -> d c t h w", t=old, h=h, w=w)
    slices = torch.einsum("nt,dcthw->dcnhw", shares, slices)
    return rearrange(slices, "d c t h w -> d (c t h w)").to(kernel.dtype)


def fold_pixels(
    kernel: Tensor, bias: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Kernel (d, c, t, h, w) and bias (d,) for pixels in [-1, 1], from those for (p - mean) / deviation, p in [0, 1].

    With x = 2p - 1 a pixel is (x / 2 + 0.5 - mean) / deviation: the kernel takes the factor, the bias the constant,
    times the sum of the kernel over a tubelet. An inflated kernel goes in, since the shares of frames may sum to 0.

    Raises:
        ValueError: if there are neither one nor as many numbers as channels, or a deviation is not positive.
    """
    m, s = _by_channel(kernel, mean, deviation)
    exact = kernel.double()
    constant = torch.einsum("dcthw,c->d", exact, (0.5 - m) / s)
    return (exact / (2 * s)[:, None, None, None]).to(kernel.dtype), (bias.double() + constant).to(bias.dtype)


def unfold_pixels(
    kernel: Tensor, bias: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """The inverse of `fold_pixels`."""
    m, s = _by_channel(kernel, mean, deviation)
    exact = kernel.double()
    constant = torch.einsum("dcthw,c->d", exact, 1 - 2 * m)
    return (exact * (2 * s)[:, None, None, None]).to(kernel.dtype), (bias.double() - constant).to(bias.dtype)


def _by_channel(kernel: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    channels = kernel.shape[1]
    for name, values in (("mean", mean), ("std", deviation)):
        if len(values) not in (1, channels):
            raise ValueError(
                f"{name} has {len(values)} numbers for {channels} channels; give {channels}, or one for all"
            )
    if min(deviation) <= 0:
        raise ValueError(f"std {deviation} is not positive")
    m, s = (torch.tensor(x, dtype=torch.float64).expand(channels).to(kernel.device) for x in (mean, deviation))
    return m, s
