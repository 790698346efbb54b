"""MovingDigits is what it says: deterministic, balanced, with the ceilings that its construction promises."""

import pytest
import torch
from torch.utils.data import DataLoader

from vivit_zoo.datasets.digits import MovingDigits, NumberedDigits


@pytest.fixture(scope="module")
def clips():
    """300 clips as (videos (b, 1, t, h, w), labels (b,))."""
    return next(iter(DataLoader(MovingDigits("train"), batch_size=300)))


def test_shape_range_and_classes(clips):
    videos, labels = clips
    assert videos.shape == (300, 1, 16, 32, 32)
    assert videos.dtype == torch.float32
    assert videos.min() == -1
    assert 0.9 < videos.max() <= 1
    assert (labels.bincount(minlength=6) > 30).all()
    assert MovingDigits.orders[:2] == ("right then down", "right then clockwise")


def test_motions_go_where_the_class_says():
    """Shifting or turning one frame by its motion gives the next, in each part of the clip, far better than not."""
    dataset = MovingDigits("train")
    for index in range(12):
        draw = dataset._draw(index)
        video = (dataset[index][0][0] + 1) / 2
        switch = int(draw["switch"])
        for part, first in ((0, 0), (1, switch)):
            motion = draw["motion"][part]
            a, b = video[first], video[first + 1]
            still = (a - b).square().mean()
            if motion < 2:
                shift, axis = round(float(draw["speed"][part])), (1, 0)[motion]
                moved = (a.roll(shift, axis) - b).square().mean()
                back = (a.roll(-shift, axis) - b).square().mean()
                assert moved < still < back or moved < still / 2
            else:
                x, y = draw["place"][part]
                turned = rotate_about(a, x, y, float(draw["spin"][part]))
                assert (turned - b).square().mean() < still


def rotate_about(frame, x, y, angle):
    """Turn a torus clockwise (y down) about a point, by nearest pixels."""
    rows, columns = torch.meshgrid(torch.arange(32.0) + 0.5, torch.arange(32.0) + 0.5, indexing="ij")
    dx, dy = ((columns - x + 16) % 32) - 16, ((rows - y + 16) % 32) - 16
    angle = torch.tensor(angle)
    source_x = x + angle.cos() * dx + angle.sin() * dy
    source_y = y + angle.cos() * dy - angle.sin() * dx
    return frame[(source_y.floor() % 32).long(), (source_x.floor() % 32).long()]


def test_no_tubelet_of_two_frames_holds_the_switch():
    """Else it would show which motion came first, and a bag of tubelets could pass its ceiling of 1/2."""
    switches = [int(MovingDigits("train")._draw(index)["switch"]) for index in range(60)]
    assert set(switches) == {6, 8, 10}  # symmetric about the middle, so that lengths do not tell the order either


def test_reversed_label_swaps_the_motions():
    for label, (first, second) in enumerate(MovingDigits.pairs):
        assert MovingDigits.pairs[MovingDigits.reversed_label(label)] == (second, first)


def test_a_single_frame_looks_alike_in_all_classes(clips):
    """Pixel by pixel the classes' mean frames differ as much as chance makes them, at any time."""
    videos, labels = clips
    for frame in (0, 5, 8, 15):
        pixels = videos[:, 0, frame]
        for label in range(6):
            mine, others = pixels[labels == label], pixels[labels != label]
            z = (mine.mean(0) - others.mean(0)) / (mine.var(0) / len(mine) + others.var(0) / len(others)).sqrt()
            assert z.square().mean() < 4  # by chance 1, at most 2.5 over four seeds; a place that tells the class: 38


def test_numbered_digits_are_the_same_clips_with_two_labels():
    plain, numbered = MovingDigits("test", 20), NumberedDigits("test", 20)
    for index in range(20):
        (video, order), (same, labels) = plain[index], numbered[index]
        assert torch.equal(video, same)
        assert labels == {"number": plain.numbers[plain._draw(index)["digit"]], "order": order}
    assert {head: len(names) for head, names in numbered.classes.items()} == {"number": 10, "order": 6}
