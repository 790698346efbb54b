"""The residual blocks: `Mlp`, `DropPath`, `Block` (Models 1, 2 and 4) and `FactorisedBlock` (Model 3)."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from vivit_zoo.attention import Attend, Attention, attend, attend_over_time

__all__ = ["ACTS", "Block", "DropPath", "FactorisedBlock", "Mlp", "Order", "gelu_tanh", "quick_gelu"]

Order = Literal["space_time", "time_space"]


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form, the one that the released ViViT checkpoints were trained with."""
    return F.gelu(x, approximate="tanh")


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), the form of OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)


ACTS: dict[str, Callable[[Tensor], Tensor]] = {"gelu_tanh": gelu_tanh, "gelu": F.gelu, "quick_gelu": quick_gelu}


class Mlp(nn.Module):
    """Linear, activation, Linear: (..., d) -> (..., d).

    Kernels start Xavier-uniform and biases from N(0, 1e-6), as in the original code.

    Args:
        dim: width d.
        hidden: width between the two layers.
        act: the activation, a function of a tensor.
        drop: dropout rate after the activation and after the second layer, in [0, 1).
    """

    def __init__(
        self, dim: int, hidden: int, *, act: Callable[[Tensor], Tensor] = gelu_tanh, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = act
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        if not self._can_fuse(x):
            return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
        tokens = max(1, HIDDEN_BYTES // (self.fc1.out_features * x.element_size()))
        parts = x.reshape(-1, x.shape[-1]).split(tokens)
        outs = [self.fc2(_linear_gelu_tanh(part, self.fc1)) for part in parts]
        out = torch.cat(outs) if len(outs) > 1 else outs[0]
        return out.view(*x.shape[:-1], out.shape[-1])

    def _can_fuse(self, x: Tensor) -> bool:
        """Whether the kernel is there and nobody needs what it leaves out, or would see a part of the tokens alone."""
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
            and x.shape[-1:] == self.fc1.weight.shape[1:]
        )


def _is_watched(module: nn.Module) -> bool:
    """Whether something besides its class has a say in what the module does: hooks, or a `forward` of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _runs_as_written() -> bool:
    """Whether torch runs operations as they come: for no gradient of any kind, no cast, no graph, no hook on all."""
    return bool(torch.backends.mkldnn.enabled) and not (
        torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or nn.modules.module._global_forward_hooks
        or nn.modules.module._global_forward_pre_hooks
    )


HIDDEN_BYTES = 16 * 2**20
"""What the hidden layer of as many tokens as the fused MLP takes at a time may need. glibc asks the system for new
pages, each time, for what is larger than 32 MB: a twentieth of a model's time in float32 (docs/performance.md)."""

# What the kernel below takes, on this machine and in this torch: it is none of torch's public functions.
FUSIBLE: tuple[torch.dtype, ...] = ()
if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    FUSIBLE = (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


def _linear_gelu_tanh(x: Tensor, linear: nn.Linear) -> Tensor:
    """`gelu_tanh(linear(x))` as one kernel of oneDNN, bias and GELU applied before it writes: (..., d) -> (..., k).

    Apart, bias, product and GELU each pass over the widest tensor of the model, and on a CPU that and GELU's tanh take
    a tenth of the MLP's time (docs/performance.md). Inductor makes the same of the two where it freezes weights.
    """
    return torch.ops.mkldnn._linear_pointwise(x, linear.weight, linear.bias, "gelu", [], "tanh")


if FUSIBLE:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        """For torch's `FlopCounterMode`."""
        return 2 * math.prod(x) * weight[0]


class DropPath(nn.Module):
    """Stochastic depth: zeroes whole samples of the first axis with probability `rate` in training: (b, ...) -> same.

    One draw serves all frames and places of a video. What is kept is scaled by 1 / (1 - rate), so that evaluation needs
    no change; this is timm's convention, the original ViViT code does not rescale.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop path rate {rate} is not in [0, 1)")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class Block(nn.Module):
    """Pre-norm transformer block, x + attn(norm1(x)), then x + mlp(norm2(x)): (..., n, d) -> (..., n, d).

    Args:
        dim: width d of the tokens.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`, rounded to the nearest integer.
        attend: the attention strategy, see `vivit_zoo.attention`. `attend_split_heads` makes this Model 4's block.
        qkv_bias: whether queries, keys and values have a bias.
        act: activation of the MLP.
        norm_eps: epsilon of the LayerNorms.
        drop: dropout rate after the attention's projection and in the MLP, in [0, 1).
        attn_drop: dropout rate of the attention weights, in [0, 1).
        drop_path: rate of stochastic depth, in [0, 1); each residual branch draws for itself, once per sample.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        attend: Attend = attend,
        qkv_bias: bool = True,
        act: Callable[[Tensor], Tensor] = gelu_tanh,
        norm_eps: float = 1e-6,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, attend=attend, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=drop)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), act=act, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class FactorisedBlock(Block):
    """Model 3's block, attention over space, then over time, then the MLP: (b, t, n, d) -> (b, t, n, d).

    Paper section 3.3, Equations 4 to 6. `attn` and `norm1` are the spatial attention's, so that an image model's block
    maps onto this one by name; `attn_time` and `norm_time` are what Model 3 adds.

    Args:
        dim, num_heads, **options: as in `Block`.
        order: "space_time" as in the paper, or "time_space".

    Raises:
        ValueError: on any other `order`.
    """

    def __init__(self, dim: int, num_heads: int, *, order: Order = "space_time", **options: Any) -> None:
        super().__init__(dim, num_heads, **options)
        if order not in get_args(Order):
            raise ValueError(f"order {order!r} is unknown; choose from {', '.join(get_args(Order))}")
        self.order = order
        self.norm_time = nn.LayerNorm(dim, eps=self.norm1.eps)
        self.attn_time = Attention(
            dim,
            num_heads,
            attend=attend_over_time,
            qkv_bias=self.attn.qkv.bias is not None,
            attn_drop=self.attn.attn_drop,
            proj_drop=self.attn.proj_drop.p,
        )

    def forward(self, x: Tensor) -> Tensor:
        space, time = (self.norm1, self.attn), (self.norm_time, self.attn_time)
        for norm, attn in (space, time) if self.order == "space_time" else (time, space):
            x = x + self.drop_path(attn(norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
