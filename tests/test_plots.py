"""The pictures say what the numbers say."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from vivit_zoo import plots


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


def test_colours_are_drawn_as_they_are(drawn, tmp_path):
    frames = np.zeros((2, 4, 6, 3), np.uint8)
    colours = torch.zeros(2, 2, 3, 3)
    colours[1, 0, 2] = torch.tensor([1.0, 0.5, 0.0])
    plots.attention_sheet(frames, {"features": colours}, tmp_path / "a.png")
    _, row = (ax.images[0].get_array() for ax in drawn[0].axes)
    assert (row[:2, 11:13] == [255, 128, 0]).all()  # the second frame begins after a line
    assert not row[2:, :6].any()


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
