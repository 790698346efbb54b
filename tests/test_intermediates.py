"""`ViViT.forward_intermediates`: tokens after chosen blocks, for every variant."""

import pytest
import timm
import torch

from tests.conftest import VARIANTS, tiny_model, video_for
from vivit_zoo import ViViT, config_for_image, init_from_image

CASES = [
    *({"variant": variant} for variant in VARIANTS),
    *({"variant": v, "global_pool": "token", "reg_tokens": 2} for v in VARIANTS),
    {"variant": "factorised_encoder", "temporal_per_place": True, "global_pool": "avg"},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_the_last_block_leads_to_the_features(changes):
    model = tiny_model(**changes)
    video = video_for(model.config)
    with torch.no_grad():
        features, tokens = model.forward_intermediates(video, return_prefix_tokens=True)
        torch.testing.assert_close(features, model.forward_features(video), rtol=0, atol=0)
        flat = model.forward_intermediates(video, output_fmt="BTNC", intermediates_only=True)
    of_frames = changes["variant"] == "factorised_encoder" and not changes.get("temporal_per_place")
    shapes = [(2, 3, 2, 3, 24)] * 2
    if changes["variant"] == "factorised_encoder":
        shapes += [(2, 3, 1, 1, 24) if of_frames else (2, 3, 2, 3, 24)] * 2
    assert [tuple(grid.shape) for grid, _ in tokens] == shapes
    for (grid, _), same in zip(tokens, flat, strict=True):
        assert torch.equal(grid.flatten(2, 3), same)
    last = getattr(model.encoder, "temporal", model.encoder)
    grid, prefix = tokens[-1]
    grid = grid.flatten(2, 3)
    if changes["variant"] in ("joint", "factorised_encoder"):
        grid = grid.flatten(1, 2)
    with torch.no_grad():
        found = torch.cat([prefix, grid], dim=-2) if prefix.shape[-2] else grid
        torch.testing.assert_close(last.pool(last.norm(found)), features)


def test_an_image_start_gives_timms_own_intermediates():
    image = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, reg_tokens=1, num_classes=0).eval()
    config = config_for_image(image, variant="factorised_encoder", num_frames=2, tubelet_size=(1, 16, 16))
    model = ViViT(config).eval()
    init_from_image(model, image, pixels="keep")
    video = torch.rand(2, 3, 2, 32, 32) * 2 - 1
    with torch.no_grad():
        options = {"norm": True, "intermediates_only": True, "return_prefix_tokens": True}
        ours = model.forward_intermediates(video, [0, -5], **options)
        for frame in range(2):
            theirs = image.forward_intermediates(video[:, :, frame], [0, 2], output_fmt="NLC", **options)
            for (grid, prefix), (their_grid, their_prefix) in zip(ours, theirs, strict=True):
                torch.testing.assert_close(grid[:, frame].flatten(1, 2), their_grid, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(prefix[:, frame], their_prefix, rtol=1e-4, atol=1e-4)


def test_a_model_that_stops_early_runs_no_later_block():
    model = tiny_model()
    model.encoder.blocks[1].register_forward_pre_hook(lambda *_: pytest.fail("ran"))
    (tokens,) = model.forward_intermediates(video_for(model.config), [0], stop_early=True, intermediates_only=True)
    assert tokens.shape == (2, 3, 2, 3, 24)
    assert not model.encoder.blocks[0]._forward_hooks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"indices": 3}, "indices 3 is not in 1 to 2, the number of blocks"),
        ({"indices": [0, 2]}, "block 2 is not in -2 to 1"),
        ({"output_fmt": "NCHW"}, "output_fmt 'NCHW' is unknown; choose from BTHWC, BTNC"),
        ({"stop_early": True}, "a model that stops early has no features"),
    ],
)
def test_what_cannot_be_given(options, message):
    model = tiny_model()
    with pytest.raises(ValueError, match=message):
        model.forward_intermediates(video_for(model.config), **options)
