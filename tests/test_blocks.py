from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.conftest import randomise
from vivit_zoo.attention import Attention, attend, attend_split_heads
from vivit_zoo.blocks import Block, DropPath, FactorisedBlock
from vivit_zoo.mlp import Mlp

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
    block = FactorisedBlock(8, 2, qkv_bias=False, attn_drop=0.25, drop=0.5, norm=partial(nn.LayerNorm, eps=1e-3))
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
