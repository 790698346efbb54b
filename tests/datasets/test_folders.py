"""Class folders as they are on real disks: junk is no class, and a link that leads back up is not followed."""

import os
from pathlib import Path

import pytest

from tests.datasets.test_formats import listed, touch, write
from vivit_zoo.datasets import read_catalogue
from vivit_zoo.datasets.folders import walk


def test_folders_without_videos_are_no_classes(tmp_path):
    touch(tmp_path, "walk/a.mp4", "run/b.mp4", "notes/readme.txt")
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning, match="left out|no classes") as warned:
        catalogue = read_catalogue(tmp_path)
    assert catalogue.classes == ["run", "walk"]
    assert listed(catalogue, tmp_path) == [("run/b.mp4", 0), ("walk/a.mp4", 1)]
    assert "2 folders without videos are no classes: empty, notes" in str(warned[0].message)


def test_what_systems_leave_behind_is_no_data(tmp_path):
    junk = ["__MACOSX/run/._b.mp4", ".cache/c.mp4", "@eaDir/d.mp4", "$RECYCLE.BIN/e.mp4"]
    inside = ["run/._b.mp4", "run/.thumbs/f.mp4", "run/@eaDir/b.mp4", "walk/frames/._1.jpg"]
    touch(tmp_path, "run/b.mp4", "walk/frames/1.jpg", *junk, *inside)
    catalogue = read_catalogue(tmp_path)  # nothing is told: no one put these there
    assert catalogue.classes == ["run", "walk"]
    assert [entry.video.name for entry in catalogue.entries] == [f"{tmp_path}/run/b.mp4", f"{tmp_path}/walk/frames"]


def test_a_link_that_leads_back_up_is_not_followed(tmp_path):
    touch(tmp_path / "set", "run/a.mp4", "walk/b.mp4")
    touch(tmp_path / "elsewhere", "c.mp4")
    os.symlink(tmp_path / "set", tmp_path / "set/run/up")
    os.symlink(tmp_path / "set/run", tmp_path / "set/run/round")
    os.symlink(tmp_path / "elsewhere", tmp_path / "set/walk/more")
    with pytest.warns(UserWarning, match=r"the link .*/set/run/(round|up) leads back up and is not followed"):
        catalogue = read_catalogue(tmp_path / "set")
    assert listed(catalogue, tmp_path) == [("set/run/a.mp4", 0), ("set/walk/b.mp4", 1), ("set/walk/more/c.mp4", 1)]


def test_a_link_to_itself_is_a_broken_video_and_nothing_more(tmp_path):
    touch(tmp_path, "run/a.mp4", "walk/b.mp4")
    for name in ("run/self.mp4", "walk/self"):
        os.symlink(tmp_path / name, tmp_path / name)
    with pytest.warns(UserWarning, match=r"1 files left out, .*: self \(1\)"):
        catalogue = read_catalogue(tmp_path)
    assert [Path(entry.video.name).name for entry in catalogue.entries] == ["a.mp4", "self.mp4", "b.mp4"]
    assert [entry.video.exists() for entry in catalogue.entries] == [True, False, True]


def test_links_do_not_multiply_the_files_found_by_name(tmp_path):
    touch(tmp_path / "videos", "a_000003_000013.mp4", "._a_000003_000013.mp4")
    os.symlink(tmp_path / "videos", tmp_path / "videos/again")
    source = write(tmp_path / "k.csv", "label,youtube_id,time_start,time_end\nrun,a,3,13\n")
    assert len(read_catalogue(source, root=tmp_path / "videos")) == 1


def test_walk_is_sorted(tmp_path):
    touch(tmp_path, "b/2.mp4", "b/1.mp4", "a/x/3.mp4", "4.mp4")
    found = [(str(place.relative_to(tmp_path)), files) for place, files in walk(tmp_path)]
    assert found == [(".", ["4.mp4"]), ("a", []), ("a/x", ["3.mp4"]), ("b", ["1.mp4", "2.mp4"])]
