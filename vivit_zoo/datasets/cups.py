"""HiddenDigits, the embedded data set about a hidden object: which cup is the digit under?"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vivit_zoo.datasets.embedded import EmbeddedClips, Label, draw_digit
from vivit_zoo.datasets.labels import Classes

__all__ = ["HiddenDigits"]

SLOT = 4  # frames of one event: a swap, or the look under the cups
TOP, BOTTOM = 9.0, 21.0  # heights of lifted and standing cups, in pixels from above
HEIGHTS = (0.5, 1.0, 1.0, 0.5)  # how far the cups are lifted in the frames of the look
SWING = 6.0  # how far up and down two cups move out of the way of each other


class HiddenDigits(EmbeddedClips):
    """A digit is under one of three cups, which swap places; the class is where it is in the end.

    A clip has four events of four frames each: three swaps of two cups and one look, in which all cups are lifted and
    show the digit. Each of the three possible swaps occurs exactly once, in random order, and only the last
    `difficulty` of them come after the look and move the digit. The cups look alike, so that a model has to bind a
    place at one time to places at later times. Shape (1, 16, 32, 32) in [-1, 1], classes "left", "middle" and "right".

    The accuracies that a model can reach are known by construction. Each clip shows the same three swaps, so that an
    unordered bag of frames (or of tubelets of two or four frames) shows only where the digit was in the look:

    - a bag of frames: 1/2 (`bag_ceiling`), since the digit never ends where it was in the look, and in each of the two
      other places equally often;
    - one frame: 1/2 (`frame_ceiling`), whether it shows the look or a swap, even if its time is known;
    - the order of the events shows everything: 1.

    The hardest is difficulty 2, where two swaps have to be combined. With 1 the last swap decides, and with 3 the
    middle one, because all three swaps together, in any order, do what the middle one does.

    Arguments and errors are those of `EmbeddedClips`.

    Attributes:
        swaps: pairs of places by number.
    """

    name = "hidden digits"
    classes: ClassVar[Classes] = ("left", "middle", "right")
    levels = (1, 2, 3)
    frame_ceiling = bag_ceiling = 1 / 2
    swaps = tuple(combinations(range(3), 2))
    columns = (5.5, 16.0, 26.5)  # centres of the places in pixels

    def _random(self, rng: np.random.Generator) -> dict[str, Any]:
        start, order = rng.integers(3), rng.permutation(len(self.swaps))
        if self.difficulty != 2:
            decisive = {1: 2, 3: 1}[int(self.difficulty or 0)]  # the swap that moves the digit
            moving = [i for i, swap in enumerate(self.swaps) if start in swap][rng.integers(2)]
            at = int(np.flatnonzero(order == moving)[0])
            order[[at, decisive]] = order[[decisive, at]]
        return {
            "order": order,  # of the swaps
            "start": start,  # the digit's place in the look
            "above": rng.integers(0, 2, 3),  # which of the two cups passes above the other, for each event
            "digit": rng.integers(len(self.digits)),
            "size": rng.uniform(10, 13),  # pixels
            "radius": rng.uniform(3.8, 4.8),  # of the cups, pixels
            "shift": rng.uniform(-1.0, 1.0, 2),  # of everything, pixels
        }

    def _label(self, draw: Mapping[str, Any]) -> Label:
        place = int(draw["start"])
        for swap in draw["order"][len(self.swaps) - int(self.difficulty or 0) :]:
            place = self._after(place, int(swap))
        return place

    def _after(self, place: int, swap: int) -> int:
        """Where a swap moves a place."""
        one, other = self.swaps[swap]
        return {one: other, other: one}.get(place, place)

    def _render(self, **draws: Tensor) -> Tensor:
        """Draws (b, ...) -> videos (b, T, H, W)."""
        batch, look = len(draws["start"]), len(self.swaps) - int(self.difficulty or 0)
        columns = torch.tensor(self.columns) + draws["shift"][:, :1]  # b 3
        x = columns[:, None].expand(-1, self.num_frames, -1).clone()  # b t cup
        y = (BOTTOM + draws["shift"][:, 1])[:, None, None].expand_as(x).clone()
        fraction = (torch.arange(SLOT) + 0.5) / SLOT  # of a swap, at its frames: never at rest, and symmetric
        along, up = (1 - torch.cos(torch.pi * fraction)) / 2, SWING * torch.sin(torch.pi * fraction)
        row, pairs = torch.arange(batch), torch.tensor(self.swaps)
        for i in range(len(self.swaps)):
            frames = slice(SLOT * (i + (i >= look)), SLOT * (i + (i >= look) + 1))
            one, other = pairs[draws["order"][:, i]].unbind(-1)
            sign = (2 * draws["above"][:, i] - 1)[:, None]
            way = (columns[row, other] - columns[row, one])[:, None] * along
            x[row, frames, one] += way
            x[row, frames, other] -= way
            y[row, frames, one] -= sign * up
            y[row, frames, other] += sign * up
        shown = slice(SLOT * look, SLOT * (look + 1))
        y[:, shown] -= (BOTTOM - TOP) * torch.tensor(HEIGHTS)[:, None]

        pixel = torch.arange(self.side) + 0.5
        squares = (pixel - x[..., None])[..., None, :] ** 2 + (pixel - y[..., None])[..., :, None] ** 2  # b t cup h w
        cups = 0.6 * torch.sigmoid(2 * (draws["radius"][:, None, None, None] - squares.amin(2).sqrt()))
        place = columns[row, draws["start"]][:, None].expand(-1, SLOT)
        below = (BOTTOM + draws["shift"][:, 1])[:, None].expand(-1, SLOT)
        digit = draw_digit(self.digits[draws["digit"]], place, below, torch.zeros_like(place), draws["size"], self.side)
        cups[:, shown] = torch.where(cups[:, shown] > 0.3, cups[:, shown], torch.maximum(cups[:, shown], digit))
        return cups
