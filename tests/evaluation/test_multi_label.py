"""Average precision against scikit-learn and its definition; several labels a clip in files and over views."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from vivit_zoo.evaluation.evaluate import average_views, evaluate
from vivit_zoo.evaluation.multi_label import MultiLabelScores, average_precision


def few_values(clips, seed):
    """Scores with many ties, and labels of which at least one is positive."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, clips)
    labels[rng.integers(clips)] = 1
    return torch.tensor(rng.integers(0, max(2, clips // 2), clips) / 3.0), torch.tensor(labels)


@given(st.integers(1, 30), st.integers(0, 999))
def test_average_precision_is_that_of_scikit_learn(clips, seed):
    scores, labels = few_values(clips, seed)
    expected = average_precision_score(labels.numpy(), scores.numpy())
    assert average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 12), st.integers(0, 999))
def test_average_precision_is_the_mean_precision_at_the_positives(clips, seed):
    """The definition, clip by clip: of those with at least a positive's score, the share of positives."""
    scores, labels = few_values(clips, seed)
    at = [labels[scores >= score].double().mean() for score, label in zip(scores, labels, strict=True) if label]
    assert average_precision(scores, labels) == pytest.approx(float(np.mean(at)), abs=1e-12)


def test_classes_without_positives_are_left_out_and_named():
    logits = torch.tensor([[3.0, 0.0, 1.0], [1.0, 2.0, 1.0], [2.0, 1.0, 0.0]])
    scores = MultiLabelScores(logits, torch.tensor([[1, 0, 0], [0, 0, 1], [1, 0, 1.0]]))
    each = scores.average_precision()
    assert each[[0, 2]].tolist() == pytest.approx([1.0, (1 / 2 + 2 / 3) / 2])
    assert each[1].isnan()
    assert scores.metrics() == {"mAP": pytest.approx((1 + 7 / 12) / 2)}
    assert scores.quality(scores.metrics()) == scores.metrics()["mAP"]
    assert scores.summary(scores.metrics()) == "mAP 79.2%"
    assert scores.report(["a", "b", "c"]) == {"mAP": scores.metrics()["mAP"], "AP a": 1, "AP c": pytest.approx(7 / 12)}
    assert scores.notes(["a", "b", "c"]) == ["1 of 3 classes are in no test video and left out of mAP: b"]
    nothing = MultiLabelScores(logits, torch.zeros(3, 3))
    assert nothing.metrics() == {}
    assert np.isnan(nothing.quality(nothing.metrics()))
    with pytest.raises(ValueError, match=r"0 or 1 for each class, \(3, 3\); got \(3, 3\) of torch.float32"):
        MultiLabelScores(logits, torch.full((3, 3), 2.0))
    with pytest.raises(ValueError, match=r"for each class, \(3, 3\); got \(3,\) of torch.int64"):
        MultiLabelScores(logits, torch.tensor([0, 1, 0]))


@given(st.integers(1, 4), st.floats(0.1, 200), st.integers(0, 99))
def test_views_are_averaged_as_probabilities(views, scale, seed):
    """Exactly, even where float32 would round them to 0 or 1."""
    logits = scale * torch.randn(views, 2, 3, generator=torch.Generator().manual_seed(seed))
    of_view = iter(logits)
    mean = average_views(lambda _: next(of_view), torch.zeros(2, views, 1, 1, 1, 1), "sigmoid")
    assert mean.isfinite().all()
    torch.testing.assert_close(mean.sigmoid(), logits.sigmoid().mean(0))
    if views == 1:
        torch.testing.assert_close(mean, logits[0])


def test_batches_merge_and_are_written(tmp_path):
    weight = torch.tensor([[2.0, -1.0, 0.5]])
    video = torch.tensor([1.0, -2.0, 3.0]).reshape(3, 1, 1, 1, 1, 1)
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 0]])
    batches = [(video[at], labels[at], torch.tensor(at)) for at in ([2, 0], [1])]
    parts = [evaluate(lambda x: x.flatten(1) @ weight, [batch], kind=MultiLabelScores) for batch in batches]
    scores = MultiLabelScores.merge(parts)
    assert torch.equal(scores.labels, labels)
    scores.save(tmp_path / "p.csv", ["a.mp4", "b.mp4", "c.mp4"], ["run", "sit", "walk"], top=2)
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["labels"] for row in rows] == ["run;walk", "", "run;sit"]
    assert [row["top1"] for row in rows] == ["run", "sit", "run"]
    assert float(rows[0]["top1_probability"]) == pytest.approx(torch.tensor(2.0).sigmoid().item(), abs=1e-6)
    scores.save(tmp_path / "p.npz")
    assert torch.equal(MultiLabelScores.load(tmp_path / "p.npz").logits, scores.logits)
    with pytest.raises(ValueError, match="average 'mean' is unknown; choose from logits, softmax, sigmoid"):
        average_views(lambda x: x, video, "mean")
