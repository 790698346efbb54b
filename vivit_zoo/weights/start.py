"""`init_from_image`: start a video model from an image model (paper, section 3.4), or from another ViViT."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.image import image_config
from vivit_zoo.weights.original import read_image
from vivit_zoo.weights.report import Checkpoint, LoadReport, Value, WeightsError, config_of, fill
from vivit_zoo.weights.resize import PositionsFilter, Tubelet
from vivit_zoo.weights.rules import FIRST, SPATIAL, ClassTokenRule, Positions, Rules, Temporal
from vivit_zoo.weights.sources import Source, open_source

__all__ = ["config_for_image", "init_from_image"]

PixelRule = Literal["fold", "keep"]
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
    rule = Rules(config, state, checkpoint, tubelet, positions, temporal, class_token)
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
