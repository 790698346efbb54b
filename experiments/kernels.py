"""Where does a forward pass spend its time, and which form of each part is the fastest without more rounding?

    python experiments/kernels.py          # about six minutes on two CPU cores; writes docs/benchmarks/kernels

ViViT-B/16x2 on one clip of 32x224x224, after `optimize_for_inference`. The first table is torch's profile of each
variant. The second times different forms of the same function, which take turns; the first of each group is the form
that `optimize_for_inference` chooses. One form is compiled and needs a C++ compiler. The error is the largest
difference from the function in float64, for values around one.

Expected: the fused attention of torch and the large matrix products take almost all of the time. The rest that can be
saved is the bias and GELU of the MLP, which a kernel of oneDNN computes with the product, and new memory pages for the
hidden layer. Forms of attention that are faster than torch's fused one in bfloat16 round the scores to 8 bits, so they
are not used.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention
from torch.profiler import profile

from vivit_zoo import create_model, inference, optimize_for_inference
from vivit_zoo.attention import Attention, attend, attend_over_time
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.mlp import Mlp, gelu_tanh
from vivit_zoo.system.machine import describe_machine
from vivit_zoo.system.pipes import exit_if_pipe_closes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DIM, HEADS, TOKENS = 768, 12, 3136
MODEL: dict[str, Any] = {"name": "B/16x2", "num_frames": 32, "image_size": 224}
compiled_flex_attention = torch.compile(flex_attention, dynamic=False)
Forms = dict[str, Callable[[Tensor], Tensor]]


def optimized_model(variant: str, dtype: torch.dtype) -> nn.Module:
    """Build a variant for inference."""
    return optimize_for_inference(create_model(variant=variant, **MODEL).to(dtype).eval())


def clip(dtype: torch.dtype) -> Tensor:
    """Make a random clip of the models' size."""
    return torch.randn(1, 3, MODEL["num_frames"], MODEL["image_size"], MODEL["image_size"]).to(dtype)


def apart(mlp: Mlp, act: Callable[[Tensor], Tensor] = gelu_tanh) -> Callable[[Tensor], Tensor]:
    """The MLP as three operations."""
    return lambda x: mlp.fc2(act(mlp.fc1(x)))


def gelu_by_sigmoid(x: Tensor) -> Tensor:
    """The same function, x · sigmoid(2u), in as few passes as torch takes for it."""
    u = x * x
    return u.mul_(0.07135481627).add_(1.59576912161).mul_(x).sigmoid_().mul_(x)


def in_chunks(f: Callable[[Tensor], Tensor], rows: int) -> Callable[[Tensor], Tensor]:
    """Some tokens after the others, so that the hidden layer of them stays in the cache."""

    def chunked(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for part, whole in zip(x.split(rows, dim=-2), out.split(rows, dim=-2), strict=True):
            whole.copy_(f(part))
        return out

    return chunked


def heads(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(b, n, 3·h·d) -> three of (b, h, n, d), strided as they are in the model."""
    q, k, v = qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def fused(qkv: Tensor) -> Tensor:
    """What the model does."""
    q, k, v = heads(qkv)
    return F.scaled_dot_product_attention(q, k, v)


def fused_after_copies(qkv: Tensor) -> Tensor:
    """For kernels that like their tokens one after the other."""
    q, k, v = (x.contiguous() for x in heads(qkv))
    return F.scaled_dot_product_attention(q, k, v)


def fused_after_two_copies(qkv: Tensor) -> Tensor:
    """Keys and values are read again for each block of queries, the queries once."""
    q, k, v = heads(qkv)
    return F.scaled_dot_product_attention(q, k.contiguous(), v.contiguous())


def without_last_token(qkv: Tensor) -> Tensor:
    """One token fewer, an even number."""
    return fused(qkv[:, :-1])


def padded(qkv: Tensor) -> Tensor:
    """Pad to a multiple of 16. A model would also have to mask the keys, which costs more."""
    return fused(F.pad(qkv, (0, 0, 0, -qkv.shape[1] % 16)))


def in_float32(qkv: Tensor) -> Tensor:
    """For kernels that know float32 better."""
    return fused(qkv.float()).to(qkv.dtype)


def math_backend(qkv: Tensor) -> Tensor:
    """What torch falls back to."""
    with sdpa_kernel(SDPBackend.MATH):
        return fused(qkv)


def flex(qkv: Tensor) -> Tensor:
    """What Inductor writes and compiles for the same."""
    q, k, v = heads(qkv)
    return compiled_flex_attention(q, k, v)


def unfused(qkv: Tensor, queries: int = 128) -> Tensor:
    """Products and a softmax of some queries at a time, with the scores in the input's dtype."""
    q, k, v = heads(qkv)
    q, k, v = q * q.shape[-1] ** -0.5, k.contiguous(), v.contiguous()
    return torch.cat([torch.softmax(part @ k.mT, -1) @ v for part in q.split(queries, dim=2)], dim=2)


def with_hidden_layers_whole(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """All tokens through the fused MLP at once."""

    def run(x: Tensor) -> Tensor:
        kept, inference.HIDDEN_BYTES = inference.HIDDEN_BYTES, sys.maxsize
        try:
            return module(x)
        finally:
            inference.HIDDEN_BYTES = kept

    return run


def permuted_once(attention: Attention) -> Callable[[Tensor], Tensor]:
    """Attention over time with x laid out for it before, and back after."""
    attention = attention_like(attention, attend)
    return lambda x: attention(x.transpose(1, 2).contiguous()).transpose(1, 2).contiguous()


def attention_like(other: Attention, strategy: Callable[..., Tensor]) -> Attention:
    """The same weights under another strategy."""
    made = Attention(DIM, HEADS, attend=strategy).to(other.proj.weight.dtype)
    made.load_state_dict(other.state_dict())
    return made.eval()


def groups(dtype: torch.dtype) -> dict[str, tuple[Tensor, Forms, Callable[[Tensor], Tensor] | None]]:
    """Name -> an input, the forms of a function, and the function in float64 to compare with."""
    mlp = inference.FusedMlp(Mlp(DIM, 4 * DIM).to(dtype).eval())
    exact = Mlp(DIM, 4 * DIM).double().eval()
    exact.load_state_dict(mlp.state_dict())
    over_time = Attention(DIM, HEADS, attend=attend_over_time).to(dtype).eval()
    tokens = torch.randn(1, TOKENS, DIM).to(dtype)
    models = {name: optimized_model(name, dtype) for name in ENCODERS}
    video = clip(dtype)
    attentions: Forms = {"fused, copied first": fused_after_copies, "fused, on views": fused, "unfused": unfused}
    short: Forms = {"fused, on views": fused} | attentions | {"math backend": math_backend}
    attentions = attentions | {"fused, keys and values copied first": fused_after_two_copies, "flex, compiled": flex}
    if dtype != torch.float32:
        attentions = attentions | {"fused, in float32": in_float32}
    return {
        **{
            name: (
                video,
                {"hidden layers 16 MB at a time": model, "hidden layers whole": with_hidden_layers_whole(model)},
                None,
            )
            for name, model in models.items()
        },
        "MLP": (
            tokens,
            {
                "bias and GELU in the product's kernel, 16 MB at a time": mlp,
                "the same, all at once": with_hidden_layers_whole(mlp),
                "three operations": apart(mlp),
                "x · sigmoid(2u)": apart(mlp, gelu_by_sigmoid),
                "in chunks of 784 tokens": in_chunks(apart(mlp), 784),
                "in chunks of 196 tokens": in_chunks(apart(mlp), 196),
                "erf GELU (another function)": apart(mlp, F.gelu),
            },
            exact,
        ),
        "attention of 3137 tokens": (
            torch.randn(1, TOKENS + 1, 3 * DIM).to(dtype),
            attentions | {"padded to 3152": padded, "without a class token": without_last_token},
            fused,
        ),
        "attention over space, 16 x 197": (
            torch.randn(16, 197, 3 * DIM).to(dtype),
            short | {"padded to 208": padded, "without a class token": without_last_token},
            fused,
        ),
        "attention over time, 196 x 16": (torch.randn(196, 16, 3 * DIM).to(dtype), short, fused),
        "over time with its projections, 1 clip": (
            torch.randn(1, 16, 196, DIM).to(dtype),
            {"q, k, v permuted": over_time, "x permuted each way": permuted_once(over_time)},
            None,
        ),
        "over time with its projections, 4 clips": (
            torch.randn(4, 16, 196, DIM).to(dtype),
            {"q, k, v permuted": over_time, "x permuted each way": permuted_once(over_time)},
            None,
        ),
    }


def measure(
    x: Tensor, forms: Forms, exact: Callable[[Tensor], Tensor] | None, rounds: int
) -> dict[str, dict[str, float]]:
    """Median milliseconds of each form, taking turns, and its error."""
    truth = exact(x.double()) if exact else None
    taken: dict[str, list[float]] = {name: [] for name in forms}
    found: dict[str, dict[str, float]] = {name: {} for name in forms}
    for turn in range(rounds + 1):
        for name, form in forms.items():
            start = time.perf_counter()
            out = form(x)
            if turn:
                taken[name].append(1e3 * (time.perf_counter() - start))
            elif truth is not None and out.shape == truth.shape:
                found[name]["error"] = (out - truth).abs().max().item()
    return {name: found[name] | {"ms": median(times)} for name, times in taken.items()}


def where_time_goes(dtype: torch.dtype) -> dict[str, dict[str, float]]:
    """Variant -> milliseconds of what it runs, of torch's profiler."""
    parts = {
        "products": ("aten::addmm", "mkldnn::_linear_pointwise"),
        "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu",),
        "copies": ("aten::copy_", "aten::cat"),
        "norms, sums": ("aten::native_layer_norm", "aten::add"),
    }
    found = {}
    video = clip(dtype)
    for variant in ENCODERS:
        model = optimized_model(variant, dtype)
        model(video)
        with profile() as seen:
            model(video)
        times = {event.key: event.self_cpu_time_total / 1e3 for event in seen.key_averages()}
        row = {name: sum(times.pop(key, 0.0) for key in keys) for name, keys in parts.items()}
        found[variant] = row | {"all else": sum(times.values())}
    return found


def tables(results: dict[str, Any]) -> str:
    """Both as Markdown."""
    first = results["profile"]["float32"]["joint"]
    lines = ["| variant, dtype | " + " | ".join(f"{name}, ms" for name in first) + " |"]
    lines.append("| --- |" + " ---: |" * len(first))
    for dtype, rows in results["profile"].items():
        lines += [
            f"| {v}, {dtype} | " + " | ".join(f"{ms:,.0f}" for ms in row.values()) + " |" for v, row in rows.items()
        ]
    lines += ["", "| | form | " + " | ".join(f"{d}, ms | of the first | error" for d in DTYPES) + " |"]
    lines.append("| --- | --- |" + " ---: |" * 3 * len(DTYPES))
    for group, forms in results["forms"]["bfloat16"].items():
        for form in forms:
            cells = []
            for dtype in DTYPES:
                column = results["forms"][dtype][group]
                one, base = column.get(form), next(iter(column.values()))
                error = f"{one['error']:.0e}" if one and "error" in one else ""
                cells += [f"{one['ms']:.1f}", f"{one['ms'] / base['ms']:.2f}", error] if one else ["", "", ""]
            lines.append(f"| {group} | {form} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@exit_if_pipe_closes()
def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each form (3)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/benchmarks/kernels")
    options = parser.parse_args()
    with torch.inference_mode():
        forms = {
            name: {group: measure(*given, options.rounds) for group, given in groups(dtype).items()}
            for name, dtype in DTYPES.items()
        }
        results = {"forms": forms, "profile": {name: where_time_goes(dtype) for name, dtype in DTYPES.items()}}
    machine = describe_machine(torch.device("cpu"))
    text = f"{tables(results)}\n\n`kernels.py`, {machine}"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "kernels.json").write_text(
        json.dumps({"machine": machine, **results}, indent=1) + "\n", encoding="utf-8"
    )
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
