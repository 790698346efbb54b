"""Weights as training scripts save them, and models as users hand them over."""

import argparse
import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.conftest import randomise, tiny_config
from tests.weights.test_start import image_model
from vivit_zoo import ViViT
from vivit_zoo.weights import WeightsError, config_for_image, init_from_image


@pytest.fixture(scope="module")
def image():
    return randomise(timm.create_model("test_vit", num_classes=3)).eval()


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


MAE = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 64)}
HEAD = {"head.mlp.0.weight": torch.zeros(4, 4)}
OPTIONS = {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "epoch": 3}
# How training scripts save a model, and what then stays unused.
WAYS = {
    "a state_dict in .pth": ("a.pth", lambda s: s),
    "a state_dict in .pt": ("a.pt", lambda s: s),
    "a state_dict in .bin": ("a.bin", lambda s: s),
    "safetensors": ("a.safetensors", lambda s: s),
    "timm's train.py": ("a.pth.tar", lambda s: {"state_dict": s, "optimizer": {"state": {}}, **OPTIONS}),
    "with an average of the weights": ("a.pth", lambda s: {"model": {n: x + 1 for n, x in s.items()}, "model_ema": s}),
    "DistributedDataParallel": ("a.pth.tar", lambda s: {"model": prefixed(s, "module.")}),
    "torch.compile": ("a.pt", lambda s: prefixed(s, "_orig_mod.")),
    "Lightning": ("a.ckpt", lambda s: {"state_dict": prefixed(s, "model."), "hyper_parameters": {"lr": 0.1}}),
    "compiled in DDP": ("a.pth", lambda s: {"net": prefixed(s, "module._orig_mod.")}),
    "DINO": ("a.pth", lambda s: {"student": {}, "teacher": prefixed(s, "backbone.") | HEAD}),
    "student and teacher in one": (
        "a.pth",
        lambda s: {"model": prefixed({n: x + 1 for n, x in s.items()}, "student.") | prefixed(s, "teacher.")},
    ),
    "an encoder of something": ("a.pth", lambda s: prefixed(s, "encoder.") | {"temperature": torch.tensor(1.0)}),
    "MAE": ("a.pth", lambda s: {"model": s | MAE, **OPTIONS}),
}


def save(content, file: Path) -> None:
    if file.suffix == ".safetensors":
        save_file(content, file)
    else:
        torch.save(content, file)


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_saving(way, image, tmp_path):
    name, wrap = WAYS[way]
    content = wrap(image.state_dict())
    save(content, tmp_path / name)
    sources = [tmp_path / name] + ([content] if isinstance(content, dict) else [])
    expected = ViViT(config_for_image(image, num_frames=2))
    init_from_image(expected, image)
    for source in sources:
        config = config_for_image(source, arch="test_vit", num_frames=2)
        assert config == expected.config
        model = ViViT(config)
        report = init_from_image(model, source, arch="test_vit")
        for ours, tensor in expected.state_dict().items():
            assert ours.startswith("head.") or torch.equal(model.state_dict()[ours], tensor), ours
        assert {name.rpartition("head.")[2] for name in report.left if "head." in name} >= {"weight", "bias"}
        tensors = next(iter(content.values())) if way in ("Lightning", "compiled in DDP", "MAE") else {}
        assert report.used.keys() | report.left.keys() >= tensors.keys()
        if "teacher" in way or "DINO" in way:
            assert not any(name.startswith("student.") for name in report.used)
    if way == "MAE":
        assert set(MAE) <= report.left.keys()
    if way == "with an average of the weights":
        assert any("model_ema and model; model_ema is taken" in note for note in report.notes)


def test_weights_for_images_of_another_size():
    image = randomise(timm.create_model("test_vit", img_size=64, num_classes=0))
    model = ViViT(config_for_image(image.state_dict(), arch="test_vit", num_frames=2))
    assert model.config.image_size == (64, 64)
    init_from_image(model, image.state_dict(), arch="test_vit")
    torch.testing.assert_close(model.encoder.pos_embed.table[0], image.pos_embed[0, 1:])


def test_published_names_are_those_that_timm_knows():
    """DINOv2's own release: another name for registers, and a token of the pretraining."""
    arch = "vit_small_patch14_reg4_dinov2"
    image = randomise(timm.create_model(arch, img_size=28, depth=12, num_classes=0))
    state = dict(image.state_dict())
    state["register_tokens"] = state.pop("reg_token")
    state["mask_token"] = torch.zeros(1, 384)
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"].clone()
    model = ViViT(config_for_image(state, arch=arch, num_frames=2))
    report = init_from_image(model, state, arch=arch)
    torch.testing.assert_close(model.encoder.reg_tokens.tokens, image.reg_token[0])
    torch.testing.assert_close(model.encoder.cls_token.token, image.cls_token.flatten())
    assert "mask_token" not in report.used


def test_files_that_cannot_be_used(image, tmp_path):
    file = tmp_path / "a.pth"
    torch.save(image.state_dict(), file)
    with pytest.raises(WeightsError, match=r"do not say what model they are of; pass arch= .*it has cls_token, pos_em"):
        config_for_image(file)
    with pytest.raises(WeightsError, match=r"timm cannot build 'test_vitt'.*; did you mean test_vit"):
        config_for_image(file, arch="test_vitt")
    few = {name: tensor for name, tensor in image.state_dict().items() if "blocks.5." not in name}
    with pytest.raises(WeightsError, match=r"does not fit test_vit: it lacks blocks\.5\."):
        config_for_image(few, arch="test_vit")
    deep = {name.replace("blocks.5.", "blocks.6."): tensor for name, tensor in image.state_dict().items()}
    deep |= image.state_dict()
    with pytest.raises(WeightsError, match=r"it has blocks\.6\..* beside; is it another architecture\?"):
        config_for_image(deep, arch="test_vit")
    wide = timm.create_model("test_vit", embed_dim=32, num_heads=2).state_dict()
    with pytest.raises(WeightsError, match="does not fit test_vit: size mismatch for"):
        config_for_image(wide, arch="test_vit")
    torch.save(image, file)
    with pytest.raises(
        WeightsError, match=r"holds more than tensors.*of a model that was saved whole, save model\.state_"
    ):
        config_for_image(file, arch="test_vit")
    torch.save({"epoch": 3, "history": [1, 2]}, file)
    with pytest.raises(WeightsError, match=r"holds no dictionary of tensors, not even under .*; it has epoch, history"):
        config_for_image(file, arch="test_vit")
    torch.save([1], file)
    with pytest.raises(WeightsError, match="holds a list, not a dictionary of tensors"):
        config_for_image(file, arch="test_vit")
    two = prefixed(image.state_dict(), "left.") | prefixed(image.state_dict(), "right.")
    with pytest.raises(
        WeightsError, match=r"has several image models, below 'left\.', 'right\.'; pass the tensors of one"
    ):
        config_for_image(two, arch="test_vit")
    odd = dict(image.state_dict())
    odd["pos_embed"] = odd["pos_embed"][:, :8]
    with pytest.raises(WeightsError, match="positions for 8 tokens, which are those of no square image"):
        config_for_image(odd, arch="test_vit")


@pytest.mark.parametrize("heads", [{}, {"num_classes": 3}])
def test_torchvision(heads, tmp_path):
    image = randomise(torchvision.models.VisionTransformer(32, 8, 2, 4, 48, 96, **heads)).eval()
    config = config_for_image(image, num_frames=2)
    model = ViViT(config).eval()
    report = init_from_image(model, image, tubelet="filter_inflation", mean=[0.5], std=[0.5])
    still = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = model.forward_features(still[:, :, None].expand(-1, -1, 2, -1, -1))
        image.heads = nn.Identity()
        torch.testing.assert_close(features, image(still), rtol=1e-5, atol=1e-5)
    assert set(report.left) == {"heads.head.weight", "heads.head.bias"}
    text = str(init_from_image(ViViT(config), image))
    assert "pixels of mean 0.485/0.456/0.406" in text
    assert "blocks.{0-1}.norm1.weight: encoder.layers.encoder_layer_{0-1}.ln_1.weight" in text


def test_weights_of_torchvision_by_name(tmp_path, monkeypatch):
    def build(weights=None, image_size=224, num_classes=1000):
        return torchvision.models.VisionTransformer(image_size, 8, 2, 4, 48, 96, num_classes=num_classes)

    monkeypatch.setitem(torchvision.models._api.BUILTIN_MODELS, "vit_tiny_8", build)
    image = randomise(build(image_size=32, num_classes=2))
    torch.save({"model": prefixed(image.state_dict(), "module.")}, tmp_path / "a.pth")
    model = ViViT(config_for_image(tmp_path / "a.pth", arch="vit_tiny_8", num_frames=2))
    report = init_from_image(model, tmp_path / "a.pth", arch="vit_tiny_8")
    torch.testing.assert_close(model.encoder.blocks[1].mlp.fc2.weight, image.encoder.layers[1].mlp[3].weight)
    assert model.config.image_size == (32, 32)
    assert "module.heads.head.weight" in report.left


def test_torchvision_models_that_compute_something_else_are_refused():
    stem = [torchvision.models.vision_transformer.ConvStemConfig(48, 3, 8)]
    image = torchvision.models.VisionTransformer(32, 8, 2, 4, 48, 96, conv_stem_configs=stem)
    with pytest.raises(WeightsError, match="its patches come out of a convolutional stem"):
        config_for_image(image)
    image = torchvision.models.VisionTransformer(32, 8, 2, 4, 48, 96)
    image.encoder.layers[1].num_heads = 2
    with pytest.raises(WeightsError, match="its blocks differ in their heads"):
        config_for_image(image)
    image = torchvision.models.VisionTransformer(32, 8, 2, 4, 48, 96)
    image.encoder.layers[1].mlp[1] = nn.SiLU()
    with pytest.raises(WeightsError, match="its MLPs have the activations GELU, SiLU"):
        config_for_image(image)


class Renamed(VisionTransformer):
    """A subclass that changes nothing of what is computed."""

    def extra_repr(self) -> str:
        return "mine"


class Changed(VisionTransformer):
    """A subclass that computes something else."""

    def forward_features(self, x):
        return super().forward_features(x) * 2


class Classifier(nn.Module):
    """A user's module with a ViT inside."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = image_model()


def test_wrapped_models():
    image = image_model()
    expected = ViViT(config_for_image(image, num_frames=2))
    init_from_image(expected, image)
    options = {"img_size": (16, 32), "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "num_classes": 7}
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = {
            "DistributedDataParallel": DistributedDataParallel(copy.deepcopy(image)),
            "DataParallel": nn.DataParallel(image),
            "torch.compile": torch.compile(image),
            "compiled in DataParallel": nn.DataParallel(torch.compile(image)),
            "AveragedModel": torch.optim.swa_utils.AveragedModel(image),
            "ModelEmaV3": ModelEmaV3(image),
            "a subclass": randomise(Renamed(**options)),
        }
    finally:
        torch.distributed.destroy_process_group()
    for name, source in wrapped.items():
        model = ViViT(config_for_image(source, num_frames=2))
        init_from_image(model, source)
        for ours, tensor in expected.state_dict().items():
            assert ours.startswith("head.") or torch.equal(model.state_dict()[ours], tensor), (name, ours)
    video = ViViT(tiny_config())
    start = ViViT(tiny_config())
    init_from_image(start, nn.DataParallel(randomise(video)))
    assert torch.equal(start.encoder.norm.weight, video.encoder.norm.weight)


def test_features_only():
    """timm cuts off the last norm, and the blocks behind the last that is asked for."""
    features = timm.create_model("test_vit", features_only=True, out_indices=(3,))
    randomise(features)
    config = config_for_image(features, num_frames=2)
    assert (config.last_norm, config.depth) == ("none", 4)
    model = ViViT(config).eval()
    init_from_image(model, features, tubelet="filter_inflation", pixels="keep")
    still = torch.randn(1, 3, *config.image_size)
    with torch.no_grad():
        tokens = model.encoder.forward_features(model.tubelet_embed(still[:, :, None].expand(-1, -1, 2, -1, -1)))
        expected = features(still)[-1].flatten(2).mT
        torch.testing.assert_close(tokens[:, 1:], expected, rtol=1e-4, atol=1e-4)


def test_models_that_are_refused_in_words():
    with pytest.raises(WeightsError, match="Changed has its own forward_features"):
        config_for_image(Changed(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2))
    with pytest.raises(WeightsError, match=r"Classifier is none of .*; its backbone is one: pass that"):
        config_for_image(Classifier())
    image = image_model()
    image.blocks[1].attn.num_heads = 2
    with pytest.raises(WeightsError, match="block 1 has heads 2, block 0 4"):
        config_for_image(image)
    image = image_model()
    image.blocks[1].mlp.act = nn.GELU(approximate="tanh")
    with pytest.raises(WeightsError, match="block 1 has activation gelu_tanh, block 0 gelu"):
        config_for_image(image)
    image = image_model()
    image.patch_embed.proj.stride = (4, 4)
    with pytest.raises(WeightsError, match=r"its patches of \(8, 8\) have stride \(4, 4\)"):
        config_for_image(image)
    image = image_model()
    image.blocks[1].norm2.eps = 1e-3
    report = init_from_image(ViViT(config_for_image(image, num_frames=2)), image)
    assert any("norm_eps is 1e-06 everywhere; the source has [1e-06, 0.001]" in note for note in report.notes)
    image = image_model()
    image.blocks[0].attn.qkv.lora_A = nn.Linear(48, 2)
    with pytest.raises(
        WeightsError, match=r"has LoRA adapters; merge them, in PEFT by model = model.merge_and_unload\(\)"
    ):
        config_for_image(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to give this up
        quantised = torch.ao.quantization.quantize_dynamic(image_model(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(WeightsError, match="is quantised; pass the model before its quantisation"):
        config_for_image(quantised)
    with pytest.raises(TypeError, match="the source 3 is no name"):
        config_for_image(3)


@pytest.mark.parametrize("pool", ["avgmax", ""])
def test_pools_that_vivit_does_not_have_are_noted(pool):
    options = {"class_token": False, "fc_norm": False} if pool else {}
    image = image_model(global_pool=pool, **options)
    model = ViViT(config_for_image(image, num_frames=2))
    report = init_from_image(model, image)
    assert model.config.global_pool == ("avg" if pool else "token")
    assert any("pools by the mean of average and maximum" in note for note in report.notes) == bool(pool)


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"global_pool": "map"}, "its attention pooling leaves out class token and registers"),
        (
            {"global_pool": "max", "fc_norm": False, "pool_include_prefix": True},
            "it takes the maximum with class token",
        ),
        ({"global_pool": "map", "pool_include_prefix": True}, ""),
        ({"global_pool": "map", "class_token": False}, ""),
    ],
)
def test_pools_over_other_tokens_are_noted(options, note):
    image = image_model(**options).eval()
    model = ViViT(config_for_image(image, num_frames=1, num_classes=0)).eval()
    report = init_from_image(model, image, mean=(0.5,) * 3, std=(0.5,) * 3)
    still = torch.randn(2, 3, 16, 32)
    with torch.no_grad():
        theirs = image.forward_head(image.forward_features(still), pre_logits=True)
        equal = torch.allclose(model(still[:, :, None]), theirs, rtol=1e-5, atol=1e-5)
    assert equal == (not note)
    assert [line.startswith(note) for line in report.notes] == [True] * bool(note)


def test_misspelt_names_have_near_ones():
    for name, near in [
        ("vit_base_patch16_225", "vit_base_patch16_224"),
        ("vit_base_patch16_224.augreg_in21", "vit_base_patch16_224.augreg_in21k"),
        ("eva02_base_patch14_22", "eva02_base_patch14_224"),
    ]:
        with pytest.raises(WeightsError, match=f"timm cannot load '{name}'.*did you mean .*{near}"):
            config_for_image(name)
    with pytest.raises(WeightsError, match=r"pass torchvision.models.vit_b_16\(weights='DEFAULT'\)"):
        config_for_image("vit_b_16")


def test_a_folder_a_path_and_a_name_give_one_configuration(tmp_path):
    image = timm.create_model("test_vit", num_classes=3)
    timm.models.save_for_hf(image, tmp_path)
    configs = [
        config_for_image(source, num_frames=4) for source in (image, tmp_path, str(tmp_path), f"local-dir:{tmp_path}")
    ]
    assert configs.count(configs[0]) == 4
