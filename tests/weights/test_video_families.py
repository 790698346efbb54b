"""transformers' video models in our blocks: the same numbers, every tensor accounted for, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.weights import families
from tests.weights.families import FAMILIES, JEPA, PROCESSOR, logits, make, pixels, save, video
from vivit_zoo import ViViT, config_for_image, init_from_image
from vivit_zoo.interpret.attention_rollout import rollout
from vivit_zoo.weights import WeightsError
from vivit_zoo.weights.load import adapt, read_config
from vivit_zoo.weights.names import count_blocks
from vivit_zoo.weights.report import fill
from vivit_zoo.weights.transformers import transformers_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")

ODD = {
    "videoprism": {
        "plain": {},
        "not_square": {"image_size": [8, 16], "tubelet_size": [1, 4, 2]},
        "no_qkv_bias": {"qkv_bias": False},
        "cap": {"attn_logit_softcapping": 2.0},
        "eps_and_heads": {"layer_norm_eps": 1e-2, "num_attention_heads": 8, "num_spatial_layers": 1},
        "one_channel": {"num_channels": 1},
        "erf_gelu": {"hidden_act": "gelu"},
    },
    "videomae": {
        "plain": {},
        "not_square": {"image_size": [8, 16], "patch_size": [4, 2]},
        "no_qkv_bias": {"qv_bias": False},
        "eps": {"layer_norm_eps": 1e-2},
        "long_tubelets": {"num_frames": 9, "tubelet_size": 3},
        "one_channel": {"num_channels": 1},
        "tanh_gelu": {"hidden_act": "gelu_pytorch_tanh", "intermediate_size": 37},
    },
    "timesformer": {
        "plain": {},
        "joint": {"attention_type": "joint_space_time"},
        "no_qkv_bias": {"qkv_bias": False},
        "eps": {"layer_norm_eps": 1e-2, "num_attention_heads": 8},
        "one_frame": {"num_frames": 1},
        "one_channel": {"num_channels": 1},
    },
    "vjepa2": {
        "plain": {},
        "head_of_20": {"hidden_size": 80},
        "head_of_24": {"hidden_size": 96, "num_pooler_layers": 1},
        "no_qkv_bias": {"qkv_bias": False},
        "odd_mlp": {"mlp_ratio": 48 / 11, "layer_norm_eps": 1e-2},
        "long_tubelets": {"frames_per_clip": 9, "tubelet_size": 3},
        "one_channel": {"in_chans": 1},
    },
}
CASES = [(family, name) for family, cases in ODD.items() for name in cases]


@pytest.fixture
def softmax_in_own_dtype(monkeypatch):
    """transformers' unfused attention casts the scores to float32 for the softmax; here it keeps their dtype."""
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim=None, dtype=None: softmax(x, dim=dim))


def statistics(channels):
    return {"image_mean": [0.4, 0.45, 0.5][:channels], "image_std": [0.2, 0.25, 0.3][:channels]}


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def in_float64(folder, processor):
    """The model in float64, with the folds in float64, too."""
    state = {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text())
    checkpoint = transformers_checkpoint(config, state, "memory", processor)
    model = ViViT(checkpoint.config).double().eval()
    fill(model, checkpoint, *adapt(checkpoint, checkpoint.config, list(model.state_dict())))
    return model


@pytest.mark.parametrize(("family", "name"), CASES)
@pytest.mark.usefixtures("softmax_in_own_dtype")
def test_logits_equal_theirs(family, name, tmp_path):
    changes = ODD[family][name]
    model = make(family, **changes)
    channels = changes.get("num_channels", changes.get("in_chans", 3))
    numbers = statistics(channels)
    save(model, tmp_path, PROCESSOR | numbers)
    ours = ViViT.from_pretrained(tmp_path)
    clips = video(ours.config)
    with torch.no_grad():
        theirs = model(pixels(clips, *numbers.values())).logits.reshape(2, -1)
        assert relative(ours(clips), theirs) < 2e-6
        exact, clips = in_float64(tmp_path, PROCESSOR | numbers), clips.double()
        theirs = model.double()(pixels(clips, *numbers.values())).logits.reshape(2, -1)
        assert relative(exact(clips), theirs) < 1e-10
    tensors = load_file(tmp_path / "model.safetensors")
    assert ours.load_report.used.keys() | ours.load_report.left.keys() == tensors.keys()
    assert not ours.load_report.used.keys() & ours.load_report.left.keys()


def test_videoprism_in_float64_differs_only_by_theirs_softmax_in_float32(tmp_path, request):
    model = make("videoprism")
    save(model, tmp_path)
    exact, model = in_float64(tmp_path, PROCESSOR), model.double()
    clips = video(exact.config, dtype=torch.float64)
    with torch.no_grad():
        assert 1e-10 < relative(exact(clips), logits(model, clips)) < 2e-6
        request.getfixturevalue("softmax_in_own_dtype")
        assert relative(exact(clips), logits(model, clips)) < 1e-14


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        ("videoprism", "VideoPrismVisionModel"),
        ("videomae", "VideoMAEModel"),
        ("timesformer", "TimesformerModel"),
        ("vjepa2", "VJEPA2Model"),
    ],
)
def test_hidden_states_of_bare_encoders(family, architecture, tmp_path):
    model = make(family, architecture)
    save(model, tmp_path)
    ours = ViViT.from_pretrained(tmp_path)
    assert ours.num_classes == 0
    clips = video(ours.config)
    x = ours.tubelet_embed(clips)
    with torch.no_grad():
        if family == "videoprism":
            encoder = ours.encoder
            x = encoder.spatial.forward_features(x).transpose(1, 2)
            mine = encoder.temporal.forward_features(x).transpose(1, 2).flatten(1, 2)
        else:
            mine = ours.encoder.forward_features(x)
        theirs = model(pixels(clips)).last_hidden_state
    if family == "timesformer":  # the class token, then place by place over the frames
        mine = torch.cat([mine[:, 0, :1], mine[:, :, 1:].transpose(1, 2).flatten(1, 2)], dim=1)
    assert relative(mine, theirs) < 2e-6
    tensors = load_file(tmp_path / "model.safetensors")
    assert ours.load_report.used.keys() | ours.load_report.left.keys() == tensors.keys()
    classifier = ViViT.from_pretrained(tmp_path, num_classes=3)
    assert (classifier.head.weight == 0).all()
    assert classifier.load_report.new.keys() == {"head.weight", "head.bias"}


def test_a_pretraining_file_of_videomae_gives_its_encoder(tmp_path):
    model = make("videomae", "VideoMAEForPreTraining", use_mean_pooling=False)
    save(model, tmp_path)
    ours = ViViT.from_pretrained(tmp_path, num_classes=4)
    assert (ours.config.last_norm, ours.config.last_norm_eps) == ("before_pool", None)
    clips = video(ours.config)
    with torch.no_grad():
        theirs = model.videomae(pixels(clips)).last_hidden_state
        assert relative(ours.encoder.forward_features(ours.tubelet_embed(clips)), theirs) < 2e-6
    assert set(ours.load_report.left.values()) == {"the decoder of the pretraining"}


@pytest.mark.parametrize("layout", ["file", "memory"])
@pytest.mark.parametrize("family", FAMILIES)
def test_names_of_files_and_of_memory(family, layout, tmp_path):
    model = make(family)
    save(model, tmp_path)
    if layout == "memory":
        tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        save_file(tensors, tmp_path / "model.safetensors")
    ours = ViViT.from_pretrained(tmp_path)
    clips = video(ours.config)
    assert relative(ours(clips), logits(model, clips)) < 2e-6


@pytest.mark.parametrize("processor", [PROCESSOR, None])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_configuration_needs_no_weights(family, processor, tmp_path, monkeypatch):
    save(make(family), tmp_path, processor)
    expected = ViViT.from_pretrained(tmp_path).config
    monkeypatch.setattr("vivit_zoo.weights.load.read_tensors", lambda *_: pytest.fail("the weights were read"))
    assert read_config(tmp_path) == read_config(tmp_path / "model.safetensors") == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_class_names_and_files_without_a_processor(family, tmp_path):
    names = {i: f"action {i}" for i in range(5)}
    model = make(family, id2label=names, label2id={name: i for i, name in names.items()})
    save(model, tmp_path, processor=None)
    ours = ViViT.from_pretrained(tmp_path)
    assert ours.class_names == [f"action {i}" for i in range(5)]
    mean, std = {
        "videoprism": ([0.0] * 3, [1.0] * 3),
        "timesformer": ([0.45] * 3, [0.225] * 3),
    }.get(family, ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    clips = video(ours.config)
    with torch.no_grad():
        theirs = model(pixels(clips, mean, std)).logits.reshape(2, -1)
    assert relative(ours(clips), theirs) < 2e-6
    assert any("no processor's file" in note for note in ours.load_report.notes)


@pytest.mark.parametrize("family", ["videoprism", "videomae"])
@pytest.mark.parametrize("processor", [PROCESSOR, None])
def test_written_back_and_read_by_transformers(family, processor, tmp_path):
    model = make(family)
    save(model, tmp_path / "theirs", processor)
    ours = ViViT.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "back", format="transformers")
    cls = getattr(families.transformers, FAMILIES[family][1])
    again, info = cls.from_pretrained(tmp_path / "back", output_loading_info=True, attn_implementation="eager")
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    written = next((tmp_path / "back").glob("*preprocessor_config.json"))
    numbers = json.loads(written.read_text())
    clips = video(ours.config)
    with torch.no_grad():
        theirs = again(pixels(clips, numbers["image_mean"], numbers["image_std"])).logits.reshape(2, -1)
    assert relative(theirs, ours(clips)) < 5e-6
    assert again.config.num_labels == 5
    assert ViViT.from_pretrained(tmp_path / "back").processing == ours.processing


def test_our_own_models_of_these_shapes_are_written(tmp_path):
    """A model that was trained here: key biases are any numbers then, and have no effect."""
    model = make("videomae")
    save(model, tmp_path / "theirs")
    ours = ViViT.from_pretrained(tmp_path / "theirs", num_classes=3)
    families.randomise(ours, seed=5)
    ours.save_pretrained(tmp_path / "ours")
    again = ViViT.from_pretrained(tmp_path / "ours")
    assert again.processing == ours.processing
    again.save_pretrained(tmp_path / "back", format="transformers")
    theirs = families.transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "back")
    clips = video(ours.config)
    assert relative(logits(theirs, clips), ours(clips)) < 5e-6


def test_timesformer_is_written_as_a_vivit_or_not_at_all(tmp_path):
    save(make("timesformer"), tmp_path / "divided")
    with pytest.raises(WeightsError, match=r"transformers has no .* with .*; save in our own format"):
        ViViT.from_pretrained(tmp_path / "divided").save_pretrained(tmp_path / "back", format="transformers")
    save(make("timesformer", attention_type="joint_space_time"), tmp_path / "joint")
    ours = ViViT.from_pretrained(tmp_path / "joint")
    ours.save_pretrained(tmp_path / "back", format="transformers")
    theirs = families.transformers.VivitForVideoClassification.from_pretrained(tmp_path / "back")
    clips = video(ours.config)
    with torch.no_grad():
        assert relative(theirs(clips.transpose(1, 2)).logits, ours(clips)) < 5e-6


@pytest.mark.parametrize("size", [(12, 12), (20, 8), (8, 16)])
@pytest.mark.parametrize("frames", [3, 2, 5])
def test_videoprism_of_another_grid_is_resized_by_its_own_rule(size, frames, tmp_path):
    model = make("videoprism")
    save(model, tmp_path)
    ours = ViViT.from_pretrained(tmp_path, image_size=size, num_frames=frames)
    clips = video(ours.config)
    with torch.no_grad():
        theirs = model(pixels(clips), interpolate_pos_encoding=True).logits.reshape(2, -1)
    assert relative(ours(clips), theirs) < 5e-6


@pytest.mark.parametrize("size", [(12, 20), (16, 12), (24, 24)])
def test_timesformer_of_another_size_is_resized_by_its_own_rule(size, tmp_path):
    model = make("timesformer")
    save(model, tmp_path)
    ours = ViViT.from_pretrained(tmp_path, image_size=size)
    clips = video(ours.config)
    assert relative(ours(clips), logits(model, clips)) < 2e-6


@pytest.mark.parametrize("frames", [2, 6, 8])
def test_timesformer_of_another_length_is_that_of_a_configuration_of_that_length(frames, tmp_path):
    """Theirs regroups tokens by the configured length, so the comparison is with a model that has the other length."""
    model = make("timesformer")
    save(model, tmp_path)
    longer = make("timesformer", num_frames=frames)
    state = model.state_dict()
    name = "timesformer.embeddings.time_embeddings"
    state[name] = torch.nn.functional.interpolate(state[name].mT, size=frames, mode="nearest").mT
    longer.load_state_dict(state)
    ours = ViViT.from_pretrained(tmp_path, num_frames=frames)
    clips = video(ours.config)
    assert relative(ours(clips), logits(longer, clips)) < 2e-6
    assert "nearest from 4x3x3 places" in str(ours.load_report)


def test_vjepa2_takes_any_length_and_size(tmp_path):
    model = make("vjepa2")
    save(model, tmp_path)
    longer = make("vjepa2", crop_size=20, frames_per_clip=10)
    longer.load_state_dict(model.state_dict())
    ours = ViViT.from_pretrained(tmp_path, image_size=20, num_frames=10)
    clips = video(ours.config)
    assert relative(ours(clips), logits(longer, clips)) < 2e-6


@pytest.mark.parametrize("saved_here", [False, True])
@pytest.mark.parametrize("changes", [{"num_frames": 8}, {"image_size": 16}])
def test_videomae_refuses_another_grid(changes, saved_here, tmp_path):
    save(make("videomae"), tmp_path)
    if saved_here:
        ViViT.from_pretrained(tmp_path).save_pretrained(tmp_path)
    with pytest.raises(
        WeightsError, match=r"is for 6 frames of 12x12, not .*count along the sequence.*init_from_image"
    ):
        ViViT.from_pretrained(tmp_path, **changes)


@pytest.mark.parametrize("family", ["timesformer", "videoprism", "vjepa2"])
def test_our_own_format_keeps_the_rule_for_another_grid(family, tmp_path):
    save(make(family), tmp_path / "theirs")
    changes = {"image_size": (20, 8), "num_frames": 2}
    ViViT.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    direct = ViViT.from_pretrained(tmp_path / "theirs", **changes)
    again = ViViT.from_pretrained(tmp_path / "ours", **changes)
    assert again.positions_filter == direct.positions_filter
    assert again.processing == direct.processing
    for name, tensor in direct.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    edit(tmp_path / "ours", positions_filter="cubic")
    with pytest.raises(WeightsError, match=r"positions_filter 'cubic' in config.json is unknown; known are bicubic,"):
        ViViT.from_pretrained(tmp_path / "ours")


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_what_is_refused(tmp_path):
    def refused(name, match, model, **config):
        save(model, tmp_path / name)
        edit(tmp_path / name, **config)
        with pytest.raises(WeightsError, match=match):
            ViViT.from_pretrained(tmp_path / name)

    refused("frames", "attention_type 'space_only'", make("timesformer", attention_type="space_only"))
    refused("first", "reads the first patch", make("videomae", use_mean_pooling=False))
    refused(
        "other",
        "layers, the weights have 0|lacks",
        make("videomae"),
        model_type="timesformer",
    )
    refused("deeper", "config.json says 3 layers, the weights have 2", make("videomae"), num_hidden_layers=3)
    refused("pooler", "config.json says 3 layers, the weights have 2", make("vjepa2"), num_pooler_layers=3)
    refused("act", "hidden_act 'relu' is not among", make("vjepa2"), hidden_act="relu")
    refused("patch", "which is 294 numbers; the weights have 96", make("videomae", image_size=14), patch_size=7)
    refused("huge", "it makes 187500000000 tokens", make("videomae"), image_size=10**6)
    refused("time", "12 layers, the weights have 0", make("videoprism"), model_type="vivit")


def test_the_report_says_what_was_folded(tmp_path):
    save(make("timesformer"), tmp_path)
    derived = ViViT.from_pretrained(tmp_path).load_report.derived
    assert "mean (0.4, 0.45, 0.5)" in derived["tubelet_embed.proj.bias"]
    assert "class token + its position" in derived["encoder.cls_token.token"]
    assert "times temporal_dense" in derived["encoder.blocks.1.attn_time.proj.weight"]
    assert count_blocks(derived, "encoder.blocks.") == 2
    assert JEPA["num_pooler_layers"] == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_from_each_family_has_its_features_and_a_rollout(family, tmp_path):
    save(make(family), tmp_path)
    source = ViViT.from_pretrained(tmp_path)
    model = ViViT(config_for_image(tmp_path, num_classes=3)).eval()
    report = init_from_image(model, tmp_path)
    assert report.new.keys() == {"head.weight", "head.bias"}
    clips = video(source.config)
    with torch.no_grad():
        assert torch.equal(model.forward_features(clips), source.forward_features(clips))
    relevance = rollout(source, clips)
    assert relevance.shape == (2, source.config.grid[0], 9)
    torch.testing.assert_close(relevance.sum((1, 2)), torch.ones(2))
