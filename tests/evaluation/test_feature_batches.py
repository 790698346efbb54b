"""Windows of videos in batches: shared, read ahead, as many as fit, and no more of them in memory."""

import threading

import numpy as np
import torch

from tests.conftest import randomise, tiny_config
from tests.evaluation.test_features import same_files
from vivit_zoo import ViViT
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.datasets.catalogue import Catalogue, Entry
from vivit_zoo.datasets.sources import ArrayReader
from vivit_zoo.evaluation import feature_jobs
from vivit_zoo.evaluation.feature_files import list_features, read_features
from vivit_zoo.evaluation.features import Extraction, extract_features
from vivit_zoo.video.clips import Windows


def test_windows_of_several_videos_share_a_batch(tmp_path, monkeypatch):
    gray = randomise(ViViT(tiny_config(in_chans=1, num_frames=16))).eval()
    sizes, compute = [], gray.forward_features
    monkeypatch.setattr(gray, "forward_features", lambda video, mask: sizes.append(len(video)) or compute(video))
    extract_features(gray, MovingDigits("train", 7).videos(), tmp_path, Extraction(layers=()), batch_size=3)
    assert sizes == [3, 3, 1]
    assert set(read_features(list_features(tmp_path)[0]).tensors) == {"features", "frames", "times"}


def test_the_next_batch_is_read_while_the_model_computes(tmp_path, monkeypatch):
    gray = randomise(ViViT(tiny_config(in_chans=1, num_frames=16))).eval()
    opened = [threading.Event() for _ in range(5)]
    windows, compute, batches = feature_jobs.Job.windows, gray.forward_features, []

    def note(job, *args):
        opened[next(number for number, event in enumerate(opened) if not event.is_set())].set()
        return windows(job, *args)

    def wait(video, mask):
        batches.append(len(video))
        if len(batches) < 5:
            assert opened[len(batches)].wait(10)  # would never be set if it were read after this batch
        return compute(video)

    monkeypatch.setattr(feature_jobs.Job, "windows", note)
    monkeypatch.setattr(gray, "forward_features", wait)
    extract_features(gray, MovingDigits("train", 5).videos(), tmp_path, Extraction(layers=()), batch_size=1)
    assert batches == [1] * 5


def test_windows_are_computed_together_as_far_as_they_fit(tmp_path, monkeypatch):
    gray = randomise(ViViT(tiny_config(in_chans=1, num_frames=4))).eval()
    videos, compute, sizes = MovingDigits("train", 4).videos(), gray.forward_features, []
    extract_features(gray, videos, tmp_path / "all", Extraction(layers=()))

    def small(video, mask):
        sizes.append(len(video))
        if len(video) > 2:
            raise torch.OutOfMemoryError("too many")
        return compute(video)

    monkeypatch.setattr(gray, "forward_features", small)
    extract_features(gray, videos, tmp_path / "some", Extraction(layers=()), batch_size=5)
    assert sizes == [5, 3, 2, 2, 1, 2, 1]
    same_files(tmp_path / "all", tmp_path / "some")


class Counting(ArrayReader):
    """A long video that says how many of its frames are alive."""

    alive = most = 0

    def read(self, indices, change=None):
        frames = super().read(indices, change)
        Counting.most = max(Counting.most, len(frames))
        return frames


class Long:
    name = "a long video"

    def open(self, gray=False, **_):
        return Counting(self.name, np.zeros((3000, 8, 12, 1 if gray else 3), np.uint8), 25.0)

    def exists(self):
        return True


def test_memory_is_that_of_a_window(tmp_path):
    gray = randomise(ViViT(tiny_config(in_chans=1))).eval()
    what = Extraction(layers=())
    extract_features(gray, Catalogue([Entry(Long(), 0)], ["x"]), tmp_path, what, sampler=Windows(frames=6, hop=3))
    assert Counting.most == 6
    assert len(read_features(list_features(tmp_path)[0]).tensors["features"]) == 499
