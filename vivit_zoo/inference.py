"""`optimize_for_inference`: what makes a trained model faster on a CPU and needs more than public torch functions."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

from vivit_zoo.attention import Attention, attend
from vivit_zoo.mlp import Mlp, gelu_tanh

__all__ = ["FusedMlp", "attend_contiguous", "optimize_for_inference"]

Model = TypeVar("Model", bound=nn.Module)

HIDDEN_BYTES = 16 * 2**20
"""Size of the MLP's hidden layer that `FusedMlp` computes at a time. glibc requests new pages from the system, each
time, for tensors larger than 32 MB: a twentieth of a model's time in float32 (docs/performance.md)."""

LONG = 1024
"""Sequence length from which `attend_contiguous` copies. On a CPU the fused attention reads keys so often that a copy
is cheaper than strided reads: a tenth of the attention's time in bfloat16 (docs/performance.md)."""

# The dtypes of the fused kernel on this machine and in this version of torch; it is not a public function of torch.
FUSIBLE: tuple[torch.dtype, ...] = ()
if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    FUSIBLE = (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


def optimize_for_inference(model: Model) -> Model:
    """Replace the parts of a model that have a faster form on a CPU, in place, and return the model.

    Every plain `Mlp` with `gelu_tanh` becomes a `FusedMlp`, and every `Attention` with the strategy `attend` gets
    `attend_contiguous`. Names of parameters stay the same. Where the fast form does not apply (gradients are enabled,
    on a GPU, under autocast, in `torch.compile`) the model computes as before.

    Args:
        model: any module that holds blocks of `vivit_zoo.blocks`, in evaluation mode.

    Raises:
        ValueError: if the model is in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before optimize_for_inference(model)")
    for module in list(model.modules()):
        if type(module) is Attention and module.attend is attend:
            module.attend = attend_contiguous
        for name, child in list(module.named_children()):
            if type(child) is Mlp and _is_plain(child):
                setattr(module, name, FusedMlp(child))
    return model


def _is_plain(mlp: Mlp) -> bool:
    """Whether the MLP is two layers with `gelu_tanh` between them."""
    return mlp.act is gelu_tanh and not mlp.gated and isinstance(mlp.inner_norm, nn.Identity)


def attend_contiguous(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, mask: Tensor | None = None) -> Tensor:
    """`attend` on contiguous copies of long sequences on a CPU: (..., h, n, d) -> (..., h, n, d)."""
    if q.device.type == "cpu" and k.shape[-2] > LONG:
        q, k, v = (x.contiguous() for x in (q, k, v))
    return attend(q, k, v, dropout, mask)


class FusedMlp(Mlp):
    """`Mlp` with `gelu_tanh` fused into its first layer: (..., d) -> (..., d).

    As separate kernels, product, bias and GELU each read and write the widest tensor of the model. On a CPU that and
    the tanh take a tenth of the MLP's time (docs/performance.md). Tokens are computed in parts of `HIDDEN_BYTES`.
    Inductor fuses the same two where it freezes weights.

    Args:
        mlp: the module whose layers this one shares.
    """

    def __init__(self, mlp: Mlp) -> None:
        nn.Module.__init__(self)
        self.fc1, self.act, self.gated, self.inner_norm = mlp.fc1, mlp.act, mlp.gated, mlp.inner_norm
        self.fc2, self.drop = mlp.fc2, mlp.drop
        self.train(mlp.training)

    def forward(self, x: Tensor) -> Tensor:
        # First whether the graph is captured: torch 2.6 cannot trace the questions after it.
        if torch.compiler.is_compiling() or not self._can_fuse(x):
            return super().forward(x)
        tokens = max(1, HIDDEN_BYTES // (self.fc1.out_features * x.element_size()))
        parts = x.reshape(-1, x.shape[-1]).split(tokens)
        outs = [self.fc2(_linear_gelu_tanh(part, self.fc1)) for part in parts]
        out = torch.cat(outs) if len(outs) > 1 else outs[0]
        return out.view(*x.shape[:-1], out.shape[-1])

    def _can_fuse(self, x: Tensor) -> bool:
        """Whether the kernel is there, and neither a gradient nor a hook needs what it leaves out."""
        linears = (self.fc1, self.fc2)
        return (
            self.act is gelu_tanh
            and all(type(linear) is nn.Linear and type(linear.weight) is nn.Parameter for linear in linears)
            and type(self.drop) is nn.Dropout
            and not (self.drop.training and self.drop.p)  # one draw for all tokens, as with gradients
            and not any(_is_watched(child) for child in (*linears, self.drop))
            and _runs_as_written()
            and type(x) is Tensor
            and x.device.type == self.fc1.weight.device.type == "cpu"
            and x.dtype == self.fc1.weight.dtype
            and x.dtype in FUSIBLE
            and self.fc1.weight.layout == torch.strided
            and x.shape[-1:] == self.fc1.weight.shape[1:]
        )


def _is_watched(module: nn.Module) -> bool:
    """Whether a module has hooks, or a `forward` set on the instance."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _runs_as_written() -> bool:
    """Whether operations run eagerly: no gradient of any kind, no autocast, no graph capture, no global hook."""
    return bool(torch.backends.mkldnn.enabled) and not (
        torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.jit.is_tracing()
        or nn.modules.module._global_forward_hooks
        or nn.modules.module._global_forward_pre_hooks
    )


def _linear_gelu_tanh(x: Tensor, linear: nn.Linear) -> Tensor:
    """`gelu_tanh(linear(x))` in one kernel of oneDNN, bias and GELU applied before it writes: (n, d) -> (n, k)."""
    return torch.ops.mkldnn._linear_pointwise(x, linear.weight, linear.bias, "gelu", [], "tanh")


if FUSIBLE and torch.ops.mkldnn._linear_pointwise not in flop_registry:  # it is after importlib.reload

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        """For torch's `FlopCounterMode`."""
        return 2 * math.prod(x) * weight[0]
