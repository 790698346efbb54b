"""Frames that a mask says are not there change nothing; the others are computed as in a model of a shorter clip."""

from functools import partial

import pytest
import torch
from einops import repeat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.conftest import VARIANTS, tiny_model, video_for
from vivit_zoo.attention import attend, attend_over_time, attend_softcapped, attend_split_heads
from vivit_zoo.encoders import POOLS
from vivit_zoo.positions import PosEmbed, RotaryEmbed
from vivit_zoo.tokens import average, hold_frames, tubelet_mask

PER_PLACE = {"variant": "factorised_encoder", "temporal_per_place": True}
OF_THE_CLIP = {"variant": "factorised_self_attention", "class_token": True, "share_class_token": True}
SHAPES = [
    *({"variant": variant, "global_pool": pool, "reg_tokens": 1} for variant in VARIANTS for pool in POOLS),
    *(PER_PLACE | {"global_pool": pool} for pool in ("avg", "attention")),
    *(OF_THE_CLIP | {"global_pool": pool, "order": "time_space"} for pool in ("token", "all")),
    OF_THE_CLIP,
    {"variant": "factorised_encoder", "temporal_depth": 0},
    {"variant": "joint", "rel_pos": True, "class_token": True, "global_pool": "avg"},
    {"variant": "factorised_self_attention", "rel_pos": True},
    *({"variant": variant, "attn_softcap": 5.0} for variant in VARIANTS),
    *({"variant": variant, "rope": {"axes": "thw", "coords": "index"}} for variant in VARIANTS),
    {"variant": "joint", "global_pool": "attention", "attn_pool": {"depth": 2, "pre_norm": True}},
    {"variant": "joint", "sampled_frames": 3, "tubelet_size": (1, 4, 4)},
]  # fmt: skip
shapes = pytest.mark.parametrize("options", SHAPES, ids=lambda options: " ".join(map(str, options.values())))


def build(options: dict, num_frames: int = 8, **more) -> nn.Module:
    return tiny_model(num_frames=num_frames, **options | more)


def masks(frames: int, batch: int = 2) -> st.SearchStrategy[torch.Tensor]:
    row = st.lists(st.booleans(), min_size=frames, max_size=frames).filter(any)
    return st.lists(row, min_size=batch, max_size=batch).map(torch.tensor)


@shapes
@settings(max_examples=4)
@given(data=st.data())
def test_absent_frames_change_nothing(options, data):
    """Neither the result, nor a gradient, nor, with NaN for pixels, anything at all."""
    model = build(options)
    mask = data.draw(masks(8))
    video = video_for(model.config)
    absent = ~mask[:, None, :, None, None]
    results = []
    for pixels in (video, torch.where(absent, torch.randn_like(video), video), video.masked_fill(absent, torch.nan)):
        pixels.requires_grad_(), model.zero_grad()
        out = model(pixels, mask)
        out.square().sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        assert not pixels.grad[absent.expand_as(pixels)].any()
        results.append((out.detach(), gradients, pixels.grad))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@shapes
@pytest.mark.parametrize("kept", [2, 6])
def test_a_masked_end_is_a_shorter_clip(options, kept):
    """With the weights of the model of 8 frames, and the positions of the first ones."""
    if "sampled_frames" in options:
        pytest.skip("a shorter clip has other samples")
    model, shorter = build(options), build(options, num_frames=kept)
    t, own = shorter.config.grid[0], model.state_dict()
    modules = dict(shorter.named_modules())
    for name in own:
        if isinstance(parent := modules[name.rpartition(".")[0]], PosEmbed) and parent.grid[0] == t:
            own[name] = own[name][:t]
    shorter.load_state_dict(own)
    video = video_for(model.config)
    mask = torch.arange(8).expand(2, 8) < kept
    with torch.no_grad():
        torch.testing.assert_close(model(video, mask), shorter(video[:, :, :kept]))
        assert not torch.allclose(model(video), shorter(video[:, :, :kept]))  # the end does matter without the mask


@shapes
def test_a_full_mask_is_none(options, monkeypatch):
    model = build(options)
    video = video_for(model.config)
    full = torch.ones(2, 8, dtype=torch.bool)
    expected = model(video)
    kernel, given_masks = nn.functional.scaled_dot_product_attention, []

    def watch(*args, attn_mask=None, **kwargs):
        given_masks.append(attn_mask)
        return kernel(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watch)
    assert torch.equal(model(video, full), expected)
    if not options.get("rel_pos"):  # their bias is an attn_mask of the kernel
        assert not any(mask is not None for mask in given_masks)


@shapes
def test_videos_of_a_batch_do_not_see_the_masks_of_others(options):
    model = build(options)
    video, mask = video_for(model.config, batch=3), torch.rand(3, 8) < 0.5
    mask[:, 3] = True
    mask[2] = True  # a full one among others
    with torch.no_grad():
        alone = torch.cat([model(video[i : i + 1], mask[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(model(video, mask), alone)


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_gradient_checkpointing_it_is_the_same(variant):
    model = build({"variant": variant}).train()
    video, mask = video_for(model.config), torch.arange(8).expand(2, 8) < 5
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(checkpointing)
        model(video, mask).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_compiles_and_exports_with_a_mask(variant):
    model = build({"variant": variant}).float().eval()
    video, mask = video_for(model.config, dtype=torch.float32), torch.arange(8).expand(2, 8) < 5
    with torch.no_grad():
        expected = model(video, mask)
        exported = torch.export.export(model, (video, mask)).module()
        torch.testing.assert_close(exported(video, mask), expected)
        full = torch.ones_like(mask)
        torch.testing.assert_close(exported(video, full), model(video))


@pytest.mark.parametrize("variant", VARIANTS)
def test_intermediates_of_frames_that_are_there_do_not_see_the_others(variant):
    model = build({"variant": variant})
    video, mask = video_for(model.config), torch.arange(8).expand(2, 8) < 4
    other = torch.where(mask[:, None, :, None, None], video, 0.5)
    with torch.no_grad():
        features, tokens = model.forward_intermediates(video, mask=mask)
        features_2, tokens_2 = model.forward_intermediates(other, mask=mask)
    assert torch.equal(features, features_2)
    assert torch.equal(features, model.forward_features(video, mask))
    assert all(torch.equal(one[:, :2], two[:, :2]) for one, two in zip(tokens, tokens_2, strict=True))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 8), r"a mask is boolean, of shape \(b, T\) = \(2, 8\); got torch.float32"),
        (torch.ones(2, 4, dtype=torch.bool), r"of shape \(b, T\) = \(2, 8\); got torch.bool, \(2, 4\)"),
        (torch.tensor([[True] * 8, [False] * 8]), r"the mask leaves no frame of the videos \[1\]"),
    ],
)
def test_wrong_masks_are_refused(mask, message):
    model = build({"variant": "joint"})
    with pytest.raises(ValueError, match=message):
        model(video_for(model.config), mask)


def test_strategies_of_your_own_need_not_know_masks():
    model = build({"variant": "joint"})
    for block in model.encoder.blocks:
        block.attn.attend = lambda q, k, v, dropout: attend(q, k, v, dropout)
    video = video_for(model.config)
    model(video, torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(TypeError, match="mask"):
        model(video, torch.arange(8).expand(2, 8) < 4)


@given(mask=masks(6), seed=st.integers(0, 9))
@pytest.mark.parametrize("strategy", [attend, partial(attend_softcapped, cap=2.0)])
def test_strategies_leave_out_masked_keys(strategy, mask, seed):
    """Against the softmax over the keys that are there, one sequence after the other."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, 6, 4, generator=draw, dtype=torch.float64) for _ in "qkv")
    out = strategy(q, k, v, 0.0, mask=mask)
    for i in range(2):
        there = mask[i]
        torch.testing.assert_close(out[i], strategy(q[i, None], k[i, None][:, :, there], v[i, None][:, :, there])[0])


@given(mask=masks(4), seed=st.integers(0, 9))
def test_over_time_the_mask_holds_and_over_space_it_does_not(mask, seed):
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 4, 2, 3, 4, generator=draw, dtype=torch.float64) for _ in "qkv")
    of_places = repeat(mask, "b t -> b t n", n=3)
    out = attend_over_time(q, k, v, mask=of_places)
    for i in range(2):
        rows = attend_over_time(*(x[i, None][:, mask[i]] for x in (q, k, v)))
        torch.testing.assert_close(out[i][mask[i]], rows[0])
    halves = attend_split_heads(q, k, v, mask=of_places)
    torch.testing.assert_close(halves[:, :, :1], out[:, :, :1])
    assert torch.equal(halves[:, :, 1:], attend_split_heads(q, k, v)[:, :, 1:])


def test_held_frames_and_tubelets():
    video = torch.arange(6.0)[None, None, :, None, None].expand(3, 1, 6, 2, 2)
    mask = torch.tensor([[0, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    assert hold_frames(video, mask)[:, 0, :, 0, 0].tolist() == [[1, 1, 1, 1, 4, 4], [0, 1, 2, 3, 4, 5], [5] * 6]
    assert tubelet_mask(mask, 2).tolist() == [[True, False, True], [True] * 3, [False, False, True]]
    x = torch.tensor([[1.0], [2.0], [torch.nan]])
    assert average(x, torch.tensor([True, True, False])).item() == 1.5


def test_rotary_positions_stay_where_frames_are():
    """A frame in the middle that is not there does not move those after it."""
    options = {"variant": "joint", "rope": {"axes": "thw", "coords": "index"}, "pos_embed": "none"}
    model = build(options)
    assert any(isinstance(module, RotaryEmbed) for module in model.modules())
    video = video_for(model.config)
    mask = torch.tensor([[1, 1, 0, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]], dtype=torch.bool)
    moved = video[:, :, [0, 1, 4, 5, 2, 3, 6, 7]]  # the same two tubelets, one place apart instead of two
    with torch.no_grad():
        assert not torch.allclose(model(video, mask)[0], model(moved, mask[[1, 1]])[0])
