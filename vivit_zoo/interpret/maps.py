"""Attention maps, the attention of single heads on the grid, and attention rollout.

Nothing here depends on the variant. During a forward pass, every `Attention` of the model gets a strategy that records
queries and keys and then calls the original strategy with its fused kernel; afterwards the original is restored. The
only assumption is that a strategy is linear in the values: out = W(q, k) v. Then its output for v = identity is W, and
the gradient with respect to v is a product with Wᵀ, which needs no memory for W.
"""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

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
from vivit_zoo.mlp import Mlp
from vivit_zoo.model import ViViT
from vivit_zoo.pooling import AttentionPool
from vivit_zoo.positions import RelativePositionBias

__all__ = ["Maps", "attention_layers", "attention_maps", "head_maps", "rollout"]

# The strategies that mix the tokens of each sequence (..., h, n, d) and nothing else.
WITHIN_A_SEQUENCE = (attend, attend_contiguous, attend_softcapped)

# Layers of this encoder see the frames at one place, or frames as wholes.
TEMPORAL = "encoder.temporal."

Record = Callable[[str, Attention, Attend, tuple[Tensor, Tensor, Tensor], Tensor], None]
"""Called with the name of a layer, the layer, its original strategy, (q, k, v) and the strategy's output."""


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


def attention_layers(model: nn.Module) -> list[str]:
    """List the names of the attention layers of a model, such as "encoder.blocks.0.attn", first to last."""
    # A block lists its modules in the order they were made; Model 3's runs time before space under another `order`.
    return [name for name, module in model.named_modules() if isinstance(module, Attention)]


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

    with _watched(model, record), torch.no_grad():
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
            queries = q.new_zeros(q.shape[:-1], dtype=_exact(q))
            if around and around[-1].global_pool == "token":
                queries[..., 0] = 1.0
            else:
                queries[..., around[-1].num_prefix_tokens if around else 0 :] = 1.0
            queries /= queries[0, ..., 0, :].sum()
            found.append(_on_grid(name, _gathered(strategy, q, k, queries), t, h * w))

    with _watched(model, record), torch.no_grad():
        model(video)
    return found[-1]


def rollout(model: ViViT, video: Tensor) -> Tensor:
    """Compute attention rollout, the share of each tubelet in the pooled output: (b, c, T, H, W) -> (b, t, n).

    Abnar and Zuidema, arXiv 2005.00928: heads are averaged, the residual connection adds the identity, rows are
    normalised, and the matrices of all layers are multiplied. This treats a layer as a mixture of tokens alone. The
    result is the row of the class token, the mean of the rows that average pooling uses, or the sum of the rows with
    the weights of attention pooling. Shares of class tokens and registers are left out. Rollout shows where information
    can come from, not which class it is evidence for.

    This is the gradient of the pooled output with respect to the tokens in a model where LayerNorms are the identity,
    MLPs add nothing and an attention layer is the mean of its heads' maps. It is computed as this gradient: the model
    runs as usual, and a vector over the tokens is propagated back. A factorised layer applies its small maps to that
    vector; other operations on tokens, such as a pooling between two encoders, are part of the graph. Memory is that of
    q and k of all layers and of one fused kernel; a map over the whole clip is never computed.

    Args:
        model: with an encoder built of the library's attention layers, under any strategy. It runs in evaluation mode
            and is restored afterwards, also after an error.
        video: a batch in the model's input format.

    Raises:
        ValueError: if the encoder has trained torch layers outside of attention and MLP, which could mix tokens in
            unknown ways; or if the model is in float16, whose range is too small for these numbers.
    """
    _check_parts(model)
    told: dict[nn.Module, tuple[Attend, Tensor, Tensor]] = {}
    ends: dict[str, Tensor] = {}

    def record(name: str, layer: Attention, strategy: Attend, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor) -> None:
        told[layer] = strategy, qkv[0].detach(), qkv[1].detach()

    def begin(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        ends["tokens"] = out.detach().clone().requires_grad_()
        return ends["tokens"]

    def end(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        ends["pooled"] = out

    def mix(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        return _MixedTokens.apply(inputs[0], out.detach(), *told.pop(module))

    def keep(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        return _SameTokens.apply(inputs[0], out.detach())

    def seen(module: nn.Module, inputs: tuple[Tensor]) -> None:
        ends["pooled_tokens"] = inputs[0]

    def pool(module: AttentionPool, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        tokens = ends["pooled_tokens"]
        weights = module.weights(tokens).mean(-2).detach()
        mixed = (weights[..., None] * tokens).sum(-2)
        return out.detach() + mixed - mixed.detach()

    def cut(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        return out.detach()

    with ExitStack() as stack:
        stack.enter_context(_watched(model, record))
        stack.enter_context(torch.enable_grad())
        stack.callback(model.tubelet_embed.register_forward_hook(begin).remove)
        stack.callback(model.encoder.register_forward_hook(end).remove)
        for module in model.encoder.modules():
            for kind, hook in ((Attention, mix), (nn.LayerNorm, keep), (nn.RMSNorm, keep), (Mlp, cut)):
                if isinstance(module, kind):
                    stack.callback(module.register_forward_hook(hook).remove)
            if isinstance(module, AttentionPool):
                stack.callback(module.kv.register_forward_pre_hook(seen).remove)
                stack.callback(module.register_forward_hook(pool).remove)
        model(video.clone() if video.is_inference() else video)
        (relevance,) = torch.autograd.grad(ends["pooled"].sum(), ends["tokens"])
    relevance = relevance.to(_exact(relevance)).sum(-1)
    # All zeros where no tubelet reaches the output, as under a causal mask with the class token first.
    return relevance / relevance.sum((1, 2), keepdim=True).clamp(min=torch.finfo(relevance.dtype).tiny)


class _SameTokens(torch.autograd.Function):
    """The second argument, and the gradient of the identity in the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _MixedTokens(torch.autograd.Function):
    """The second argument, and in the first the gradient of mixing tokens by the mean of the heads' maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor, attend: Attend, q: Tensor, k: Tensor) -> Tensor:
        ctx.attend = attend
        ctx.save_for_backward(q, k)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k = ctx.saved_tensors
        # Channels play no part in the mixing, so that their mean may be taken first.
        relevance = grads[0].to(_exact(q)).mean(-1)
        heads = relevance[..., None, :].expand(q.shape[:-1]) / q.shape[-3]
        mixed = _gathered(ctx.attend, q, k, heads).sum(-2)
        return mixed[..., None].expand(grads[0].shape).to(grads[0].dtype), None, None, None, None


def _exact(x: Tensor) -> torch.dtype:
    """Return the dtype in which maps are computed."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _gathered(attend: Attend, q: Tensor, k: Tensor, queries: Tensor) -> Tensor:
    """Wᵀ · queries of a strategy's weights W(q, k): (..., h, n, d) twice and (..., h, n) -> (..., h, keys)."""
    q, k = (x.detach().to(_exact(x)) for x in (q, k))
    # One channel would do, but the fused kernels take values as wide as the keys, and no others.
    with torch.enable_grad(), torch.autocast(q.device.type, enabled=False):
        v = torch.zeros_like(k, memory_format=torch.contiguous_format).requires_grad_()
        out = attend(q, k, v, 0.0)
        direction = queries[..., None].expand(out.shape).contiguous()
        return torch.autograd.grad(out, v, direction)[0][..., 0]


def _weights(name: str, strategy: Attend, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor) -> dict[str, Tensor]:
    """The maps (..., h, query, key) of one layer by axis; the axis of a sequence without a grid is ""."""
    q, k, v = (x.to(_exact(x)) for x in qkv)
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


def _check_parts(model: ViViT) -> None:
    if model.tubelet_embed.proj.weight.dtype == torch.float16:
        raise ValueError("the shares of a rollout do not fit into float16; use model.float() or .bfloat16()")
    inside = {
        part
        for module in model.encoder.modules()
        if isinstance(module, Attention | Mlp | AttentionPool)
        for part in module.modules()
    }
    for name, module in model.encoder.named_modules():
        foreign = type(module).__module__.startswith("torch.") and not isinstance(module, nn.LayerNorm | nn.RMSNorm)
        if module not in inside and foreign and any(True for _ in module.parameters(recurse=False)):
            raise ValueError(
                f"encoder.{name} is a trained {type(module).__name__} outside of attention and MLP; what it does to "
                "the tokens is unknown to a rollout, which follows vivit_zoo's Attention, Mlp and norms. Build the "
                "encoder of these, or look at single layers with attention_maps and head_maps"
            )


@contextmanager
def _watched(model: nn.Module, record: Record) -> Iterator[None]:
    """The model in evaluation mode, its attention layers handed a strategy that tells `record`; then as it was."""
    modes = {module: module.training for module in model.modules()}
    own = {name: module for name, module in model.named_modules() if isinstance(module, Attention)}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # within it there are no gradients, whatever is enabled
        if any(module._compiled_call_impl is not None for module in modes):
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled layers hear of no new strategy
        for module, mode in modes.items():
            stack.callback(setattr, module, "training", mode)
        model.eval()
        for name, layer in own.items():
            stack.callback(setattr, layer, "attend", layer.attend)
            layer.attend = partial(_attend_and_tell, record, name, layer, layer.attend)
        yield


def _attend_and_tell(
    record: Record, name: str, layer: Attention, own: Attend, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0
) -> Tensor:
    """The recording strategy: what the layer's own makes of q, k and v."""
    out = own(q, k, v, dropout)
    record(name, layer, own, (q, k, v), out)
    return out
