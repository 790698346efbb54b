"""Dense features of a block, and their colours: the main directions over all frames as red, green and blue."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vivit_zoo.model import ViViT

__all__ = ["dense_features", "pca"]


@torch.no_grad()
def dense_features(model: ViViT, video: Tensor, block: int | None = None) -> Tensor:
    """The tokens after a block, with the last norm: (b, c, T, H, W) -> (b, t, h, w, d).

    Args:
        model: in evaluation mode.
        video: as for the model.
        block: its number as in `ViViT.forward_intermediates`; None for the last one with a token for each place. In the
            factorised encoder that is the last spatial block, since its temporal blocks see a frame as one token.

    Raises:
        ValueError: if there is no such block, or it has one token a frame.
    """
    blocks = model.forward_intermediates(video, None if block is None else [block], norm=True, intermediates_only=True)
    dense = [tokens for tokens in blocks if tokens.shape[1:4] == model.config.grid]
    if not dense:
        raise ValueError(
            f"block {block} sees a frame as one token; choose a block of the spatial encoder, counted from 0"
        )
    return dense[-1]


def pca(features: Tensor | Sequence[Tensor], outliers: float = 0.01) -> Tensor:
    """Turn the three main directions of dense features into colours: (b, t, h, w, d) -> (b, t, h, w, 3) in [0, 1].

    One principal component analysis is made for all places of all frames and clips, so that the same colour means the
    same features everywhere, as in DINOv2 (arXiv 2304.07193, figure 1). Along each direction the colour grows linearly
    from 0 to 1 between two quantiles of all places and is clamped beyond them. The sign of a direction is that of its
    entry with the largest absolute value, so that the same features always have the same colours. Directions along
    which the features do not differ are 0.5.

    Args:
        features: of any leading axes, such as `model.forward_intermediates(video, intermediates_only=True)` returns
            for a block; of several blocks the channels are concatenated, so their places must be the same.
        outliers: share of the places, in [0, 0.5), that is clamped at either end of each colour.

    Raises:
        ValueError: if the features are not floating-point, have fewer than two places, differ in their places, or are
            not finite; on `outliers` outside [0, 0.5).
    """
    if not 0 <= outliers < 0.5:
        raise ValueError(f"outliers is a share in [0, 0.5), got {outliers}")
    blocks = [features] if isinstance(features, Tensor) else list(features)
    places = {tuple(block.shape[:-1]) for block in blocks}
    if len(places) != 1:
        shapes = ", ".join(str(tuple(block.shape)) for block in blocks) or "no features"
        raise ValueError(f"features of several blocks need the same places, (..., d) of the same ..., got {shapes}")
    x = torch.cat(blocks, dim=-1).detach()
    if not x.is_floating_point() or x.shape[:-1].numel() < 2 or not x.isfinite().all():
        got = f"{tuple(x.shape)}, {x.dtype}"
        raise ValueError(f"features are finite floating-point numbers (..., d) of at least two places, got {got}")
    rows = x.flatten(end_dim=-2).double()
    rows = rows - rows.mean(0)
    _, spread, directions = torch.linalg.svd(rows.mT @ rows)
    spread, directions = spread[:3], directions[:3]
    largest = directions.abs().argmax(dim=1, keepdim=True)
    shares = rows @ (directions * directions.gather(1, largest).sign()).mT
    ends = torch.quantile(
        shares[:: max(1, len(shares) // 1_000_000)], torch.tensor([outliers, 1 - outliers]).to(shares), 0
    )
    colours = ((shares - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)
    flat = (spread <= 1e-12 * spread[0].clamp(min=torch.finfo(spread.dtype).tiny)) | (ends[0] == ends[1])
    colours = torch.where(flat, torch.full_like(colours, 0.5), colours)
    missing = colours.new_full((len(colours), 3 - colours.shape[1]), 0.5)
    return torch.cat([colours, missing], dim=1).unflatten(0, x.shape[:-1]).float()
