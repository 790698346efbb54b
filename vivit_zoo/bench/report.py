"""Results of speed measurements: numbers, tables, files and pictures."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from vivit_zoo.system.markdown import markdown
from vivit_zoo.training.checkpoint import write_whole

__all__ = ["DTYPES", "OOM", "OUT_OF_TIME", "Case", "Speed", "draw", "read", "report", "table", "write"]

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,  # in products, CUDA may round float32 to 10 bits
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

OOM = "OOM"
OUT_OF_TIME = "out of time"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What every candidate computes.

    Args:
        shape: shape of the input, batch first, such as (1, 3, 32, 224, 224).
        dtype: a key of `DTYPES`, for weights, input and activations.
        device: such as "cpu" or "cuda".
        train: whether to measure a training step (forward and backward, without the optimiser) or a forward pass.

    Raises:
        ValueError: if the dtype is unknown or the device does not support it.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    device: str = "cpu"
    train: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is unknown; choose from {', '.join(DTYPES)}")
        if self.dtype == "tf32" and torch.device(self.device).type != "cuda":
            raise ValueError(f"dtype 'tf32' is for CUDA devices; on {self.device} use float32")

    def video(self) -> Tensor:
        """Return a batch of uniform noise in [-1, 1]."""
        return (torch.rand(self.shape, device=self.device) * 2 - 1).to(DTYPES[self.dtype])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """Time and memory of a candidate on a case, or the reason why there are none.

    Args:
        candidate, compile, case: what was measured.
        seconds: time of one step in each round; empty after a failure.
        matmul: floating-point operations per second of a large matrix product, measured beside each step of each
            candidate.
        flops: floating-point operations in the matrix products of one step, two per multiply-accumulate. A backward
            pass counts as two forward passes; recomputation by checkpointing is not counted. None if the module does
            not run on the meta device.
        peak_bytes: peak memory of a step beyond the module and its input, with gradients: allocated memory on CUDA,
            resident memory of a new process on the CPU. Of a compiled module on the CPU: of the first call, with the
            compiler's memory. None on other devices.
        failure: `OOM`, `OUT_OF_TIME`, or the error message; None if there was no failure.
        first_seconds: time of the first call of a compiled module, with compilation; None for others.
    """

    candidate: str
    compile: bool
    case: Case
    seconds: tuple[float, ...] = ()
    matmul: tuple[float, ...] = ()
    flops: int | None = None
    peak_bytes: int | None = None
    failure: str | None = None
    first_seconds: float | None = None

    @property
    def best(self) -> float:
        """Time of the fastest step in seconds."""
        return min(self.seconds, default=math.nan)

    @property
    def median(self) -> float:
        """Median time of a step in seconds."""
        return median(self.seconds) if self.seconds else math.nan

    @property
    def clips_per_second(self) -> float:
        """Clips per second in the fastest step."""
        return self.case.shape[0] / self.best

    @property
    def flops_per_second(self) -> float:
        """Floating-point operations per second in the fastest step."""
        return math.nan if self.flops is None else self.flops / self.best

    @property
    def share(self) -> float:
        """Share of the best rate of matrix products in the same rounds, in [0, 1] up to noise."""
        return self.flops_per_second / max(self.matmul, default=math.nan)


def table(speeds: Sequence[Speed]) -> str:
    """Format a Markdown table with a row per speed; common values go above it, errors below it."""
    varying = {"step": _step, "dtype": _dtype, "batch": _batch, "clip": _clip}
    shared = {title: {of(speed) for speed in speeds} for title, of in varying.items()}
    common = [f"{title} {values.pop()}" for title, values in shared.items() if len(values) == 1]
    columns = {title: of for title, of in varying.items() if shared[title]}
    header = [*columns, "candidate", "clips/s", "ms, best", "ms, median", "GFLOP/s", "of matrix product", "peak MB"]
    compiled = any(speed.first_seconds is not None for speed in speeds)
    header += ["first call, s"] if compiled else []
    rows, notes = [], []
    for speed in speeds:
        failure = speed.failure
        if failure not in (None, OOM, OUT_OF_TIME):
            notes.append(f"{speed.candidate}: {failure}")
            failure = f"failed ({len(notes)})"
        peak = None if speed.peak_bytes is None else f"{speed.peak_bytes / 1e6:,.0f}"
        numbers = [
            _digits(speed.clips_per_second),
            _digits(1e3 * speed.best),
            _digits(1e3 * speed.median),
            _digits(speed.flops_per_second / 1e9),
            f"{speed.share:.0%}" if speed.flops is not None else "",
            peak or "",
            *(["" if speed.first_seconds is None else _digits(speed.first_seconds)] if compiled else []),
        ]
        named = [*(of(speed) for of in columns.values()), speed.candidate]
        if not speed.seconds:
            numbers[:5] = [failure or "", *[""] * 4]
        rows.append([*named, *numbers])
    text = markdown({title: [row[i] for row in rows] for i, title in enumerate(header)}, left=[*columns, "candidate"])
    above = [", ".join(common), ""] if common else []
    below = ["", *(f"({i}) {note}" for i, note in enumerate(notes, 1))] if notes else []
    return "\n".join([*above, text, *below])


def write(speeds: Sequence[Speed], about: Mapping[str, Any], file: Path) -> None:
    """Write a JSON file with `about`, such as machine and versions, and every speed with all its rounds."""
    found = []
    for speed in speeds:
        derived = {
            name: getattr(speed, name) for name in ("best", "median", "clips_per_second", "flops_per_second", "share")
        }
        known = {name: value for name, value in derived.items() if not math.isnan(value)}  # JSON has no nan
        found.append(dataclasses.asdict(speed) | known)
    text = json.dumps({**about, "speeds": found}, indent=1)
    write_whole(file, lambda part: part.write_text(text + "\n", encoding="utf-8"))


def read(file: Path) -> tuple[list[Speed], dict[str, Any]]:
    """Read a file of `write`; return its speeds and `about`."""
    about = json.loads(file.read_text(encoding="utf-8"))
    names = {field.name for field in dataclasses.fields(Speed)}
    speeds = []
    for found in about.pop("speeds"):
        case = Case(**found["case"] | {"shape": tuple(found["case"]["shape"])})
        rounds = {name: tuple(found[name]) for name in ("seconds", "matmul")}
        speeds.append(Speed(**{name: found[name] for name in names & found.keys()} | rounds | {"case": case}))
    return speeds, about


def report(speeds: Sequence[Speed], about: Mapping[str, Any]) -> str:
    """Format the table with the command and the machine below it."""
    return f"{table(speeds)}\n\n`{about['command']}`, {about['machine']}"


def draw(speeds: Sequence[Speed], folder: Path) -> list[Path]:
    """Draw time per clip and peak memory, a line for each candidate; return the files.

    There is a picture `folder`/{step}-{dtype}-{axis}.png for each kind of step, each dtype, and each axis of frames,
    side and batch that varies while the others are fixed. If none varies, `folder`/{step}-{dtype}.png has bars.
    """
    from vivit_zoo import plots

    groups: dict[tuple[str, str], list[Speed]] = {}
    for speed in speeds:
        groups.setdefault((_step(speed), _dtype(speed)), []).append(speed)
    files = []
    for (step, dtype), group in groups.items():
        drawn = False
        for axis, label in {"frames": "frames a clip", "side": "side of a frame, pixels", "batch": "clips"}.items():
            series: dict[tuple[int, ...], list[tuple[int, Speed]]] = {}
            for speed in group:
                size, rest = _along(axis, speed.case.shape)
                series.setdefault(rest, []).append((size, speed))
            longest = max(series.values(), key=lambda points: len({size for size, _ in points}))
            if len({size for size, _ in longest}) > 1:
                files.append(folder / f"{step}-{dtype}-{axis}.png")
                plots.speeds(_lines(longest), label, files[-1])
                drawn = True
        if not drawn:
            files.append(folder / f"{step}-{dtype}.png")
            plots.speeds(_lines([(1, speed) for speed in group]), "", files[-1])
    return files


def _along(axis: str, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Return the size along an axis, and the other sizes."""
    if axis == "batch" or len(shape) != 5:
        return (shape[0], shape[1:]) if axis == "batch" else (0, shape)
    b, c, t, h, w = shape
    return (t, (b, c, h, w)) if axis == "frames" else (h, (b, c, t, w - h))


def _lines(points: Sequence[tuple[int, Speed]]) -> dict[str, list[tuple[float, float, float]]]:
    """Return candidate -> [(size, seconds per clip, bytes)], nan if unknown; of two speeds of a size the faster."""
    lines: dict[str, dict[int, tuple[float, float, float]]] = {}
    for size, speed in sorted(points, key=lambda point: -point[1].best if point[1].seconds else -math.inf):
        peak = math.nan if speed.peak_bytes is None else speed.peak_bytes
        lines.setdefault(speed.candidate, {})[size] = (size, 1 / speed.clips_per_second, peak)
    order = dict.fromkeys(speed.candidate for _, speed in points)
    return {name: [lines[name][size] for size in sorted(lines[name])] for name in order}


def _digits(value: float) -> str:
    """Format with at least four digits and no exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _step(speed: Speed) -> str:
    return "train" if speed.case.train else "forward"


def _dtype(speed: Speed) -> str:
    return speed.case.dtype


def _batch(speed: Speed) -> str:
    return str(speed.case.shape[0])


def _clip(speed: Speed) -> str:
    return "x".join(map(str, speed.case.shape[1:]))
