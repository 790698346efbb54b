"""Backends on request: none stands in for another, and torchcodec gives the frames of PyAV or none."""

import sys

import numpy as np
import pytest

from tests.footage import (
    ROTATIONS,
    X264,
    damage,
    numbers_of,
    remux,
    set_display_matrix,
    write_video,
)
from vivit_zoo.video.reader import VideoError, VideoReader, read_video


def test_backends_that_are_not_there(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", 2)
    with pytest.raises(ValueError, match="backend 'decord' is unknown; choose from pyav, torchcodec"):
        VideoReader(path, backend="decord")
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ImportError, match=r"takes: pip install 'vivit-zoo\[torchcodec\]'"):
        VideoReader(path, backend="torchcodec")
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec/__init__.py").write_text("raise RuntimeError('Could not load libtorchcodec.\\nlong story')")
    monkeypatch.delitem(sys.modules, "torchcodec")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"cannot be loaded. .* RuntimeError: Could not load libtorchcodec\.$"):
        VideoReader(path, backend="torchcodec")
    assert len(read_video(path)) == 2
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"takes PyAV: pip install 'vivit-zoo\[video\]'"):
        VideoReader(path)


@pytest.fixture
def torchcodec():
    try:
        import torchcodec
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec cannot be loaded: {str(error).strip().splitlines()[0]}")
    return torchcodec


MISSED_BY_TORCHCODEC = {
    "intra_refresh",
    "transport_stream",
    "transport_stream_open_gop",
    "raw_h264",
    "avi_mpeg4",
    "mpeg2",
}


def test_torchcodec_gives_the_same_frames_or_none(encoded, torchcodec, request):
    expected, missed = read_video(encoded), set()
    for source in (encoded, encoded.read_bytes()):
        try:
            video = VideoReader(source, backend="torchcodec", threads=1)
        except VideoError:
            missed |= set(range(60))
            continue
        np.testing.assert_array_equal(video.times, VideoReader(source).times)
        for number in [*range(60), 33, 2, 59, 3]:
            try:
                (frame,) = video.read([number])
            except VideoError:
                missed.add(number)
            else:
                np.testing.assert_array_equal(frame, expected[number])
    assert not missed or request.node.callspec.params["encoded"] in MISSED_BY_TORCHCODEC


def test_torchcodec_turns_cuts_and_keeps_time_alike(tmp_path, torchcodec):
    paths = [write_video(tmp_path / "one.mp4", 1)]
    for degrees, matrix in ROTATIONS.items():
        paths.append(write_video(tmp_path / f"{degrees}.mp4", 3))
        set_display_matrix(paths[-1], *matrix)
    ticks = np.cumsum(np.random.default_rng(0).integers(1, 9, 40))
    paths.append(write_video(tmp_path / "vfr.mkv", 40, times=[int(tick) for tick in ticks], **X264["b_frames"]))

    def earlier(packet):
        packet.pts, packet.dts = packet.pts - 17 * 512, packet.dts - 17 * 512

    whole = write_video(tmp_path / "whole.mp4", **X264["b_frames"])
    paths.append(remux(whole, tmp_path / "cut.mp4", earlier, avoid_negative_ts="disabled"))
    for path in paths:
        np.testing.assert_array_equal(read_video(path, backend="torchcodec"), read_video(path), str(path))


def test_what_torchcodec_cannot_do_is_refused(tmp_path, torchcodec):
    path = write_video(tmp_path / "video.mp4", 3)
    with pytest.raises(ValueError, match="gray frames take backend='pyav'"):
        VideoReader(path, gray=True, backend="torchcodec")
    set_display_matrix(path, -1, 0, 0, 1)
    with pytest.raises(VideoError, match=r"video\.mp4: its picture is mirrored"):
        VideoReader(path, backend="torchcodec")
    path = write_video(tmp_path / "damaged.mp4", codec="mjpeg", pixels="yuvj420p")
    damage(path, 20, 22)
    with VideoReader(path, backend="torchcodec") as video:
        with pytest.raises(VideoError, match=r"damaged\.mp4: torchcodec cannot decode frame 20 of 60 \(Could not push"):
            video.read([20])
        assert numbers_of(video.read([19, 22])) == [19, 22]
