"""Positions that act inside of attention: rotary and relative ones. Tables that are added: tests/test_tokens.py."""

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import apply_rot_embed_cat, gen_relative_position_index
from timm.layers.pos_embed_sincos import RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed
from torch import nn

from vivit_zoo.attention import attend
from vivit_zoo.positions import RelativePositionBias, RotaryEmbed

FRAME = (3, 5)
ropes = st.fixed_dictionaries(
    {
        "over_time": st.booleans(),
        "base": st.sampled_from([10.0, 1e4]),
        "coords": st.sampled_from(["centred", "index"]),
        "reference": st.sampled_from([None, (7.0, 4.0)]),
        "offset": st.sampled_from([0.0, 1.0]),
        "learned": st.booleans(),
    }
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(options=ropes, extra=st.integers(0, 2), flat=st.booleans(), dim=st.sampled_from([8, 14]))
def test_rotation_keeps_lengths_and_leaves_extra_tokens_alone(options, extra, flat, dim):
    rope = RotaryEmbed(2, 15, dim=dim, num_heads=3, frame=FRAME, flat=flat, **options)
    x = drawn(4, 3, extra + 30, dim).float() if flat else drawn(4, 2, 3, extra + 15, dim).float()
    out = rope(x)
    assert out.shape == x.shape
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), rtol=1e-5, atol=1e-5)
    assert torch.equal(out[..., :extra, :], x[..., :extra, :])
    assert (out[..., extra + 1 :, :] - x[..., extra + 1 :, :]).abs().amax() > 1e-3


@given(options=ropes, shift=st.tuples(st.integers(0, 2), st.integers(0, 4)))
def test_scores_depend_on_the_offset_between_places_alone(options, shift):
    """One query and one key, put at every place: scores of pairs with the same offset agree."""
    rope = RotaryEmbed(15, dim=8, num_heads=2, frame=FRAME, **options)
    q, k = (drawn(2, 1, 8, seed=seed).float().expand(2, 15, 8) for seed in (0, 1))
    with torch.no_grad():
        scores = rearrange(rope(q) @ rope(k).mT, "head (h w) (i j) -> head h w i j", h=3, i=3)
    dh, dw = shift
    pairs = [scores[:, h, w, h + dh, w + dw] for h in range(3 - dh) for w in range(5 - dw)]
    torch.testing.assert_close(torch.stack(pairs), pairs[0].expand(len(pairs), 2), rtol=1e-4, atol=1e-4)


def to_halves(x, dim):
    """Channels of neighbouring pairs in the order of halves."""
    return x[..., [*range(0, dim, 2), *range(1, dim, 2)]]


@pytest.mark.parametrize(("size", "reference", "offset"), [((3, 5), None, 0.0), ((6, 4), (16, 16), 1.0)])
def test_indexed_coordinates_are_timms(size, reference, offset):
    """EVA-02 and PE: neighbouring pairs, which are halves of permuted channels."""
    dim, n = 16, size[0] * size[1]
    theirs = RotaryEmbeddingCat(
        dim, in_pixels=False, temperature=1e4, feat_shape=size, ref_feat_shape=reference, grid_offset=offset
    )
    ours = RotaryEmbed(
        n,
        dim=dim,
        frame=size,
        base=1e4,
        coords="index",
        reference=reference and tuple(map(float, reference)),
        offset=offset,
    )
    x = drawn(2, 3, n, dim).float()
    expected = apply_rot_embed_cat(x, theirs.get_embed())
    torch.testing.assert_close(ours(to_halves(x, dim)), to_halves(expected, dim), rtol=1e-5, atol=1e-5)


def test_centred_coordinates_are_timms():
    """DINOv3: halves as ours."""
    theirs = RotaryEmbeddingDinoV3(16, temperature=100.0, feat_shape=(4, 6), rotate_half=True)
    x = drawn(2, 3, 24, 16).float()
    expected = apply_rot_embed_cat(x, theirs.get_embed(), half=True)
    ours = RotaryEmbed(24, dim=16, frame=(4, 6))
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)


def test_learned_frequencies_are_timms_and_train():
    """RoPE-Mixed: x comes first there, and pairs are neighbours."""
    theirs = RotaryEmbeddingMixed(24, depth=2, num_heads=3, feat_shape=[4, 6], grid_indexing="xy")
    ours = RotaryEmbed(24, dim=8, num_heads=3, frame=(4, 6), base=10.0, coords="index", learned=True)
    assert ours.freqs.shape == (2, 3, 4)
    with torch.no_grad():
        lengths = ours.freqs.norm(dim=0)
        torch.testing.assert_close(lengths, theirs.freqs[:, 0].norm(dim=0), rtol=1e-5, atol=1e-5)  # same start
        ours.freqs.copy_(theirs.freqs[:, 1].flip(0))
    x = drawn(2, 3, 24, 8).float()
    expected = apply_rot_embed_cat(x, theirs.get_embed()[1])
    torch.testing.assert_close(ours(to_halves(x, 8)), to_halves(expected, 8), rtol=1e-5, atol=1e-5)
    (ours(x) * drawn(2, 3, 24, 8, seed=1)).sum().backward()
    assert (ours.freqs.grad.abs() > 1e-6).all()


def test_time_turns_its_share_of_the_pairs():
    """Over (t, h, w) each axis has a third; a place at the same (h, w) differs by time alone."""
    rope = RotaryEmbed(4, 15, dim=14, frame=FRAME, over_time=True, coords="index", base=1e4)
    x = drawn(1, 1, 1, 1, 14).float().expand(1, 4, 2, 15, 14)
    out = rope(x)
    pairs = out.unflatten(-1, (2, 7))
    assert torch.equal(pairs[..., 6], x.unflatten(-1, (2, 7))[..., 6])  # the pair left over
    torch.testing.assert_close(pairs[:, 0, ..., 2:6], pairs[:, 3, ..., 2:6])
    assert (pairs[:, 0, ..., :2] - pairs[:, 3, ..., :2]).abs().min() > 1e-4
    flat = RotaryEmbed(4, 15, dim=14, frame=FRAME, over_time=True, coords="index", base=1e4, flat=True)
    torch.testing.assert_close(flat(x[:, :, 0].flatten(1, 2)[:, None])[:, 0], out[:, :, 0].flatten(1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 7}, "over 2 axes need an even head width, got 7"),
        ({"dim": 4, "over_time": True}, "over 3 axes need an even head width, got 4"),
        ({"dim": 8, "coords": "polar"}, "coords 'polar' are unknown; choose from centred, index"),
    ],
)
def test_what_rotary_positions_refuse(options, message):
    with pytest.raises(ValueError, match=message):
        RotaryEmbed(2, 15, frame=FRAME, **options)
    with pytest.raises(ValueError, match="fewer than the 15 rotary positions"):
        RotaryEmbed(2, 15, dim=8, frame=FRAME)(torch.zeros(1, 2, 1, 14, 8))


@pytest.mark.parametrize(("extra", "frames"), [(0, 1), (1, 1), (2, 1), (1, 3)])
def test_relative_positions_add_a_bias_of_the_offset(extra, frames):
    bias = RelativePositionBias(frames, 15, num_heads=2, frame=FRAME, flat=True)
    nn.init.normal_(bias.table)
    bias.double()
    q, k, v = drawn(3, 4, 2, extra + frames * 15, 6)
    matrix = bias.bias(extra)
    expected = (q @ k.mT / 6**0.5 + matrix).softmax(-1) @ v
    torch.testing.assert_close(bias(q, k, v), expected)
    with torch.no_grad():
        bias.table.zero_()
    torch.testing.assert_close(bias(q, k, v), attend(q, k, v))
    if extra == 1 and frames == 1:
        index = gen_relative_position_index(FRAME, class_token=True)
        nn.init.normal_(bias.table)
        torch.testing.assert_close(bias.bias(1), bias.table[:, index])
