"""Which frames make a clip, and which views make a test."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.footage import X264, numbers_of, write_video
from vivit_zoo.video.clips import ClipSampler, Views, clip_indices, clip_offsets
from vivit_zoo.video.preprocess import Preprocess
from vivit_zoo.video.reader import VideoError, VideoReader, read_video

lengths, counts, strides = st.integers(1, 400), st.integers(1, 40), st.integers(1, 8)
policies = st.sampled_from(["repeat_last", "wrap", "error"])


class Video:
    """What samplers look at: a length and times."""

    def __init__(self, times):
        self.times = np.asarray(times, np.float64)

    def __len__(self):
        return len(self.times)


def steady(length, rate=25.0):
    return Video(np.arange(length) / rate)


varied = st.lists(st.integers(1, 40), min_size=0, max_size=100).map(lambda steps: Video(np.cumsum([0, *steps]) / 50))


@given(lengths, st.integers(1, 10), counts, strides)
def test_offsets_are_those_of_the_original(length, clips, frames, stride):
    last = max(0, length - frames * stride)
    offsets = clip_offsets(length, clips, frames, stride)
    if clips == 1:
        assert offsets == [(length - frames * stride) // 2 if last else 0]
    else:
        assert offsets == [int(x) for x in np.linspace(0, last, clips)]
        assert (offsets[0], offsets[-1]) == (0, last)


def test_offsets_by_hand():
    assert clip_offsets(300, 4) == [0, 78, 157, 236]
    assert clip_offsets(300) == [118]
    assert clip_offsets(64, 4) == [0, 0, 0, 0]
    assert clip_offsets(10, 3) == [0, 0, 0]


@given(lengths, st.data(), counts, strides)
def test_policies(length, data, frames, stride):
    offset = data.draw(st.integers(0, length - 1))
    plain = [offset + i * stride for i in range(frames)]
    repeated = clip_indices(length, offset, frames, stride)
    assert repeated.tolist() == [min(i, length - 1) for i in plain]
    tiled = list(range(length)) * (plain[-1] // length + 1)
    assert clip_indices(length, offset, frames, stride, "wrap").tolist() == [tiled[i] for i in plain]
    if plain[-1] < length:
        assert clip_indices(length, offset, frames, stride, "error").tolist() == plain
    else:
        with pytest.raises(VideoError, match=f"{length} frames are too few: .* need {plain[-1] + 1}; use a smaller"):
            clip_indices(length, offset, frames, stride, "error")


def test_wrong_arguments_of_the_sampling():
    with pytest.raises(ValueError, match="policy 'loop' is unknown; choose from repeat_last, wrap, error"):
        clip_indices(9, policy="loop")
    with pytest.raises(ValueError, match="offset 9 is outside a video of 9 frames"):
        clip_indices(9, 9)
    with pytest.raises(ValueError, match="clip of 0 frames with stride 2 is empty"):
        clip_indices(9, frames=0)
    with pytest.raises(ValueError, match="clips 0 is not positive"):
        clip_offsets(9, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "clip of 0 frames"),
        ({"stride": 0}, "stride 0 is empty"),
        ({"policy": "loop"}, "policy 'loop' is unknown"),
        ({"fps": 0.0}, "fps 0.0 is no rate"),
        ({"fps": float("nan")}, "fps nan is no rate"),
        ({"where": "center"}, "where 'center' is unknown; choose from random, uniform, centre"),
        ({"where": "uniform", "fps": 5}, "no rate; fps 5 must be None"),
    ],
)
def test_wrong_samplers(changes, message):
    with pytest.raises(ValueError, match=message):
        ClipSampler(**changes)
    if "where" not in changes:
        with pytest.raises(ValueError, match=message):
            Views(**changes)


@given(
    st.one_of(lengths.map(steady), varied),
    counts,
    strides,
    st.one_of(st.none(), st.floats(0.5, 60)),
    st.sampled_from(["random", "centre"]),
    policies,
)
def test_whatever_is_sampled_lies_in_the_video(video, frames, stride, fps, where, policy):
    sampler = ClipSampler(frames=frames, stride=stride, fps=fps, where=where, policy=policy)
    views = Views(clips=3, frames=frames, stride=stride, fps=fps, policy=policy)
    for indices, shape in ((sampler.indices, (frames,)), (views.indices, (3, frames))):
        try:
            chosen = indices(video)
        except VideoError as error:
            assert policy == "error", error  # noqa: PT017
            continue
        assert chosen.shape == shape
        assert chosen.dtype == np.int64
        assert ((chosen >= 0) & (chosen < len(video))).all()
        if policy != "wrap":
            assert (np.diff(chosen) >= 0).all()


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 5))
def test_each_start_of_a_random_clip_is_equally_likely(length, frames, stride):
    """The original's: uniform in [0, max(T - (n - 1) stride, 1))."""
    torch.manual_seed(0)
    places = max(length - (frames - 1) * stride, 1)
    sampler = ClipSampler(frames=frames, stride=stride)
    starts = np.bincount([sampler.indices(steady(length))[0] for _ in range(60 * places)])
    assert len(starts) == places
    assert starts.min() >= 25
    assert starts.max() <= 110


def test_random_starts_in_seconds_are_as_likely_and_end_within_the_video():
    torch.manual_seed(0)
    video = steady(40)
    in_frames, in_seconds = (
        ClipSampler(frames=8, stride=4, policy="error"),
        ClipSampler(frames=8, fps=25 / 4, policy="error"),
    )
    places = [{tuple(sampler.indices(video).tolist()) for _ in range(400)} for sampler in (in_frames, in_seconds)]
    assert places[0] == places[1]
    assert len(places[0]) == 12


def test_random_clips_are_drawn_from_torchs_generator_alone():
    for sampler in (ClipSampler(frames=4), ClipSampler(frames=4, fps=10)):
        torch.manual_seed(3)
        first = [sampler.indices(steady(500)).tolist() for _ in range(5)]
        torch.manual_seed(3)
        assert [sampler.indices(steady(500)).tolist() for _ in range(5)] == first
        assert len(set(map(tuple, first))) > 1


@given(lengths, counts, strides)
def test_the_centre_is_the_one_test_clip(length, frames, stride):
    chosen = ClipSampler(frames=frames, stride=stride, where="centre").indices(steady(length))
    (offset,) = clip_offsets(length, 1, frames, stride)
    np.testing.assert_array_equal(chosen, clip_indices(length, offset, frames, stride))
    np.testing.assert_array_equal(chosen[None], Views(clips=1, frames=frames, stride=stride).indices(steady(length)))


@given(lengths, counts)
def test_uniform_takes_the_middle_of_equal_parts(length, frames):
    chosen = ClipSampler(frames=frames, where="uniform").indices(steady(length))
    assert (np.diff(chosen) >= 0).all()
    middles = (np.arange(frames) + 0.5) * length / frames
    assert (np.diff(chosen) >= 0).all()
    assert (chosen <= middles + 1e-9).all()
    assert (middles < chosen + 1 + 1e-9).all()
    if length >= frames:
        assert len(set(chosen.tolist())) == frames


def test_uniform_by_hand():
    def uniform(length, frames, **options):
        return ClipSampler(frames=frames, where="uniform", **options).indices(steady(length)).tolist()

    assert uniform(9, 3) == [1, 4, 7]
    assert uniform(100, 4) == [12, 37, 62, 87]
    assert uniform(2, 4) == [0, 0, 1, 1]
    assert uniform(4, 4, policy="error") == [0, 1, 2, 3]
    with pytest.raises(VideoError, match="3 frames are too few to take 4 different ones"):
        uniform(3, 4, policy="error")


@given(
    st.integers(2, 400), st.integers(1, 10), counts, strides, st.sampled_from([12.0, 24.0, 25.0, 30000 / 1001, 60.0])
)
def test_seconds_equal_frames_at_a_steady_rate(length, clips, frames, stride, rate):
    """Even with times rounded to milliseconds, as in Matroska."""
    video = steady(length, rate)
    for policy in ("repeat_last", "wrap"):
        in_frames = Views(clips=clips, frames=frames, stride=stride, policy=policy)
        in_seconds = replace(in_frames, fps=rate / stride)
        np.testing.assert_array_equal(in_seconds.indices(video), in_frames.indices(video))
    rounded = Video(video.times.round(3))
    from_the_start = Views(clips=2, frames=frames, fps=rate / stride).indices(rounded)[0]
    np.testing.assert_array_equal(from_the_start, clip_indices(length, 0, frames, stride))


@given(varied, st.integers(1, 20), st.floats(0.5, 60))
def test_seconds_choose_the_frame_on_show(video, frames, fps):
    (chosen,) = Views(clips=1, frames=frames, fps=fps).indices(video)
    duration = video.times[-1] * len(video) / max(len(video) - 1, 1)
    start = max(0, duration - frames / fps) / 2
    for i, number in enumerate(chosen):
        moment = start + i / fps
        assert video.times[number] <= moment + 2e-3
        assert number == len(video) - 1 or moment < video.times[number + 1]


def test_seconds_by_hand():
    still = Video([0, 0.1, 0.2, 3.2, 3.3, 3.4])  # three frames, a stand-still of three seconds, three frames
    sampler = ClipSampler(frames=8, fps=2, where="centre")
    assert sampler.indices(still).tolist() == [0, 2, 2, 2, 2, 2, 2, 5]
    assert Views(clips=2, frames=4, fps=2).indices(still).tolist() == [[0, 2, 2, 2], [2, 2, 2, 5]]
    later = Video(still.times + 7)
    assert sampler.indices(later).tolist() == sampler.indices(still).tolist()


def test_too_short_in_seconds():
    sampler = ClipSampler(frames=8, fps=2, where="centre", policy="error")
    assert sampler.indices(steady(100)).tolist() == [0, 12, 25, 37, 50, 62, 75, 87]
    with pytest.raises(
        VideoError, match=r"a video: 3\.00 seconds are too short: 8 frames at 2 a second from second 0\.00"
    ):
        sampler.indices(steady(75))
    assert replace(sampler, policy="repeat_last").indices(steady(75))[-2:].tolist() == [74, 74]
    assert replace(sampler, policy="wrap").indices(steady(75))[-2:].tolist() == [0, 12]
    one = steady(1)
    assert replace(sampler, policy="wrap").indices(one).tolist() == [0] * 8
    assert replace(sampler, frames=1).indices(one).tolist() == [0]
    with pytest.raises(VideoError, match="too short"):
        sampler.indices(one)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "video.mp4", 60, **X264["b_frames"])


def test_samplers_of_real_files(path):
    with VideoReader(path) as video:
        chosen = ClipSampler(frames=5, fps=6, where="centre").indices(video)  # of 30 frames a second
        assert numbers_of(video.read(chosen)) == [17, 22, 27, 32, 37]
        with pytest.raises(VideoError, match=r"video\.mp4: 60 frames are too few: 32 with stride 2"):
            ClipSampler(policy="error").indices(video)
        with pytest.raises(VideoError, match=r"video\.mp4: 60 frames are too few to take 61"):
            ClipSampler(frames=61, where="uniform", policy="error").indices(video)


@pytest.mark.parametrize(("crops", "lefts"), [(1, [8]), (3, [0, 8, 16])])
def test_views_of_bytes_come_crop_by_crop_and_clip_by_clip(path, crops, lefts):
    frames = read_video(path)
    with VideoReader(path.read_bytes()) as video:  # crops of the video's own height: no resizing
        (views,) = Views(clips=4, crops=crops, frames=8, stride=3).cut(video, Preprocess(48, 48))
    assert views.dtype == torch.uint8
    assert views.is_contiguous()
    expected = [frames[at : at + 24 : 3, :, left : left + 48] for left in lefts for at in (0, 12, 24, 36)]
    np.testing.assert_array_equal(views, np.stack(expected).transpose(0, 4, 1, 2, 3))


@pytest.mark.parametrize("gray", [False, True])
def test_views_of_bytes_are_those_that_are_read_before_scaling(path, gray):
    views, preprocess = Views(clips=2, frames=4, fps=10), Preprocess((20, 28))
    with VideoReader(path, gray=gray) as video:
        (cut,) = views.cut(video, preprocess)
    assert cut.shape == (6, 1 if gray else 3, 4, 20, 28)
    read = torch.cat([view for (view,) in views.read(path.read_bytes(), preprocess, gray=gray)])
    torch.testing.assert_close(cut.float() / 127.5 - 1, read, rtol=0, atol=0)


@given(lengths, counts, strides, st.integers(1, 3))
def test_under_the_policy_mask_frames_beyond_the_end_are_marked(length, frames, stride, clips):
    masked, plain = (
        Views(clips=clips, crops=1, frames=frames, stride=stride, policy=policy).sample(steady(length))
        for policy in ("mask", "repeat_last")
    )
    np.testing.assert_array_equal(masked.indices, plain.indices)
    assert plain.mask is None
    for offset, mask in zip(clip_offsets(length, clips, frames, stride), masked.mask, strict=True):
        assert mask.tolist() == [offset + i * stride < length for i in range(frames)]


@pytest.mark.parametrize(
    ("sampler", "mask"),
    [
        (ClipSampler(frames=6, stride=1, policy="mask"), [1, 1, 1, 1, 0, 0]),
        (ClipSampler(frames=6, stride=2, where="centre", policy="mask"), [1, 1, 0, 0, 0, 0]),
        (
            ClipSampler(frames=4, fps=50, policy="mask"),
            [1, 1, 1, 1],
        ),  # of 25: some frames come twice, but all are there
        (ClipSampler(frames=4, fps=12.5, policy="mask"), [1, 1, 0, 0]),
        (ClipSampler(frames=6, where="uniform", policy="mask"), [1, 1, 0, 1, 1, 0]),
        (Views(frames=6, clips=1, spread=True, policy="mask"), [[1, 0, 1, 1, 0, 1]]),
    ],
)
def test_masks_of_a_video_of_four_frames(sampler, mask):
    torch.manual_seed(0)
    sample = sampler.sample(steady(4))
    assert sample.mask.astype(int).tolist() == mask
    assert sample.indices.max() <= 3
    torch.manual_seed(0)
    np.testing.assert_array_equal(sampler.indices(steady(4)), sample.indices)


def test_masks_of_views_follow_their_clips(path):
    views, preprocess = Views(clips=2, frames=8, stride=9, policy="mask"), Preprocess((20, 28))
    with VideoReader(path) as video:
        wanted = views.sample(video).mask
        _, masks = views.cut(video, preprocess)
    assert not wanted.all()
    assert masks.dtype == torch.bool
    np.testing.assert_array_equal(masks.numpy(), np.tile(wanted, (3, 1)))
    read = list(views.read(path, preprocess))
    assert torch.equal(torch.cat([mask for _, mask in read]), masks)
    assert [view.shape for view, _ in read] == [(1, 3, 8, 20, 28)] * 6
