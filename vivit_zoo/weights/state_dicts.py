"""Weights as training scripts save them: a nested or prefixed `state_dict()` of an architecture given by its name."""

import re
from collections.abc import Mapping
from importlib import import_module
from math import isqrt
from typing import Any

from torch import Tensor, nn

from vivit_zoo.weights.files import plain
from vivit_zoo.weights.folds import ImageModel
from vivit_zoo.weights.report import WeightsError
from vivit_zoo.weights.timm import build_timm, read_timm
from vivit_zoo.weights.torchvision import build_torchvision, read_torchvision

__all__ = ["read_state_dict"]

# Where training scripts put the weights, the average of the training before the last step's.
NESTED = ("model_ema", "state_dict_ema", "ema", "teacher", "state_dict", "model", "module", "net", "student")
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
PATCHES = re.compile(r"^(.*?)(patch_embed|embeds|conv_proj)(\.proj)?\.weight$")
AVERAGES = ("teacher", "ema", "momentum", "target")
# What an image model cannot do without; anything else in a file may be a head or a decoder.
BODY = re.compile(
    r"^(patch_embed|embeds|conv_proj|blocks|norm|norm_pre|pos_embed|cls_token|reg_token|class_token|encoder)\b"
)


def read_state_dict(content: Any, arch: str | None, source: str) -> ImageModel:
    """The image model of an architecture with the tensors of a dictionary.

    Args:
        content: a `state_dict()`, or what a training script saves around one.
        arch: timm's or torchvision's name of the architecture.
        source: for messages.

    Raises:
        WeightsError: if the architecture is missing or unknown, or the tensors are not its own.
    """
    tensors, notes = _flat(content, source)
    if arch is None:
        raise WeightsError(
            f"{source} holds tensors that do not say what model they are of; pass arch= the name of timm's or "
            f"torchvision's model, such as arch='vit_small_patch16_224' (it has {', '.join(list(tensors)[:4])}, ...)"
        )
    prefix = _prefix(tensors, source)
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    left = {name: "not part of the image model" for name in tensors if not name.startswith(prefix)}
    is_tv = build_torchvision(arch)
    model = is_tv or build_timm(arch)
    size = _image_size(model, state, source)
    if size is not None:
        model = build_torchvision(arch, image_size=size) or build_timm(arch, img_size=size)
    names = set(state)
    state = _in_timms_names(model, state, source)
    unexpected = _load(model, state, arch, source)
    image = read_torchvision(model, source) if is_tv else read_timm(model, source)
    image.origin = {
        ours: tuple(prefix + name if name in names else name for name in theirs)
        for ours, theirs in image.origin.items()
    }
    left |= {prefix + name: f"not part of {arch}" for name in unexpected}
    left |= {prefix + name: "renamed or left out by timm's reader" for name in names - state.keys()}
    image.left = left
    image.notes += notes
    if image.pixels is not None:
        image.notes.append(f"pixels are taken to be those of {arch}; if they were not, pass mean= and std=")
    return image


def _flat(content: Any, source: str) -> tuple[dict[str, Tensor], list[str]]:
    """The innermost dictionary of tensors, and a note where others stand beside it."""
    path: list[str] = []
    notes = []
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inside = [key for key in NESTED if isinstance(content.get(key), Mapping) and content[key]]
        if not inside:
            break
        if len(inside) > 1:
            notes.append(f"{source} has {' and '.join(inside)}; {inside[0]} is taken")
        path.append(inside[0])
        content = content[inside[0]]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{source} holds a {type(content).__name__}, not a dictionary of tensors")
    packed = {
        name: value for name, value in content.items() if isinstance(value, Tensor) or "_packed_params" in str(name)
    }
    if not packed:
        raise WeightsError(
            f"{source} holds no dictionary of tensors, not even under {', '.join(NESTED)}; it has "
            f"{', '.join(map(str, list(content)[:6])) or 'nothing'}"
        )
    return plain(packed, source), notes


def _prefix(names: Mapping[str, Tensor], source: str) -> str:
    """What stands before each of the image model's names."""
    found = list(dict.fromkeys(match[1] for name in names if (match := PATCHES.match(name))))
    averages = [prefix for prefix in found if any(word in prefix for word in AVERAGES)]
    if len(found) > 1 and len(averages) == 1:
        found = averages
    if len(found) > 1:
        raise WeightsError(
            f"{source} has several image models, below {', '.join(map(repr, found))}; pass the tensors of one of them, "
            "without that prefix, as a dictionary"
        )
    prefix = found[0] if found else ""
    while not found and (more := next((w for w in WRAPPERS if all(n.startswith(prefix + w) for n in names)), None)):
        prefix += more
    return prefix


def _image_size(model: Any, state: Mapping[str, Tensor], source: str) -> int | None:
    """The size of square images that the positions are for; None where the model has it already."""
    table, embed = state.get("pos_embed", state.get("encoder.pos_embedding")), getattr(model, "patch_embed", None)
    mine = getattr(model, "pos_embed", None)
    if hasattr(model, "encoder"):
        mine, embed = model.encoder.pos_embedding, model
    if table is None or mine is None or embed is None or table.shape == mine.shape or table.ndim != 3:
        return None
    patch = embed.patch_size if isinstance(embed.patch_size, int) else embed.patch_size[0]
    for extra in range(getattr(model, "num_prefix_tokens", 1) + 1):
        side = isqrt(table.shape[1] - extra)
        if side * side == table.shape[1] - extra:
            grid = getattr(embed, "grid_size", None)
            return None if grid == (side, side) else side * patch
    raise WeightsError(
        f"{source} has positions for {table.shape[1]} tokens, which are those of no square image; build the model with "
        "its image size, load the tensors into it, and pass the model"
    )


def _in_timms_names(model: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The names that timm's own reader of this family makes of published ones."""
    convert = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(state, model))
    except Exception as error:
        # timm's readers fail in as many ways as there are foreign tensors; there is no common class of these.
        raise WeightsError(f"timm cannot read {source}: {type(error).__name__}: {error}") from error


def _load(model: nn.Module, state: Mapping[str, Tensor], arch: str, source: str) -> list[str]:
    """Put the tensors into the model; the names of those that are not part of it."""
    heads = [name for name in state if re.match(r"heads?\.", name)]
    body = {name: tensor for name, tensor in state.items() if name not in heads}
    try:
        missing, unexpected = model.load_state_dict(body, strict=False, assign=True)
    except RuntimeError as error:
        lines = "; ".join(line.strip() for line in str(error).split("\n")[1:3])
        raise WeightsError(f"{source} does not fit {arch}: {lines}") from error
    missing = [name for name in missing if not name.startswith("head")]
    foreign = [name for name in unexpected if BODY.match(name)]
    if missing or foreign:
        has = f"lacks {', '.join(missing[:4])}" if missing else f"has {', '.join(foreign[:4])} beside"
        raise WeightsError(f"{source} does not fit {arch}: it {has}; is it another architecture?")
    return [*unexpected, *heads]
