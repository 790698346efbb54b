"""The pictures of a study show what its numbers say."""

import math

import numpy as np
import pytest

from tests.studies.test_tables import row
from vivit_zoo.studies import pictures
from vivit_zoo.studies.comparisons import Design, compare
from vivit_zoo.studies.measures import Accuracy, ClipsToReach
from vivit_zoo.studies.statistics import t_interval


def lines_with(ax, marker):
    return [line for line in ax.lines if line.get_marker() == marker]


def test_a_measure_has_a_point_for_each_seed_and_its_interval_if_that_is_possible(drawn, tmp_path):
    rows = [
        row("a", {0: 0.9, 1: 0.8, 2: 0.85}, ceiling=0.5),
        row("failed", {}),
        row("b", {0: 0.25}),
        row("beyond", {0: 1.0, 1: 0.7}),  # whose interval leaves 100 %
    ]
    pictures.measured(rows, Accuracy(), tmp_path / "a.png")
    (ax,) = drawn[0].axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "failed", "b", "beyond"]
    points = [(int(line.get_ydata()[0]), round(line.get_xdata()[0], 6)) for line in lines_with(ax, "o")]
    assert points == [(0, 90), (0, 80), (0, 85), (2, 25), (3, 100), (3, 70)]
    (bar,) = [line for line in ax.lines if len(line.get_xdata()) == 2]
    middle, half = t_interval([90, 80, 85])
    assert bar.get_xdata() == pytest.approx([middle - half, middle + half])
    means = [line.get_xdata()[0] for line in lines_with(ax, "|") if len(line.get_xdata()) == 1]
    assert means == pytest.approx([85, 25, 85])
    dotted = [one for one in ax.collections if one.get_linestyle()[0][1] is not None]
    assert [one.get_segments()[0][0, 0] for one in dotted] == [50]


def reaching(name, *clips):
    made = row(name, dict.fromkeys(range(len(clips)), 0.9))
    for seed, one in enumerate(clips):
        made.results[seed] |= {"clips": min(one, 10_000), "reached": one <= 10_000}
    return made


def test_clips_have_a_logarithmic_axis_and_hollow_triangles_for_runs_that_did_not_get_there(drawn, tmp_path):
    pictures.measured([reaching("a", 1000, 2000), reaching("b", 5000, 20_000)], ClipsToReach(), tmp_path / "a.png")
    (ax,) = drawn[0].axes
    assert ax.get_xscale() == "log"
    assert [line.get_xdata()[0] for line in lines_with(ax, ">")] == pytest.approx([10_000])
    assert [line.get_xdata()[0] for line in lines_with(ax, "o")] == pytest.approx([1000, 2000, 5000])


def test_a_forest_shows_intervals_around_zero_and_whether_they_decide(drawn, tmp_path):
    rows = [
        row("first", {0: 0.9, 1: 0.8, 2: 0.85}),
        row("better", {0: 0.99, 1: 0.9, 2: 0.94}),
        row("failed", {}),
        row("open", {0: 0.1, 1: 0.9, 2: 0.8}),
    ]
    pictures.forest(rows, Design(margin=3.0), tmp_path / "f.png")
    (ax,) = drawn[0].axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["better", "open"]
    better, open_one = (compare(row, rows[0], Design()) for row in (rows[1], rows[3]))
    bars = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] in (0, 1)]
    assert bars[0] == pytest.approx([better.middle - better.half, better.middle + better.half])
    assert bars[1][0] == pytest.approx(max(-100, open_one.middle - open_one.half))
    points = lines_with(ax, "o")
    assert [line.get_xdata()[0] for line in points] == pytest.approx([better.middle, open_one.middle])
    assert [line.get_markerfacecolor() for line in points] == ["C0", "white"]
    bands = [band.get_paths()[0].get_extents().extents[[0, 2]] for band in ax.collections]
    assert np.array(bands) == pytest.approx(np.array([[-3, 3]] * 2))
    assert drawn[0].axes[0].get_xlabel() == "difference of accuracy, from first"


def test_a_forest_of_ratios_is_around_one_and_points_where_the_truth_is(drawn, tmp_path):
    rows = [reaching("first", 1000, 2000, 1500), reaching("slow", 20_000, 20_000, 9000)]
    pictures.forest(rows, Design(ClipsToReach()), tmp_path / "f.png")
    (ax,) = drawn[0].axes
    (point,) = lines_with(ax, ">")
    assert point.get_xdata()[0] == pytest.approx((10 * 5 * 6) ** (1 / 3))
    assert any(list(line.get_xdata()) == [1, 1] for line in ax.lines)
    (band,) = [band.get_paths()[0].get_extents().extents[[0, 2]] for band in ax.collections]
    assert band == pytest.approx([0.8, 1.25])


@pytest.mark.parametrize(("clips", "close"), [((900, 1900, 1500), True), ((9000, 190, 8000), False)])
def test_a_forest_of_close_ratios_has_more_ticks(drawn, tmp_path, clips, close):
    rows = [reaching("first", 1000, 2000, 1500), reaching("other", *clips)]
    pictures.forest(rows, Design(ClipsToReach()), tmp_path / "f.png")
    (ax,) = drawn[0].axes
    shown = [round(tick, 3) for tick in ax.get_xticks()]
    assert (0.9 in shown) == close
    assert 1 in shown


def test_cost_has_a_point_for_each_seed_and_the_mean(drawn, tmp_path):
    rows = [row("a", {0: 0.9, 1: 0.8}, ceiling=0.5), row("failed", {})]
    pictures.measure_vs_gmacs(rows, Accuracy(), tmp_path / "c.png")
    (ax,) = drawn[0].axes
    assert [line.get_ydata().tolist() for line in lines_with(ax, ".")] == [[90, 80]]
    (mean,) = lines_with(ax, "o")
    assert (mean.get_xdata()[0], mean.get_ydata()[0]) == pytest.approx((0.0242, 85))


def test_curves_have_the_median_and_a_band_and_keep_the_end_of_runs_that_stopped(drawn, tmp_path):
    lines = [{"step": step, "loss": 9 / step, "accuracy": step / 4} for step in (1, 2, 3)]
    other = [{"step": step, "loss": 3.0, "accuracy": 0.5} for step in (1, 2)]
    pictures.curves({"a": [lines, lines, other], "b": [lines]}, tmp_path / "c.png")
    loss, accuracy = drawn[0].axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[9, 4.5, 3], [9, 4.5, 3]]
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[25, 50, 75]] * 2
    assert [line.get_color() for line in loss.lines] == ["C0", "C1"]
    (band,) = accuracy.collections  # one seed has none
    assert band.get_paths()[0].get_extents().extents == pytest.approx([1, 25, 3, 75])
    low = band.get_paths()[0].vertices
    assert low[np.isclose(low[:, 0], 3)][:, 1].min() == pytest.approx(50)
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["a", "b"]


def test_all_pictures_of_a_study_are_written(tmp_path):
    rows = [reaching("first", 1000, 2000), reaching("slow", 3000, 20_000)]
    for design in (Design(), Design(ClipsToReach(), margin=math.log(2))):
        pictures.draw_results(rows, design, tmp_path)
        assert {file.name for file in tmp_path.iterdir()} == {"points.png", "forest.png", "cost.png"}
        for file in tmp_path.iterdir():
            assert file.stat().st_size > 3000
            file.unlink()
    pictures.draw_results(rows[:1], Design(), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"points.png", "cost.png"}
