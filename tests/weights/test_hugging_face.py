"""transformers' image models as sources: their own outputs on small random models, from memory and from folders."""

import json

import pytest
import torch
import transformers
from einops import rearrange, repeat
from safetensors.torch import load_file, save_file

from tests.conftest import randomise
from vivit_zoo import ViViT
from vivit_zoo.weights import WeightsError, config_for_image, init_from_image
from vivit_zoo.weights.hugging_face import FAMILIES

SIZES = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
RATIO = SIZES | {"mlp_ratio": 2}
TEXT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 9,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
# A class of transformers, its configuration, and what in its outputs our tokens are to equal.
MODELS = {
    "vit": ("ViTModel", "ViTConfig", SIZES),
    "vit_classifier": ("ViTForImageClassification", "ViTConfig", SIZES | {"hidden_act": "gelu_new", "qkv_bias": False}),
    "deit": ("DeiTModel", "DeiTConfig", SIZES),
    "vit_mae": ("ViTMAEModel", "ViTMAEConfig", SIZES | {"mask_ratio": 0.0}),
    "ijepa": ("IJepaModel", "IJepaConfig", SIZES),
    "dinov2": ("Dinov2Model", "Dinov2Config", RATIO),
    "dinov2_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", RATIO),
    "dinov2_giant": ("Dinov2Model", "Dinov2Config", RATIO | {"use_swiglu_ffn": True}),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", SIZES | {"num_register_tokens": 2}),
    "dinov3_plus": ("DINOv3ViTModel", "DINOv3ViTConfig", SIZES | {"use_gated_mlp": True, "hidden_act": "silu"}),
    "clip_vision": ("CLIPVisionModel", "CLIPVisionConfig", SIZES),
    "clip": ("CLIPModel", "CLIPConfig", {"vision_config": SIZES, "text_config": TEXT}),
    "siglip_vision": ("SiglipVisionModel", "SiglipVisionConfig", SIZES),
    "siglip": ("SiglipModel", "SiglipConfig", {"vision_config": SIZES, "text_config": TEXT}),
}


def their_model(name, **changes):
    model_class, config_class, fields = MODELS[name]
    config = getattr(transformers, config_class)(**(fields | changes))
    return randomise(getattr(transformers, model_class)(config)).eval()


def their_tokens(model, pixels):
    """The tokens after the last norm."""
    inner = getattr(model, "vit", None) or getattr(model, "vision_model", None) or model
    with torch.no_grad():
        if model.config.model_type == "vit_mae":  # its random order is the order of this noise
            places = model.embeddings.patch_embeddings.num_patches
            noise = torch.arange(places, dtype=torch.float32).expand(len(pixels), -1)
            return inner(pixel_values=pixels, noise=noise).last_hidden_state
        tokens = inner(pixel_values=pixels).last_hidden_state
        # CLIP normalises the class token alone; the other tokens are compared through the same norm.
        return inner.post_layernorm(tokens) if "clip" in model.config.model_type.replace("siglip", "") else tokens


def ours(source, **rules):
    config = config_for_image(source, num_frames=2)
    model = ViViT(config).eval()
    report = init_from_image(model, source, tubelet="filter_inflation", **rules)
    return model, report


def tokens_of(model, pixels):
    with torch.no_grad():
        return model.encoder.forward_features(model.tubelet_embed(repeat(pixels, "b c h w -> b c t h w", t=2)))


@pytest.mark.filterwarnings("ignore:Model config")
@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_transformers_own(name, tmp_path):
    theirs = their_model(name)
    pixels = torch.randn(2, 3, 32, 32)
    expected = their_tokens(theirs, pixels)
    model, report = ours(theirs)
    torch.testing.assert_close(tokens_of(model, pixels), expected, rtol=1e-5, atol=1e-5)
    assert report.used.keys() | report.left.keys() == theirs.state_dict().keys()
    # What save_pretrained writes has other names, in safetensors and in the older .bin.
    theirs.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    from_folder, report = ours(tmp_path)
    assert report.used.keys() | report.left.keys() == saved.keys()
    torch.save(saved, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    from_bin, _ = ours(str(tmp_path))
    for name, tensor in model.state_dict().items():
        assert torch.equal(from_folder.state_dict()[name], tensor), name
        assert torch.equal(from_bin.state_dict()[name], tensor), name


def test_pixels_are_those_of_the_preprocessor(tmp_path):
    theirs = their_model("dinov2")
    theirs.save_pretrained(tmp_path)
    assert "does not say which pixels" in ours(tmp_path)[1].notes[0]
    processor = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], "do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    model, report = ours(tmp_path)
    assert not report.notes
    still = torch.rand(2, 3, 32, 32)
    normalised = (still - torch.tensor(processor["image_mean"])[:, None, None]) / torch.tensor(processor["image_std"])[
        :, None, None
    ]
    expected = their_tokens(theirs, normalised)
    torch.testing.assert_close(tokens_of(model, still * 2 - 1), expected, rtol=1e-5, atol=1e-5)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | {"do_normalize": False}))
    model, _ = ours(tmp_path)
    torch.testing.assert_close(tokens_of(model, still * 2 - 1), their_tokens(theirs, still), rtol=1e-5, atol=1e-5)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(WeightsError, match="is no JSON"):
        ours(tmp_path)


def test_every_familys_defaults_are_transformers_own():
    """A config.json may leave out what equals transformers' defaults."""
    for kind, defaults in FAMILIES.items():
        config = transformers.AutoConfig.for_model(kind)
        config = getattr(config, "vision_config", config)
        for name, value in defaults.items():
            if name not in ("global_pool", "positions_filter") and value is not None:
                assert getattr(config, name) == value, (kind, name)


def test_the_older_names_of_a_clip_tower(tmp_path):
    """transformers 4 saves a vision tower below `vision_model.`, and a count of places."""
    theirs = their_model("clip_vision")
    theirs.save_pretrained(tmp_path)
    state = {f"vision_model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    save_file(state | {"vision_model.embeddings.position_ids": torch.arange(17)[None]}, tmp_path / "model.safetensors")
    older, report = ours(tmp_path)
    newer, _ = ours(theirs)
    assert report.left["vision_model.embeddings.position_ids"] == "a count of places, no weight"
    for name, tensor in newer.state_dict().items():
        assert torch.equal(older.state_dict()[name], tensor), name


def test_what_is_not_as_transformers_makes_it(tmp_path):
    theirs = their_model("vit")
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    state = load_file(tmp_path / "model.safetensors")

    def write(config=config, state=state):
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file(state, tmp_path / "model.safetensors")

    write(config | {"hidden_act": "relu"})
    with pytest.raises(WeightsError, match="hidden_act 'relu' is not among"):
        config_for_image(tmp_path)
    write(config | {"patch_size": "eight"})
    with pytest.raises(WeightsError, match=r"config\.json cannot be used"):
        config_for_image(tmp_path)
    write(config | {"model_type": "swin"})
    with pytest.raises(WeightsError, match="model_type 'swin'"):
        config_for_image(tmp_path)
    with pytest.raises(WeightsError, match="its model_type is swin, those of transformers read are vit, deit"):
        config_for_image(transformers.SwinModel(transformers.SwinConfig(embed_dim=8, depths=[1], num_heads=[1])))
    write(state={name: tensor for name, tensor in state.items() if "patch_embeddings" not in name})
    with pytest.raises(WeightsError, match=r"has 0 patch embeddings; it holds embeddings\.cls_token"):
        config_for_image(tmp_path)
    write(state={name: tensor for name, tensor in state.items() if "layer.0.attention.attention.key.w" not in name})
    with pytest.raises(WeightsError, match=r"lacks queries, keys or values: blocks\.0\.attn has 2 of 3"):
        config_for_image(tmp_path)
    write(config | {"image_size": 40})
    with pytest.raises(WeightsError, match="has 17 positions for 25 places and 1 extra tokens"):
        config_for_image(tmp_path)


@pytest.mark.parametrize("name", ["siglip_vision", "clip_vision", "dinov2", "vit"])
def test_pooled_features_are_transformers_own(name):
    """Attention pooling, the class token after the last norm, and where transformers has a pooler on top, before it."""
    theirs = their_model(name)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        outputs = theirs(pixel_values=pixels)
        model, _ = ours(theirs)
        pooled = model.forward_features(repeat(pixels, "b c h w -> b c t h w", t=2))
    expected = outputs.last_hidden_state[:, 0] if name == "vit" else outputs.pooler_output
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)


def test_siglip_2_cuts_its_own_patches():
    """Its patches come flat, channels last, with the shape of the image beside them."""
    sizes = {name: value for name, value in SIZES.items() if name != "image_size"}
    config = transformers.Siglip2VisionConfig(**sizes, num_patches=16)
    theirs = randomise(transformers.Siglip2VisionModel(config)).eval()
    model, report = ours(theirs)
    assert (model.config.image_size, model.config.global_pool) == ((32, 32), "attention")
    pixels = torch.randn(2, 3, 32, 32)
    patches = rearrange(pixels, "b c (h ph) (w pw) -> b (h w) (ph pw c)", ph=8, pw=8)
    with torch.no_grad():
        outputs = theirs(patches, torch.ones(2, 16, dtype=torch.long), torch.tensor([[4, 4], [4, 4]]))
        tokens = tokens_of(model, pixels)
        torch.testing.assert_close(tokens, outputs.last_hidden_state, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.encoder.pool(tokens), outputs.pooler_output, rtol=1e-5, atol=1e-5)
    assert not report.left
