"""Items made ahead in a thread, and batches that shrink until they fit."""

import threading

import pytest
import torch

from vivit_zoo.system.batches import compute_in_batches, prefetch


def test_one_item_is_made_ahead_and_no_more():
    made = {number: threading.Event() for number in range(5)}

    def items():
        for number, event in made.items():
            event.set()
            if number == 3:
                raise ValueError("three")
            yield number

    seen = []

    def take():
        for number in prefetch(items()):
            assert made[number + 1].wait(10)  # would never be set if it were made after this turn
            assert not any(event.is_set() for other, event in made.items() if other > number + 1)
            seen.append(number)

    with pytest.raises(ValueError, match="three"):
        take()
    assert seen == [0, 1, 2]
    assert list(prefetch([])) == []


def test_batches_are_halved_until_they_fit():
    taken, sizes = [], []

    def items():
        for number in range(11):
            taken.append(number)
            yield number

    def total(batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("too many")
        assert len(taken) - batch[-1] <= 6  # taken when they are needed
        return sum(batch)

    found = list(compute_in_batches(total, items(), 6))
    assert found == [([0, 1], 1), ([2, 3], 5), ([4, 5], 9), ([6, 7], 13), ([8, 9], 17), ([10], 10)]
    assert sizes == [6, 3, 2, 2, 2, 2, 2, 1]

    def never(batch):
        raise torch.OutOfMemoryError("none fits")

    with pytest.raises(torch.OutOfMemoryError, match="none fits"):
        list(compute_in_batches(never, range(4), 4))
    assert list(compute_in_batches(total, [], 2)) == []
