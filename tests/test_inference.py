"""`optimize_for_inference` changes the time and nothing else."""

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import VARIANTS, tiny_model, video_for
from vivit_zoo import inference, optimize_for_inference
from vivit_zoo.attention import Attention
from vivit_zoo.inference import FusedMlp, attend_contiguous
from vivit_zoo.mlp import Mlp


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_optimised_model_gives_the_same_logits_from_the_same_parameters(variant, monkeypatch):
    monkeypatch.setattr(inference, "HIDDEN_BYTES", 1000)
    monkeypatch.setattr(inference, "LONG", 1)
    model = tiny_model(variant=variant).float()
    video = video_for(model.config, dtype=torch.float32)
    names = list(model.state_dict())
    with torch.no_grad():
        before = model(video)
        assert optimize_for_inference(model) is model
        torch.testing.assert_close(model(video), before, rtol=1e-5, atol=1e-5)
        assert optimize_for_inference(model) is model  # a second time changes nothing
    assert list(model.state_dict()) == names
    mlps = [module for module in model.modules() if isinstance(module, Mlp)]
    assert mlps
    assert all(type(module) is FusedMlp for module in mlps)
    model.train()(video).sum().backward()  # trains as before
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_only_what_has_a_faster_form_is_replaced():
    model = tiny_model(act="gelu", variant="factorised_dot_product")
    optimize_for_inference(model)
    assert all(type(module) is Mlp for module in model.modules() if isinstance(module, Mlp))
    assert all(module.attend is not attend_contiguous for module in model.modules() if isinstance(module, Attention))


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"call model.eval\(\) before"):
        optimize_for_inference(tiny_model().train())


@pytest.mark.parametrize("n", [inference.LONG, inference.LONG + 1])
def test_long_sequences_are_copied_once_and_attend_alike(n):
    q, k, v = torch.randn(2, n, 3, 2, 4, dtype=torch.float64).permute(2, 0, 3, 1, 4)
    expected = torch.softmax(q @ k.mT / 2, -1) @ v
    torch.testing.assert_close(attend_contiguous(q, k, v), expected)
    torch.testing.assert_close(attend_contiguous(q[:, None], k[:, None], v[:, None]), expected[:, None])


# Tokens (..., n, d): one axis, none left, not contiguous, and as many as make several blocks of the product.
INPUTS = [
    torch.randn(16),
    torch.randn(2, 0, 16),
    torch.randn(3, 16, 5).transpose(1, 2),
    torch.randn(1, 1, 1, 16),
    torch.randn(2, 3, 90, 16),
]


@pytest.mark.skipif(not inference.FUSIBLE, reason="this torch has no such kernel")
@pytest.mark.parametrize("x", INPUTS, ids=lambda x: "x".join(map(str, x.shape)))
@pytest.mark.parametrize("hidden_bytes", [1, 1000, 2**24], ids="{} bytes at a time".format)
def test_mlp_without_gradients_is_the_mlp_with_them(x, hidden_bytes, monkeypatch):
    monkeypatch.setattr(inference, "HIDDEN_BYTES", hidden_bytes)
    mlp = FusedMlp(Mlp(16, 40))
    nn.init.normal_(mlp.fc1.bias)  # far from zero, unlike at the start
    for dtype, tolerance in {torch.float32: 2e-6, torch.bfloat16: 0.03}.items():
        mlp.to(dtype)
        plain = mlp(x.to(dtype)).detach()
        with torch.no_grad():
            assert mlp._can_fuse(x.to(dtype)) == (dtype in inference.FUSIBLE)
            torch.testing.assert_close(mlp(x.to(dtype)), plain, rtol=tolerance, atol=tolerance)


class Louder(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # deprecated, and used all the same
def test_whatever_is_done_to_the_layers_is_done_without_gradients_too(monkeypatch):
    """Hooks, layers of one's own, a forward put over one, pruning, autocast, float64, tracing, torch.compile."""
    monkeypatch.setattr(inference, "HIDDEN_BYTES", 1)
    x = torch.randn(3, 16)
    mlp = FusedMlp(Mlp(16, 40))
    changes = ("hooked", "whole", "louder", "pruned", "wrapped", "over", "narrow", "double")
    made = {name: copy.deepcopy(mlp) for name in changes}
    made["hooked"].fc1.register_forward_hook(lambda module, args, out: 2 * out)
    made["whole"].fc2.register_forward_hook(lambda module, args, out: out - out.mean(dim=0))
    made["louder"].fc1 = Louder(16, 40)
    made["louder"].fc1.load_state_dict(mlp.fc1.state_dict())
    prune.l1_unstructured(made["pruned"].fc1, "weight", 100)
    made["wrapped"].fc1 = nn.Sequential(mlp.fc1, nn.ReLU())
    made["over"].fc1.forward = lambda y: 2 * F.linear(y, mlp.fc1.weight, mlp.fc1.bias)
    made["narrow"].fc2.weight = nn.Parameter(mlp.fc2.weight[:5])
    made["narrow"].fc2.bias = nn.Parameter(mlp.fc2.bias[:5])
    made["double"].double()
    for name, changed in made.items():
        dtype = changed.fc2.weight.dtype
        with_gradients = changed(x.to(dtype)).detach()
        with torch.no_grad():
            torch.testing.assert_close(changed(x.to(dtype)), with_gradients, rtol=1e-5, atol=1e-6, msg=name)
        if name not in ("narrow", "double"):
            assert (with_gradients - mlp(x)).abs().max() > 0.01, name
    with torch.no_grad():
        with torch.autocast("cpu"):
            assert mlp(x).dtype == torch.bfloat16
        assert "mkldnn" not in str(torch.jit.trace(mlp, x).inlined_graph)
        assert "mkldnn" not in str(torch.export.export(mlp, (x,)).graph)
        torch.testing.assert_close(torch.compile(mlp, fullgraph=True, backend="eager")(x), mlp(x))
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            mlp(x[:, :5])


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # of torch's own
def test_functional_transforms_see_all_of_the_mlp_without_gradients():
    """Forward-mode derivatives are not switched off by no_grad; vmap has no rule for the kernel."""
    mlp, x, direction = FusedMlp(Mlp(16, 40)), torch.randn(3, 16), torch.randn(3, 16)
    expected = torch.func.jvp(mlp, (x,), (direction,))[1].detach()
    with torch.no_grad():
        torch.testing.assert_close(torch.func.jvp(mlp, (x,), (direction,))[1], expected)
        torch.testing.assert_close(torch.vmap(mlp)(x), mlp(x))


def test_operations_of_the_mlp_are_counted_without_gradients_too():
    mlp, x = FusedMlp(Mlp(16, 40)), torch.randn(3, 16)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        mlp(x)
    assert counter.get_total_flops() == 2 * 2 * 3 * 16 * 40


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_the_mlp_drops_the_same_again(reentrant, monkeypatch):
    """The first pass of a reentrant checkpoint is without gradients; the second has to draw alike."""
    monkeypatch.setattr(inference, "HIDDEN_BYTES", 1)
    mlp = FusedMlp(Mlp(16, 40, drop=0.5)).train()
    x = torch.randn(50, 16, requires_grad=True)
    out = checkpoint(mlp, x, use_reentrant=reentrant)
    out.sum().backward()
    dropped = out == 0
    assert 0.3 < dropped.float().mean() < 0.7
    # What the second pass kept is scaled by two, so that the bias's gradient counts it.
    torch.testing.assert_close(mlp.fc2.bias.grad, 2.0 * (~dropped).sum(dim=0).float())


def test_sparse_weights_are_computed_as_before():
    model = tiny_model().float()
    video = video_for(model.config, dtype=torch.float32)
    with torch.no_grad():
        expected = model(video)
        for mlp in [module for module in model.modules() if isinstance(module, Mlp)]:
            mlp.fc1.weight = nn.Parameter(mlp.fc1.weight.to_sparse_coo())
        try:
            model(video)
        except RuntimeError as error:  # torch 2.6
            pytest.skip(f"torch itself cannot: {error}")
        torch.testing.assert_close(optimize_for_inference(model)(video), expected, rtol=1e-5, atol=1e-5)


def test_the_module_can_be_reloaded():
    names = vars(inference).copy()
    try:
        importlib.reload(inference)
    finally:
        vars(inference).update(names)  # other tests compare with the classes that they imported
