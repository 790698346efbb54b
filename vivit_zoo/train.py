"""Training: `TrainConfig` and one loop that can be read on one page, on Accelerate."""

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import psutil
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset
from tqdm import tqdm

from vivit_zoo.datasets import MovingDigits
from vivit_zoo.evaluate import evaluate
from vivit_zoo.model import ViViT, ViViTConfig

__all__ = ["DATASETS", "TrainConfig", "Trained", "train"]

DATASETS = {"moving_digits": MovingDigits}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, completely.

    Args:
        model: the model's configuration.
        data: a key of `DATASETS`.
        train_clips: number of clips to train on.
        test_clips: number of clips of the final test.
        steps: number of optimiser steps.
        batch_size: clips a step.
        lr: peak learning rate of AdamW, after `warmup_steps` of linear warm-up; a cosine leads to 0 at the last step.
        weight_decay: decay of the matrices; positions, class tokens, norms and biases have none.
        warmup_steps: see `lr`; at most half of the steps.
        clip_grad: largest gradient norm; larger ones are scaled down to it.
        label_smoothing: in [0, 1).
        seed: of the initial weights, dropout and the order of the clips.
        eval_every: steps between evaluations, each of which also writes the checkpoint that a second call resumes from.
        eval_clips: how many of the test clips these look at, for speed; the final test sees all.
        workers: processes that make the clips; 0 makes them in the training process.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        precision: "auto" (bfloat16 autocast where the hardware multiplies it natively, else float32), "bf16" or "fp32".
    """

    model: ViViTConfig
    data: str = "moving_digits"
    train_clips: int = 100_000
    test_clips: int = 1_000
    steps: int = 400
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 40
    clip_grad: float = 1.0
    label_smoothing: float = 0.0
    seed: int = 0
    eval_every: int = 50
    eval_clips: int = 250
    workers: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"

    def __post_init__(self) -> None:
        if self.data not in DATASETS:
            raise ValueError(f"data {self.data!r} is unknown; choose from {', '.join(DATASETS)}")
        for name, known in {"device": ("auto", "cpu", "cuda"), "precision": ("auto", "bf16", "fp32")}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; choose from {', '.join(known)}")
        for name in ("train_clips", "test_clips", "steps", "batch_size", "eval_every", "eval_clips", "lr", "clip_grad"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is not positive")
        for name in ("weight_decay", "warmup_steps", "seed", "workers"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is negative")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing {self.label_smoothing} is not in [0, 1)")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device 'cuda' is not available here; use 'auto' or 'cpu'")

    def to_json(self) -> str:
        """All fields, the model's too."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def change_model(self, **changes: Any) -> Self:
        """A copy with some of the model's fields changed."""
        return dataclasses.replace(self, model=self.model.replace(**changes))


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model and what its training cost.

    `clips_per_second` counts training steps alone; `peak_bytes` is the most memory beyond what was in use before the
    model was built: allocated memory on CUDA, resident memory of the process elsewhere (None on Windows).
    """

    model: nn.Module
    device: torch.device
    test_loader: DataLoader
    clips_per_second: float
    peak_bytes: int | None


def train(config: TrainConfig, run_dir: Path, encoder: Callable[..., nn.Module] | None = None, bar: int = 0) -> Trained:
    """Train, or go on where an earlier call with the same arguments was stopped.

    Writes into `run_dir`: config.json, metrics.jsonl (a line each `eval_every` steps) and checkpoint.pt (replaced as a
    whole, so that it can be read at any moment).

    Args:
        config: the run.
        run_dir: folder of this run alone; made if missing.
        encoder: as for `ViViT`, an encoder of your own.
        bar: line of the terminal for the progress bar.

    Raises:
        ValueError: if `run_dir` holds a run of another configuration, or its checkpoint cannot be read.
        FloatingPointError: if the loss is no longer finite.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    _claim(run_dir / "config.json", config)
    cpu = config.device == "cpu"
    accelerator = Accelerator(cpu=cpu, mixed_precision="bf16" if _use_bf16(config.precision, cpu) else "no")
    set_seed(config.seed)
    memory = _PeakMemory(accelerator.device)

    model = ViViT(config.model, encoder)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=config.lr, weight_decay=config.weight_decay)
    dataset = DATASETS[config.data]
    test_set = dataset("test", config.test_clips)
    eval_loader = _loader(Subset(test_set, range(min(config.eval_clips, config.test_clips))), config)

    checkpoint_file = run_dir / "checkpoint.pt"
    done, seconds = 0, 0.0
    if checkpoint_file.exists():
        checkpoint = _read_checkpoint(checkpoint_file)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        torch.set_rng_state(checkpoint["rng"])
        torch.cuda.set_rng_state_all(checkpoint["cuda_rng"][: torch.cuda.device_count()])
        done, seconds, memory.floor = checkpoint["step"], checkpoint["seconds"], checkpoint["peak_bytes"]
    metrics = _Metrics(run_dir / "metrics.jsonl", keep_until=done)

    train_set = dataset("train", config.train_clips)
    order = ShuffledForever(len(train_set), config.seed, start=done * config.batch_size)
    train_loader = _loader(train_set, config, order)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)

    steps = tqdm(
        zip(range(done, config.steps), train_loader, strict=False),
        desc=run_dir.name,
        initial=done,
        total=config.steps,
        position=bar,
        leave=False,
        unit="step",
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 10,  # a log file wants few lines
    )
    losses: list[Tensor] = []
    model.train()
    started = time.perf_counter()
    for step, (video, label) in steps:
        lr = config.lr * warmup_cosine(step, min(config.warmup_steps, config.steps // 2), config.steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with accelerator.autocast():
            loss = F.cross_entropy(model(video), label, label_smoothing=config.label_smoothing)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), config.clip_grad)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())

        if (step + 1) % config.eval_every == 0 or step + 1 == config.steps:
            mean_loss = torch.stack(losses).mean().item()  # waits for the device, so before the clock is read
            seconds += time.perf_counter() - started
            if not math.isfinite(mean_loss):
                raise FloatingPointError(f"the loss is {mean_loss} after step {step + 1}; a smaller lr may help")
            accuracy = evaluate(model.eval(), eval_loader, accelerator.device).accuracy()
            metrics.write(step=step + 1, loss=mean_loss, lr=lr, accuracy=accuracy)
            checkpoint = {
                "step": step + 1,
                "seconds": seconds,
                "peak_bytes": memory.peak_bytes(),
                "model": accelerator.unwrap_model(model).state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all(),
            }
            write_whole(checkpoint_file, partial(torch.save, checkpoint))
            steps.set_postfix(loss=f"{mean_loss:.3f}", accuracy=f"{accuracy:.1%}")
            losses.clear()
            model.train()
            started = time.perf_counter()

    return Trained(
        model=model.eval(),
        device=accelerator.device,
        test_loader=_loader(test_set, config),
        clips_per_second=config.steps * config.batch_size / seconds,
        peak_bytes=memory.peak_bytes(),
    )


def warmup_cosine(step: int, warmup_steps: int, steps: int) -> float:
    """Share of the peak learning rate at a step: a linear rise over the warm-up, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))


class ShuffledForever(Sampler[int]):
    """Every index once an epoch, epoch after epoch, in an order that follows from the seed; starts anywhere."""

    def __init__(self, length: int, seed: int, start: int = 0) -> None:
        self.length, self.seed, self.start = length, seed, start

    def __iter__(self) -> Iterator[int]:
        epoch, offset = divmod(self.start, self.length)
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            yield from torch.randperm(self.length, generator=generator)[offset:].tolist()
            epoch, offset = epoch + 1, 0


def _loader(dataset: Dataset, config: TrainConfig, order: Sampler[int] | None = None) -> DataLoader:
    # A generator of its own: a loader that starts draws a seed, from the global state by default, and would so change
    # the dropout of a resumed run.
    own = torch.Generator()
    # Cells run in processes of a fork server, which would start the workers anew, with all imports; a fork has them.
    context = "fork" if config.workers and sys.platform == "linux" else None
    return DataLoader(
        dataset,
        config.batch_size,
        sampler=order,
        num_workers=config.workers,
        generator=own,
        multiprocessing_context=context,
        persistent_workers=config.workers > 0,
    )


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Replace a file as a whole: a reader, or a run killed meanwhile, sees the old content or the new, never a part."""
    part = file.with_name(file.name + ".part")
    write(part)
    os.replace(part, file)


def cpu_capabilities() -> Mapping[str, Any]:
    """What torch knows of this CPU, such as "cpu_name" and "amx_bf16"; nothing before torch 2.13."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def _claim(file: Path, config: TrainConfig) -> None:
    """Write the configuration, unless another one stands there; `workers` may differ, it changes no result."""
    mine = json.loads(config.to_json()) | {"workers": None}
    if file.exists() and json.loads(file.read_text()) | {"workers": None} != mine:
        raise ValueError(f"{file} is of a run with another configuration; choose another folder, or delete this one")
    write_whole(file, lambda part: part.write_text(config.to_json()))


def _read_checkpoint(file: Path) -> dict[str, Any]:
    try:
        return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a broken file, some without its name
        raise ValueError(f"{file} cannot be read ({error}); delete it to start this run anew") from error


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; one that was cut short, which can only be the last, is left out."""
    lines = file.read_text().splitlines() if file.exists() else []
    found = []
    for line in lines:
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def _use_bf16(precision: str, cpu: bool) -> bool:
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available() and not cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without AMX a CPU emulates bfloat16, up to several hundred times slower than float32.
    return bool(cpu_capabilities().get("amx_bf16", False))


class _Metrics:
    """Lines of JSON in a file; those past the step that training resumes from are dropped."""

    def __init__(self, file: Path, keep_until: int) -> None:
        self.file = file
        kept = [json.dumps(line) + "\n" for line in read_metrics(file) if line["step"] <= keep_until]
        write_whole(file, lambda part: part.write_text("".join(kept)))

    def write(self, **values: Any) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(values) + "\n")


class _PeakMemory:
    """The most memory since its making beyond what was in use then, and at least `floor`, what it was before a resume.

    Off CUDA a process has one peak for its whole life, so that a run needs a process of its own.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.floor: int | None = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        else:
            self.before = psutil.Process().memory_info().rss

    def peak_bytes(self) -> int | None:
        if self.floor is None or sys.platform == "win32":
            return None
        if self.device.type == "cuda":
            return max(self.floor, torch.cuda.max_memory_allocated(self.device) - self.before)
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
        return max(self.floor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - self.before)
