"""The order of the clips in training and in tests: shuffled or balanced, repeated, split over processes.

The batches of a step depend on (seed, step) only, and those of all processes together are those of one process.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

__all__ = ["NOT_COUNTED", "Draw", "TestOrder", "TrainOrder", "group_by_class"]

NOT_COUNTED = -1


class Draw(NamedTuple):
    """A clip to load.

    place: its index in the data set, or `NOT_COUNTED` for a filler in a test.
    epoch: the epoch, which is part of the seed of its random values.
    repeat: how often the epoch had this index before, which is part of the seed too.
    """

    place: int
    epoch: int
    repeat: int = 0


class TrainOrder(Sampler[list[Draw]]):
    """The batches of one process in training: every clip once per epoch, in a random order.

    The `batch_size` clips of a step are distributed over processes and `parts` (of an accumulated gradient). The last
    clips of an epoch share a step with the first of the next.

    With `groups`, such as of `group_by_class`, an epoch has as many clips, but each group equally often (up to one):
    clips of large groups are left out, a random choice in each epoch, and those of small ones are repeated. With
    `repeats`, each chosen clip is in a step so many times (repeated augmentation, arXiv 1901.09335), in one batch one
    after the other.

    Args:
        length: length of the data set.
        batch_size: clips per step, over all parts and processes; a multiple of their product.
        seed: seed of the order.
        step: the first step.
        parts: number of batches into which each process splits its share of a step.
        process, processes: number of this process, and number of processes.
        groups: indices of the clips of each group; None for no groups.
        repeats: how many times a step has each of its clips; `batch_size` is a multiple of the product with `parts` and
            `processes`.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        step: int = 0,
        parts: int = 1,
        process: int = 0,
        processes: int = 1,
        groups: Sequence[Sequence[int]] | None = None,
        repeats: int = 1,
    ) -> None:
        self.length, self.batch_size, self.seed, self.step = length, batch_size, seed, step
        self.parts, self.process, self.processes = parts, process, processes
        self.groups = None if groups is None else [torch.tensor(group) for group in groups if len(group)]
        self.repeats = repeats

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = self._draws()
        while whole := list(islice(draws, self.batch_size // self.repeats)):
            for part in range(self.parts):
                own = whole[part * self.processes + self.process :: self.parts * self.processes]
                yield [
                    Draw(place, epoch, repeat * self.repeats + copy)
                    for place, epoch, repeat in own
                    for copy in range(self.repeats)
                ]

    def _draws(self) -> Iterator[Draw]:
        epoch, offset = divmod(self.step * (self.batch_size // self.repeats), self.length)
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            seen: Counter[int] = Counter()
            for number, place in enumerate(self._places(generator).tolist()):
                if number >= offset:
                    yield Draw(place, epoch, seen[place])
                seen[place] += 1
            epoch, offset = epoch + 1, 0

    def _places(self, generator: torch.Generator) -> Tensor:
        """The indices of an epoch, (length,)."""
        if self.groups is None:
            return torch.randperm(self.length, generator=generator)
        count = len(self.groups)
        rounds = -(-self.length // count)
        order = torch.stack([torch.randperm(count, generator=generator) for _ in range(rounds)])  # round group
        places = torch.empty_like(order)
        for number, group in enumerate(self.groups):
            shuffles = -(-rounds // len(group))
            shuffled = [group[torch.randperm(len(group), generator=generator)] for _ in range(shuffles)]
            places[order == number] = torch.cat(shuffled)[:rounds]
        return places.flatten()[: self.length]


def group_by_class(labels: Sequence[Any]) -> list[list[int]]:
    """Return the indices of the clips of each class, for `TrainOrder`.

    Of several labels a clip it is in the group of each, and clips without any are one group; of labels by head, each
    combination that occurs is a group.

    Args:
        labels: class numbers, tuples of them, or dictionaries of them by head.

    Raises:
        ValueError: if a clip has no label, None.
    """
    unlabelled = [place for place, label in enumerate(labels) if label is None]
    if unlabelled:
        raise ValueError(
            f"{len(unlabelled)} of {len(labels)} clips have no label, such as number {unlabelled[0]}, and clips are "
            "balanced by their classes; label them, leave them out, or use sampling 'shuffled'"
        )
    groups: dict[Any, list[int]] = {}
    for place, label in enumerate(labels):
        several = label or (None,) if isinstance(label, tuple) else (label,)
        for one in several:
            groups.setdefault(tuple(one.items()) if isinstance(one, dict) else one, []).append(place)
    return [groups[key] for key in sorted(groups, key=repr)]


class TestOrder(Sampler[list[Draw]]):
    """The batches of one process in a test; over all processes each clip counts once.

    All processes get the same number of batches of the same sizes, as sharded models require. Fillers that do not count
    make up the difference.

    Args:
        length: length of the data set.
        batch_size: clips per batch of one process.
        clips: number of clips to use, spread evenly over the data set; None for all.
        process, processes: number of this process, and number of processes.
    """

    __test__ = False  # tells pytest that this is not a test

    def __init__(
        self, length: int, batch_size: int, clips: int | None = None, process: int = 0, processes: int = 1
    ) -> None:
        clips = length if clips is None else min(clips, length)
        draws = [Draw(clip * length // clips, 0) for clip in range(clips)]
        draws += [Draw(NOT_COUNTED, 0)] * (-clips % processes)
        own = draws[process::processes]
        self.batches = [own[at : at + batch_size] for at in range(0, len(own), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.batches)
