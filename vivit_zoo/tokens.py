"""Video to a grid of tokens: tubelets, frame sampling, class and register tokens.

Tokens keep their grid: (b, t, n, d) with t temporal and n = h·w spatial places, row-major over h and w.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from vivit_zoo.positions import Computed

__all__ = [
    "ClassToken",
    "RegisterTokens",
    "SampleFrames",
    "TubeletEmbed",
    "average",
    "hold_frames",
    "is_full",
    "tubelet_mask",
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
        norm: makes a norm of the embedded tokens from `dim`; None for no norm.

    Raises:
        einops.EinopsError: in forward, when the video does not divide into tubelets (`ViViT` checks before, in words).
    """

    def __init__(
        self,
        tubelet_size: tuple[int, int, int] = (2, 16, 16),
        in_chans: int = 3,
        dim: int = 768,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.tubelet_size = tubelet_size
        self.proj = nn.Linear(in_chans * math.prod(tubelet_size), dim)
        # LeCun normal, flax's default for convolutions, which the original code uses here: a normal truncated at two
        # standard deviations, widened by 1/0.8796 so that its variance is 1 / fan_in all the same.
        std = self.proj.in_features**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(self.proj.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.proj.bias)
        self.norm = norm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        pt, ph, pw = self.tubelet_size
        x = rearrange(x, "b c (t pt) (h ph) (w pw) -> b t (h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)
        return self.norm(self.proj(x))

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


class SampleFrames(Computed):
    """Keep the frames of `uniform_frame_indices`: (b, c, T, H, W) -> (b, c, len(indices), H, W)."""

    indices: Tensor

    def __init__(self, num_frames: int, sampled_frames: int) -> None:
        super().__init__()
        self.num_frames, self.sampled_frames = num_frames, sampled_frames
        self.register()

    def compute(self) -> dict[str, Tensor]:
        return {"indices": torch.tensor(uniform_frame_indices(self.num_frames, self.sampled_frames))}

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(2, self.indices)

    def extra_repr(self) -> str:
        return f"{len(self.indices)} frames"


def is_full(mask: Tensor, x: Tensor) -> bool:
    """Whether all frames of a video (b, c, T, H, W) are there; False in `torch.compile`, where values are not known.

    Raises:
        ValueError: if the mask is not boolean, (b, T), or leaves no frame of a video.
    """
    shape = len(x), x.shape[2]
    if mask.dtype != torch.bool or mask.shape != shape:
        raise ValueError(f"a mask is boolean, of shape (b, T) = {shape}; got {mask.dtype}, {tuple(mask.shape)}")
    if torch.compiler.is_compiling():
        return False
    if mask.all():
        return True
    if not (present := mask.any(dim=1)).all():
        raise ValueError(f"the mask leaves no frame of the videos {(~present).nonzero().flatten().tolist()}")
    return False


def hold_frames(x: Tensor, mask: Tensor) -> Tensor:
    """Replace frames that are not there by the last one before them that is: (b, c, T, H, W) -> same.

    Args:
        x: the video.
        mask: (b, T) bool, True for frames that are there; at least one a video. Those before the first show the first.
    """
    index = torch.arange(mask.shape[1], device=mask.device).masked_fill(~mask, -1).cummax(dim=1).values
    index = torch.where(index < 0, mask.int().argmax(dim=1, keepdim=True), index)
    return x.gather(2, index[:, None, :, None, None].expand_as(x))


def tubelet_mask(mask: Tensor, length: int) -> Tensor:
    """Which tubelets of `length` frames hold a frame that is there: (b, T) bool -> (b, T / length) bool."""
    return reduce(mask, "b (t pt) -> b t", "any", pt=length)


def average(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of the tokens, or of those for which the mask (..., n) is True: (..., n, d) -> (..., d)."""
    if mask is None:
        return x.mean(dim=-2)
    return x.masked_fill(~mask[..., None], 0.0).sum(dim=-2) / mask.sum(dim=-1, keepdim=True)


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
        self.register_load_state_dict_post_hook(_drop_rest)

    def forward(self, x: Tensor) -> Tensor:
        token = self.token if self.rest is None else self.token + self.rest
        return torch.cat([token.to(x.dtype).expand(*x.shape[:-2], 1, -1), x], dim=-2)


def _drop_rest(module: ClassToken, _: Any) -> None:
    module.rest = None  # of another token


class RegisterTokens(nn.Module):
    """Prepend learned tokens that have no place: (..., n, d) -> (..., count + n, d).

    "Vision transformers need registers", arXiv 2309.16588: without them attention stores global facts in patches.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(count, dim))
        nn.init.normal_(self.tokens, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.tokens.to(x.dtype).expand(*x.shape[:-2], -1, -1), x], dim=-2)
