"""The pictures of a study say what its numbers say."""

import pytest

from tests.studies.test_tables import row
from vivit_zoo.studies import pictures
from vivit_zoo.studies.tables import interval


def test_accuracies_have_a_point_a_seed_and_the_interval_as_a_bar(drawn, tmp_path):
    rows = [row("a", {0: 0.9, 1: 0.8, 2: 0.85}, ceiling=0.5), row("failed", {}), row("b", {0: 0.25})]
    pictures.accuracies(rows, tmp_path / "a.png")
    (ax,) = drawn[0].axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "failed", "b"]
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in points] == [pytest.approx([90, 80, 85]), [25]]
    assert [line.get_ydata().tolist() for line in points] == [[0, 0, 0], [2]]
    bar = ax.containers[0].lines[2][0].get_segments()[0][:, 0]
    middle, half = interval([90, 80, 85])
    assert bar == pytest.approx([middle - half, middle + half])
    assert len(ax.containers[1].lines[2]) == 0  # a single seed has none
    dotted = [one for one in ax.collections if one.get_linestyle()[0][1] is not None]
    assert [one.get_segments()[0][0, 0] for one in dotted] == [50]


def test_curves_have_a_colour_a_setting_and_a_line_a_seed(drawn, tmp_path):
    lines = [{"step": step, "loss": 9 / step, "accuracy": step / 4} for step in (1, 2, 3)]
    pictures.curves({"a": [lines, lines[:2]], "b": [lines]}, tmp_path / "c.png")
    loss, accuracy = drawn[0].axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[9, 4.5, 3], [9, 4.5], [9, 4.5, 3]]
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[25, 50, 75], [25, 50], [25, 50, 75]]
    assert [line.get_color() for line in loss.lines] == ["C0", "C0", "C1"]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["a", "b"]
