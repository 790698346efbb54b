"""`init_from_image`: start a video model from an image model (paper, section 3.4), or from another ViViT."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.image import image_config
from vivit_zoo.weights.original import read_image
from vivit_zoo.weights.report import Checkpoint, LoadReport, Value, WeightsError, config_of, fill
from vivit_zoo.weights.resize import (
    PositionsFilter,
    Tubelet,
    fold_pixels,
    inflate_kernel,
    resize_kernel,
    resize_positions,
)
from vivit_zoo.weights.sources import Source, open_source

__all__ = ["config_for_image", "init_from_image"]

Positions = Literal["tile", "resize", "resize_tile"]
Temporal = Literal["zero_out", "copy", "zero", "random"]
ClassTokenRule = Literal["copy", "keep"]
PixelRule = Literal["fold", "keep"]
SPATIAL, TEMPORAL = "encoder.spatial.", "encoder.temporal."
KERNEL = "tubelet_embed.proj.weight"
FIRST = "blocks.0.norm1.weight"  # every encoder has it
# What must be equal and no shape shows.
ALIKE = (
    *("dim", "depth", "num_heads", "in_chans", "norm", "patch_norm", "pre_norm", "gated", "qk_norm"),
    *("attn_inner_norm", "mlp_inner_norm", "attn_softcap", "rel_pos"),
)


def init_from_image(
    model: nn.Module,
    source: Source,
    tubelet: Tubelet = "central_frame",
    positions: Positions = "tile",
    temporal: Temporal = "zero_out",
    class_token: ClassTokenRule | None = None,
    *,
    pixels: PixelRule = "fold",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    positions_filter: PositionsFilter | None = None,
    arch: str | None = None,
) -> LoadReport:
    """Load the weights of an image model into a video model, in place. Tensors that the source lacks are not changed.

    Paper section 3.4. `config_for_image` makes a configuration that fits the image model. The head is not changed, and
    the temporal encoder of the factorised encoder only if the source has one.

    Args:
        model: any variant.
        source: one of
            - an image model in memory, of timm, torchvision or transformers, or another ViViT; also inside of
              DistributedDataParallel, DataParallel, torch.compile or an average of weights;
            - timm's name of one ("vit_base_patch16_224.augreg_in21k");
            - a folder of timm's ("local-dir:" before it or not), of an image model of transformers, or of a ViViT; or
              the id of one on the hub ("google/vivit-b-16x2-kinetics400", "timm/vit_base_patch16_224.augreg_in21k"):
              a name with "/" and without ":";
            - a file of weights or a `state_dict()`, of the architecture `arch`; nested or with prefixes, as training
              scripts save them;
            - an original JAX checkpoint (msgpack, or .npz).
        tubelet: how the kernel reaches over several frames, see `resize.inflate_kernel`; "random" keeps the model's
            own. The kernel of a video source is copied, or shared out over another length (`resize.resize_kernel`).
        positions: "tile" repeats the image's positions on every frame, and needs the image's own grid; "resize"
            interpolates them over height, width and (from a video, linearly) time; "resize_tile" interpolates each
            frame, then tiles.
        temporal: Model 3's attention over time. "zero_out" zeroes its output projection alone: the model starts as the
            image model on each frame, and all of it trains. "copy": the image's attention, as the original code's
            default. "zero": all its weights are zero, as the paper says; the gradient of its queries, keys, values and
            kernels is then zero for good, and only the last bias ever learns. "random" keeps the model's own. No other
            variant has weights that this concerns; a source that is a Model 3 gives its own.
        class_token: "copy" takes the source's token and its position. "keep" keeps the model's token and adds the
            position, as the original code does in the factorised encoder, where the token's name differs. None: "keep"
            for original image checkpoints in a factorised encoder, so that they start as in the original, "copy"
            everywhere else.
        pixels: clips come in [-1, 1]. "fold" changes kernel and bias, exactly, so that the model then computes what the
            image model computes on pixels as it was trained with; "keep" copies them.
        mean, std: of pixels in [0, 1], one number or one a channel, that the source was trained with; None for what
            the source says. Where it says nothing it is taken to know pixels in [-1, 1].
        positions_filter: how positions are resized over height and width. "bicubic": with antialiasing, as timm does;
            "linear": along each axis, corner on corner, as the original code does. None: "bicubic" for image models,
            "linear" for original checkpoints and videos.
        arch: of weights without a configuration, timm's or torchvision's name of the model they are of.

    Returns:
        The report: print it.

    Raises:
        WeightsError: if the source cannot be read, is no ViT, or does not fit; nothing has been changed then.
        ValueError: on an unknown rule, or a mean or standard deviation that does not fit the channels.
        TypeError: if the model is no ViViT, or the source none of these.
    """
    config = config_of(model)
    for name, given, known, optional in (
        ("tubelet", tubelet, Tubelet, False),
        ("positions", positions, Positions, False),
        ("temporal", temporal, Temporal, False),
        ("pixels", pixels, PixelRule, False),
        ("class_token", class_token, ClassTokenRule, True),
        ("positions_filter", positions_filter, PositionsFilter, True),
    ):
        if given not in get_args(known) and not (optional and given is None):
            raise ValueError(f"{name} {given!r} is unknown; choose from {', '.join(get_args(known))}")
    checkpoint, original = _read_source(model, source, arch)
    _set_pixels(checkpoint, pixels, mean, std)
    checkpoint.positions_filter = positions_filter or checkpoint.positions_filter
    _check_alike(model, checkpoint)
    state = model.state_dict()
    if class_token is None:
        image = not any(name.startswith(SPATIAL) for name in checkpoint.tensors)
        class_token = "keep" if original and image and SPATIAL + FIRST in state else "copy"
    values: dict[str, Value] = {}
    new: dict[str, str] = {}
    rule = _Rules(config, state, checkpoint, tubelet, positions, temporal, class_token)
    for name in state:
        value = rule.value(name)
        if isinstance(value, str):
            new[name] = value
        elif value is not None:
            values[name] = value
    return fill(model, checkpoint, values, new, rule.left())


def _set_pixels(
    checkpoint: Checkpoint, rule: PixelRule, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """Settle which mean and standard deviation are folded; note what stays as it is."""
    known = checkpoint.pixels or (None, None)
    m, s = (given if given is not None else value for given, value in zip((mean, std), known, strict=True))
    if (m is None) != (s is None):
        raise ValueError(f"{checkpoint.source} does not say its mean and std; give both, got mean={mean} and std={std}")
    if m is None or s is None:
        checkpoint.pixels = None
        if checkpoint.is_image:
            checkpoint.notes.append(
                "the source does not say which pixels it was trained with; they are taken to be in [-1, 1]: "
                "otherwise pass mean= and std="
            )
        return
    checkpoint.pixels = None if {*m, *s} == {0.5} else (tuple(m), tuple(s))
    if checkpoint.pixels and rule == "keep":
        checkpoint.notes.append(
            f"the image model knows pixels less a mean of {tuple(m)} over a deviation of {tuple(s)}; clips come in "
            "[-1, 1], a mean and a deviation of 0.5 (pixels='keep')"
        )
        checkpoint.pixels = None


@dataclass
class _Rules:
    """Decides the value of each tensor of the model."""

    config: ViViTConfig
    state: dict[str, Tensor]
    checkpoint: Checkpoint
    tubelet: Tubelet
    positions: Positions
    temporal: Temporal
    class_token: ClassTokenRule

    def __post_init__(self) -> None:
        self.tensors = self.checkpoint.tensors
        self.main, self.source_main = (
            SPATIAL if SPATIAL + FIRST in names else "encoder." for names in (self.state, self.tensors)
        )
        mine, theirs = ({n for n in x if n.startswith(TEMPORAL)} for x in (self.state, self.tensors))
        self.same_temporal = mine == theirs and all(
            self.state[name].shape == self.tensors[name].shape for name in mine if not name.endswith("pos_embed.table")
        )

    def value(self, name: str) -> Value | str | None:
        """The tensor's value, or how it is new, or None if the source lacks it."""
        if name.startswith("head."):
            return "kept: the head is the model's own"
        if name.startswith("pre_logits."):
            same = name in self.tensors and self.tensors[name].shape == self.state[name].shape
            return Value(self.tensors[name], (name,)) if same else "kept: the source has no such layer"
        if name in (KERNEL, KERNEL.replace("weight", "bias")):
            return self._patches(name)
        if name.startswith(TEMPORAL):
            if not self.same_temporal:
                return "kept: the source has no such temporal encoder"
            if name.endswith("pos_embed.table"):
                return self._temporal_positions(name)
            return Value(self.tensors[name], (name,))
        source = self.source_main + name.removeprefix(self.main) if name.startswith(self.main) else name
        special: dict[str, Callable[[str, str], Value | str | None]] = {
            "pos_embed.table": self._spatial_positions,
            "cls_token.token": self._token,
        }
        for ending, rule in special.items():
            if name == self.main + ending:
                return rule(name, source)
        if "_time." in name and source not in self.tensors:
            return self._time(name, source)
        if name.endswith("attn.qkv.bias") and source not in self.tensors:
            return Value(torch.zeros_like(self.state[name]), (), "zero: the source has no bias here")
        return Value(self.tensors[source], (source,)) if source in self.tensors else None

    def _kernel(self) -> Value | str:
        """The kernel over the frames of a tubelet, without the fold of pixels."""
        name, old, new = KERNEL, self.checkpoint.config.tubelet_size, self.config.tubelet_size
        if self.tubelet == "random":
            return "kept, as asked for"
        kernel = self.tensors[name]
        if old == new:
            return Value(kernel, (name,))
        if old[0] == 1:
            image = kernel.unflatten(1, (-1, *old[1:]))
            return Value(inflate_kernel(image, new[0], self.tubelet).flatten(1), (name,), f"{self.tubelet} of {new[0]}")
        return Value(resize_kernel(kernel, old, new[0]), (name,), f"shared out from {old[0]} frames to {new[0]}")

    def _patches(self, name: str) -> Value | str | None:
        """Kernel or bias of the tubelets, for pixels in [-1, 1]."""
        kernel, pixels = self._kernel(), self.checkpoint.pixels
        if name != KERNEL and name not in self.tensors:
            return None
        value = kernel if name == KERNEL else Value(self.tensors[name], (name,))
        if pixels is None or isinstance(kernel, str) or isinstance(value, str):
            return value
        bias = KERNEL.replace("weight", "bias")
        whole = kernel.tensor.unflatten(1, (self.config.in_chans, *self.config.tubelet_size))
        folded = fold_pixels(whole, self.tensors[bias], *pixels)
        how = f"pixels of mean {_numbers(pixels[0])} and std {_numbers(pixels[1])} folded in"
        tensor = folded[0].flatten(1) if name == KERNEL else folded[1]
        sources = (name,) if name == KERNEL else (bias, KERNEL)
        return Value(tensor, sources, ", ".join(filter(None, (value.how, how))))

    def _spatial_positions(self, name: str, source: str) -> Value | str:
        if source not in self.tensors:
            return "kept: the source has no positions"
        old_t, old_h, old_w = self.checkpoint.config.grid
        t, h, w = self.config.grid
        table = self.tensors[source]
        table = table if table.ndim == 3 else table[None]
        how = []
        if self.main == SPATIAL:
            if len(table) > 1:
                table, how = table.mean(0, keepdim=True), [f"mean over {old_t} frames"]
            t = 1
        if self.positions == "tile" and (old_h, old_w) != (h, w):
            raise WeightsError(
                f"{self.checkpoint.source} has positions for {old_h}x{old_w} places, the model {h}x{w}; "
                "positions='tile' needs the same, use 'resize_tile' or 'resize'"
            )
        if self.positions != "tile" and (old_h, old_w) != (h, w):
            grid = table.unflatten(1, (old_h, old_w))
            table = resize_positions(grid, (len(table), h, w), self.checkpoint.positions_filter).flatten(1, 2)
            how.append(f"{self.checkpoint.positions_filter} from {old_h}x{old_w} to {h}x{w} places")
        if len(table) != t:
            if self.positions == "resize":
                table = resize_positions(table, (t, h * w))
                how.append(f"linear over time to {t} places")
            elif t % len(table):
                raise WeightsError(
                    f"{self.checkpoint.source} has positions for {len(table)} places in time, which do not fill the "
                    f"model's {t} a whole number of times; use positions='resize'"
                )
            else:
                how.append(f"repeated {t // len(table)} times over time")
                table = table.repeat(t // len(table), 1, 1)
        return Value(table[0] if self.main == SPATIAL else table, (source,), ", ".join(how))

    def _temporal_positions(self, name: str) -> Value:
        old, new = len(self.tensors[name]), len(self.state[name])
        how = "" if old == new else f"linear from {old} to {new} places"
        return Value(resize_positions(self.tensors[name], (new,)), (name,), how)

    def _token(self, name: str, source: str) -> Value | str:
        position = self.checkpoint.class_position
        if source not in self.tensors:
            return "kept: the source has no class token"
        if self.class_token == "copy":
            return Value(self.tensors[source], (source,))
        own = self.state[name].double().cpu()
        if position is None:
            return "kept, as asked for"
        return Value(own + position, (), "the model's own token + the position of the source's (class_token='keep')")

    def _time(self, name: str, source: str) -> Value | str:
        spatial = source.replace("norm_time", "norm1").replace("attn_time", "attn")
        norm, projection = "norm_time" in name, "attn_time.proj" in name
        if self.temporal == "copy" and not norm:
            return Value(self.tensors[spatial], (spatial,)) if spatial in self.tensors else "kept: no such bias"
        if not norm and (self.temporal == "zero" or (self.temporal == "zero_out" and projection)):
            return Value(torch.zeros_like(self.state[name]), (), f"zero (temporal={self.temporal!r})")
        return "kept: an image model has no attention over time"

    def left(self) -> dict[str, str]:
        """Why tensors of the source may stay unused; those that are missing here may not."""
        left = {}
        for name in self.tensors:
            if name.startswith(("head.", "pre_logits.")):
                left[name] = "the head of the source"
            elif name == KERNEL and self.tubelet == "random":
                left[name] = "tubelet='random'"
            elif name.startswith(TEMPORAL) and not self.same_temporal:
                left[name] = "the model has no such temporal encoder"
            elif "_time." in name:
                left[name] = "the model has no attention over time in its blocks"
            elif name.endswith("cls_token.token"):
                token = self.main + "cls_token.token" in self.state
                left[name] = "class_token='keep'" if token else "the model has no class token"
            elif name.endswith("reg_tokens.tokens") and self.main + "reg_tokens.tokens" not in self.state:
                left[name] = "the model has no registers"
            elif ".attn_pool." in name and self.main + "attn_pool.query" not in self.state:
                left[name] = "the model does not pool by attention"
            elif name.endswith("pos_embed.table") and self.main + "pos_embed.table" not in self.state:
                left[name] = "the model's positions are fixed"
        return left


def config_for_image(source: Source, *, arch: str | None = None, **changes: Any) -> ViViTConfig:
    """The configuration of a video model that `init_from_image` can start from a source.

    For an image model: its width, depth, heads, activation, norms, extra tokens, positions and patches; 32 frames;
    tubelets of 2 frames, or of 1 where `num_frames` is odd; its pooling. For a ViViT: its own configuration.

    Args:
        source, arch: as for `init_from_image`. An image model on the meta device will do.
        **changes: any field of `ViViTConfig` to set, such as `variant`, `num_frames`, `num_classes`, `tubelet_size`.

    Raises:
        WeightsError: if the source cannot be read, is no ViT, or does not say what it is.
    """
    found = open_source(source, arch)
    if isinstance(found, Path):
        raise WeightsError(
            f"{found} is an original image checkpoint, which does not say what model it is of; build one"
        )
    if found.is_image:
        return image_config(found, **changes)
    return found.config.replace(**changes)


def _read_source(model: nn.Module, source: Source, arch: str | None) -> tuple[Checkpoint, bool]:
    """The source in our terms, and whether it is an original checkpoint."""
    found = open_source(source, arch)
    if not isinstance(found, Path):
        return found, False
    t, h, w = config_of(model).grid
    return read_image(found, (1 if SPATIAL + FIRST in model.state_dict() else t, h, w)), True


def _check_alike(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse what shapes do not show, such as another number of heads; note small differences."""
    mine, theirs = config_of(model), checkpoint.config
    hint = "; config_for_image makes a configuration that fits"
    meta = [name for name, tensor in checkpoint.tensors.items() if tensor.is_meta]
    if meta:
        raise WeightsError(
            f"{checkpoint.source} is on the meta device, without values ({meta[0]}); load its weights first"
        )
    wrong = [
        f"{name} {getattr(theirs, name)}, the model {getattr(mine, name)}"
        for name in ALIKE
        if getattr(mine, name) != getattr(theirs, name)
    ]
    if mine.tubelet_size[1:] != theirs.tubelet_size[1:]:
        wrong.append(f"patches of {theirs.tubelet_size[1:]}, the model {mine.tubelet_size[1:]}")
    if mine.act != theirs.act and not {mine.act, theirs.act} <= {"gelu", "gelu_tanh"}:
        wrong.append(f"act {theirs.act}, the model {mine.act}")
    # Positions over time may be added to those over space.
    if mine.rope != theirs.rope and not (mine.rope and theirs.rope and mine.rope.axes != theirs.rope.axes):
        wrong.append(f"rope {theirs.rope}, the model {mine.rope}")
    if mine.rel_pos and theirs.rel_pos and mine.grid[1:] != theirs.grid[1:]:
        places = ["x".join(map(str, config.grid[1:])) for config in (theirs, mine)]
        wrong.append(
            f"relative positions for {places[0]} places, the model {places[1]}; build the image model for images of "
            "the video's size (img_size= in timm) and pass it"
        )
    if theirs.qkv_bias and not mine.qkv_bias:
        wrong.append("biases of queries, keys and values, the model none")
    has_token = any(name.endswith("cls_token.token") for name in model.state_dict())
    registers = [
        sum(len(x[n]) for n in x if n.endswith("reg_tokens.tokens")) for x in (model.state_dict(), checkpoint.tensors)
    ]
    if (has_token or registers[0]) and registers[0] != registers[1]:
        wrong.append(f"{registers[1]} register tokens, the model {registers[0]}")
    if wrong:
        raise WeightsError(f"{checkpoint.source} has {'; '.join(wrong)}{hint}")
    for name in ("act", "norm_eps", "last_norm", "last_norm_eps", "rope"):
        if getattr(mine, name) != getattr(theirs, name):
            checkpoint.notes.append(
                f"{name} is {getattr(theirs, name)} in the source, {getattr(mine, name)} in the model"
            )


def _numbers(values: Sequence[float]) -> str:
    return "/".join(f"{value:g}" for value in values)
