"""The check finds what is broken and says why, goes on whatever happens, and ends early with what it knows."""

import json
import os
import re
import signal

import pytest

from tests.footage import BROKEN, CLASSES, damage, write_broken_set, write_set, write_video
from vivit_zoo.cli import main
from vivit_zoo.datasets import check_videos, read_catalogue
from vivit_zoo.datasets.catalogue import Catalogue, Entry
from vivit_zoo.datasets.sources import FrameFolder, VideoFile


@pytest.fixture(scope="module")
def broken_set(tmp_path_factory):
    return write_broken_set(tmp_path_factory.mktemp("broken") / "set")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_five_of_thirty_clips_are_broken_in_five_ways(broken_set, capsys, workers):
    assert main(["check-data", str(broken_set), "--frames", "8", "--workers", workers]) == 1
    out = capsys.readouterr().out
    assert out.startswith("30 of 30 videos looked at, 5 broken\n")
    for name, (_, message) in BROKEN.items():
        assert re.search(f"^  {broken_set / name}: {message}", out, re.MULTILINE), out
    assert "frames            20        20        20\n" in out
    assert "fps               30        30        30\n" in out
    assert "3 classes, 0 without a video\n" in out
    assert "walk      10 ###" in out


def test_as_json(broken_set, capsys):
    assert main(["check-data", str(broken_set), "--frames", "16", "--json", "--workers", "0"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [video["name"] for video in report["broken"]] == sorted(str(broken_set / name) for name in BROKEN)
    assert (report["total"], report["checked"], report["needed"]) == (30, 30, 31)
    assert len(report["short"]) == 25
    assert report["counts"] == dict.fromkeys(CLASSES, 10)
    assert report["spread"]["seconds"] == [pytest.approx(2 / 3)] * 3


def test_a_sound_set_with_doubles_gaps_and_absent_videos(tmp_path, capsys):
    write_set(tmp_path / "set", 1)
    (tmp_path / "list.csv").write_text("walk/walk_0.mp4,2\nwalk/walk_0.mp4,2\nrun/run_0.mp4,1\n")
    (tmp_path / "names.txt").write_text("fly\nrun\nwalk\n")
    arguments = [str(tmp_path / "list.csv"), "--root", str(tmp_path / "set"), "--classes", str(tmp_path / "names.txt")]
    assert main(["check-data", *arguments, "--workers", "0", "--frames", "4"]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 videos looked at, 0 broken\n" in out
    assert "1 listed more than once\n" in out
    assert "walk_0.mp4: 2 times" in out
    assert "3 classes, 1 without a video\n  walk       2" in out
    assert main(["check-data", str(tmp_path / "nothing")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err


def test_damage_in_the_middle_is_found_by_decoding_all(tmp_path):
    path = write_video(tmp_path / "a.mp4", codec="mjpeg", pixels="yuvj420p")
    damage(path, 20, 22)
    catalogue = Catalogue([Entry(VideoFile(path), 0)], ["walk"])
    assert not check_videos(catalogue).broken
    (broken,) = check_videos(catalogue, full=True).broken
    assert broken.error == "frame 20 of 60 cannot be decoded; the file is damaged"


class Bomb(FrameFolder):
    """A video that kills the process that opens it, as a decoder's crash does, or stops the check, or surprises it."""

    def open(self, **_):
        if self.first == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt if self.first == 1 else ZeroDivisionError("no frames")


def test_a_crash_of_the_decoder_is_one_more_broken_video(tmp_path):
    good = [Entry(VideoFile(write_video(tmp_path / f"{number}.mp4", 3)), 0) for number in range(12)]
    bombs = [Entry(Bomb(tmp_path / "bomb"), 0), Entry(Bomb(tmp_path / "bomb"), 0)]
    report = check_videos(Catalogue([*good[:3], bombs[0], *good[3:9], bombs[1], *good[9:]], ["walk"]), workers=2)
    assert len(report.videos) == 14
    assert [video.error for video in report.broken] == ["the decoder crashes on it"] * 2
    assert [number for number, video in sorted(report.videos.items()) if video.error] == [3, 10]


def test_an_error_of_another_kind_does_not_stop_the_check(tmp_path):
    good = Entry(VideoFile(write_video(tmp_path / "a.mp4", 3)), 0)
    report = check_videos(Catalogue([Entry(Bomb(tmp_path, 2), 0), good], ["walk"]))
    assert [video.error for video in report.broken] == ["ZeroDivisionError: no frames"]
    assert len(report.videos) == 2


def test_interrupted_it_reports_what_it_knows(tmp_path):
    good = Entry(VideoFile(write_video(tmp_path / "a.mp4", 3)), 0)
    report = check_videos(Catalogue([good, Entry(Bomb(tmp_path, 1), 0), good], ["walk"]))
    assert len(report.videos) == 1
    assert str(report).startswith("1 of 3 videos looked at, 0 broken")


def test_folders_of_images_have_no_times_and_heads_their_own_classes(tmp_path):
    from tests.datasets.test_sources import write_images

    place = FrameFolder(write_images(tmp_path / "v", range(3)))
    catalogue = Catalogue([Entry(place, {"verb": 0, "noun": 1})] * 2, {"verb": ["take"], "noun": ["cup", "door"]})
    report = check_videos(catalogue, frames=2, stride=1)
    assert report.spread().keys() == {"frames", "width", "height"}
    assert report.counts == {"verb: take": 2, "noun: cup": 0, "noun: door": 2}
    assert report.empty == ["noun: cup"]


def test_wrong_numbers():
    with pytest.raises(ValueError, match="frames 0 and stride 2 must be positive, workers 0 not negative"):
        check_videos(Catalogue([], []), frames=0)


@pytest.mark.filterwarnings("ignore:.*folders without videos are no classes")
def test_rendered_digits_are_the_same_through_list_folder_and_shards(tmp_path):
    import runpy
    from pathlib import Path

    script = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "render_digits.py"))
    script["render"](tmp_path, "train", 6, scale=2, per_shard=2)
    from vivit_zoo.datasets import MovingDigits, VideoClips
    from vivit_zoo.video.clips import ClipSampler

    sources = ["train.txt", "train", "train-{000..002}.tar"]
    classes = list(MovingDigits.classes)
    for source in sources:
        catalogue = read_catalogue(f"{tmp_path}/{source}", classes=classes)
        dataset = VideoClips(catalogue, ClipSampler(frames=16, stride=1), gray=True)
        assert len(dataset) == 6
        assert not check_videos(catalogue, frames=16, stride=1, full=True).broken
        for number, entry in enumerate(catalogue.entries):
            index = int(re.search(r"(\d{6})\.mp4", entry.video.name)[1])
            original, label = MovingDigits("train", 6)[index]
            video, given = dataset[number]
            assert given == label
            small = video[:, :, ::2, ::2] / 127.5 - 1
            assert (small - original).abs().mean() < 0.03
