"""Items of data sets of videos: right frames and labels, repeatable by the seed, the same in worker processes."""

import pickle

import numpy as np
import pytest
import torch

from tests.footage import BROKEN, CLASSES, numbers_of, write_broken_set, write_set
from vivit_zoo.datasets import VideoClips, VideoViews, read_catalogue
from vivit_zoo.video.clips import ClipSampler, Views
from vivit_zoo.video.preprocess import Preprocess, normalise
from vivit_zoo.video.reader import VideoError, VideoReader


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return read_catalogue(write_set(tmp_path_factory.mktemp("set")))


def numbers_in(video):
    return numbers_of(video.permute(1, 2, 3, 0).numpy())


def test_training_clips(catalogue):
    dataset = VideoClips(catalogue, ClipSampler(frames=4, stride=3))
    assert len(dataset) == 6
    assert dataset.classes == CLASSES
    starts = set()
    for index in [0, 5] * 20:
        video, label = dataset[index]
        assert video.shape == (3, 4, 48, 64)
        assert video.dtype == torch.uint8
        assert video.is_contiguous()
        assert label == index // 2
        start = numbers_in(video)[0]
        assert numbers_in(video) == [start, start + 3, start + 6, start + 9]
        starts.add(start)
    assert len(starts) > 5


def test_all_that_is_random_follows_from_torchs_global_generator(catalogue):
    def jitter(clip, label):
        return clip.roll(int(torch.randint(40, ())), -1).movedim(0, 1), label

    dataset = VideoClips(catalogue, ClipSampler(frames=4), jitter)
    torch.manual_seed(7)
    first = [dataset[index][0] for index in range(6)]
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(7)
    again = [dataset[index][0] for index in range(6)]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(dataset[0][0], first[0])


@pytest.mark.parametrize("policy", ["repeat_last", "mask"])
def test_copies_are_several_items_of_one_video_read_once(catalogue, monkeypatch, policy):
    """Each frame decoded once, with masks where there are any; equal to items that are read apart."""

    def jitter(clip, label):
        return clip.roll(int(torch.randint(40, ())), -1).movedim(0, 1), label

    dataset = VideoClips(catalogue, ClipSampler(frames=30, stride=3, policy=policy), jitter)
    seeds = [3, 1, 4]
    apart = []
    for seed in seeds:
        torch.manual_seed(seed)
        apart.append(dataset[5])
    reads, read = [], VideoReader.read
    monkeypatch.setattr(VideoReader, "read", lambda *a, **k: (reads.append(1), read(*a, **k))[1])
    together = dataset.copies(5, seeds)
    assert len(reads) == 1
    for one, other in zip(together, apart, strict=True):
        assert len(one) == len(other) == (3 if policy == "mask" else 2)
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(one, other, strict=True))
    assert not torch.equal(together[0][0], together[1][0])


def test_transform_gets_clip_and_label_and_resize_each_frame(catalogue):
    shapes = []

    def resize(frame):
        shapes.append(frame.shape)
        return frame[:24]

    def transform(clip, label):
        assert clip.shape == (5, 3, 24, 64)
        assert clip.is_contiguous()
        return clip.movedim(0, 1), label + 10

    video, label = VideoClips(catalogue, ClipSampler(frames=5), transform, resize=resize)[2]
    assert video.shape == (3, 5, 24, 64)
    assert label == 11
    assert shapes == [(48, 64, 3)] * 5


def test_views_are_those_of_the_classifier(catalogue):
    views, preprocess = Views(clips=3, crops=3, frames=4, stride=2), Preprocess(24, short_side=30)
    dataset = VideoViews(catalogue, views, preprocess)
    video, label = dataset[3]
    assert label == 1
    assert video.shape == (9, 3, 4, 24, 24)
    assert video.dtype == torch.uint8
    expected = torch.cat([view for (view,) in views.read(catalogue.entries[3].video.path, preprocess)])
    assert torch.equal(normalise(video), expected)
    assert VideoViews(catalogue, views, preprocess, gray=True)[3][0].shape == (9, 1, 4, 24, 24)
    with pytest.raises(ValueError, match="preprocessing of the style 'transformers' is not x"):
        VideoViews(catalogue, views, Preprocess(style="transformers"))


def test_pickled_as_for_worker_processes_items_are_the_same(catalogue):
    dataset = VideoClips(catalogue, ClipSampler(frames=4, where="centre"), gray=True)
    other = pickle.loads(pickle.dumps(dataset))
    for index in range(6):
        assert torch.equal(other[index][0], dataset[index][0])
        assert other[index][1] == dataset[index][1]


@pytest.fixture(scope="module")
def broken_set(tmp_path_factory):
    return write_broken_set(tmp_path_factory.mktemp("broken") / "set")


def test_broken_videos_are_errors_that_name_them(broken_set):
    catalogue = read_catalogue(broken_set)
    train = VideoClips(catalogue, ClipSampler(frames=4))
    test = VideoViews(catalogue, Views(clips=2, crops=1, frames=4), Preprocess(24, short_side=30))
    bad = {str(broken_set / name): message for name, (_, message) in BROKEN.items()}
    seen = 0
    for index, entry in enumerate(catalogue.entries):
        for dataset in (train, test):
            if message := bad.get(entry.video.name):
                with pytest.raises(VideoError, match=f"{entry.video.name}: {message}"):
                    dataset[index]
                seen += 1
            elif index % 10 == 5:
                dataset[index]
    assert seen == 2 * len(bad) == 10


def test_one_frame_is_enough_for_models_of_one_frame(broken_set):
    catalogue = read_catalogue(broken_set)
    index = [entry.video.name for entry in catalogue.entries].index(str(broken_set / "walk/walk_9.mp4"))
    assert "only one frame" in BROKEN["walk/walk_9.mp4"][1]
    assert VideoClips(catalogue, ClipSampler(frames=1))[index][0].shape == (3, 1, 48, 64)


def test_too_short_for_the_sampler(catalogue):
    with pytest.raises(VideoError, match=r"jump_0\.mp4: 20 frames are too few: 16 with stride 2 from frame"):
        VideoClips(catalogue, ClipSampler(frames=16, policy="error"))[0]


def test_masks_come_third(catalogue):
    """The videos have 20 frames."""
    clips = VideoClips(catalogue, ClipSampler(frames=4, stride=8, policy="mask"))
    video, label, mask = clips[3]
    assert mask.tolist() == [True, True, True, False]
    assert numbers_in(video) == [0, 8, 16, 19]
    assert (label, video.dtype, mask.dtype) == (1, torch.uint8, torch.bool)
    views = VideoViews(catalogue, Views(clips=1, frames=4, stride=8, policy="mask"), Preprocess((24, 24)))
    assert views[3][2].tolist() == [[True, True, True, False]] * 3
