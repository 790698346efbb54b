"""Damage real bytes, and count what a reader makes of the damage."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Read = Callable[[np.random.Generator], object]


class Fuzzer(NamedTuple):
    """A reader to try: `prepare` makes good files in a folder and returns what damages and reads one of them."""

    prepare: Callable[[Path], Read]
    own: tuple[type[Exception], ...]  # the errors that a user is meant to see


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one to four changes: bytes overwritten, cut out, repeated or copied, or the end cut off.

    Half of all changes lie within 512 bytes of either end, where headers and directories are.
    """
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not changed:
            break
        at = int(rng.integers(len(changed)))
        if rng.random() < 0.5:
            at = int(rng.choice([min(at, at % 512), max(0, len(changed) - 1 - at % 512)]))
        size = int(rng.integers(1, 9))
        match rng.integers(8):
            case 0:
                del changed[at : at + size]
            case 1:
                changed[at:at] = changed[at : at + size]
            case 2:
                del changed[at:]
            case 3:
                changed[at : at + size] = bytes([rng.choice([0, 255])]) * len(changed[at : at + size])
            case 4 | 5:
                elsewhere = int(rng.integers(len(changed)))
                changed[at : at + size] = changed[elsewhere : elsewhere + size]
            case _:
                changed[at : at + size] = rng.bytes(len(changed[at : at + size]))
    return bytes(changed)


def count_outcomes(fuzzer: Fuzzer, folder: Path, seeds: Iterable[int]) -> Counter[str]:
    """Read one damaged input for each seed: how many gave a result, and how many an error of our own.

    Raises:
        AssertionError: on any other exception, with the seed that repeats it.
    """
    read, outcomes = fuzzer.prepare(folder), Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in seeds:
            try:
                read(np.random.default_rng(seed))
                outcomes["result"] += 1
            except fuzzer.own:
                outcomes["own error"] += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    return outcomes
