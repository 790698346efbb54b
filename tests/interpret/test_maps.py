"""Attention maps and rollout, against matrices that are built in full."""

import math

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import VARIANTS, randomise, tiny_config, tiny_model, video_for
from vivit_zoo import ViViT
from vivit_zoo.attention import attend
from vivit_zoo.interpret.attention_rollout import rollout
from vivit_zoo.interpret.maps import attention_maps, head_maps
from vivit_zoo.interpret.recording import attention_layers

MODELS = {
    "joint": {"variant": "joint"},
    "joint, average": {"variant": "joint", "global_pool": "avg"},
    "joint, registers": {"variant": "joint", "reg_tokens": 2, "pre_norm": True},
    "joint, registers, average": {"variant": "joint", "reg_tokens": 2, "global_pool": "avg"},
    "joint, sampled frames, heads": {
        "variant": "joint",
        "num_frames": 13,
        "sampled_frames": 6,
        "num_classes": {"verb": 3, "noun": 2},
    },
    "factorised encoder": {"variant": "factorised_encoder"},
    "factorised encoder, registers": {"variant": "factorised_encoder", "reg_tokens": 2, "temporal_num_heads": 2},
    "factorised encoder, average": {"variant": "factorised_encoder", "global_pool": "avg"},
    "factorised encoder, baseline": {"variant": "factorised_encoder", "temporal_depth": 0},
    "factorised self-attention": {"variant": "factorised_self_attention"},
    "factorised self-attention, time first": {"variant": "factorised_self_attention", "order": "time_space"},
    "factorised self-attention, max": {"variant": "factorised_self_attention", "global_pool": "max"},
    "factorised dot-product": {"variant": "factorised_dot_product"},
}


@pytest.fixture(params=MODELS)
def model(request):
    return tiny_model(**MODELS[request.param])


def softmax_of(attention, x):
    """(..., n, d) -> (..., h, n, n), by the book."""
    q, k, _ = rearrange(attention.qkv(x), "... n (qkv h d) -> qkv ... h n d", qkv=3, h=attention.num_heads)
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)


def dense(attention, x, over="sequence"):
    """The map of one clip's attention as a full matrix over its tokens, averaged over heads.

    Args:
        attention: the layer.
        x: its input, (n, d), or (t, n, d) for the matrix of t·n tokens.
        over: which tokens see each other.
    """
    if over == "sequence":
        return softmax_of(attention, x).mean(-3)
    t, n, _ = x.shape
    space, time = softmax_of(attention, x), softmax_of(attention, x.transpose(0, 1))
    if over == "split":
        space, time = space[:, attention.num_heads // 2 :], time[:, : attention.num_heads // 2]
    matrices = {"space": torch.zeros(t, n, t, n, dtype=x.dtype), "time": torch.zeros(t, n, t, n, dtype=x.dtype)}
    for i in range(t):
        matrices["space"][i, :, i, :] = space[i].mean(0)
    for i in range(n):
        matrices["time"][:, i, :, i] = time[i].mean(0)
    flat = {axis: matrix.reshape(t * n, t * n) for axis, matrix in matrices.items()}
    return (flat["space"] + flat["time"]) / 2 if over == "split" else flat[over]


def rolled(maps):
    """The product of Abnar and Zuidema, section 3: later layers to the left."""
    product = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype)
    for one in maps:
        with_identity = one + torch.eye(len(one), dtype=one.dtype)
        product = with_identity / with_identity.sum(-1, keepdim=True) @ product
    return product


def pooled_row(encoder, matrix, features=None):
    """The row of a rolled-out matrix that is pooled, without the columns of class tokens and registers: (n,)."""
    extra = encoder.num_prefix_tokens
    if encoder.global_pool == "token":
        return matrix[0, extra:]
    rows = matrix[encoder.num_prefix_tokens :]
    if encoder.global_pool == "max":  # each channel is taken from one row
        rows = rows[features.argmax(0)]
    return rows.mean(0)[encoder.num_prefix_tokens :]


def inputs_of(model, video):
    """What goes into each attention layer, and what comes out of each final norm."""
    seen, handles = {}, []
    for name, module in model.named_modules():
        if name in attention_layers(model):
            handles.append(module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: i[0]})))
        elif name.endswith(".norm"):
            handles.append(module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o})))
    with torch.no_grad():
        model(video)
    for handle in handles:
        handle.remove()
    return seen


def reference(model, video):
    """Rollout of one clip (1, c, t, h, w) through matrices over all its tokens: (t, n)."""
    t, h, w = model.config.grid
    seen = inputs_of(model, video)
    layer = dict(model.named_modules())
    names = list(layer)

    def maps(prefix, *index, over="sequence"):
        return [dense(layer[name], seen[name][index], over) for name in names if name in seen and prefix in name]

    encoder, variant = model.encoder, model.config.variant
    if variant == "joint":
        return pooled_row(encoder, rolled(maps("attn", 0))).reshape(t, h * w)
    if variant == "factorised_encoder":
        frames = [pooled_row(encoder.spatial, rolled(maps("spatial.blocks", 0, i))) for i in range(t)]
        over_time = torch.full((t,), 1 / t)
        if model.config.temporal_depth:
            over_time = pooled_row(encoder.temporal, rolled(maps("temporal.blocks", 0)))
        return torch.stack(frames) * over_time[:, None]
    if variant == "factorised_dot_product":
        matrix = rolled(maps("attn", 0, over="split"))
    else:
        both = zip(maps("attn", 0, over="space")[::2], maps("attn", 0, over="time")[1::2], strict=True)
        order = slice(None, None, 1 if model.config.order == "space_time" else -1)
        matrix = rolled([one for pair in both for one in pair[order]])
    features = seen["encoder.norm"][0].flatten(0, 1)
    return pooled_row(encoder, matrix, features).reshape(t, h * w)


@torch.no_grad()
def test_rollout_equals_the_product_of_full_matrices(model):
    video = video_for(model.config)
    got = rollout(model, video)
    assert got.sum((1, 2)).tolist() == pytest.approx([1, 1])
    for clip, relevance in zip(video, got, strict=True):
        expected = reference(model, clip[None])
        torch.testing.assert_close(relevance, expected / expected.sum())
    assert not torch.allclose(got[0], got[1], rtol=1e-2)


def test_maps_equal_the_softmax_and_have_the_axes_they_say(model):
    video = video_for(model.config)
    seen = inputs_of(model, video)
    t, h, w = model.config.grid
    n = h * w
    found = attention_maps(model, video)
    assert sorted(name for maps in found.values() for name in maps.layers) == sorted(
        attention_layers(model) * (2 if model.config.variant == "factorised_dot_product" else 1)
    )
    for axis, maps in found.items():
        assert maps.weights.ndim == len(maps.axes)
        sizes = dict(zip(maps.axes, maps.weights.shape, strict=True))
        extra = model.config.reg_tokens + (model.config.global_pool in (None, "token"))
        extra = 0 if "dot" in model.config.variant or "self" in model.config.variant else extra
        extra -= model.config.reg_tokens if model.config.variant == "factorised_encoder" and axis == "time" else 0
        assert sizes["key"] == sizes["query"] == {"clip": t * n, "space": n, "time": t}[axis] + extra
        assert {name: sizes[name] for name in sizes if name in "btn"}.items() <= {"b": 2, "t": t, "n": n}.items()
        torch.testing.assert_close(maps.weights.sum(-1), torch.ones_like(maps.weights[..., 0]))
        for name, weights in zip(maps.layers, maps.weights, strict=True):
            layer, x = model.get_submodule(name), seen[name]
            if axis == "time" and x.ndim == 4:
                x = x.transpose(1, 2)
            expected = softmax_of(layer, x).movedim(-3, 0)
            if model.config.variant == "factorised_dot_product":
                expected = expected.chunk(2)[0 if axis == "time" else 1]
            torch.testing.assert_close(weights, expected)


def test_head_maps_are_the_mean_of_the_maps_over_the_pooled_queries(model):
    video = video_for(model.config)
    t, h, w = model.config.grid
    for axis, maps in attention_maps(model, video).items():
        for name, weights in zip(maps.layers, maps.weights, strict=True):
            encoder = model.get_submodule(name.split(".blocks")[0])
            row = (
                weights[..., 0, :]
                if encoder.global_pool == "token"
                else weights[..., encoder.num_prefix_tokens :, :].mean(-2)
            )
            got = head_maps(model, video, name)
            if axis == "clip":
                expected = rearrange(row[..., -t * h * w :], "head b (t n) -> b head t n", t=t)
            elif axis == "space":
                expected = rearrange(row[..., -h * w :], "head b t n -> b head t n") / t
            elif "n" in maps.axes:
                expected = rearrange(row, "head b n t -> b head t n") / (h * w)
            else:
                expected = rearrange(row[..., -t:], "head b t -> b head t 1").expand(-1, -1, -1, h * w) / (h * w)
            if model.config.variant == "factorised_dot_product":
                got = got.chunk(2, 1)[0 if axis == "time" else 1]
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("look", [attention_maps, rollout, lambda m, x: head_maps(m, x, attention_layers(m)[0])])
def test_looking_changes_neither_the_output_nor_the_model(model, look):
    video = video_for(model.config)
    expected = model(video)
    model.train()
    model.encoder.eval()  # such as frozen
    parts = {name: (m.training, vars(m).get("attend"), len(m._forward_hooks)) for name, m in model.named_modules()}
    outputs = []
    handle = model.register_forward_hook(lambda module, inputs, out: outputs.append(out))
    look(model, video)
    handle.remove()
    torch.testing.assert_close(outputs, [expected], rtol=1e-12, atol=1e-12)
    after = {name: (m.training, vars(m).get("attend"), len(m._forward_hooks)) for name, m in model.named_modules()}
    assert after == parts
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("look", [attention_maps, rollout, lambda m, x: head_maps(m, x, attention_layers(m)[0])])
def test_an_error_on_the_way_leaves_the_model_as_it_was(look):
    def broken(q, k, v, dropout=0.0):
        raise RuntimeError("out of order")

    model = tiny_model().train()
    model.encoder.blocks[1].attn.attend = broken
    with pytest.raises(RuntimeError, match="out of order"):
        look(model, video_for(model.config))
    assert model.encoder.blocks[1].attn.attend is broken
    assert model.encoder.blocks[0].attn.attend is attend
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_dropout_plays_no_part():
    model = randomise(ViViT(tiny_config(drop=0.5, attn_drop=0.5, drop_path=0.5))).double().train()
    video = video_for(model.config)
    assert torch.equal(rollout(model, video), rollout(tiny_model(), video))
    model.set_grad_checkpointing()
    torch.testing.assert_close(rollout(model, video), rollout(tiny_model(), video))


def test_one_frame_or_place_is_all_that_a_factorised_map_touches():
    """Model 3: a changed frame leaves the first layer's spatial maps of other frames; Model 4 the like for places."""
    for variant in ("factorised_self_attention", "factorised_dot_product"):
        model = tiny_model(variant=variant, depth=1)
        video = video_for(model.config, batch=1)
        other = video.clone()
        other[:, :, 2:4, :4, 4:8] += 1.0  # tubelet 1, place 1
        before, after = attention_maps(model, video), attention_maps(model, other)
        change = (before["space"].weights - after["space"].weights).abs().amax((0, 1, 2, 4, 5))
        assert change[1] > 1e-3
        assert change[[0, 2]].max() == 0
        if variant == "factorised_dot_product":  # in Model 3 time comes after space has spread the change
            change = (before["time"].weights - after["time"].weights).abs().amax((0, 1, 2, 4, 5))
            assert change[1] > 1e-3
            assert change[[0, 2, 3, 4, 5]].max() == 0


@given(variant=st.sampled_from(VARIANTS), t=st.integers(1, 4), w=st.integers(1, 3), seed=st.integers(0, 99))
def test_shares_are_shares_on_every_grid(variant, t, w, seed):
    model = tiny_model(variant=variant, num_frames=2 * t, image_size=(4, 4 * w))
    relevance = rollout(model, video_for(model.config, batch=3, seed=seed))
    assert relevance.shape == (3, t, w)
    assert relevance.min() > 0
    torch.testing.assert_close(relevance.sum((1, 2)), torch.ones(3, dtype=torch.float64))


@given(variant=st.sampled_from(VARIANTS), batch=st.integers(2, 4))
def test_a_clip_has_the_same_shares_in_any_company(variant, batch):
    model = tiny_model(variant=variant)
    video = video_for(model.config, batch=batch)
    alone = torch.cat([rollout(model, clip[None]) for clip in video])
    torch.testing.assert_close(rollout(model, video), alone)


def test_unknown_layers_are_refused():
    for layer in (attention_maps, head_maps):
        with pytest.raises(ValueError, match=r"'blocks\.7' is no attention layer; they are encoder\.blocks\.0\.attn, "):
            layer(tiny_model(), video_for(tiny_config()), "blocks.7" if layer is head_maps else ["blocks.7"])


def test_half_precision_models_have_maps_in_float32():
    video = video_for(tiny_config(), dtype=torch.float32)
    model = tiny_model().bfloat16()
    maps = attention_maps(model, video.bfloat16())["clip"].weights
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))
    torch.testing.assert_close(rollout(model, video.bfloat16()), rollout(model.float(), video), rtol=0.1, atol=0.01)


def test_autocast_leaves_maps_in_float32():
    model, video = tiny_model().float(), video_for(tiny_config(), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        maps = attention_maps(model, video)["clip"].weights
        shares = rollout(model, video)
    assert maps.dtype == shares.dtype == torch.float32
    torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))
    torch.testing.assert_close(shares, rollout(model, video), rtol=0.1, atol=0.01)


def test_inference_mode_and_compiled_models():
    model, video = tiny_model(), video_for(tiny_config())
    expected, heads = rollout(model, video), head_maps(model, video, "encoder.blocks.1.attn")
    whole = tiny_model(in_chans=1, image_size=4)
    with torch.inference_mode():
        other = video.clone()  # an inference tensor
        assert torch.equal(rollout(model, other), expected)
        assert torch.equal(head_maps(model, other, "encoder.blocks.1.attn"), heads)
        # The tubelets of these are views of the video, and so inference tensors too.
        assert rollout(whole, video_for(whole.config)).shape == (2, 3, 1)
    model.compile(backend="eager")
    model(video)
    torch.testing.assert_close(rollout(model, video), expected)
    torch.testing.assert_close(head_maps(model, video, "encoder.blocks.1.attn"), heads)


def test_rollout_through_attention_pooling():
    model = tiny_model(
        global_pool="attention", attn_pool={"depth": 1, "inner_dim": 8, "mlp_ratio": None, "pre_norm": True}
    )
    video = video_for(model.config)
    tokens = []
    hook = model.encoder.attn_pool.kv.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].detach()))
    maps = attention_maps(model, video)["clip"]
    hook.remove()
    assert maps.layers[-1] == "encoder.attn_pool.blocks.0.attn"
    expected = model.encoder.attn_pool.weights(tokens[-1]).mean(1, keepdim=True)
    torch.testing.assert_close(expected.sum(-1), torch.ones_like(expected[..., 0]))
    for weights in reversed(maps.weights.mean(1)):
        expected = expected @ (weights + torch.eye(18, dtype=torch.float64))
    expected = expected.reshape(2, 3, 6)
    torch.testing.assert_close(rollout(model, video), expected / expected.sum((1, 2), keepdim=True))


def test_rollout_where_the_temporal_encoder_runs_at_each_place():
    model = tiny_model(variant="factorised_encoder", temporal_per_place=True, global_pool="attention", attn_softcap=5.0)
    relevance = rollout(model, video_for(model.config))
    assert relevance.shape == (2, 3, 6)
    torch.testing.assert_close(relevance.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    assert (relevance > 0).all()
    assert relevance.std() > 1e-3
