"""Losses and weights of classes, against the original's numbers and against formulas written another way."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vivit_zoo.training.losses import balanced_weights, binary_cross_entropy, cross_entropy, one_hot, squared_error


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


def test_heads_that_differ_are_refused():
    label = torch.tensor([0])
    with pytest.raises(ValueError, match=r"heads differ: \['a'\] and \['b'\]"):
        cross_entropy({"a": torch.zeros(1, 2)}, {"b": label})
    with pytest.raises(ValueError, match=r"heads differ: one unnamed and \['b'\]"):
        cross_entropy(torch.zeros(1, 2), {"b": label})
    with pytest.raises(ValueError, match=r"heads differ: \['a'\] and one unnamed"):
        one_hot({"a": label}, 3)


@given(st.integers(1, 6), st.integers(1, 7), st.floats(0, 0.9), st.booleans(), st.integers(0, 99))
def test_binary_cross_entropy_is_the_formula(batch, classes, smoothing, weighted, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    target = torch.rand(batch, classes, generator=generator, dtype=torch.float64).round(decimals=1)
    weights = torch.rand(classes, generator=generator, dtype=torch.float64) * 3 if weighted else None
    y, p = target + smoothing * (0.5 - target), 1 / (1 + torch.exp(-logits))
    expected = -((1 if weights is None else weights) * y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(binary_cross_entropy(logits, target, smoothing, weights), expected)


@given(st.integers(1, 4), st.integers(2, 5), st.floats(0, 0.9), st.sampled_from(["hard", "soft"]), st.integers(0, 99))
def test_weighted_losses_of_parts_add_up(parts, classes, smoothing, form, seed):
    """Unlike torch's mean by weights, so that accumulated parts and processes make the same step."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3 * parts, classes, generator=generator, dtype=torch.float64)
    label = torch.randint(classes, (3 * parts,), generator=generator)
    target = label if form == "hard" else one_hot(label, classes).double()
    weights = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.1
    whole = cross_entropy(logits, target, smoothing, weights)
    split = [cross_entropy(x, y, smoothing, weights) for x, y in zip(logits.split(3), target.split(3), strict=True)]
    torch.testing.assert_close(torch.stack(split).mean(), whole)
    if not smoothing:
        torch.testing.assert_close(whole, -(weights[label] * logits.log_softmax(1)[range(len(label)), label]).mean())
    heads = cross_entropy({"a": logits, "b": logits}, {"a": target, "b": target}, 0.0, {"a": weights, "b": weights})
    torch.testing.assert_close(heads, cross_entropy(logits, target, 0.0, weights))


def test_squared_error_refuses_to_broadcast():
    outputs = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert squared_error(outputs, torch.zeros(2, 2)) == pytest.approx(30 / 4)
    with pytest.raises(ValueError, match=r"outputs are \(2, 2\), targets \(2,\); they must be equal"):
        squared_error(outputs, torch.zeros(2))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_balanced_weights_are_those_of_scikit_learn(labels):
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    weights = balanced_weights(labels, 6)
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=labels), rtol=1e-6)
    assert weights[labels].mean().item() == pytest.approx(1)
    assert weights[5] == 1  # no clip of it


def test_balanced_weights_of_several_labels_make_up_for_the_rare_positives():
    labels = [(0, 1), (0,), (0, 1), (), (0, 3), (0,)]
    assert balanced_weights(labels, 4, several=True).tolist() == pytest.approx([1 / 5, 4 / 2, 1, 5 / 1])
    assert balanced_weights([(0,), (0, 1)], 2, several=True).tolist() == [1, 1]  # a class that all clips have
