"""The training loop, on Accelerate.

`train` runs in one process, or under `torchrun` and `accelerate launch` with a copy of the model on each device (DDP)
or with the model sharded over the devices (FSDP2). The steps are the same up to rounding.
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
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from tqdm import tqdm

from vivit_zoo.datasets import DataSets
from vivit_zoo.evaluation.evaluate import evaluate
from vivit_zoo.model import ViViT
from vivit_zoo.system.machine import PeakMemory, use_bf16
from vivit_zoo.system.signals import StopSignals
from vivit_zoo.training.attend import short_attention
from vivit_zoo.training.checkpoint import Checkpoints, Metrics, claim_folder, write_whole
from vivit_zoo.training.config import TrainConfig
from vivit_zoo.training.distributed import (
    anyone,
    distribute,
    get_random,
    get_weights,
    set_random,
    set_weights,
    sync_gradients,
)
from vivit_zoo.training.freeze import freeze, frozen_modules, set_train_mode
from vivit_zoo.training.loading import BrokenFiles, Feed, loader
from vivit_zoo.training.objective import Objective, TargetScale
from vivit_zoo.training.optim import WeightAverage, use_fused_kernel, warmup_cosine
from vivit_zoo.training.order import TestOrder, TrainOrder, group_by_class
from vivit_zoo.training.trackers import start_trackers

__all__ = ["Trained", "train"]

STOP_EVERY = 10  # several processes agree on whether to stop every so many steps

Change = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model and the cost of its training.

    Args:
        model: the model in evaluation mode, with the averaged weights if there are any.
        device: device of the model.
        data: the data sets of the run.
        test: function that tests the model over all processes, optionally with a `change` of the clips as for
            `evaluate`; returns `Scores`, `MultiLabelScores` or `RegressionScores`.
        clips: number of clips in training, over all processes; with `stop_accuracy` they may be fewer than
            steps x batch_size.
        clips_per_second: speed of the training steps, over all processes.
        peak_bytes: peak memory beyond the memory in use before the model was built, see `PeakMemory`.
        scale: of a regression, whose model predicts normalised targets; `test` returns scores in their units.
    """

    model: nn.Module
    device: torch.device
    data: DataSets
    test: Callable[..., Any]
    clips: int
    clips_per_second: float
    peak_bytes: int | None
    scale: TargetScale | None = None


def train(config: TrainConfig, run_dir: Path, encoder: Callable[..., nn.Module] | None = None, bar: int = 0) -> Trained:
    """Train a model, or resume an earlier call with the same arguments.

    Writes into `run_dir`: config.json; metrics.jsonl, with a line for each evaluation; start.txt, with the source of
    each tensor; broken_train.jsonl and broken_test.jsonl, with the files that could not be read (further processes
    append their number to the name); and checkpoints/. A checkpoint is written at each evaluation and on Ctrl-C or
    SIGTERM. Files are replaced atomically, and .jsonl files grow by whole lines, so all can be read at any time.

    Args:
        config: the configuration.
        run_dir: folder of this run only; created if missing.
        encoder: your own encoder class, as for `ViViT`.
        bar: line of the terminal for the progress bar.

    Raises:
        ValueError: if `run_dir` has a run with another configuration, its checkpoints cannot be read, the model does
            not fit the data, or the batch cannot be split over the processes.
        VideoError: if more files are broken than `config.data` allows.
        FloatingPointError: if the loss is not finite.
        KeyboardInterrupt, SystemExit: on Ctrl-C and SIGTERM, after the step is finished and a checkpoint is written.
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
    if config.batch_size % (processes * config.accumulate * config.aug_repeats):
        repeats = f" and aug_repeats {config.aug_repeats}" if config.aug_repeats > 1 else ""
        raise ValueError(
            f"batch_size {config.batch_size} cannot be split over {processes} processes with accumulate "
            f"{config.accumulate}{repeats}; it must be divisible by their product"
        )
    if main:
        claim_folder(run_dir, json.loads(config.to_json()), config.identify)
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
            write_whole(run_dir / "start.txt", lambda file: file.write_text(f"{report}\n", encoding="utf-8"))
    freeze(model, config.only)
    frozen = frozen_modules(model)
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
    for group in optimizer.param_groups:  # older timm takes frozen ones without weight decay
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
    if device.type in ("cpu", "cuda") and not isinstance(replica, FSDPModule):
        use_fused_kernel(optimizer)
    average = WeightAverage(model, config.ema) if config.ema else None
    objective = Objective(config, data, device, checkpoint and checkpoint.get("scale"))
    done, seconds, best, total = 0, 0.0, -math.inf, torch.zeros((), device=device)
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
        """Return this process's share of the test clips, or of at most `most` of them."""
        size = max(1, config.batch_size // (processes * config.accumulate * views))
        order = TestOrder(len(clips), size, most, process, processes)
        return Feed(loader(clips, order, config.seed, config.workers), device, broken_tests)

    look, final = test_feed(data.look, 1, config.eval_clips), test_feed(data.test, data.views)

    def test(feed: Feed, change: Change | None = None) -> Any:
        """Return the scores of all processes together."""
        with accelerator.autocast():
            own = evaluate(objective.in_units(model.eval()), feed, device, change, kind=objective.kind)
        return objective.kind.merge(gather_object([own]) if processes > 1 else [own])

    order = TrainOrder(
        len(data.train),
        config.batch_size,
        config.seed,
        done,
        config.accumulate,
        process,
        processes,
        groups=group_by_class(data.train.labels()) if config.sampling == "balanced" else None,
        repeats=config.aug_repeats,
    )
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
    short = device.type == "cpu" and not config.compile
    with StopSignals() as signals, short_attention(model) if short else nullcontext():
        started = time.perf_counter()
        for step in steps:
            set_train_mode(model, frozen)
            lr = config.lr * warmup_cosine(step, min(config.warmup_steps, config.steps // 2), config.steps)
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1)  # timm's name for the factor of a layer
            for part in range(config.accumulate):
                batch = next(batches)
                mask = () if batch.mask is None else (batch.mask,)
                video, target = objective.prepare(batch.video, batch.label)
                sync_gradients(replica, part + 1 == config.accumulate)
                with accelerator.autocast():
                    loss = objective.loss(replica(video, *mask), target) / config.accumulate
                loss.backward()
                total += loss.detach()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
            optimizer.step()
            optimizer.zero_grad()
            if average:
                average.update(step)

            looks = (step + 1) % config.eval_every == 0 or step + 1 == config.steps
            asks = processes == 1 or looks or step % STOP_EVERY == 0  # agreeing takes several processes some time
            stop = anyone(signals.received or 0, accelerator) if asks else 0
            if not looks and not stop:
                continue
            since = step % config.eval_every + 1
            total = accelerator.reduce(total, "mean")
            loss_here = total.item() / since  # waits for the device, so read it before the clock
            spent = time.perf_counter() - started
            seconds += spent
            if not math.isfinite(loss_here):
                raise FloatingPointError(f"the loss is {loss_here} after step {step + 1}; a smaller lr may help")
            is_best = False
            if looks:
                with average.in_place() if average else nullcontext():
                    scores = test(look)
                found = scores.metrics(data.classes)
                watched = f"accuracy_{config.stop_head}" if config.stop_head else "accuracy"
                reached = config.stop_accuracy is not None and found[watched] >= config.stop_accuracy
                quality, summary = scores.quality(found), scores.summary(found)
                is_best, best = quality > best, max(best, quality)
                pace = feed.pace(spent, config.workers, processes)
                values = {"loss": loss_here, "lr": lr, **found, **pace}
                if main:
                    metrics.write(step=step + 1, **values)
                accelerator.log(values, step=step + 1)
                steps.set_postfix_str(f"loss {loss_here:.3f}, {summary}")
                if main and steps.disable:  # a log file gets lines instead of a bar
                    line = f"step {step + 1} of {config.steps}, loss {loss_here:.3f}, {summary}"
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
                **objective.state(),
                **get_weights(model, optimizer, average),
            }
            if main:
                files.write(step + 1, content, is_best)
            accelerator.wait_for_everyone()
            if stop:
                if main:
                    tqdm.write(f"stopped after step {step + 1}; run the same command again to resume", file=sys.stderr)
                signals.leave(stop)
            done = step + 1
            if reached:
                break
            started = time.perf_counter()
        if stop := anyone(signals.received or 0, accelerator):  # a signal after the last step, which is saved
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
        scale=objective.scale,
        clips=done * config.batch_size,
        clips_per_second=done * config.batch_size / seconds,
        peak_bytes=memory.peak_bytes(),
    )
