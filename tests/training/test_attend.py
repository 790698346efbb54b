"""The attention of training on a CPU: the same function, in all layers, for the time of the training only."""

from contextlib import nullcontext

import pytest
import torch

from tests.training.runs import small
from vivit_zoo import ViViT
from vivit_zoo.attention import Attention, attend
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.studies.cells import BASE
from vivit_zoo.training import attend as attend_module
from vivit_zoo.training.attend import LANES, SHORT, attend_short, short_attention
from vivit_zoo.training.loop import train


@pytest.mark.parametrize("length", [1, 5, 16, SHORT, SHORT + 1])
def test_short_sequences_are_attended_to_alike(length):
    """Values and gradients, on strided views."""
    found = []
    for strategy in (attend, attend_short):
        torch.manual_seed(length)
        qkv = torch.randn(2, 3, length, 3 * 2 * 4, dtype=torch.float64, requires_grad=True)
        q, k, v = qkv.unflatten(-1, (3, 2, 4)).permute(3, 0, 1, 4, 2, 5)
        out = strategy(q, k, v)
        out.square().sum().backward()
        found.append((out.detach(), qkv.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("length", "softmax_over"), [(LANES - 1, -2), (LANES, -1), (SHORT, -1), (SHORT + 1, None)], ids=str
)
def test_only_short_sequences_take_separate_products(length, softmax_over, monkeypatch):
    """Guards the gain: the fused kernel is slower for them, and so is a softmax over rows shorter than LANES."""
    calls, softmax = [], torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda x, dim: calls.append(dim) or softmax(x, dim))
    monkeypatch.setattr(attend_module, "attend", lambda q, *_: calls.append(None) or q)
    attend_short(*torch.randn(3, 1, 2, length, 4))
    assert calls == [softmax_over]
    assert (LANES, SHORT) == (16, 32)  # measured, see experiments/cell.py


def test_masks_and_dropout_are_the_fused_kernels():
    q, k, v = torch.randn(3, 2, 1, 6, 4)
    mask = torch.arange(6)[None] < torch.tensor([[4], [6]])
    assert torch.equal(attend_short(q, k, v, mask=mask), attend(q, k, v, mask=mask))
    torch.manual_seed(0)
    dropped = attend_short(q, k, v, 0.5)
    torch.manual_seed(0)
    assert torch.equal(dropped, attend(q, k, v, 0.5))


@pytest.mark.parametrize("variant", ENCODERS)
def test_all_layers_of_a_model_take_it_and_give_it_back(variant, monkeypatch):
    model = ViViT(BASE.model.replace(variant=variant, tubelet_size=(8, 8, 8), dim=24, depth=2)).eval()
    video = torch.randn(1, *model.config.input_shape)
    layers = [module for module in model.modules() if type(module) is Attention]
    before, calls = [layer.attend for layer in layers], []
    monkeypatch.setattr(attend_module, "attend_short", lambda *x, **y: calls.append(1) or attend_short(*x, **y))
    with torch.no_grad(), nullcontext() if variant == "joint" else pytest.raises(RuntimeError, match="stop"):
        plain = model(video)
        with short_attention(model):
            torch.testing.assert_close(model(video), plain)
            # Two for a layer of Model 4, over time and over space.
            assert len(calls) == len(layers) * (2 if variant == "factorised_dot_product" else 1)
            if variant != "joint":
                raise RuntimeError("stop")
    assert [layer.attend for layer in layers] == before


@pytest.mark.parametrize("compile", [False, True])
def test_a_run_trains_with_it_and_returns_the_model_as_built(tmp_path, monkeypatch, compile):
    """Unless it is compiled: a compiled model would be compiled again for the test, which attends as built."""
    calls, fused, adamw = [], [], torch._fused_adamw_
    monkeypatch.setattr(attend_module, "attend_short", lambda *x, **y: calls.append(1) or attend(*x, **y))
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *x, **y: fused.append(1) or adamw(*x, **y))
    monkeypatch.setattr(ViViT, "compile", lambda self: None)
    config = small(steps=1, eval_every=1, compile=compile).change_model(variant="factorised_encoder")
    trained = train(config, tmp_path / "run")
    assert bool(calls) != compile
    assert fused
    assert all(module.attend is attend for module in trained.model.modules() if type(module) is Attention)
