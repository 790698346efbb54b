"""Measure speed and memory of modules that take turns in one process.

Each round times every candidate once, with a large matrix product beside each. So other load on the machine affects all
candidates alike, and each speed can be given as a share of the machine's speed in matrix products. A candidate is any
module that maps one batch to a tensor or to a dictionary of tensors.
"""

import dataclasses
import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vivit_zoo.bench.report import DTYPES, OOM, OUT_OF_TIME, Case, Speed
from vivit_zoo.flops import count_macs
from vivit_zoo.inference import optimize_for_inference
from vivit_zoo.system.machine import PeakMemory
from vivit_zoo.system.processes import process_context

__all__ = ["Candidate", "Case", "Speed", "bench", "compare"]

_MEASURED_SECONDS = 0.1  # shortest measurement: fast steps are repeated until they take as long
_LONG_SECONDS = 5  # steps that take longer run without a warm-up, whose effect would be small


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A module to measure.

    Args:
        name: unique within a comparison.
        make: builds the module, such as `partial(create_model, "B/16x2")`. It must be picklable, because another
            process calls it too.
        compile: whether to use `torch.compile`; or its `mode`, such as "reduce-overhead" for CUDA graphs; or its
            `options`, such as {"freezing": True}.
        optimize: whether to apply `vivit_zoo.optimize_for_inference` in forward passes.
    """

    name: str
    make: Callable[[], nn.Module]
    compile: bool | str | Mapping[str, Any] = False
    optimize: bool = False


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
    """Measure one module. The arguments are those of `Candidate`, `Case` and `compare`."""
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
    """Measure candidates on the same case. The `Speed` of a candidate that fails says why; the others continue.

    Args:
        candidates: with unique names.
        case: what to compute.
        repeats: maximum number of rounds.
        seconds: time limit. After it, no new candidate and no new round is started, except the first round of
            candidates that have been warmed up. On the CPU the limit also stops a candidate's first step, which runs in
            a new process. A step or compilation that has started in this process is never stopped.
        round_seconds: time limit of the rounds. At least one round is made.

    Raises:
        ValueError: if `repeats` is not positive or two candidates share a name.
    """
    if repeats < 1:
        raise ValueError(f"repeats {repeats} is not positive")
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise ValueError(f"two candidates share a name: {', '.join(names)}")
    end = time.monotonic() + seconds
    speeds = {c.name: Speed(candidate=c.name, compile=bool(c.compile), case=case) for c in candidates}

    def note(name: str, **values: Any) -> None:
        speeds[name] = dataclasses.replace(speeds[name], **values)

    known: dict[str, float] = {}
    # Before any model is built in this process: if memory runs out, the system kills the process that uses the most.
    if torch.device(case.device).type == "cpu":
        for candidate in candidates:
            if not candidate.compile:
                first = partial(_first_step_in_new_process, candidate, case, end - time.monotonic())
                found, failure = _try(first)
                found = {"failure": failure} if found is None else found
                known[candidate.name] = found.pop("seconds", 0.0)
                note(candidate.name, **found)

    with _float32_products(case.dtype), _compiled_one_by_one(candidates):
        runs: dict[str, Callable[[], float]] = {}
        shared, cannot = _try(lambda: (case.video(), _matmul(case)))
        for candidate in candidates:
            if speeds[candidate.name].failure is not None:
                continue
            if shared is None or time.monotonic() > end:
                note(candidate.name, failure=cannot or OUT_OF_TIME)
                continue
            warm, failure = _try(partial(_warm_up, candidate, case, shared[0], known.get(candidate.name, 0.0)))
            if warm is None:
                note(candidate.name, failure=failure)
                _free_memory()
            else:
                runs[candidate.name], found = warm
                note(candidate.name, **found)
            del warm  # it holds the model
        taken: dict[str, list[float]] = {name: [] for name in runs}
        rates: list[float] = []
        end = min(end, time.monotonic() + round_seconds)
        for name in _turns(runs, repeats):
            if time.monotonic() > end and taken[name]:
                break
            # A matrix product beside each, because the load on the machine may change within a round.
            both, failure = _try(partial(_run_both, shared[1], runs[name]))
            if both is None:  # for example, out of memory
                note(name, failure=failure)
                del runs[name], taken[name]
                _free_memory()
            else:
                rates.append(both[0])
                taken[name].append(both[1])
        runs.clear()
        del shared
        torch.compiler.reset()  # so that the next shape is not compiled as a dynamic one
        _free_memory()
    for name, times in taken.items():
        note(name, seconds=tuple(times), matmul=tuple(rates))
    return list(speeds.values())


def _turns(runs: Mapping[str, Any], rounds: int) -> Iterator[str]:
    """Yield the names in `runs`, which may shrink, round after round."""
    for _ in range(rounds):
        if not runs:
            return
        yield from list(runs)


def _run_both(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    return first(), second()


def _warm_up(
    candidate: Candidate, case: Case, video: Tensor, known: float
) -> tuple[Callable[[], float], dict[str, Any]]:
    """Run the first steps; return a function that measures the seconds of a step, and the values known so far.

    `known` is the time of the first step in another process in seconds, 0 if there was none.
    """
    device = torch.device(case.device)
    step = _step(candidate, case, video)
    memory = PeakMemory(device)
    first = known if known > _LONG_SECONDS else _timed(step, 1, device)
    found: dict[str, Any] = {"flops": _flops(candidate, case)}
    if candidate.compile:
        found |= {"first_seconds": first, "peak_bytes": memory.peak_bytes()}
    if first < 1 or candidate.compile:  # the first step of others is no slower than the second
        first = _timed(step, 1, device)
    if device.type == "cuda":
        memory = PeakMemory(device)
        step()
        found["peak_bytes"] = memory.peak_bytes()
    calls = math.ceil(_MEASURED_SECONDS / first)
    return lambda: _timed(step, calls, device), found


def _step(candidate: Candidate, case: Case, video: Tensor) -> Callable[[], None]:
    """Build a candidate and return a function that makes one forward pass or training step."""
    with torch.device(case.device):
        module = candidate.make().to(case.device, DTYPES[case.dtype])
    for parameter in module.parameters():
        # The gradients behind a head of zeros are zero, and GPUs run faster on zeros.
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    module.train(case.train)
    if candidate.optimize and not case.train:
        optimize_for_inference(module)
    if candidate.compile:
        how = {"mode" if isinstance(candidate.compile, str) else "options": candidate.compile}
        module.compile(dynamic=False, **({} if candidate.compile is True else how))

    def forward() -> None:
        with torch.inference_mode():
            module(video)

    def forward_and_backward() -> None:
        out = module(video)
        heads = out.values() if isinstance(out, Mapping) else [out]
        torch.stack([head.float().square().mean() for head in heads]).sum().backward()
        module.zero_grad()

    step = forward_and_backward if case.train else forward

    def step_with_graphs() -> None:
        torch.compiler.cudagraph_mark_step_begin()  # the outputs of the step before may be overwritten
        step()

    return step_with_graphs if isinstance(candidate.compile, str) else step


def _timed(step: Callable[[], Any], calls: int, device: torch.device) -> float:
    """Mean seconds of several steps in a row."""
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
    """Return a function that measures the operations per second of a large square matrix product."""
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
    except (NotImplementedError, RuntimeError, TypeError):  # an operation fails on the meta device
        return None


def _first_step_in_new_process(candidate: Candidate, case: Case, seconds: float) -> dict[str, Any]:
    """Return `peak_bytes` and `seconds`, or `failure`, of a first step in a new process, for its peak memory."""
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
    except EOFError:  # the process ended without an answer
        process.join()
        killed = process.exitcode == -9  # SIGKILL, which Windows has not: by the system, when memory runs out
        return {"failure": OOM if killed else f"its process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _first_step(candidate: Candidate, case: Case, threads: int, answer: Connection) -> None:
    torch.set_num_threads(threads)
    if sys.platform == "linux":  # the first process that the system kills when memory runs out
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    try:
        step = _step(candidate, case, case.video())
        import_module("torch._dynamo")  # otherwise checkpointing imports it: 80 MB that are not the step's
        memory = PeakMemory(torch.device(case.device))
        seconds = _timed(step, 1, torch.device(case.device))
        answer.send({"peak_bytes": memory.peak_bytes(), "seconds": seconds})
    except Exception as error:
        answer.send({"failure": _reason(error)})


def _try(work: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return the result, or None and the reason of a failure; keeping the exception would keep its memory."""
    try:
        return work(), None
    except Exception as error:  # candidates may raise anything
        return None, _reason(error)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, TimeoutError):
        return OUT_OF_TIME
    # Only on CUDA does torch have an exception class for this.
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in text:
        return OOM
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _float32_products(dtype: str) -> Iterator[None]:
    """Use tf32 on CUDA for products and convolutions of float32 if that is the dtype, and only then."""
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
    """Raise torch.compile's limit of eight graphs per function, above which it runs the function uncompiled."""
    if not any(candidate.compile for candidate in candidates):
        yield
        return
    settings: Any = import_module("torch._dynamo.config")  # a slow import that nothing else needs
    with settings.patch(recompile_limit=settings.recompile_limit + len(candidates)):
        yield
