"""Errors of predicted numbers, against scikit-learn's."""

import csv

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from vivit_zoo.evaluation.evaluate import evaluate
from vivit_zoo.evaluation.regression import RegressionScores


@given(st.integers(2, 20), st.integers(1, 3), st.integers(0, 99))
def test_errors_are_those_of_scikit_learn(clips, targets, seed):
    torch.manual_seed(seed)
    labels, outputs = (
        torch.randn(clips, targets) * torch.tensor([1.0, 100, 0.01])[:targets],
        torch.randn(clips, targets),
    )
    errors = RegressionScores(outputs, labels).errors()
    pair = labels.double().numpy(), outputs.double().numpy()
    for name, theirs in {"rmse": root_mean_squared_error, "mae": mean_absolute_error, "r2": r2_score}.items():
        expected = theirs(*pair, multioutput="raw_values")
        torch.testing.assert_close(errors[name], torch.as_tensor(expected), rtol=1e-9, atol=1e-12)


def test_one_target_has_its_unit():
    scores = RegressionScores(torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [1.0]]))
    assert scores.metrics() == {"rmse": pytest.approx(5**0.5), "mae": 2, "r2": pytest.approx(1 - 10 / 0.5)}
    assert scores.quality(scores.metrics()) == -scores.metrics()["rmse"]  # lower is better
    assert scores.summary(scores.metrics()) == "rmse 2.236"
    constant = RegressionScores(torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [2.0]]))
    assert constant.metrics().keys() == {"rmse", "mae"}  # r2 is not defined


def test_several_targets_count_alike_whatever_their_units():
    labels = torch.tensor([[1.0, 0.0], [2.0, 3.0], [4.0, 1.0]])
    outputs = labels + torch.tensor([[0.5, -1.0], [0.0, 1.0], [-0.5, 0.0]])
    unit = torch.tensor([1.0, 1000.0])
    first, second = (RegressionScores(outputs * u, labels * u).metrics(["speed", "size"]) for u in (1, unit))
    for name in ("rmse", "mae", "r2"):
        assert first[name] == pytest.approx(second[name])
    assert second["rmse_size"] == pytest.approx(1000 * first["rmse_size"])
    assert first["rmse_speed"] == second["rmse_speed"] == pytest.approx((0.5 / 3) ** 0.5)
    assert RegressionScores.summary(first).endswith(" deviations")
    assert RegressionScores(outputs, labels).notes() == []
    with pytest.raises(ValueError, match=r"a label for each of the predictions, \(3, 2\); got \(3,\)"):
        RegressionScores(outputs, labels[:, 0])


def test_targets_with_one_value_are_named_and_left_out_of_the_means():
    labels = torch.tensor([[1.0, 3.0], [2.0, 3.0], [4.0, 3.0]])
    scores = RegressionScores(labels + torch.tensor([0.5, 9.0]), labels)
    found = scores.metrics(["speed", "size"])
    assert found["rmse"] == pytest.approx(0.5 / labels[:, 0].std(correction=0).item())
    assert found["rmse_size"] == 9
    assert "r2_size" not in found
    left_out = "1 of 2 targets have one value in all test videos and are left out of rmse, mae and r2: "
    assert scores.notes(["speed", "size"]) == [left_out + "size"]
    assert scores.notes() == [left_out + "1"]
    assert RegressionScores(labels[:, :1], labels[:, 1:]).notes() == []  # one target has its unit, not deviations


def test_predictions_are_averaged_over_views_merged_and_written(tmp_path):
    video = torch.tensor([[1.0, 3.0], [4.0, 6.0]]).reshape(2, 2, 1, 1, 1, 1)
    labels = torch.tensor([[2.5], [1e7]])
    scores = RegressionScores.merge(
        [evaluate(lambda x: x.flatten(1), [(video, labels, torch.tensor([1, 0]))], kind=RegressionScores)]
    )
    assert scores.logits.tolist() == [[5.0], [2.0]]
    scores.save(tmp_path / "p.csv", ["a.mp4", "b.mp4"], ["speed"])
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert rows[1] == {"index": "1", "name": "b.mp4", "speed": "2.5", "speed_predicted": "2.0"}
