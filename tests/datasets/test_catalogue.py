"""Labels become class numbers, the same for training and testing, whatever form they come in."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datasets.test_formats import touch, write
from vivit_zoo.datasets import DataConfig, read_catalogue
from vivit_zoo.datasets.catalogue import Catalogue, Entry, shared_videos, warn_of_shared_videos
from vivit_zoo.datasets.sources import VideoFile


def labels_of(folder, text, classes=None):
    touch(folder, "a.mp4", "b.mp4")
    catalogue = read_catalogue(write(folder / "list.txt", text), classes=classes)
    return [entry.label for entry in catalogue.entries], list(catalogue.classes)


def test_a_test_set_has_the_classes_of_the_training_set(tmp_path):
    _, classes = labels_of(tmp_path, "a.mp4 walk\nb.mp4 run\n")
    assert classes == ["run", "walk"]
    assert labels_of(tmp_path, "a.mp4 walk\n", classes) == ([1], classes)
    assert labels_of(tmp_path, "a.mp4 0\n", classes) == ([0], classes)
    with pytest.raises(ValueError, match=r"line 1: the label 'swim' is not among the 2 classes, such as 'run', 'walk'"):
        labels_of(tmp_path, "a.mp4 swim\nb.mp4 run\n", classes)
    with pytest.raises(ValueError, match=r"line 2: the label 7 is not in 0 to 1, the numbers of the classes\n"):
        labels_of(tmp_path, "a.mp4 0\nb.mp4 7\n", classes)


def test_folders_in_another_order_of_classes(tmp_path):
    touch(tmp_path, "run/a.mp4", "walk/b.mp4")
    catalogue = read_catalogue(tmp_path, classes=["walk", "fly", "run"])
    assert [entry.label for entry in catalogue.entries] == [2, 0]
    assert catalogue.classes == ["walk", "fly", "run"]


def test_labels_that_are_no_classes(tmp_path):
    with pytest.raises(ValueError, match=r"line 1: the label -1 is below 0"):
        labels_of(tmp_path, "a.mp4 -1\nb.mp4 3\n")
    with pytest.raises(ValueError, match=r"the label 20261124 is no class number, of which there are at most 1000000"):
        labels_of(tmp_path, "a.mp4 1\nb.mp4 20261124\n")
    with pytest.raises(ValueError, match="has one label a video, but classes are given by head: verb"):
        labels_of(tmp_path, "a.mp4 0\n", {"verb": ["take"]})


def test_nothing_there_asks_for_the_root(tmp_path):
    with pytest.raises(
        ValueError, match=r"none of its 2 videos is there, such as .*gone/a\.mp4; give the folder .*root="
    ):
        labels_of(tmp_path, "gone/a.mp4 0\ngone/b.mp4 1\n")
    with pytest.raises(ValueError, match=r"there are no videos in it; all 1 are absent, such as x_000001_000002"):
        read_catalogue(write(tmp_path / "k.csv", "label,youtube_id,time_start,time_end\nrun,x,1,2\n"))


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), share=st.floats(0.01, 0.99))
def test_held_out_are_the_last_of_each_class(labels, share):
    catalogue = Catalogue([Entry(VideoFile(f"{i}.mp4"), label) for i, label in enumerate(labels)], list("abcde"))
    counts = {label: labels.count(label) for label in set(labels)}
    if max(counts.values()) == 1:
        with pytest.raises(ValueError, match="there is none to hold out for testing"):
            catalogue.hold_out(share)
        return
    train, test = catalogue.hold_out(share)
    assert train.classes == test.classes == catalogue.classes
    for label, count in counts.items():
        of_class = [entry for entry in catalogue.entries if entry.label == label]
        kept = [entry for entry in train.entries if entry.label == label]
        held = [entry for entry in test.entries if entry.label == label]
        assert kept + held == of_class
        assert kept
        assert bool(held) == (count > 1)
        assert abs(len(held) - share * count) <= 1


def test_a_share_is_held_out_where_there_is_no_test_set(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("run", "walk") for i in range(5)))
    data = DataConfig(train=str(tmp_path), held_out=0.4).build((3, 4, 32, 32))
    assert (len(data.train), len(data.test)) == (6, 4)
    assert data.names == [str(tmp_path / f"{name}/{i}.mp4") for name in ("run", "walk") for i in (3, 4)]
    assert data.num_classes == 2
    with pytest.raises(ValueError, match="or the share held_out of the training videos"):
        DataConfig(train=str(tmp_path))


def test_videos_that_are_in_training_and_test_are_counted(tmp_path):
    """By their paths, however they are written; equal seconds of one file, and not other seconds."""
    names = [f"{name}/{number}.mp4" for name in ("run", "walk") for number in range(2)]
    touch(tmp_path / "set", *names)
    table = "path,label\n" + "".join(f"../set/{name},{name[:-6]}\n" for name in names[1:3])
    train, test = read_catalogue(tmp_path / "set"), read_catalogue(write(tmp_path / "set" / "test.csv", table))
    assert len(shared_videos(train, test)) == 2
    with pytest.warns(UserWarning, match=r"2 of 2 test videos are training videos too, such as .*run/1\.mp4: the res"):
        warn_of_shared_videos(train, test)
    parts = [Catalogue([Entry(VideoFile(Path("a.mp4"), start, start + 1), 0)], ["a"]) for start in (0, 1)]
    assert [len(shared_videos(parts[0], part)) for part in parts] == [1, 0]
    warn_of_shared_videos(*parts)
    warn_of_shared_videos(*train.hold_out(0.5))
