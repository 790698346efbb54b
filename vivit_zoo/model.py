"""The model as a whole: `ViViTConfig`, the table of sizes, `ViViT`, `create_model`."""

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, get_args

from torch import Tensor, nn

from vivit_zoo.blocks import ACTS, Order
from vivit_zoo.encoders import ENCODERS, Encoder, EncoderOptions
from vivit_zoo.tokens import PosEmbed, SampleFrames, TubeletEmbed, sincos_1d, sincos_3d, uniform_frame_indices

if TYPE_CHECKING:
    from vivit_zoo.weights.report import LoadReport

__all__ = ["SIZES", "ViViT", "ViViTConfig", "create_model"]

POS_EMBEDS: dict[str, Callable[..., nn.Module]] = {
    "learned": PosEmbed,
    "sincos_1d": partial(PosEmbed, fixed=sincos_1d),
    "sincos_3d": partial(PosEmbed, fixed=sincos_3d),
    "none": nn.Identity,
}

UNDECAYED = ("pos_embed.table", "cls_token.token", "reg_tokens.tokens")

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

    @classmethod
    def for_image(cls, image_model: nn.Module | str, *, num_frames: int = 32, **changes: Any) -> "ViViTConfig":
        """The configuration of a video model that a timm image model fits: width, depth, activation, norms, patches.

        Tubelets are of 2 frames, of 1 where `num_frames` is odd; the pooling is the image model's where the variant
        has it.

        Args:
            image_model: a timm model, or timm's name of a pretrained one.
            num_frames: frames of a clip.
            **changes: any other field, such as `variant`, `num_classes`, `tubelet_size`.

        Raises:
            vivit_zoo.weights.WeightsError: if it is no plain ViT, with the reasons.
        """
        from vivit_zoo.weights import config_for_image

        return config_for_image(image_model, num_frames=num_frames, **changes)

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


class ViViT(nn.Module):
    """A Video Vision Transformer (arXiv 2103.15691): (b, c, T, H, W) -> (b, num_classes).

    With several heads the result is a dictionary of (b, classes) by name. Pixels are floating-point; the released
    checkpoints expect [-1, 1]. Weights start as in the original code, the head at zero.

    Args:
        config: sizes and options.
        encoder: a class of your own in place of the variant's: built from those of
            `t, n, dim, depth, num_heads, temporal_depth, ...` (the fields of the configuration, see also
            `encoders.EncoderOptions`) that its `__init__` names, it maps tokens (b, t, n, d) to features (b, d).

    Raises:
        ValueError, TypeError: in forward, on a video that does not fit the configuration.
    """

    # In the order of the logits, of several heads by head; None where nobody has said them.
    class_names: list[str] | dict[str, list[str]] | None = None
    load_report: "LoadReport | None" = None

    def __init__(self, config: ViViTConfig, encoder: Callable[..., nn.Module] | None = None) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.num_features = config.dim
        if config.sampled_frames is not None:
            self.sample_frames: nn.Module = SampleFrames(config.num_frames, config.sampled_frames)
        else:
            self.sample_frames = nn.Identity()
        self.tubelet_embed = TubeletEmbed(config.tubelet_size, config.in_chans, config.dim)
        self.encoder = _build_encoder(config, encoder or ENCODERS[config.variant])
        self.head_hidden_size = config.representation_size or config.dim
        if config.representation_size is not None:
            self.pre_logits: nn.Module = nn.Sequential(nn.Linear(config.dim, config.representation_size), nn.Tanh())
        else:
            self.pre_logits = nn.Identity()
        self.reset_classifier(config.num_classes)

    def forward_features(self, video: Tensor) -> Tensor:
        """The encoder's pooled output: (b, c, T, H, W) -> (b, d).

        For one vector a token, before pooling: `model.encoder.forward_features(model.tubelet_embed(video))`, or with
        `encoder.spatial` in place of `encoder` in the factorised encoder; under uniform frame sampling
        `model.sample_frames` comes first.
        """
        self._check_video(video)
        return self.encoder(self.tubelet_embed(self.sample_frames(video)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor | dict[str, Tensor]:
        """Logits from features: (b, d) -> (b, num_classes), or what the head would get with `pre_logits=True`."""
        x = self.pre_logits(x)
        if pre_logits:
            return x
        if isinstance(self.head, nn.ModuleDict):
            return {name: head(x) for name, head in self.head.items()}
        return self.head(x)

    def forward(self, video: Tensor) -> Tensor | dict[str, Tensor]:
        return self.forward_head(self.forward_features(video))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int | dict[str, int], global_pool: str | None = None) -> None:
        """Put a new head, starting at zero, in place of the old; 0 classes for none.

        Raises:
            ValueError: if `global_pool` is given: pooling is part of the configuration, `ViViT(config.replace(...))`.
        """
        if global_pool is not None:
            raise ValueError("pooling cannot be changed on a built model; use ViViT(config.replace(global_pool=...))")
        self.config = self.config.replace(num_classes=num_classes)
        self.class_names = None
        self.num_classes = num_classes
        if isinstance(num_classes, Mapping):
            self.head: nn.Module = nn.ModuleDict({name: self._new_head(n) for name, n in num_classes.items()})
        else:
            self.head = self._new_head(num_classes) if num_classes else nn.Identity()

    def _new_head(self, num_classes: int) -> nn.Linear:
        weight = self.tubelet_embed.proj.weight
        head = nn.Linear(self.head_hidden_size, num_classes, device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        **changes: Any,
    ) -> "ViViT":
        """A trained model, in evaluation mode and float32; what went where is in its `load_report`.

        Args:
            source: a hub id, a folder or a file of one of these formats, recognised by content: transformers' ViViT
                (config.json with model_type vivit, safetensors or .bin), what `save_pretrained` writes, or an original
                JAX checkpoint.
            revision, token: for the hub.
            **changes: fields of `ViViTConfig`. Another `num_frames`, `image_size`, `sampled_frames` or tubelet length
                resizes positions and kernel (`vivit_zoo.weights.resize`); another `num_classes` makes a new head;
                `drop`, `attn_drop`, `drop_path` as they are. `encoder` as for `ViViT`. For an original checkpoint
                `num_frames` and `image_size` must be given, as it was trained, and `variant`, `order`,
                `sampled_frames` and `global_pool` where it does not tell.

        Raises:
            vivit_zoo.weights.WeightsError: if the source cannot be found, read or used.
        """
        from vivit_zoo.weights import from_pretrained

        return from_pretrained(source, revision=revision, token=token, **changes)

    def save_pretrained(self, folder: str | PathLike[str], format: str = "vivit_zoo") -> None:
        """Write config.json and model.safetensors, for `from_pretrained`.

        Args:
            folder: made if missing.
            format: "vivit_zoo", or "transformers" for `VivitForVideoClassification`, with a preprocessor_config.json
                that gives pixels in [-1, 1]; the joint model with a class token has one.

        Raises:
            vivit_zoo.weights.WeightsError: if transformers has no such model, or the folder cannot be written to;
                what it held is then still there.
        """
        from vivit_zoo.weights import save_pretrained

        save_pretrained(self, folder, format)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes and a model card; returns the address of the commit.

        Args:
            repo_id: such as "owner/name"; made if missing.
            **options: `format`, `private`, `token`, `revision`, `commit_message`.

        Raises:
            vivit_zoo.weights.WeightsError: if the hub refuses or cannot be reached.
        """
        from vivit_zoo.weights import push_to_hub

        return push_to_hub(self, repo_id, **options)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that timm's optimiser factory leaves without decay: positions and extra tokens."""
        return {name for name, _ in self.named_parameters() if name.endswith(UNDECAYED)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's regular expressions from parameter names to layers, for layer-wise learning-rate decay."""
        stem = r"^tubelet_embed|^encoder\.(?:spatial\.)?(?:pos_embed|cls_token|reg_tokens|norm_pre)"
        if coarse:
            return {"stem": stem, "blocks": r"^encoder\.(?:\w+\.)?blocks"}
        return {
            "stem": stem,
            "blocks": [(r"^encoder\.(?:spatial\.)?blocks\.(\d+)", None), (r"^encoder\.(?:spatial\.)?norm", (99999,))],
            "temporal_stem": r"^encoder\.temporal\.(?:pos_embed|cls_token)",
            "temporal_blocks": [
                (r"^encoder\.temporal\.blocks\.(\d+)", None),
                (r"^encoder\.temporal\.norm", (99999,)),
            ],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them.

        Raises:
            ValueError: if an encoder of your own holds no `vivit_zoo.encoders.Encoder`, the module that does this.
        """
        encoders = [module for module in self.modules() if isinstance(module, Encoder)]
        if not encoders:
            raise ValueError(f"{type(self.encoder).__name__} holds no Encoder, which is what recomputes activations")
        for encoder in encoders:
            encoder.grad_checkpointing = enable

    def _check_video(self, video: Tensor) -> None:
        want = self.config.input_shape
        if video.ndim != 5:
            raise ValueError(f"a video batch has axes (b, c, t, h, w); got shape {tuple(video.shape)}")
        if not video.is_floating_point():
            raise TypeError(f"pixels are {video.dtype}; scale them to floating point first, such as video / 127.5 - 1")
        if tuple(video.shape[1:]) != want:
            names = ("in_chans", "num_frames", "height", "width")
            wrong = [
                f"{n} {got} instead of {w}" for n, got, w in zip(names, video.shape[1:], want, strict=True) if got != w
            ]
            mixed_up = sorted(video.shape[1:]) == sorted(want)
            advice = "resize or resample the clip, or build the model with a configuration that has these sizes"
            raise ValueError(
                f"video of shape {tuple(video.shape)} has {', '.join(wrong)}; "
                + ("the layout is (b, c, t, h, w)" if mixed_up else advice)
            )
        if video.shape[0] == 0:
            raise ValueError(f"the batch is empty: shape {tuple(video.shape)}")


def _build_encoder(config: ViViTConfig, encoder: Callable[..., nn.Module]) -> nn.Module:
    """Hand an encoder those of the sizes and options that its signature names; None leaves it its own default."""
    t, h, w = config.grid
    offered = dataclasses.asdict(config) | {
        "t": t,
        "n": h * w,
        "act": ACTS[config.act],
        "pos_embed": partial(POS_EMBEDS[config.pos_embed], frame=(h, w)),
    }
    signature = inspect.signature(encoder).parameters
    names = set(signature)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.values()):
        names |= EncoderOptions.__annotations__.keys()
    return encoder(**{name: value for name, value in offered.items() if name in names and value is not None})


def create_model(name: str, variant: str = "joint", **changes: Any) -> ViViT:
    """Build a model by the paper's name, such as `create_model("B/16x2", variant="factorised_encoder")`.

    Args:
        name: size (Ti, S, B, L, H), patch side in pixels and tubelet length in frames: "B/16x2", "L/16x2", "H/14x2".
        variant: see `ViViTConfig`.
        **changes: any other field of `ViViTConfig`.

    Raises:
        ValueError: on an unknown name, variant, field or value.
    """
    return ViViT(named_config(name, variant=variant, **changes))


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
