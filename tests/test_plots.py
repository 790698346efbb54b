"""The pictures say what the numbers say."""

import pytest
import torch
from matplotlib.figure import Figure

from vivit_zoo import plots


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
