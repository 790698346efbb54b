"""Run a model while the queries and keys of its attention layers are recorded.

Nothing here depends on the variant. During a forward pass, every `Attention` of the model gets a strategy that records
queries and keys and then calls the original strategy with its fused kernel; afterwards the original is restored. The
only assumption is that a strategy is linear in the values: out = W(q, k) v. Then its output for v = identity is W, and
the gradient with respect to v is a product with Wᵀ, which needs no memory for W.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from vivit_zoo.attention import Attend, Attention

__all__ = ["Record", "attention_layers", "exact_dtype", "recorded", "transposed_product"]

Record = Callable[[str, Attention, Attend, tuple[Tensor, Tensor, Tensor], Tensor], None]
"""Called with the name of a layer, the layer, its original strategy, (q, k, v) and the strategy's output."""


def attention_layers(model: nn.Module) -> list[str]:
    """List the names of the attention layers of a model, such as "encoder.blocks.0.attn", first to last."""
    # A block lists its modules in the order they were made; Model 3's runs time before space under another `order`.
    return [name for name, module in model.named_modules() if isinstance(module, Attention)]


@contextmanager
def recorded(model: nn.Module, record: Record) -> Iterator[None]:
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
            layer.attend = partial(_attend_and_record, record, name, layer, layer.attend)
        yield


def _attend_and_record(
    record: Record, name: str, layer: Attention, own: Attend, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0
) -> Tensor:
    """The recording strategy: what the layer's own makes of q, k and v."""
    out = own(q, k, v, dropout)
    record(name, layer, own, (q, k, v), out)
    return out


def exact_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which maps are computed."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def transposed_product(attend: Attend, q: Tensor, k: Tensor, queries: Tensor) -> Tensor:
    """Wᵀ · queries of a strategy's weights W(q, k): (..., h, n, d) twice and (..., h, n) -> (..., h, keys)."""
    q, k = (x.detach().to(exact_dtype(x)) for x in (q, k))
    # One channel would do, but the fused kernels take values as wide as the keys, and no others.
    with torch.enable_grad(), torch.autocast(q.device.type, enabled=False):
        v = torch.zeros_like(k, memory_format=torch.contiguous_format).requires_grad_()
        out = attend(q, k, v, 0.0)
        direction = queries[..., None].expand(out.shape).contiguous()
        return torch.autograd.grad(out, v, direction)[0][..., 0]
