"""Random brightness, saturation, contrast and hue of a clip, in few passes over a part of it at a time.

A clip of 32 frames takes 19 MB in float32, and an operation on all of it at once waits for memory. So its pixels go
through all operations in parts that stay in the cache, and hue is turned in integers of 16 bits.
"""

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["colour_jitter", "uniform"]

_GREY = (0.2989, 0.587, 0.114)  # of red, green, blue, as in torchvision
_ROWS = 8  # one row in so many is counted for the mean of a clip, in each frame others
_STEPS = 16  # of a level, in integers: differences of channels and sums of two are far below 2^15
_PIXELS = 2**17  # of a part: with fewer the calls take longer than the operations, with more memory does


def uniform(low: float, high: float) -> float:
    """A number from torch's global generator."""
    return low + (high - low) * torch.rand(()).item()


def colour_jitter(clip: Tensor, overwrite: bool = False) -> Tensor:
    """Random brightness, saturation, contrast and hue, in this order: uint8 (t, c, h, w) -> same.

    As the original's: brightness ± 32 of 255 (added), saturation and contrast times 0.6 to 1.4, hue turned by up to a
    fifth of the circle. Unlike there, values are clipped after each step, saturation goes towards grey as in
    torchvision, and contrast is about the mean of the whole clip, for which an eighth of the rows is counted, in each
    frame others. Clips of one channel have no saturation and no hue. Values are rounded to a sixteenth before the hue
    is turned, and to integers at the end.

    Args:
        clip: of 1 or 3 channels, with any strides; (c, t, h, w) in memory is the fastest.
        overwrite: whether the clip may be overwritten, which saves a copy.
    """
    brightness, saturation = uniform(-32, 32), uniform(0.6, 1.4)
    contrast, turn = uniform(0.6, 1.4), uniform(-0.2, 0.2)
    frames, channels, height, width = clip.shape
    planes = rearrange(clip, "t c h w -> c (t h w)")
    planes = planes if overwrite else planes.clone()
    with torch.inference_mode():  # in which each of the many calls takes less time
        _jitter(planes.view(channels, frames, height, width), brightness, saturation, contrast, turn)
    return rearrange(planes, "c (t h w) -> t c h w", t=frames, h=height)


def _jitter(video: Tensor, brightness: float, saturation: float, contrast: float, turn: float) -> None:
    """Change the colours of a contiguous clip (c, t, h, w) in place."""
    channels, planes = len(video), video.flatten(1)
    pixels = min(_PIXELS, planes.shape[1])
    weights = torch.tensor([_GREY if channels == 3 else (1.0,)])
    blend = _Blend(brightness, saturation if channels == 3 else 1.0, weights, pixels)

    counted = _counted_rows(video)
    sums = [blend(part).clamp_(0, 255).sum(1) for part in counted.split(pixels, 1)]
    middle = float(weights @ torch.stack(sums).sum(0)) / counted.shape[1] * (1 - contrast)
    # Contrast of clipped values, clipped again, is contrast of those that are not, clipped once to narrower bounds.
    bounds = (max(0.0, middle), min(255.0, 255 * contrast + middle))
    half = _STEPS / 2  # so that the shift at the end rounds to the nearest level; the conversion before it truncates
    low, high = (round(_STEPS * bound + half) for bound in bounds)
    hue = _HueTurn(turn, pixels) if channels == 3 else None
    room = torch.empty(channels, pixels, dtype=torch.int16)
    shift = torch.tensor(_STEPS.bit_length() - 1, dtype=torch.int16)
    for part in planes.split(pixels, 1):
        values = blend(part, _STEPS * contrast, _STEPS * middle + half + 0.5)
        levels = room[:, : part.shape[1]].copy_(values).clamp_(low, high)
        turned = levels if hue is None else hue(levels)
        torch.bitwise_right_shift(levels, shift, out=levels)
        for channel, result in zip(turned, part, strict=True):
            result.copy_(channel)


def _counted_rows(video: Tensor) -> Tensor:
    """Every eighth row of each frame, beginning three further in the next: (c, t, h, w) -> (c, n)."""
    return torch.cat([video[:, k::_ROWS, 3 * k % _ROWS :: _ROWS].flatten(1) for k in range(_ROWS)], 1)


class _Blend:
    """Brightness and saturation, then x * factor + offset, in few passes: uint8 (c, n) -> float32 (c, n).

    Values are clipped after brightness alone. The next call overwrites the result.

    Args:
        brightness: in levels of 255.
        saturation: 1 changes nothing.
        weights: of the channels in grey, (1, c).
        pixels: the most that n may be.
    """

    def __init__(self, brightness: float, saturation: float, weights: Tensor, pixels: int) -> None:
        self.brightness, self.saturation, self.weights = brightness, saturation, weights
        self.values, self.grey = torch.empty(weights.shape[1], pixels), torch.empty(1, pixels)

    def __call__(self, planes: Tensor, factor: float = 1.0, offset: float = 0.0) -> Tensor:
        values, grey = (room[:, : planes.shape[1]] for room in (self.values, self.grey))
        # Clipped before brightness is added: it then adds the same to each pixel, which is part of the offset.
        values.copy_(planes).clamp_(-self.brightness, 255 - self.brightness)
        of_grey = self.weights * ((1 - self.saturation) * factor)
        offset += self.brightness * (self.saturation * factor + float(of_grey.sum()))
        torch.mm(of_grey, values, out=grey).add_(offset)
        return torch.add(grey, values, alpha=self.saturation * factor, out=values)


class _HueTurn:
    """Turn hues by a share of the circle, in place: int16 (3, n) in [0, 255 * 16] -> red, green and blue of (n,).

    Equal to torchvision's adjust_hue, with neither divisions nor cases. Let v and m be the largest and the smallest
    channel and c = v - m the chroma. Around the circle of hues a channel is a trapezoid between m and v
    (https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative), and so is the difference of the two others,
    between -c and c, a quarter of the circle away. Their sum has no flat part where the channel has one, which gives
    the slopes of the trapezoid at its new place: after a turn by a share s of a sixth of the circle, s in [0, 1], red
    is red - d + clip(d, -(1 - s) c, (1 - s) c) with d = green - blue, clipped to [m, v]. Backwards, d has the other
    sign. Green and blue follow in a circle, and whole thirds of it exchange the channels.

    Args:
        turn: any share.
        pixels: the most that n may be.
    """

    def __init__(self, turn: float, pixels: int) -> None:
        thirds = round(3 * turn)
        self.sixths = 6 * turn - 2 * thirds  # what is left, in [-1, 1]
        self.order = [(number - thirds) % 3 for number in range(3)]
        self.real, self.room = torch.empty(pixels), torch.empty(7, pixels, dtype=torch.int16)

    def __call__(self, levels: Tensor) -> list[Tensor]:
        red, green, blue = levels
        room, real = self.room[:, : levels.shape[1]], self.real[: levels.shape[1]]
        value, least, reach, below = room[:4]
        torch.maximum(torch.maximum(red, green, out=value), blue, out=value)
        torch.minimum(torch.minimum(red, green, out=least), blue, out=least)
        torch.sub(value, least, out=reach)
        reach.copy_(real.copy_(reach).mul_(1 - abs(self.sixths)))
        torch.neg(reach, out=below)
        difference = room[4:]
        torch.sub(green, blue, out=difference[0])
        torch.sub(blue, red, out=difference[1])
        torch.sub(red, green, out=difference[2])
        if self.sixths > 0:
            levels.sub_(difference).add_(difference.clamp_(below, reach))
        else:
            levels.add_(difference).sub_(difference.clamp_(below, reach))
        levels.clamp_(least, value)
        return [levels[number] for number in self.order]
