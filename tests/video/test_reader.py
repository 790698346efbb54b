"""Every frame that is asked for, exactly, of whatever the file is; what is broken is refused."""

import av
import numpy as np
import pytest

from tests.footage import (
    BAD_FILES,
    ENCODED,
    HEIGHT,
    ROTATIONS,
    WIDTH,
    X264,
    damage,
    numbers_of,
    remux,
    set_display_matrix,
    write_video,
)
from vivit_zoo.video.clips import clip_indices
from vivit_zoo.video.reader import VideoError, VideoReader, read_video


def test_every_selection_gives_exactly_the_frames_asked_for(encoded):
    in_order = read_video(encoded)
    assert in_order.shape == (60, HEIGHT, WIDTH, 3)
    assert in_order.dtype == np.uint8
    assert numbers_of(in_order) == list(range(60))
    rng = np.random.default_rng(0)
    selections = [[59], [0], [7, 31, 31, 8], range(10, 60, 7), [33, 34, 35], *rng.integers(0, 60, (4, 5))]
    with VideoReader(encoded) as video:
        assert len(video) == 60
        for selection in selections:  # one reader, so that each starts where the one before it stopped
            np.testing.assert_array_equal(video.read(selection), in_order[list(selection)])


def test_frames_have_red_left_and_green_right(encoded):
    lower = read_video(encoded, [20])[0, HEIGHT // 2 + 4 : -4].astype(int)
    left, right = lower[:, 4 : WIDTH // 2 - 4], lower[:, WIDTH // 2 + 4 : -4]
    assert (left[..., 0] > left[..., 1:].max(-1) + 100).all()
    assert (right[..., 1] > right[..., [0, 2]].max(-1) + 100).all()


def test_variable_frame_rate(tmp_path):
    ticks = np.cumsum(np.random.default_rng(0).integers(1, 9, 40))
    path = write_video(tmp_path / "vfr.mkv", 40, times=[int(tick) for tick in ticks], **X264["b_frames"])
    seconds = (ticks - ticks[0]) / 30
    with VideoReader(path) as video:
        np.testing.assert_allclose(video.times, seconds, atol=1e-3)
        assert numbers_of(video.read([39, 3, 17])) == [39, 3, 17]
        moments = [-1.0, *(seconds[[0, 5, 20]] + 0.01), 1e6]
        assert video.frames_at(moments).tolist() == [0, 0, 5, 20, 39]
        assert video.frames_at(video.times).tolist() == list(range(40))
        assert numbers_of(video.read(video.frames_at(seconds + 0.01))) == list(range(40))


def test_a_seek_that_fails_or_lands_elsewhere_costs_time_and_no_frame(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", **X264["open_gop"])

    class Wayward:
        """The container, but each seek goes where `divert` says."""

        def __init__(self, container, divert):
            self.container, self.divert = container, divert

        def seek(self, offset, stream):
            self.divert(self.container, offset, stream)

        def __getattr__(self, name):
            return getattr(self.container, name)

    def refuse(container, offset, stream):
        raise av.error.PermissionError(1, "no seeking")

    diverts = {
        "later": lambda container, offset, stream: container.seek(offset + 512 * 15, stream=stream),
        "earlier": lambda container, offset, stream: container.seek(0, stream=stream),
        "end": lambda container, offset, stream: container.seek(10**9, stream=stream),
        "nowhere": lambda container, offset, stream: None,
        "refused": refuse,
    }
    for divert in diverts.values():
        with VideoReader(path) as video:
            video._decoder._container = Wayward(video._decoder._container, divert)
            assert numbers_of(video.read([5, 14, 19, 31, 57])) == [5, 14, 19, 31, 57]
            assert numbers_of(video.read([12])) == [12]


def test_only_needed_frames_are_converted_and_kept(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", **X264["b_frames"])
    seen = []
    with VideoReader(path) as video:
        monkeypatch.setattr(
            video._decoder, "_to_array", lambda frame: seen.append(frame.pts) or np.zeros((4, 4, 3), np.uint8)
        )
        video.read([3, 30, 3, 59])
    assert len(seen) == 3


def test_decoding_begins_at_the_keyframe_and_not_at_the_start(tmp_path):
    path = write_video(tmp_path / "video.mp4", **X264["b_frames"])
    with VideoReader(path) as video:
        video.read([50])
        assert video._decoder._keyframes[-1] <= video._decoder._started_at
        before = video._decoder._frames
        video.read([52])
        assert video._decoder._frames is before  # the same group of pictures: no second seek
        assert video._decoder._can_seek


def test_change_is_applied_to_each_frame(tmp_path):
    path = write_video(tmp_path / "video.mp4", 10)
    small = VideoReader(path).read([1, 4], change=lambda frame: frame[::2, ::4])
    np.testing.assert_array_equal(small, read_video(path, [1, 4])[:, ::2, ::4])


def test_gray(tmp_path):
    path = write_video(tmp_path / "video.mp4", 5)
    clip = read_video(path, gray=True)
    assert clip.shape == (5, HEIGHT, WIDTH, 1)
    assert numbers_of(clip) == list(range(5))


@pytest.mark.parametrize("degrees", ROTATIONS)
def test_rotation(tmp_path, degrees):
    path = write_video(tmp_path / "video.mp4", 3)
    stored = read_video(path)
    set_display_matrix(path, *ROTATIONS[degrees])
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation % 360 == degrees  # FFmpeg's own reading of the matrix
    np.testing.assert_array_equal(read_video(path), np.rot90(stored, degrees // 90, axes=(1, 2)))


def test_mirrors(tmp_path):
    for matrix, expected in {
        (-1, 0, 0, 1): lambda clip: clip[:, :, ::-1],
        (1, 0, 0, -1): lambda clip: clip[:, ::-1],
        (0, 1, 1, 0): lambda clip: clip.swapaxes(1, 2),
    }.items():
        path = write_video(tmp_path / "video.mp4", 2)
        stored = read_video(path)
        set_display_matrix(path, *matrix)
        np.testing.assert_array_equal(read_video(path), expected(stored))


def test_one_frame(tmp_path):
    path = write_video(tmp_path / "video.mp4", 1)
    with VideoReader(path) as video:
        assert len(video) == 1
        assert video.times.tolist() == [0.0]
        assert numbers_of(video.read(clip_indices(1, frames=4))) == [0] * 4


def test_frames_before_the_first_keyframe_do_not_count(tmp_path):
    whole = write_video(tmp_path / "whole.ts", **X264["open_gop"])
    path = tmp_path / "tail.ts"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for place, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and place > 12:  # starts in the middle of a group of pictures
                packet.stream = stream
                target.mux(packet)
    numbers = numbers_of(read_video(path))
    assert numbers == list(range(60 - len(numbers), 60))
    assert len(numbers) == 40
    with VideoReader(path) as video:
        assert video._decoder.by_time
        assert numbers_of(video.read([15, 3])) == [numbers[15], numbers[3]]


def test_frames_that_an_edit_list_cuts_off_do_not_count(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", **X264["b_frames"])

    def earlier(packet):
        packet.pts, packet.dts = packet.pts - 17 * 512, packet.dts - 17 * 512

    path = remux(whole, tmp_path / "cut.mp4", earlier, avoid_negative_ts="disabled")
    with av.open(str(path)) as container:
        assert any(packet.is_discard for packet in container.demux(video=0))
    assert numbers_of(read_video(path)) == list(range(17, 60))
    assert numbers_of(read_video(path, [2, 40])) == [19, 57]


def test_streams_of_unknown_length(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", **X264["b_frames"])
    path = remux(whole, tmp_path / "live.mkv", lambda packet: None, live="1")
    assert b"\x18S\x80g\x01" + b"\xff" * 7 in path.read_bytes()[:64]
    assert numbers_of(read_video(path, [40, 3])) == [40, 3]


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_named_with_what_is_wrong(tmp_path, kind):
    make, message = BAD_FILES[kind]
    path = tmp_path / "clip.mp4"
    make(path)
    with pytest.raises(VideoError, match=rf"clip\.mp4: {message}"):
        VideoReader(path)


@pytest.mark.parametrize("kind", ["b_frames", "fragmented", "matroska", "vp9"])
def test_a_file_cut_anywhere_is_refused(tmp_path, kind):
    name, options = ENCODED[kind]
    path = write_video(tmp_path / name, 8, **options)
    data = path.read_bytes()
    for keep in [*range(100, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:keep])
        with pytest.raises(VideoError, match=name):
            read_video(path)


def test_text_files_are_no_pictures_of_a_terminal(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("one\ntwo\n" * 50)
    with pytest.raises(VideoError, match="a text file, not a video"):
        VideoReader(path)


def test_text_files_that_name_videos_are_no_videos(tmp_path):
    write_video(tmp_path / "secret.mp4")
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(VideoError, match=r"a\.mp4: .*a text file, not a video"):
        VideoReader(tmp_path / "a.mp4")


def test_undecodable_frames_are_refused_and_the_others_read(tmp_path):
    path = write_video(tmp_path / "video.mp4", codec="mjpeg", pixels="yuvj420p")
    damage(path, 20, 22)
    with VideoReader(path) as video:
        for number in (20, 21):
            with pytest.raises(VideoError, match=rf"video\.mp4: frame {number} of 60 cannot be decoded"):
                video.read([number])
        assert numbers_of(video.read([19, 22, 59])) == [19, 22, 59]


def test_frames_that_the_decoder_patched_up_are_refused(tmp_path):
    path = write_video(tmp_path / "video.mp4", codec="mpeg4", g=12, bf=0)
    clean = read_video(path)
    damage(path, 30, 31, keep=10)
    with VideoReader(path) as video:
        with pytest.raises(VideoError, match="frame 30 of 60 cannot be decoded"):
            video.read([30])
        for number in (0, 29, 36, 59):
            np.testing.assert_array_equal(video.read([number])[0], clean[number])


def test_no_decodable_frame_at_all(tmp_path):
    path = write_video(tmp_path / "video.mp4", 10, **X264["b_frames"])
    damage(path, 0, 10)
    with pytest.raises(VideoError, match=r"video\.mp4: not one of its 10 packets can be decoded"):
        read_video(path)


def test_numbers_outside_the_video(tmp_path):
    path = write_video(tmp_path / "video.mp4", 5)
    with VideoReader(path) as video:
        for number in (5, -1):
            with pytest.raises(IndexError, match=rf"there is no frame {number}; they are numbered 0 to 4"):
                video.read([0, number])
        with pytest.raises(ValueError, match="indices is empty"):
            video.read([])
