"""MovingDigits, the embedded data set about the order of two motions, and NumberedDigits, which has two labels."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vivit_zoo.datasets.embedded import EmbeddedClips, Label, draw_digit
from vivit_zoo.datasets.labels import Classes

__all__ = ["MovingDigits", "NumberedDigits"]


class MovingDigits(EmbeddedClips):
    """A handwritten digit makes one motion, then another; the class is their order: (1, 16, 32, 32) in [-1, 1].

    The motions are right, down and clockwise, so that the classes are the six ordered pairs of two different motions.
    At the switch, before frame 6, 8 or 10, the digit jumps to a new random place and angle. Without the jump the set of
    positions would show the order, and so would a tubelet of two frames that contains the switch. The accuracies that a
    model can reach are known by construction:

    - one frame shows no motion: 1/6 (`frame_ceiling`);
    - one tubelet of two frames shows one of the two motions: 1/4;
    - an unordered bag of tubelets shows both motions: 1/2 (`bag_ceiling`);
    - their order shows everything: 1.

    Digits are 18 to 24 pixels wide, on a torus of 32x32 pixels. Arguments and errors are those of `EmbeddedClips`.

    Attributes:
        orders: names of the classes by number.
    """

    name = "moving digits"
    motions = ("right", "down", "clockwise")
    pairs = tuple(permutations(range(3), 2))
    orders = tuple(f"{first} then {second}" for first, second in permutations(motions, 2))
    classes: ClassVar[Classes] = orders
    frame_ceiling, bag_ceiling = 1 / 6, 1 / 2

    @classmethod
    def reversed_label(cls, label: int) -> int:
        """The class with the same two motions in the other order."""
        return cls.pairs.index(cls.pairs[label][::-1])

    def speeds(self, index: int) -> dict[str, float]:
        """Return how fast each motion of a clip is, in pixels or for "clockwise" radians a frame; 0 if it has none."""
        draw = self._draw(index)
        found = dict.fromkeys(self.motions, 0.0)
        for motion, speed, spin in zip(draw["motion"], draw["speed"], draw["spin"], strict=True):
            name = self.motions[motion]
            found[name] = float(spin if name == "clockwise" else speed)
        return found

    def _random(self, rng: np.random.Generator) -> dict[str, Any]:
        """The random values of a clip; an axis of length two belongs to its two motions."""
        return {
            "motion": np.array(self.pairs[rng.integers(len(self.pairs))]),
            "digit": rng.integers(len(self.digits)),
            "size": rng.uniform(18, 24),  # pixels
            "switch": 2 * rng.integers(3, 6),  # first frame of the second motion
            "place": rng.uniform(0, self.side, (2, 2)),  # pixels, (motion, x and y)
            "angle": rng.uniform(0, 2 * np.pi, 2),
            "speed": rng.uniform(2.0, 4.0, 2),  # pixels a frame
            "spin": rng.uniform(0.3, 0.6, 2),  # radians a frame
        }

    def _label(self, draw: Mapping[str, Any]) -> Label:
        return self.pairs.index(tuple(draw["motion"]))

    def _render(self, **draws: Tensor) -> Tensor:
        """Draws (b, ...) -> videos (b, T, H, W)."""
        frame = torch.arange(self.num_frames)
        second = (frame >= draws["switch"][:, None]).long()  # b t: which of the two motions a frame shows
        since = frame - second * draws["switch"][:, None]
        motion, angle, speed, spin = (draws[name].gather(1, second) for name in ("motion", "angle", "speed", "spin"))
        x, y = draws["place"].gather(1, second[..., None].expand(-1, -1, 2)).unbind(-1)
        x = x + speed * since * (motion == 0)
        y = y + speed * since * (motion == 1)
        angle = angle + spin * since * (motion == 2)
        return draw_digit(self.digits[draws["digit"]], x, y, angle, draws["size"], self.side)


class NumberedDigits(MovingDigits):
    """The clips of `MovingDigits` with two labels by head, the digit's number and the order of its motions.

    They correspond to the nouns and verbs of Epic Kitchens: a still image shows one, only motion shows the other.
    """

    name = "numbered digits"
    classes: ClassVar[Classes] = {"number": tuple("0123456789"), "order": MovingDigits.orders}

    def _label(self, draw: Mapping[str, Any]) -> Label:
        return {"number": int(self.numbers[draw["digit"]]), "order": self.pairs.index(tuple(draw["motion"]))}
