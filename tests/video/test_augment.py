"""Augmentation: the same on all frames, decided by torch's seed, and what each operation does, told another way."""

import dataclasses
import io
from functools import lru_cache

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from vivit_zoo.datasets import MovingDigits
from vivit_zoo.datasets.sources import ArrayReader
from vivit_zoo.video.augment import RAND_AUGMENT, Augment, mirrored_classes, rand_augment
from vivit_zoo.video.reader import VideoReader

SEEDS = st.integers(0, 2**31)
CHANNELS = st.sampled_from([1, 3])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def still(frames: int, channels: int, height: int = 20, width: int = 27, seed: int = 0) -> Tensor:
    return noise(1, channels, height, width, seed=seed).repeat(frames, 1, 1, 1)


def same_frames(video: Tensor, axis: int) -> bool:
    return bool((video == video.narrow(axis, 0, 1)).all())


PLAIN = Augment(size=16, scale_jitter=(1, 1), flip=0, colour=0, gray=0)
SETTINGS = [
    Augment(size=16),
    Augment(size=(12, 19), colour=1, gray=1),
    Augment(size=16, rand_augment_layers=2, rand_augment_magnitude=15),
]


@given(st.sampled_from(SETTINGS), SEEDS, CHANNELS)
def test_all_frames_change_alike_and_the_seed_decides(augment, seed, channels):
    clip = still(5, channels, seed=seed)
    torch.manual_seed(seed)
    video, label = augment(clip, 3)
    assert (video.dtype, video.is_contiguous(), label) == (torch.uint8, True, 3)
    assert video.shape == (channels, 5, *augment.preprocess.crop_size)
    assert same_frames(video, axis=1)
    torch.manual_seed(seed)
    assert torch.equal(augment(clip, 3)[0], video)
    assert torch.equal(clip, still(5, channels, seed=seed))  # it works on a copy


@given(st.sampled_from(sorted(RAND_AUGMENT)), SEEDS, CHANNELS, st.floats(0, 30))
def test_each_operation_changes_all_frames_alike(name, seed, channels, magnitude):
    torch.manual_seed(seed)
    clip = still(4, channels, 9, 11, seed=seed)
    changed = RAND_AUGMENT[name](clip, magnitude / 10)
    assert (changed.shape, changed.dtype) == (clip.shape, clip.dtype)
    assert same_frames(changed, axis=0)


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Contrast"])
def test_statistics_are_of_the_clip_not_of_the_frame(name):
    """As if the frames were one picture, one above the other."""
    dark = noise(1, 3, 40, 30) // 4
    clip = torch.cat([dark, dark + 190])
    changed, tall = (RAND_AUGMENT[name](x, 0.2) for x in (clip, torch.cat(list(clip), dim=1)[None]))
    assert torch.equal(changed, torch.stack(tall[0].split(40, dim=1)))
    assert not torch.equal(changed, clip)
    each = torch.cat([RAND_AUGMENT[name](frame[None], 0.2) for frame in clip])
    assert not torch.equal(changed, each)


@pytest.mark.parametrize("augment", SETTINGS)
def test_two_clips_differ(augment):
    torch.manual_seed(1)
    clip = still(2, 3)
    assert len({augment(clip)[0].numpy().tobytes() for _ in range(8)}) == 8


def test_no_other_randomness_than_torchs(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("drawn from elsewhere")

    for target in ("random.random", "random.uniform", "random.choice", "numpy.random.rand", "numpy.random.uniform"):
        monkeypatch.setattr(target, refuse)
    for augment in SETTINGS:
        augment(still(2, 3))


def test_without_any_change_it_is_a_crop():
    clip = noise(3, 3, 20, 27)
    video = PLAIN(clip)[0].movedim(1, 0)
    crops = clip.unfold(2, 16, 1).unfold(3, 16, 1)  # t c y x h w
    assert (crops == video[:, :, None, None]).all((0, 1, 4, 5)).sum() == 1


def test_a_crop_is_changed_in_place():
    """Guards the gain: to allocate another clip takes longer than to change this one. A caller's clip stays."""
    augment = dataclasses.replace(PLAIN, flip=1, colour=1, gray=1)
    clip = noise(3, 2, 16, 16)
    assert augment._flip_and_colour(clip, None)[0].data_ptr() == clip.data_ptr()
    assert not torch.equal(clip, noise(3, 2, 16, 16))
    clip = noise(3, 2, 16, 16)
    augment(clip.movedim(0, 1))
    assert torch.equal(clip, noise(3, 2, 16, 16))


def test_every_place_of_the_crop_is_possible():
    clip = torch.arange(5 * 7, dtype=torch.uint8).reshape(1, 1, 5, 7)
    augment = Augment(size=(4, 5), scale_jitter=(1, 1), flip=0, colour=0, gray=0)
    torch.manual_seed(0)
    assert {int(augment(clip)[0][0, 0, 0, 0]) for _ in range(200)} == {y * 7 + x for y in (0, 1) for x in (0, 1, 2)}


def test_scale_factors_are_independent_and_cover_the_range(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "vivit_zoo.video.augment.F.resize",
        lambda clip, size, *_, **__: sizes.append(size) or clip.new_zeros(1, 3, *size),
    )
    torch.manual_seed(0)
    augment = Augment(size=224, colour=0, gray=0)
    clip = noise(1, 3, 256, 340)
    for _ in range(300):
        augment(clip)
    heights, widths = torch.tensor(sizes, dtype=torch.float64).T
    assert (heights.min(), heights.max()) == (pytest.approx(256 * 0.9, abs=3), pytest.approx(256 * 1.33, abs=3))
    assert (widths.min(), widths.max()) == (pytest.approx(340 * 0.9, abs=3), pytest.approx(340 * 1.33, abs=3))
    assert torch.corrcoef(torch.stack([heights, widths]))[0, 1].abs() < 0.15


def test_scaling_never_falls_below_the_crop():
    assert Augment(size=16, scale_jitter=(0.1, 0.1))(noise(2, 3, 16, 40))[0].shape == (3, 2, 16, 16)


@pytest.mark.parametrize(
    ("mirror", "label", "flipped"),
    [
        ({}, 1, 1),
        ({1: 2, 2: 1}, 1, 2),
        ({1: None}, 1, None),
        ({"verb": {1: 2}}, {"verb": 1, "noun": 1}, {"verb": 2, "noun": 1}),
        ({"verb": {1: None}}, {"verb": 1, "noun": 1}, None),
    ],
)
def test_a_mirror_image_takes_the_label_of_what_it_shows(mirror, label, flipped):
    augment = Augment(size=(20, 27), scale_jitter=(1, 1), flip=1, mirror=mirror, colour=0, gray=0)
    clip = noise(2, 3, 20, 27)
    video, got = augment(clip, label)
    expected = clip if flipped is None else clip.flip(-1)
    assert torch.equal(video.movedim(1, 0), expected)
    assert got == (label if flipped is None else flipped)


@given(st.sampled_from(SETTINGS), SEEDS)
def test_a_clip_of_a_video_is_that_of_a_call(augment, seed):
    """Exactly or, made by the decoder's converter, nearly: all random values are the same."""
    video = smooth_video()
    exact = dataclasses.replace(augment, exact=True)
    results = []
    for read in (
        lambda: exact.from_video(video, [0, 2, 2, 5], 3)[0],
        lambda: augment(resized(augment, video.read([0, 2, 2, 5])), 3)[0],
        lambda: augment.from_video(video, [0, 2, 2, 5], 3)[0],
        lambda: augment.from_video(video, [0, 2, 2, 5], 3)[0],
    ):
        torch.manual_seed(seed)
        results.append((read(), torch.rand(()).item()))
    assert len({after for _, after in results}) == 1
    (first, _), (call, _), (fast, _), (again, _) = results
    assert torch.equal(first, call)
    assert torch.equal(fast, again)
    assert fast.shape == first.shape
    assert fast.is_contiguous()
    if not augment.rand_augment_layers:  # whose operations can turn a level into its opposite
        assert (fast.float() - first.float()).abs().mean() < 4


def resized(augment: Augment, frames: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack([augment.preprocess.resize(frame) for frame in frames])).permute(0, 3, 1, 2)


@lru_cache
def smooth_video() -> VideoReader:
    """Slow waves of colour: resizing in two steps or in one is nearly the same."""
    y, x, t = np.meshgrid(np.arange(48), np.arange(70), np.arange(6), indexing="ij")
    waves = [np.sin(x / 9 + t), np.cos(y / 7 + t / 2), np.sin((x + y) / 11)]
    frames = (np.stack(waves, -1) * 90 + 128).astype(np.uint8)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 70, "yuv420p"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[:, :, number]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return VideoReader(file.getvalue(), threads=1)


def test_videos_without_a_converter_are_resized_exactly():
    frames = noise(4, 20, 27, 3).numpy()
    augment = Augment(size=16)
    video = ArrayReader("frames", frames, 25.0)
    torch.manual_seed(0)
    clip, label = augment.from_video(video, [1, 3], 2)
    torch.manual_seed(0)
    assert torch.equal(clip, augment(resized(augment, frames[[1, 3]]), 2)[0])
    assert label == 2


def test_half_of_the_clips_are_flipped():
    augment = Augment(size=(20, 27), scale_jitter=(1, 1), colour=0, gray=0)
    clip = noise(1, 3, 20, 27)
    torch.manual_seed(0)
    flips = sum(bool((augment(clip)[0][:, 0] == clip[0].flip(-1)).all()) for _ in range(400))
    assert 160 < flips < 240


def test_classes_in_the_mirror_by_their_names():
    names = [
        "Pushing [something] from left to right",
        "pushing [something] from right to left",
        "swiping_left",
        "putting something upright",
        "Turning Hand Clockwise",
        "Turning Hand Counter-clockwise",
    ]
    assert mirrored_classes(names) == {0: 1, 1: 0, 2: None, 4: 5, 5: 4}
    # Every class of MovingDigits has a direction, and none is another's mirror image.
    assert set(mirrored_classes(MovingDigits.classes).values()) == {None}


def to_pil(clip: Tensor) -> Image.Image:
    return Image.fromarray(clip[0].permute(1, 2, 0).numpy())


PIL = {
    "AutoContrast": lambda image, m: ImageOps.autocontrast(image),
    "Equalize": lambda image, m: ImageOps.equalize(image),
    "Invert": lambda image, m: ImageOps.invert(image),
    "Posterize": lambda image, m: ImageOps.posterize(image, int(m / 10 * 4)) if m >= 2.5 else image.point(lambda _: 0),
    "Solarize": lambda image, m: ImageOps.solarize(image, int(m / 10 * 256)),
    "Color": lambda image, m: ImageEnhance.Color(image).enhance(m / 10 * 1.8 + 0.1),
    "Contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(m / 10 * 1.8 + 0.1),
    "Brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(m / 10 * 1.8 + 0.1),
    "Sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(m / 10 * 1.8 + 0.1),
    "SolarizeAdd": lambda image, m: image.point(lambda x: min(x + int(m / 10 * 110), 255) if x < 128 else x),
}


@pytest.mark.parametrize("name", PIL)
@pytest.mark.parametrize("magnitude", [0, 3, 9])
def test_operations_are_pils_at_the_reference_levels(name, magnitude):
    clip = noise(1, 3, 40, 30) // 2 + 60
    ours = RAND_AUGMENT[name](clip, magnitude / 10)
    expected = torch.tensor(list(PIL[name](to_pil(clip), magnitude).tobytes())).reshape(40, 30, 3).permute(2, 0, 1)
    # PIL rounds the grey of Color and Contrast to bytes before it extrapolates from it.
    slack = 3 if name in ("Color", "Contrast", "Sharpness") else 1
    assert (ours[0] - expected).abs().max() <= slack


def test_magnitudes_beyond_ten():
    clip = noise(2, 3, 300, 300).clamp(max=254)
    assert torch.equal(RAND_AUGMENT["Solarize"](clip, 1.5), clip)
    assert RAND_AUGMENT["Solarize"](torch.full_like(clip, 255), 1.5).max() == 0
    assert torch.equal(RAND_AUGMENT["Posterize"](clip, 1.5), clip // 4 * 4)
    assert torch.equal(RAND_AUGMENT["Posterize"](clip, 2.0), clip)
    assert torch.equal(RAND_AUGMENT["Posterize"](clip, 3.0), clip)
    bright = (clip * 2.8).clamp(max=255).byte()
    assert (RAND_AUGMENT["Brightness"](clip, 1.5).int() - bright.int()).abs().max() <= 1


def test_cutout_is_a_grey_square():
    clip = torch.zeros(2, 3, 300, 300, dtype=torch.uint8)
    torch.manual_seed(3)
    grey = RAND_AUGMENT["Cutout"](clip, 1.5)[0, 0] == 128
    rows, columns = grey.any(1).nonzero(), grey.any(0).nonzero()
    assert grey.sum() == len(rows) * len(columns)
    assert len(rows) <= 120
    assert len(columns) <= 120
    torch.manual_seed(0)
    widest = max(int((RAND_AUGMENT["Cutout"](clip, 1.5)[0, 0] == 128).any(0).sum()) for _ in range(20))
    assert widest == 120


def test_operations_are_equally_likely(monkeypatch):
    counts = dict.fromkeys(RAND_AUGMENT, 0)
    for name in counts:
        monkeypatch.setitem(
            RAND_AUGMENT, name, lambda clip, level, name=name: counts.__setitem__(name, counts[name] + 1) or clip
        )
    torch.manual_seed(0)
    rand_augment(noise(1, 3, 2, 2), 12_000, 9)
    assert len(counts) == 11
    assert all(850 < count < 1150 for count in counts.values())
    assert 850 < 12_000 - sum(counts.values()) < 1150  # nothing at all


def test_gray_clips_have_three_equal_channels():
    augment = Augment(size=16, colour=0, gray=1)
    video, _ = augment(noise(2, 3, 20, 27))
    assert video.shape == (3, 2, 16, 16)
    assert same_frames(video, axis=0)


def test_rand_augment_takes_the_place_of_colours(monkeypatch):
    monkeypatch.setattr("vivit_zoo.video.augment.colour_jitter", lambda *_: pytest.fail("colours too"))
    Augment(size=16, colour=1, rand_augment_layers=1, rand_augment_magnitude=9)(noise(1, 3, 20, 20))


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (noise(2, 3, 20, 20).float(), TypeError, r"got torch\.float32 \(2, 3, 20, 20\)"),
        (noise(2, 20, 20, 3), TypeError, r"axes \(t, c, h, w\) and 1 or 3 channels; got torch\.uint8 \(2, 20, 20, 3\)"),
        (noise(3, 20, 20), TypeError, r"got torch\.uint8 \(3, 20, 20\)"),
        (noise(0, 3, 20, 20), TypeError, r"\(0, 3, 20, 20\)"),
        (noise(2, 3, 15, 20), ValueError, "15x20 are smaller than the crop of 16x16; `preprocess.resize` them first"),
    ],
)
def test_wrong_clips(clip, error, message):
    with pytest.raises(error, match=message):
        PLAIN(clip)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "must be positive"),
        ({"size": 225, "short_side": 200}, "short side of 200 are smaller than the crop"),
        ({"scale_jitter": (1.3, 0.9)}, r"scale_jitter \(1\.3, 0\.9\) must be two rising positive factors"),
        ({"flip": 1.5}, "flip 1.5 is a probability"),
        ({"gray": -1}, "gray -1 is a probability"),
        ({"rand_augment_layers": -1}, "must not be negative; the paper's are 2 and 15"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        Augment(**fields)


def test_a_short_side_is_compared_with_the_size_of_the_model_and_not_with_the_default():
    """A run gives the short side alone, and replaces the size by that of its model."""
    augment = Augment(short_side=128)
    assert dataclasses.replace(augment, size=(112, 112)).preprocess.resized_side == 128
    with pytest.raises(ValueError, match="short side of 128 are smaller than the crop of 160"):
        dataclasses.replace(augment, size=160)
    with pytest.raises(ValueError, match="short side of 128 are smaller than the crop of 224"):
        augment(torch.zeros(4, 3, 300, 300, dtype=torch.uint8))
