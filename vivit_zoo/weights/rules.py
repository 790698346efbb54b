"""`Rules`: what each tensor of a video model becomes when it starts from an image model or another ViViT."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.report import Checkpoint, Value, WeightsError
from vivit_zoo.weights.resize import Tubelet, fold_pixels, inflate_kernel, resize_kernel, resize_positions

__all__ = ["FIRST", "SPATIAL", "ClassTokenRule", "Positions", "Rules", "Temporal"]

Positions = Literal["tile", "resize", "resize_tile"]
Temporal = Literal["zero_out", "copy", "zero", "random"]
ClassTokenRule = Literal["copy", "keep"]
SPATIAL, TEMPORAL = "encoder.spatial.", "encoder.temporal."
KERNEL = "tubelet_embed.proj.weight"
FIRST = "blocks.0.norm1.weight"  # every encoder has it


@dataclass
class Rules:
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


def _numbers(values: Sequence[float]) -> str:
    return "/".join(f"{value:g}" for value in values)
