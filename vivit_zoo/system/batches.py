"""Items made in a thread ahead of their use, and computed in batches that fit the memory."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

__all__ = ["compute_in_batches", "prefetch"]

Item = TypeVar("Item")
Output = TypeVar("Output")


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items; while the caller works on one, a thread makes the next.

    At most two items are in memory, that of the caller and the next. An error of `items` is raised where its item would
    be.
    """
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, iterator, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, iterator, end)
            yield item  # type: ignore[misc]


def compute_in_batches(
    compute: Callable[[list[Item]], Output], items: Iterable[Item], size: int
) -> Iterator[tuple[list[Item], Output]]:
    """Call a function on batches of the items; halve the batches, again and again, where they do not fit a GPU.

    Args:
        compute: called with at least one item. It may raise `torch.OutOfMemoryError`.
        items: are taken when they are needed, `size` at a time.
        size: number of items in a batch.

    Yields:
        The items of a batch, and what `compute` returned for them.

    Raises:
        torch.OutOfMemoryError: if a single item does not fit.
    """
    iterator = iter(items)
    waiting: list[Item] = []
    while waiting := waiting or list(islice(iterator, size)):
        batch = waiting[:size]
        try:
            output = compute(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            size = (len(batch) + 1) // 2
            continue
        waiting = waiting[len(batch) :]
        yield batch, output
