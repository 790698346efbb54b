"""`Family`: one family of transformers' models as data, and the reader and the writer that serve all of them."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.names import Table, count_blocks, export_tensors, fold_notes, import_tensors
from vivit_zoo.weights.processing import (
    Processing,
    own_processor,
    processing_from_json,
    processing_notes,
    processing_to_json,
)
from vivit_zoo.weights.report import Checkpoint, WeightsError, check_problem_type
from vivit_zoo.weights.resize import PositionsFilter, fold_pixels, unfold_pixels

__all__ = ["Family", "defaults", "read_family", "unlike", "write_family"]

# Fields of our configuration -> of theirs with the same meaning, where a family has them and does not say otherwise.
SHARED = {
    "num_frames": "num_frames",
    "image_size": "image_size",
    "in_chans": "num_channels",
    "dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "norm_eps": "layer_norm_eps",
    "qkv_bias": "qkv_bias",
    "drop": "hidden_dropout_prob",
    "attn_drop": "attention_probs_dropout_prob",
    "drop_path": "drop_path_rate",
    "mlp_ratio": "mlp_ratio",
    "temporal_depth": "num_temporal_layers",
    "attn_softcap": "attn_logit_softcapping",
}
# What most of transformers' configurations assume where config.json is silent.
DEFAULTS = {
    "num_channels": 3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
}


def defaults(without: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """`DEFAULTS` without some fields and with others."""
    return {name: value for name, value in DEFAULTS.items() if name not in without} | more


ACTS = {
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
}
SAVED_ACTS = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu", "silu": "silu"}
LARGEST = 1 << 24  # tokens: a broken configuration must not make a model of any size
WRITTEN = {"mlp_ratio", "act", "tubelet_size", "num_classes"}  # in every family, but not under one name
# What has no effect on a trained model of most families.
IGNORED = frozenset({
    "drop_path", "order", "share_class_token", "attn_pool",
    "temporal_depth", "temporal_num_heads", "temporal_mlp_ratio", "temporal_per_place",
})  # fmt: skip

Pattern = str | Callable[[re.Match[str]], str]


def _nothing(*_: Any) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One family of transformers' models, as a ViViT.

    Args:
        name: for messages.
        architecture: transformers' class with a classifier.
        prefix: before their names in such a class; the table's names go without.
        bare: beginnings of those names that have no prefix there.
        renames: patterns in other versions' names, without prefix -> what the table has.
        defaults: fields of their configuration -> values where config.json is silent.
        fields: names of our fields -> of theirs, beyond `SHARED`.
        fixed: names of our fields -> values that this family can have, the first one where nothing says more.
        ignored: names of our fields that mean nothing here.
        read: (their configuration, their tensors) -> more fields of ours. Raises ValueError for what cannot be ours.
        table: our configuration -> the table of names.
        left: patterns of their names that are not used -> why.
        processing: how these models take videos where no file says it; None for models that take pixels in [-1, 1].
        positions_filter: the rule for positions of another grid.
        finish: changes a checkpoint when it has been read; `prepare` the tensors before they are written.
        writable: whether `write_family` writes it.
        refuse: our configuration -> what else a model of the family cannot have.
        processor: file name of the processor's configuration when it is written, and fields beside those of
            `processing`.
    """

    name: str
    architecture: str
    prefix: str
    bare: tuple[str, ...] = ("classifier.",)
    renames: Mapping[str, Pattern] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any]
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]]
    ignored: frozenset[str] = IGNORED
    read: Callable[[Mapping[str, Any], Mapping[str, Tensor]], dict[str, Any]] = _nothing
    table: Callable[[ViViTConfig], Table]
    left: Mapping[str, str] = dataclasses.field(default_factory=dict)
    processing: Processing | None = None
    positions_filter: PositionsFilter = "linear"
    finish: Callable[[Checkpoint], None] = lambda checkpoint: None
    prepare: Callable[[dict[str, Tensor]], None] = lambda tensors: None
    writable: bool = False
    refuse: Callable[[ViViTConfig], list[str]] = lambda config: []
    processor: tuple[str, Mapping[str, Any]] = ("preprocessor_config.json", MappingProxyType({}))

    @property
    def shared(self) -> dict[str, str]:
        """Names of our fields -> of theirs, those that their configuration has."""
        names = SHARED | dict(self.fields)
        return {ours: theirs for ours, theirs in names.items() if theirs in self.defaults}

    def table_name(self, name: str) -> str:
        """Any of the known names -> the one of the table."""
        name = name.removeprefix(self.prefix)
        for pattern, new in self.renames.items():
            name = re.sub(pattern, new, name)
        return name


def read_family(
    family: Family,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: str,
    processor: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """A model of transformers in our terms.

    Args:
        family: what it is of.
        config: what config.json holds; unknown keys have no effect.
        tensors: under the names of any version, with or without the prefix and the classifier.
        source: for messages.
        processor: what its processor's file holds; None where there is none.

    Raises:
        WeightsError: where these contradict each other, or ask for what a ViViT does not have.
    """
    check_problem_type(config.get("problem_type"), source)
    theirs = {family.table_name(name): tensor for name, tensor in tensors.items()}
    own_names: dict[str, str] = {}
    for name in tensors:
        if (other := own_names.setdefault(family.table_name(name), name)) != name:
            raise WeightsError(f"{source} has one tensor twice, as {other} and as {name}; delete one of them")
    ours, notes = _config(family, config, theirs, source)
    table = family.table(ours)
    for prefix, count in _stacks(table, ours):
        if (found := count_blocks(theirs, prefix)) != count:
            raise WeightsError(f"{source}: config.json says {count} layers, the weights have {found} ({prefix}*)")
    names = list(_names(table, ours))
    found_tensors, origin = import_tensors(table, names, theirs, source)
    used = {other for others in origin.values() for other in others}
    left, unknown = {}, []
    for name in theirs.keys() - used:
        reason = next((why for pattern, why in family.left.items() if re.match(pattern, name)), None)
        if reason is None:
            unknown.append(own_names[name])
        else:
            left[own_names[name]] = reason
    if unknown:
        some = ", ".join(sorted(unknown)[:6])
        raise WeightsError(f"{source} has tensors that no {family.name} has: {some}")
    checkpoint = Checkpoint(
        source,
        ours,
        found_tensors,
        {name: tuple(own_names[other] for other in others) for name, others in origin.items()},
        how=fold_notes(table, names),
        left=left,
        notes=notes,
        class_names=class_names(config, ours),
        problem_type=config.get("problem_type"),
        positions_filter=family.positions_filter,
    )
    family.finish(checkpoint)
    if family.processing is not None:
        _fold_processing(checkpoint, family, processor)
    return checkpoint


def _config(
    family: Family, config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str
) -> tuple[ViViTConfig, list[str]]:
    """Our configuration for theirs, with notes on what had to be rounded.

    transformers drops the frames and pixels that fill no tubelet; here a clip has none of these.
    """
    given = {name: value for name, value in config.items() if value is not None}
    theirs = dict(family.defaults) | {name: value for name, value in given.items() if name in family.defaults}
    act = theirs["hidden_act"]
    if not isinstance(act, str) or act not in ACTS:
        raise WeightsError(f"{source}: hidden_act {act!r} is not among {', '.join(ACTS)}")
    notes = []
    try:
        fields = {name: values[0] for name, values in family.fixed.items()}
        fields |= {ours: theirs[name] for ours, name in family.shared.items()}
        fields |= {"act": ACTS[act], "tubelet_size": _tubelet(theirs), "qkv_bias": bool(fields["qkv_bias"])}
        head = tensors.get("classifier.weight")
        fields["num_classes"] = 0 if head is None else len(head)
        if "intermediate_size" in theirs:
            fields["mlp_ratio"] = theirs["intermediate_size"] / theirs["hidden_size"]
        fields |= family.read(theirs | {name: given[name] for name in given.keys() - theirs.keys()}, tensors)
        size = fields["image_size"]
        sides = (fields["num_frames"], *((size, size) if isinstance(size, int) else size))
        whole = tuple(side - side % step for side, step in zip(sides, fields["tubelet_size"], strict=True))
        if whole != sides:
            tubelet = fields["tubelet_size"]
            notes.append(f"{sides} is not divisible by {tubelet}: as transformers drops the rest, this takes {whole}")
        ours = ViViTConfig(**(fields | {"num_frames": whole[0], "image_size": whole[1:]}))
        if math.prod(ours.grid) > LARGEST:
            raise ValueError(f"it makes {math.prod(ours.grid)} tokens, more than {LARGEST}")
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{source}: config.json cannot be used: {error}") from error
    return ours, notes


def _tubelet(theirs: Mapping[str, Any]) -> tuple[int, ...]:
    if "patch_size" not in theirs:
        return tuple(theirs["tubelet_size"])
    patch = theirs["patch_size"]
    return theirs.get("tubelet_size", 1), *((patch, patch) if isinstance(patch, int) else patch)


def _depth(ours: str, config: ViViTConfig) -> int:
    """Blocks in the stack of a name with `{}`."""
    if "attn_pool." in ours:
        return config.attn_pool.depth if config.attn_pool else 0
    if ours.startswith("encoder.temporal."):
        return config.temporal_depth or 0
    return config.depth


def _stacks(table: Table, config: ViViTConfig) -> set[tuple[str, int]]:
    rows = [(ours, theirs) for ours, (theirs, _) in table.items() if "{}" in theirs]
    return {(theirs.split("{}")[0], _depth(ours, config)) for ours, theirs in rows}


def _names(table: Table, config: ViViTConfig) -> Iterator[str]:
    """The names of ours that the table has and a model of the configuration needs."""
    for name in table:
        without_bias = not config.qkv_bias and name.endswith(".qkv.bias") and "attn_pool." not in name
        if without_bias or (name.startswith("head.") and not config.num_classes):
            continue
        numbers = range(_depth(name, config)) if "{}" in name else [0]
        yield from (name.replace("{}", str(number)) for number in numbers)


def _fold_processing(checkpoint: Checkpoint, family: Family, processor: Mapping[str, Any] | None) -> None:
    processing, channels = _default_processing(family, checkpoint.config), checkpoint.config.in_chans
    if processor is None:
        checkpoint.notes.append(
            f"the source has no processor's file: its pixels are taken to have mean {processing.mean} and deviation "
            f"{processing.std}, as {family.name}'s files on the hub say"
        )
    else:
        try:
            processing = processing_from_json(processor, processing)
            checkpoint.notes += processing_notes(processor, processing, checkpoint.config.frame_size)
        except (AttributeError, TypeError, ValueError) as error:
            raise WeightsError(f"{checkpoint.source}: its processor's file cannot be used: {error}") from error
    if len(processing.mean) != channels:
        raise WeightsError(
            f"{checkpoint.source}: its processor has {len(processing.mean)} channels, config.json says {channels}"
        )
    weight, bias = "tubelet_embed.proj.weight", "tubelet_embed.proj.bias"
    tensors = checkpoint.tensors
    columns = math.prod((channels, *checkpoint.config.tubelet_size))
    if tensors[weight].ndim != 2 or tensors[weight].shape[1] != columns:
        raise WeightsError(
            f"{checkpoint.source}: config.json says {channels} channels and tubelets of "
            f"{checkpoint.config.tubelet_size}, which is {columns} numbers; the weights have {tensors[weight].shape[1]}"
        )
    kernel = tensors[weight].unflatten(1, (channels, *checkpoint.config.tubelet_size))
    kernel, tensors[bias] = fold_pixels(kernel, tensors[bias], processing.mean, processing.std)
    tensors[weight] = kernel.flatten(1)
    how = f"for pixels in [-1, 1]; the source's have mean {processing.mean}, deviation {processing.std}"
    checkpoint.how |= {weight: how, bias: how}
    checkpoint.origin[bias] = (*checkpoint.origin[weight], *checkpoint.origin[bias])
    checkpoint.processing = processing


def _default_processing(family: Family, config: ViViTConfig) -> Processing:
    """The family's, for the size and the channels of a model."""
    assert family.processing is not None
    side = family.defaults[family.shared["image_size"]]
    processing = family.processing.for_sizes((side, side), config.frame_size)
    if len(processing.mean) == config.in_chans:
        return processing
    plain = (0.5,) * config.in_chans  # the family's are those of colours
    return dataclasses.replace(processing, mean=plain, std=plain)


def class_names(config: Mapping[str, Any], ours: ViViTConfig) -> list[str] | None:
    """The names in `id2label`; None where they are missing, too few, or transformers' own LABEL_0, LABEL_1, ..."""
    labels = config.get("id2label")
    count = ours.num_classes if isinstance(ours.num_classes, int) else 0
    found = [labels.get(str(i)) for i in range(count)] if isinstance(labels, Mapping) else []
    names = [name for name in found if isinstance(name, str)]
    return names if len(names) == count > 0 and names != [f"LABEL_{i}" for i in range(count)] else None


def unlike(family: Family, config: ViViTConfig) -> list[str]:
    """What a configuration has that no model of the family has."""
    free = family.shared.keys() | family.ignored | WRITTEN
    wrong = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        allowed = family.fixed.get(field.name, (field.default,))
        if field.name not in free and value not in allowed:
            wrong.append(f"{field.name} {value!r}")
    if not isinstance(config.num_classes, int) or config.num_classes == 0:
        wrong.append(f"num_classes {config.num_classes}")
    return wrong + family.refuse(config)


def write_family(
    family: Family, model_type: str, checkpoint: Checkpoint
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, dict[str, Any]]]:
    """config.json, tensors, and other files by name, for a checkpoint that is not `unlike` the family.

    Raises:
        WeightsError: on a tensor that has no way back.
    """
    temporal_depth = count_blocks(checkpoint.tensors, "encoder.temporal.blocks.")
    config = checkpoint.config.replace(temporal_depth=temporal_depth or None)  # None is the encoder's own number
    size: Any = config.frame_size
    size = size[0] if size[0] == size[1] else list(size)
    names = checkpoint.class_names or [f"LABEL_{i}" for i in range(config.num_classes)]  # type: ignore[arg-type]
    theirs = dict(family.defaults) | {name: getattr(config, ours) for ours, name in family.shared.items()}
    theirs[family.shared["image_size"]] = size
    if "intermediate_size" in theirs:
        theirs["intermediate_size"] = round(config.dim * config.mlp_ratio)
    t, h, w = config.tubelet_size
    theirs["tubelet_size"] = list(config.tubelet_size)
    if "patch_size" in theirs:
        theirs |= {"tubelet_size": t, "patch_size": h if h == w else [h, w]}
    theirs |= {
        "architectures": [family.architecture],
        "model_type": model_type,
        "hidden_act": SAVED_ACTS[config.act],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": checkpoint.problem_type,
    }
    tensors = {name: tensor.cpu() for name, tensor in checkpoint.tensors.items()}
    family.prepare(tensors)
    if family.processing is None:
        processor = own_processor(config)
    else:
        processing = checkpoint.processing or _default_processing(family, config)
        weight, bias = "tubelet_embed.proj.weight", "tubelet_embed.proj.bias"
        kernel = tensors[weight].unflatten(1, (config.in_chans, t, h, w))
        kernel, tensors[bias] = unfold_pixels(kernel, tensors[bias], processing.mean, processing.std)
        tensors[weight] = kernel.flatten(1)
        processor = processing_to_json(processing, config.frame_size)
    table = family.table(config)
    written = export_tensors(table, tensors, t=t, h=h, w=w)
    written = {
        name if name.startswith(family.bare) else family.prefix + name: tensor for name, tensor in written.items()
    }
    file, more = family.processor
    return theirs, written, {file: processor | dict(more)}
