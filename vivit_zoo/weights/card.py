"""README.md of a model for the hub: what it is, how to load it, what it was trained on and how good it is."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.processing import short_side
from vivit_zoo.weights.report import Checkpoint

__all__ = ["NEW", "Training", "model_card"]

NEW = "OWNER/"  # begins the name of a model that is not on the hub yet; `push_to_hub` replaces the whole name
SIZES = ("variant", "num_classes", "num_frames", "image_size", "tubelet_size", "dim", "depth", "num_heads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What a training run adds to a model card.

    Args:
        data: name of the data set.
        started_from: what the weights started from; "" for random weights.
        metrics: name of each metric, such as "top-1" -> its value.
        metric: what they are: "accuracy", "mAP" or "rmse".
        in_percent: whether the values are shares in [0, 1], which are printed in percent.
        test_videos: number of videos that they were measured on.
        views: views of each that were averaged.
        details: anything else, by its name.
    """

    data: str
    started_from: str = ""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    metric: str = "accuracy"
    in_percent: bool = True
    test_videos: int = 0
    views: int = 1
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def model_card(
    checkpoint: Checkpoint,
    name: str,
    format: str = "vivit_zoo",
    *,
    license: str | None = None,
    training: Training | None = None,
) -> str:
    """README.md for the hub, with the metadata that the hub reads at its top.

    Args:
        checkpoint: the model.
        name: of the model, such as "owner/name".
        format: of the weights, as for `ViViT.save_pretrained`.
        license: the hub's name of the weights' licence, such as "apache-2.0"; None for one that is not chosen yet.
        training: of the run that made it; None if that is not known.
    """
    sections = [
        f"# {name.rpartition('/')[2]}",
        _summary(checkpoint),
        _usage(checkpoint, name, format),
        _input(checkpoint),
    ]
    if training is not None:
        sections.append(_training(training))
    sections += [_classes(checkpoint), _licence(license, training), _configuration(checkpoint)]
    return f"---\n{_metadata(name, format, license, training)}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def _metadata(name: str, format: str, license: str | None, training: Training | None) -> str:
    """YAML; the values are JSON, which is YAML too, so that no name can break it."""
    values: dict[str, Any] = {
        "license": license or "unknown",
        "library_name": "transformers" if format == "transformers" else "vivit_zoo",
        "pipeline_tag": "video-classification",
        "tags": ["vivit", "video-classification"],
    }
    if training is not None:
        if _is_hub_id(training.started_from):
            values["base_model"] = training.started_from
        # Accuracies are of one type; the metrics of a regression are rmse, mae and r2, with "_" and a target's name.
        types = {key: training.metric if training.in_percent else key.partition("_")[0] for key in training.metrics}
        metrics = [{"type": types[key], "name": key, "value": value} for key, value in training.metrics.items()]
        result = {
            "task": {"type": "video-classification"},
            "dataset": {"name": training.data, "type": training.data},
            "metrics": metrics,
        }
        values["model-index"] = [{"name": name, "results": [result]}] if metrics else []
    return "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


def _is_hub_id(source: str) -> bool:
    return source.count("/") == 1 and ":" not in source and not source.startswith((".", "/", "~"))


def _summary(checkpoint: Checkpoint) -> str:
    count = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    return (
        "A Video Vision Transformer (ViViT, [arXiv 2103.15691](https://arxiv.org/abs/2103.15691)), variant "
        f"`{checkpoint.config.variant}`, with {count:,} parameters.{_task(checkpoint)}"
    )


def _task(checkpoint: Checkpoint) -> str:
    """What the model says of a clip."""
    count = checkpoint.config.num_classes
    if isinstance(count, Mapping):
        return f" It gives a clip a label for each of {', '.join(count)}."
    if not count:
        return " It has no classifier: it computes features."
    if checkpoint.problem_type == "regression":
        return f" It predicts {count} number{'s' * (count != 1)} for a clip."
    several = checkpoint.problem_type == "multi_label_classification"
    return (
        f" It says which of {count} classes are in a clip." if several else f" It gives a clip one of {count} classes."
    )


def _usage(checkpoint: Checkpoint, name: str, format: str) -> str:
    c, t, h, w = checkpoint.config.input_shape
    gray = ", gray=True" if c == 1 else ""
    average = ', average="sigmoid"' if checkpoint.problem_type == "multi_label_classification" else ""
    text = f"""## Use

```sh
pip install 'vivit-zoo[hf,video]'
vivit-zoo classify clip.mp4 --checkpoint {name}
```

```python
from vivit_zoo import ViViT
from vivit_zoo.evaluation.classify import best_classes, classify, inputs_of

model = ViViT.from_pretrained("{name}")  # takes pixels in [-1, 1]: (batch, {c}, {t}, {h}, {w})
views, preprocess = inputs_of(model)  # the frames, crops and pixels that it was tested with
logits = classify(model, "clip.mp4", views, preprocess{gray}{average})
print(best_classes(model, logits, count=5))
```"""
    if isinstance(checkpoint.config.num_classes, Mapping) or c != 3:  # pipeline knows one head and RGB frames
        return text
    register = "" if format == "transformers" else "import vivit_zoo.hf  # registers the model\n"
    stride = checkpoint.processing.stride if checkpoint.processing else None
    stride_argument = f", frame_sampling_rate={stride}" if stride and stride > 1 else ""
    return f"""{text}

With transformers:

```python
from transformers import pipeline
{register}
classify = pipeline("video-classification", model="{name}")
print(classify("clip.mp4"{stride_argument}))
```"""


def _input(checkpoint: Checkpoint) -> str:
    config, processing = checkpoint.config, checkpoint.processing
    height, width = config.frame_size
    colours = {1: "gray", 3: "RGB"}.get(config.in_chans, f"{config.in_chans} channels")
    frames = f"{config.num_frames} frames"
    if processing is not None and processing.fps is not None:
        frames += f", {processing.fps:g} for each second of the video"
    elif processing is not None and processing.stride is None:
        frames += " spread over the whole video"
    elif processing is not None:
        frames += f", {processing.stride} frames of the video apart" if processing.stride != 1 else ", consecutive ones"
    side = short_side(config) if processing is None else processing.short_side
    resize = f"the short side resized to {side}, the centre cropped" if side else "resized whatever their shape"
    return f"## Input\n\n{frames.capitalize()}, {height} x {width} pixels, {colours}: {resize}, pixels / 127.5 - 1."


def _training(training: Training) -> str:
    start = f"from the weights of `{training.started_from}`" if training.started_from else "from random weights"
    lines = [f"## Training and evaluation\n\nTrained on `{training.data}`, {start}."]
    if training.metrics:
        percent = training.in_percent
        numbers = {name: f"{100 * x:.1f}" if percent else f"{x:.4g}" for name, x in training.metrics.items()}
        rows = "\n".join(f"| {_cell(name)} | {number} |" for name, number in numbers.items())
        views = f"{training.views} view{'s' * (training.views != 1)}"
        measured = f"{training.test_videos:,} test videos, {views} each"
        unit = "%" if percent else ""
        lines.append(f"| {training.metric} on {measured} | {unit} |\n| --- | ---: |\n{rows}")
    if training.details:
        rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in training.details.items())
        lines.append(f"| training | |\n| --- | --- |\n{rows}")
    return "\n\n".join(lines)


def _classes(checkpoint: Checkpoint, shown: int = 20) -> str:
    names = checkpoint.class_names
    if names is None:
        return ""
    heads: dict[str, Sequence[str]] = dict(names) if isinstance(names, Mapping) else {"": names}
    kind = "targets" if checkpoint.problem_type == "regression" else "classes"
    lines = [f"## {kind.capitalize()}", ""]
    for head, own in heads.items():
        listed = ", ".join(own[:shown]) + (f" and {len(own) - shown} more" if len(own) > shown else "")
        lines.append(f"- {head + ': ' if head else ''}{len(own)} {kind}: {listed}")
    return "\n".join(lines)


def _licence(license: str | None, training: Training | None) -> str:
    text = f"`{license}`." if license else "No licence has been chosen for these weights."
    if training is not None and training.started_from:
        text += f" They started from `{training.started_from}`, whose licence applies to them as well."
    return f"## Licence\n\n{text}"


def _configuration(checkpoint: Checkpoint) -> str:
    usual = dataclasses.asdict(ViViTConfig())
    fields = dataclasses.asdict(checkpoint.config).items()
    shown = {name: value for name, value in fields if name in SIZES or value != usual[name]}
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in shown.items())
    text = "The other fields have the defaults of `ViViTConfig`."
    return f"## Configuration\n\n| field | value |\n| --- | --- |\n{rows}\n\n{text}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
