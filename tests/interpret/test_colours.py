"""Colours of features: equal features have equal colours, whatever else is in the batch allows it."""

import pytest
import torch

from vivit_zoo import ViViT, ViViTConfig
from vivit_zoo.interpret import pca


def of_a_plane(*sizes, dim=12, scales=(4.0, 2.0, 1.0)):
    """Features with three known directions, and their coordinates."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q[:, : len(scales)].mT
    coordinates = torch.rand(*sizes, len(scales), generator=generator) * torch.tensor(scales)
    return coordinates @ basis + 5.0, coordinates / torch.tensor(scales)


def test_the_main_directions_are_the_colours():
    features, known = of_a_plane(2, 3, 8, 8)
    colours = pca(features, outliers=0)
    assert colours.shape == (2, 3, 8, 8, 3)
    assert (colours.amin((0, 1, 2, 3)) == 0).all()
    assert (colours.amax((0, 1, 2, 3)) == 1).all()
    for i in range(3):
        correlation = torch.corrcoef(torch.stack([colours[..., i].flatten(), known[..., i].flatten()]))[0, 1]
        assert correlation.abs() > 0.98


def test_colours_depend_on_the_features_alone():
    features, _ = of_a_plane(2, 3, 4, 4)
    colours = pca(features)
    assert torch.equal(colours, pca(features.clone()))
    torch.testing.assert_close(pca(10 * features - 3), colours)
    order = torch.randperm(12)
    torch.testing.assert_close(pca(features[..., order]), colours)
    twice = pca(torch.cat([features, features]))
    torch.testing.assert_close(twice[:2], twice[2:])
    torch.testing.assert_close(pca([features[..., :5], features[..., 5:]]), colours)


def test_outliers_are_clamped():
    features, _ = of_a_plane(1, 4, 16, 16)
    features[0, 0, 0, 0] += 1000 * (features[0, 1, 0, 0] - features[0, 2, 0, 0])
    colours = pca(features)
    assert colours.min() == 0
    assert colours.max() == 1
    assert (colours.std((0, 1, 2, 3)) > 0.15).all()
    assert (pca(features, outliers=0).std((0, 1, 2, 3)) < 0.15).any()


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_directions_that_are_not_there_are_gray(dim):
    generator = torch.Generator().manual_seed(0)
    features = torch.zeros(2, 2, 3, 3, dim)
    features[..., 0] = torch.rand(2, 2, 3, 3, generator=generator)
    colours = pca(features)
    assert colours[..., 0].std() > 0.2
    assert (colours[..., 1:] == 0.5).all()
    assert (pca(torch.ones(1, 2, 3, 3, dim)) == 0.5).all()


def test_colours_of_a_block_of_a_model():
    model = ViViT(ViViTConfig(num_frames=4, image_size=16, tubelet_size=(2, 4, 4), dim=24, depth=2, num_heads=4)).eval()
    with torch.no_grad():
        blocks = model.forward_intermediates(torch.randn(2, 3, 4, 16, 16), intermediates_only=True)
    assert pca(blocks[-1]).shape == (2, 2, 4, 4, 3)
    assert pca(blocks).shape == (2, 2, 4, 4, 3)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(1, 1, 1, 1, 4), "at least two places"),
        (torch.zeros(2, 2, 2, 2, 4, dtype=torch.int64), "floating-point"),
        (torch.full((2, 2, 2, 2, 4), torch.nan), "finite"),
        ([torch.zeros(1, 2, 4, 4, 3), torch.zeros(1, 2, 1, 1, 3)], "same places"),
        ([], "no features"),
    ],
)
def test_what_has_no_colours(features, message):
    with pytest.raises(ValueError, match=message):
        pca(features)
    with pytest.raises(ValueError, match=r"outliers is a share in \[0, 0.5\), got 0.5"):
        pca(torch.zeros(1, 2, 2, 2, 4), outliers=0.5)
