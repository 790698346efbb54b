import dataclasses
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import trunc_normal_
from timm.optim import create_optimizer_v2
from torch import nn

from tests.conftest import VARIANTS, randomise, tiny_config, tiny_model, video_for
from vivit_zoo import ViViT, ViViTConfig, create_model
from vivit_zoo.encoders import POOLS

variants = pytest.mark.parametrize("variant", VARIANTS)
heads = st.sampled_from([2, 4])


ropes = st.fixed_dictionaries(
    {
        "axes": st.sampled_from(["hw", "thw"]),
        "base": st.sampled_from([10.0, 10000.0]),
        "coords": st.sampled_from(["centred", "index"]),
        "reference": st.sampled_from([None, (2.0, 5.0)]),
        "offset": st.sampled_from([0.0, 1.0]),
    }
)


@st.composite
def configs(draw):
    """Any small configuration that should work."""
    variant = draw(st.sampled_from(VARIANTS))
    tubelet = draw(st.tuples(*[st.integers(1, 3)] * 3))
    grid = draw(st.tuples(*[st.integers(1, 3)] * 3))
    sampled = draw(st.booleans()) and tubelet[0] == 1
    pools = [None, *POOLS]
    with_rel_pos = draw(st.booleans()) and variant != "factorised_dot_product"
    return ViViTConfig(
        variant=variant,
        num_classes=draw(st.one_of(st.integers(0, 4), st.just({"noun": 3, "verb": 2}))),
        num_frames=tubelet[0] * grid[0],
        image_size=(tubelet[1] * grid[1], tubelet[2] * grid[2]),
        tubelet_size=tubelet,
        sampled_frames=draw(st.integers(1, grid[0])) if sampled else None,
        in_chans=draw(st.integers(1, 4)),
        dim=24,
        depth=draw(st.integers(1, 2)),
        num_heads=draw(heads),
        mlp_ratio=draw(st.sampled_from([0.5, 1.7, 4.0])),
        temporal_depth=draw(st.sampled_from([None, 0, 1])),
        temporal_num_heads=draw(st.sampled_from([None, 3])),
        temporal_mlp_ratio=draw(st.sampled_from([None, 1.0])),
        qkv_bias=draw(st.booleans()),
        act=draw(st.sampled_from(["gelu_tanh", "gelu", "quick_gelu"])),
        global_pool=draw(st.sampled_from(pools)),
        representation_size=draw(st.sampled_from([None, 7])),
        pos_embed=draw(st.sampled_from(["learned", "sincos_1d", "sincos_3d", "none"])),
        order=draw(st.sampled_from(["space_time", "time_space"])),
        reg_tokens=draw(st.integers(0, 2)),
        pre_norm=draw(st.booleans()),
        drop=draw(st.sampled_from([0.0, 0.1])),
        drop_path=draw(st.sampled_from([0.0, 0.1])),
        gated=draw(st.booleans()),
        norm=draw(st.sampled_from(["layer", "rms"])),
        qk_norm=draw(st.booleans()),
        attn_inner_norm=draw(st.booleans()),
        mlp_inner_norm=draw(st.booleans()),
        patch_norm=draw(st.booleans()),
        last_norm=draw(st.sampled_from(["before_pool", "after_pool", "none"])),
        last_norm_eps=draw(st.sampled_from([None, 1e-3])),
        class_token=draw(st.sampled_from([None, True])),
        attn_softcap=None if with_rel_pos else draw(st.sampled_from([None, 5.0])),
        attn_pool=draw(st.sampled_from([None, {"depth": 1, "num_heads": 3, "inner_dim": 6, "mlp_ratio": None}])),
        rope=draw(st.none() | ropes),
        rel_pos=with_rel_pos,
    )


@given(config=configs(), batch=st.integers(1, 3))
def test_every_valid_configuration_runs_and_survives_json_and_state_dict(config, batch):
    assert ViViTConfig.from_json(config.to_json()) == config
    model = randomise(ViViT(config)).eval()
    video = video_for(config, batch, dtype=torch.float32)
    out = model(video)
    by_head = out if isinstance(out, dict) else {"": out}
    widths = config.num_classes if isinstance(config.num_classes, dict) else {"": config.num_classes}
    for name, logits in by_head.items():
        width = widths[name] or config.representation_size or config.dim
        assert logits.shape == (batch, width)
        assert logits.isfinite().all()

    copy = ViViT(config).eval()
    copy.load_state_dict(model.state_dict())
    for name, logits in (copy(video) if isinstance(out, dict) else {"": copy(video)}).items():
        assert torch.equal(logits, by_head[name])


@given(config=configs(), axis=st.integers(1, 4), delta=st.sampled_from([-1, 1, 7]))
def test_a_video_that_does_not_fit_is_refused_by_name(config, axis, delta):
    shape = [2, *config.input_shape]
    shape[axis] += delta
    if shape[axis] < 0:
        return
    name = ["in_chans", "num_frames", "height", "width"][axis - 1]
    with pytest.raises(ValueError, match=f"{name} {shape[axis]} instead of {config.input_shape[axis - 1]}"):
        ViViT(config)(torch.zeros(shape))


def test_other_bad_videos():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"axes \(b, c, t, h, w\); got shape \(3, 6, 8, 12\)"):
        model(torch.zeros(3, 6, 8, 12))
    with pytest.raises(TypeError, match=r"pixels are torch.uint8; scale them"):
        model(torch.zeros(1, 3, 6, 8, 12, dtype=torch.uint8))
    with pytest.raises(ValueError, match="batch is empty"):
        model(torch.zeros(0, 3, 6, 8, 12))
    with pytest.raises(ValueError, match=r"the layout is \(b, c, t, h, w\)"):
        model(torch.zeros(1, 6, 3, 8, 12))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "model2"}, "variant 'model2' is unknown; choose from joint, factorised_encoder"),
        ({"act": "relu"}, "act 'relu' is unknown; choose from gelu_tanh"),
        ({"global_pool": "cls"}, "global_pool 'cls' is unknown; choose from None, token, avg, max"),
        ({"pos_embed": "rope"}, "pos_embed 'rope' is unknown"),
        ({"order": "both"}, "order 'both' is unknown"),
        ({"image_size": (8, 14)}, "image_size 8x14 is not divisible by the tubelet's 4x4; use 8x12"),
        ({"image_size": 3}, "image_size 3x3 is not divisible by the tubelet's 4x4; use 4x4"),
        ({"num_frames": 7}, "7 frames are not divisible by the tubelet's 2; use 6"),
        ({"num_heads": 5}, "dim 24 is not divisible by num_heads 5"),
        ({"temporal_num_heads": 7}, "dim 24 is not divisible by temporal_num_heads 7"),
        ({"depth": 0}, "depth takes whole numbers from 1, got 0"),
        ({"in_chans": None}, "in_chans takes whole numbers from 1, got None"),
        ({"dim": 24.0}, "dim takes whole numbers from 1, got 24.0"),
        ({"tubelet_size": (2, 4)}, r"tubelet_size takes 3 numbers, got \(2, 4\)"),
        ({"num_classes": {}}, "num_classes {} has no head"),
        ({"num_classes": {"noun": 0}}, r"num_classes\['noun'\] takes whole numbers from 1, got 0"),
        ({"num_classes": -1}, "num_classes takes whole numbers from 0, got -1"),
        ({"drop_path": 1.0}, r"drop_path 1.0 is not in \[0, 1\)"),
        ({"mlp_ratio": 0}, "mlp_ratio 0 is not positive"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio nan is not positive"),
        ({"temporal_mlp_ratio": -1}, "temporal_mlp_ratio -1 is not positive"),
        ({"drop": "0.1"}, r"drop '0.1' is not in \[0, 1\)"),
        ({"variant": ["joint"]}, r"variant \['joint'\] is unknown"),
        ({"image_size": 8.0}, "image_size takes 2 numbers, got 8.0"),
        ({"tubelet_size": 2}, "tubelet_size takes 3 numbers, got 2"),
        ({"qkv_bias": "no"}, "qkv_bias is True or False, got 'no'"),
        ({"num_classes": {"a.b": 3}}, "'a.b' cannot name a head"),
        ({"num_classes": {"keys": 3}}, "'keys' cannot name a head"),
        ({"num_frames": 32, "sampled_frames": 2}, "3 frames that sampled_frames=2 picks are not divisible"),
    ],
)
def test_bad_configurations_say_what_would_do(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_unknown_fields_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'depht' is no field of ViViTConfig; did you mean 'depth'\?"):
        ViViTConfig.from_json('{"depht": 3}')
    with pytest.raises(ValueError, match="'num_frame' is no field"):
        create_model("B/16x2", num_frame=8)
    with pytest.raises(ValueError, match=r"model name 'B16x2' is unknown.*such as B/16x2.*Ti, S, B, L, H"):
        create_model("B16x2")


def test_heads_of_a_configuration_are_its_own():
    heads = {"noun": 3}
    config = tiny_config(num_classes=heads)
    heads["noun"] = -5
    assert config.num_classes == {"noun": 3}


def test_configuration_is_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config().depth = 3
    with pytest.raises(TypeError):
        ViViTConfig("joint")


def test_names_of_the_paper():
    with torch.device("meta"):
        model = create_model("H/14x2", variant="factorised_self_attention", image_size=224)
    assert (model.config.dim, model.config.depth, model.config.num_heads) == (1280, 32, 16)
    assert model.config.tubelet_size == (2, 14, 14)
    assert model.config.grid == (16, 16, 16)


def test_parameter_names_are_a_contract():
    """Saved checkpoints depend on these; the patterns are of whole names, {} stands for the number of a block."""
    linear, norm = ["weight", "bias"], ["weight", "bias"]
    block = {
        "norm1": norm,
        "attn.qkv": linear,
        "attn.proj": linear,
        "norm2": norm,
        "mlp.fc1": linear,
        "mlp.fc2": linear,
    }
    block_with_time = block | {"norm_time": norm, "attn_time.qkv": linear, "attn_time.proj": linear}

    def stack(prefix, block, token):
        names = {f"{prefix}.pos_embed.table", f"{prefix}.norm.weight", f"{prefix}.norm.bias"}
        names |= {f"{prefix}.cls_token.token"} if token else set()
        return names | {f"{prefix}.blocks.{{}}.{part}.{kind}" for part, kinds in block.items() for kind in kinds}

    expected = {
        "joint": stack("encoder", block, token=True),
        "factorised_encoder": stack("encoder.spatial", block, True) | stack("encoder.temporal", block, True),
        "factorised_self_attention": stack("encoder", block_with_time, token=False),
        "factorised_dot_product": stack("encoder", block, token=False),
    }
    rest = {"tubelet_embed.proj.weight", "tubelet_embed.proj.bias", "head.weight", "head.bias"}
    for variant, names in expected.items():
        found = {
            re.sub(r"blocks\.\d+\.", "blocks.{}.", name) for name in ViViT(tiny_config(variant=variant)).state_dict()
        }
        assert found == names | rest, variant
    extra = ViViT(tiny_config(representation_size=4, num_classes={"noun": 3})).state_dict().keys()
    assert {"pre_logits.0.weight", "pre_logits.0.bias", "head.noun.weight", "head.noun.bias"} <= extra


@variants
def test_classifier_methods(variant):
    model = tiny_model(variant=variant)
    video = video_for(model.config)
    features = model.forward_features(video)
    assert features.shape == (2, 24)
    torch.testing.assert_close(model.forward_head(features), model(video))
    assert model.forward_head(features, pre_logits=True) is features
    assert model.get_classifier() is model.head

    model.reset_classifier({"noun": 3, "verb": 2})
    assert {name: logits.shape for name, logits in model(video).items()} == {"noun": (2, 3), "verb": (2, 2)}
    assert model.config.num_classes == {"noun": 3, "verb": 2}
    model.reset_classifier(0)
    torch.testing.assert_close(model(video), features)
    with pytest.raises(ValueError, match="pooling cannot be changed on a built model"):
        model.reset_classifier(3, global_pool="avg")


def test_representation_layer_is_a_tanh():
    model = tiny_model(representation_size=7)
    features = model.forward_features(video_for(model.config))
    linear = model.pre_logits[0]
    expected = torch.tanh(features @ linear.weight.T + linear.bias)
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), expected)
    model.reset_classifier(3)
    assert model.head.in_features == 7


def test_model_starts_as_the_original():
    model = ViViT(tiny_config(dim=96, num_heads=4, representation_size=None))
    assert not model.head.weight.any()
    assert not model.head.bias.any()
    assert not model.encoder.cls_token.token.any()
    assert model.encoder.pos_embed.table.std().item() == pytest.approx(0.02, rel=0.1)
    assert 0 < model.encoder.blocks[0].mlp.fc1.bias.std() < 1e-5


@variants
def test_timm_optimiser_factory(variant):
    """Every parameter in one group; positions, class tokens, norms and biases undecayed; layers in order."""
    model = tiny_model(variant=variant)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    names = {parameter: name for name, parameter in model.named_parameters()}
    scale, decayed = {}, set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            scale[names[parameter]] = group["lr_scale"]
            decayed |= {names[parameter]} if group["weight_decay"] else set()
    assert scale.keys() == set(names.values())
    assert decayed == {name for name, p in model.named_parameters() if p.ndim > 1 and "pos_embed" not in name}
    order = ["tubelet_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight", "head.weight"]
    prefix = "encoder.spatial." if variant == "factorised_encoder" else "encoder."
    path = [scale[prefix + name if name.startswith("blocks") else name] for name in order]
    if variant == "factorised_encoder":
        path[3:3] = [scale[f"encoder.temporal.blocks.{i}.attn.qkv.weight"] for i in (0, 1)]
    assert path == sorted(set(path))
    assert scale[prefix + "pos_embed.table"] == path[0]


@variants
def test_gradient_checkpointing_changes_nothing_but_memory(variant):
    model = tiny_model(variant=variant)
    video = video_for(model.config)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            loss = model(video).square().sum()
        loss.backward()
        gradients.append(([p.grad.clone() for p in model.parameters()], sum(kept)))
    (plain, many), (checkpointed, few) = gradients
    for a, b in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(a, b)
    assert few < many / 3


@variants
def test_every_parameter_gets_a_gradient(variant):
    model = tiny_model(variant=variant)
    model(video_for(model.config)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@variants
def test_compile_as_one_graph(variant):
    model = tiny_model(variant=variant)
    video = video_for(model.config)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(video), model(video))


@variants
def test_export_with_any_batch(variant):
    model = tiny_model(variant=variant)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (video_for(model.config, 2),), dynamic_shapes=({0: batch},))
    video = video_for(model.config, 5, seed=1)
    torch.testing.assert_close(program.module()(video), model(video))


@variants
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_and_autocast(variant, dtype):
    model = tiny_model(variant=variant)
    video = video_for(model.config)
    exact = model(video)
    model.float()
    with torch.autocast("cpu", dtype=dtype):
        mixed = model(video.float())
    half = model.to(dtype)(video.to(dtype))
    assert mixed.dtype == half.dtype == dtype
    for out in (mixed, half):
        error = (out.double() - exact).norm() / exact.norm()
        assert error < (0.1 if dtype == torch.bfloat16 else 0.02)


def test_sampled_frames_are_all_that_is_seen():
    model = tiny_model(num_frames=8, sampled_frames=3, tubelet_size=(1, 4, 4))
    assert model.config.grid == (3, 2, 3)
    video = video_for(model.config)
    for frame in range(8):
        changed = video.clone()
        changed[:, :, frame] += torch.randn(2, 3, 8, 12)
        assert torch.equal(model(changed), model(video)) == (frame not in (2, 4, 6))


def test_weight_initialisers_of_others_apply():
    model = tiny_model()
    model.apply(lambda module: trunc_normal_(module.weight, std=0.02) if isinstance(module, nn.Linear) else None)
    assert model(video_for(model.config)).isfinite().all()
