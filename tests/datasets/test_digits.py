"""MovingDigits is what it says: deterministic, balanced, with the ceilings that its construction promises."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from vivit_zoo.datasets.config import DataConfig
from vivit_zoo.datasets.cups import HiddenDigits
from vivit_zoo.datasets.digits import MovingDigits, NumberedDigits
from vivit_zoo.datasets.turns import TurningDigits


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


@given(
    kind=st.sampled_from([MovingDigits, HiddenDigits, TurningDigits]),
    indices=st.lists(st.integers(0, 99), min_size=1, max_size=5),
    seed=st.integers(0, 3),
)
def test_a_clip_does_not_depend_on_what_is_loaded_beside_it(kind, indices, seed):
    dataset = kind("test", length=100, seed=seed)
    for index, (video, label) in zip(indices, dataset.__getitems__(indices), strict=True):
        alone, its_label = dataset[index]
        assert torch.equal(video, alone)
        assert label == its_label


def test_splits_seeds_and_indices_give_other_clips():
    clips = [
        MovingDigits("train")[0],
        MovingDigits("train")[1],
        MovingDigits("train", seed=1)[0],
        MovingDigits("test")[0],
    ]
    videos = [video for video, _ in clips]
    assert not any(torch.equal(videos[i], videos[j]) for i in range(4) for j in range(i))


def test_splits_share_no_digit():
    train, test = MovingDigits("train").digits, MovingDigits("test").digits
    assert len(train) + len(test) == 1797
    assert torch.cdist(train.flatten(1), test.flatten(1)).min() > 0


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


@pytest.mark.parametrize("name", ["digit", "size", "switch", "place", "angle", "speed", "spin"])
def test_nothing_but_the_motion_depends_on_the_class(name):
    draws = [MovingDigits("train")._draw(index) for index in range(1200)]
    values = torch.tensor(np.array([np.atleast_1d(draw[name]).ravel() for draw in draws]), dtype=torch.float64)
    labels = torch.tensor([MovingDigits.pairs.index(tuple(draw["motion"])) for draw in draws])
    for label in range(6):
        mine = values[labels == label]
        error = values.std(0) / len(mine) ** 0.5
        assert ((mine.mean(0) - values.mean(0)).abs() < 4 * error).all()


@pytest.mark.parametrize("index", [-1, 10])
def test_index_outside(index):
    with pytest.raises(IndexError, match=f"clip {index} of a data set with 10"):
        MovingDigits("test", length=10)[index]


def test_unknown_split():
    with pytest.raises(ValueError, match="split 'val' is unknown; choose from train, test"):
        MovingDigits("val")


def test_unknown_difficulty():
    with pytest.raises(ValueError, match="moving digits have no difficulty 1; leave it out"):
        MovingDigits(difficulty=1)
    with pytest.raises(ValueError, match="turning digits have no difficulty 4; choose from 1, 2, 3"):
        TurningDigits(difficulty=4)
    with pytest.raises(ValueError, match="hidden digits have no difficulty 0; choose from 1, 2, 3"):
        DataConfig(train="hidden_digits", difficulty=0).build((1, 16, 32, 32))
    with pytest.raises(ValueError, match="difficulty 2 is of embedded data sets only; leave it out for 'clips'"):
        DataConfig(train="clips", test="clips", difficulty=2)


def test_the_difficulty_of_a_configuration_reaches_both_splits():
    data = DataConfig(train="turning_digits", difficulty=3).build((1, 16, 32, 32))
    assert (data.train.difficulty, data.test.difficulty) == (3, 3)


def test_numbered_digits_are_the_same_clips_with_two_labels():
    plain, numbered = MovingDigits("test", 20), NumberedDigits("test", 20)
    for index in range(20):
        (video, order), (same, labels) = plain[index], numbered[index]
        assert torch.equal(video, same)
        assert labels == {"number": plain.numbers[plain._draw(index)["digit"]], "order": order}
    assert {head: len(names) for head, names in numbered.classes.items()} == {"number": 10, "order": 6}


@pytest.mark.parametrize("kind", [MovingDigits, NumberedDigits, HiddenDigits, TurningDigits])
def test_clips_as_videos(kind):
    """To half a step of 255 the same pixels, in the same order, under the same labels."""
    dataset = kind("train", 5)
    videos = dataset.videos()
    assert videos.classes == dataset.classes
    for index, (place, label) in enumerate(videos.entries):
        clip, same = dataset[index]
        assert label == same
        with place.open(gray=True) as video, place.open() as coloured:
            frames = torch.from_numpy(video.read([3, 3, 15]))
            assert (frames[..., 0] / 127.5 - 1 - clip[0, [3, 3, 15]]).abs().max() <= 0.5001 / 127.5
            assert (coloured.read([15])[0] == video.read([15])[0]).all()
            assert (len(video), video.times[-1]) == (16, 15 / 16)
            with pytest.raises(IndexError, match=f"{kind.name}, train clip {index}: there is no frame 16"):
                video.read([16])
