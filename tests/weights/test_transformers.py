"""transformers' ViViT in and out, over odd configurations, all layouts of names, both file formats."""

import json
import warnings
from importlib.metadata import version

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import randomise, tiny_config, tiny_model, video_for
from vivit_zoo import ViViT
from vivit_zoo.cli import main
from vivit_zoo.evaluation.classify import class_names
from vivit_zoo.video.augment import Preprocess
from vivit_zoo.weights import WeightsError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import of somebody else's package
    from transformers import VivitConfig, VivitForVideoClassification, VivitImageProcessor, VivitModel

MODERN = int(version("transformers").partition(".")[0]) >= 5
modern = pytest.mark.skipif(not MODERN, reason="transformers 4 has neither these names nor frames that are not square")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")

ODD = {
    "plain": {},
    "quick_gelu": {"hidden_act": "quick_gelu"},
    "gelu": {"hidden_act": "gelu"},
    "gelu_new": {"hidden_act": "gelu_new"},
    "gelu_pytorch_tanh": {"hidden_act": "gelu_pytorch_tanh"},
    "eps": {"layer_norm_eps": 1e-2},
    "no_qkv_bias": {"qkv_bias": False},
    "one_channel": {"num_channels": 1},
    "long_tubelets": {"num_frames": 12, "tubelet_size": [4, 4, 2]},
    **({"not_square": {"image_size": [8, 16]}} if MODERN else {}),
    "many_labels": {"num_labels": 11},
    "odd_mlp": {"intermediate_size": 37},
    "eight_heads_one_layer": {"num_attention_heads": 8, "num_hidden_layers": 1},
}


def theirs(**changes):
    options = {
        "image_size": 8,
        "num_frames": 4,
        "tubelet_size": [2, 4, 4],
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 56,
        "num_labels": 5,
    }
    config = VivitConfig(**(options | changes))
    return randomise(VivitForVideoClassification(config)).eval()


def run_theirs(model, video):
    with torch.no_grad():
        return model(video.transpose(1, 2)).logits


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_problem_types_are_read_and_written(problem_type, tmp_path):
    theirs(problem_type=problem_type).save_pretrained(tmp_path / "theirs")
    ours = ViViT.from_pretrained(tmp_path / "theirs")
    assert ours.problem_type == problem_type
    for name in ("transformers", "vivit_zoo"):
        ours.save_pretrained(tmp_path / name, format=name)
        assert ViViT.from_pretrained(tmp_path / name).problem_type == problem_type
    assert VivitForVideoClassification.from_pretrained(tmp_path / "transformers").config.problem_type == problem_type
    for name in ("theirs", "vivit_zoo"):
        file = tmp_path / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"problem_type": "ranking"}))
        with pytest.raises(
            WeightsError, match=f"{name}: problem_type 'ranking' is unknown; it is null or one of single"
        ):
            ViViT.from_pretrained(tmp_path / name)
    ours.problem_type = "ranking"
    with pytest.raises(WeightsError, match="problem_type 'ranking' is unknown"):
        ours.save_pretrained(tmp_path / "new")


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("name", ODD)
def test_from_and_to_transformers(name, tmp_path):
    original = theirs(**ODD[name])
    original.save_pretrained(tmp_path / "theirs")
    ours = ViViT.from_pretrained(tmp_path / "theirs")
    video = video_for(ours.config, dtype=torch.float32)
    expected = run_theirs(original, video)
    assert relative(ours(video), expected) < 2e-6
    exact = run_theirs(original.double(), video.double())
    assert relative(ours.double()(video.double()), exact) < 1e-9  # gelu_fast's constant has ten digits
    ours.float()

    ours.save_pretrained(tmp_path / "back", format="transformers")
    again, info = VivitForVideoClassification.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert relative(run_theirs(again, video), expected) < 2e-6
    assert again.config.num_labels == original.config.num_labels


def test_one_label(tmp_path):
    """A single logit can lie near zero, where any rounding is relatively large: measured by the features' size."""
    original = theirs(num_labels=1)
    original.save_pretrained(tmp_path)
    ours = ViViT.from_pretrained(tmp_path)
    for seed in range(10):
        video = video_for(ours.config, seed=seed, dtype=torch.float32)
        features = ours.forward_features(video).norm(dim=1, keepdim=True)
        assert ((ours(video) - run_theirs(original, video)).abs() < 5e-7 * features).all()


@pytest.mark.parametrize("layout", ["old", pytest.param("new", marks=modern)])
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_all_layouts_of_names(layout, prefix, head, file, tmp_path):
    model = theirs()
    if layout == "old":
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        assert "vivit.encoder.layer.0.attention.attention.query.weight" in tensors
    else:
        model.config.save_pretrained(tmp_path)
        tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        assert "vivit.layers.0.attention.q_proj.weight" in tensors
    if not head:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
        pooler = VivitModel(model.config).pooler
        tensors |= {f"vivit.pooler.dense.{name}": tensor for name, tensor in pooler.dense.state_dict().items()}
    if not prefix:
        tensors = {name.removeprefix("vivit."): tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / file) if file.endswith("tensors") else torch.save(tensors, tmp_path / file)

    ours = ViViT.from_pretrained(tmp_path)
    video = video_for(ours.config, dtype=torch.float32)
    if head:
        assert relative(ours(video), run_theirs(model, video)) < 2e-6
    else:
        with torch.no_grad():
            expected = model.vivit(video.transpose(1, 2)).last_hidden_state[:, 0]
        assert relative(ours(video), expected) < 2e-6
        assert ours.num_classes == 0
        assert all("pooler" in name for name in ours.load_report.left)
    assert ours.load_report.used.keys() | ours.load_report.left.keys() == tensors.keys()


@pytest.mark.parametrize("twin", ["layernorm.bias", "vivit.layers.0.attention.q_proj.weight"])
def test_a_tensor_under_two_names_is_refused(twin, tmp_path):
    tiny_model().float().save_pretrained(tmp_path, format="transformers")
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {twin: torch.zeros(24)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"has one tensor twice, as .* and as .*; delete one"):
        ViViT.from_pretrained(tmp_path)


def test_sharded_files_and_unknown_keys(tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"video_size": [32, 224, 224], "of_somebody": None}))
    ours = ViViT.from_pretrained(tmp_path)
    video = video_for(ours.config, dtype=torch.float32)
    assert relative(ours(video), run_theirs(model, video)) < 2e-6
    next(tmp_path.glob("model-*2-of-*")).unlink()
    with pytest.raises(WeightsError, match="which is not in its folder"):
        ViViT.from_pretrained(tmp_path)


def test_what_fills_no_tubelet_is_dropped_as_there(tmp_path):
    model = theirs(image_size=10, num_frames=5)
    model.save_pretrained(tmp_path)
    ours = ViViT.from_pretrained(tmp_path)
    assert ours.config.input_shape == (3, 4, 8, 8)
    assert "as transformers drops the rest" in str(ours.load_report)
    video = torch.randn(2, 3, 5, 10, 10)
    assert relative(ours(video[:, :, :4, :8, :8]), run_theirs(model, video)) < 2e-6


def test_saved_preprocessing_gives_the_faithful_range(tmp_path):
    model = ViViT(tiny_config(image_size=28, tubelet_size=(2, 14, 14)))
    model.save_pretrained(tmp_path, format="transformers")
    processor = VivitImageProcessor.from_pretrained(tmp_path)
    assert processor.size["shortest_edge"] == 32
    black_and_white = [np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8)]
    pixels = processor(black_and_white, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 2, 3, 28, 28)
    torch.testing.assert_close(pixels.amin((0, 2, 3, 4)), torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(pixels.amax((0, 2, 3, 4)), torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"variant": "factorised_encoder"}, "variant 'factorised_encoder'"),
        ({"global_pool": "avg"}, "global_pool 'avg'"),
        ({"pos_embed": "none"}, "pos_embed 'none'"),
        ({"num_classes": {"noun": 2}}, "num_classes {'noun': 2}"),
        ({"reg_tokens": 1, "pre_norm": True}, "reg_tokens 1, pre_norm True"),
    ],
)
def test_what_transformers_does_not_have_is_refused(changes, named, tmp_path):
    with pytest.raises(WeightsError, match=f"transformers has no ViViT with .*{named}"):
        ViViT(tiny_config(**changes)).save_pretrained(tmp_path, format="transformers")


def test_convert_from_the_command_line(parity, tmp_path, capsys):
    source = parity / "forward" / "joint_token" / "checkpoint"
    arguments = [
        "convert",
        str(source),
        str(tmp_path),
        "--format",
        "transformers",
        "--frames",
        "6",
        "--image-size",
        "16",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "encoder.blocks.{0-1}.attn.qkv.weight" in out
    io = np.load(source.with_name("io.npz"))
    model = VivitForVideoClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = model(torch.from_numpy(io["video"]).movedim(-1, 2)).logits
    np.testing.assert_allclose(logits, io["logits"], rtol=0, atol=3e-6)
    assert main(["convert", str(tmp_path / "nothing"), str(tmp_path / "other")]) == 2
    assert "neither a file nor a folder" in capsys.readouterr().err


@pytest.mark.hub
def test_official_checkpoint_gives_the_published_values():
    """Slices published in transformers' tests: after and before its images were normalised twice."""
    from huggingface_hub import hf_hub_download

    try:
        model = ViViT.from_pretrained("google/vivit-b-16x2-kinetics400")
    except WeightsError as error:
        if "cannot be reached" in str(error):
            pytest.skip(str(error))
        raise
    file = hf_hub_download("hf-internal-testing/spaghetti-video", "eating_spaghetti_32_frames.npy", repo_type="dataset")
    frames = list(np.load(file))
    twice = VivitImageProcessor()
    once = VivitImageProcessor(do_normalize=False)
    for processor, expected, tolerance in [
        (once, [-1.0543, 2.0764, -0.2104, 0.4439, -0.9658], 1e-4),
        (twice, [-0.9498, 2.7971, -1.4049, 0.1024, -1.8353], 2e-4),
    ]:
        pixels = processor(frames, return_tensors="pt")["pixel_values"].transpose(1, 2)
        with torch.no_grad():
            logits = model(pixels)
        np.testing.assert_allclose(logits[0, :5], expected, rtol=0, atol=tolerance)
        assert class_names(model)[logits.argmax()] == "eating spaghetti"
    torch.testing.assert_close(Preprocess(style="transformers")(frames)[None], pixels, rtol=0, atol=0)


def test_dropout_travels_both_ways(tmp_path):
    theirs(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2).save_pretrained(tmp_path / "theirs")
    ours = ViViT.from_pretrained(tmp_path / "theirs")
    assert (ours.config.drop, ours.config.attn_drop) == (0.1, 0.2)
    ours.save_pretrained(tmp_path / "back", format="transformers")
    back = VivitConfig.from_pretrained(tmp_path / "back")
    assert (back.hidden_dropout_prob, back.attention_probs_dropout_prob) == (0.1, 0.2)


def test_double_round_trip_is_exact(tmp_path):
    model = tiny_model().float()
    model.save_pretrained(tmp_path, format="transformers")
    again = ViViT.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
