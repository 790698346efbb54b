import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.conftest import randomise, tiny_config, video_for
from vivit_zoo import ViViT
from vivit_zoo.positions import PosEmbed, sincos_1d, sincos_3d
from vivit_zoo.tokens import ClassToken, SampleFrames, TubeletEmbed, uniform_frame_indices

sizes = st.integers(1, 4)


@given(b=sizes, c=sizes, grid=st.tuples(sizes, sizes, sizes), tubelet=st.tuples(sizes, sizes, sizes), d=sizes)
def test_tubelet_embed_is_a_convolution(b, c, grid, tubelet, d):
    embed = randomise(TubeletEmbed(tubelet, c, d)).double()
    conv = nn.Conv3d(c, d, tubelet, stride=tubelet).double()
    conv.load_state_dict({"weight": embed.proj.weight.view_as(conv.weight), "bias": embed.proj.bias})
    video = torch.randn(b, c, *(g * s for g, s in zip(grid, tubelet, strict=True)), dtype=torch.float64)
    tokens = embed(video)
    assert tokens.shape == (b, grid[0], grid[1] * grid[2], d)
    torch.testing.assert_close(tokens, conv(video).flatten(3).permute(0, 2, 3, 1))


def test_tokens_are_time_major_then_rows():
    embed = TubeletEmbed((2, 4, 4), 1, 8)
    video = torch.zeros(1, 1, 4, 8, 12)
    video[0, 0, 2:4, 4:8, 8:12] = 1  # second frame pair, second row, third column
    lit = (embed(video) - embed(torch.zeros_like(video))).abs().amax(-1)[0] > 1e-6
    assert lit.nonzero().tolist() == [[1, 1 * 3 + 2]]


def test_tubelet_embed_starts_with_unit_gain():
    """LeCun normal: unit-variance pixels give unit-variance tokens."""
    torch.manual_seed(0)
    tokens = TubeletEmbed((2, 16, 16), 3, 256)(torch.randn(8, 3, 2, 32, 32))
    assert tokens.var().item() == pytest.approx(1, rel=0.05)


def test_uniform_frame_indices_equal_the_original_code(parity):
    vectors = np.load(parity / "functions.npz")
    cases = [name for name in vectors if name.startswith("uniform_")]
    assert len(cases) > 60
    for name in cases:
        num_frames, sampled = map(int, re.findall(r"\d+", name))
        assert uniform_frame_indices(num_frames, sampled) == vectors[name].tolist(), name


@given(num_frames=st.integers(1, 200), sampled=st.integers(1, 200))
def test_uniform_frame_indices_are_ordered_and_inside(num_frames, sampled):
    indices = uniform_frame_indices(num_frames, sampled)
    assert indices == sorted(indices)  # halves are rounded to even, so one may come twice
    assert indices[0] >= 0
    assert indices[-1] < num_frames
    assert len(indices) - min(num_frames, sampled) in (0, 1)  # one more where the original's arithmetic has it


def test_sample_frames_picks_them():
    video = torch.arange(8.0).view(1, 1, 8, 1, 1)
    assert SampleFrames(8, 3)(video).flatten().tolist() == [2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("table", "sizes", "name"),
    [
        (sincos_1d, (6,), "sinusoidal1d_L6_D24"),
        (sincos_3d, (3, 4, 5), "sincos_1x3x4x5x24"),
        (sincos_3d, (4, 4), "sincos_1x4x4x24"),
    ],
)
def test_fixed_positions_equal_the_original_code(parity, table, sizes, name):
    expected = np.load(parity / "functions.npz")[name][0]
    np.testing.assert_allclose(table(sizes, 24).numpy(), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("table", "dim"), [(sincos_1d, 7), (sincos_3d, 8)])
def test_fixed_positions_name_the_widths_they_need(table, dim):
    with pytest.raises(ValueError, match=r"need an even dim, got 7|divisible by 6, got 8"):
        table((2, 3, 4), dim)


@given(grid=st.lists(sizes, min_size=1, max_size=3), lead=st.lists(sizes, max_size=2))
def test_positions_are_added_place_by_place(grid, lead):
    pos_embed = PosEmbed(*grid, dim=4)
    assert pos_embed.table.shape == (*grid, 4)
    x = torch.randn(*lead, *grid, 4)
    torch.testing.assert_close(pos_embed(x) - x, pos_embed.table.expand_as(x))


def test_positions_of_another_grid_are_refused():
    """One frame would broadcast over a table of three."""
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 8\) do not end in the positions' \(3, 4, 8\)"):
        PosEmbed(3, 4, dim=8)(torch.zeros(2, 1, 4, 8))


def test_fixed_positions_know_the_frame_and_are_not_trained_or_saved():
    pos_embed = PosEmbed(3, 20, dim=24, fixed=sincos_3d, frame=(4, 5))
    torch.testing.assert_close(pos_embed.table, sincos_3d((3, 4, 5), 24).view(3, 20, 24))
    assert not list(pos_embed.parameters())
    assert not pos_embed.state_dict()


@given(lead=st.lists(sizes, max_size=3), n=sizes)
def test_class_token_comes_first_in_each_sequence(lead, n):
    token = randomise(ClassToken(4))
    x = torch.randn(*lead, n, 4)
    out = token(x)
    assert torch.equal(out[..., 1:, :], x)
    assert torch.equal(out[..., 0, :], token.token.expand(*lead, 4))


@pytest.mark.parametrize("assign", [False, True], ids=["to_empty", "assign"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"num_frames": 14, "sampled_frames": 6}, {"variant": "factorised_encoder"}, {"rope": {}, "rel_pos": True}],
)
def test_what_no_checkpoint_holds_is_computed_again_when_one_is_loaded(changes, assign):
    """Fixed positions and sampled frames, which are undefined after `to_empty` and on the meta device."""
    config = tiny_config(pos_embed="sincos_3d", **changes)
    model, video = randomise(ViViT(config)).eval(), video_for(config, dtype=torch.float32)
    with torch.device("meta"):
        other = ViViT(config)
    if not assign:
        other.to_empty(device="cpu")
        for buffer in other.buffers():
            buffer.fill_(1)
    other.load_state_dict(model.state_dict(), assign=assign)
    assert torch.equal(other.eval()(video), model(video))
    other.half()
    other.load_state_dict(model.state_dict())
    assert {buffer.dtype for buffer in other.buffers()} <= {torch.float16, torch.int64}


def test_the_rest_of_a_class_token_goes_with_it():
    token = ClassToken(4)
    token.rest = torch.full((4,), 1e-9)
    token.load_state_dict({"token": torch.ones(4)})
    assert token.rest is None
