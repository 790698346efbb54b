"""Training: `TrainConfig` and one loop that can be read on one page, on Accelerate.

The same call runs in one process, under `torchrun` or `accelerate launch` with a copy of the model on each device, and
with the model sharded over them (`shard`): the steps are the same, up to rounding.
"""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from tqdm import tqdm

from vivit_zoo.config import ViViTConfig
from vivit_zoo.datasets import DataConfig, DataSets
from vivit_zoo.evaluation.evaluate import evaluate
from vivit_zoo.evaluation.scores import Scores
from vivit_zoo.model import ViViT
from vivit_zoo.system.machine import PeakMemory, use_bf16
from vivit_zoo.system.signals import StopSignals
from vivit_zoo.training.checkpoint import Checkpoints, Metrics, claim_folder, flatten, write_whole
from vivit_zoo.training.distributed import (
    anyone,
    distribute,
    get_random,
    get_weights,
    set_random,
    set_weights,
    sync_gradients,
)
from vivit_zoo.training.loading import BrokenFiles, Feed, TestOrder, TrainOrder, loader
from vivit_zoo.training.losses import cross_entropy, mixup, one_hot
from vivit_zoo.training.optim import WeightAverage, warmup_cosine
from vivit_zoo.training.trackers import start_trackers
from vivit_zoo.weights import LoadReport, init_from_image
from vivit_zoo.weights.resize import Tubelet
from vivit_zoo.weights.start import PixelRule, Positions, Temporal

__all__ = ["Start", "TrainConfig", "Trained", "train"]

STOP_EVERY = 10  # steps between which several processes agree on whether to stop

Change = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What the weights start from.

    Args:
        source: "" for random weights; else whatever `vivit_zoo.init_from_image` takes as a string: timm's name of an
            image model ("vit_base_patch16_224.augreg_in21k"), a "local-dir:" folder, an original JAX checkpoint; or a
            ViViT as `ViViT.from_pretrained` reads it ("google/vivit-b-16x2-kinetics400", a folder of ours).
        tubelet, positions, temporal, pixels, mean, std, arch: as for `vivit_zoo.init_from_image`.
    """

    source: str = ""
    tubelet: Tubelet = "central_frame"
    positions: Positions = "resize_tile"
    temporal: Temporal = "zero_out"
    pixels: PixelRule = "fold"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    arch: str | None = None

    def __post_init__(self) -> None:
        rules = {"tubelet": Tubelet, "positions": Positions, "temporal": Temporal, "pixels": PixelRule}
        for name, known in rules.items():
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; choose from {', '.join(get_args(known))}")

    def init(self, model: ViViT) -> LoadReport:
        """Give a model these weights.

        Raises:
            WeightsError: as `vivit_zoo.init_from_image`.
        """
        rules = dataclasses.asdict(self)
        return init_from_image(model, rules.pop("source"), **rules)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, completely.

    Args:
        model: the model's configuration.
        data: the clips, for training and for testing.
        start: what the weights start from.
        steps: number of optimiser steps.
        batch_size: clips a step, over all processes and accumulated parts.
        accumulate: parts into which a process cuts its share of a step, one after the other, to save memory.
        opt: timm's name of an optimiser: "adamw", "momentum" (the paper's SGD, which is not Nesterov's), "lamb", ...
        lr: peak learning rate, after `warmup_steps` of linear warm-up from 0; a cosine leads to 0 at the last step.
        momentum: of SGD.
        weight_decay: decay of the matrices; positions, class tokens, norms and biases have none.
        layer_decay: factor in (0, 1] of the learning rate from each layer to the one below; None for none.
        warmup_steps: see `lr`; at most half of the steps.
        clip_grad: largest gradient norm; larger ones are scaled down to it.
        label_smoothing: in [0, 1).
        mixup: alpha of the Beta distribution of mixup's shares; 0 for none.
        ema: decay in [0, 1) of a moving average of the weights, which then is what is evaluated; 0 for none.
        seed: of the initial weights, dropout, augmentation and the order of the clips.
        eval_every: steps between evaluations, each of which also writes the checkpoint that a second call resumes from.
        eval_clips: how many of the test clips these look at, one view each, for speed; the final test sees all.
        stop_accuracy: stop training at the first evaluation with at least this accuracy, in (0, 1]; None to make all
            the steps. The schedule of the learning rate is that of all the steps.
        stop_head: the head whose accuracy that is; "" for all heads together.
        keep: number of newest checkpoints to keep, beside the best.
        workers: processes that make the clips, for each training process; 0 makes them in the training process.
        device: "auto" (CUDA or Apple's mps where there is one, else the CPU), "cpu", "cuda" or "mps".
        precision: "auto" (bfloat16 autocast where the hardware multiplies it natively, else float32), "bf16" or "fp32".
        grad_checkpointing: recompute activations in the backward pass, to save memory.
        compile: with `torch.compile`.
        shard: the weights, gradients and optimiser state over the processes (FSDP2) in place of a copy in each (DDP).
        tracker: of Accelerate, such as "wandb" or "tensorboard", which gets the metrics too; "" for none. Its
            files are in the run's folder.
    """

    model: ViViTConfig
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    start: Start = Start()
    steps: int = 400
    batch_size: int = 64
    accumulate: int = 1
    opt: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    layer_decay: float | None = None
    warmup_steps: int = 40
    clip_grad: float = 1.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: float = 0.0
    seed: int = 0
    eval_every: int = 50
    eval_clips: int = 250
    stop_accuracy: float | None = None
    stop_head: str = ""
    keep: int = 1
    workers: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    grad_checkpointing: bool = False
    compile: bool = False
    shard: bool = False
    tracker: str = ""

    # These change no result, and may be others when a run is resumed.
    free: ClassVar = ("workers", "keep", "tracker", "data.max_broken")

    def __post_init__(self) -> None:
        for name, known in {"device": ("auto", "cpu", "cuda", "mps"), "precision": ("auto", "bf16", "fp32")}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; choose from {', '.join(known)}")
        for name in ("steps", "batch_size", "accumulate", "eval_every", "eval_clips", "keep", "lr", "clip_grad"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is not positive")
        for name in ("weight_decay", "warmup_steps", "seed", "workers", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is negative")
        for name in ("label_smoothing", "ema", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not in [0, 1)")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay {self.layer_decay} is not in (0, 1]; None is for none")
        if self.stop_accuracy is not None and not 0 < self.stop_accuracy <= 1:
            raise ValueError(f"stop_accuracy {self.stop_accuracy} is not in (0, 1]; None is for no early stop")
        heads = [*self.model.num_classes] if isinstance(self.model.num_classes, dict) else []
        if self.stop_head and self.stop_head not in heads:
            raise ValueError(f"stop_head {self.stop_head!r} is unknown; the model has {heads or 'one unnamed head'}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate}")
        if self.data.task != "single_label":
            raise ValueError(f"data.task {self.data.task!r} has no loss to train with yet; only 'single_label' has")
        has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not has.get(self.device, True):
            raise ValueError(f"device {self.device!r} is not available here; use 'auto' or 'cpu'")

    def to_json(self) -> str:
        """All fields, the model's too."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def identity(self) -> dict[str, Any]:
        """All fields that a result depends on, as JSON has them, under dotted names."""
        return flatten(json.loads(self.to_json()), self.free)

    def change_model(self, **changes: Any) -> Self:
        """A copy with some of the model's fields changed."""
        return dataclasses.replace(self, model=self.model.replace(**changes))


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model and what its training cost.

    Args:
        model: in evaluation mode, with the averaged weights where there are any.
        device: where it lives.
        data: that it was trained on.
        test: the test, over all processes together: `test()`, or with a change of the clips, as for `evaluate`.
        clips: seen in training, of all processes; with `stop_accuracy` they may be fewer than steps x batch_size.
        clips_per_second: of training steps alone, over all processes.
        peak_bytes: the most memory beyond what was in use before the model was built, see `PeakMemory`.
    """

    model: nn.Module
    device: torch.device
    data: DataSets
    test: Callable[..., Scores]
    clips: int
    clips_per_second: float
    peak_bytes: int | None


def train(config: TrainConfig, run_dir: Path, encoder: Callable[..., nn.Module] | None = None, bar: int = 0) -> Trained:
    """Train, or go on where an earlier call with the same arguments was stopped.

    Writes into `run_dir`: config.json, metrics.jsonl (a line each `eval_every` steps), start.txt (whence each tensor is
    taken), broken_train.jsonl and broken_test.jsonl (files that could not be read; of further processes with their
    numbers) and checkpoints/, of which one is written at each evaluation and at Ctrl-C or SIGTERM. Files are replaced
    as a whole, and .jsonl files grow by whole lines, so that they can be read at any moment.

    Args:
        config: the run.
        run_dir: folder of this run alone; made if missing.
        encoder: as for `ViViT`, an encoder of your own.
        bar: line of the terminal for the progress bar.

    Raises:
        ValueError: if `run_dir` holds a run of another configuration, its checkpoints cannot be read, the model does
            not fit the data, or the batch cannot be shared out over the processes.
        VideoError: if more of the files are broken than `config.data` allows.
        FloatingPointError: if the loss is no longer finite.
        KeyboardInterrupt, SystemExit: at Ctrl-C and SIGTERM, once the step is done and a checkpoint is written.
    """
    accelerator = Accelerator(
        cpu=config.device == "cpu",
        mixed_precision="bf16" if use_bf16(config.precision, config.device == "cpu") else "no",
        log_with=config.tracker or None,
        project_dir=run_dir,
    )
    if config.tracker and not accelerator.log_with:  # Accelerate only warns, and goes on without
        raise ImportError(f"tracker {config.tracker!r} is not installed: pip install {config.tracker}")
    device, main = accelerator.device, accelerator.is_main_process
    process, processes = accelerator.process_index, accelerator.num_processes
    if config.batch_size % (processes * config.accumulate):
        raise ValueError(
            f"batch_size {config.batch_size} cannot be shared out over {processes} processes with accumulate "
            f"{config.accumulate}; it must be divisible by their product"
        )
    if main:
        claim_folder(run_dir, json.loads(config.to_json()), config.free)
    accelerator.wait_for_everyone()
    set_seed(config.seed)
    memory = PeakMemory(device)
    files = Checkpoints(run_dir / "checkpoints", config.keep)
    checkpoint = files.newest()

    model = ViViT(config.model, encoder)
    data = config.data.build(config.model.input_shape)
    data.check_classes(config.model.num_classes)
    if config.start.source and checkpoint is None:
        report = config.start.init(model)
        if main:
            write_whole(run_dir / "start.txt", lambda file: file.write_text(f"{report}\n"))
    if config.grad_checkpointing:
        model.set_grad_checkpointing()
    if config.compile:
        model.compile()
    replica = distribute(model, accelerator, config.shard)
    optimizer = create_optimizer_v2(
        model,
        opt=config.opt,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        layer_decay=config.layer_decay,
    )
    average = WeightAverage(model, config.ema) if config.ema else None
    done, seconds, best, total = 0, 0.0, -1.0, torch.zeros((), device=device)
    reached = False  # stop_accuracy
    if checkpoint:
        set_weights(checkpoint, model, optimizer, average)
        done, seconds, best, memory.floor = (checkpoint[name] for name in ("step", "seconds", "best", "peak_bytes"))
        total, reached = checkpoint["loss"].to(device), checkpoint.get("reached", False)
    set_random(checkpoint["random"] if checkpoint else [], accelerator, config.seed, done)

    suffix = f"_{process}.jsonl" if process else ".jsonl"
    broken = BrokenFiles(len(data.train), config.data.max_broken, run_dir / f"broken_train{suffix}")
    broken_tests = BrokenFiles(len(data.test), config.data.max_broken, run_dir / f"broken_test{suffix}")

    def test_feed(clips: Any, views: int, most: int | None = None) -> Feed:
        """This process' share of a test: of all its clips, or of as many as wanted."""
        size = max(1, config.batch_size // (processes * config.accumulate * views))
        order = TestOrder(len(clips), size, most, process, processes)
        return Feed(loader(clips, order, config.seed, config.workers), device, broken_tests)

    look, final = test_feed(data.look, 1, config.eval_clips), test_feed(data.test, data.views)

    def test(feed: Feed, change: Change | None = None) -> Scores:
        """What all processes together find."""
        with accelerator.autocast():
            own = evaluate(model.eval(), feed, device, change)
        return Scores.merge(gather_object([own]) if processes > 1 else [own])

    order = TrainOrder(len(data.train), config.batch_size, config.seed, done, config.accumulate, process, processes)
    feed = Feed(loader(data.train, order, config.seed, config.workers), device, broken)
    batches = iter(feed)
    if main:
        metrics = Metrics(run_dir / "metrics.jsonl", keep_until=done)
    if config.tracker:
        start_trackers(accelerator, run_dir, json.loads(config.to_json()))
    steps = tqdm(
        range(done, done if reached else config.steps),
        desc=run_dir.name,
        initial=done,
        total=config.steps,
        position=bar,
        leave=False,
        unit="step",
        dynamic_ncols=True,
        disable=None if main else True,  # None: where stderr is no terminal
    )
    with StopSignals() as signals:
        started = time.perf_counter()
        for step in steps:
            model.train()
            lr = config.lr * warmup_cosine(step, min(config.warmup_steps, config.steps // 2), config.steps)
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1)  # timm's name for a layer's own share
            for part in range(config.accumulate):
                video, label, *_ = next(batches)
                if config.mixup:
                    video, label = mixup(video, one_hot(label, config.model.num_classes), config.mixup)
                sync_gradients(replica, part + 1 == config.accumulate)
                with accelerator.autocast():
                    loss = cross_entropy(replica(video), label, config.label_smoothing) / config.accumulate
                loss.backward()
                total += loss.detach()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
            optimizer.step()
            optimizer.zero_grad()
            if average:
                average.update(step)

            looks = (step + 1) % config.eval_every == 0 or step + 1 == config.steps
            asks = processes == 1 or looks or step % STOP_EVERY == 0  # to agree costs several processes a moment
            stop = anyone(signals.received or 0, accelerator) if asks else 0
            if not looks and not stop:
                continue
            since = step % config.eval_every + 1
            total = accelerator.reduce(total, "mean")
            loss_here = total.item() / since  # waits for the device, so before the clock is read
            spent = time.perf_counter() - started
            seconds += spent
            if not math.isfinite(loss_here):
                raise FloatingPointError(f"the loss is {loss_here} after step {step + 1}; a smaller lr may help")
            is_best = False
            if looks:
                with average.in_place() if average else nullcontext():
                    scores = test(look)
                heads = {f"accuracy_{head}": one.accuracy() for head, one in scores.heads.items() if head}
                accuracy = scores.accuracy()
                watched = heads[f"accuracy_{config.stop_head}"] if config.stop_head else accuracy
                reached = config.stop_accuracy is not None and watched >= config.stop_accuracy
                is_best, best = accuracy > best, max(best, accuracy)
                pace = feed.pace(spent, config.workers, processes)
                values = {"loss": loss_here, "lr": lr, "accuracy": accuracy, **heads, **pace}
                if main:
                    metrics.write(step=step + 1, **values)
                accelerator.log(values, step=step + 1)
                steps.set_postfix(loss=f"{loss_here:.3f}", accuracy=f"{accuracy:.1%}")
                if main and steps.disable:  # a log file gets lines instead of a bar
                    line = f"step {step + 1} of {config.steps}, loss {loss_here:.3f}, accuracy {accuracy:.1%}"
                    print(f"{run_dir.name}: {line}", file=sys.stderr)
                total.zero_()
            content = {
                "step": step + 1,
                "seconds": seconds,
                "best": best,
                "reached": reached,
                "loss": total,
                "peak_bytes": memory.peak_bytes(),
                "random": get_random(accelerator),
                **get_weights(model, optimizer, average),
            }
            if main:
                files.write(step + 1, content, is_best)
            accelerator.wait_for_everyone()
            if stop:
                if main:
                    tqdm.write(f"stopped after step {step + 1}; the same call goes on from there", file=sys.stderr)
                signals.leave(stop)
            done = step + 1
            if reached:
                break
            started = time.perf_counter()
        if stop := anyone(signals.received or 0, accelerator):  # since the last step, which is saved
            signals.leave(stop)
    for tracker in accelerator.trackers:  # not accelerator.end_training(): several processes have yet to test
        tracker.finish()

    if average:
        average.apply()
    return Trained(
        model=model.eval(),
        device=device,
        test=partial(test, final),
        data=data,
        clips=done * config.batch_size,
        clips_per_second=done * config.batch_size / seconds,
        peak_bytes=memory.peak_bytes(),
    )
