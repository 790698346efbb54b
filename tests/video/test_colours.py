"""Colour jitter frame by frame: torchvision's operations on the whole clip give the same, but for rounding."""

import pytest
import torch
import torchvision.transforms.v2.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vivit_zoo.video import colours
from vivit_zoo.video.colours import _HueTurn, colour_jitter, uniform

SEEDS = st.integers(0, 2**31)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def by_torchvision(clip: Tensor) -> Tensor:
    """The same random values; every operation on all frames, in float32 without rounding between them."""
    video = ((clip + uniform(-32, 32)) / 255).clamp(0, 1)
    video = F.adjust_saturation(video, uniform(0.6, 1.4))
    gray = F.rgb_to_grayscale(video, 1) if clip.shape[1] == 3 else video
    mean = torch.cat([frame[:, number * 3 % 8 :: 8].flatten() for number, frame in enumerate(gray)]).mean()
    contrast = uniform(0.6, 1.4)
    video = (contrast * video + (1 - contrast) * mean).clamp(0, 1)
    turn = uniform(-0.2, 0.2)
    return 255 * (F.adjust_hue(video, turn) if clip.shape[1] == 3 else video)


@given(SEEDS, st.sampled_from([1, 3]))
def test_jitter_is_torchvisions(seed, channels):
    clip = noise(3, channels, 9, 7, seed=seed)
    clip[0] = clip[0] // 64 * 64  # also equal channels
    torch.manual_seed(seed)
    ours = colour_jitter(clip)
    torch.manual_seed(seed)
    expected = by_torchvision(clip)
    # Half a level by rounding at the end; a sixteenth by rounding before the hue is turned, which it may double.
    assert (ours - expected).abs().max() <= 0.5 + 2 / 16
    assert ours.dtype == torch.uint8
    assert torch.equal(clip[1:], noise(3, channels, 9, 7, seed=seed)[1:])


def test_the_counted_rows_have_the_mean_of_all():
    ramp = torch.arange(64.0).view(1, 1, 64, 1).expand(3, 8, 64, 5)
    counted = colours._counted_rows(ramp)
    assert counted.shape == (3, 8 * 8 * 5)
    assert torch.equal(counted.mean(1), ramp.mean((1, 2, 3)))


def test_neither_strides_nor_parts_matter(monkeypatch):
    clip = noise(3, 4, 8, 6).movedim(0, 1)
    results: list[Tensor] = []
    for given_clip, overwrite in ((clip, False), (clip.contiguous(), False), (clip.contiguous(), True), (clip, True)):
        torch.manual_seed(5)
        monkeypatch.setattr(colours, "_PIXELS", 1000 if not results else 37)
        result = colour_jitter(given_clip, overwrite)
        assert not result.is_inference()  # it could not be trained on
        results.append(result.clone())
        assert torch.equal(clip, results[0] if given_clip is clip and overwrite else noise(3, 4, 8, 6).movedim(0, 1))
    assert all(torch.equal(result, results[0]) for result in results)


@given(SEEDS, st.floats(-1.5, 1.5))
def test_hues_are_torchvisions(seed, turn):
    frame = torch.rand(3, 60, generator=torch.Generator().manual_seed(seed))
    frame[:, :9] = frame[0, :9]  # greys too
    levels = (frame * 255 * 16).round().to(torch.int16)
    expected = F.adjust_hue(levels.view(3, 6, 10) / (255 * 16), (turn + 0.5) % 1 - 0.5).flatten(1)
    turned = torch.stack(_HueTurn(turn, 60)(levels)) / (255 * 16)
    torch.testing.assert_close(turned, expected, atol=1.5 / (255 * 16), rtol=0)


@pytest.mark.parametrize("turn", [-0.2, 0.2])
def test_the_strongest_colours_do_not_overflow(turn):
    corners = torch.cartesian_prod(*[torch.tensor([0, 255])] * 3).T.contiguous()
    expected = F.adjust_hue((corners / 255).view(3, 2, 4), turn).flatten(1) * 255
    turned = torch.stack(_HueTurn(turn, 8)((corners * 16).to(torch.int16))) / 16
    torch.testing.assert_close(turned, expected, atol=0.1, rtol=0)


def test_jitter_keeps_greys_grey_and_within_reach():
    """On a plain grey only brightness can act: at most 32 to either side."""
    torch.manual_seed(0)
    found = []
    for _ in range(100):
        changed = colour_jitter(torch.full((2, 3, 4, 4), 100, dtype=torch.uint8))
        assert changed.min() >= changed.max() - 1
        found.append(int(changed[0, 0, 0, 0]))
    assert (min(found), max(found)) == (pytest.approx(68, abs=3), pytest.approx(132, abs=3))


class Work(TorchDispatchMode):
    """Counts the bytes that operations write, and the values of the largest result that holds more than bytes."""

    def __init__(self):
        super().__init__()
        self.written = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view and "empty" not in func.name():
            self.written += result.nbytes
            if result.dtype != torch.uint8:
                self.largest = max(self.largest, result.numel())
        return result


def test_few_passes_over_parts_that_stay_in_the_cache(monkeypatch):
    """Guards the gain: float32 clips took four times as long, and passes that write 67 bytes a value half as long."""
    monkeypatch.setattr(colours, "_PIXELS", 1600)
    clip = noise(3, 16, 40, 20).movedim(0, 1)
    with Work() as work:
        colour_jitter(clip, overwrite=True)
    assert work.largest == 3 * 1600
    assert work.written / clip.numel() < 44
