"""MovingDigits, the embedded data set: real handwriting, computed motion, no download."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import permutations
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from vivit_zoo.datasets.catalogue import Catalogue, Entry
from vivit_zoo.datasets.formats import Classes
from vivit_zoo.datasets.sources import ArrayReader

__all__ = ["MovingDigits", "NumberedDigits"]

Split = Literal["train", "test"]
Label = Any  # a class number, or a dictionary of them by head


class MovingDigits(Dataset[tuple[Tensor, Label]]):
    """A handwritten digit makes one motion, then another; the class is which came first: (1, 16, 32, 32) in [-1, 1].

    The motions are right, down and clockwise, so the classes are the six ordered pairs of two different ones. At the
    switch, before frame 6, 8 or 10, the digit jumps to a new random place and angle; without the jump the set of
    positions would tell the order, and so would a tubelet of two frames that held the switch. What can be known is
    known by construction, which gives a model's accuracy a scale:

    - one frame shows no motion: 1/6;
    - one tubelet of two frames shows one motion of two, first or second: 1/4;
    - an unordered bag of tubelets shows both motions: 1/2 (`bag_ceiling`);
    - their order shows everything: 1.

    Digits are scikit-learn's 1,797 (UCI optical recognition of handwritten digits), 18 to 24 pixels wide, on a torus of
    32x32 pixels; the test split has its own digits. Every clip follows from (split, seed, index) alone, whatever is
    loaded beside it.

    Attributes:
        orders: names of the classes by number.
        digits: of the split, (n, 1, 8, 8) in [0, 1].
        numbers: which they are, (n,) from 0 to 9; no class of these clips tells.

    Args:
        split: "train" or "test".
        length: number of clips; they are made when they are asked for.
        seed: another seed gives other clips of the same digits.

    Raises:
        ValueError: on an unknown split.
        ImportError: without scikit-learn (`pip install 'vivit_zoo[experiments]'`).
    """

    motions = ("right", "down", "clockwise")
    pairs = tuple(permutations(range(3), 2))
    orders = tuple(f"{first} then {second}" for first, second in permutations(motions, 2))
    classes: ClassVar[Classes] = orders
    num_frames, side = 16, 32
    frame_ceiling, bag_ceiling = 1 / 6, 1 / 2

    def __init__(self, split: Split = "train", length: int = 100_000, seed: int = 0) -> None:
        if split not in get_args(Split):
            raise ValueError(f"split {split!r} is unknown; choose from {', '.join(get_args(Split))}")
        self.split, self.length, self.seed = split, length, seed
        self.digits, self.numbers = _digits(split)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Label]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Label]]:
        """Many clips in one go, which `DataLoader` asks for; the same clips as one by one, only faster."""
        draws = [self._draw(index) for index in indices]
        labels = [self._label(draw) for draw in draws]
        draws = [draw | {"noise": draw["noise"]()} for draw in draws]
        columns = {name: torch.from_numpy(np.stack([draw[name] for draw in draws])) for name in draws[0]}
        columns = {name: x.float() if x.is_floating_point() else x for name, x in columns.items()}
        return list(zip(self._render(**columns), labels, strict=True))

    def videos(self) -> Catalogue:
        """The same clips as videos that lie nowhere: what is made of files can be made of these, without a file."""
        labels = [self._label(self._draw(index)) for index in range(len(self))]
        return Catalogue([Entry(_Clip(self, i), label) for i, label in enumerate(labels)], self.classes)

    @classmethod
    def reversed_label(cls, label: int) -> int:
        """The class with the same two motions in the other order."""
        return cls.pairs.index(cls.pairs[label][::-1])

    def _draw(self, index: int) -> dict[str, Any]:
        """Everything random about one clip; an axis of two belongs to its two motions."""
        if not 0 <= index < self.length:
            raise IndexError(f"clip {index} of a data set with {self.length}")
        rng = np.random.default_rng([get_args(Split).index(self.split), self.seed, index])
        return {
            "motion": np.array(self.pairs[rng.integers(len(self.pairs))]),
            "digit": rng.integers(len(self.digits)),
            "size": rng.uniform(18, 24),  # pixels
            "switch": 2 * rng.integers(3, 6),  # first frame of the second motion
            "place": rng.uniform(0, self.side, (2, 2)),  # pixels, (motion, x and y)
            "angle": rng.uniform(0, 2 * np.pi, 2),
            "speed": rng.uniform(2.0, 4.0, 2),  # pixels a frame
            "spin": rng.uniform(0.3, 0.6, 2),  # radians a frame
            # Drawn last, and only for those who want the picture: it takes longer than all else.
            "noise": partial(rng.integers, 0, 256, (self.num_frames, self.side, self.side), dtype=np.uint8),
        }

    def _label(self, draw: Mapping[str, Any]) -> Label:
        return self.pairs.index(tuple(draw["motion"]))

    def _render(
        self,
        motion: Tensor,
        digit: Tensor,
        size: Tensor,
        switch: Tensor,
        place: Tensor,
        angle: Tensor,
        speed: Tensor,
        spin: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """(b, ...) draws -> (b, 1, T, H, W): each pixel looks up the point of the digit that lies under it."""
        frame = torch.arange(self.num_frames)
        second = (frame >= switch[:, None]).long()  # b t: which of the two motions a frame shows
        since = frame - second * switch[:, None]
        motion, angle, speed, spin = (x.gather(1, second) for x in (motion, angle, speed, spin))
        x, y = place.gather(1, second[..., None].expand(-1, -1, 2)).unbind(-1)
        x = x + speed * since * (motion == 0)
        y = y + speed * since * (motion == 1)
        angle = angle + spin * since * (motion == 2)  # y points down, so growing angles turn clockwise

        # Signed distance of each column and row from the digit's centre on the torus, turned and scaled to the digit.
        pixel, half = torch.arange(self.side) + 0.5, self.side / 2
        dx = (pixel - x[..., None] + half).remainder(self.side) - half  # b t w
        dy = (pixel - y[..., None] + half).remainder(self.side) - half  # b t h
        cos, sin = (f(angle)[..., None] * 2 / size[:, None, None] for f in (torch.cos, torch.sin))
        u = (cos * dx)[..., None, :] + (sin * dy)[..., :, None]
        v = (cos * dy)[..., :, None] - (sin * dx)[..., None, :]
        points = torch.stack([u, v], dim=-1).flatten(0, 1)
        images = self.digits[digit].repeat_interleave(self.num_frames, 0)
        video = F.grid_sample(images, points, align_corners=False).reshape_as(noise)
        video += (noise.float() - 127.5) * (0.2 / 255)  # uniform in [-0.1, 0.1], far cheaper than Gaussian
        return video.clamp_(0, 1).mul_(2).sub_(1)[:, None]


class NumberedDigits(MovingDigits):
    """The clips of `MovingDigits` with two labels, the digit's number and the order of its motions, by head.

    They are to each other what Epic Kitchens' nouns and verbs are: a still image knows one, motion alone the other.
    """

    classes: ClassVar[Classes] = {"number": tuple("0123456789"), "order": MovingDigits.orders}

    def _label(self, draw: Mapping[str, Any]) -> Label:
        return {"number": int(self.numbers[draw["digit"]]), "order": self.pairs.index(tuple(draw["motion"]))}


@dataclass(frozen=True, slots=True)
class _Clip:
    """A clip of a data set as a place where a video lies."""

    dataset: MovingDigits
    index: int

    @property
    def name(self) -> str:
        return f"moving digits, {self.dataset.split} clip {self.index}"

    def open(self, gray: bool = False, **_: Any) -> ArrayReader:
        video, _label = self.dataset[self.index]
        frames = ((video[0] + 1) * 127.5).round().byte()[..., None].numpy()
        return ArrayReader(self.name, frames if gray else frames.repeat(3, axis=-1), rate=16.0)

    def exists(self) -> bool:
        return True


@cache
def _digits(split: Split) -> tuple[Tensor, np.ndarray]:
    """The split's digits, (n, 1, 8, 8) in [0, 1], and which they are, (n,): four fifths to train, one fifth to test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("MovingDigits draws scikit-learn's digits: pip install 'vivit_zoo[experiments]'") from error
    known = load_digits()
    order, cut = np.random.default_rng(0).permutation(len(known.target)), len(known.target) * 4 // 5
    own = order[:cut] if split == "train" else order[cut:]
    return torch.from_numpy(known.images[own]).float()[:, None] / 16, known.target[own]
