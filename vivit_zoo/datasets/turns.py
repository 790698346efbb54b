"""TurningDigits, the embedded data set about repetition: how often does the digit turn back?"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise, product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vivit_zoo.datasets.embedded import EmbeddedClips, Label, draw_digit
from vivit_zoo.datasets.labels import Classes

__all__ = ["TurningDigits"]

PIECE = 4  # frames between two jumps


def _sequences(pieces: int) -> dict[int, list[tuple[int, ...]]]:
    """Directions of so many pieces, half of them up (-1) or one more, by the number of changes."""
    found: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for sequence in product((-1, 1), repeat=pieces):
        if sequence.count(-1) - pieces // 2 in (0, 1):
            found[sum(a != b for a, b in pairwise(sequence))].append(sequence)
    return found


class TurningDigits(EmbeddedClips):
    """A digit moves up or down and turns back 1 to 3 times; the class is how often: (1, 16, 32, 32) in [-1, 1].

    A clip has four pieces of four frames. In each the digit moves up or down, up in two or three of them. Before each
    piece it jumps to a random place, so that neither the places nor a frame pair across two pieces show a turn. All
    sequences of directions with the same number of turns are equally likely. The accuracies that a model can reach are
    known by construction:

    - one frame shows no motion: 1/3 (`frame_ceiling`);
    - one piece shows one direction: 3/8;
    - an unordered bag of pieces shows how many moved up: 1/2 (`bag_ceiling`);
    - the order of the pieces shows everything: 1.

    If three moved up, the place of the fourth decides between 1 and 2 turns; if two did, pieces have to be compared.
    Difficulty 1, 2 and 3 are speeds of 4, 2.5 and 1.5 pixels a frame; digits are 18 to 24 pixels wide, on a torus.
    Arguments and errors are those of `EmbeddedClips`.
    """

    name = "turning digits"
    levels = (1, 2, 3)
    speeds: ClassVar[Mapping[int, float]] = {1: 4.0, 2: 2.5, 3: 1.5}
    counts = (1, 2, 3)
    classes: ClassVar[Classes] = ("1 turn", "2 turns", "3 turns")
    frame_ceiling, bag_ceiling = 1 / 3, 1 / 2
    pieces = EmbeddedClips.num_frames // PIECE
    sequences: ClassVar[Mapping[int, list[tuple[int, ...]]]] = _sequences(pieces)

    def _random(self, rng: np.random.Generator) -> dict[str, Any]:
        choices = self.sequences[int(rng.choice(self.counts))]
        return {
            "direction": np.array(choices[rng.integers(len(choices))]),  # -1 up, 1 down, for each piece
            "digit": rng.integers(len(self.digits)),
            "size": rng.uniform(18, 24),  # pixels
            "place": rng.uniform(0, self.side, (self.pieces, 2)),  # pixels, (piece, x and y)
            "angle": rng.uniform(0, 2 * np.pi),
        }

    def _label(self, draw: Mapping[str, Any]) -> Label:
        return self.counts.index(sum(a != b for a, b in pairwise(draw["direction"].tolist())))

    def _render(self, **draws: Tensor) -> Tensor:
        """Draws (b, ...) -> videos (b, T, H, W)."""
        frame = torch.arange(self.num_frames)
        piece, since = frame // PIECE, frame % PIECE
        x, y = draws["place"][:, piece].unbind(-1)  # b t
        y = y + self.speeds[int(self.difficulty or 0)] * draws["direction"][:, piece] * since
        angle = draws["angle"][:, None].expand_as(x)
        return draw_digit(self.digits[draws["digit"]], x, y, angle, draws["size"], self.side)
