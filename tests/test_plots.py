"""The pictures say what the numbers say."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from test_tables import row

from vivit_zoo import plots
from vivit_zoo.tables import interval


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    return figures


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for ax in figure.axes for text in ax.texts)


def test_few_classes_are_named_and_have_percentages(drawn, tmp_path):
    matrix = torch.tensor([[6, 2, 0], [0, 0, 0], [1, 0, 99]])  # the second class has no clips
    plots.confusion(matrix, ["swim", "run", "a name that is far too long to fit beside a picture"], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 5000
    (figure,) = drawn
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks == ["swim", "run", "a name that is far too …"]
    texts = words(figure).splitlines()
    assert texts[:4] == ["75", "25", "1", "99"]
    assert texts[4].startswith("accuracy 97.2% of 108 clips")
    assert [line.strip() for line in texts[6:]] == [
        "2 of 8  swim → run",
        "1 of 100  a name that is far too long t… → swim",
    ]


def test_many_classes_are_numbered_and_their_mistakes_dotted(drawn, tmp_path):
    matrix = 50 * torch.eye(400, dtype=torch.int64)
    matrix[7, 300], matrix[9, 9], matrix[9, 8] = 10, 49, 1
    plots.confusion(matrix, [f"class {i}" for i in range(400)], tmp_path / "c.png")
    (figure,) = drawn
    assert figure.axes[0].collections[0].get_offsets().tolist() == [[300, 7]]  # 2 % are no dot
    listed = [line.strip() for line in words(figure).splitlines()[2:]]
    assert listed == ["10 of 60  class 7 (7) → class 300 (300)", "1 of 50  class 9 (9) → class 8 (8)"]


def test_nothing_is_wrong_or_nothing_is_there(tmp_path):
    plots.confusion(torch.eye(2).long(), ["a", "b"], tmp_path / "c.png")
    plots.confusion(torch.zeros(40, 40).long(), [""] * 40, tmp_path / "c.png")


def test_names_must_fit(tmp_path):
    with pytest.raises(ValueError, match=r"a matrix \(2, 2\) is not of 3 classes"):
        plots.confusion(torch.eye(2), ["a", "b", "c"], tmp_path / "c.png")


def test_accuracies_have_a_point_a_seed_and_the_interval_as_a_bar(drawn, tmp_path):
    rows = [row("a", {0: 0.9, 1: 0.8, 2: 0.85}, ceiling=0.5), row("failed", {}), row("b", {0: 0.25})]
    plots.accuracies(rows, tmp_path / "a.png")
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
    plots.curves({"a": [lines, lines[:2]], "b": [lines]}, tmp_path / "c.png")
    loss, accuracy = drawn[0].axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[9, 4.5, 3], [9, 4.5], [9, 4.5, 3]]
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[25, 50, 75], [25, 50], [25, 50, 75]]
    assert [line.get_color() for line in loss.lines] == ["C0", "C0", "C1"]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["a", "b"]


def test_speeds_are_in_milliseconds_and_megabytes(drawn, tmp_path):
    nan = float("nan")
    plots.speeds({"a": [(8, 0.5, 3e6), (16, 1.5, 4e6)], "b": [(8, 0.25, nan)]}, "frames", tmp_path / "lines.png")
    plots.speeds({"a": [(1, 0.5, 3e6)], "b": [(1, 1.25, nan)]}, "", tmp_path / "bars.png")
    time, memory = drawn[0].axes
    assert [line.get_ydata().tolist() for line in time.lines] == [[500, 1500], [250]]
    assert memory.lines[0].get_ydata().tolist() == [3, 4]
    assert (time.get_xlabel(), time.get_ylabel(), memory.get_ylabel()) == ("frames", "ms a clip", "peak MB a batch")
    assert words(drawn[1]).split() == ["500", "1,250", "3", "unknown"]
    assert [bar.get_width() for bar in drawn[1].axes[0].patches] == [500, 1250]


def test_attention_is_drawn_from_its_least_to_its_greatest_share(drawn, tmp_path):
    frames = np.full((20, 8, 12, 1), 255, np.uint8)
    shares = torch.full((20, 2, 3), 0.005)
    shares[19, 1, 2] = 0.405
    even = torch.full((20, 2, 3), 1 / 120)
    plots.attention_sheet(frames, {"rollout": shares, "head": even}, tmp_path / "a.png", note="random weights")
    (figure,) = drawn
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["frames", "rollout: 0.6 to 49 times an even share", "head: 1 to 1 times an even share"]
    assert figure.get_supxlabel() == "random weights"
    frames, rollout, head = (ax.images[0].get_array() for ax in figure.axes)
    assert frames.shape == (8, 16 * 13, 3)  # of twenty sixteen, with a line between
    assert (rollout[4:, -5:-1] == rollout[4, -5]).all()  # a square a tubelet
    assert not (rollout[4, -5] == rollout[0, 0]).any()
    assert (head[:, :12] == rollout[0, 0]).all()


def test_a_film_of_attention_shows_the_frames_beside(tmp_path):
    frames = np.zeros((5, 8, 12, 3), np.uint8)
    frames[:, :, :, 0] = 255
    shares = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0))
    for fps, duration in ((10, 100), (200, 20)):
        plots.attention_film(frames, shares, tmp_path / "a.gif", fps)
        with Image.open(tmp_path / "a.gif") as film:
            assert (film.n_frames, film.size, film.info["duration"]) == (5, (24, 8), duration)
            first = np.asarray(film.convert("RGB"))
    assert (first[:, :12] == (255, 0, 0)).all()
    assert len({tuple(first[y, 12 + x]) for y in (0, 4) for x in (0, 4, 8)}) > 2
