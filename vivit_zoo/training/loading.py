"""Load batches from a data set: random state, broken files, speed.

The content of a batch depends on (seed, step) only, not on the number of workers, and the batches of all processes of a
distributed run together are those of one process. So a run can be stopped and resumed at any step, bit for bit.
"""

import atexit
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from tqdm import tqdm

from vivit_zoo.system.processes import process_context
from vivit_zoo.training.order import NOT_COUNTED, Draw, TestOrder
from vivit_zoo.video.preprocess import normalise
from vivit_zoo.video.reader import VideoError

__all__ = ["Batch", "BrokenFiles", "Feed", "loader"]

TRIES = 20


class Batch(NamedTuple):
    """A batch of clips.

    video: (b, c, t, h, w) or views (b, v, c, t, h, w); uint8 in [0, 255] or floating-point in [-1, 1].
    label: (b,), or a dictionary of such by head; (b, classes) or (b, targets) for several labels or scores.
    places: (b,) indices of the clips in the data set; `NOT_COUNTED` for fillers and for clips that replace a broken
        file in a test; empty if no clip could be read.
    broken: index and message of each file that could not be read.
    seconds: time to make the batch, in one process.
    mask: (b, t), or (b, v, t) of views, True for frames that are there; None for all.
    """

    video: Tensor
    label: Any
    places: Tensor
    broken: tuple[tuple[int, str], ...]
    seconds: float
    mask: Tensor | None = None


class _Guarded(Dataset[Batch]):
    """Makes whole batches of a data set: seeds each item, replaces and reports broken files, takes the time."""

    def __init__(self, dataset: Any, seed: int, testing: bool) -> None:
        self.dataset, self.seed, self.testing = dataset, seed, testing

    def __getitems__(self, draws: list[Draw]) -> Batch:
        started = time.perf_counter()
        broken: list[tuple[int, str]] = []
        if hasattr(self.dataset, "__getitems__"):
            places = [draw.place for draw in draws]
            items = self.dataset.__getitems__([max(place, 0) for place in places])
        else:
            try:
                found = [item for same in _same_clips(draws) for item in self._items(same, broken)]
            except VideoError:  # `Feed` raises it; from a worker process it would have a traceback
                return Batch(torch.empty(0), None, torch.empty(0), tuple(broken), time.perf_counter() - started)
            items, places = [item for item, _ in found], [place for _, place in found]
        video, label, *mask = default_collate(items)
        return Batch(video, label, torch.tensor(places), tuple(broken), time.perf_counter() - started, *mask)

    def _items(self, draws: list[Draw], broken: list[tuple[int, str]]) -> list[tuple[Any, int]]:
        """Return `_item` of each; a data set with `copies` reads the video once."""
        if len(draws) > 1 and hasattr(self.dataset, "copies") and not self.testing:
            place = draws[0].place
            with suppress(VideoError), torch.random.fork_rng(devices=[]):  # `_item` reports the error
                return [(item, place) for item in self.dataset.copies(place, [self._key(draw) for draw in draws])]
        return [self._item(draw, broken) for draw in draws]

    def _key(self, draw: Draw) -> int:
        """Return the seed of the random values of an item."""
        numbers = [self.seed, draw.epoch, max(draw.place, 0), *([draw.repeat] if draw.repeat else [])]
        return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1

    def _item(self, draw: Draw, broken: list[tuple[int, str]]) -> tuple[Any, int]:
        """Return the item, or another item if it is broken, and the index that it counts for."""
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would also initialise CUDA in a worker process.
            torch.default_generator.manual_seed(self._key(draw))
            place, counts = max(draw.place, 0), draw.place >= 0
            for _ in range(TRIES):
                try:
                    return self.dataset[place], place if counts else NOT_COUNTED
                except VideoError as error:
                    broken.append((place, str(error)))
                    place, counts = int(torch.randint(len(self.dataset), ())), counts and not self.testing
        raise VideoError(broken[-1][1])


def _same_clips(draws: list[Draw]) -> Iterator[list[Draw]]:
    """The draws in order, those of one clip that follow each other together."""
    for _, same in groupby(draws, key=lambda draw: draw.place):
        yield list(same)


def loader(dataset: Any, order: Sampler[list[Draw]], seed: int, workers: int = 0) -> DataLoader:
    """Make a `DataLoader` of `Batch` for a data set in an order.

    Broken files (`VideoError`) are reported in their batch. In training another clip replaces a broken file; in a test
    (`TestOrder`) the replacement does not count. torch's global random generator is seeded for each item.

    Args:
        dataset: items (video, label) or (video, label, mask) by index. If it has `__getitems__`, whole batches are
            loaded with it, and its items may be neither random nor broken. If it has `copies(index, seeds)`, items of
            one clip that follow each other are loaded with it.
        order: order of the items.
        seed: seed of random values in an item, used with its epoch and index.
        workers: number of worker processes; 0 loads in this process.
    """
    if workers:
        atexit.unregister(_end_workers)
        atexit.register(_end_workers)
    return DataLoader(
        _Guarded(dataset, seed, testing=isinstance(order, TestOrder)),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        # By default a loader draws a seed from the global state, which would change the dropout of a resumed run.
        generator=torch.Generator(),
        multiprocessing_context=process_context(__name__, "vivit_zoo.datasets") if workers else None,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    """Ignore signals, which terminals and SLURM send to all processes; workers end with their training process."""
    for name in {"SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"} & set(dir(signal)):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Exit when the training process ends; torch watches only the server that forked this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end_workers() -> None:
    """Kill the workers at exit; multiprocessing would send SIGTERM, which they ignore, and wait forever."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


class Feed:
    """Iterates over batches on the device, normalised to [-1, 1], and measures the loading speed."""

    def __init__(
        self, batches: Iterable[Batch], device: torch.device | str, broken: "BrokenFiles | None" = None
    ) -> None:
        self.batches, self.device, self.broken = batches, device, broken
        self.clips, self.waited, self.making = 0, 0.0, 0.0

    def pace(self, seconds: float, workers: int, processes: int = 1) -> dict[str, float]:
        """Return the clips per second since the last call, and those of loading alone and of the model alone.

        Args:
            seconds: time since the last call.
            workers: workers of the loader; 0 if batches are made in this process.
            processes: number of training processes, assumed to be equally fast.
        """
        clips, waited, making = processes * self.clips, self.waited, self.making
        self.clips, self.waited, self.making = 0, 0.0, 0.0
        return {
            "clips_per_second": clips / seconds,
            "loader_clips_per_second": max(1, workers) * clips / max(making, 1e-9),
            "model_clips_per_second": clips / max(seconds - waited, 1e-9),
        }

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.batches)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            self.clips += len(batch.places)
            self.making += batch.seconds
            if self.broken is not None:
                self.broken.add(batch.broken)
            if not len(batch.places):
                raise VideoError(f"{TRIES} videos in a row cannot be read, the last: {batch.broken[-1][1]}")
            yield batch._replace(
                video=normalise(batch.video.to(self.device, non_blocking=True)),
                label=_to(batch.label, self.device),
                mask=None if batch.mask is None else _to(batch.mask, self.device),
            )


def _to(label: Any, device: torch.device | str) -> Any:
    if isinstance(label, dict):
        return {head: _to(one, device) for head, one in label.items()}
    return label.to(device, non_blocking=True)


class BrokenFiles:
    """Records the files that a run could not read, and stops the run if there are too many.

    Args:
        length: length of the data set.
        most: share in [0, 1] of files that may be broken.
        file: file to which each broken file is appended as a line of JSON; also printed to stderr.
    """

    def __init__(self, length: int, most: float, file: Path) -> None:
        self.length, self.most, self.file = length, most, file
        self.found: dict[int, str] = {}

    def add(self, broken: Iterable[tuple[int, str]]) -> None:
        """Record broken files.

        Raises:
            VideoError: if there are more than allowed.
        """
        for place, message in broken:
            if place not in self.found:
                tqdm.write(f"skipped: {message}", file=sys.stderr)
                self.found[place] = message
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"place": place, "error": message}) + "\n")
        if len(self.found) > self.most * self.length:
            listed = "".join(f"\n  {message}" for message in islice(self.found.values(), 5))
            raise VideoError(
                f"{len(self.found)} of {self.length} videos cannot be read, more than the {self.most:.1%} that may be "
                f"broken (max_broken):{listed}\n`vivit-zoo check-data` finds all of them"
            )
