"""Positions on another grid, kernels of another length.

One rule for positions: linear interpolation along each axis on its own, the first place on the first and the last on
the last ("align corners"), as the original code does with `scipy.ndimage.zoom(order=1)`. Along an axis of equal length
nothing is computed at all.
"""

from fractions import Fraction
from typing import Literal, get_args

import torch
from einops import rearrange, repeat
from torch import Tensor

__all__ = ["Tubelet", "inflate_kernel", "resize_kernel", "resize_positions"]

Tubelet = Literal["central_frame", "filter_inflation", "arp", "random"]


def resize_positions(table: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Positions (*grid, d) -> (*sizes, d), linear along each axis.

    Along an axis of one place it is repeated; to an axis of one place goes the middle.
    """
    dtype = table.dtype
    for axis, (old, new) in enumerate(zip(table.shape[:-1], sizes, strict=True)):
        if old != new:
            weights = _linear_weights(old, new).to(table.device)
            table = torch.tensordot(weights, table.double(), dims=([1], [axis])).movedim(0, axis)
    return table.to(dtype)


def _linear_weights(old: int, new: int) -> Tensor:
    """(new, old): each row has the shares of the two neighbours of a new place."""
    middle = (old - 1) / 2
    places = torch.linspace(0, old - 1, new, dtype=torch.float64) if new > 1 else torch.tensor([middle]).double()
    return (1 - (places[:, None] - torch.arange(old)).abs()).clamp(min=0)


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
