"""How much of a study's time is in its matrix products?

    python experiments/cell.py    # about a minute of one core; writes docs/benchmarks/cell

The four variants of variants.py train as in a study, on one thread: clips are made, forward and backward pass,
clipping, optimiser, schedule, logging. Between steps, when the study evaluates, the matrix products of one step take
their turn alone: all linear layers and all attention, forward and backward, with the shapes and strides that they have
in the model. The share is the time of the products over that of a whole step, evaluations and checkpoints apart;
medians over the turns. Times are those of the CPU, which on one thread are the times on an idle machine.

Expected: at least 60 %. The rest is norms, GELU, softmax, sums, copies, making the clips and the optimiser.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from variants import settings as variants

from vivit_zoo.studies.cells import TRAINED, Setting
from vivit_zoo.system.machine import describe_machine, keep_freed_memory
from vivit_zoo.system.markdown import markdown
from vivit_zoo.system.pipes import exit_if_pipe_closes
from vivit_zoo.training import loading, loop
from vivit_zoo.training.checkpoint import read_metrics
from vivit_zoo.training.config import TrainConfig

EVERY = 2  # steps of a turn
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
Operands = list[tuple[Tensor, Tensor]]


class Products(TorchDispatchMode):
    """Records new operands with the shapes and strides of each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Operands = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func._schema.name in PRODUCTS:
            one, other = [x for x in args if isinstance(x, Tensor)][-2:]
            self.found.append((_like(one), _like(other)))
        return func(*args, **(kwargs or {}))


def _like(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride()).uniform_(-1, 1)


def products(setting: Setting) -> Operands:
    """The operands of all products of a training step; those of attention as if it was not fused."""
    config = setting.train
    model = setting.build().train()
    video = torch.zeros(config.batch_size, *config.model.input_shape)
    label = torch.zeros(config.batch_size, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), Products() as recorded:
        nn.functional.cross_entropy(model(video), label).backward()
    return recorded.found


def measure(setting: Setting, turns: int) -> dict[str, float]:
    """The milliseconds of a training step, of making its clips and of its products, and their GFLOP."""
    operands, alone, evaluate = products(setting), [], loop.evaluate

    def multiply_and_evaluate(*args: Any, **options: Any) -> Any:
        """An evaluation is outside of what a run times."""
        started = time.process_time()
        for one, other in operands:
            one @ other
        alone.append(time.process_time() - started)
        return evaluate(*args, **options)

    cpu_clock = SimpleNamespace(perf_counter=time.process_time)
    clips = setting.train.batch_size
    config = dataclasses.replace(setting.train, steps=EVERY * (turns + 1), eval_every=EVERY, eval_clips=clips)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(loop, "evaluate", multiply_and_evaluate),
        patch.object(loop, "time", cpu_clock),
        patch.object(loading, "time", cpu_clock),
    ):
        loop.train(config, Path(folder))
        looks = read_metrics(Path(folder) / "metrics.jsonl")[1:]  # the first steps of a process are slower
    return {
        "gflop": sum(2 * one.numel() * other.shape[-1] for one, other in operands) / 1e9,
        "step": 1e3 * median(clips / look["clips_per_second"] for look in looks),
        "making clips": 1e3 * median(clips / look["loader_clips_per_second"] for look in looks),
        "products": 1e3 * median(alone[1:]),
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """As Markdown."""
    columns: dict[str, list[str]] = {"variant": list(found)}
    columns["GFLOP of a step"] = [f"{one['gflop']:.2f}" for one in found.values()]
    for name in ("step", "making clips", "products"):
        columns[f"{name}, ms"] = [f"{one[name]:.1f}" for one in found.values()]
    columns["share of the products"] = [f"{one['products'] / one['step']:.0%}" for one in found.values()]
    return markdown(columns, left=("variant",))


@exit_if_pipe_closes()
def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30, help="of each variant (30)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/benchmarks/cell")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as cells do
    base: TrainConfig = dataclasses.replace(TRAINED, device="cpu")
    found = {setting.name: measure(setting, options.turns) for setting in variants(base)[:4]}
    machine = describe_machine(torch.device("cpu"))
    text = f"{table(found)}\n\n`cell.py --turns {options.turns}`, {machine}"
    options.out.mkdir(parents=True, exist_ok=True)
    results = json.dumps({"machine": machine, "milliseconds": found}, indent=1)
    (options.out / "cell.json").write_text(results + "\n", encoding="utf-8")
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
