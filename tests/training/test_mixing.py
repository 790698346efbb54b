"""Mixup and CutMix: pixels and labels are mixed alike, and as timm does it."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm.data.mixup
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st

from vivit_zoo.training.losses import cross_entropy, one_hot
from vivit_zoo.training.mixing import cutmix, mix, mixup


@given(st.integers(1, 5), st.floats(0.05, 2), st.integers(0, 99))
def test_mixup_mixes_pixels_and_labels_of_all_heads_alike(batch, alpha, seed):
    torch.manual_seed(seed)
    video = torch.rand(batch, 3, 2, 4, 5)
    label = {"noun": torch.randint(6, (batch,)), "verb": torch.randint(4, (batch,))}
    target = one_hot(label, {"noun": 6, "verb": 4})
    torch.manual_seed(seed)
    mixed, soft = mixup(video, target, alpha)
    torch.manual_seed(seed)
    weight = torch.distributions.Beta(alpha, alpha).sample()
    torch.testing.assert_close(mixed, torch.lerp(video.flip(0), video, weight))
    for head, one in soft.items():
        torch.testing.assert_close(one, torch.lerp(target[head].flip(0), target[head], weight))
        torch.testing.assert_close(one.sum(1), torch.ones(batch))


def test_the_loss_of_a_mixed_batch_is_the_mixed_loss():
    torch.manual_seed(0)
    logits, label = torch.randn(4, 5), torch.tensor([0, 3, 2, 2])
    _, soft = mixup(torch.zeros(4, 1, 1, 1, 1), one_hot(label, 5), 0.3)
    weight = soft[0, 0]
    expected = weight * cross_entropy(logits, label) + (1 - weight) * cross_entropy(logits, label.flip(0))
    torch.testing.assert_close(cross_entropy(logits, soft), expected)


def test_weights_follow_the_distribution():
    torch.manual_seed(0)
    video, target = torch.tensor([1.0, 0.0]), torch.eye(2)
    weights = torch.stack([mixup(video, target, 0.3)[0][0] for _ in range(2000)])
    assert weights.mean() == pytest.approx(0.5, abs=0.03)
    assert weights.var() == pytest.approx(1 / (4 * 1.6), abs=0.01)  # ab / (a + b)^2 / (a + b + 1)


def test_alpha_0_changes_and_draws_nothing():
    video, target = torch.rand(2, 3), torch.eye(2)
    state = torch.get_rng_state()
    mixed, soft = mixup(video, target, 0)
    assert torch.equal(mixed, video)
    assert torch.equal(soft, target)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_mixed_is_refused():
    video, label = torch.rand(2, 3), torch.tensor([0, 1])
    with pytest.raises(TypeError, match=r"torch\.uint8 cannot be mixed; use `normalise`"):
        mixup(video.byte(), one_hot(label, 2), 0.3)
    with pytest.raises(TypeError, match=r"torch\.int64 cannot be mixed; .* `one_hot` for the labels"):
        mixup(video, label, 0.3)
    with pytest.raises(ValueError, match=r"alpha -1 is negative"):
        mixup(video, one_hot(label, 2), -1)
    with pytest.raises(ValueError, match=r"labels go from 0 to 1; 1 classes are 0 to 0"):
        one_hot(label, 1)
    with pytest.raises(TypeError, match=r"torch\.int64 cannot be mixed; .* `one_hot` for the labels"):
        cutmix(torch.rand(2, 1, 2, 4, 4), label, 1.0)
    with pytest.raises(ValueError, match=r"alpha -1 is negative"):
        cutmix(torch.rand(2, 1, 2, 4, 4), one_hot(label, 2), -1)


@given(st.integers(2, 5), st.integers(1, 9), st.integers(1, 9), st.floats(0.2, 4), st.integers(0, 99))
def test_cutmix_replaces_one_box_in_all_frames_and_its_area_is_the_labels_share(batch, height, width, alpha, seed):
    torch.manual_seed(seed)
    clips = torch.arange(batch).float()  # clip i is of the value i
    video = clips[:, None, None, None, None].expand(batch, 3, 4, height, width)
    mixed, soft = cutmix(video, torch.eye(batch), alpha)
    assert torch.equal(video, clips[:, None, None, None, None].expand(batch, 3, 4, height, width))
    for i in range(batch):
        partner = batch - 1 - i
        assert set(mixed[i].unique().tolist()) <= {float(i), float(partner)}
        assert torch.equal(mixed[i], mixed[i, :1, :1].expand_as(mixed[i]))  # the same in all channels and frames
        if partner != i:
            box = mixed[i, 0, 0] == partner
            assert box.sum() == box.any(1).sum() * box.any(0).sum()
            assert soft[i, partner].item() == pytest.approx(box.float().mean().item(), abs=1e-6)
    torch.testing.assert_close(soft.sum(1), torch.ones(batch))


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_is_timms_on_frames_as_channels(seed, monkeypatch):
    """With the same random values; timm's own takes images, so that a video's frames are channels."""
    torch.manual_seed(seed)
    video, label = torch.rand(4, 3, 2, 12, 10), torch.randint(5, (4,))
    torch.manual_seed(seed)
    mixed, soft = cutmix(video, one_hot(label, 5), 1.0)

    torch.manual_seed(seed)
    drawn = SimpleNamespace(
        beta=lambda a, b: torch.distributions.Beta(a, b).sample().item(),
        randint=lambda low, high, size=None: int(torch.randint(low, high, ())),
        rand=lambda *_: np.float64(0),
    )
    monkeypatch.setattr(timm.data.mixup, "np", SimpleNamespace(**(vars(np) | {"random": drawn})))
    theirs = timm.data.mixup.Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=5)
    frames, expected = theirs(rearrange(video, "b c t h w -> b (t c) h w"), label)
    torch.testing.assert_close(rearrange(frames, "b (t c) h w -> b c t h w", t=2), mixed)
    torch.testing.assert_close(expected, soft)


def test_both_kinds_of_mixing_take_turns():
    """Mixup makes new values, CutMix none."""
    torch.manual_seed(0)
    video = torch.tensor([0.0, 1.0])[:, None, None, None, None].expand(2, 1, 1, 8, 8)
    cut = [bool(((x := mix(video, torch.eye(2), 1.0, 1.0)[0]) == x.round()).all()) for _ in range(200)]
    assert 70 < sum(cut) < 130
    assert not any(bool((mix(video, torch.eye(2), 0.0, 1.0)[0] % 1).any()) for _ in range(20))
    assert all(bool((mix(video, torch.eye(2), 1.0, 0.0)[0] % 1).any()) for _ in range(20))
    assert torch.equal(mix(video, torch.eye(2), 0.0, 0.0)[0], video)
