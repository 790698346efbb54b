"""Classify video files: decode, sample views, average their outputs, look up class names.

What the outputs mean is the model's `problem_type`: one class a video, several classes, or numbers.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from vivit_zoo.evaluation.evaluate import average_views
from vivit_zoo.evaluation.predictions import Average
from vivit_zoo.inference import optimize_for_inference
from vivit_zoo.model import ViViT
from vivit_zoo.system.batches import compute_in_batches, prefetch
from vivit_zoo.video.clips import Policy, Views
from vivit_zoo.video.preprocess import Preprocess, Style
from vivit_zoo.video.reader import VideoError

__all__ = [
    "best_classes",
    "check_model",
    "class_names",
    "class_table",
    "classify",
    "classify_files",
    "inputs_of",
    "likely_classes",
    "named_values",
    "read_ahead",
    "top_classes",
]

SEVERAL = "multi_label_classification"

Result = TypeVar("Result")


def classify(
    model: Callable[..., Tensor | dict[str, Tensor]],
    path: str | Path,
    views: Views,
    preprocess: Preprocess,
    device: torch.device | str = "cpu",
    gray: bool = False,
    average: Average = "logits",
    batch: int | None = None,
) -> Tensor | dict[str, Tensor]:
    """Return the mean outputs over the views of a video file, (classes,), or a dictionary of them by head.

    Args:
        model: any callable from videos (b, c, t, h, w) to logits, or to a dictionary of logits by head. Under the
            policy "mask" it also gets the mask (b, t).
        path: the video file.
        views: the clips and crops to sample.
        preprocess: the preprocessing of the frames.
        device: device of the model.
        gray: pass one gray channel to the model instead of three.
        average: "sigmoid" for models of several classes a video, see `average_views`.
        batch: number of views in one call of the model; half as many, again and again, where they do not fit the memory
            of a GPU. None for one on a CPU, where more are no faster and take more memory, and all of them elsewhere.

    Raises:
        VideoError: if the file cannot be read, or is too short under the policy "error".
    """
    return _average(model, views.read(path, preprocess, gray), device, average, batch)


def _average(
    model: Callable[..., Any],
    clips: Iterable[tuple[Tensor, ...]],
    device: torch.device | str,
    average: Average,
    batch: int | None = None,
) -> Tensor | dict[str, Tensor]:
    """The mean outputs over views, each the arguments of a call."""
    if batch is None:
        batch = 1 if torch.device(device).type == "cpu" else sys.maxsize
    logits = average_views(lambda one: one, _outputs(model, clips, device, batch), average)
    return {name: x[0] for name, x in logits.items()} if isinstance(logits, dict) else logits[0]


def _outputs(
    model: Callable[..., Any], clips: Iterable[tuple[Tensor, ...]], device: torch.device | str, batch: int
) -> Iterator[Any]:
    """The output for each view, (1, classes), computed with `batch` views or fewer in a call."""

    def compute(views: list[tuple[Tensor, ...]]) -> Any:
        return model(*(torch.cat(part).to(device) for part in zip(*views, strict=True)))

    for views, output in compute_in_batches(compute, clips, batch):
        for number in range(len(views)):
            one = slice(number, number + 1)
            yield {head: x[one] for head, x in output.items()} if isinstance(output, dict) else output[one]


def inputs_of(
    model: ViViT,
    clips: int | None = None,
    crops: int | None = None,
    stride: int | None = None,
    style: Style | None = None,
    policy: Policy | None = None,
) -> tuple[Views, Preprocess]:
    """Which frames of a video a model takes, and how they are preprocessed.

    Args:
        model: those of a source that says how it takes videos (`model.processing`) do so; others as ViViT's.
        clips, crops: of the views; None for the model's, else for 4 and 3.
        stride: distance of a clip's frames; None for the model's, else 2.
        style: see `Preprocess`; None for the model's, else "original".
        policy: what stands where a video is over, see `Views`; None for the model's, else "repeat_last".
    """
    known, size = model.processing, model.config.frame_size
    if known is None:
        timing: dict[str, Any] = {"stride": stride or 2, "policy": policy or "repeat_last"}
        views = Views(clips=clips or 4, crops=crops or 3, frames=model.config.num_frames, **timing)
        return views, Preprocess(size, style=style or "original")
    stride, fps = (known.stride, known.fps) if stride is None else (stride, None)
    views = Views(
        clips=clips or known.views[0],
        crops=crops or known.views[1],
        frames=model.config.num_frames,
        stride=stride or 2,
        fps=fps,
        spread=stride is None and fps is None,
        policy=policy or known.policy,
    )
    own: Style = "antialiased" if known.antialias else "original"
    if style not in (None, own):
        return views, Preprocess(size, style=style)
    if own == "original":
        return views, Preprocess(size, known.short_side)
    stretch = known.short_side is None
    return views, Preprocess(size, known.short_side, "antialiased", known.filter, stretch)


def top_classes(logits: Tensor, names: Sequence[str] | None = None, count: int = 5) -> list[dict[str, Any]]:
    """Return number, name and softmax probability of the most likely classes, best first, from logits (classes,)."""
    return _ranked(logits.float().softmax(dim=0), names, count)


def likely_classes(
    logits: Tensor, names: Sequence[str] | None = None, count: int = 5, threshold: float | None = None
) -> list[dict[str, Any]]:
    """Return number, name and sigmoid probability of the most likely classes, best first, from logits (classes,).

    Args:
        logits: of a model of several classes a video.
        names: of the classes; None for their numbers.
        count: number of classes to return.
        threshold: return all classes with at least this probability instead, which may be none.
    """
    probabilities = logits.float().sigmoid()
    if threshold is not None:
        return [one for one in _ranked(probabilities, names, len(logits)) if one["probability"] >= threshold]
    return _ranked(probabilities, names, count)


def named_values(outputs: Tensor, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return number, name and value of each target of a regression, from outputs (targets,)."""
    return [
        {"target": number, "name": names[number] if names else f"target {number}", "value": value}
        for number, value in enumerate(outputs.float().tolist())
    ]


def _ranked(probabilities: Tensor, names: Sequence[str] | None, count: int) -> list[dict[str, Any]]:
    best = probabilities.topk(min(count, len(probabilities)))
    return [
        {"class": number, "name": names[number] if names else f"class {number}", "probability": probability}
        for probability, number in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def class_names(model: ViViT) -> Any:
    """Return the class names of a model, by head if it has several; None if it has no names.

    The official Kinetics-400 checkpoints contain no class names; their classes are in alphabetical order. A model gets
    these names only if its source says Kinetics-400, because any 400 classes are possible.
    """
    source = "/".join(Path(model.load_report.source).parts[-3:]).lower() if model.load_report else ""
    if model.class_names is None and model.num_classes == 400 and re.search(r"kinetics[-_]?400|k400", source):
        from torchvision.models.video import R3D_18_Weights

        return list(R3D_18_Weights.KINETICS400_V1.meta["categories"])
    return model.class_names


def classify_files(
    model: ViViT,
    paths: Sequence[str],
    views: Views,
    preprocess: Preprocess,
    device: torch.device | str = "cpu",
    top: int = 5,
    as_json: bool = False,
    threshold: float | None = None,
) -> int:
    """Print the most likely classes of each file; return 1 if a file could not be read, else 0.

    Progress goes to stderr. With `as_json`, each file is a line {"video": ..., "classes": [{"class": 116, "name": ...,
    "probability": ...}, ...]}, where a model with several heads has a dictionary by head, or {"video": ..., "error":
    ...}. A regression has {"video": ..., "values": [{"target": 0, "name": ..., "value": ...}, ...]} instead. The model
    is moved to the device and optimised for inference, in place.

    Args:
        model, views, preprocess, device: as for `classify`.
        paths: the video files.
        top: number of classes to print.
        as_json: print JSON.
        threshold: for models of several classes a video, print the classes with at least this probability instead.

    Raises:
        ValueError: if the model has no head, or an unsupported number of channels, or there is a threshold and the
            model gives each video one class or numbers.
    """
    check_model(model)
    if threshold is not None and model.problem_type != SEVERAL:
        raise ValueError(
            f"a threshold of {threshold} is for models that give a video several classes; this one "
            + ("predicts numbers" if model.problem_type == "regression" else "gives it one; use --top")
        )
    problem_type, key = model.problem_type, "values" if model.problem_type == "regression" else "classes"
    average: Average = "sigmoid" if problem_type == SEVERAL else "logits"
    model = optimize_for_inference(model.to(device).eval())
    failed = 0
    opened = read_ahead(paths, partial(_open_views, views, preprocess, model.config.in_chans == 1))
    for path, clips in tqdm(opened, total=len(paths), disable=True if len(paths) < 2 else None, unit="video"):
        try:
            logits = _average(model, clips(), device, average)
            if not all(x.isfinite().all() for x in (logits.values() if isinstance(logits, dict) else [logits])):
                raise VideoError(f"{path}: the outputs of the model are no finite numbers; its weights may be damaged")
        except VideoError as error:
            failed = 1
            tqdm.write(f"vivit-zoo: {error}", file=sys.stderr)
            if as_json:
                tqdm.write(json.dumps({"video": path, "error": str(error)}))
            continue
        best = best_classes(model, logits, top, threshold)
        tqdm.write(json.dumps({"video": path, key: best}) if as_json else class_table(path, best))
    return failed


def read_ahead(paths: Sequence[str], read: Callable[[str], Result]) -> Iterator[tuple[str, Callable[[], Result]]]:
    """Each path with what `read` makes of it, of which the next is read in a thread while the caller works on this one.

    Yields:
        The path, and a function that returns the result, or raises the `VideoError` that `read` raised.
    """

    def attempt(path: str) -> tuple[str, Callable[[], Result]]:
        try:
            result = read(path)
        except VideoError as error:
            return path, partial(_raise, error)
        return path, lambda: result

    return prefetch(map(attempt, paths))


def _raise(error: Exception) -> NoReturn:
    raise error


def _open_views(views: Views, preprocess: Preprocess, gray: bool, path: str) -> Iterator[tuple[Tensor, ...]]:
    """The views of a file, whose frames are decoded when this returns."""
    clips = views.read(path, preprocess, gray)
    return chain([next(clips)], clips)


def check_model(model: ViViT) -> None:
    """Check that a model can classify video files.

    Raises:
        ValueError: if it has no head, or takes neither one nor three channels.
    """
    if not model.num_classes:
        raise ValueError("the model has no head and cannot classify; load it with num_classes=...")
    if model.config.in_chans not in (1, 3):
        raise ValueError(f"the model takes {model.config.in_chans} channels; videos have 3, or 1 for gray models")


def best_classes(model: ViViT, logits: Tensor | dict[str, Tensor], count: int, threshold: float | None = None) -> Any:
    """Return `top_classes` with the model's class names, by head if the model has several.

    That is `likely_classes` or `named_values` for models of another `problem_type`.
    """
    names = class_names(model)
    if isinstance(logits, dict):
        return {head: top_classes(x, names and names[head], count) for head, x in logits.items()}
    if model.problem_type == "regression":
        return named_values(logits, names)
    if model.problem_type == SEVERAL:
        return likely_classes(logits, names, count, threshold)
    return top_classes(logits, names, count)


def class_table(path: str, best: Any) -> str:
    """Format the result of `best_classes`: the path, then a line for each class or target."""
    heads = best if isinstance(best, dict) else {"": best}
    lines = [path]
    for head, classes in heads.items():
        lines += [f"{_number(one)}  {head + ' ' if head else ''}{one['name']}" for one in classes]
    return "\n".join(lines)


def _number(one: dict[str, Any]) -> str:
    return f"{one['value']:10.5g}" if "value" in one else f"{one['probability']:8.2%}"
