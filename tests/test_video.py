"""Real files, made here with PyAV; each frame carries its number in its pixels, so that a wrong one cannot pass."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from vivit_zoo.clips import clip_indices
from vivit_zoo.video import VideoError, VideoReader, read_video

HEIGHT, WIDTH, CELL = 48, 64, 8


def numbered(number: int) -> np.ndarray:
    """A frame whose top row spells its number in eight black or white cells; its lower half is red, then green."""
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for bit in range(8):
        frame[:CELL, bit * CELL : (bit + 1) * CELL] = 255 * (number >> bit & 1)
    frame[HEIGHT // 2 :, : WIDTH // 2] = (255, 0, 0)
    frame[HEIGHT // 2 :, WIDTH // 2 :] = (0, 255, 0)
    return frame


def number_of(frame: np.ndarray) -> int:
    cells = frame[2 : CELL - 2].mean(axis=(0, 2)).reshape(8, CELL)[:, 2:-2].mean(axis=1)
    return sum(int(cell > 128) << bit for bit, cell in enumerate(cells))


def numbers_of(clip: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in clip]


def write_video(path, count=60, codec="libx264", pixels="yuv420p", times=None, movflags="", audio=False, **options):
    """`times` are timestamps in ticks of 1/30 s."""
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=30, options={key: str(value) for key, value in options.items()})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.time_base = Fraction(1, 30)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = times[number] if times is not None else number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


X264 = {
    "b_frames": {"g": 12, "bf": 3},
    "open_gop": {"g": 10, "bf": 3, "x264-params": "open-gop=1:b-adapt=0:scenecut=0"},
    "one_keyframe": {"g": 1000, "bf": 2},
    "all_keyframes": {"g": 1},
    "short_gops": {"g": 2, "bf": 1},
    "intra_refresh": {"g": 10, "bf": 0, "x264-params": "intra-refresh=1:scenecut=0"},
}
ENCODED = {name: ("video.mp4", options) for name, options in X264.items()} | {
    "matroska": ("video.mkv", X264["b_frames"]),
    "transport_stream": ("video.ts", X264["b_frames"]),
    "transport_stream_open_gop": ("video.ts", X264["open_gop"]),
    "raw_h264": ("video.h264", X264["b_frames"]),
    "fragmented": ("video.mp4", X264["b_frames"] | {"movflags": "frag_keyframe+empty_moov"}),
    "avi_mpeg4": ("video.avi", {"codec": "mpeg4", "g": 12, "bf": 2}),
    "mpeg2": ("video.mpg", {"codec": "mpeg2video", "g": 12, "bf": 2}),
    "h265": ("video.mp4", {"codec": "libx265", "x265-params": "keyint=10:bframes=3:open-gop=1:log-level=none"}),
    "vp8": ("video.webm", {"codec": "libvpx", "g": 12, "auto-alt-ref": 1, "lag-in-frames": 16}),
    "vp9": ("video.webm", {"codec": "libvpx-vp9", "g": 12, "auto-alt-ref": 1, "lag-in-frames": 16, "cpu-used": 5}),
    "lossless": ("video.mkv", {"codec": "ffv1", "pixels": "bgr0"}),
    "ten_bits": ("video.mkv", {"codec": "ffv1", "pixels": "yuv444p10le"}),
}


@pytest.fixture(scope="module", params=ENCODED)
def encoded(request, tmp_path_factory):
    name, options = ENCODED[request.param]
    return write_video(tmp_path_factory.mktemp(request.param) / name, **options)


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


ROTATIONS = {  # degrees counter-clockwise that the file asks for, as the matrix (a, b, c, d): (x, y) -> (ax+cy, bx+dy)
    0: (1, 0, 0, 1),
    90: (0, -1, 1, 0),
    180: (-1, 0, 0, -1),
    270: (0, 1, -1, 0),
}


def set_display_matrix(path, a, b, c, d):
    """Write a matrix into the track header (ISO 14496-12, 8.3.2), as phones do for pictures taken upright."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    numbers = [value * 65536 for value in (a, b, 0, c, d, 0, WIDTH * (a < 0 or c < 0), HEIGHT * (b < 0 or d < 0))]
    data[at : at + 36] = struct.pack(">9i", *numbers, 1 << 30)
    path.write_bytes(data)


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


def remux(source, target, change, **options):
    """Copy the packets of a video, each changed."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                change(packet)
                new.mux(packet)
    return target


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


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def audio_with_cover(path):
    """A song with the picture of its record, which containers keep as a video stream of one frame."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(0), format="rgb24")))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def truncated(path, movflags=""):
    """Cut in its frames or, where the table of frames follows them, in that."""
    write_video(path, movflags=movflags, **X264["b_frames"])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])


def no_frames(path):
    """A fragmented file that ends with its header."""
    write_video(path, 3, movflags="frag_keyframe+empty_moov")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])


BAD_FILES = {
    "missing": (lambda path: None, "there is no such file"),
    "folder": (lambda path: path.mkdir(), "not a file"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("<!DOCTYPE html>\n" * 99), r"a text file, not a video; it begins '<!DOCTYPE"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(9999)), "not a video, or its beginning is"),
    "audio": (audio_only, "there is no video stream in it, only audio"),
    "cover": (audio_with_cover, "there is no video stream in it, only audio"),
    "truncated": (truncated, r"truncated: \d+ bytes are missing at its end"),
    "truncated_frames": (lambda path: truncated(path, "faststart"), r"truncated: \d+ bytes are missing at its end"),
    "no_frames": (no_frames, "its video stream holds no frames"),
}


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


def damage(path, first, last, keep=0):
    """Overwrite the data of some packets, in decoding order, with noise, but for their first bytes."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for pos, size in places[first:last]:
        data[pos + keep : pos + size] = rng.bytes(size - keep)
    path.write_bytes(data)


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
