"""Who sees whom, in each variant, and what each becomes when parts of it are taken away."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.conftest import VARIANTS, randomise, tiny_config, tiny_model, video_for
from vivit_zoo import ViViT
from vivit_zoo.encoders import ENCODERS, POOLS, FactorisedEncoder, FactorisedSelfAttention, Joint

variants = pytest.mark.parametrize("variant", VARIANTS)
sizes = st.integers(1, 4)


def make(variant, t=3, n=5, dim=8, depth=2, num_heads=2, seed=0, **options):
    return randomise(ENCODERS[variant](t, n, dim, depth, num_heads, **options), seed).double().eval()


def grid(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(variant=st.sampled_from(VARIANTS), b=sizes, t=sizes, n=sizes, half=st.integers(1, 2), head_dim=sizes)
def test_any_grid_becomes_one_vector(variant, b, t, n, half, head_dim):
    dim = 2 * half * head_dim
    encoder = make(variant, t, n, dim, depth=1, num_heads=2 * half)
    assert encoder(grid(b, t, n, dim)).shape == (b, dim)


@given(variant=st.sampled_from(VARIANTS), pool=st.sampled_from(POOLS), seed=st.integers(0, 99))
def test_samples_do_not_see_one_another(variant, pool, seed):
    """A sample's features are the same alone, among others, and whatever the others are."""
    encoder = make(variant, global_pool=pool)
    x = grid(3, 3, 5, 8, seed=seed)
    out = encoder(x)
    torch.testing.assert_close(encoder(x[1:2]), out[1:2])
    torch.testing.assert_close(encoder(x.flip(0)), out.flip(0))
    changed = x.clone()
    changed[0] += grid(3, 5, 8, seed=1)
    torch.testing.assert_close(encoder(changed)[1:], out[1:])


@variants
def test_every_token_counts(variant):
    encoder = make(variant)
    x = grid(1, 3, 5, 8).requires_grad_()
    encoder(x).square().sum().backward()
    assert (x.grad.abs().amax(-1) > 1e-9).all()


def test_one_block_of_each_variant_mixes_what_the_paper_says():
    """The unpooled tokens that change when frame 1, place 2 changes, after one block."""
    x = grid(1, 3, 5, 8)
    changed = x.clone()
    changed[0, 1, 2] += grid(8, seed=1)
    mixed = {}
    for variant in ("joint", "factorised_self_attention", "factorised_dot_product"):
        encoder = make(variant, depth=1, global_pool="avg")
        moved = (encoder.forward_features(changed) - encoder.forward_features(x)).abs().amax(-1).view(3, 5) > 1e-9
        mixed[variant] = moved.tolist()
    everywhere = [[True] * 5] * 3
    cross = [[frame == 1 or place == 2 for place in range(5)] for frame in range(3)]
    # Model 3 goes over space, then over time: a whole frame, and from each of its places all frames.
    assert mixed == {"joint": everywhere, "factorised_self_attention": everywhere, "factorised_dot_product": cross}


def test_unpooled_tokens_of_the_joint_model_are_time_major():
    """With attention that leaves each token to itself, one changed place moves one token: t·n + place."""

    def own_token_only(q, k, v, dropout=0.0):
        return v

    encoder = make("joint", global_pool="avg", attend=own_token_only)
    x = grid(1, 3, 5, 8)
    changed = x.clone()
    changed[0, 1, 3] += grid(8, seed=1)
    moved = (encoder.forward_features(changed) - encoder.forward_features(x)).abs().amax(-1)[0] > 1e-9
    assert moved.nonzero().flatten().tolist() == [1 * 5 + 3]


def test_spatial_encoder_of_model_2_sees_one_frame():
    encoder = make("factorised_encoder")
    x = grid(2, 3, 5, 8)
    changed = x.clone()
    changed[0, 1] += grid(5, 8, seed=1)
    moved = (encoder.spatial(changed) - encoder.spatial(x)).abs().amax(-1) > 1e-9
    assert moved.tolist() == [[False, True, False], [False, False, False]]


@variants
@pytest.mark.parametrize("pos_embed", ["learned", "none"])
def test_frame_order_matters_only_through_positions(variant, pos_embed):
    model = tiny_model(variant=variant, pos_embed=pos_embed, tubelet_size=(1, 4, 4))
    video = video_for(model.config)
    reversed_frames = model(video.flip(2))
    same = torch.allclose(reversed_frames, model(video), atol=1e-9)
    # Model 2 with one class token a frame and no positions cannot tell either; attention is a set operation.
    assert same == (pos_embed == "none")


@pytest.mark.parametrize("global_pool", ["token", "avg", "max"])
def test_average_pool_baseline_cannot_know_the_order(global_pool):
    model = tiny_model(variant="factorised_encoder", temporal_depth=0, tubelet_size=(1, 4, 4), global_pool=global_pool)
    video = video_for(model.config)
    order = [3, 1, 5, 0, 2, 4]
    torch.testing.assert_close(model(video[:, :, order]), model(video))
    assert model.encoder.temporal is None


def test_model_3_with_zero_temporal_projection_is_a_per_frame_model():
    """Then it is Model 2's average-pool baseline with the position table of each frame."""
    encoder = make("factorised_self_attention")
    for block in encoder.blocks:
        nn.init.zeros_(block.attn_time.proj.weight)
        nn.init.zeros_(block.attn_time.proj.bias)
    per_frame = FactorisedEncoder(3, 5, 8, 2, 2, temporal_depth=0, global_pool="avg", pos_embed=nn.Identity).double()
    shared = {k: v for k, v in encoder.state_dict().items() if "_time" not in k and "pos_embed" not in k}
    per_frame.spatial.load_state_dict(shared)
    x = grid(2, 3, 5, 8)
    torch.testing.assert_close(encoder(x), per_frame(encoder.pos_embed(x)))


def test_one_frame_makes_models_1_and_3_and_the_image_model_equal():
    joint = make("joint", t=1, global_pool="avg")
    spatial = FactorisedEncoder(1, 5, 8, 2, 2, temporal_depth=0, global_pool="avg").double()
    state = joint.state_dict()
    state["pos_embed.table"] = state["pos_embed.table"][0]
    spatial.spatial.load_state_dict(state)
    x = grid(2, 1, 5, 8)
    torch.testing.assert_close(joint(x), spatial(x))


def test_model_2_temporal_encoder_has_its_own_sizes():
    encoder = FactorisedEncoder(3, 5, 12, 2, 4, temporal_depth=3, temporal_num_heads=3, temporal_mlp_ratio=2.0)
    assert len(encoder.temporal.blocks) == 3
    assert encoder.temporal.blocks[0].attn.num_heads == 3
    assert encoder.temporal.blocks[0].mlp.fc1.out_features == 24
    assert encoder.spatial.blocks[0].mlp.fc1.out_features == 48


@variants
def test_drop_path_grows_linearly_from_zero(variant):
    encoder = ENCODERS[variant](3, 5, 8, 3, 2, drop_path=0.2, **({"temporal_depth": 3} if "encoder" in variant else {}))
    stacks = [encoder.spatial, encoder.temporal] if hasattr(encoder, "spatial") else [encoder]
    for stack in stacks:
        assert [block.drop_path.rate for block in stack.blocks] == pytest.approx([0, 0.1, 0.2])


@variants
def test_drop_path_draws_once_a_video(variant):
    """With every branch of the last block dropped or kept as a whole, a batch of equal videos has few outcomes."""
    config = tiny_config(variant=variant, depth=2, temporal_depth=0, drop_path=0.5, global_pool=None)
    model = randomise(ViViT(config)).double().train()
    torch.manual_seed(0)
    out = model(video_for(config, batch=1).expand(64, -1, -1, -1, -1))
    outcomes = len({tuple(row) for row in out.round(decimals=8).tolist()})
    branches = 3 if variant == "factorised_self_attention" else 2
    assert 1 < outcomes <= 2**branches


@variants
def test_evaluation_is_repeatable_and_training_is_not(variant):
    model = tiny_model(variant=variant, drop=0.3, attn_drop=0.3, drop_path=0.3)
    video = video_for(model.config)
    torch.testing.assert_close(model(video), model(video), rtol=0, atol=0)
    model.train()
    assert not torch.equal(model(video), model(video))


@variants
@pytest.mark.parametrize("rate", ["drop", "attn_drop", "drop_path"])
def test_each_rate_alone_has_an_effect_in_training(variant, rate):
    model = tiny_model(variant=variant, **{rate: 0.5}).train()
    video = video_for(model.config, batch=8)
    assert not torch.equal(model(video), model(video))


@pytest.mark.parametrize("variant", ["factorised_self_attention", "factorised_dot_product"])
def test_class_tokens_of_frames_are_more_places(variant):
    """Class token and registers run through the blocks as two more places would; their mean over frames is pooled."""
    encoder = make(variant, n=5, global_pool="token", reg_tokens=1)
    places = make(variant, n=7, pos_embed=nn.Identity, global_pool="avg")
    places.load_state_dict({k: v for k, v in encoder.state_dict().items() if k in places.state_dict()})
    x = grid(2, 3, 5, 8)
    tokens = encoder.cls_token(encoder.reg_tokens(x + encoder.pos_embed.table))
    torch.testing.assert_close(encoder(x), places.forward_features(tokens)[:, :, 0].mean(1))


@variants
def test_all_pools_the_extra_tokens_too(variant):
    encoder = make(variant, global_pool="all", class_token=True, reg_tokens=2, last_norm="after_pool")
    last = getattr(encoder, "temporal", encoder)
    tokens = last.forward_features(encoder.spatial(grid(2, 3, 5, 8)) if last is not encoder else grid(2, 3, 5, 8))
    torch.testing.assert_close(encoder(grid(2, 3, 5, 8)), last.norm(tokens.flatten(1, -2).mean(1)))
    assert tokens[0].numel() // 8 == {"joint": 18, "factorised_encoder": 3}.get(variant, 24)


@variants
def test_a_class_token_may_be_there_without_being_pooled(variant):
    """It changes what the places become, and `avg` leaves it out."""
    without, with_token = (make(variant, global_pool="avg", class_token=token) for token in (False, True))
    with_token.load_state_dict(without.state_dict(), strict=False)
    x = grid(2, 3, 5, 8)
    assert (without(x) - with_token(x)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="'token' needs a class token"):
        make(variant, global_pool="token", class_token=False)


@variants
def test_the_last_norm_stands_where_it_should(variant):
    x = grid(2, 3, 5, 8)
    normed, after, none = (make(variant, global_pool="avg", last_norm=w) for w in ("before_pool", "after_pool", "none"))
    none.load_state_dict({k: v for k, v in normed.state_dict().items() if k.split(".")[-2] != "norm"})
    after.load_state_dict(normed.state_dict())
    last = getattr(after, "temporal", after)
    if last is after:
        torch.testing.assert_close(after(x), last.norm(none(x)))
    assert (normed(x) - after(x)).abs().max() > 1e-3
    other_eps = make(variant, global_pool="avg", last_norm="after_pool", last_norm_eps=1.0)
    assert (getattr(other_eps, "temporal", other_eps).norm.eps, last.norm.eps) == (1.0, 1e-6)


def test_a_shared_class_token_is_the_same_in_all_frames():
    """TimeSformer's rule: over space the mean over frames of what each frame gives it; no part over time."""
    options = {"global_pool": "token", "share_class_token": True, "order": "time_space"}
    encoder = make("factorised_self_attention", depth=2, **options)
    tokens = encoder.forward_features(grid(2, 3, 5, 8))
    torch.testing.assert_close(tokens[:, :, 0], tokens[:, :1, 0].expand(2, 3, 8))
    block = encoder.blocks[0]
    x = torch.cat([grid(2, 1, 1, 8).expand(2, 3, 1, 8), grid(2, 3, 5, 8, seed=1)], dim=2)
    clip, frames = x[:, 0, 0], x[:, :, 1:]
    frames = frames + block.attn_time(block.norm_time(frames))
    y = block.attn(block.norm1(torch.cat([clip[:, None, None].expand(2, 3, 1, 8), frames], dim=2)))
    expected = torch.cat([(clip + y[:, :, 0].mean(1))[:, None, None].expand(2, 3, 1, 8), frames + y[:, :, 1:]], dim=2)
    torch.testing.assert_close(block(x), expected + block.mlp(block.norm2(expected)))
    with pytest.raises(ValueError, match="share_class_token needs a class token"):
        make("factorised_self_attention", share_class_token=True)


def test_a_temporal_encoder_of_each_place_sees_its_place_alone():
    encoder = make("factorised_encoder", temporal_depth=2, temporal_per_place=True, global_pool="avg")
    x = grid(1, 3, 5, 8)
    tokens = encoder.temporal.forward_features(encoder.spatial.forward_features(x).transpose(1, 2))
    torch.testing.assert_close(encoder(x), tokens.mean((1, 2)))
    for bad in ({"global_pool": "token"}, {"global_pool": "avg", "temporal_depth": 0}):
        with pytest.raises(ValueError, match="temporal_per_place needs temporal blocks and a global_pool other"):
            make("factorised_encoder", temporal_per_place=True, **bad)


def test_model_4_needs_an_even_number_of_heads():
    with pytest.raises(ValueError, match="num_heads 3 is odd"):
        ViViT(tiny_config(variant="factorised_dot_product", num_heads=3))


@variants
@pytest.mark.parametrize("global_pool", ["avg", "max"])
def test_pooling(variant, global_pool):
    encoder = make(variant, global_pool=global_pool)
    last = encoder.temporal if variant == "factorised_encoder" else encoder
    x = grid(2, 3, 5, 8)
    tokens = last.forward_features(encoder.spatial(x) if variant == "factorised_encoder" else x)
    tokens = tokens.flatten(1, -2)
    torch.testing.assert_close(encoder(x), tokens.mean(1) if global_pool == "avg" else tokens.amax(1))


def test_sincos_3d_of_model_2_splits_into_plane_and_line():
    """The spatial table knows rows and columns; the temporal one has one axis even when t equals n."""
    config = tiny_config(variant="factorised_encoder", pos_embed="sincos_3d", num_frames=12)
    encoder = ViViT(config).encoder
    assert encoder.spatial.pos_embed.table.shape == encoder.temporal.pos_embed.table.shape == (6, 24)
    assert not torch.allclose(encoder.spatial.pos_embed.table, encoder.temporal.pos_embed.table)


def test_attention_strategy_can_be_exchanged():
    def own_frame_only(q, k, v, dropout=0.0):
        assert q.shape[-2] == 15
        return v

    encoder = Joint(3, 5, 8, 1, 2, global_pool="avg", attend=own_frame_only)
    assert encoder(torch.randn(2, 3, 5, 8)).shape == (2, 8)
    assert isinstance(FactorisedSelfAttention(3, 5, 8, 1, 2), nn.Module)
