"""The base of the embedded data sets: clips of real handwriting in computed motion, without a download."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from vivit_zoo.datasets.catalogue import Catalogue, Entry
from vivit_zoo.datasets.labels import Classes
from vivit_zoo.datasets.sources import ArrayReader

__all__ = ["EmbeddedClips", "Label", "Split", "draw_digit"]

Split = Literal["train", "test"]
Label = Any  # a class number, or a dictionary of them by head


class EmbeddedClips(Dataset[tuple[Tensor, Label]]):
    """Clips that are computed when they are asked for: (1, 16, 32, 32) in [-1, 1], with their labels.

    Digits are scikit-learn's 1,797 (UCI optical recognition of handwritten digits); the test split has its own digits.
    Each clip is determined by (split, seed, index) alone, whatever else is in the batch. A subclass defines `classes`,
    `_random` (the random values of a clip), `_label` and `_render`.

    Attributes:
        classes: names of the classes by number, or by head.
        levels: values of `difficulty` that the task has; empty if it has only one.
        digits: of the split, (n, 1, 8, 8) in [0, 1].
        numbers: which number each digit is, (n,) from 0 to 9.

    Args:
        split: "train" or "test".
        length: number of clips.
        seed: another seed gives other clips of the same digits.
        difficulty: one of `levels`; None for the default, the first.

    Raises:
        ValueError: if the split or the difficulty is unknown.
        ImportError: if scikit-learn is missing (`pip install 'vivit_zoo[experiments]'`).
    """

    name: ClassVar[str]
    classes: ClassVar[Classes]
    levels: ClassVar[tuple[int, ...]] = ()
    num_frames, side = 16, 32

    def __init__(
        self, split: Split = "train", length: int = 100_000, seed: int = 0, difficulty: int | None = None
    ) -> None:
        if split not in get_args(Split):
            raise ValueError(f"split {split!r} is unknown; choose from {', '.join(get_args(Split))}")
        if difficulty is not None and difficulty not in self.levels:
            choices = f"choose from {', '.join(map(str, self.levels))}" if self.levels else "leave it out"
            raise ValueError(f"{self.name} have no difficulty {difficulty}; {choices}")
        self.split, self.length, self.seed = split, length, seed
        self.difficulty = self.levels[0] if difficulty is None and self.levels else difficulty
        self.digits, self.numbers = _digits(split)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Label]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Label]]:
        """Many clips at once, as `DataLoader` asks for them; equal to one by one, but faster."""
        draws, pictures, labels = [], [], []
        for index in indices:
            rng = self._generator(index)
            draws.append(self._random(rng))
            labels.append(self._label(draws[-1]))
            # Drawn last, and only if the picture is wanted: it takes longer than everything else.
            pictures.append(rng.integers(0, 256, (self.num_frames, self.side, self.side), dtype=np.uint8))
        video = self._render_all(draws)
        # Noise that is uniform in [-0.1, 0.1] is far cheaper than Gaussian noise.
        video += torch.from_numpy(np.stack(pictures)).float().sub_(127.5).mul_(0.2 / 255)
        return list(zip(video.clamp_(0, 1).mul_(2).sub_(1)[:, None], labels, strict=True))

    def videos(self) -> Catalogue:
        """The same clips as videos without files, for everything that reads video files."""
        return Catalogue([Entry(_Clip(self, i), label) for i, label in enumerate(self.labels())], self.classes)

    def labels(self) -> list[Label]:
        """Return the labels of all clips, without their pictures."""
        return [self._label(self._draw(index)) for index in range(len(self))]

    def _generator(self, index: int) -> np.random.Generator:
        if not 0 <= index < self.length:
            raise IndexError(f"clip {index} of a data set with {self.length}")
        return np.random.default_rng([get_args(Split).index(self.split), self.seed, index])

    def _draw(self, index: int) -> dict[str, Any]:
        """The random values of a clip, except its noise."""
        return self._random(self._generator(index))

    def _random(self, rng: np.random.Generator) -> dict[str, Any]:
        """The random values of one clip, except its noise, from its own generator."""
        raise NotImplementedError

    def _label(self, draw: Mapping[str, Any]) -> Label:
        raise NotImplementedError

    def _render_all(self, draws: Sequence[Mapping[str, Any]]) -> Tensor:
        """The random values of b clips -> videos (b, T, H, W) with values from 0 to 1, without the noise."""
        columns = {name: torch.from_numpy(np.stack([draw[name] for draw in draws])) for name in draws[0]}
        return self._render(**{name: x.float() if x.is_floating_point() else x for name, x in columns.items()})

    def _render(self, **draws: Tensor) -> Tensor:
        """The same, from one tensor (b, ...) for each random value."""
        raise NotImplementedError


def draw_digit(digit: Tensor, x: Tensor, y: Tensor, angle: Tensor, size: Tensor, side: int) -> Tensor:
    """Draw a digit at a place of a torus: each pixel looks up the point of the digit below it.

    Args:
        digit: (b, 1, 8, 8).
        x, y: of the digit's centre in pixels, (b, t); y points down.
        angle: (b, t) in radians; growing angles turn clockwise.
        size: (b,) in pixels.
        side: of the frames, in pixels.

    Returns:
        (b, t, side, side).
    """
    # Signed distance of each column and row from the digit's centre, rotated and scaled to the digit.
    pixel, half = torch.arange(side) + 0.5, side / 2
    dx = (pixel - x[..., None] + half).remainder(side) - half  # b t w
    dy = (pixel - y[..., None] + half).remainder(side) - half  # b t h
    cos, sin = (f(angle)[..., None] * 2 / size[:, None, None] for f in (torch.cos, torch.sin))
    points = dx.new_empty(*dx.shape, side, 2)  # written in place, which takes half of the time of stacking
    torch.add((cos * dx)[..., None, :], (sin * dy)[..., :, None], out=points[..., 0])
    torch.sub((cos * dy)[..., :, None], (sin * dx)[..., None, :], out=points[..., 1])
    images = digit.repeat_interleave(x.shape[1], 0)
    return F.grid_sample(images, points.flatten(0, 1), align_corners=False).reshape(points.shape[:-1])


@dataclass(frozen=True, slots=True)
class _Clip:
    """A clip of an embedded data set in place of a video file."""

    dataset: EmbeddedClips
    index: int

    @property
    def name(self) -> str:
        return f"{self.dataset.name}, {self.dataset.split} clip {self.index}"

    def open(self, gray: bool = False, **_: Any) -> ArrayReader:
        video, _label = self.dataset[self.index]
        frames = ((video[0] + 1) * 127.5).round().byte()[..., None].numpy()
        return ArrayReader(self.name, frames if gray else frames.repeat(3, axis=-1), rate=16.0)

    def exists(self) -> bool:
        return True


@cache
def _digits(split: Split) -> tuple[Tensor, np.ndarray]:
    """The split's digits, (n, 1, 8, 8) in [0, 1], and their numbers, (n,): four fifths to train, one fifth to test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "embedded data sets use scikit-learn's digits: pip install 'vivit_zoo[experiments]'"
        ) from error
    known = load_digits()
    order, cut = np.random.default_rng(0).permutation(len(known.target)), len(known.target) * 4 // 5
    own = order[:cut] if split == "train" else order[cut:]
    return torch.from_numpy(known.images[own]).float()[:, None] / 16, known.target[own]
