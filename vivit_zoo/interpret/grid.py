"""Tokens back on the grid of the video, for methods that expect the feature maps of a convolutional network."""

from einops import rearrange
from torch import Tensor

from vivit_zoo.model import ViViT

__all__ = ["tokens_to_grid"]


def tokens_to_grid(model: ViViT, tokens: Tensor) -> Tensor:
    """The output of a block or a norm of any variant as a feature map: (b, ..., n, d) -> (b, d, t, h, w).

    Class and register tokens, which come first and have no place, are dropped. In the temporal encoder of the
    factorised encoder a token is a whole frame: there h and w are 1, except with `temporal_per_place`.

    Args:
        model: that the tokens are of.
        tokens: (b, extra + t·n, d), (b, t, extra + n, d), (b, extra + t, d) or (b, n, extra + t, d), as the blocks
            return them. The last is told from the second by its shape, so t and n must differ.

    Raises:
        ValueError: if the tokens do not have this model's grid.
    """
    t, h, w = model.config.grid
    if tokens.ndim == 4 and tokens.shape[1] == t and tokens.shape[2] >= h * w:
        return rearrange(tokens[:, :, -h * w :], "b t (h w) d -> b d t h w", h=h)
    if tokens.ndim == 4 and tokens.shape[1] == h * w and tokens.shape[2] >= t:
        return rearrange(tokens[:, :, -t:], "b (h w) t d -> b d t h w", h=h)
    if tokens.ndim == 3 and tokens.shape[1] >= t * h * w:
        return rearrange(tokens[:, -t * h * w :], "b (t h w) d -> b d t h w", t=t, h=h)
    if tokens.ndim == 3 and tokens.shape[1] >= t:
        return rearrange(tokens[:, -t:], "b t d -> b d t 1 1")
    raise ValueError(f"tokens of shape {tuple(tokens.shape)} are not of a grid of {t} x {h} x {w} places")
