"""Mixup and losses, against the original's numbers and against formulas written another way."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vivit_zoo.training.losses import cross_entropy, mixup, one_hot


def test_losses_of_the_original(parity):
    """Label smoothing 0.2; the logits are nouns, then verbs, as the original keeps them."""
    vectors = np.load(parity / "epic_metrics.npz")
    nouns, verbs = vectors["class_splits"].tolist()
    logits = dict(zip(("noun", "verb"), torch.tensor(vectors["logits"]).split([nouns, verbs], 1), strict=True))
    target = dict(zip(("noun", "verb"), torch.tensor(vectors["onehot"]).split([nouns, verbs], 1), strict=True))
    label = {head: one.argmax(1) for head, one in target.items()}
    for form in (target, label):
        for head in ("noun", "verb"):
            expected = torch.tensor(vectors[f"{head}_ce_ls02"])
            torch.testing.assert_close(cross_entropy(logits[head], form[head], 0.2), expected, atol=1e-6, rtol=0)
        both = torch.tensor((vectors["noun_ce_ls02"] + vectors["verb_ce_ls02"]) / 2)
        torch.testing.assert_close(cross_entropy(logits, form, 0.2), both, atol=1e-6, rtol=0)


@given(st.integers(1, 6), st.integers(1, 7), st.floats(0, 0.9), st.integers(0, 99))
def test_label_smoothing_is_the_papers(batch, classes, smoothing, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    label = torch.randint(classes, (batch,), generator=generator)
    smooth = one_hot(label, classes).double() * (1 - smoothing) + smoothing / classes
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(cross_entropy(logits, label, smoothing), expected)


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


def test_heads_that_differ_are_refused():
    label = torch.tensor([0])
    with pytest.raises(ValueError, match=r"heads differ: \['a'\] and \['b'\]"):
        cross_entropy({"a": torch.zeros(1, 2)}, {"b": label})
    with pytest.raises(ValueError, match=r"heads differ: one unnamed and \['b'\]"):
        cross_entropy(torch.zeros(1, 2), {"b": label})
    with pytest.raises(ValueError, match=r"heads differ: \['a'\] and one unnamed"):
        one_hot({"a": label}, 3)
