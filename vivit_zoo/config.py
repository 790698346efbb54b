"""Everything that defines a model except its weights: `ViViTConfig`, and the table of sizes."""

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, Self, get_args

from torch import nn

from vivit_zoo.blocks import Order
from vivit_zoo.encoders import ENCODERS, LAST_NORMS, POOLS
from vivit_zoo.mlp import ACTS
from vivit_zoo.positions import PosEmbed, sincos_1d, sincos_3d
from vivit_zoo.tokens import uniform_frame_indices

__all__ = ["NORMS", "POS_EMBEDS", "SIZES", "AttentionPoolConfig", "RotaryConfig", "ViViTConfig", "named_config"]

POS_EMBEDS: dict[str, Callable[..., nn.Module]] = {
    "learned": PosEmbed,
    "sincos_1d": partial(PosEmbed, fixed=sincos_1d),
    "sincos_3d": partial(PosEmbed, fixed=sincos_3d),
    "none": nn.Identity,
}

NORMS: dict[str, Callable[..., nn.Module]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}

SIZES: dict[str, dict[str, int]] = {
    # Ti and S: Touvron et al., DeiT, arXiv 2012.12877, Table 1. B, L and H: ViT, arXiv 2010.11929, Table 1.
    "Ti": {"dim": 192, "depth": 12, "num_heads": 3},
    "S": {"dim": 384, "depth": 12, "num_heads": 6},
    "B": {"dim": 768, "depth": 12, "num_heads": 12},
    "L": {"dim": 1024, "depth": 24, "num_heads": 16},
    "H": {"dim": 1280, "depth": 32, "num_heads": 16},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """Rotary positions of queries and keys; see `vivit_zoo.positions.RotaryEmbed`.

    Args:
        axes: "hw" rotates by rows and columns; "thw" by time, rows and columns.
        base: base of the frequencies.
        coords: "centred" or "index".
        reference: (h, w), the grid whose size the indices are scaled to; None for no scaling.
        offset: added to each index.
        learned: whether each head learns its frequencies.
        tiled: whether the two channels of a pair turn by different angles, as in V-JEPA 2.

    Raises:
        ValueError: on any value that cannot work, with the values that can.
    """

    axes: str = "hw"
    base: float = 100.0
    coords: str = "centred"
    reference: tuple[float, float] | None = None
    offset: float = 0.0
    learned: bool = False
    tiled: bool = False

    def __post_init__(self) -> None:
        for name, known in (("axes", ("hw", "thw")), ("coords", ("centred", "index"))):
            value = getattr(self, name)
            _check(value in known, f"rope.{name} {value!r} is unknown; choose from {', '.join(known)}")
        _check(_is_number(self.base) and self.base > 1, f"rope.base {self.base!r} is not above 1")
        _check(_is_number(self.offset), f"rope.offset {self.offset!r} is not a number")
        if self.reference is not None:
            fits = len(self.reference) == 2 and all(_is_number(side) and side > 0 for side in self.reference)
            _check(fits, f"rope.reference takes two positive numbers (h, w), got {self.reference!r}")
            object.__setattr__(self, "reference", tuple(self.reference))
        for name in ("learned", "tiled"):
            value = getattr(self, name)
            _check(isinstance(value, bool), f"rope.{name} is True or False, got {value!r}")
        _check(not (self.learned and self.tiled), "rope.learned and rope.tiled exclude each other")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionPoolConfig:
    """The pooling of `global_pool="attention"`; see `vivit_zoo.pooling.AttentionPool`.

    Args:
        num_heads: number of heads; None for that of the blocks.
        depth: blocks of self-attention before the query.
        inner_dim: width of query, keys and values; None for that of the tokens.
        mlp_ratio: hidden width of the MLP after the attention over that of the tokens; None for no MLP.
        pre_norm: whether a norm of the tokens stands before keys and values.

    Raises:
        ValueError: on any value that cannot work, with the values that can.
    """

    num_heads: int | None = None
    depth: int = 0
    inner_dim: int | None = None
    mlp_ratio: float | None = 4.0
    pre_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("num_heads", "inner_dim"):
            _check_counts(f"attn_pool.{name}", getattr(self, name), least=1, optional=True)
        _check_counts("attn_pool.depth", self.depth, least=0)
        ratio = self.mlp_ratio
        _check(ratio is None or (_is_number(ratio) and ratio > 0), f"attn_pool.mlp_ratio {ratio!r} is not positive")
        _check(isinstance(self.pre_norm, bool), f"attn_pool.pre_norm is True or False, got {self.pre_norm!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViViTConfig:
    """Everything that defines a ViViT except its weights. The defaults are ViViT-B/16x2 on Kinetics-400.

    Args:
        variant: a key of `vivit_zoo.encoders.ENCODERS`: "joint", "factorised_encoder", "factorised_self_attention",
            "factorised_dot_product".
        num_classes: number of classes; 0 for no head; or several heads by name, such as {"noun": 300, "verb": 97}.
        num_frames: frames T of a clip.
        image_size: (H, W) in pixels, or one number for a square.
        tubelet_size: (t, h, w) in frames and pixels; each must divide its side of the clip.
        sampled_frames: None, or the number of frames that the model picks evenly out of `num_frames` before it cuts
            tubelets ("uniform frame sampling", paper section 3.2; `tokens.uniform_frame_indices`).
        in_chans: channels of the video.
        dim, depth, num_heads, mlp_ratio: width, blocks, attention heads, hidden width of the MLP over `dim`.
        temporal_depth, temporal_num_heads, temporal_mlp_ratio: of the factorised encoder's temporal encoder; None for
            its own default, 4 blocks built like the spatial ones. A depth of 0 is the paper's average-pool baseline.
        temporal_per_place: whether the factorised encoder's temporal encoder runs at each place over the frames, and
            not over the pooled frames (VideoPrism).
        qkv_bias: whether queries, keys and values have a bias.
        act: "gelu_tanh" (the released checkpoints'), "gelu", "quick_gelu" or "silu".
        gated: whether the MLP is gated; with "silu" this is SwiGLU.
        norm: "layer" or "rms", the kind of all norms.
        norm_eps: epsilon of all norms.
        qk_norm: whether queries and keys are normalised in each head.
        attn_inner_norm, mlp_inner_norm: whether a norm stands before the attention's output projection, and before the
            MLP's second layer.
        attn_softcap: scores s of the attention become c · tanh(s / c) with this c; None for no cap.
        global_pool: "token", "avg", "max", "all" (average with class token and registers) or "attention"; None for the
            variant's default, "token" in the joint model and the factorised encoder, "avg" in the other two.
        attn_pool: the options of `global_pool="attention"`; None for their defaults.
        class_token: whether there is a class token, pooled or not; None for a class token only if it is pooled. In the
            factorised self-attention and dot-product models each frame has one, first among its places.
        share_class_token: whether the factorised self-attention has one class token for the clip in place of one for
            each frame (TimeSformer).
        representation_size: width of a tanh layer before the head (the original's `pre_logits`); None for none.
        reg_tokens: register tokens beside the class token: of the clip in the joint model, of each frame in the others.
        patch_norm: whether a norm stands after the tubelet embedding (AIMv2's image models have it).
        pre_norm: whether a norm stands before the first block (CLIP's image models have it).
        last_norm: where the last norm stands: "before_pool", "after_pool" or "none".
        last_norm_eps: epsilon of the last norm; None for `norm_eps`.
        pos_embed: "learned", "sincos_1d", "sincos_3d" or "none".
        rope: rotary positions of queries and keys; None for none.
        rel_pos: whether attention over space has learned biases of relative positions (BEiT's image models have them).
        order: of the factorised self-attention's block, "space_time" (the paper's) or "time_space".
        drop, attn_drop: dropout rates in [0, 1).
        drop_path: stochastic depth of the last block in [0, 1), growing linearly from 0 at the first.

    Fields of another variant are kept and have no effect, so that one configuration can be run under all of them.

    Raises:
        ValueError: on any value that cannot work, with the values that can.
    """

    variant: str = "joint"
    num_classes: int | dict[str, int] = 400
    num_frames: int = 32
    image_size: int | tuple[int, int] = (224, 224)
    tubelet_size: tuple[int, int, int] = (2, 16, 16)
    sampled_frames: int | None = None
    in_chans: int = 3
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    temporal_depth: int | None = None
    temporal_num_heads: int | None = None
    temporal_mlp_ratio: float | None = None
    temporal_per_place: bool = False
    qkv_bias: bool = True
    act: str = "gelu_tanh"
    gated: bool = False
    norm: str = "layer"
    norm_eps: float = 1e-6
    qk_norm: bool = False
    attn_inner_norm: bool = False
    mlp_inner_norm: bool = False
    attn_softcap: float | None = None
    global_pool: str | None = None
    attn_pool: AttentionPoolConfig | None = None
    class_token: bool | None = None
    share_class_token: bool = False
    representation_size: int | None = None
    reg_tokens: int = 0
    patch_norm: bool = False
    pre_norm: bool = False
    last_norm: str = "before_pool"
    last_norm_eps: float | None = None
    pos_embed: str = "learned"
    rope: RotaryConfig | None = None
    rel_pos: bool = False
    order: Order = "space_time"
    drop: float = 0.0
    attn_drop: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name, length in {"image_size": 2, "tubelet_size": 3}.items():
            value = getattr(self, name)
            value = (value, value) if name == "image_size" and isinstance(value, int) else value
            fits = isinstance(value, tuple | list) and len(value) == length
            _check(fits, f"{name} takes {length} numbers, got {value!r}")
            object.__setattr__(self, name, tuple(value))

        for name, kind in (("rope", RotaryConfig), ("attn_pool", AttentionPoolConfig)):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                object.__setattr__(self, name, kind(**_known_fields(dict(value), kind)))
            else:
                _check(
                    value is None or isinstance(value, kind),
                    f"{name} takes a {kind.__name__} or a dictionary of its fields, got {value!r}",
                )

        choices: dict[str, Collection[str | None]] = {
            "variant": ENCODERS,
            "act": ACTS,
            "norm": NORMS,
            "global_pool": (None, *POOLS),
            "last_norm": LAST_NORMS,
            "pos_embed": POS_EMBEDS,
            "order": get_args(Order),
        }
        for name, known in choices.items():
            value = getattr(self, name)
            _check(
                isinstance(value, str | None) and value in known,
                f"{name} {value!r} is unknown; choose from {', '.join(map(str, known))}",
            )
        for name in ("num_frames", "in_chans", "dim", "depth", "num_heads", "image_size", "tubelet_size"):
            _check_counts(name, getattr(self, name), least=1)
        for name in ("sampled_frames", "temporal_num_heads", "representation_size"):
            _check_counts(name, getattr(self, name), least=1, optional=True)
        _check_counts("temporal_depth", self.temporal_depth, least=0, optional=True)
        _check_counts("reg_tokens", self.reg_tokens, least=0)
        if isinstance(self.num_classes, Mapping):
            object.__setattr__(self, "num_classes", dict(self.num_classes))
            _check(bool(self.num_classes), "num_classes {} has no head; give at least one, or 0 for none")
            for name, count in self.num_classes.items():
                usable = isinstance(name, str) and name.isidentifier() and not hasattr(nn.ModuleDict, name)
                _check(usable, f"{name!r} cannot name a head; use a word like noun or verb_class")
                _check_counts(f"num_classes[{name!r}]", count, least=1)
        else:
            _check_counts("num_classes", self.num_classes, least=0)
        for name in ("drop", "attn_drop", "drop_path"):
            value = getattr(self, name)
            _check(_is_number(value) and 0.0 <= value < 1.0, f"{name} {value!r} is not in [0, 1)")
        optional = ("temporal_mlp_ratio", "last_norm_eps", "attn_softcap")
        for name in ("mlp_ratio", "norm_eps", *optional):
            value = getattr(self, name)
            positive = _is_number(value) and 0 < value < 1e6
            _check(positive or (value is None and name in optional), f"{name} {value!r} is not positive")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool) or (field.name == "class_token" and value is not None):
                _check(isinstance(value, bool), f"{field.name} is True or False, got {value!r}")
        _check(
            self.global_pool != "token" or self.class_token is not False,
            "global_pool 'token' needs a class token; use class_token=True or another global_pool",
        )
        _check(
            not (self.rel_pos and self.attn_softcap),
            "rel_pos and attn_softcap exclude each other: attention with relative positions has no cap",
        )
        _check(not self.share_class_token or self.class_token is not False, "share_class_token needs a class token")

        for name, heads in {"num_heads": self.num_heads, "temporal_num_heads": self.temporal_num_heads}.items():
            _check(not heads or self.dim % heads == 0, f"dim {self.dim} is not divisible by {name} {heads}")
        head, axes = self.dim // self.num_heads, len(self.rope.axes) if self.rope else 0
        _check(
            self.rope is None or (head % 2 == 0 and head >= 2 * axes),
            f"rope over {axes} axes needs heads of an even width of at least {2 * axes}; dim / num_heads is {head}",
        )
        pt, ph, pw = self.tubelet_size
        (height, width), frames = self.frame_size, self.embedded_frames
        _check(
            height % ph == 0 and width % pw == 0,
            f"image_size {height}x{width} is not divisible by the tubelet's {ph}x{pw}; use "
            f"{max(ph, height - height % ph)}x{max(pw, width - width % pw)} or another tubelet_size",
        )
        picked = "" if self.sampled_frames is None else f" that sampled_frames={self.sampled_frames} picks"
        advice = f"use {max(pt, frames - frames % pt)}" if self.sampled_frames is None else "choose another number"
        _check(
            frames % pt == 0,
            f"{frames} frames{picked} are not divisible by the tubelet's {pt}; {advice} or another tubelet_size",
        )

    @property
    def frame_size(self) -> tuple[int, int]:
        """`image_size` as the pair (H, W) that it always is after construction."""
        assert not isinstance(self.image_size, int)
        return self.image_size

    @property
    def embedded_frames(self) -> int:
        """Frames that are cut into tubelets: `num_frames`, or as many as uniform frame sampling picks out of them."""
        if self.sampled_frames is None:
            return self.num_frames
        return len(uniform_frame_indices(self.num_frames, self.sampled_frames))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of tubelets along (t, h, w)."""
        sides = (self.embedded_frames, *self.frame_size)
        t, h, w = (side // size for side, size in zip(sides, self.tubelet_size, strict=True))
        return t, h, w

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(c, T, H, W) of one clip."""
        return self.in_chans, self.num_frames, *self.frame_size

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **_known_fields(changes))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote. Missing fields take their defaults; unknown ones raise ValueError."""
        return cls(**_known_fields(json.loads(text)))


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_counts(name: str, value: Any, least: int, optional: bool = False) -> None:
    for count in value if isinstance(value, tuple) else (value,):
        fits = isinstance(count, int) and not isinstance(count, bool) and count >= least
        _check(fits or (optional and count is None), f"{name} takes whole numbers from {least}, got {value!r}")


def _known_fields(fields: dict[str, Any], kind: Any = None) -> dict[str, Any]:
    kind = kind or ViViTConfig
    names = [field.name for field in dataclasses.fields(kind)]
    for name in fields:
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the fields are {', '.join(names)}"
            raise ValueError(f"{name!r} is no field of {kind.__name__}{hint}")
    return fields


def named_config(name: str, **changes: Any) -> ViViTConfig:
    """The configuration that `create_model` builds from."""
    match = re.fullmatch(rf"({'|'.join(SIZES)})/(\d+)x(\d+)", name)
    if match is None:
        raise ValueError(
            f"model name {name!r} is unknown; write size/patch x frames as the paper does, such as B/16x2, with a size "
            f"of {', '.join(SIZES)}"
        )
    size, patch, frames = match[1], int(match[2]), int(match[3])
    fields = SIZES[size] | {"tubelet_size": (frames, patch, patch)} | changes
    return ViViTConfig(**_known_fields(fields))
