"""How cost grows with frames, side and batch under the options of the blocks, counted and not timed."""

from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import VARIANTS
from tests.test_costs import LiveBytes
from vivit_zoo import ViViT, ViViTConfig
from vivit_zoo.config import RotaryConfig

OPTIONS = {
    "plain": {},
    "rope": {"rope": RotaryConfig()},
    "mask": {"mask": True},
    "softcap": {"attn_softcap": 30.0},
    "per place": {"temporal_per_place": True, "global_pool": "avg"},
}
CASES = [
    (variant, option)
    for variant in VARIANTS
    for option in OPTIONS
    if option != "per place" or variant == "factorised_encoder"
]


@cache
def cost(variant, option, frames=16, side=32, batch=1):
    """Products without those of fused attention, and the most bytes alive at once, of a forward pass."""
    options = dict(OPTIONS[option])
    masked = options.pop("mask", False)
    sizes = {"dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3, "tubelet_size": (2, 4, 4)}
    model = ViViT(ViViTConfig(variant=variant, num_frames=frames, image_size=side, **sizes, **options)).eval()
    video = [torch.zeros(batch, 3, frames, side, side)]
    if masked:
        video.append(torch.arange(frames).expand(batch, -1) < frames // 2)
    with torch.no_grad():
        with FlopCounterMode(display=False) as flops:
            model(*video)
        with LiveBytes() as live:
            model(*video)
    return flops.get_total_flops(), live.peak


@pytest.mark.parametrize(("variant", "option"), CASES)
def test_memory_is_linear_in_tokens(variant, option):
    """But capped scores, which no fused kernel computes: they take the square of what one sequence holds."""
    (_, peak), (_, of_frames), (_, of_batch) = (
        cost(variant, option, **sizes) for sizes in ({}, {"frames": 32}, {"batch": 4})
    )
    assert of_batch <= 4.2 * peak
    if option == "softcap" and variant == "joint":
        assert 3.5 * peak <= of_frames <= 4.2 * peak
    else:
        assert of_frames <= 2.1 * peak
    _, of_side = cost(variant, option, side=64)
    assert of_side <= (16.8 if option == "softcap" else 4.2) * peak


@pytest.mark.parametrize(("variant", "option"), CASES)
def test_products_are_linear_in_tokens(variant, option):
    products, _ = cost(variant, option)
    assert cost(variant, option, batch=4)[0] <= 4.001 * products
    more = 4 if option == "softcap" and variant == "joint" else 2.1
    assert cost(variant, option, frames=32)[0] <= more * products


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("option", ["rope", "mask"])
def test_rotary_positions_and_masks_add_no_products(variant, option):
    assert cost(variant, option)[0] == cost(variant, "plain")[0]
