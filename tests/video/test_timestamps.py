"""Frames are numbered as they are shown, and keep their times, whatever the timestamps of the file are."""

import subprocess
import sys

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.footage import X264, damage, numbers_of, remux, write_video
from vivit_zoo.datasets import check_videos
from vivit_zoo.datasets.catalogue import Catalogue, Entry
from vivit_zoo.datasets.sources import VideoFile
from vivit_zoo.video.pyav import rising_times
from vivit_zoo.video.reader import VideoError, VideoReader, read_video


def read_back(path, numbers):
    """Each frame by its number, in a random order, is the one that is shown as that."""
    order = np.random.default_rng(0).permutation(len(numbers))
    with VideoReader(path) as video:
        assert len(video) == len(numbers)
        assert numbers_of(video.read(order)) == [numbers[place] for place in order]
        assert (np.diff(video.times) > 0).all()
        return video.times


def to_decoding_times(packet):
    packet.pts = packet.dts


@pytest.mark.parametrize("name", ["video.avi", "video.mkv", "video.flv", "video.ts"])
def test_timestamps_in_the_order_of_decoding(tmp_path, name):
    """As AVI has them, and Matroska of AVI, and files of writers that know no others."""
    if name.endswith("avi"):
        path = write_video(tmp_path / name, 30, **X264["b_frames"])
    else:
        whole = write_video(tmp_path / "whole.mp4", 30, **X264["b_frames"])
        path = remux(whole, tmp_path / name, to_decoding_times)
    with av.open(str(path)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
        assert stamps == sorted(stamps)  # although there are B-frames
    times = read_back(path, range(30))
    np.testing.assert_allclose(times, np.arange(30) / 30, atol=2e-3)
    assert not check_videos(Catalogue([Entry(VideoFile(path), 0)], ["walk"]), frames=4).broken


def test_no_b_frames_after_all(tmp_path):
    """A stream that announces B-frames and has none is decoded once to be sure, and then sought in as usual."""
    path = write_video(tmp_path / "video.mkv", 2, bf=2)
    with VideoReader(path) as video:
        assert video._decoder._stream.codec_context.has_b_frames
        assert video._decoder.by_time
    read_back(path, range(2))


def joined(folder, first, second):
    """Two recordings in one transport stream, as `cat` joins them."""
    path = folder / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


@pytest.mark.parametrize("kind", ["b_frames", "open_gop"])
def test_the_clock_is_set_back_within_a_recording(tmp_path, kind):
    first = write_video(tmp_path / "first.ts", 24, times=range(90, 114), **X264[kind])
    second = write_video(tmp_path / "second.ts", 24, times=range(24), **X264[kind])
    times = read_back(joined(tmp_path, first, second), [*range(24), *range(24)])
    np.testing.assert_allclose(times, np.arange(48) / 30, atol=1e-3)


def test_leading_pictures_are_dropped_at_each_beginning(tmp_path):
    whole = write_video(tmp_path / "whole.ts", 40, **X264["open_gop"])

    def tail(name, skipped, shift):
        path, place = tmp_path / name, iter(range(1000))
        with av.open(str(whole)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None and next(place) > skipped:
                    packet.stream, packet.pts, packet.dts = stream, packet.pts + shift, packet.dts + shift
                    target.mux(packet)
        return path

    alone = numbers_of(read_video(tail("first.ts", 12, 0)))
    assert alone == list(range(40 - len(alone), 40))
    both = joined(tmp_path, tail("late.ts", 12, 900_000), tail("early.ts", 12, 0))
    read_back(both, alone + alone)


def test_a_repeated_timestamp_keeps_the_others(tmp_path):
    """30 frames at 30 a second, then 30 at one a second; one timestamp comes twice."""
    ticks = [*range(30), *range(30, 930, 30)]

    whole = write_video(tmp_path / "whole.mkv", 60, times=ticks, g=12, bf=0)
    stamps = iter([*ticks[:15], 14, *ticks[16:]])

    def set_stamp(packet):
        packet.pts = packet.dts = round(next(stamps) * 1000 / 30)

    path = remux(whole, tmp_path / "repeated.mkv", set_stamp)
    times = read_back(path, range(60))
    expected = np.array(ticks) / 30
    np.testing.assert_allclose(np.delete(times, 15), np.delete(expected, 15), atol=2e-3)
    assert times[14] < times[15] < times[16]
    with VideoReader(path) as video:
        assert numbers_of(video.read(video.frames_at([0.01, 3.01, 10.01]))) == [0, 32, 39]


@given(
    runs=st.lists(st.lists(st.integers(-100, 2**33), min_size=1, max_size=20), min_size=1, max_size=4),
    tick=st.sampled_from([1 / 90000, 1e-3, 1 / 30]),
)
def test_times_always_rise(runs, tick):
    times = rising_times(runs, tick)
    assert times.shape == (sum(map(len, runs)),)
    assert times[0] == 0
    assert (np.diff(times) > 0).all()


def test_times_that_are_right_stay_as_they_are():
    np.testing.assert_allclose(rising_times([[5, 6, 8, 20]], 0.5), [0, 0.5, 1.5, 7.5])
    np.testing.assert_allclose(rising_times([[0, 1, 1, 1, 4, 5]], 1.0), [0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(rising_times([[10, 11, 12], [0, 1, 2]], 1.0), [0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(rising_times([[10, 11, 12], [20, 21]], 1.0), [0, 1, 2, 10, 11])
    np.testing.assert_allclose(rising_times([[0, 1, 2, 2**33 - 1, 2**33]], 1.0), [0, 1, 2, 3, 4])
    np.testing.assert_allclose(rising_times([[0, None, 2]], 1.0, rate=10), [0, 0.1, 0.2])
    np.testing.assert_allclose(rising_times([[7, 7, 7, 7]], 1.0, rate=10), [0, 0.025, 0.05, 0.075])


def test_metadata_that_is_no_utf8(tmp_path):
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Caf#"
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["handler_name"] = "Vid#o"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert data.count(b"Caf#") == data.count(b"Vid#o") == 1
    path.write_bytes(data.replace(b"Caf#", b"Caf\xe9").replace(b"Vid#o", b"Vid\xe9o"))  # as in Latin-1
    assert read_video(path).shape == (5, 48, 64, 3)


def test_frames_that_cannot_be_converted_are_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", 2)
    with VideoReader(path) as video:

        class Broken:
            def reformat(self, *_, **__):
                raise av.error.ArgumentError(22, "Invalid argument")

        video._decoder._reformatter = Broken()
        with pytest.raises(
            VideoError, match=r"video\.mp4: a frame of 64x48 pixels of the format yuv420p cannot be conv"
        ):
            video.read([0])


def test_frames_larger_than_any_camera_takes_are_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", 2)
    monkeypatch.setattr("vivit_zoo.video.pyav.MOST_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoError, match=r"video\.mp4: a frame of 64x48 pixels is larger than any camera's"):
        read_video(path)


STRESS = """
import sys, av
av.logging.set_level(av.logging.ERROR)  # as old torchvision does when it is imported
from vivit_zoo.video.pyav import _open
from vivit_zoo.video.source import VideoSource
for _ in range(20):
    container, stream = _open(VideoSource(sys.argv[1]), threads=4)
    try:
        next(container.decode(stream))
    except av.error.FFmpegError:
        pass
    container.close()
    del container, stream
"""


def test_a_log_callback_cannot_stop_the_decoder(tmp_path):
    """Threads of the decoder log damaged frames while it is freed; it hung at the first of these files."""
    path, rng = tmp_path / "video.mp4", np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "bf": "0", "slices": "8"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(8):
            noise = rng.integers(0, 255, (240, 320, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    damage(path, 1, 8, keep=4000)
    subprocess.run([sys.executable, "-c", STRESS, str(path)], check=True, timeout=120, stderr=subprocess.DEVNULL)
