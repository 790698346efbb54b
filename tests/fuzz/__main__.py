"""Damage many inputs of every reader and count what comes of it: `python -m tests.fuzz --inputs 100000`.

An input that takes longer than ten seconds ends the program with a traceback.
"""

import argparse
import faulthandler
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from tests.fuzz import FUZZERS


def main() -> int:
    """Print a table; 1 if an exception is none of ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together (100000)")
    parser.add_argument("--seconds", type=float, default=1200, help="after which it stops (1200)")
    parser.add_argument("--first", type=int, default=0, help="first seed (0)")
    parser.add_argument("--only", nargs="+", default=list(FUZZERS), metavar="READER", help="such as mp4 (all)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    end, foreign, all_counts = time.monotonic() + options.seconds, Counter[str](), Counter[str]()
    each = -(-options.inputs // len(options.only))
    print(f"{'reader':<32}{'inputs':>8}{'results':>9}{'own errors':>12}{'others':>8}")
    for place, name in enumerate(options.only):
        counts, until = Counter[str](), time.monotonic() + (end - time.monotonic()) / (len(options.only) - place)
        with tempfile.TemporaryDirectory() as folder:
            read = FUZZERS[name].prepare(Path(folder))
            for seed in range(options.first, options.first + each):
                if time.monotonic() > until:
                    break
                faulthandler.dump_traceback_later(10, exit=True)
                try:
                    read(np.random.default_rng(seed))
                    counts["result"] += 1
                except FUZZERS[name].own:
                    counts["own error"] += 1
                except Exception as error:
                    counts["other"] += 1
                    foreign[f"{name}, seed {seed}: {type(error).__name__}: {error}"] += 1
                faulthandler.cancel_dump_traceback_later()
        print(_row(name, counts), flush=True)
        all_counts += counts
    print(_row("all", all_counts))
    print(*list(foreign)[:20], sep="\n")
    return int(bool(foreign))


def _row(name: str, counts: Counter[str]) -> str:
    return f"{name:<32}{counts.total():>8}{counts['result']:>9}{counts['own error']:>12}{counts['other']:>8}"


if __name__ == "__main__":
    sys.exit(main())
