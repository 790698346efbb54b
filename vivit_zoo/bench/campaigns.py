"""Measure several cases and write the results: speeds.json, table.md and pictures."""

import math
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from vivit_zoo.bench.measure import Candidate, compare
from vivit_zoo.bench.report import Case, Speed, draw, report, write
from vivit_zoo.system.machine import describe_machine, versions

__all__ = ["campaign"]


def campaign(
    plan: Sequence[tuple[Case, Sequence[Candidate]]], out: Path, repeats: int = 10, seconds: float = math.inf
) -> str:
    """Measure one case after the other, write the results to a folder and return the table.

    The results so far are written after each case, so a campaign that is stopped keeps them.

    Args:
        plan: cases with their candidates, the most important first.
        out: folder; created if missing.
        repeats: maximum number of rounds of each case.
        seconds: time limit of the campaign. The time left is divided equally between the cases left, and half of each
            share is the limit of the case's rounds. Warming up may take longer than the other half, for example the
            first time that a device is used.

    Raises:
        ValueError: if there are no cases.
        OSError: if `out` cannot be written.
    """
    if not plan:
        raise ValueError("there is nothing to measure: the plan has no cases")
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    speeds: list[Speed] = []
    for i, (case, candidates) in enumerate(plan):
        left = max(0.0, end - time.monotonic())
        speeds += compare(candidates, case, repeats, left, round_seconds=left / (len(plan) - i) / 2)
        about = {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine(torch.device(case.device)),
            "versions": versions(("vivit-zoo", "torch", "einops", "transformers", "vit-pytorch")),
        }
        write(speeds, about, out / "speeds.json")
        text = report(speeds, about)
        (out / "table.md").write_text(text + "\n", encoding="utf-8")
    draw(speeds, out)
    return text
