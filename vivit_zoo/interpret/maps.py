"""Attention maps, and the attention of single heads on the grid."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from vivit_zoo.attention import (
    Attend,
    Attention,
    attend,
    attend_over_time,
    attend_softcapped,
    attend_split_heads,
)
from vivit_zoo.encoders import Encoder
from vivit_zoo.inference import attend_contiguous
from vivit_zoo.interpret.recording import attention_layers, exact_dtype, recorded, transposed_product
from vivit_zoo.model import ViViT
from vivit_zoo.positions import RelativePositionBias

__all__ = ["Maps", "attention_maps", "head_maps"]

# The strategies that mix the tokens of each sequence (..., h, n, d) and nothing else.
WITHIN_A_SEQUENCE = (attend, attend_contiguous, attend_softcapped)

# Layers of this encoder see the frames at one place, or frames as wholes.
TEMPORAL = "encoder.temporal."


@dataclass(frozen=True)
class Maps:
    """The attention maps of all layers that attend over the same axis.

    Attributes:
        weights: (layer, head, b, ..., query, key), float32 (float64 of a float64 model); over keys they sum to 1.
        axes: the names of these axes; "..." is "t" of maps over space and "n" of maps over time.
        layers: the names of the layers, as `attention_layers` gives them.
    """

    weights: Tensor
    axes: tuple[str, ...]
    layers: tuple[str, ...]


def attention_maps(model: ViViT, video: Tensor, layers: Collection[str] | None = None) -> dict[str, Maps]:
    """Return the attention weights of each layer and head, by axis: (b, c, T, H, W) -> {"clip": Maps, ...}.

    With t temporal and n spatial places:

    - joint: "clip", (layer, head, b, 1 + t·n, 1 + t·n);
    - factorised encoder: "space", (layer, head, b, t, 1 + n, 1 + n), and "time", (layer, head, b, 1 + t, 1 + t);
    - factorised self-attention: "space", (layer, head, b, t, n, n), and "time", (layer, head, b, n, t, t);
    - factorised dot-product: the same two, each with half of the heads;
    - your own strategy: on (b, h, n, d) as above; on the grid (b, t, h, n, d), whose attended axes are unknown, "clip",
      (layer, head, b, t·n, t·n).

    The 1 stands for the class token; registers follow it, and both are absent where the encoder has none. The model
    runs in evaluation mode, without gradients. All requested maps are in memory, 0.5 GB for a layer of ViViT-B/16x2.

    Args:
        model: restored afterwards, also after an error.
        video: a batch in the model's input format.
        layers: names of layers as `attention_layers` returns them; None for all.

    Raises:
        ValueError: on a name that is no layer; on a strategy that does not weigh its values; on layers of one axis
            whose maps differ in shape.
    """
    wanted = _known_layers(model, layers)
    t, h, w = model.config.grid
    found: dict[str, dict[str, Tensor]] = {}

    def record(name: str, layer: Attention, strategy: Attend, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor) -> None:
        if name in wanted:
            for axis, weights in _weights(name, strategy, qkv, out).items():
                # Without the grid's axes a sequence is a clip, or the frames of a factorised encoder.
                short = axis == "" and weights.shape[-1] < t * h * w
                axis = axis or ("time" if short else "clip")
                found.setdefault(axis, {})[name] = weights.movedim(-3, 0)

    with recorded(model, record), torch.no_grad():
        model(video)
    return {axis: _stacked(axis, maps) for axis, maps in found.items()}


def head_maps(model: ViViT, video: Tensor, layer: str) -> Tensor:
    """Return the attention of each head of a layer on the grid: (b, c, T, H, W) -> (b, head, t, n).

    The result is the mean of the attention weights over the pooled queries: class tokens if there are any, otherwise
    all tokens except registers. Attention to class tokens and registers is left out; without it the values of a head
    sum to 1. If a token of the layer stands for a whole frame, as in the temporal encoder of Model 2, its attention is
    divided equally among the positions of the frame.

    No map is computed; the memory is that of the strategy's kernel.

    Args:
        model: is left as it was, in an error too.
        video: as the model takes it.
        layer: one of `attention_layers`.

    Raises:
        ValueError: on a name that is no layer.
    """
    (wanted,) = _known_layers(model, [layer])
    t, h, w = model.config.grid
    found: list[Tensor] = []

    def record(
        name: str, attention: Attention, strategy: Attend, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor
    ) -> None:
        if name == wanted:
            q, k, _ = qkv
            # Outside of an Encoder, class tokens and registers are unknown.
            around = [one for one in model.modules() if isinstance(one, Encoder) and attention in one.modules()]
            queries = q.new_zeros(q.shape[:-1], dtype=exact_dtype(q))
            if around and around[-1].global_pool == "token":
                queries[..., 0] = 1.0
            else:
                queries[..., around[-1].num_prefix_tokens if around else 0 :] = 1.0
            queries /= queries[0, ..., 0, :].sum()
            found.append(_on_grid(name, transposed_product(strategy, q, k, queries), t, h * w))

    with recorded(model, record), torch.no_grad():
        model(video)
    return found[-1]


def _weights(name: str, strategy: Attend, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor) -> dict[str, Tensor]:
    """The maps (..., h, query, key) of one layer by axis; the axis of a sequence without a grid is ""."""
    q, k, v = (x.to(exact_dtype(x)) for x in qkv)
    kind = strategy.func if isinstance(strategy, partial) else strategy
    inner = strategy.keywords.get("attend", attend) if isinstance(strategy, partial) else attend
    with torch.autocast(q.device.type, enabled=False):
        if kind in WITHIN_A_SEQUENCE or isinstance(getattr(kind, "__self__", None), RelativePositionBias):
            of_places = "time" if name.startswith(TEMPORAL) else "space"
            return {of_places if q.ndim == 5 else "": _of_sequences(strategy, q, k)}
        if kind is attend_over_time:
            return {"time": _over_time(inner, q, k)}
        if kind is attend_split_heads:
            (q_time, q_space), (k_time, k_space) = (x.chunk(2, dim=-3) for x in (q, k))
            return {"time": _over_time(inner, q_time, k_time), "space": _of_sequences(inner, q_space, k_space)}
        return {"": _by_identity(name, strategy, q, k, v, out)}


def _of_sequences(strategy: Attend, q: Tensor, k: Tensor) -> Tensor:
    """The maps of a strategy that runs within each sequence: (..., h, n, d) twice -> (..., h, query, key)."""
    if strategy is attend:
        return (q @ k.mT).mul_(1 / math.sqrt(q.shape[-1])).softmax(-1)
    count, width = k.shape[-2:]
    columns = []
    for eye in torch.eye(count, dtype=q.dtype, device=q.device).split(width, dim=1):
        values = nn.functional.pad(eye, (0, width - eye.shape[1])).expand(k.shape)
        columns.append(strategy(q, k, values.contiguous(), 0.0)[..., : eye.shape[1]])
    return torch.cat(columns, dim=-1)


def _over_time(strategy: Attend, q: Tensor, k: Tensor) -> Tensor:
    q, k = (rearrange(x, "b t h n d -> b n h t d") for x in (q, k))
    return _of_sequences(strategy, q, k)


def _by_identity(name: str, strategy: Attend, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor:
    """The maps (b, h, query, key) of any strategy, over all tokens of a grid too: what it makes of one-hot values."""

    def flat(x: Tensor) -> Tensor:
        return x if x.ndim == 4 else rearrange(x, "b t h n d -> b h (t n) d")

    count, width = flat(k).shape[-2:]
    columns = []
    for eye in torch.eye(count, dtype=q.dtype, device=q.device).split(width, dim=1):
        ones = nn.functional.pad(eye, (0, width - eye.shape[1]))
        values = ones if k.ndim == 4 else rearrange(ones, "(t n) d -> t 1 n d", t=k.shape[1])
        columns.append(flat(strategy(q, k, values.expand(k.shape).contiguous(), 0.0))[..., : eye.shape[1]])
    weights = torch.cat(columns, dim=-1)
    # The tolerance accepts the rounding of strategies in half precision, and no strategy with values of its own.
    expected, got = flat(out).to(q.dtype), weights @ flat(v)
    if not (expected - got).abs().max() <= 0.05 * expected.abs().max() + 1e-6:
        label = getattr(strategy, "__name__", repr(strategy))
        raise ValueError(
            f"the strategy {label} of {name} does not weigh its values: what it makes of them is not the sum of what "
            "it makes of each. It has no attention map; leave it out with layers=, or give the model another strategy"
        )
    return weights


def _stacked(axis: str, maps: dict[str, Tensor]) -> Maps:
    shapes = {tuple(weights.shape) for weights in maps.values()}
    if len(shapes) > 1:
        each = ", ".join(f"{name} {tuple(weights.shape)}" for name, weights in maps.items())
        raise ValueError(f"the maps over {axis} differ in shape: {each}; ask for some with layers=")
    batch = {"clip": (), "space": ("t",), "time": ("n",)}[axis]
    weights = torch.stack([*maps.values()])
    batch = batch[: weights.ndim - 5]  # the frames' own encoder has no places
    return Maps(weights, ("layer", "head", "b", *batch, "query", "key"), tuple(maps))


def _on_grid(name: str, x: Tensor, t: int, n: int) -> Tensor:
    """Numbers for keys, (b, t, h, keys) or (b, h, keys), without class tokens and registers: (b, h, t, n)."""
    if x.ndim == 4 and name.startswith(TEMPORAL):
        return rearrange(x[..., -t:], "b n h t -> b h t n")
    if x.ndim == 4:
        return rearrange(x[..., -n:], "b t h n -> b h t n")
    if x.shape[-1] >= t * n:
        return rearrange(x[..., -t * n :], "b h (t n) -> b h t n", t=t)
    return (x[..., -t:, None] / n).expand(*x.shape[:-1], t, n)


def _known_layers(model: nn.Module, layers: Collection[str] | None) -> list[str]:
    known = attention_layers(model)
    for name in known if layers is None else layers:
        if name not in known:
            raise ValueError(f"{name!r} is no attention layer; they are {', '.join(known)}")
    return [name for name in known if layers is None or name in layers]
