"""Starting video models from image models: the original initialiser's results, and timm's own features."""

import inspect
import time
from functools import partial

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from einops import rearrange
from timm.layers import LayerNorm, PatchEmbed, RmsNorm, SwiGLU, SwiGLUPacked
from timm.models.vision_transformer import Attention, ParallelThingsBlock, VisionTransformer
from torch import nn

from tests.conftest import VARIANTS, randomise, tiny_config, tiny_model, video_for
from vivit_zoo import ViViT
from vivit_zoo.weights import WeightsError, config_for_image, hub, init_from_image


def image_model(**changes):
    """A small timm ViT of 2x4 patches with no trivial weight, LayerScales included."""
    options = {"img_size": (16, 32), "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "num_classes": 7}
    return randomise(VisionTransformer(**(options | changes))).eval()


norm5 = partial(LayerNorm, eps=1e-5)
FAMILIES = {
    "augreg": {},
    "deit3": {"no_embed_class": True, "init_values": 1e-6},
    "mae_without_qkv_bias": {"qkv_bias": False},
    "silu": {"act_layer": "silu"},
    "gelu_tanh": {"act_layer": partial(nn.GELU, approximate="tanh")},
    "dinov2": {"init_values": 1e-5},
    "dinov2_registers": {"init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True},
    "registers_with_positions": {"reg_tokens": 2},
    "clip": {"pre_norm": True, "norm_layer": norm5, "act_layer": "quick_gelu"},
    "openclip": {"pre_norm": True, "norm_layer": norm5},
    "siglip": {"class_token": False, "global_pool": "map"},
    "siglip_gap": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "gap_registers": {"class_token": False, "reg_tokens": 1, "global_pool": "avg", "fc_norm": False},
    "no_projection_bias": {"proj_bias": False},
    "norm_after_pooling": {"class_token": False, "global_pool": "avg"},
    "class_token_beside_the_average": {"global_pool": "avg", "fc_norm": False},
    "average_with_extra_tokens": {"global_pool": "avg", "pool_include_prefix": True, "reg_tokens": 2},
    "maximum": {"global_pool": "max", "fc_norm": False},
    "no_last_norm": {"final_norm": False},
    "no_positions": {"pos_embed": "none"},
    "norm_of_patches": {"embed_norm_layer": LayerNorm},
    "rms_and_norms_inside": {
        "norm_layer": RmsNorm,
        "qk_norm": True,
        "scale_attn_norm": True,
        "scale_mlp_norm": True,
        "mlp_ratio": 2,
    },
    "gated": {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU},
    "rectangular_patches": {"patch_size": (8, 4), "mlp_ratio": 1.7},
}


def skip_if_tokens_are_lost(image):
    """Old versions of timm leave the class token out where there are no positions."""
    tokens = image.forward_features(torch.zeros(1, 3, 16, 32)).shape[1]
    if tokens != image.patch_embed.num_patches + image.num_prefix_tokens:
        pytest.skip("this version of timm leaves the class token out where there are no positions")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_frame_has_the_image_models_features(family):
    image = image_model(**FAMILIES[family])
    skip_if_tokens_are_lost(image)
    config = config_for_image(image, variant="factorised_encoder", num_frames=6, num_classes=5)
    assert config.tubelet_size == (2, *image.patch_embed.patch_size)
    model = randomise(ViViT(config), seed=1).eval()
    report = init_from_image(model, image)
    video = video_for(config, dtype=torch.float32)
    with torch.no_grad():
        grid = model.tubelet_embed(video)
        tokens = model.encoder.spatial.forward_features(grid)
        frames = rearrange(video[:, :, 1::2], "b c t h w -> (b t) c h w")  # the central one of each tubelet
        expected = rearrange(image.forward_features(frames), "(b t) n d -> b t n d", t=3)
        torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)
        pooled = rearrange(image.forward_head(expected.flatten(0, 1), pre_logits=True), "(b t) d -> b t d", t=3)
        torch.testing.assert_close(model.encoder.spatial(grid), pooled, rtol=1e-5, atol=1e-5)
    assert report.copied.keys() | report.derived.keys() | report.new.keys() == model.state_dict().keys()
    assert report.used.keys() | report.left.keys() == image.state_dict().keys()
    assert len(report.notes) == 1  # the source says nothing of its pixels


@pytest.mark.parametrize("family", FAMILIES)
def test_one_place_in_time_is_the_image_model(family):
    image = image_model(**FAMILIES[family])
    skip_if_tokens_are_lost(image)
    config = config_for_image(image, num_frames=2)
    model = ViViT(config).eval()
    init_from_image(model, image, tubelet="filter_inflation")
    still = torch.randn(2, 3, 16, 32)
    with torch.no_grad():
        features = model.encoder.forward_features(model.tubelet_embed(still[:, :, None].expand(-1, -1, 2, -1, -1)))
        torch.testing.assert_close(features, image.forward_features(still), rtol=1e-5, atol=1e-5)


def test_distances_of_mistakes():
    """What the comparison above would notice: each of these is far beyond its tolerance."""
    image = image_model(init_values=1e-5)
    model = ViViT(config_for_image(image, num_frames=1)).eval()
    init_from_image(model, image)
    still = torch.randn(2, 3, 16, 32)
    with torch.no_grad():
        exact = model.forward_features(still[:, :, None])
        for name, change in {
            "encoder.cls_token.token": lambda x: x - image.pos_embed[0, 0],
            "encoder.blocks.0.attn.proj.weight": lambda x: x / image.blocks[0].ls1.gamma[:, None],
            "encoder.blocks.1.mlp.fc2.bias": lambda x: x / image.blocks[1].ls2.gamma,
        }.items():
            state = model.state_dict()
            wrong = ViViT(model.config).eval()
            wrong.load_state_dict(state | {name: change(state[name])})
            assert (wrong.forward_features(still[:, :, None]) - exact).abs().max() > 1e-3, name


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"block_fn": ParallelThingsBlock}, "ParallelThingsBlock is none of Block, EvaBlock"),
        ({"mlp_layer": SwiGLU}, "its SwiGLU has the activation GELU"),
        ({"act_layer": "relu"}, "its Mlp has the activation ReLU"),
        ({"embed_layer": type("OwnPatches", (PatchEmbed,), {"forward": None})}, "OwnPatches has its own forward"),
        ({"depth": 0}, "it has no blocks"),
    ],
)
def test_other_transformers_are_refused_with_the_reason(options, reason):
    with pytest.raises(WeightsError, match=f"the given image model cannot start a ViViT: .*{reason}"):
        config_for_image(image_model(**options))
    with pytest.raises(WeightsError, match="cannot start a ViViT: ResNet is none of VisionTransformer, "):
        init_from_image(ViViT(tiny_config()), timm.create_model("resnet18"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 8}, "num_heads 4, the model 8"),
        ({"depth": 3}, "depth 2, the model 3"),
        ({"act": "quick_gelu"}, "act gelu, the model quick_gelu"),
        ({"qkv_bias": False}, "biases of queries"),
        ({"tubelet_size": (2, 4, 8)}, r"patches of \(8, 8\), the model \(4, 8\)"),
        ({"reg_tokens": 1}, "0 register tokens, the model 1"),
        ({"pre_norm": True}, "pre_norm False, the model True"),
        ({"image_size": (32, 32)}, "positions='tile' needs the same"),
        ({"mlp_ratio": 2.0}, "wrong shapes"),
    ],
)
def test_models_that_do_not_fit_are_refused_and_stay_as_they_are(changes, message):
    image = image_model()
    model = ViViT(config_for_image(image, num_frames=4, **changes))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        init_from_image(model, image)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_small_differences_are_noted():
    image = image_model()
    model = ViViT(config_for_image(image, num_frames=4, act="gelu_tanh", norm_eps=1e-5))
    report = init_from_image(model, image)
    assert len(report.notes) == 3
    assert "note: act is gelu in the source, gelu_tanh in the model" in str(report)


def test_model_3_with_zero_out_starts_as_the_image_model_and_trains():
    image = image_model(class_token=False, global_pool="avg", fc_norm=False)
    models = {}
    for temporal in ("zero_out", "zero", "copy", "random"):
        config = config_for_image(image, variant="factorised_self_attention", num_frames=6, num_classes=5)
        torch.manual_seed(0)
        models[temporal] = ViViT(config)
        init_from_image(models[temporal], image, temporal=temporal)
    video = video_for(config, dtype=torch.float32)
    frames = rearrange(video[:, :, 1::2], "b c t h w -> (b t) c h w")
    expected = rearrange(image.forward_features(frames), "(b t) n d -> b t n d", t=3)
    dead = {}
    for temporal, model in models.items():
        tokens = model.encoder.forward_features(model.tubelet_embed(video))
        same = torch.allclose(tokens, expected, rtol=1e-5, atol=1e-5)
        assert same == (temporal in ("zero_out", "zero")), temporal
        tokens.square().sum().backward()
        time = {name: p.grad for name, p in model.named_parameters() if "_time." in name and "blocks.0" in name}
        dead[temporal] = {name.split("blocks.0.")[1] for name, gradient in time.items() if not gradient.any()}
    # Behind a zero projection the rest waits for its first step; behind zeros everywhere it waits for ever.
    assert "attn_time.proj.weight" not in dead["zero_out"]
    assert dead["zero"] == {
        "norm_time.weight", "norm_time.bias", "attn_time.qkv.weight", "attn_time.qkv.bias", "attn_time.proj.weight",
    }  # fmt: skip
    block = models["copy"].encoder.blocks[0]
    assert torch.equal(block.attn_time.qkv.weight, block.attn.qkv.weight)


@pytest.mark.parametrize(
    ("options", "reason"), [({"gated": True}, "gated"), ({"attn_head_dim": 8}, "its heads do not add up to its width")]
)
def test_other_attention_is_refused_with_the_reason(options, reason):
    if not options.keys() <= inspect.signature(Attention).parameters.keys():
        pytest.skip("this timm has no such option")
    image = image_model()
    image.blocks[1].attn = Attention(48, num_heads=4, **options)
    with pytest.raises(WeightsError, match=f"cannot start a ViViT: .*{reason}"):
        config_for_image(image)


def test_a_configuration_for_an_image_model_has_its_facts():
    config = config_for_image(image_model(**FAMILIES["clip"]))
    assert (config.norm_eps, config.pre_norm, config.act) == (1e-5, True, "quick_gelu")


def test_zero_out_zeroes_the_bias_too():
    model = randomise(ViViT(tiny_config(variant="factorised_self_attention")))
    init_from_image(model, ViViT(tiny_config()))
    assert not model.encoder.blocks[1].attn_time.proj.weight.any()
    assert not model.encoder.blocks[1].attn_time.proj.bias.any()
    assert model.encoder.blocks[1].attn_time.qkv.weight.all()


def test_a_videos_positions_are_tiled_in_order():
    source, model = randomise(ViViT(tiny_config())), ViViT(tiny_config(num_frames=12))
    init_from_image(model, source)
    table = source.encoder.pos_embed.table
    assert torch.equal(model.encoder.pos_embed.table, torch.cat([table, table]))


def test_random_tubelets_keep_the_models_kernel():
    model = ViViT(tiny_config())
    kernel = model.tubelet_embed.proj.weight.clone()
    report = init_from_image(model, ViViT(tiny_config()), tubelet="random")
    assert torch.equal(model.tubelet_embed.proj.weight, kernel)
    assert report.left["tubelet_embed.proj.weight"] == "tubelet='random'"


def test_a_temporal_encoder_is_taken_whole_or_not():
    source = randomise(ViViT(tiny_config(variant="factorised_encoder")))
    longer = ViViT(tiny_config(variant="factorised_encoder", num_frames=10))
    init_from_image(longer, source)
    table = source.encoder.temporal.pos_embed.table
    torch.testing.assert_close(longer.encoder.temporal.pos_embed.table[[0, 2, 4]], table[[0, 1, 2]])
    other = ViViT(tiny_config(variant="factorised_encoder", temporal_mlp_ratio=2.0))
    report = init_from_image(other, source)
    temporal = {name for name in other.state_dict() if name.startswith("encoder.temporal.")}
    assert temporal <= report.new.keys()
    assert {name for name in report.left if name.startswith("encoder.temporal.")} == temporal


def test_class_token_rules():
    image = image_model()
    config = config_for_image(image, variant="factorised_encoder", num_frames=4)
    model = ViViT(config)
    init_from_image(model, image, class_token="keep")
    torch.testing.assert_close(model.encoder.spatial.cls_token.token, image.pos_embed[0, 0])
    init_from_image(model, image)
    torch.testing.assert_close(model.encoder.spatial.cls_token.token, image.cls_token.flatten() + image.pos_embed[0, 0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_vivit_starts_one_of_another_variant_and_length(variant):
    source = randomise(ViViT(tiny_config(variant="joint")))
    model = ViViT(tiny_config(variant=variant, num_frames=12, num_classes=3))
    report = init_from_image(model, source, positions="resize")
    assert report.copied.keys() | report.derived.keys() | report.new.keys() == model.state_dict().keys()
    main = model.encoder.spatial if variant == "factorised_encoder" else model.encoder
    assert torch.equal(main.blocks[1].mlp.fc1.weight, source.encoder.blocks[1].mlp.fc1.weight)
    assert torch.equal(model.tubelet_embed.proj.weight, source.tubelet_embed.proj.weight)
    table = source.encoder.pos_embed.table
    if variant == "factorised_encoder":
        torch.testing.assert_close(main.pos_embed.table, table.mean(0))
    else:
        torch.testing.assert_close(main.pos_embed.table[[0, -1]], table[[0, -1]])
    assert "head.weight" in report.left
    same = ViViT(source.config)
    init_from_image(same, source)
    for name, tensor in source.state_dict().items():
        assert name.startswith("head") or torch.equal(same.state_dict()[name], tensor)


@pytest.mark.parametrize("variant", ["factorised_encoder", "factorised_self_attention"])
def test_a_vivit_gives_what_it_has_over_time(variant):
    source = randomise(ViViT(tiny_config(variant=variant)))
    model = ViViT(tiny_config(variant=variant, num_frames=12, tubelet_size=(4, 4, 4)))
    report = init_from_image(model, source, temporal="random")
    assert set(report.new) == {"head.weight", "head.bias"}
    assert set(report.derived) == {"tubelet_embed.proj.weight"}


def test_local_dir_of_timm(tmp_path):
    image = timm.create_model("vit_tiny_patch16_224", embed_dim=48, depth=2, num_heads=4, img_size=32, num_classes=3)
    randomise(image)
    timm.models.save_for_hf(image, tmp_path, model_args={"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 32})
    models = [ViViT(config_for_image(image, num_frames=4)) for _ in range(3)]
    for model, source in zip(models, [image, tmp_path, f"local-dir:{tmp_path}"], strict=True):
        init_from_image(model, source)
        for name, tensor in models[0].state_dict().items():
            assert name.startswith("head") or torch.equal(model.state_dict()[name], tensor), name
    with pytest.raises(WeightsError, match="timm cannot load 'vit_base_patch17_224'"):
        init_from_image(models[0], "vit_base_patch17_224")


def test_a_hub_id_is_a_vivit_or_a_model_of_timm(tmp_path, monkeypatch):
    video, image = tiny_model(num_classes=3).float(), timm.create_model("test_vit", num_classes=3)
    video.save_pretrained(tmp_path / "me" / "video")
    timm.models.save_for_hf(randomise(image), tmp_path / "me" / "image")

    def download(repo, name, **_):
        if not (tmp_path / repo / name).exists():
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return str(tmp_path / repo / name)

    monkeypatch.setattr(hub, "hub_error", lambda: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    model = ViViT(config_for_image("me/video", num_classes=7))
    assert model.config == video.config.replace(num_classes=7)
    report = init_from_image(model, "me/video", positions="resize")
    assert torch.equal(model.tubelet_embed.proj.weight, video.tubelet_embed.proj.weight)
    assert not report.derived
    config = config_for_image("me/image", num_frames=4, num_classes=7)
    assert config == config_for_image(image, num_frames=4, num_classes=7)
    init_from_image(ViViT(config), "me/image")
    with pytest.raises(WeightsError, match=r"has neither config\.json nor checkpoint"):
        config_for_image("me/nothing")


def test_a_name_of_timm_is_refused_at_once_without_a_network(tmp_path, monkeypatch):
    def sleep(seconds):
        raise AssertionError("the hub's client repeats its request")

    monkeypatch.setattr(hub, "hub_error", lambda: ConnectionError("no network"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", sleep)
    for name in ("vit_tiny_patch16_224.augreg_in21k", "hf-hub:timm/vit_tiny_patch16_224.augreg_in21k"):
        with pytest.raises(WeightsError) as caught:
            config_for_image(name)
        reason = "the hub cannot be reached (ConnectionError), and the weights are not in the cache"
        assert str(caught.value) == f"timm cannot load {name!r}: {reason}"
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("source", ["owner/name", "vit_tiny_patch16_224"])
def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(source, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", "/home/me/.cache/huggingface")

    monkeypatch.setattr(hub, "hub_error", lambda: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(WeightsError, match=r"Permission denied.*; set the environment variable HF_HOME to a folder"):
        config_for_image(source)


def test_a_model_for_a_source_that_is_none(tmp_path):
    with pytest.raises(WeightsError, match=r"runs/first/model is neither a file nor a folder here, and no id on the"):
        config_for_image("runs/first/model")
    (tmp_path / "checkpoint").write_bytes(b"\x81")
    with pytest.raises(WeightsError, match="does not say what model it is of"):
        config_for_image(tmp_path)


def test_what_cannot_be_started_or_read(tmp_path):
    image = image_model()
    with pytest.raises(TypeError, match=r"a VisionTransformer is not a ViViT; ViViT\(config_for_image"):
        init_from_image(image, image)
    image = image_model(class_token=False, global_pool="avg", fc_norm=False)
    image.global_pool = "token"
    with pytest.raises(WeightsError, match="pools by a class token that it does not have"):
        config_for_image(image)
    np.savez(tmp_path / "nothing.npz")
    with pytest.raises(WeightsError, match="has no embedding/kernel: no image ViT; it holds nothing"):
        init_from_image(ViViT(tiny_config()), tmp_path / "nothing.npz")
    np.savez(tmp_path / "patches.npz", **{"params/embedding/kernel": np.zeros((4, 4, 3, 24), np.float32)})
    with pytest.raises(WeightsError, match="has no query/kernel below params/Transformer/encoderblock_0"):
        init_from_image(ViViT(tiny_config()), tmp_path / "patches.npz")
