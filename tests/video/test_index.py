"""The index of a file is kept, and never that of a file that is no longer there."""

import os

import av
import numpy as np
import pytest

from tests.footage import X264, numbers_of, write_video
from vivit_zoo.video import pyav
from vivit_zoo.video.index import Index, IndexCache
from vivit_zoo.video.reader import VideoReader


@pytest.fixture
def reads(monkeypatch):
    """The names of the files whose packets were read."""
    seen = []
    read = pyav.read_packets
    monkeypatch.setattr(pyav, "read_packets", lambda source, *rest: seen.append(source.name) or read(source, *rest))
    monkeypatch.setattr(pyav, "INDICES", IndexCache(1000))
    return seen


@pytest.mark.parametrize("kind", ["b_frames", "raw_h264"])
def test_the_format_is_guessed_once(tmp_path, reads, monkeypatch, kind):
    """Guessing it asks all demuxers of FFmpeg, half of the time of opening a file."""
    name, expected = ("video.h264", "h264") if kind == "raw_h264" else ("video.mp4", "mov")
    path, formats, opened = write_video(tmp_path / name, 40, **X264["b_frames"]), [], av.open
    monkeypatch.setattr(av, "open", lambda *args, **rest: formats.append(rest["format"]) or opened(*args, **rest))
    for _ in range(2):
        with VideoReader(path) as video:
            assert numbers_of(video.read([31, 5])) == [31, 5]
    first = formats.index(expected)
    assert formats[:first] == [None] * first
    assert set(formats[first:]) == {expected}


@pytest.mark.parametrize("kind", ["b_frames", "raw_h264"])
def test_a_file_is_read_once_and_its_frames_are_the_same(tmp_path, reads, kind):
    name = "video.h264" if kind == "raw_h264" else "video.mp4"
    path = write_video(tmp_path / name, 40, **X264["b_frames"])
    for _ in range(3):
        with VideoReader(path) as video:
            assert numbers_of(video.read([31, 5, 6])) == [31, 5, 6]
            assert len(video) == 40
    assert len(reads) == 1
    with pytest.raises(ValueError, match="read-only"):
        video.times[0] = 1


def test_a_changed_file_is_read_again(tmp_path, reads):
    path = write_video(tmp_path / "video.mp4", 40, **X264["b_frames"])
    with VideoReader(path) as video:
        assert len(video) == 40
    write_video(path, 30, **X264["short_gops"])
    with VideoReader(path) as video:
        assert numbers_of(video.read(range(30))) == list(range(30))
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    VideoReader(path).close()
    assert len(reads) == 3


def test_bytes_are_read_each_time(tmp_path, reads):
    data = write_video(tmp_path / "video.mp4", 9).read_bytes()
    for _ in range(2):
        VideoReader(data).close()
    assert len(reads) == 2


def test_the_cache_holds_so_many_frames_and_drops_those_used_longest_ago(tmp_path):
    cache = IndexCache(10)
    paths = [str(tmp_path / name) for name in "abcd"]
    for path, frames in zip(paths, (4, 4, 4, 11), strict=True):
        (tmp_path / path).write_bytes(b"")
        index = Index(np.arange(frames), list(range(frames)), [0], True, 0.1, 0, "mov")
        cache.get(paths[0])
        cache.add(path, index)
    assert [cache.get(path) is not None for path in paths] == [True, False, True, False]
    assert cache.get(None) is None
    cache.clear()
    assert cache.get(paths[0]) is None
