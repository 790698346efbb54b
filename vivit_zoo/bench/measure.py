"""How fast modules are and how much memory they take: candidates side by side, taking turns in one process.

Each round times every candidate once, and beside them a large matrix product, so that whatever else the machine does
meets all alike, and what a candidate computes can be told as a share of what the machine can. Any module that maps one
batch to a tensor, or to a dictionary of tensors, is a candidate.
"""

import dataclasses
import gc
import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vivit_zoo.bench.report import DTYPES, OOM, OUT_OF_TIME, Case, Speed, draw, report, write
from vivit_zoo.flops import count_macs
from vivit_zoo.system.machine import PeakMemory, describe_machine
from vivit_zoo.system.processes import process_context

__all__ = ["Candidate", "Case", "Speed", "bench", "campaign", "compare"]

_MEASURED_SECONDS = 0.1  # at least, of one measurement: fast steps are repeated until they fill it
_LONG_SECONDS = 5  # a step that takes as long is not run to warm up: what it has to warm takes none of them


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Something to measure.

    Args:
        name: to tell it by.
        make: builds the module, such as `partial(create_model, "B/16x2")`; of importable parts, so that another process
            can call it too.
        compile: whether to run it through `torch.compile`.
    """

    name: str
    make: Callable[[], nn.Module]
    compile: bool = False


def bench(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    dtype: str = "float32",
    device: str = "cpu",
    *,
    train: bool = False,
    compile: bool = False,
    repeats: int = 10,
    seconds: float = math.inf,
) -> Speed:
    """The speed of one module; see `Candidate`, `Case` and `compare` for the arguments."""
    case = Case(shape=shape, dtype=dtype, device=device, train=train)
    (speed,) = compare([Candidate("module", make, compile)], case, repeats, seconds)
    return speed


def compare(
    candidates: Sequence[Candidate],
    case: Case,
    repeats: int = 10,
    seconds: float = math.inf,
    *,
    round_seconds: float = math.inf,
) -> list[Speed]:
    """Measure candidates on the same case; one that fails is told in its `Speed` and ends nothing.

    Args:
        candidates: with names of their own.
        case: what they are to do.
        repeats: rounds at most.
        seconds: after which nothing further is begun, but for the first round of those that are warm. On the CPU a
            candidate's first step, in a process of its own, is even stopped then; any other step or compilation that
            has begun is waited for.
        round_seconds: of these, how many the rounds may take, at least one of which is made.

    Raises:
        ValueError: if `repeats` is not positive or two candidates share a name.
    """
    if repeats < 1:
        raise ValueError(f"repeats {repeats} is not positive")
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise ValueError(f"two candidates share a name: {', '.join(names)}")
    end = time.monotonic() + seconds
    speeds = {c.name: Speed(candidate=c.name, compile=c.compile, case=case) for c in candidates}

    def note(name: str, **values: Any) -> None:
        speeds[name] = dataclasses.replace(speeds[name], **values)

    known: dict[str, float] = {}
    # Before anything is built here: the system, short of memory, would end the process that has the most.
    if torch.device(case.device).type == "cpu":
        for candidate in candidates:
            if not candidate.compile:
                first = partial(_first_step_elsewhere, candidate, case, end - time.monotonic())
                found, failure = _attempt(first)
                found = {"failure": failure} if found is None else found
                known[candidate.name] = found.pop("seconds", 0.0)
                note(candidate.name, **found)

    with _float32_products(case.dtype), _compiled_one_by_one(candidates):
        runs: dict[str, Callable[[], float]] = {}
        shared, cannot = _attempt(lambda: (case.video(), _matmul(case)))
        for candidate in candidates:
            if speeds[candidate.name].failure is not None:
                continue
            if shared is None or time.monotonic() > end:
                note(candidate.name, failure=cannot or OUT_OF_TIME)
                continue
            warm, failure = _attempt(partial(_warm_up, candidate, case, shared[0], known.get(candidate.name, 0.0)))
            if warm is None:
                note(candidate.name, failure=failure)
                _forget()
            else:
                runs[candidate.name], found = warm
                note(candidate.name, **found)
            del warm  # which would keep the last one's model
        taken: dict[str, list[float]] = {name: [] for name in runs}
        rates: list[float] = []
        end = min(end, time.monotonic() + round_seconds)
        for name in _turns(runs, repeats):
            if time.monotonic() > end and taken[name]:
                break
            # The product beside each, since what else the machine does may change within a round.
            both, failure = _attempt(partial(_one_after_the_other, shared[1], runs[name]))
            if both is None:  # for want of memory that another candidate has kept, say
                note(name, failure=failure)
                del runs[name], taken[name]
                _forget()
            else:
                rates.append(both[0])
                taken[name].append(both[1])
        runs.clear()
        del shared
        torch.compiler.reset()  # else the next shape would be compiled as one of many
        _forget()
    for name, times in taken.items():
        note(name, seconds=tuple(times), matmul=tuple(rates))
    return list(speeds.values())


def campaign(
    plan: Sequence[tuple[Case, Sequence[Candidate]]], out: Path, repeats: int = 10, seconds: float = math.inf
) -> str:
    """Measure case after case; writes speeds.json, table.md and pictures into a folder and returns the table.

    What is measured is written after each case, so that a campaign that is stopped keeps it.

    Args:
        plan: cases with their candidates, the most wanted first.
        out: the folder; made if missing.
        repeats: rounds of each case at most.
        seconds: for everything. Half of each case's equal share of what is left is for its rounds; warming up may take
            more than the other half, as it does where a device is used for the first time.

    Raises:
        ValueError: if there are no cases.
        OSError: if the folder cannot be written.
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
            "versions": _versions(),
        }
        write(speeds, about, out / "speeds.json")
        text = report(speeds, about)
        (out / "table.md").write_text(text + "\n")
    draw(speeds, out)
    return text


def _versions() -> dict[str, str]:
    found = {}
    for package in ("vivit-zoo", "torch", "einops", "transformers", "vit-pytorch"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _turns(runs: Mapping[str, Any], rounds: int) -> Iterator[str]:
    """The name of each that is still there, round after round."""
    for _ in range(rounds):
        if not runs:
            return
        yield from list(runs)


def _one_after_the_other(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    return first(), second()


def _warm_up(
    candidate: Candidate, case: Case, video: Tensor, known: float
) -> tuple[Callable[[], float], dict[str, Any]]:
    """A function that measures the seconds of a step, and what is known before: operations and, on CUDA, memory.

    `known` are the seconds that the first step took elsewhere, 0 if it was not tried.
    """
    step = _step(candidate, case, video)
    device = torch.device(case.device)
    first = known if known > _LONG_SECONDS else _timed(step, 1, device)
    if first < 1 or candidate.compile:  # a long step needs no second look
        first = _timed(step, 1, device)
    found: dict[str, Any] = {"flops": _flops(candidate, case)}
    if device.type == "cuda":
        memory = PeakMemory(device)
        step()
        found["peak_bytes"] = memory.peak_bytes()
    calls = math.ceil(_MEASURED_SECONDS / first)
    return lambda: _timed(step, calls, device), found


def _step(candidate: Candidate, case: Case, video: Tensor) -> Callable[[], None]:
    """Build a candidate; the result is one forward pass or one training step of it."""
    with torch.device(case.device):
        module = candidate.make().to(case.device, DTYPES[case.dtype])
    for parameter in module.parameters():
        # A head that starts at zero sends zeros back, on which a GPU draws less power and runs faster.
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    module.train(case.train)
    if candidate.compile:
        module.compile(dynamic=False)

    def forward() -> None:
        with torch.inference_mode():
            module(video)

    def forward_and_backward() -> None:
        out = module(video)
        heads = out.values() if isinstance(out, Mapping) else [out]
        torch.stack([head.float().square().mean() for head in heads]).sum().backward()
        module.zero_grad()

    return forward_and_backward if case.train else forward


def _timed(step: Callable[[], Any], calls: int, device: torch.device) -> float:
    """Seconds of one of several steps in a row."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        step()
    _wait(device)
    return (time.perf_counter() - start) / calls


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _matmul(case: Case) -> Callable[[], float]:
    """A function that measures the operations a second of a square matrix product, of a size that takes a while."""
    device, side, seconds = torch.device(case.device), 128, 0.0
    while seconds < _MEASURED_SECONDS / 2 and side < 8192:
        side *= 2
        a, b = (torch.randn(side, side, device=device).to(DTYPES[case.dtype]) for _ in range(2))
        multiply = partial(torch.mm, a, b)
        _timed(multiply, 1, device)
        seconds = _timed(multiply, 1, device)
    calls = math.ceil(_MEASURED_SECONDS / seconds)
    return lambda: 2 * side**3 / _timed(multiply, calls, device)


def _flops(candidate: Candidate, case: Case) -> int | None:
    try:
        return 2 * count_macs(candidate.make, case.shape) * (3 if case.train else 1)
    except (NotImplementedError, RuntimeError, TypeError):  # it has operations without shapes, or reads its data
        return None


def _first_step_elsewhere(candidate: Candidate, case: Case, seconds: float) -> dict[str, Any]:
    """`peak_bytes` and `seconds`, or `failure`, of a first step in a process of its own, since a peak never falls."""
    if seconds <= 0:
        return {"failure": OUT_OF_TIME}
    context = process_context(__name__)
    here, there = context.Pipe(duplex=False)
    arguments = (candidate, case, torch.get_num_threads(), there)
    process = context.Process(target=_first_step, args=arguments, daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(None if seconds == math.inf else seconds):
            return {"failure": OUT_OF_TIME}
        return here.recv()
    except EOFError:  # it died without a word
        process.join()
        killed = process.exitcode == -signal.SIGKILL  # as the system does when memory is short
        return {"failure": OOM if killed else f"its process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _first_step(candidate: Candidate, case: Case, threads: int, answer: Connection) -> None:
    torch.set_num_threads(threads)
    if sys.platform == "linux":  # the first to be ended when memory is short
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        step = _step(candidate, case, case.video())
        import_module("torch._dynamo")  # as checkpointing would: 80 MB that are not the step's
        memory = PeakMemory(torch.device(case.device))
        seconds = _timed(step, 1, torch.device(case.device))
        answer.send({"peak_bytes": memory.peak_bytes(), "seconds": seconds})
    except Exception as error:
        answer.send({"failure": _reason(error)})


def _attempt(work: Callable[[], Any]) -> tuple[Any, str | None]:
    """What it gives, or why it failed; the error itself would hold on to the memory of what it came from."""
    try:
        return work(), None
    except Exception as error:  # of any kind: it is the candidate's
        return None, _reason(error)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, TimeoutError):
        return OUT_OF_TIME
    # Off CUDA torch has no error class of its own for this.
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in text:
        return OOM
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _float32_products(dtype: str) -> Iterator[None]:
    """Lets CUDA multiply and convolve float32 as tf32 if that is the dtype, and exactly if not."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def _compiled_one_by_one(candidates: Sequence[Candidate]) -> Iterator[None]:
    """Lets torch.compile compile each: it gives up, without a word, where a function takes more than eight graphs."""
    if not any(candidate.compile for candidate in candidates):
        yield
        return
    settings: Any = import_module("torch._dynamo.config")  # slow, and not needed for the rest
    with settings.patch(recompile_limit=settings.recompile_limit + len(candidates)):
        yield
