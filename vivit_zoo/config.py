"""What defines a model but its weights: `ViViTConfig`, and the table of sizes."""

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, Self, get_args

from torch import nn

from vivit_zoo.blocks import ACTS, Order
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.tokens import PosEmbed, sincos_1d, sincos_3d, uniform_frame_indices

__all__ = ["POS_EMBEDS", "SIZES", "ViViTConfig", "named_config"]

POS_EMBEDS: dict[str, Callable[..., nn.Module]] = {
    "learned": PosEmbed,
    "sincos_1d": partial(PosEmbed, fixed=sincos_1d),
    "sincos_3d": partial(PosEmbed, fixed=sincos_3d),
    "none": nn.Identity,
}

SIZES: dict[str, dict[str, int]] = {
    # Ti and S: Touvron et al., DeiT, arXiv 2012.12877, Table 1. B, L and H: ViT, arXiv 2010.11929, Table 1.
    "Ti": {"dim": 192, "depth": 12, "num_heads": 3},
    "S": {"dim": 384, "depth": 12, "num_heads": 6},
    "B": {"dim": 768, "depth": 12, "num_heads": 12},
    "L": {"dim": 1024, "depth": 24, "num_heads": 16},
    "H": {"dim": 1280, "depth": 32, "num_heads": 16},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViViTConfig:
    """Everything that defines a ViViT but its weights. The defaults are ViViT-B/16x2 on Kinetics-400.

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
        qkv_bias: whether queries, keys and values have a bias.
        act: "gelu_tanh" (the released checkpoints'), "gelu" or "quick_gelu".
        norm_eps: epsilon of every LayerNorm.
        global_pool: "token", "avg" or "max"; None for the variant's own default, "token" where it has a class token and
            "avg" in the two that have none.
        representation_size: width of a tanh layer before the head (the original's `pre_logits`); None for none.
        reg_tokens: register tokens beside the class token, of a frame in the factorised encoder and of the clip in the
            joint one (DINOv2's image models have them); the other two have no place for them.
        pre_norm: whether a LayerNorm stands before the first block (CLIP's image models have it).
        pos_embed: "learned", "sincos_1d", "sincos_3d" or "none".
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
    qkv_bias: bool = True
    act: str = "gelu_tanh"
    norm_eps: float = 1e-6
    global_pool: str | None = None
    representation_size: int | None = None
    reg_tokens: int = 0
    pre_norm: bool = False
    pos_embed: str = "learned"
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

        choices: dict[str, Collection[str | None]] = {
            "variant": ENCODERS,
            "act": ACTS,
            "global_pool": (None, "token", "avg", "max"),
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
        for name in ("mlp_ratio", "norm_eps", "temporal_mlp_ratio"):
            value = getattr(self, name)
            positive = _is_number(value) and 0 < value < 1e6
            _check(positive or (value is None and name.startswith("temporal")), f"{name} {value!r} is not positive")
        for name in ("qkv_bias", "pre_norm"):
            _check(isinstance(getattr(self, name), bool), f"{name} is True or False, got {getattr(self, name)!r}")

        for name, heads in {"num_heads": self.num_heads, "temporal_num_heads": self.temporal_num_heads}.items():
            _check(not heads or self.dim % heads == 0, f"dim {self.dim} is not divisible by {name} {heads}")
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


def _known_fields(fields: dict[str, Any]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(ViViTConfig)]
    for name in fields:
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the fields are {', '.join(names)}"
            raise ValueError(f"{name!r} is no field of ViViTConfig{hint}")
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
