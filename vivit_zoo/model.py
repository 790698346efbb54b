"""The model as a whole: `ViViT` and `create_model`."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from einops import rearrange
from torch import Tensor, nn

from vivit_zoo.attention import attend, attend_softcapped
from vivit_zoo.config import NORMS, POS_EMBEDS, AttentionPoolConfig, ViViTConfig, named_config
from vivit_zoo.encoders import ENCODERS, Encoder, EncoderOptions
from vivit_zoo.mlp import ACTS, Norm
from vivit_zoo.pooling import AttentionPool
from vivit_zoo.positions import RelativePositionBias, RotaryEmbed
from vivit_zoo.tokens import SampleFrames, TubeletEmbed, hold_frames, is_full, tubelet_mask

if TYPE_CHECKING:
    from vivit_zoo.weights.processing import Processing
    from vivit_zoo.weights.report import LoadReport, ProblemType
    from vivit_zoo.weights.resize import PositionsFilter

__all__ = ["ViViT", "create_model"]

UNDECAYED = (
    "pos_embed.table", "cls_token.token", "reg_tokens.tokens", "rope.freqs", "rel_pos.table", "attn_pool.query",
)  # fmt: skip


class ViViT(nn.Module):
    """A Video Vision Transformer (arXiv 2103.15691): (b, c, T, H, W) -> (b, num_classes).

    With several heads the result is a dictionary of (b, classes) by name. Pixels are floating-point; the released
    checkpoints expect [-1, 1]. Weights start as in the original code, the head at zero.

    Args:
        config: sizes and options.
        encoder: your own encoder class, used instead of the variant's. It maps tokens (b, t, n, d) to features (b, d).
            Its `__init__` names the arguments it needs: `t`, `n` and any field of the configuration, such as `dim`,
            `depth`, `num_heads` (see also `encoders.EncoderOptions`).

    Raises:
        ValueError, TypeError: in forward, on a video or mask that does not fit the configuration.
    """

    # In the order of the logits, for several heads by head; None if unknown.
    class_names: list[str] | dict[str, list[str]] | None = None
    # What the outputs mean, in transformers' words; None if unknown, which is taken for one class a video.
    problem_type: "ProblemType | None" = None
    load_report: "LoadReport | None" = None
    # How the model was tested, or how its checkpoint says that it takes videos; None if unknown.
    processing: "Processing | None" = None
    # How `from_pretrained` resizes the positions of the saved model for another grid.
    positions_filter: "PositionsFilter" = "linear"

    def __init__(self, config: ViViTConfig, encoder: Callable[..., nn.Module] | None = None) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.num_features = config.dim
        if config.sampled_frames is not None:
            self.sample_frames: nn.Module = SampleFrames(config.num_frames, config.sampled_frames)
        else:
            self.sample_frames = nn.Identity()
        norm = _norm(config) if config.patch_norm else None
        self.tubelet_embed = TubeletEmbed(config.tubelet_size, config.in_chans, config.dim, norm)
        self.encoder = _build_encoder(config, encoder or ENCODERS[config.variant])
        self.head_hidden_size = config.representation_size or config.dim
        if config.representation_size is not None:
            self.pre_logits: nn.Module = nn.Sequential(nn.Linear(config.dim, config.representation_size), nn.Tanh())
        else:
            self.pre_logits = nn.Identity()
        self.reset_classifier(config.num_classes)

    def forward_features(self, video: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the encoder's pooled output: (b, c, T, H, W) -> (b, d). `forward_intermediates` returns tokens."""
        self._check_video(video)
        if mask is None or is_full(mask, video):
            return self.encoder(self.tubelet_embed(self.sample_frames(video)))
        # A tubelet or sample that holds both kinds of frames is there; in it, absent frames repeat the one before them.
        x = self.tubelet_embed(self.sample_frames(hold_frames(video, mask)))
        return self.encoder(x, mask=self.token_mask(mask))

    def token_mask(self, mask: Tensor) -> Tensor:
        """Which temporal places of the tokens hold a frame that is there: (b, T) bool -> (b, t) bool."""
        mask = rearrange(self.sample_frames(rearrange(mask, "b t -> b 1 t 1 1")), "b 1 t 1 1 -> b t")
        mask = mask | ~mask.any(dim=1, keepdim=True)  # only absent frames were sampled: all repeat one that is there
        return tubelet_mask(mask, self.config.tubelet_size[0])

    def forward_intermediates(
        self,
        video: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "BTHWC",
        intermediates_only: bool = False,
        mask: Tensor | None = None,
    ) -> Any:
        """Features and the tokens after chosen blocks: (b, c, T, H, W) -> (b, d), [(b, t, h, w, d), ...].

        The method is timm's. Blocks are counted through the encoder; in the factorised encoder the temporal ones follow
        the spatial ones. A temporal block sees a frame as one token, so its tokens are (b, t, 1, 1, d).

        Args:
            video: as for `forward`.
            indices: numbers of blocks, negative ones from the end; a number n for the last n; None for all.
            return_prefix_tokens: whether each entry is a pair of its tokens and of its class token and registers,
                (b, ..., prefix, d).
            norm: whether the encoder's last norm is applied to the tokens.
            stop_early: whether the model stops after the last of these blocks; with `intermediates_only`.
            output_fmt: "BTHWC" for (b, t, h, w, d), "BTNC" for (b, t, n, d).
            intermediates_only: whether the list alone is returned, without the pooled features.
            mask: as for `forward`; tokens of frames that are not there are returned, too, and mean nothing.

        Raises:
            ValueError: on an index that is not there, an unknown `output_fmt`, or an encoder of your own that holds no
                `vivit_zoo.encoders.Encoder`.
        """
        if output_fmt not in ("BTHWC", "BTNC"):
            raise ValueError(f"output_fmt {output_fmt!r} is unknown; choose from BTHWC, BTNC")
        if stop_early and not intermediates_only:
            raise ValueError("a model that stops early has no features; use intermediates_only=True")
        _, h, w = self.config.grid
        layers = [(encoder, block) for encoder in self._encoders() for block in encoder.blocks]
        found: dict[int, tuple[Tensor, Tensor]] = {}
        hooks = []
        for number in (chosen := _chosen(indices, len(layers))):
            encoder, block = layers[number]

            def keep(_: nn.Module, __: Any, x: Tensor, number: int = number, encoder: Encoder = encoder) -> None:
                prefix, grid = encoder.split_prefix(encoder.norm(x) if norm else x)
                if grid.ndim == 3:  # a frame is one token
                    grid = grid.unsqueeze(-2)
                elif encoder is not layers[0][0]:  # a temporal encoder of each place: (b, n, t, d)
                    grid = grid.transpose(1, 2)
                sides = (h, w) if grid.shape[2] == h * w else (1, 1)
                found[number] = prefix, grid.unflatten(2, sides) if output_fmt == "BTHWC" else grid
                if stop_early and number == max(chosen):
                    raise _Stop

            hooks.append(block.register_forward_hook(keep))
        try:
            features = self.forward_features(video, mask)
        except _Stop:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        tokens = [found[i][::-1] if return_prefix_tokens else found[i][1] for i in chosen]
        return tokens if intermediates_only else (features, tokens)

    def _encoders(self) -> list[Encoder]:
        encoders = [module for module in self.modules() if isinstance(module, Encoder)]
        if not encoders:
            raise ValueError(f"{type(self.encoder).__name__} holds no Encoder of vivit_zoo.encoders, which this needs")
        return encoders

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor | dict[str, Tensor]:
        """Compute logits from features: (b, d) -> (b, num_classes). `pre_logits=True` returns the input of the head."""
        x = self.pre_logits(x)
        if pre_logits:
            return x
        if isinstance(self.head, nn.ModuleDict):
            return {name: head(x) for name, head in self.head.items()}
        return self.head(x)

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Compute logits: (b, c, T, H, W) -> (b, num_classes), or a dictionary of such by head.

        Args:
            video: pixels, floating-point.
            mask: (b, T) bool, True for frames that are there; None for all. The others, such as the padding of a short
                video, change nothing in the result. A video needs one frame that is there.
        """
        return self.forward_head(self.forward_features(video, mask))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int | dict[str, int], global_pool: str | None = None) -> None:
        """Replace the head by a new one that starts at zero; 0 classes for no head.

        Raises:
            ValueError: if `global_pool` is given: pooling is part of the configuration, `ViViT(config.replace(...))`.
        """
        if global_pool is not None:
            raise ValueError("pooling cannot be changed on a built model; use ViViT(config.replace(global_pool=...))")
        self.config = self.config.replace(num_classes=num_classes)
        self.class_names = self.problem_type = None
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
        encoder: Callable[..., nn.Module] | None = None,
        tower: str | None = None,
        **changes: Any,
    ) -> "ViViT":
        """Load a trained model, in evaluation mode and float32. Its `load_report` lists every tensor.

        Args:
            source: a hub id, a folder or a file of one of these formats, recognised by content: transformers' ViViT,
                VideoPrism, VideoMAE, TimeSformer or V-JEPA 2 (config.json, safetensors or .bin), what
                `save_pretrained` writes, or an original JAX checkpoint.
            revision, token: for the hub.
            encoder: as for `ViViT`.
            tower: "video" for the video model of a file that holds a video and a text model; else None.
            **changes: fields of `ViViTConfig`. Another `num_frames`, `image_size`, `sampled_frames` or tubelet length
                resizes positions and kernel (`vivit_zoo.weights.resize`); another `num_classes` makes a new head;
                `drop`, `attn_drop` and `drop_path` are set. An original checkpoint does not contain all fields:
                give `num_frames` and `image_size` as in its training, and, where the message asks for them,
                `variant`, `order`, `sampled_frames` and `global_pool`.

        Raises:
            vivit_zoo.weights.WeightsError: if the source cannot be found, read or used.
        """
        from vivit_zoo.weights import load_pretrained

        model, checkpoint, report = load_pretrained(
            partial(cls, encoder=encoder), source, revision=revision, token=token, tower=tower, **changes
        )
        model.load_report, model.positions_filter = report, checkpoint.positions_filter
        if checkpoint.processing is not None:
            sizes = checkpoint.config.frame_size, model.config.frame_size
            model.processing = checkpoint.processing.for_sizes(*sizes)
        if model.num_classes == checkpoint.config.num_classes:
            model.class_names, model.problem_type = checkpoint.class_names, checkpoint.problem_type
        return model.eval()

    def save_pretrained(self, folder: str | PathLike[str], format: str = "vivit_zoo") -> None:
        """Write config.json, model.safetensors and preprocessor_config.json, for `from_pretrained` and `vivit_zoo.hf`.

        Args:
            folder: made if missing.
            format: "vivit_zoo", or "transformers" for its ViViT (the joint model with a class token), VideoMAE or
                VideoPrism, whichever has such a classifier.

        Raises:
            vivit_zoo.weights.WeightsError: if transformers has no such model, the model is quantised or sharded, or
                the folder cannot be written to; what it held is then still there.
        """
        from vivit_zoo.weights import Checkpoint, save_pretrained

        save_pretrained(Checkpoint.of_model(self), folder, format)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes and a model card; returns the address of the commit.

        Args:
            repo_id: such as "owner/name"; made if missing.
            **options: `format`, `private`, `token`, `revision`, `commit_message`; `license`, the hub's name of the
                weights' licence, such as "apache-2.0"; `card`, the text of README.md in place of the one that is made,
                such as that of a run's model/README.md, in which `repo_id` replaces the model's name.

        Raises:
            vivit_zoo.weights.WeightsError: if the hub refuses or cannot be reached.
        """
        from vivit_zoo.weights import Checkpoint, push_to_hub

        return push_to_hub(Checkpoint.of_model(self), repo_id, **options)

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
            "blocks": [
                (r"^encoder\.(?:spatial\.)?blocks\.(\d+)", None),
                (r"^encoder\.(?:spatial\.)?(?:norm|attn_pool)", (99999,)),
            ],
            "temporal_stem": r"^encoder\.temporal\.(?:pos_embed|cls_token)",
            "temporal_blocks": [
                (r"^encoder\.temporal\.blocks\.(\d+)", None),
                (r"^encoder\.temporal\.(?:norm|attn_pool)", (99999,)),
            ],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them.

        Raises:
            ValueError: if an encoder of your own holds no `vivit_zoo.encoders.Encoder`, the module that does this.
        """
        for encoder in self._encoders():
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


class _Stop(Exception):
    """Ends a forward pass after the last block that is needed."""


def _chosen(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Numbers of blocks from 0, in the order given."""
    if indices is None or isinstance(indices, int):
        number = count if indices is None else indices
        if not 0 < number <= count:
            raise ValueError(f"indices {indices} is not in 1 to {count}, the number of blocks")
        return list(range(count - number, count))
    for index in indices:
        if not -count <= index < count:
            raise ValueError(f"block {index} is not in {-count} to {count - 1}")
    return [index % count for index in indices]


def _norm(config: ViViTConfig) -> Norm:
    return partial(NORMS[config.norm], eps=config.norm_eps)


def _build_encoder(config: ViViTConfig, encoder: Callable[..., nn.Module]) -> nn.Module:
    """Build an encoder with the sizes and options that its signature names. A value of None leaves its default."""
    t, h, w = config.grid
    offered = dataclasses.asdict(config) | {
        "t": t,
        "n": h * w,
        "act": ACTS[config.act],
        "norm": _norm(config),
        "pos_embed": partial(POS_EMBEDS[config.pos_embed], frame=(h, w)),
        "attend": attend if config.attn_softcap is None else partial(attend_softcapped, cap=config.attn_softcap),
        "rel_pos": partial(RelativePositionBias, frame=(h, w)) if config.rel_pos else None,
    }
    pool = dataclasses.asdict(config.attn_pool or AttentionPoolConfig()) | {
        "attend": offered["attend"],
        "drop": config.drop,
        "attn_drop": config.attn_drop,
    }
    pool["num_heads"] = pool["num_heads"] or config.num_heads
    offered["attn_pool"] = partial(AttentionPool, **pool)
    if config.rope is not None:
        rope = dataclasses.asdict(config.rope)
        over_time = rope.pop("axes") == "thw"
        offered["rope"] = partial(RotaryEmbed, frame=(h, w), over_time=over_time, **rope)
        offered["temporal_rope"] = partial(RotaryEmbed, **rope) if over_time else None
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
