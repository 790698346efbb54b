"""Crops made by the decoder's converter: the right part, of the right frames, and no more work than they take."""

import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given
from hypothesis import strategies as st

from tests.footage import HEIGHT, ROTATIONS, WIDTH, X264, number_of, set_display_matrix, write_video
from vivit_zoo.video import converter, pyav
from vivit_zoo.video.crops import Crop, source_span
from vivit_zoo.video.reader import VideoError, VideoReader


@given(st.data())
def test_spans_hold_the_crop_and_lie_on_whole_samples(data):
    whole, scaled = data.draw(st.integers(2, 2000)), data.draw(st.integers(1, 600))
    length = data.draw(st.integers(1, scaled))
    start, step = data.draw(st.integers(0, scaled - length)), data.draw(st.sampled_from([1, 2, whole]))
    span = source_span(start, length, scaled, whole, step)
    assert span.start % step == 0
    assert span.stop % step == 0 or span.stop == whole
    assert 0 <= span.start < span.stop <= whole
    assert span.offset >= 0
    assert span.offset + length <= span.scaled
    ratio = scaled / whole
    assert abs(span.start * ratio + span.offset - start) <= 0.5 + 1e-6
    assert abs((span.stop - span.start) * ratio - span.scaled) <= 0.5 + 1e-6


def test_spans_are_tight_and_well_placed():
    rng = np.random.default_rng(0)
    misplaced, excess = [], []
    for _ in range(500):
        scaled = int(rng.integers(230, 341))
        start = int(rng.integers(scaled - 224 + 1))
        span = source_span(start, 224, scaled, 256, 2)
        misplaced.append(abs(span.start * scaled / 256 + span.offset - start))
        excess.append(span.scaled / 224)
    assert max(misplaced) < 0.2
    assert np.mean(misplaced) < 0.04
    assert np.mean(excess) < 1.2


def crop_of(video, scaled, corner, size, indices=(3, 7)):
    return video.read_crop(indices, lambda height, width: Crop(scaled, corner, size))


PIXELS = {
    "yuv420p": {},
    "yuv422p": {"pixels": "yuv422p"},
    "yuv444p": {"pixels": "yuv444p"},
    "yuv420p10le": {"pixels": "yuv420p10le"},
    "rgb24": {"codec": "libx264rgb", "pixels": "rgb24"},
}


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("gray", [False, True])
def test_a_crop_is_the_part_of_the_scaled_frames(tmp_path, pixels, gray):
    path = write_video(tmp_path / "video.mp4", 9, size=(270, 402), crf=5, **PIXELS[pixels])
    with VideoReader(path, gray=gray) as video:
        scaled = (101, 333)
        whole = crop_of(video, scaled, (0, 0), scaled)
        part = crop_of(video, scaled, (21, 57), (60, 111))
        assert part.shape == ((1 if gray else 3), 2, 60, 111)
        assert part.dtype == np.uint8
        difference = np.abs(part.astype(int) - whole[:, :, 21:81, 57:168])
        assert difference.mean() < 1
        # The frames have sharp edges of 255 levels: a fifth of a pixel beside is a fifth of that.
        assert difference.max() < 52


def test_crops_are_of_the_right_frames_with_repeats_and_in_any_order(tmp_path):
    path = write_video(tmp_path / "video.mp4", **X264["b_frames"])
    with VideoReader(path) as video:
        places = [50, 3, 3, 41, 17]
        clip = video.read_crop(places, lambda height, width: Crop((height, width), (0, 0), (height, width)))
        assert [number_of(frame) for frame in np.moveaxis(clip, 0, -1)] == places
        assert clip.flags.c_contiguous


@pytest.mark.parametrize("degrees", ROTATIONS)
def test_crops_of_turned_videos_are_upright(tmp_path, degrees):
    path = write_video(tmp_path / "video.mp4", 9, crf=5)
    set_display_matrix(path, *ROTATIONS[degrees])
    shapes = []

    def choose(height, width):
        shapes.append((height, width))
        return Crop((height, width), (4, 10), (30, 20))

    with VideoReader(path) as video:
        clip = video.read_crop([5], choose)
        frame = video.read([5])[0]
    assert shapes == [frame.shape[:2]]
    assert shapes[0] == ((HEIGHT, WIDTH) if degrees % 180 == 0 else (WIDTH, HEIGHT))
    difference = np.abs(np.moveaxis(clip[:, 0], 0, -1).astype(int) - frame[4:34, 10:30])
    assert np.median(difference) <= 2
    assert difference.mean() < 12  # colours at edges are converted in another way


def test_mirrored_rows_and_columns():
    image = np.arange(5 * 7).reshape(5, 7)
    crop = Crop((5, 7), (1, 2), (3, 4))
    for transpose in (False, True):
        for flip_rows in (False, True):
            for flip_columns in (False, True):
                turns = (transpose, flip_rows, flip_columns)
                stored = image.T if transpose else image
                whole = pyav._upright(stored, *turns)
                wanted = Crop(whole.shape, (1, 2), (3, 4))
                part = wanted.turned(*turns)
                (top, left), (height, width) = part.corner, part.size
                got = pyav._upright(stored[top : top + height, left : left + width], *turns)
                np.testing.assert_array_equal(got, whole[1:4, 2:6])
    assert crop.turned(False, False, False) == crop


def test_crops_outside_of_the_frame_are_refused():
    with pytest.raises(
        ValueError, match=r"the crop of \(9, 9\) at \(2, 0\) must lie within frames scaled to \(10, 10\)"
    ):
        Crop((10, 10), (2, 0), (9, 9))


def test_wrong_numbers_of_crops(tmp_path):
    path = write_video(tmp_path / "video.mp4", 4)
    with VideoReader(path) as video:
        with pytest.raises(IndexError, match="there is no frame 4; they are numbered 0 to 3"):
            crop_of(video, (48, 64), (0, 0), (48, 64), [4])
        with pytest.raises(ValueError, match="indices is empty"):
            crop_of(video, (48, 64), (0, 0), (48, 64), [])


def test_a_failed_call_leaves_nothing_out_of_the_next(tmp_path):
    path = write_video(tmp_path / "video.mp4", **X264["one_keyframe"])

    def refuse(height, width):
        raise KeyError("no crop")

    with VideoReader(path) as video:
        with pytest.raises(KeyError):
            video.read_crop([10, 50], refuse)
        assert [number_of(frame) for frame in video.read(range(60))] == list(range(60))


class Counted:
    """Frames that a decoder gives and calls of the converter, with the sizes that it makes."""

    def __init__(self, monkeypatch):
        self.decoded, self.sizes, self.seeks = 0, [], 0
        decode = pyav.PyAVDecoder._try
        seek = pyav.PyAVDecoder._seek

        def count_frames(decoder, call):
            frames = decode(decoder, call)
            self.decoded += len(frames)
            return frames

        def count_seeks(decoder, keyframe):
            self.seeks += 1
            return seek(decoder, keyframe)

        class Reformatter:
            def __init__(_):
                _.real = VideoReformatter()

            def reformat(_, frame, width=None, height=None, *args, **options):
                self.sizes.append((height or frame.height, width or frame.width))
                return _.real.reformat(frame, width, height, *args, **options)

        monkeypatch.setattr(pyav.PyAVDecoder, "_try", count_frames)
        monkeypatch.setattr(pyav.PyAVDecoder, "_seek", count_seeks)
        monkeypatch.setattr(converter, "VideoReformatter", Reformatter)
        monkeypatch.setattr(pyav, "VideoReformatter", Reformatter)


def test_frames_that_nothing_refers_to_are_not_decoded(tmp_path, monkeypatch):
    """Of the 41 frames up to number 40 most are B-frames that no frame refers to; the clip wants 16 of 31."""
    path = write_video(tmp_path / "video.mp4", g=250, bf=3, **{"x264-params": "b-adapt=0:b-pyramid=none:scenecut=0"})
    counted = Counted(monkeypatch)
    with VideoReader(path, threads=1) as video:
        before = counted.decoded
        clip = video.read(range(10, 41, 2))
        decoded = counted.decoded - before
    assert [number_of(frame) for frame in clip] == list(range(10, 41, 2))
    assert 16 <= decoded <= 27
    monkeypatch.setattr(pyav, "CAN_SKIP", ())
    with VideoReader(path, threads=1) as video:
        before = counted.decoded
        np.testing.assert_array_equal(video.read(range(10, 41, 2)), clip)
        assert counted.decoded - before >= 41


def test_a_keyframe_that_comes_soon_is_not_sought(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", g=6, bf=0)
    counted = Counted(monkeypatch)
    with VideoReader(path, threads=1) as video:
        video.read(range(0, 60, 2))
        assert counted.seeks == 1
        video.read([0, 30])
        assert counted.seeks == 3


def test_one_conversion_a_frame_and_none_of_a_whole_one(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", size=(480, 640), **X264["b_frames"])
    counted = Counted(monkeypatch)
    with VideoReader(path, threads=1) as video:
        crop_of(video, (120, 160), (8, 40), (100, 100), range(0, 40, 2))
    assert len(counted.sizes) == 20
    assert set(counted.sizes) == {counted.sizes[0]}
    height, width = counted.sizes[0]
    assert height * width < 1.3 * 100 * 100


def test_frames_that_change_size_are_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", 9)
    decode = pyav.PyAVDecoder._decode

    class Larger:
        def __init__(self, frame):
            self.frame = frame

        def __getattr__(self, name):
            return {"height": 96, "width": 128}.get(name) or getattr(self.frame, name)

    monkeypatch.setattr(
        pyav.PyAVDecoder, "_decode", lambda self, number: (Larger if number == 7 else lambda x: x)(decode(self, number))
    )
    with VideoReader(path) as video, pytest.raises(VideoError, match=r"from \(48, 64\) to \(96, 128\).* at frame 7"):
        crop_of(video, (48, 64), (0, 0), (48, 64))
