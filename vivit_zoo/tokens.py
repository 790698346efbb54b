"""Video to a grid of tokens: tubelets, frame sampling, positions, the class token.

Tokens keep their grid: (b, t, n, d) with t temporal and n = h·w spatial places, row-major over h and w.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

__all__ = [
    "ClassToken",
    "PosEmbed",
    "RegisterTokens",
    "SampleFrames",
    "TubeletEmbed",
    "sincos_1d",
    "sincos_3d",
    "uniform_frame_indices",
]


class TubeletEmbed(nn.Module):
    """Cut a video into tubelets and embed each linearly: (b, c, T, H, W) -> (b, T/t, (H/h)·(W/w), d).

    Paper section 3.2, "tubelet embedding". The same map as a `Conv3d` whose stride is its kernel, with that kernel
    stored flat in `proj.weight` of shape (d, c·t·h·w); a linear layer over rearranged pixels, because `Conv3d` is slow
    on CPUs and, with some cuDNN versions, pathologically slow in bfloat16.

    Args:
        tubelet_size: (t, h, w) in frames and pixels.
        in_chans: number of channels c.
        dim: width d of the tokens.

    Raises:
        einops.EinopsError: in forward, when the video does not divide into tubelets (`ViViT` checks before, in words).
    """

    def __init__(self, tubelet_size: tuple[int, int, int] = (2, 16, 16), in_chans: int = 3, dim: int = 768) -> None:
        super().__init__()
        self.tubelet_size = tubelet_size
        self.proj = nn.Linear(in_chans * math.prod(tubelet_size), dim)
        # LeCun normal, flax's default for convolutions, which the original code uses here: a normal truncated at two
        # standard deviations, widened by 1/0.8796 so that its variance is 1 / fan_in all the same.
        std = self.proj.in_features**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(self.proj.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        pt, ph, pw = self.tubelet_size
        x = rearrange(x, "b c (t pt) (h ph) (w pw) -> b t (h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)
        return self.proj(x)

    def extra_repr(self) -> str:
        return f"tubelet_size={self.tubelet_size}"


def uniform_frame_indices(num_frames: int, sampled_frames: int) -> list[int]:
    """Indices of `sampled_frames` evenly spread frames out of `num_frames`, as the original code picks them.

    Paper section 3.2, "uniform frame sampling". The original steps through floating-point numbers, which for some pairs
    yields one frame more than asked for, such as 3 for 2 out of 32; checkpoints depend on it, so this does the same.
    """
    if sampled_frames >= num_frames:
        return list(range(num_frames))
    step = num_frames / (sampled_frames + 1)
    count = math.ceil((num_frames - step) / step)
    # Python's round, like numpy's, takes halves to the even neighbour.
    return [min(round(step + i * step), num_frames - 1) for i in range(count)]


class SampleFrames(nn.Module):
    """Keep the frames of `uniform_frame_indices`: (b, c, T, H, W) -> (b, c, len(indices), H, W)."""

    indices: Tensor

    def __init__(self, num_frames: int, sampled_frames: int) -> None:
        super().__init__()
        self.picked = uniform_frame_indices(num_frames, sampled_frames)
        self.register_buffer("indices", torch.tensor(self.picked), persistent=False)
        self.register_load_state_dict_post_hook(_reset_buffers)

    def reset_buffers(self) -> None:
        """Compute the indices again: no checkpoint holds them, and `to_empty` leaves them undefined."""
        self.indices = torch.tensor(self.picked, device=_real(self.indices.device))

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(2, self.indices)

    def extra_repr(self) -> str:
        return f"{len(self.indices)} frames"


def _reset_buffers(module: Any, _: Any) -> None:
    """Hook for `load_state_dict`: what is not in a checkpoint is computed again."""
    module.reset_buffers()


def _real(device: torch.device) -> torch.device:
    """The CPU for the meta device: a model on it is about to get weights with `load_state_dict(..., assign=True)`."""
    return torch.device("cpu") if device.type == "meta" else device


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


class PosEmbed(nn.Module):
    """Add a position to each token; the table has exactly the grid's shape: (..., *grid, d) -> same.

    Args:
        *grid: number of places along each axis, such as (t, n), (n,) or (t,).
        dim: width d.
        fixed: None for a learned table that starts from N(0, 0.02), or a function of (sizes, dim) that makes a fixed
            one: `sincos_1d`, `sincos_3d`.
        frame: (h, w) where the grid's last axis is a plane of h·w places, for fixed tables that tell rows from columns.

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
        if fixed is None:
            self.table = nn.Parameter(torch.empty(*grid, dim))
            nn.init.normal_(self.table, std=0.02)
        else:
            self.fixed, self.sizes = fixed, grid if frame is None else (*grid[:-1], *frame)
            self.register_buffer("table", fixed(self.sizes, dim).reshape(*grid, dim), persistent=False)
            self.register_load_state_dict_post_hook(_reset_buffers)

    def reset_buffers(self) -> None:
        """Compute a fixed table again: no checkpoint holds it, and `to_empty` leaves it undefined."""
        shape, dtype, device = self.table.shape, self.table.dtype, _real(self.table.device)
        self.table = self.fixed(self.sizes, shape[-1]).reshape(shape).to(device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        # Else a grid of one place, such as a single frame, would be repeated over the table without a word.
        if x.shape[-self.table.ndim :] != self.table.shape:
            raise ValueError(f"tokens of shape {tuple(x.shape)} do not end in the positions' {tuple(self.table.shape)}")
        return x + self.table

    def extra_repr(self) -> str:
        return f"{', '.join(map(str, self.table.shape))}"


class ClassToken(nn.Module):
    """Prepend one learned token to each sequence: (..., n, d) -> (..., 1 + n, d). It starts at zero.

    It carries no position: where a checkpoint adds one to its class token, the sum is the same parameter. Of such a sum
    `rest` keeps what float32 rounds away, so that the model in float64 is the checkpoint exactly; nothing saves it.
    """

    rest: Tensor | None

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(dim))
        self.register_buffer("rest", None, persistent=False)
        self.register_load_state_dict_post_hook(_reset_buffers)

    def reset_buffers(self) -> None:
        """Drop the rest of another token."""
        self.rest = None

    def forward(self, x: Tensor) -> Tensor:
        token = self.token if self.rest is None else self.token + self.rest
        return torch.cat([token.to(x.dtype).expand(*x.shape[:-2], 1, -1), x], dim=-2)


class RegisterTokens(nn.Module):
    """Prepend learned tokens without a place or a purpose of their own: (..., n, d) -> (..., count + n, d).

    "Vision transformers need registers", arXiv 2309.16588: attention parks there what it would else write into patches.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(count, dim))
        nn.init.normal_(self.tokens, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.tokens.to(x.dtype).expand(*x.shape[:-2], -1, -1), x], dim=-2)
