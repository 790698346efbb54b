"""Attention rollout: the share of each tubelet in the pooled output."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from vivit_zoo.attention import Attend, Attention
from vivit_zoo.interpret.recording import exact_dtype, recorded, transposed_product
from vivit_zoo.mlp import Mlp
from vivit_zoo.model import ViViT
from vivit_zoo.pooling import AttentionPool

__all__ = ["rollout"]


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
    recordings: dict[nn.Module, tuple[Attend, Tensor, Tensor]] = {}
    ends: dict[str, Tensor] = {}

    def record(name: str, layer: Attention, strategy: Attend, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor) -> None:
        recordings[layer] = strategy, qkv[0].detach(), qkv[1].detach()

    def begin(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        ends["tokens"] = out.detach().clone().requires_grad_()
        return ends["tokens"]

    def end(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        ends["pooled"] = out

    def mix(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        return _MixedTokens.apply(inputs[0], out.detach(), *recordings.pop(module))

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
        stack.enter_context(recorded(model, record))
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
    relevance = relevance.to(exact_dtype(relevance)).sum(-1)
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
        relevance = grads[0].to(exact_dtype(q)).mean(-1)
        heads = relevance[..., None, :].expand(q.shape[:-1]) / q.shape[-3]
        mixed = transposed_product(ctx.attend, q, k, heads).sum(-2)
        return mixed[..., None].expand(grads[0].shape).to(grads[0].dtype), None, None, None, None


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
