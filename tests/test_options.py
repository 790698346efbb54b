"""The options of the blocks in whole models: they train, compile, export and run under autocast, and compose."""

import dataclasses

import pytest
import torch
from torch import nn

from tests.conftest import VARIANTS, randomise, tiny_config, tiny_model, video_for
from vivit_zoo import ViViT, ViViTConfig
from vivit_zoo.config import AttentionPoolConfig, RotaryConfig
from vivit_zoo.mlp import Mlp

# Groups of options as pretrained models have them.
OPTIONS = {
    "rope, class token and registers": {
        "rope": {"axes": "thw"}, "class_token": True, "reg_tokens": 2, "global_pool": "all", "pos_embed": "none",
    },
    "learned rope, max": {"rope": {"learned": True, "coords": "index"}, "global_pool": "max"},
    "gated with all norms": {
        "gated": True, "act": "silu", "norm": "rms", "qk_norm": True, "attn_inner_norm": True, "mlp_inner_norm": True,
        "patch_norm": True, "last_norm": "after_pool", "last_norm_eps": 1e-5,
    },
    "attention pooling, soft cap": {
        "global_pool": "attention", "attn_softcap": 5.0, "last_norm": "none",
        "attn_pool": {"depth": 1, "inner_dim": 8, "mlp_ratio": None, "pre_norm": True},
    },
    "relative positions": {"rel_pos": True, "global_pool": "token"},
}  # fmt: skip
CASES = [
    pytest.param(variant, options, id=f"{variant}: {name}")
    for variant in VARIANTS
    for name, options in OPTIONS.items()
    if not (options.get("rel_pos") and variant == "factorised_dot_product")
]
cases = pytest.mark.parametrize(("variant", "options"), CASES)


@cases
def test_every_parameter_gets_a_gradient(variant, options):
    model = tiny_model(variant=variant, **options).train()
    model(video_for(model.config)).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-12]
    # A single query's bias shifts all scores of a row alike; so does a bias of keys, but for what rounding leaves.
    assert [name for name in without if not name.endswith("kv.bias")] == []


@cases
def test_samples_do_not_see_one_another(variant, options):
    model = tiny_model(variant=variant, **options)
    video = video_for(model.config, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(model(video[1:2]), model(video)[1:2])


@cases
def test_options_change_nothing_about_who_sees_whom(variant, options):
    """The places that change after one block when one place changes, with the options and without."""

    def reached(**changes):
        encoder = tiny_model(variant=variant, depth=1, **changes).encoder
        encoder = getattr(encoder, "spatial", encoder)
        x = torch.randn(1, 3, 6, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        changed = x.clone()
        changed[0, 1, 2] += torch.randn(24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        prefix = encoder.num_prefix_tokens
        before, after = (encoder.forward_features(tokens)[0, ..., prefix:, :] for tokens in (x, changed))
        return (before != after).any(-1)

    with torch.no_grad():
        assert torch.equal(reached(**options), reached())


@cases
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's, of RMSNorm under autocast
def test_under_autocast_the_model_is_nearly_the_same(variant, options):
    model = tiny_model(variant=variant, **options).float()
    video = video_for(model.config, dtype=torch.float32)
    with torch.no_grad():
        expected = model(video)
        with torch.autocast("cpu"):
            rounded = model(video)
    assert (rounded - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_exported_and_compiled_in_one_graph_the_model_is_the_same(options):
    model = tiny_model(variant="factorised_self_attention", depth=1, **options).float()
    video = video_for(model.config, dtype=torch.float32)
    with torch.no_grad():
        expected = model(video)
        exported = torch.export.export(model, (video,)).module()(video)
        compiled = torch.compile(model, fullgraph=True, backend="eager")(video)
    for found in (exported, compiled):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_configurations_of_options_survive_json_and_dictionaries():
    for options in OPTIONS.values():
        config = tiny_config(**options)
        assert ViViTConfig.from_json(config.to_json()) == config
        assert config.replace(depth=1).replace(depth=2) == config
    assert tiny_config(rope={"axes": "thw"}).rope == RotaryConfig(axes="thw")
    assert tiny_config(attn_pool={"depth": 2}).attn_pool == AttentionPoolConfig(depth=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope": {"axis": "hw"}}, "'axis' is no field of RotaryConfig; did you mean 'axes'"),
        ({"rope": {"axes": "t"}}, "rope.axes 't' is unknown; choose from hw, thw"),
        ({"rope": {"base": 1}}, "rope.base 1 is not above 1"),
        ({"rope": {"reference": (14,)}}, r"rope.reference takes two positive numbers \(h, w\), got \(14,\)"),
        ({"rope": {"learned": True, "tiled": True}}, "exclude each other"),
        ({"rope": "hw"}, "rope takes a RotaryConfig or a dictionary of its fields, got 'hw'"),
        ({"rope": {}, "dim": 12}, "heads of an even width of at least 4; dim / num_heads is 3"),
        ({"attn_pool": {"num_heads": 0}}, "attn_pool.num_heads takes whole numbers from 1, got 0"),
        ({"attn_pool": {"mlp_ratio": -1.0}}, "attn_pool.mlp_ratio -1.0 is not positive"),
        ({"norm": "batch"}, "norm 'batch' is unknown; choose from layer, rms"),
        ({"last_norm": "first"}, "last_norm 'first' is unknown; choose from before_pool, after_pool, none"),
        ({"global_pool": "token", "class_token": False}, "global_pool 'token' needs a class token"),
        ({"share_class_token": True, "class_token": False}, "share_class_token needs a class token"),
        ({"rel_pos": True, "attn_softcap": 5.0}, "rel_pos and attn_softcap exclude each other"),
        ({"attn_softcap": 0}, "attn_softcap 0 is not positive"),
        ({"gated": 1}, "gated is True or False, got 1"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "factorised_dot_product", "rel_pos": True}, "has no relative positions"),
        ({"variant": "factorised_encoder", "temporal_per_place": True}, "temporal_per_place needs temporal blocks"),
        ({"global_pool": "attention", "attn_pool": {"num_heads": 5}}, "width 24 is not divisible by its num_heads 5"),
    ],
)
def test_models_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ViViT(tiny_config(**changes))


def test_a_gated_mlp_is_silu_of_the_gate_times_the_rest():
    mlp = randomise(Mlp(6, 10, act=torch.nn.functional.silu, gated=True, inner_norm=nn.RMSNorm)).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    gate, up = mlp.fc1(x)[:, :10], mlp.fc1(x)[:, 10:]
    torch.testing.assert_close(mlp(x), mlp.fc2(mlp.inner_norm(gate * gate.sigmoid() * up)))


def test_soft_caps_bound_the_scores():
    plain, capped = (tiny_model(attn_softcap=cap) for cap in (None, 1e4))
    video = video_for(plain.config)
    with torch.no_grad():
        torch.testing.assert_close(plain(video), capped(video), rtol=1e-4, atol=1e-4)
        for layer in capped.encoder.blocks:
            layer.attn.attend.keywords["cap"] = 1e-9  # all scores alike
        values = dataclasses.replace(capped.config, attn_softcap=None)
        even = ViViT(values).double().eval()
        even.load_state_dict(capped.state_dict())
        for layer in even.encoder.blocks:
            layer.attn.qkv.weight[: 2 * 24] = 0
            layer.attn.qkv.bias[: 2 * 24] = 0
        torch.testing.assert_close(capped(video), even(video))
