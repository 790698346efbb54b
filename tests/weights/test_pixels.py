"""Pixels of another mean and deviation folded into the kernel, and positions resized as timm does."""

import pytest
import timm
import torch
from einops import rearrange, repeat
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import randomise, tiny_config, video_for
from tests.weights.test_start import image_model
from vivit_zoo import ViViT
from vivit_zoo.weights import config_for_image, init_from_image
from vivit_zoo.weights.resize import fold_pixels, inflate_kernel, resize_positions

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(video, mean=MEAN, std=STD):
    """Clips in [-1, 1] as the image model was trained to see them."""
    mean, std = (torch.tensor(values, dtype=video.dtype)[:, None, None, None] for values in (mean, std))
    return (video / 2 + 0.5 - mean) / std


@given(
    tubelet=st.sampled_from(["central_frame", "filter_inflation", "arp"]),
    t=st.integers(1, 4),
    numbers=st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 2)), min_size=3, max_size=3),
)
def test_a_folded_kernel_sees_the_image_models_pixels(tubelet, t, numbers):
    mean, std = (tuple(values) for values in zip(*numbers, strict=True))
    generator = torch.Generator().manual_seed(t)
    kernel, bias, video = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(5, 3, 2, 2), (5,), (3, t, 2, 2)]
    )
    inflated = inflate_kernel(kernel, t, tubelet)
    expected = torch.einsum("dcthw,cthw->d", inflated, normalised(video, mean, std)) + bias
    folded, constant = fold_pixels(inflated, bias, mean, std)
    result = torch.einsum("dcthw,cthw->d", folded, video) + constant
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tubelet", ["central_frame", "arp"])
def test_a_model_starts_on_pixels_as_the_image_model_was_trained_with(tubelet):
    image = image_model()
    image.pretrained_cfg = {"mean": MEAN, "std": STD}
    config = config_for_image(image, variant="factorised_encoder", num_frames=6, num_classes=5)
    model, video = ViViT(config).eval(), video_for(config, dtype=torch.float32)
    report = init_from_image(model, image, tubelet=tubelet)
    assert not report.notes
    for name in ("tubelet_embed.proj.weight", "tubelet_embed.proj.bias"):
        assert "pixels of mean 0.485/0.456/0.406 and std 0.229/0.224/0.225 folded in" in report.derived[name]
    assert "patch_embed.proj.weight" in report.derived["tubelet_embed.proj.bias"]
    unfolded = ViViT(config).eval()
    kept = init_from_image(unfolded, image, tubelet=tubelet, pixels="keep")
    assert "a mean of (0.485, 0.456, 0.406) over a deviation of (0.229, 0.224, 0.225)" in kept.notes[0]
    with torch.no_grad():
        expected = unfolded.encoder.spatial(unfolded.tubelet_embed(normalised(video)))
        torch.testing.assert_close(model.encoder.spatial(model.tubelet_embed(video)), expected, rtol=1e-5, atol=1e-5)
        assert (unfolded.encoder.spatial(unfolded.tubelet_embed(video)) - expected).abs().max() > 0.1
        if tubelet == "central_frame":
            frames = rearrange(normalised(video)[:, :, 1::2], "b c t h w -> (b t) c h w")
            tokens = model.encoder.spatial.forward_features(model.tubelet_embed(video))
            torch.testing.assert_close(tokens.flatten(0, 1), image.forward_features(frames), rtol=1e-5, atol=1e-5)


def test_what_a_source_says_of_its_pixels():
    image = image_model()
    config = config_for_image(image, num_frames=2)

    def start(**rules):
        model = ViViT(config)
        return model.tubelet_embed.proj, init_from_image(model, image, **rules)

    copied, report = start()
    assert len(report.notes) == 1
    assert "does not say which pixels it was trained with; they are taken to be in [-1, 1]" in report.notes[0]
    image.pretrained_cfg = {"mean": MEAN, "std": STD}
    folded, report = start()
    assert not torch.equal(folded.weight, copied.weight)
    own, report = start(mean=(0.5,) * 3, std=(0.5,) * 3)  # what the caller says counts
    assert torch.equal(own.weight, copied.weight)
    assert not report.notes
    image.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert not start()[1].notes
    given, _ = start(mean=MEAN, std=STD)
    torch.testing.assert_close(given.weight, folded.weight)
    one, _ = start(mean=[0.25], std=[0.125])
    torch.testing.assert_close(one.weight, copied.weight * 4)
    with pytest.raises(ValueError, match="mean has 2 numbers for 3 channels; give 3, or one for all"):
        start(mean=(0.1, 0.2), std=(1.0,))
    with pytest.raises(ValueError, match=r"std \(0.0,\) is not positive"):
        start(mean=(0.5,), std=(0.0,))
    with pytest.raises(ValueError, match="pixels 'drop' is unknown; choose from fold, keep"):
        start(pixels="drop")
    image.pretrained_cfg = {}
    with pytest.raises(ValueError, match="does not say its mean and std; give both"):
        start(mean=MEAN)


def test_a_kernel_that_is_kept_has_no_pixels_folded():
    image = image_model()
    image.pretrained_cfg = {"mean": MEAN, "std": STD}
    model = ViViT(config_for_image(image, num_frames=4))
    kernel = model.tubelet_embed.proj.weight.clone()
    init_from_image(model, image, tubelet="random")
    assert torch.equal(model.tubelet_embed.proj.weight, kernel)
    assert torch.equal(model.tubelet_embed.proj.bias, image.patch_embed.proj.bias)


@pytest.mark.parametrize("size", [(24, 40), (8, 16), (32, 32), (48, 16)])
@pytest.mark.parametrize("positions", ["resize", "resize_tile"])
def test_another_size_is_timms_own_resampled_model(size, positions):
    image = image_model(img_size=(32, 32))
    model = ViViT(config_for_image(image, num_frames=2, image_size=size)).eval()
    report = init_from_image(model, image, positions=positions, tubelet="filter_inflation")
    image.set_input_size(size)
    still = torch.randn(2, 3, *size)
    with torch.no_grad():
        features = model.forward_features(repeat(still, "b c h w -> b c t h w", t=2))
        torch.testing.assert_close(
            features, image.forward_head(image.forward_features(still), pre_logits=True), rtol=1e-5, atol=1e-5
        )
    resized = size != (32, 32)
    assert ("bicubic from 4x4 to" in str(report)) == resized


def test_the_filter_of_positions_can_be_chosen():
    image = image_model(img_size=(32, 32))
    tables = {}
    for rule in ("bicubic", "linear", None):
        model = ViViT(config_for_image(image, num_frames=2, image_size=16))
        init_from_image(model, image, positions="resize", positions_filter=rule)
        tables[rule] = model.encoder.pos_embed.table
    assert torch.equal(tables[None], tables["bicubic"])
    corners = image.pos_embed[0, 1:].unflatten(0, (4, 4))[[0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(tables["linear"][0], corners)
    assert (tables["linear"] - tables["bicubic"]).abs().max() > 0.1
    video = randomise(ViViT(tiny_config()))
    longer = ViViT(tiny_config(image_size=(16, 24)))
    assert "linear from 2x3 to 4x6 places" in str(init_from_image(longer, video, positions="resize"))


@given(t=st.integers(1, 3), h=st.integers(1, 5), w=st.integers(1, 5))
def test_bicubic_positions_over_time_and_space(t, h, w):
    table = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    resized = resize_positions(table, (t, h, w), "bicubic")
    assert resized.shape == (t, h, w, 6)
    one = resize_positions(table[0], (h, w), "bicubic")
    if t > 1:
        torch.testing.assert_close(resized[0], one)
    constant = resize_positions(torch.ones(3, 4, 6), (h, w), "bicubic")
    torch.testing.assert_close(constant, torch.ones(h, w, 6))


def test_timms_own_tags_say_their_pixels():
    """Two of the registry's: one trained in [-1, 1], one not."""
    for name, folded in [("vit_tiny_patch16_224.augreg_in21k", False), ("deit_tiny_patch16_224.fb_in1k", True)]:
        image = timm.create_model(name, depth=1, embed_dim=12, num_heads=3, img_size=32)
        report = init_from_image(ViViT(config_for_image(image, num_frames=4)), image)
        assert ("pixels of mean" in str(report)) == folded
        assert not report.notes
