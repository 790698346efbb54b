"""`Checkpoint`, a source in our terms; `fill`, which puts tensors into a model; `LoadReport`, what became of each."""

import dataclasses
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from vivit_zoo.config import ViViTConfig
from vivit_zoo.tokens import ClassToken
from vivit_zoo.weights.processing import Processing
from vivit_zoo.weights.resize import PositionsFilter

__all__ = [
    "Checkpoint",
    "LoadReport",
    "ProblemType",
    "Value",
    "WeightsError",
    "check",
    "check_problem_type",
    "config_of",
    "fill",
]

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What the outputs of a model mean, as in transformers' configurations: softmax, sigmoids, or numbers."""


class WeightsError(ValueError):
    """A source of weights that cannot be used; the message says which one and why."""


@dataclasses.dataclass
class Checkpoint:
    """Weights from anywhere under our names, as they would be in `ViViT(config)`.

    Args:
        source: where they are from, for messages.
        config: the model they belong to.
        tensors: our name -> tensor, in the shape that the model of `config` has.
        origin: our name -> the source's own names.
        how: our name -> what was computed; names that are missing were only moved.
        left: the source's own name -> why it is not used.
        notes: differences that no tensor shows.
        class_names: of the head's classes, in the order of the logits, of several heads by head; None where the source
            does not say.
        class_position: the position that the source adds to its class token, in `tensors` already part of the token.
        pixels: mean and standard deviation of pixels in [0, 1], one a channel, that an image model was trained with;
            None where unknown or as ours.
        is_image: whether it is an image model, which has no frames, classes or head of its own here.
        default_size: (H, W) of the images that it usually takes, where its positions are for another size.
        positions_filter: how its positions are resized, see `resize.PositionsFilter`.
        processing: how the source takes videos; None where it does not say.
        problem_type: what the outputs mean; None where the source does not say.
    """

    source: str
    config: ViViTConfig
    tensors: dict[str, Tensor]
    origin: dict[str, tuple[str, ...]]
    how: dict[str, str] = dataclasses.field(default_factory=dict)
    left: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    class_names: list[str] | dict[str, list[str]] | None = None
    class_position: Tensor | None = None
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    positions_filter: PositionsFilter = "linear"
    is_image: bool = False
    processing: Processing | None = None
    default_size: tuple[int, int] | None = None
    problem_type: ProblemType | None = None

    @classmethod
    def of_model(cls, model: nn.Module, source: str = "the given ViViT") -> "Checkpoint":
        """The weights of a ViViT in memory, a module with a `config`.

        Raises:
            TypeError: if it has no `config`.
            WeightsError: if its state holds something other than tensors, as that of a quantised model does.
        """
        tensors = {}
        for name, tensor in model.state_dict().items():
            if not isinstance(tensor, Tensor):
                raise WeightsError(
                    f"{name} is a {type(tensor).__name__}, no tensor: the model is quantised. Save it before that, "
                    "and quantise it again after loading"
                )
            tensors[name] = tensor.detach()
        names = getattr(model, "class_names", None)
        origin: dict[str, tuple[str, ...]] = {name: (name,) for name in tensors}
        further: dict[str, Any] = {name: getattr(model, name, None) for name in ("processing", "problem_type")}
        check_problem_type(further["problem_type"], source)
        further["positions_filter"] = getattr(model, "positions_filter", "linear")
        return cls(source, config_of(model), tensors, origin, class_names=names, **further)


def check_problem_type(value: Any, source: str) -> None:
    """Raise a WeightsError if a `ProblemType` is unknown; None is a source that does not say."""
    if value is not None and value not in get_args(ProblemType):
        raise WeightsError(
            f"{source}: problem_type {value!r} is unknown; it is null or one of {', '.join(get_args(ProblemType))}"
        )


def config_of(model: Any) -> ViViTConfig:
    """The configuration of a ViViT, which is known by it.

    Raises:
        TypeError: if the object has none.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, ViViTConfig):
        raise TypeError(f"a {type(model).__name__} is not a ViViT; ViViT(config_for_image(source)) builds one")
    return config


class Value(NamedTuple):
    """What a tensor of the model becomes: a tensor, the checkpoint's tensors it is made of, and how if not a copy."""

    tensor: Tensor
    sources: tuple[str, ...]
    how: str = ""


@dataclasses.dataclass
class LoadReport:
    """Where every tensor of the model is from and where every tensor of the source went. Print it.

    Args:
        source: where the weights are from.
        copied: model tensor -> the source's tensors: the same numbers, at most in another layout.
        derived: model tensor -> from which tensors, and how computed.
        new: model tensor -> how it is initialised.
        used: source tensor -> the model tensors it went into.
        left: source tensor -> why it is not used.
        notes: differences that no tensor shows, such as another activation.
    """

    source: str
    copied: dict[str, str]
    derived: dict[str, str]
    new: dict[str, str]
    used: dict[str, str]
    left: dict[str, str]
    notes: list[str]

    def __str__(self) -> str:
        lines = [f"weights from {self.source}"]
        for title, entries in [
            ("copied", self.copied),
            ("derived", self.derived),
            ("new in the model", self.new),
            ("left in the source", self.left),
        ]:
            lines.append(f"{title}: {len(entries)}")
            lines += [f"  {line}" for line in _fold_numbers(f"{name}: {text}" for name, text in entries.items())]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def _fold_numbers(lines: Iterable[str]) -> list[str]:
    """Lines that differ in the number of a block alone, as one: `blocks.0.norm1` ... -> `blocks.{0-11}.norm1`."""
    numbers: dict[str, list[int]] = {}
    for line in lines:
        found = re.search(r"(?:blocks\.|layers?\.|encoderblock_|encoder_layer_)(\d+)", line)
        key = (
            line
            if found is None
            else re.sub(rf"(blocks\.|layers?\.|encoderblock_|encoder_layer_){found[1]}\b", r"\1{}", line)
        )
        numbers.setdefault(key, []).extend([] if found is None else [int(found[1])])
    return [
        key.replace("{}", f"{{{min(found)}-{max(found)}}}" if len(found) > 1 else str(found[0])) if found else key
        for key, found in numbers.items()
    ]


def check(
    model: nn.Module,
    checkpoint: Checkpoint,
    values: Mapping[str, Value],
    new: Mapping[str, str],
    left: Mapping[str, str],
) -> None:
    """What `fill` checks before it changes anything; needs no more of the model than its names and shapes."""
    state = model.state_dict()
    used = {name for value in values.values() for name in value.sources}
    missing = [name for name in state if name not in values and name not in new]
    unexplained = [name for name in checkpoint.tensors if name not in used and name not in left]
    shapes = [
        f"{name} is {tuple(value.tensor.shape)}, the model takes {tuple(state[name].shape)}"
        for name, value in values.items()
        if name in state and value.tensor.shape != state[name].shape
    ]
    for problem, names in [
        ("has nothing for", missing),
        ("has tensors that the model has no place for:", [f"{n} ({_join(checkpoint, [n])})" for n in unexplained]),
        ("has wrong shapes:", shapes),
        ("was given names that the model does not have:", [name for name in values if name not in state]),
    ]:
        if names:
            raise WeightsError(f"{checkpoint.source} {problem} {_some(names)}")


@torch.no_grad()
def fill(
    model: nn.Module,
    checkpoint: Checkpoint,
    values: Mapping[str, Value],
    new: Mapping[str, str],
    left: Mapping[str, str],
) -> LoadReport:
    """Put the values into the model and account for every tensor on both sides.

    A class token may come in float64, as the exact sum of a token and its position; `ClassToken.rest` gets what the
    model's own precision cannot hold.

    Args:
        model: any module; its state dictionary is what must be covered.
        checkpoint: where the values are from.
        values: model tensor -> its value.
        new: model tensor -> how it is initialised already.
        left: tensor of the checkpoint (our name) -> why it is not used.

    Raises:
        WeightsError: if a tensor of the model has no value, a tensor of the source no use and no reason, or a shape
            differs.
    """
    check(model, checkpoint, values, new, left)
    used = {name for value in values.values() for name in value.sources}
    bad = [name for name, value in values.items() if not value.tensor.isfinite().all()]
    if bad:
        warnings.warn(f"{checkpoint.source} has NaN or infinite values in {_some(bad)}", stacklevel=3)
    model.load_state_dict({name: value.tensor for name, value in values.items()}, strict=False)
    for name, module in model.named_modules():
        if isinstance(module, ClassToken) and f"{name}.token" in values:
            rest = values[f"{name}.token"].tensor.to(module.token).double()
            rest = values[f"{name}.token"].tensor.to(rest) - rest
            module.rest = rest.to(module.token) if rest.any() else None

    report = LoadReport(checkpoint.source, {}, {}, dict(new), {}, dict(checkpoint.left), list(checkpoint.notes))
    for name, value in values.items():
        hows = [checkpoint.how[source] for source in value.sources if source in checkpoint.how]
        how = "; ".join(dict.fromkeys([*hows, value.how])).strip("; ")
        names = _join(checkpoint, value.sources)
        if how:
            report.derived[name] = f"{how} ({names})" if names else how
        else:
            report.copied[name] = names
        for source in value.sources:
            for theirs in checkpoint.origin.get(source, ()):
                report.used[theirs] = f"{report.used[theirs]}, {name}" if theirs in report.used else name
    for name, why in left.items():
        if name in checkpoint.tensors and name not in used:
            report.left |= {theirs: why for theirs in checkpoint.origin.get(name, ()) if theirs not in report.used}
    return report


def _join(checkpoint: Checkpoint, names: Iterable[str]) -> str:
    return " + ".join(theirs for name in names for theirs in checkpoint.origin.get(name, ()))


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
