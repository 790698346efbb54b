"""What all embedded data sets share: determined clips, splits without common digits, balanced classes, videos."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vivit_zoo.datasets.config import DataConfig
from vivit_zoo.datasets.cups import HiddenDigits
from vivit_zoo.datasets.digits import MovingDigits, NumberedDigits
from vivit_zoo.datasets.turns import TurningDigits

TASK = {MovingDigits: {"motion"}, HiddenDigits: {"start", "order"}, TurningDigits: {"direction"}}
KINDS = list(TASK)


@given(
    kind=st.sampled_from(KINDS),
    indices=st.lists(st.integers(0, 99), min_size=1, max_size=5),
    seed=st.integers(0, 3),
)
def test_a_clip_does_not_depend_on_what_is_loaded_beside_it(kind, indices, seed):
    dataset = kind("test", length=100, seed=seed)
    for index, (video, label) in zip(indices, dataset.__getitems__(indices), strict=True):
        alone, its_label = dataset[index]
        assert torch.equal(video, alone)
        assert label == its_label


@pytest.mark.parametrize("kind", KINDS)
def test_splits_seeds_and_indices_give_other_clips(kind):
    clips = [kind("train")[0], kind("train")[1], kind("train", seed=1)[0], kind("test")[0]]
    videos = [video for video, _ in clips]
    assert not any(torch.equal(videos[i], videos[j]) for i in range(4) for j in range(i))


def test_splits_share_no_digit():
    train, test = MovingDigits("train").digits, MovingDigits("test").digits
    assert len(train) + len(test) == 1797
    assert torch.cdist(train.flatten(1), test.flatten(1)).min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_classes_are_balanced_and_only_the_task_depends_on_them(kind):
    """Every other random value has the same mean in all classes, up to four standard errors."""
    dataset = kind("train")
    draws = [dataset._draw(index) for index in range(1200)]
    labels = torch.tensor([dataset._label(draw) for draw in draws])
    counts = labels.bincount(minlength=len(kind.classes))
    assert (counts > 0.75 * len(draws) / len(kind.classes)).all()
    for name in draws[0].keys() - TASK[kind]:
        values = torch.tensor(np.array([np.atleast_1d(draw[name]).ravel() for draw in draws]), dtype=torch.float64)
        for label, count in enumerate(counts):
            error = values.std(0) / count**0.5
            assert ((values[labels == label].mean(0) - values.mean(0)).abs() < 4 * error).all(), name


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


@pytest.mark.parametrize("kind", [*KINDS, NumberedDigits])
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
