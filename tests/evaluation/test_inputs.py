"""`vivit-zoo classify` without any option, beside transformers' own processors and models on the same frames."""

import json

import numpy as np
import pytest
import torch

from tests.conftest import tiny_config
from tests.footage import X264, write_video
from tests.weights import families
from tests.weights.families import make
from vivit_zoo import ViViT
from vivit_zoo.cli import main
from vivit_zoo.evaluation.classify import inputs_of
from vivit_zoo.video.clips import Views
from vivit_zoo.video.preprocess import Preprocess
from vivit_zoo.video.reader import VideoError, VideoReader
from vivit_zoo.weights.processing import Processing

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")

NUMBERS = {"image_mean": [0.4, 0.45, 0.5], "image_std": [0.2, 0.25, 0.3]}
SIZES = {"size": {"shortest_edge": 15}, "crop_size": {"height": 12, "width": 12}} | NUMBERS
PROCESSORS = {
    "videoprism": (
        "LlavaOnevisionVideoProcessor",
        {"size": {"height": 12, "width": 12}, "resample": 3, "do_normalize": False},
    ),
    "videomae": ("VideoMAEVideoProcessor", SIZES),
    "timesformer": ("TimesformerVideoProcessor", SIZES),
    "vjepa2": ("VJEPA2VideoProcessor", {"crop_size": 12} | NUMBERS),
}


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("footage") / "clip.mp4", 60, **X264["b_frames"]))


@pytest.mark.parametrize("own_format", [False, True])
@pytest.mark.parametrize("family", PROCESSORS)
def test_classify_gives_their_classes_and_probabilities(family, own_format, footage, tmp_path, capsys):
    name, options = PROCESSORS[family]
    missing = [one for one in (name, families.FAMILIES[family][1]) if not hasattr(families.transformers, one)]
    if missing:
        pytest.skip(f"this version of transformers has no {missing[0]}")
    names = {i: f"action {i}" for i in range(5)}
    theirs = make(family, id2label=names, label2id={name: i for i, name in names.items()})
    processor = getattr(families.transformers, name)(**options)
    theirs.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    ours = ViViT.from_pretrained(tmp_path)
    if own_format:
        ours.save_pretrained(tmp_path / "ours")
    capsys.readouterr()
    source = tmp_path / "ours" if own_format else tmp_path
    assert main(["classify", footage, "--checkpoint", str(source), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["classes"]

    with VideoReader(footage) as video:
        (indices,) = inputs_of(ours)[0].indices(video)
        frames = video.read(indices)
    with torch.no_grad():
        probabilities = theirs(**processor(list(frames), return_tensors="pt")).logits.flatten().softmax(0)
    order = probabilities.argsort(descending=True).tolist()
    assert [one["name"] for one in found] == [names[i] for i in order]
    np.testing.assert_allclose([one["probability"] for one in found], probabilities[order], rtol=0, atol=1e-5)


def test_classify_says_what_of_the_processor_is_not_followed(footage, tmp_path, capsys):
    families.save(make("videomae"), tmp_path, families.PROCESSOR | {"resample": 1})
    assert main(["classify", footage, "--checkpoint", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    assert "note: its processor's file says resample 1" in printed.err
    assert list(json.loads(printed.out)) == ["video", "classes"]


def test_frames_that_are_spread(footage):
    with VideoReader(footage) as video:
        assert len(video) == 60
        assert Views(clips=1, frames=16, spread=True).indices(video).tolist() == [[i * 60 // 16 for i in range(16)]]
        both = Views(clips=2, frames=4, spread=True).indices(video)
        assert both.tolist() == [[0, 15, 30, 45], [7, 22, 37, 52]]
        with pytest.raises(VideoError, match="60 frames are too few to take 61 different ones"):
            Views(clips=1, frames=61, spread=True, policy="error").indices(video)
    with pytest.raises(ValueError, match=r"fps 3.0 must be None"):
        Views(spread=True, fps=3.0)


def test_inputs_follow_the_source_and_the_options(tmp_path):
    plain = ViViT(tiny_config())
    assert inputs_of(plain) == (Views(frames=6), Preprocess((8, 12)))
    families.save(make("videomae"), tmp_path)
    model = ViViT.from_pretrained(tmp_path)
    views, preprocess = inputs_of(model)
    assert views == Views(clips=1, crops=1, frames=6, stride=4)
    assert preprocess == Preprocess((12, 12), 14, "antialiased", "bilinear")
    views, preprocess = inputs_of(model, clips=3, crops=3, stride=2, style="original", policy="wrap")
    assert views == Views(clips=3, crops=3, frames=6, stride=2, policy="wrap")
    assert preprocess == Preprocess((12, 12))


@pytest.mark.parametrize(
    ("fields", "options", "views"),
    [
        ({"stride": 3}, {}, {"clips": 4, "crops": 3, "stride": 3, "policy": "wrap"}),
        ({"fps": 2.5}, {}, {"clips": 4, "crops": 3, "fps": 2.5, "policy": "wrap"}),
        ({"fps": 2.5}, {"stride": 5, "clips": 1}, {"clips": 1, "crops": 3, "stride": 5, "policy": "wrap"}),
        ({"stride": 3}, {"crops": 1, "policy": "error"}, {"clips": 4, "crops": 1, "stride": 3, "policy": "error"}),
    ],
)
def test_inputs_follow_the_test_of_a_run(fields, options, views, tmp_path):
    model = ViViT(tiny_config())
    model.processing = Processing(short_side=10, antialias=False, views=(4, 3), policy="wrap", **fields)
    model.save_pretrained(tmp_path)
    model = ViViT.from_pretrained(tmp_path)
    assert inputs_of(model, **options) == (Views(frames=6, **views), Preprocess((8, 12), 10))
    assert inputs_of(model, style="original")[1] == Preprocess((8, 12), 10)
    assert inputs_of(model, style="transformers")[1] == Preprocess((8, 12), style="transformers")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"short_side": None, "antialias": False},
            "without antialias is bilinear and needs a short_side, got bilinear",
        ),
        ({"antialias": 2}, "processing.antialias 2 is unknown; choose from True, False"),
        ({"policy": "loop"}, "processing.policy 'loop' is unknown; choose from repeat_last, wrap, error, mask"),
        ({"views": (4, 2)}, "processing.views takes 1 or 3 crops, got 2"),
        ({"views": (0, 1)}, r"processing.views takes two numbers, clips and crops, got \(0, 1\)"),
        ({"views": 4}, "processing.views takes two numbers"),
        ({"fps": 0.0}, "processing.fps takes a positive number in place of a stride, got 0.0"),
        ({"fps": 2.0, "stride": 2}, "processing.fps takes a positive number in place of a stride, got 2.0 and the st"),
    ],
)
def test_wrong_processing(fields, message):
    with pytest.raises(ValueError, match=message):
        Processing(**({"short_side": 9} | fields))


def test_another_size_keeps_the_share_of_the_crop(tmp_path):
    families.save(make("timesformer"), tmp_path)
    model = ViViT.from_pretrained(tmp_path, image_size=24)
    assert model.processing.short_side == 28
    assert inputs_of(model)[0].spread


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter": "cubic", "style": "antialiased"}, "filter 'cubic' is unknown"),
        ({"stretch": True}, "the style 'original' has no other filter and no stretch"),
    ],
)
def test_wrong_preprocessing(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(12, **options)


def test_resizing_of_a_resized_frame_changes_nothing():
    frame = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    for options in ({}, {"filter": "bicubic", "stretch": True}):
        preprocess = Preprocess((12, 10), 15, "antialiased", **options)
        once = preprocess.resize(frame)
        np.testing.assert_array_equal(preprocess.resize(once), once)
