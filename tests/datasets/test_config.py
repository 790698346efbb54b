"""From a few plain values to the data sets of a run, of real files: what is asked for is what is read."""

from dataclasses import replace

import pytest
import torch

from tests.datasets.test_videos import numbers_in
from tests.footage import CLASSES, write_set
from vivit_zoo.datasets import DataConfig
from vivit_zoo.video.augment import Augment

# These tests do not train: one set of videos is enough.
pytestmark = pytest.mark.filterwarnings("ignore:.*are training videos too")

STILL = Augment(size=48, short_side=48, scale_jitter=(1, 1), flip=0, colour=0, gray=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    """A test set of two classes of three, whose own numbers would be others."""
    listed = tmp_path_factory.mktemp("lists") / "test.txt"
    listed.write_text("walk/walk_1.mp4 walk\nrun/run_0.mp4 run\n")
    return {"train": str(folder), "test": str(listed), "root": str(folder), "views": (2, 3), "augment": STILL}


def test_the_test_set_has_the_classes_of_training(config):
    data = DataConfig(**config).build((3, 4, 48, 48))
    assert list(data.classes) == CLASSES
    assert (len(data.train), len(data.look), len(data.test), data.views) == (6, 2, 2, 6)
    assert [data.look[i][1] for i in range(2)] == [data.test[i][1] for i in range(2)] == [2, 1]
    with pytest.raises(ValueError, match="num_classes is 2, the data set has 3"):
        data.check_classes(2)


def test_frames_are_those_that_were_asked_for(config):
    data = DataConfig(**config, stride=3).build((3, 4, 48, 64))
    start, *others = numbers_in(data.train[0][0])
    assert others == [start + 3, start + 6, start + 9]
    assert numbers_in(data.look[0][0][0]) == [4, 7, 10, 13]  # of 20 frames the middle
    assert [numbers_in(view) for view in data.test[0][0][:2]] == [[0, 3, 6, 9], [8, 11, 14, 17]]
    data = DataConfig(**config, where="uniform").build((3, 4, 48, 64))
    assert numbers_in(data.train[0][0]) == [2, 7, 12, 17]


@pytest.mark.parametrize("channels", [1, 3])
def test_clips_fit_the_model(config, channels):
    data = DataConfig(**config).build((channels, 4, 32, 40))
    assert data.train[0][0].shape == (channels, 4, 32, 40)
    assert data.look[0][0].shape == (1, channels, 4, 32, 40)
    assert data.test[0][0].shape == (6, channels, 4, 32, 40)
    assert data.train[0][0].dtype == data.test[0][0].dtype == torch.uint8
    with pytest.raises(ValueError, match="the model takes 2 channels; videos have 3"):
        DataConfig(**config).build((2, 4, 32, 32))


def test_classes_may_tell_what_a_mirror_shows(folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("walk/walk_0.mp4,swipe left\nrun/run_0.mp4,swipe right\n")
    fields = {"train": str(listed), "test": str(listed), "root": str(folder), "augment": Augment(flip=1)}
    for mirror, expected in {False: [0, 1], True: [1, 0]}.items():
        data = DataConfig(**fields, mirror=mirror).build((3, 4, 32, 32))
        assert [data.train[i][1] for i in range(2)] == expected


def test_what_is_built_in_can_be_read_like_files():
    """Shorter clips, other sizes, views and labels by head, all without a file."""
    fields = {"train_clips": 6, "test_clips": 4, "stride": 3, "views": (2, 1), "augment": STILL}
    data = DataConfig(train="numbered_digits:videos", **fields).build((1, 4, 48, 48))
    clip, label = data.train[0]
    assert clip.shape == (1, 4, 48, 48)
    assert clip.dtype == torch.uint8
    assert label.keys() == data.classes.keys() == {"number", "order"}
    assert (len(data.train), len(data.test), data.views, data.test[0][0].shape[0]) == (6, 4, 2, 2)
    plain = {"views": (1, 1), "stride": 1, "augment": replace(STILL, size=32, short_side=32)}
    whole = DataConfig(train="numbered_digits", **fields).build((1, 16, 32, 32))
    small = DataConfig(train="numbered_digits:videos", **fields | plain).build((1, 16, 32, 32))
    for index in range(4):
        (drawn, label), (read, same) = whole.test[index], small.test[index]
        assert (read[0] / 127.5 - 1 - drawn).abs().max() <= 0.5001 / 127.5
        assert label == same
    with pytest.raises(ValueError, match=r"moving_digits has \(1, 16, 32, 32\); moving_digits:videos is cut to fit"):
        DataConfig().build((1, 8, 32, 32))
    for name, value in {"test": "here", "held_out": 0.1, "root": "there"}.items():
        with pytest.raises(ValueError, match=f"moving_digits:videos has its own .* {name} is {value!r}, give {name}"):
            DataConfig(train="moving_digits:videos", **{name: value})
    with pytest.raises(ValueError, match=r"'moving_digits:video' is not there; built in are .*moving_digits:videos,"):
        DataConfig(train="moving_digits:video")


def test_items_of_other_tasks_can_be_stacked(folder, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\nwalk/walk_0.mp4,0;2\nrun/run_0.mp4,1\n")
    config = DataConfig(train=str(listed), test=str(listed), root=str(folder), task="multi_label")
    data = config.build((3, 4, 48, 48))
    assert [data.train[i][1].tolist() for i in range(2)] == [[1, 0, 1], [0, 1, 0]]
    assert [data.test[i][1].tolist() for i in range(2)] == [[1, 0, 1], [0, 1, 0]]
    assert data.train.labels() == [(0, 2), (1,)]
    assert data.num_classes == 3
    listed.write_text("path,score\nwalk/walk_0.mp4,0.5\nrun/run_0.mp4,1\n")
    data = replace(config, task="regression").build((3, 4, 48, 48))
    assert [data.test[i][1].tolist() for i in range(2)] == [[0.5], [1.0]]
    assert (data.classes, data.num_classes) == (["score"], 1)
    listed.write_text("path,left,right\nwalk/walk_0.mp4,0.5,3\nrun/run_0.mp4,1,-1\n")
    mirrored = replace(config, task="regression", targets=["left", "right"], mirror=True, augment=Augment(flip=1))
    data = mirrored.build((3, 4, 48, 48))
    assert [data.train[i][1].tolist() for i in range(2)] == [[0.5, 3.0], [1.0, -1.0]]
    assert data.classes == ["left", "right"]
    listed.write_text("path,label\nwalk/walk_0.mp4,left;run\nrun/run_0.mp4,right\n")
    data = replace(mirrored, task="multi_label", targets=()).build((3, 4, 48, 48))
    assert data.classes == ["left", "right", "run"]
    assert [data.train[i][1].tolist() for i in range(2)] == [[0, 1, 1], [1, 0, 0]]  # the mirror image of each clip
    with pytest.raises(
        ValueError, match="task 'ranking' is unknown; choose from single_label, multi_label, regression"
    ):
        DataConfig(task="ranking")
    with pytest.raises(
        ValueError, match="moving_digits has one class a clip; the task 'regression' needs videos of your"
    ):
        DataConfig(task="regression")
