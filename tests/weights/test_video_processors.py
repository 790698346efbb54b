"""What the processor files of transformers' video models say: pixels, frames, and what cannot be followed here."""

import pytest
import torch

from tests.weights import families
from tests.weights.families import DEVIATION, MEAN, PROCESSOR, make, pixels, save, video
from tests.weights.test_video_families import relative
from vivit_zoo import ViViT
from vivit_zoo.weights import WeightsError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_mean": [0.5, 0.5]}, "2 channels|mean has 2"),
        ({"image_std": [0.0, 1.0, 1.0]}, "std takes a number for each channel"),
        ({"rescale_factor": 0}, "rescale_factor 0 is not positive"),
        ({"offset": True}, "offset"),
        ({"size": {"shortest_edge": -3}}, "short_side takes a positive whole number"),
    ],
)
def test_processors_that_make_no_sense(changes, message, tmp_path):
    save(make("videomae"), tmp_path, PROCESSOR | changes)
    with pytest.raises(WeightsError, match=message):
        ViViT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({"do_normalize": False}, [0.0] * 3, [1.0] * 3),
        ({"do_rescale": False, "image_mean": [102.0] * 3, "image_std": [51.0] * 3}, [0.4] * 3, [0.2] * 3),
        ({"rescale_factor": 2 / 255}, [0.2, 0.225, 0.25], [0.1, 0.125, 0.15]),
    ],
)
def test_pixels_follow_the_processor(changes, mean, std, tmp_path):
    model = make("videomae")
    save(model, tmp_path, PROCESSOR | changes)
    ours = ViViT.from_pretrained(tmp_path)
    clips = video(ours.config)
    with torch.no_grad():
        theirs = model(pixels(clips, mean, std)).logits
    assert relative(ours(clips), theirs) < 2e-6


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_processor_without_mean_is_not_a_missing_one(family, tmp_path):
    model = make(family)
    without = {name: value for name, value in PROCESSOR.items() if not name.startswith("image_")}
    save(model, tmp_path, without | {"do_normalize": False, "size": {"shortest_edge": 17}})
    ours = ViViT.from_pretrained(tmp_path)
    assert (ours.processing.short_side, ours.load_report.notes) == (17, [])
    clips = video(ours.config)
    assert relative(ours(clips), families.logits(model, clips, [0.0] * 3, [1.0] * 3)) < 2e-6
    save(model, tmp_path, without)
    ours = ViViT.from_pretrained(tmp_path)
    assert ours.processing.short_side == 14
    assert any("has no image_mean and image_std" in note for note in ours.load_report.notes)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"resample": 1}, "resample 1, which is not among 2 (bilinear), 3 (bicubic); frames are resized bilinear"),
        ({"do_resize": False}, "do_resize false; frames are resized"),
        ({"do_center_crop": False}, "do_center_crop false; frames are cropped"),
        ({"crop_size": {"height": 10, "width": 10}}, "crop_size 10x10; frames are cropped to the model's 12x12"),
        ({"crop_size": 10}, "crop_size 10x10; frames are cropped to the model's 12x12"),
        ({"size": {"height": 15, "width": 14}}, "size 15x14; frames are resized to the model's 12x12"),
        (
            {"size": {"shortest_edge": 15, "longest_edge": 17}},
            "longest_edge 17; frames are resized by their short side",
        ),
    ],
)
def test_what_is_not_followed_is_a_note(changes, note, tmp_path):
    save(make("timesformer"), tmp_path, PROCESSOR | changes)
    (found,) = ViViT.from_pretrained(tmp_path).load_report.notes
    assert f"its processor's file says {note}" in found


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"height": 12, "width": 12}, "do_center_crop": False},
        {"size": 14, "crop_size": 12},
        {"do_center_crop": None, "size": {"height": 12, "width": 12}},
        {"image_mean": MEAN, "image_std": DEVIATION, "resample": 3},
    ],
)
def test_what_is_followed_is_no_note(changes, tmp_path):
    save(make("timesformer"), tmp_path, PROCESSOR | changes)
    assert ViViT.from_pretrained(tmp_path).load_report.notes == []


def test_one_number_is_that_of_all_channels(tmp_path):
    save(make("videomae"), tmp_path, PROCESSOR | {"image_mean": 0.5, "image_std": 0.25})
    processing = ViViT.from_pretrained(tmp_path).processing
    assert (processing.mean, processing.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("videoprism", (None, "bicubic", None)),
        ("videomae", (12, "bilinear", 4)),
        ("timesformer", (12, "bilinear", None)),
        ("vjepa2", (14, "bilinear", None)),  # 292 of 256, for clips of 12
    ],
)
def test_without_a_file_videos_are_taken_as_the_family_does(family, expected, tmp_path):
    save(make(family), tmp_path, processor=None)
    processing = ViViT.from_pretrained(tmp_path).processing
    assert (processing.short_side, processing.filter, processing.stride) == expected
