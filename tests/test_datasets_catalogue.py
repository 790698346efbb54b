"""Labels become class numbers, the same for training and testing, whatever form they come in."""

import pytest
from test_datasets_formats import touch, write

from vivit_zoo.datasets import read_catalogue


def labels_of(folder, text, classes=None):
    touch(folder, "a.mp4", "b.mp4")
    catalogue = read_catalogue(write(folder / "list.txt", text), classes=classes)
    return [entry.label for entry in catalogue.entries], list(catalogue.classes)


def test_a_test_set_has_the_classes_of_the_training_set(tmp_path):
    _, classes = labels_of(tmp_path, "a.mp4 walk\nb.mp4 run\n")
    assert classes == ["run", "walk"]
    assert labels_of(tmp_path, "a.mp4 walk\n", classes) == ([1], classes)
    assert labels_of(tmp_path, "a.mp4 0\n", classes) == ([0], classes)
    with pytest.raises(ValueError, match=r"2 labels are not among the 2 classes: 'fly', 'swim'; the classes of a test"):
        labels_of(tmp_path, "a.mp4 swim\nb.mp4 fly\n", classes)
    with pytest.raises(ValueError, match=r"the labels 2, 7 are not in 0 to 1"):
        labels_of(tmp_path, "a.mp4 7\nb.mp4 2\n", classes)


def test_folders_in_another_order_of_classes(tmp_path):
    touch(tmp_path, "run/a.mp4", "walk/b.mp4")
    catalogue = read_catalogue(tmp_path, classes=["walk", "fly", "run"])
    assert [entry.label for entry in catalogue.entries] == [2, 0]
    assert catalogue.classes == ["walk", "fly", "run"]


def test_labels_that_are_no_classes(tmp_path):
    with pytest.raises(ValueError, match=r"the labels -1 are not in 0 to 3"):
        labels_of(tmp_path, "a.mp4 -1\nb.mp4 3\n")
    with pytest.raises(ValueError, match=r"the label 20261124 is no class number, of which there are at most 1000000"):
        labels_of(tmp_path, "a.mp4 1\nb.mp4 20261124\n")
    assert labels_of(tmp_path, "a.mp4 3\nb.mp4 three\n") == ([0, 1], ["3", "three"])
    with pytest.raises(ValueError, match="has one label a video, but classes are given by head: verb"):
        labels_of(tmp_path, "a.mp4 0\n", {"verb": ["take"]})


def test_nothing_there_asks_for_the_root(tmp_path):
    with pytest.raises(
        ValueError, match=r"none of its 2 videos is there, such as .*gone/a\.mp4; give the folder .*root="
    ):
        labels_of(tmp_path, "gone/a.mp4 0\ngone/b.mp4 1\n")
    with pytest.raises(ValueError, match=r"there are no videos in it; all 1 are absent, such as x_000001_000002"):
        read_catalogue(write(tmp_path / "k.csv", "label,youtube_id,time_start,time_end\nrun,x,1,2\n"))
