"""VideoPrism's video tower of the video-text models, and its original files."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.weights import families
from tests.weights.families import PROCESSOR, make, pixels, save, video
from tests.weights.test_video_families import relative
from vivit_zoo import ViViT, config_for_image, init_from_image
from vivit_zoo.weights import WeightsError
from vivit_zoo.weights.names import count_blocks

TOWER = {"intermediate_size": 96, "num_auxiliary_layers": 1, "attn_logit_softcapping": 2.0}


TEXT = {
    **{"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
    **{"vocab_size": 50, "max_position_embeddings": 8},
}


def video_and_text():
    vision = {name: value for name, value in (families.PRISM | TOWER).items() if name != "num_labels"}
    vision.pop("attn_implementation")
    config = families.transformers.VideoPrismConfig(vision_config=vision, text_config=TEXT)
    return families.randomise(families.transformers.VideoPrismClipModel(config)).eval()


@pytest.mark.parametrize("with_text", [False, True])
def test_video_tower_of_videoprism(with_text, tmp_path):
    if with_text:
        model = video_and_text()
        tower, options = model.video_model, {"tower": "video"}
    else:
        tower = model = make("videoprism", "VideoPrismVideoModel", apply_l2norm=False, **TOWER)
        options = {}
    save(model, tmp_path)
    ours = ViViT.from_pretrained(tmp_path, **options)
    clips = video(ours.config)
    with torch.no_grad():
        theirs = tower(pixels(clips)).pooler_output.flatten(1)
        mine = ours.forward_features(clips)
    if with_text:
        mine = torch.nn.functional.normalize(mine, dim=-1)
    assert relative(mine, theirs) < 2e-5
    assert "by their length" in str(ours.load_report)
    tensors = load_file(tmp_path / "model.safetensors")
    assert ours.load_report.used.keys() | ours.load_report.left.keys() == tensors.keys()
    assert any(name.startswith("text_model.") for name in ours.load_report.left) == with_text
    with pytest.raises(WeightsError, match=r"transformers has no .* attn_pool AttentionPoolConfig.*depth=1"):
        ViViT.from_pretrained(tmp_path, num_classes=3, **options).save_pretrained(tmp_path / "x", format="transformers")


def test_a_file_of_two_models_needs_the_name_of_one(tmp_path):
    save(video_and_text(), tmp_path / "both")
    save(make("videoprism"), tmp_path / "one")
    model = ViViT(config_for_image(tmp_path / "one", num_classes=3))
    for load in (ViViT.from_pretrained, config_for_image, lambda source: init_from_image(model, source)):
        with pytest.raises(WeightsError, match=r"holds a video and a text model \(videoprism\).*tower='video'"):
            load(tmp_path / "both")
    with pytest.raises(WeightsError, match="tower 'text' is unknown; choose from video"):
        ViViT.from_pretrained(tmp_path / "both", tower="text")
    ViViT.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "ours")
    np.savez(tmp_path / "flax.npz", **original_arrays(make("videoprism", "VideoPrismVisionModel"), heads=4))
    for source in (tmp_path / "one", tmp_path / "ours", tmp_path / "flax.npz"):
        with pytest.raises(WeightsError, match="holds one model, so tower='video' has no meaning"):
            ViViT.from_pretrained(source, tower="video")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tubelet_size": (2, 4, 4), "num_frames": 4}, r"tubelet_size \(2, 4, 4\)"),
        ({"attn_softcap": None}, "attn_softcap None"),
        ({"qkv_bias": False}, "qkv_bias False beside attn_pool, whose biases stay"),
    ],
)
def test_what_transformers_could_not_read_is_not_written(changes, match, tmp_path):
    save(make("videoprism"), tmp_path)
    config = ViViT.from_pretrained(tmp_path).config
    ViViT(config).save_pretrained(tmp_path / "back", format="transformers")
    with pytest.raises(WeightsError, match=f"transformers has no VideoPrism with {match}; save in our own"):
        ViViT(config.replace(**changes)).save_pretrained(tmp_path / "back", format="transformers")


def test_a_temporal_depth_that_is_left_out_is_written_as_a_number(tmp_path):
    save(make("videoprism"), tmp_path)
    ours = ViViT(ViViT.from_pretrained(tmp_path).config.replace(temporal_depth=None)).eval()
    families.randomise(ours, seed=3)
    ours.save_pretrained(tmp_path / "back", format="transformers")
    theirs = families.transformers.VideoPrismForVideoClassification.from_pretrained(
        tmp_path / "back", attn_implementation="eager"
    )
    again = ViViT.from_pretrained(tmp_path / "back")
    assert theirs.config.num_temporal_layers == again.config.temporal_depth == len(ours.encoder.temporal.blocks)
    clips = video(ours.config)
    assert relative(again(clips), ours(clips)) < 2e-6


def test_a_tower_of_other_widths_is_refused(tmp_path):
    save(make("videoprism", "VideoPrismVideoModel"), tmp_path)
    with pytest.raises(WeightsError, match="its video tower has MLPs that are not 4 times as wide"):
        ViViT.from_pretrained(tmp_path)


def original_arrays(model, heads):
    """What the original code would save: its reshapes, written for each parameter by hand."""
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    kernel = state["spatial_embeddings.patch_embeddings.projection.weight"][:, :, 0]
    arrays = {
        "params/patch_projection/linear/kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel)),
        "params/patch_projection/linear/bias": state["spatial_embeddings.patch_embeddings.projection.bias"],
    }
    for half, norm in (("spatial", "layernorm1"), ("temporal", "layernorm2")):
        arrays[f"params/{half}_pos_emb/emb_var"] = state[f"{half}_embeddings.position_embeddings"][0]
        arrays[f"params/{half}_ln/scale"] = state[f"{norm}.weight"]
        arrays[f"params/{half}_ln/bias"] = state[f"{norm}.bias"]
        count = count_blocks(state, f"{half}_layers.")

        def stack(name, half=half, count=count):
            return np.stack([state[f"{half}_layers.{i}.{name}"] for i in range(count)])

        base = f"params/{half}_encoder/transformers_stack/x_layers/"
        for theirs, ours in (("layer_norm", "layernorm_before"), ("ff_layer/layer_norm", "layernorm_after")):
            arrays[f"{base}{theirs}/scale"] = stack(f"{ours}.weight")
            arrays[f"{base}{theirs}/bias"] = stack(f"{ours}.bias")
        for i in (1, 2):
            arrays[f"{base}ff_layer/ffn_layer{i}/linear/kernel"] = stack(f"mlp.fc{i}.weight").swapaxes(1, 2)
            arrays[f"{base}ff_layer/ffn_layer{i}/linear/bias"] = stack(f"mlp.fc{i}.bias")
        for part in ("query", "key", "value"):
            weight, bias = stack(f"attention.{part[0]}_proj.weight"), stack(f"attention.{part[0]}_proj.bias")
            width = weight.shape[1] // heads
            arrays[f"{base}self_attention/{part}/w"] = weight.reshape(count, heads, width, -1).transpose(0, 3, 1, 2)
            arrays[f"{base}self_attention/{part}/b"] = bias.reshape(count, heads, width)
        post = stack("attention.o_proj.weight")
        arrays[f"{base}self_attention/post/w"] = post.reshape(*post.shape[:2], heads, -1)
        arrays[f"{base}self_attention/post/b"] = stack("attention.o_proj.bias")
    return arrays


def test_original_file_of_videoprism(tmp_path):
    model = make("videoprism", "VideoPrismVisionModel")
    save(model, tmp_path / "theirs", PROCESSOR | {"do_normalize": False})
    arrays = original_arrays(model, heads=4)
    np.savez(tmp_path / "flax.npz", **arrays)
    ours, other = ViViT.from_pretrained(tmp_path / "flax.npz"), ViViT.from_pretrained(tmp_path / "theirs")
    assert ours.config == other.config
    for name, tensor in other.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert ours.load_report.used.keys() == arrays.keys()

    model = ViViT(config_for_image(tmp_path / "flax.npz", num_classes=3))
    assert init_from_image(model, tmp_path / "flax.npz").new.keys() == {"head.weight", "head.bias"}

    np.savez(tmp_path / "more.npz", **arrays, **{"params/contrastive_vision_pooler/x": np.zeros(2)})
    with pytest.raises(WeightsError, match=r"holds more than an encoder \(params/contrastive_vision_pooler/x\)"):
        ViViT.from_pretrained(tmp_path / "more.npz")
    np.savez(tmp_path / "less.npz", **{name: x for name, x in arrays.items() if "spatial_ln" not in name})
    with pytest.raises(WeightsError, match="is no encoder of VideoPrism"):
        ViViT.from_pretrained(tmp_path / "less.npz")
