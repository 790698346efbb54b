import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import randomise
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from vivit_zoo import blocks
from vivit_zoo.attention import Attention, attend, attend_split_heads
from vivit_zoo.blocks import Block, DropPath, FactorisedBlock, Mlp

sizes = st.integers(1, 4)


def video_tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(lead=st.lists(sizes, min_size=1, max_size=3), n=sizes, heads=sizes, head_dim=sizes)
def test_block_is_two_pre_norm_residual_branches_under_any_batch_axes(lead, n, heads, head_dim):
    block = randomise(Block(heads * head_dim, heads)).double().eval()
    x = video_tokens(*lead, n, heads * head_dim)
    y = x + block.attn(block.norm1(x))
    expected = y + block.mlp.fc2(nn.functional.gelu(block.mlp.fc1(block.norm2(y)), approximate="tanh"))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("order", ["space_time", "time_space"])
def test_factorised_block_follows_the_paper(order):
    """Equations 4 to 6, with single frames and single places cut out of the grid by hand."""
    block = randomise(FactorisedBlock(8, 2, order=order)).double().eval()
    plain = Attention(8, 2).double()

    def space(x):
        plain.load_state_dict(block.attn.state_dict())
        return torch.stack([plain(frame) for frame in block.norm1(x).unbind(1)], dim=1)

    def time(x):
        plain.load_state_dict(block.attn_time.state_dict())
        return torch.stack([plain(place) for place in block.norm_time(x).unbind(2)], dim=2)

    x = video_tokens(2, 3, 5, 8)
    y = x
    for attend_along in (space, time) if order == "space_time" else (time, space):
        y = y + attend_along(y)
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))


def test_orders_differ():
    blocks = [randomise(FactorisedBlock(8, 2, order=order)).double() for order in ("space_time", "time_space")]
    x = video_tokens(2, 3, 5, 8)
    assert (blocks[0](x) - blocks[1](x)).abs().max() > 0.01


def test_zero_temporal_projection_leaves_the_image_block():
    block = randomise(FactorisedBlock(8, 2)).double()
    nn.init.zeros_(block.attn_time.proj.weight)
    nn.init.zeros_(block.attn_time.proj.bias)
    image_block = Block(8, 2).double()
    image_block.load_state_dict({k: v for k, v in block.state_dict().items() if "_time" not in k})
    x = video_tokens(2, 3, 5, 8)
    torch.testing.assert_close(block(x), image_block(x))


def test_unknown_order_is_refused():
    with pytest.raises(ValueError, match="choose from space_time, time_space"):
        FactorisedBlock(8, 2, order="both")


def test_options_reach_both_attentions():
    block = FactorisedBlock(8, 2, qkv_bias=False, attn_drop=0.25, drop=0.5, norm_eps=1e-3)
    for attn, norm in ((block.attn, block.norm1), (block.attn_time, block.norm_time)):
        assert attn.qkv.bias is None
        assert (attn.attn_drop, attn.proj_drop.p, norm.eps) == (0.25, 0.5, 1e-3)


def test_drop_path_draws_once_a_sample():
    """All frames and places of a video are kept or dropped together, and what is kept is scaled up."""
    drop = DropPath(0.5).train()
    torch.manual_seed(0)
    kept = drop(torch.ones(64, 3, 5, 8)).flatten(1)
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert set(kept[:, 0].tolist()) == {0.0, 2.0}


def test_drop_path_is_absent_in_evaluation():
    x = torch.randn(4, 3)
    assert torch.equal(DropPath(0.9).eval()(x), x)
    assert torch.equal(DropPath(0.0).train()(x), x)


@pytest.mark.parametrize("make", [Block, FactorisedBlock])
def test_each_branch_draws_for_itself(make):
    """With every branch adding its own constant, all combinations of kept and dropped branches turn up."""
    block = make(8, 2, drop_path=0.5).train()
    linears = [block.attn.proj, block.mlp.fc2] + ([block.attn_time.proj] if make is FactorisedBlock else [])
    for power, linear in enumerate(linears):
        nn.init.zeros_(linear.weight)
        nn.init.constant_(linear.bias, 2.0**power / 2)  # kept branches are scaled by 2
    torch.manual_seed(0)
    sums = block(torch.zeros(256, 2, 3, 8))[:, 0, 0, 0]
    assert sorted(set(sums.tolist())) == [float(i) for i in range(2 ** len(linears))]


@pytest.mark.parametrize("gradients", [True, False])
def test_mlp_drops_after_the_activation_and_at_the_end(gradients):
    """Layers that hand through what they get: each element is kept twice, and so quadrupled, in a quarter of cases."""
    mlp = Mlp(8, 8, act=F.relu, drop=0.5).train()
    for layer in (mlp.fc1, mlp.fc2):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.set_grad_enabled(gradients):
        out = mlp(torch.ones(1000, 8))
    assert set(out.unique().tolist()) == {0.0, 4.0}
    assert (out == 4).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_mlp_drops_without_gradients_as_with_them():
    mlp, x = Mlp(16, 40, drop=0.5).train(), torch.randn(50, 16)
    torch.manual_seed(0)
    expected = mlp(x).detach()
    torch.manual_seed(0)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), expected)


def test_model_4_block_is_the_same_block():
    """The same weights run under either strategy, and the strategy makes a difference."""
    block, split = Block(8, 2, attend=attend), Block(8, 2, attend=attend_split_heads)
    randomise(block)
    split.load_state_dict(block.state_dict())
    x = video_tokens(2, 3, 5, 8).float()
    assert not torch.allclose(block(x), split(x), atol=1e-3)


# Tokens (..., n, d): one axis, none left, not contiguous, and as many as make several blocks of the product.
INPUTS = [
    torch.randn(16),
    torch.randn(2, 0, 16),
    torch.randn(3, 16, 5).transpose(1, 2),
    torch.randn(1, 1, 1, 16),
    torch.randn(2, 3, 90, 16),
]


@pytest.mark.skipif(not blocks.FUSIBLE, reason="this torch has no such kernel")
@pytest.mark.parametrize("x", INPUTS, ids=lambda x: "x".join(map(str, x.shape)))
@pytest.mark.parametrize("hidden_bytes", [1, 1000, 2**24], ids="{} bytes at a time".format)
def test_mlp_without_gradients_is_the_mlp_with_them(x, hidden_bytes, monkeypatch):
    monkeypatch.setattr(blocks, "HIDDEN_BYTES", hidden_bytes)
    mlp = Mlp(16, 40)
    nn.init.normal_(mlp.fc1.bias)  # far from zero, unlike at the start
    for dtype, tolerance in {torch.float32: 2e-6, torch.bfloat16: 0.03}.items():
        mlp.to(dtype)
        plain = mlp(x.to(dtype)).detach()
        with torch.no_grad():
            assert mlp._can_fuse(x.to(dtype)) == (dtype in blocks.FUSIBLE)
            torch.testing.assert_close(mlp(x.to(dtype)), plain, rtol=tolerance, atol=tolerance)


class Louder(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # deprecated, and used all the same
def test_whatever_is_done_to_the_layers_is_done_without_gradients_too(monkeypatch):
    """Hooks, layers of one's own, a forward put over one, pruning, autocast, float64, tracing, torch.compile."""
    monkeypatch.setattr(blocks, "HIDDEN_BYTES", 1)
    x = torch.randn(3, 16)
    mlp = Mlp(16, 40)
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
    mlp, x, direction = Mlp(16, 40), torch.randn(3, 16), torch.randn(3, 16)
    expected = torch.func.jvp(mlp, (x,), (direction,))[1].detach()
    with torch.no_grad():
        torch.testing.assert_close(torch.func.jvp(mlp, (x,), (direction,))[1], expected)
        torch.testing.assert_close(torch.vmap(mlp)(x), mlp(x))


def test_operations_of_the_mlp_are_counted_without_gradients_too():
    mlp, x = Mlp(16, 40), torch.randn(3, 16)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        mlp(x)
    assert counter.get_total_flops() == 2 * 2 * 3 * 16 * 40


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_the_mlp_drops_the_same_again(reentrant, monkeypatch):
    """The first pass of a reentrant checkpoint is without gradients; the second has to draw alike."""
    monkeypatch.setattr(blocks, "HIDDEN_BYTES", 1)
    mlp = Mlp(16, 40, drop=0.5).train()
    x = torch.randn(50, 16, requires_grad=True)
    out = checkpoint(mlp, x, use_reentrant=reentrant)
    out.sum().backward()
    dropped = out == 0
    assert 0.3 < dropped.float().mean() < 0.7
    # What the second pass kept is scaled by two, so that the bias's gradient counts it.
    torch.testing.assert_close(mlp.fc2.bias.grad, 2.0 * (~dropped).sum(dim=0).float())
