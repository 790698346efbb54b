"""Preprocessing against transformers' own processor, against formulas written another way, and on wrong inputs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vivit_zoo.video.preprocess import Preprocess, normalise

RNG = np.random.default_rng(0)


def random_clip(height, width, frames=2, channels=3):
    return RNG.integers(0, 256, (frames, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_transformers_style_equals_vivit_image_processor(seed):
    from transformers import VivitImageProcessor

    processor = VivitImageProcessor()
    rng = np.random.default_rng(seed)
    for _ in range(10):  # 50 sizes in all; some smaller than the crop on a side, some upside down in shape
        height, width = (int(side) for side in rng.integers(20, 500, 2))
        clip = random_clip(height, width)
        expected = processor(list(clip), return_tensors="pt")["pixel_values"]
        ours = Preprocess(style="transformers")(clip)
        assert torch.equal(ours, rearrange(expected, "1 t c h w -> c t h w")), (height, width)


@pytest.mark.parametrize(("short_side", "crop"), [(224, 224), (18, 18), (20, (30, 12)), (40, (30, 57))])
def test_transformers_style_with_other_sizes(short_side, crop):
    from transformers import VivitImageProcessor

    height, width = (crop, crop) if isinstance(crop, int) else crop
    processor = VivitImageProcessor(size={"shortest_edge": short_side}, crop_size={"height": height, "width": width})
    for shape in [(37, 64), (81, 43), (50, 50)]:
        clip = random_clip(*shape)
        expected = processor(list(clip), return_tensors="pt")["pixel_values"]
        ours = Preprocess(crop, short_side, "transformers")(clip)
        assert torch.equal(ours, rearrange(expected, "1 t c h w -> c t h w"))


@pytest.mark.parametrize(
    "shape", [(240, 320), (320, 240), (256, 341), (100, 400), (512, 512), (224, 224), (500, 300), (300, 500)]
)
def test_original_style_is_bilinear_crop_and_one_scaling(shape):
    clip = random_clip(*shape)
    height, width = shape
    size = (256, width * 256 // height) if height <= width else (height * 256 // width, 256)
    video = rearrange(torch.from_numpy(clip), "t h w c -> t c h w")
    resized = F.interpolate(video.double(), size, mode="bilinear", align_corners=False, antialias=False)
    top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
    exact = rearrange(resized[..., top : top + 224, left : left + 224], "t c h w -> c t h w")
    ours = Preprocess()(clip)
    assert ours.shape == (3, 2, 224, 224)
    assert ours.dtype == torch.float32
    pixels = (ours + 1) * 127.5
    torch.testing.assert_close(pixels, pixels.round(), atol=1e-4, rtol=0)  # whole steps, as bytes are
    lost = exact - pixels.double()
    assert lost.min() > -1e-2  # fractions are cut off; places between pixels are float32, as in the original
    assert lost.max() < 1 + 1e-2
    assert (lost.mean() > 0.3) == (size != shape)


def test_original_style_by_hand():
    # One row of 0, 100, 200, 50 doubled: places -0.25, 0.25, 0.75, ... between the old ones.
    row = np.array([0, 100, 200, 50], np.uint8)
    clip = np.broadcast_to(row[None, None, :, None], (1, 4, 4, 1))
    pixels = (Preprocess(8, 8)(clip)[0, 0] + 1) * 127.5
    expected = torch.tensor([0, 25, 75, 125, 175, 162, 87, 50.0])
    torch.testing.assert_close(pixels, expected.expand(8, 8), atol=1e-4, rtol=0)


def test_black_and_white_of_both_styles():
    clip = np.zeros((1, 30, 40, 3), np.uint8)
    for style, black in {"original": -1.0, "transformers": -3.0}.items():
        assert Preprocess(style=style)(clip).unique().tolist() == [black]
        assert Preprocess(style=style)(clip + 255).unique().tolist() == [1.0]


@given(st.integers(1, 255), st.integers(5, 90), st.integers(5, 90))
def test_a_plain_colour_stays_what_it_is(value, height, width):
    clip = np.full((1, height, width, 3), value, np.uint8)
    result = Preprocess(16)(clip)
    assert (result == torch.tensor(value, dtype=torch.float32) / 127.5 - 1).all()


@pytest.mark.parametrize("style", ["original", "transformers"])
@pytest.mark.parametrize("size", [224, 30, (30, 52), (48, 20)])
def test_resizing_twice_is_resizing_once(style, size):
    preprocess = Preprocess(size, style=style)
    for shape in [(37, 64), (81, 43), (50, 50), (360, 640)]:
        clip = random_clip(*shape)
        small = np.stack([preprocess.resize(frame) for frame in clip])
        assert small.dtype == np.uint8
        assert torch.equal(preprocess(small), preprocess(clip))


@pytest.mark.parametrize(("shape", "size"), [((48, 85), 42), ((85, 48), 42), ((48, 48), 42), ((48, 49), 42)])
def test_three_crops_as_the_original_takes_them(shape, size):
    clip = random_clip(*shape, frames=1)
    left, middle, right = Preprocess(size, 48).views(clip)[:, :, 0]
    (height, width), across = shape, shape[0] <= shape[1]
    centre_y, centre_x = int(np.ceil((height - size) / 2)), int(np.ceil((width - size) / 2))
    corners = {
        "first": (centre_y, 0) if across else (0, centre_x),
        "middle": (centre_y, centre_x),
        "last": (centre_y, width - size) if across else (height - size, centre_x),
    }
    for result, (y, x) in zip((left, middle, right), corners.values(), strict=True):
        expected = torch.from_numpy(clip[0, y : y + size, x : x + size]).movedim(-1, 0) / 127.5 - 1
        assert torch.equal(result, expected)
    y, x = (height - size) // 2, (width - size) // 2
    centre = torch.from_numpy(clip[0, y : y + size, x : x + size]).movedim(-1, 0) / 127.5 - 1
    assert torch.equal(Preprocess(size, 48)(clip)[:, 0], centre)
    assert torch.equal(Preprocess(size, 48).views(clip, crops=1)[0, :, 0], centre)


def test_views_of_a_batch():
    batch = np.stack([random_clip(40, 60), random_clip(40, 60)])
    views = Preprocess(28).views(batch)
    assert views.shape == (2, 3, 3, 2, 28, 28)
    assert torch.equal(views[1], Preprocess(28).views(batch[1]))


@given(st.integers(8, 80), st.integers(8, 80), st.sampled_from([None, 0, 1, 2]))
def test_resize_crop_and_normalise_are_the_whole(height, width, crop):
    preprocess, clip = Preprocess((20, 28)), random_clip(height, width)
    cropped = preprocess.crop(np.stack([preprocess.resize(frame) for frame in clip]), crop)
    assert cropped.dtype == torch.uint8
    assert torch.equal(normalise(rearrange(cropped, "t h w c -> c t h w")), preprocess(clip, crop=crop))


def test_normalise_leaves_floating_point_videos_alone():
    video = torch.rand(2, 3)
    assert normalise(video) is video
    assert normalise(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
    with pytest.raises(TypeError, match=r"dtype torch\.int64; it is uint8"):
        normalise(torch.tensor([0]))


CLIP = random_clip(40, 60, frames=4)
SAME = {
    "numpy": lambda: (CLIP, {}),
    "torch": lambda: (torch.from_numpy(CLIP), {}),
    "read_only": lambda: (np.broadcast_to(CLIP, CLIP.shape), {}),
    "negative_strides": lambda: (CLIP[:, ::-1].copy()[:, ::-1], {}),
    "t c h w": lambda: (CLIP.transpose(0, 3, 1, 2), {"layout": "t c h w"}),
    "c t h w": lambda: (torch.from_numpy(CLIP.transpose(3, 0, 1, 2)), {"layout": "c t h w"}),
    "list_numpy": lambda: (list(CLIP), {}),
    "list_torch": lambda: ([torch.from_numpy(frame) for frame in CLIP], {}),
    "list_channels_first": lambda: (list(CLIP.transpose(0, 3, 1, 2)), {"layout": "c t h w"}),
    "tuple_mixed": lambda: ((CLIP[0], torch.from_numpy(CLIP[1]), Image.fromarray(CLIP[2]), CLIP[3]), {}),
    "pil": lambda: ([Image.fromarray(frame) for frame in CLIP], {}),
    "pil_beside_channels_first": lambda: ([Image.fromarray(frame) for frame in CLIP], {"layout": "t c h w"}),
    "float_255": lambda: (CLIP.astype(np.float64), {"value_range": (0, 255)}),
    "float_1": lambda: (CLIP.astype(np.float32) / 255, {"value_range": (0, 1)}),
    "float_centred": lambda: (torch.from_numpy(CLIP) / 127.5 - 1, {"value_range": (-1, 1)}),
    "needs_grad": lambda: ((torch.from_numpy(CLIP) / 255).requires_grad_(), {"value_range": (0, 1)}),
    "stated_bytes": lambda: (CLIP, {"value_range": (0, 255)}),
}


@pytest.mark.parametrize("form", SAME)
@pytest.mark.parametrize("style", ["original", "transformers"])
def test_every_form_of_a_clip_gives_the_same(form, style):
    video, options = SAME[form]()
    preprocess = Preprocess(28, 40, style)  # no resizing: there floating-point frames keep fractions that bytes lose
    torch.testing.assert_close(preprocess(video, **options), preprocess(CLIP), atol=1e-6, rtol=0)
    if form != "tuple_mixed":
        other = video.copy() if isinstance(video, list) else video
        torch.testing.assert_close(
            preprocess([video, other], **options), preprocess(CLIP).expand(2, -1, -1, -1, -1), atol=1e-6, rtol=0
        )


def test_floating_point_frames_keep_their_fractions():
    clip = RNG.random((1, 30, 50, 3), np.float32)
    result = Preprocess(32)(clip, value_range=(0, 1))
    video = rearrange(torch.from_numpy(clip), "t h w c -> t c h w")
    exact = F.interpolate(video, (36, 60), mode="bilinear", align_corners=False)[..., 2:34, 14:46] * 2 - 1
    torch.testing.assert_close(result, rearrange(exact, "t c h w -> c t h w"), atol=1e-5, rtol=0)


def test_batches_of_different_sizes_and_one_channel():
    clips = [random_clip(40, 60, channels=1), random_clip(90, 50, channels=1)]
    batch = Preprocess(28)(clips)
    assert batch.shape == (2, 1, 2, 28, 28)
    assert torch.equal(batch[1], Preprocess(28)(clips[1]))
    assert Preprocess(28, style="transformers")(clips).shape == (2, 1, 2, 28, 28)
    assert torch.equal(Preprocess(28)(np.stack([clips[0]])), batch[:1])


FLOATS = CLIP.astype(np.float32)
WRONG = {
    "float": (
        FLOATS,
        {},
        ValueError,
        r"frame 0 is torch\.float32 with values from 0 to 255, .* pass value_range=\(0, 1\)",
    ),
    "range": (FLOATS, {"value_range": (0, 1)}, ValueError, r"values from 0 to 255, outside value_range \(0, 1\)"),
    "nan": (FLOATS * np.nan, {"value_range": (0, 1)}, ValueError, "from nan to nan, outside value_range"),
    "bytes": (CLIP, {"value_range": (0, 1)}, ValueError, r"frame 0 is uint8, so its range is \(0, 255\), not \(0, 1\)"),
    "falling": (FLOATS, {"value_range": (1, 0)}, ValueError, "must rise from black to white"),
    "int64": (CLIP.astype(np.int64), {}, TypeError, r"frame 0 has dtype int64; pixels are uint8 in \[0, 255\], or"),
    "uint16": (CLIP.astype(np.uint16), {}, TypeError, "frame 0 has dtype uint16; pixels are uint8"),
    "torch_int": (torch.from_numpy(CLIP).int(), {}, TypeError, r"frame 0 has dtype torch\.int32"),
    "layout": (
        CLIP.transpose(0, 3, 1, 2),
        {},
        ValueError,
        "frame 0 has 60 channels, 40 columns and 3 rows in the layout 't h w c'; .* layout='t h w c' or 't c h w'",
    ),
    "alpha": (
        CLIP[..., [0, 1, 2, 0]],
        {},
        ValueError,
        r"frame 0 has 4 channels, .* drop what is no colour: frames\[\.\.\., :3\]",
    ),
    "pil_alpha": ([Image.new("RGBA", (9, 9))], {}, ValueError, r"PIL mode RGBA, with transparency; use image\.convert"),
    "unknown_layout": (
        CLIP,
        {"layout": "b c t h w"},
        ValueError,
        "layout 'b c t h w' is unknown; choose from 't h w c', ",
    ),
    "one_frame": (CLIP[0], {}, ValueError, r"got shape \(40, 60, 3\); a single frame is a clip of one: pass \[frame\]"),
    "pil_one": (Image.new("RGB", (9, 9)), {}, TypeError, "got a Image; frames come as an array, a tensor, or a list"),
    "six_axes": (CLIP[None, None], {}, ValueError, r"a batch has \(b t h w c\); got shape \(1, 1, 4, 40, 60, 3\)"),
    "gray": ([CLIP[0, :, :, 0]], {}, ValueError, r"frame 0 has no channels, only shape \(40, 60\); add an axis"),
    "sizes": (
        [CLIP[0], CLIP[1, 1:]],
        {},
        ValueError,
        "frames differ: frame 1 is 39x60 with 3 channels, frame 0 is 40x60",
    ),
    "lengths": (
        [CLIP, CLIP[1:]],
        {},
        ValueError,
        "clip 1 has 3 frames of 3 channels, clip 0 has 4 of 3; .* sample them",
    ),
    "channels": ([CLIP, CLIP[..., :1]], {}, ValueError, "clip 1 has 4 frames of 1 channels, clip 0 has 4 of 3"),
    "mixed": ([CLIP, CLIP[0]], {}, ValueError, r"clip 1 of the batch has shape \(40, 60, 3\) instead of \(t h w c\)"),
    "mixed_types": ([list(CLIP), "x"], {}, TypeError, "clip 1 of the batch is a str"),
    "path": ("clip.mp4", {}, TypeError, "'clip.mp4' is a path; decode the file first, such as with .*read_video"),
    "none": ([None], {}, TypeError, "frame 0 is a NoneType; frames are arrays, tensors or PIL images"),
    "empty": ([], {}, ValueError, "the clip has no frames"),
    "empty_clip": ([list(CLIP), []], {}, ValueError, "the clip has no frames of clip 1"),
    "no_time": (CLIP[:0], {}, ValueError, "the clip has no frames"),
    "empty_batch": (CLIP[None][:0], {}, ValueError, "the batch is empty"),
    "empty_frames": (CLIP[:, :0], {}, ValueError, "frame 0 is empty: 0x60 with 3 channels"),
    "crop": (CLIP, {"crop": 3}, ValueError, "crop 3 is unknown"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_told_what_came_and_what_can_be_done(case):
    video, options, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        Preprocess(28)(video, **options)


def test_wrong_settings():
    with pytest.raises(ValueError, match="style 'hf' is unknown; choose from original, transformers"):
        Preprocess(style="hf")
    with pytest.raises(ValueError, match="short side of 200 are smaller than the crop of 224"):
        Preprocess(short_side=200)
    with pytest.raises(ValueError, match="must be positive"):
        Preprocess(0)
    with pytest.raises(ValueError, match=r"2 crops cannot be taken; views have 1 .* or 3"):
        Preprocess(28).views(CLIP, crops=2)
    with pytest.raises(ValueError, match="crop 3 is unknown"):
        Preprocess(28).crop(CLIP, 3)


@given(st.integers(8, 80), st.integers(8, 80), st.integers(8, 40), st.integers(8, 40), st.sampled_from([None, 0, 1, 2]))
def test_any_frame_fills_any_crop(height, width, crop_height, crop_width, crop):
    clip = np.full((1, height, width, 1), 200, np.uint8)
    result = Preprocess((crop_height, crop_width))(clip, crop=crop)
    assert result.shape == (1, 1, crop_height, crop_width)
    assert (result > 0).all()  # nothing is filled up with black
