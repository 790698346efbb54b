"""Random brightness, saturation, contrast and hue of a clip, in few passes over each frame.

A clip of 32 frames takes 19 MB in float32, and an operation on all of it at once waits for memory. So each frame goes
through all operations while it is in the cache, and its hue is turned in integers of 16 bits.
"""

import torch
from torch import Tensor

__all__ = ["colour_jitter", "uniform"]

_GREY = (0.2989, 0.587, 0.114)  # of red, green, blue, as in torchvision
_ROWS = 4  # every fourth row of pixels is counted for the mean of a clip
_STEPS = 16  # of a level, in integers: six times the largest chroma, 6 * 255 * 16, is less than 2^15


def uniform(low: float, high: float) -> float:
    """A number from torch's global generator."""
    return low + (high - low) * torch.rand(()).item()


def colour_jitter(clip: Tensor, out: Tensor | None = None) -> Tensor:
    """Random brightness, saturation, contrast and hue, in this order: uint8 (t, c, h, w) -> same.

    As the original's: brightness ± 32 of 255 (added), saturation and contrast times 0.6 to 1.4, hue turned by up to a
    fifth of the circle. Unlike there, values are clipped after each step, saturation goes towards grey as in
    torchvision, and contrast is about the mean of the whole clip, of which every fourth row is counted. Clips of one
    channel have no saturation and no hue. Values are rounded to a sixteenth before the hue is turned, and to integers
    at the end.

    Args:
        clip: of 1 or 3 channels, with any strides.
        out: the tensor for the result, which may be the clip itself; None for a new one.
    """
    brightness, saturation = uniform(-32, 32), uniform(0.6, 1.4)
    contrast, turn = uniform(0.6, 1.4), uniform(-0.2, 0.2)
    if out is None:
        out = torch.empty_like(clip)
    channels, height, width = clip.shape[1:]
    weights = torch.tensor([_GREY if channels == 3 else (1.0,)])

    def to_values(frame: Tensor, factor: float = 1.0, offset: float = 0.0) -> Tensor:
        """Brightness and saturation, then x * factor + offset; not clipped after that: -> (c, h w)."""
        values = room[:, : frame[0].numel()]
        values.view(frame.shape).copy_(frame)
        values.add_(brightness).clamp_(0, 255)
        if channels == 1:
            return values.mul_(factor).add_(offset)
        grey = (weights * ((1 - saturation) * factor)) @ values
        return values.mul_(saturation * factor).add_(grey.add_(offset))

    room = torch.empty(channels, height * width)
    means = [to_values(frame).clamp_(0, 255).mean(1) for frame in clip[:, :, ::_ROWS]]
    middle = float(weights @ torch.stack(means).mean(0)) * (1 - contrast)
    # Contrast of clipped values, clipped again, is contrast of those that are not, clipped once to narrower bounds.
    bounds = [_STEPS * bound + 0.5 for bound in (max(0.0, middle), min(255.0, 255 * contrast + middle))]
    levels = torch.empty(channels, height * width, dtype=torch.int16)
    hue = _HueTurn(turn, height * width) if channels == 3 else None
    for frame, result in zip(clip, out, strict=True):
        levels.copy_(to_values(frame, _STEPS * contrast, _STEPS * middle + 0.5).clamp_(*bounds))
        if hue is not None:
            hue(levels)
        result.copy_(levels.add_(_STEPS // 2).bitwise_right_shift_(_STEPS.bit_length() - 1).view(frame.shape))
    return out


class _HueTurn:
    """Turn hues by a share of the circle, in place: int16 (3, n) in [0, 255 * 16] -> same.

    Equal to torchvision's adjust_hue, with neither divisions nor cases. Let v and m be the largest and the smallest
    channel, c = v - m the chroma, and h the hue in sixths of the circle from red, in [-3, 3]. A channel is m + c where
    h is within 1 of its colour (0 for red, 2 for green, -2 for blue), m from a distance of 2 on, and linear between
    (https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative). So c |h| is v - 2 m - red + green + blue, h has
    the sign of green - blue, and each channel follows from c (h + turn): all of it is linear but for |.| and clipping.

    Args:
        turn: any share.
        pixels: n.
    """

    def __init__(self, turn: float, pixels: int) -> None:
        thirds = round(3 * turn)  # whole thirds exchange the channels; the rest keeps a place within four chromas
        self.rest, self.colours = 6 * turn - 2 * thirds, [(0, 2, -2)[(number - thirds) % 3] for number in range(3)]
        self.real, self.room = torch.empty(pixels), torch.empty(6, pixels, dtype=torch.int16)

    def __call__(self, levels: Tensor) -> Tensor:
        red, green, blue = levels
        value, least, chroma, place, low, three = self.room
        torch.maximum(torch.maximum(red, green, out=value), blue, out=value)
        torch.minimum(torch.minimum(red, green, out=least), blue, out=least)
        torch.sub(value, least, out=chroma)
        torch.add(green, blue, out=place).sub_(red).add_(value).sub_(least, alpha=2)
        sign = torch.sub(green, blue, out=low).bitwise_right_shift_(15)  # 0 or -1
        place.bitwise_xor_(sign).sub_(sign)
        place.add_(low.copy_(self.real.copy_(chroma).mul_(self.rest)))
        torch.mul(chroma, 3, out=three)
        torch.sub(least, chroma, out=low)
        for colour, channel in zip(self.colours, levels, strict=True):
            torch.sub(place, chroma, alpha=colour, out=channel)
        # The distance on the circle is 3 c - | |.| - 3 c |, and the channel is m + 2 c less that, clipped.
        levels.abs_().sub_(three).abs_().add_(low)
        return torch.clamp(levels, least, value, out=levels)
