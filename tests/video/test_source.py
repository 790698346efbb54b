"""Videos from bytes and open files: the same frames and the same refusals as from paths."""

import io
import os
import tarfile

import numpy as np
import pytest

from tests.footage import (
    BAD_FILES,
    ENCODED,
    HEIGHT,
    ROTATIONS,
    WIDTH,
    damage,
    numbers_of,
    set_display_matrix,
    write_video,
)
from vivit_zoo.video.reader import VideoError, VideoReader, read_video


def test_bytes_and_open_files_give_the_same_frames(encoded):
    data, numbers = encoded.read_bytes(), [33, 2, 59, 3]
    expected = read_video(encoded, numbers)
    with encoded.open("rb") as file:
        for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), file):
            with VideoReader(source) as video:
                assert len(video) == 60
                np.testing.assert_array_equal(video.read(numbers), expected)
                np.testing.assert_array_equal(video.read(numbers[:1]), expected[:1])
        assert not file.closed


@pytest.mark.parametrize("kind", sorted(BAD_FILES.keys() - {"missing", "folder"}))
def test_bad_bytes_are_named_with_what_is_wrong(tmp_path, kind):
    make, message = BAD_FILES[kind]
    path = tmp_path / "clip.mp4"
    make(path)
    for source in (path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(VideoError, match=rf"^train-003\.tar::clip\.mp4: {message}"):
            VideoReader(source, name="train-003.tar::clip.mp4")


@pytest.mark.parametrize("kind", ["b_frames", "matroska"])
def test_bytes_cut_anywhere_are_refused(tmp_path, kind):
    name, options = ENCODED[kind]
    data = write_video(tmp_path / name, 8, **options).read_bytes()
    for keep in [*range(100, len(data), 97), len(data) - 1]:
        with pytest.raises(VideoError, match="shard::a"):
            read_video(data[:keep], name="shard::a")


def test_rotation_one_frame_and_damage_hold_for_bytes(tmp_path):
    turned = write_video(tmp_path / "turned.mp4", 1)
    set_display_matrix(turned, *ROTATIONS[90])
    np.testing.assert_array_equal(read_video(turned.read_bytes()), read_video(turned))
    assert read_video(turned.read_bytes()).shape == (1, WIDTH, HEIGHT, 3)
    path = write_video(tmp_path / "video.mp4", codec="mjpeg", pixels="yuvj420p")
    damage(path, 20, 22)
    with VideoReader(path.read_bytes()) as video:
        with pytest.raises(VideoError, match=r"^a video of \d+ bytes in memory: frame 20 of 60 cannot be decoded"):
            video.read([20])
        assert numbers_of(video.read([19, 22])) == [19, 22]


def test_names_of_sources(tmp_path):
    path = write_video(tmp_path / "video.mp4", 2)
    with path.open("rb") as file:
        assert VideoReader(file).name == VideoReader(str(path)).name == VideoReader(path).name == str(path)
    assert VideoReader(path, name="the first").name == "the first"
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(path, "clips/a.mp4")
    with tarfile.open(tmp_path / "shard.tar") as tar:
        video = VideoReader(tar.extractfile("clips/a.mp4"), name="shard.tar::clips/a.mp4")
        assert video.name == "shard.tar::clips/a.mp4"
        assert numbers_of(video.read([1, 0])) == [1, 0]
    assert VideoReader(io.BytesIO(path.read_bytes())).name == "a video in a file object"


def test_sources_that_are_no_binary_files(tmp_path):
    (tmp_path / "video.mp4").write_text("")
    with (
        (tmp_path / "video.mp4").open() as text,
        pytest.raises(TypeError, match="open as text; open it with mode 'rb'"),
    ):
        VideoReader(text)
    read, write = os.pipe()
    with os.fdopen(write, "wb"), os.fdopen(read, "rb") as pipe, pytest.raises(ValueError, match="is not seekable"):
        VideoReader(pipe)
    with pytest.raises(TypeError, match="got a int; a video is a path, bytes, or an open binary file"):
        VideoReader(3)


def test_files_that_may_not_be_read(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", 2)

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(VideoError, match=r"video\.mp4: cannot be opened \(Permission denied\)"):
        VideoReader(path)
