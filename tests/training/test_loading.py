"""From data sets to batches: order, chance, broken files, several processes, the pace."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from vivit_zoo.training.loading import BrokenFiles, Feed, loader
from vivit_zoo.training.order import NOT_COUNTED, TestOrder, TrainOrder, group_by_class
from vivit_zoo.video.reader import VideoError


class Clips(Dataset):
    """Clip i is of one pixel, i, with a random second frame; those in `broken` cannot be read."""

    def __init__(self, length, broken=()):
        self.length, self.broken = length, broken

    def __len__(self):
        return self.length

    def __getitem__(self, place):
        if place in self.broken:
            raise VideoError(f"{place}.mp4: damaged")
        video = torch.stack([torch.tensor(place), torch.randint(256, ())]).to(torch.uint8)
        return video.reshape(1, 2, 1, 1), place % 3


class WholeBatches(Clips):
    def __getitems__(self, places):
        return [self[place] for place in places]


def places(batches, count):
    return [place for batch in islice(batches, count) for place in batch.places.tolist()]


@given(
    length=st.integers(1, 20),
    share=st.integers(1, 4),
    parts=st.integers(1, 3),
    processes=st.integers(1, 3),
    step=st.integers(0, 7),
    balanced=st.booleans(),
    repeats=st.integers(1, 3),
)
def test_processes_and_parts_share_each_step_out(length, share, parts, processes, step, balanced, repeats):
    """Together they have the clips that one process would have, step by step, wherever they begin."""
    share *= repeats
    size = share * parts * processes
    kind = {"groups": group_by_class([place % 3 for place in range(length)]) if balanced else None, "repeats": repeats}
    whole = list(islice(TrainOrder(length, size, seed=3, **kind), step + 4))[step:]
    orders = [
        list(islice(TrainOrder(length, size, 3, step, parts, process, processes, **kind), 4 * parts))
        for process in range(processes)
    ]
    for number, expected in enumerate(whole):
        found = [draw for order in orders for batch in order[number * parts : (number + 1) * parts] for draw in batch]
        assert sorted(found) == sorted(expected)
        assert all(len(batch) == share for order in orders for batch in order)


@given(length=st.integers(1, 12), size=st.integers(1, 8))
def test_each_epoch_has_every_clip_once(length, size):
    draws = [draw for batch in islice(TrainOrder(length, size, seed=0), 3 * length) for draw in batch]
    for epoch in range(3):
        own = [draw.place for draw in draws if draw.epoch == epoch]
        assert sorted(own) == list(range(length))


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_balanced_epochs_have_each_class_equally_often(labels, seed):
    """And of a class each clip equally often, so that none of a small one waits for the next epoch."""
    groups = group_by_class(labels)
    draws = [d for batch in islice(TrainOrder(len(labels), 1, seed, groups=groups), 2 * len(labels)) for d in batch]
    for epoch in range(2):
        own = [draw for draw in draws if draw.epoch == epoch]
        assert len(own) == len(labels)
        counts = Counter(labels[draw.place] for draw in own)
        assert max(counts.values()) - min(counts[label] for label in labels) <= 1
        for group in groups:
            of_clips = [sum(draw.place == place for draw in own) for place in group]
            assert max(of_clips) - min(of_clips) <= 1
        assert len(set(own)) == len(own)  # those of one clip have other random values


def test_groups_of_several_labels_and_of_heads():
    assert sorted(group_by_class([(0, 2), (2,), (), (0,)])) == [[0, 1], [0, 3], [2]]
    heads = [{"noun": 0, "verb": 1}, {"noun": 1, "verb": 1}, {"noun": 0, "verb": 1}]
    assert sorted(group_by_class(heads)) == [[0, 2], [1]]


def test_clips_without_a_label_cannot_be_balanced():
    with pytest.raises(ValueError, match=r"2 of 3 clips have no label, such as number 1, .* use sampling 'shuf"):
        group_by_class([0, None, None])


def test_copies_of_a_clip_follow_each_other_with_other_random_values():
    order = TrainOrder(6, 6, seed=0, repeats=3)
    batches = list(islice(loader(Clips(6), order, seed=0), 3))
    for batch in batches:
        first, second = batch.places.reshape(2, 3)
        assert len(first.unique()) == len(second.unique()) == 1
        assert first[0] != second[0]
        assert all(len(set(copies)) == 3 for copies in batch.video[:, 0, 1, 0, 0].reshape(2, 3).tolist())
    assert sorted({place for batch in batches for place in batch.places.tolist()}) == list(range(6))


@pytest.mark.parametrize("broken", [(), (2,)])
def test_copies_are_read_once_and_are_those_that_are_read_apart(broken):
    class Counting(Clips):
        reads = 0

        def copies(self, place, seeds):
            self.reads += 1
            if place in self.broken:
                raise VideoError(f"{place}.mp4: damaged")
            states = [torch.default_generator.manual_seed(seed).get_state() for seed in seeds]
            return [(torch.set_rng_state(state), self[place])[1] for state in states]

    together = Counting(6, broken)
    one, other = (
        next(iter(loader(data, TrainOrder(6, 12, seed=0, repeats=2), seed=0))) for data in (together, Clips(6, broken))
    )
    assert together.reads == 6
    assert torch.equal(one.video, other.video)
    assert one.places.tolist() == other.places.tolist()
    assert one.broken == other.broken


def test_epochs_and_seeds_have_other_orders():
    first, second = ([d.place for d in batch] for batch in islice(TrainOrder(30, 30, seed=0), 2))
    (other,) = ([d.place for d in batch] for batch in islice(TrainOrder(30, 30, seed=1), 1))
    assert len({tuple(order) for order in (first, second, other)}) == 3


@given(
    length=st.integers(1, 30),
    size=st.integers(1, 7),
    clips=st.one_of(st.none(), st.integers(1, 40)),
    processes=st.integers(1, 4),
)
def test_a_test_counts_each_clip_once(length, size, clips, processes):
    """And all processes get batches of the same number and sizes, for sharded models wait for one another."""
    orders = [TestOrder(length, size, clips, process, processes) for process in range(processes)]
    assert len({tuple(map(len, order)) for order in orders}) == 1
    counted = sorted(draw.place for order in orders for batch in order for draw in batch if draw.place != NOT_COUNTED)
    assert len(counted) == len(set(counted)) == min(length, clips or length)
    if clips is None:
        assert counted == list(range(length))
    elif 1 < clips <= length:  # spread over the data set, which may be sorted by class
        assert max(b - a for a, b in pairwise(counted)) <= -(-length // clips)


@pytest.mark.parametrize("workers", [0, 2])
def test_chance_follows_from_seed_epoch_and_place(workers):
    def frames(seed, step, kind=Clips):
        order = TrainOrder(6, 4, seed=0, step=step)
        return [batch.video for batch in islice(loader(kind(6), order, seed, workers), 4)]

    run = frames(seed=0, step=0)
    resumed = frames(seed=0, step=2)
    assert torch.equal(run[2], resumed[0])
    assert torch.equal(run[3], resumed[1])
    assert not torch.equal(run[0], frames(seed=1, step=0)[0])
    before = torch.get_rng_state()
    frames(seed=0, step=0)
    assert torch.equal(torch.get_rng_state(), before)  # a model's dropout does not depend on what is loaded


def test_some_clips_of_a_test_are_spread_over_it():
    """A data set may be sorted by class."""
    assert [draw.place for batch in TestOrder(12, 3, clips=4) for draw in batch] == [0, 3, 6, 9]


def test_epochs_of_a_clip_differ():
    batches = list(islice(loader(Clips(40), TrainOrder(40, 40, seed=0), seed=0), 2))
    second_frames = [dict(zip(b.places.tolist(), b.video[:, 0, 1, 0, 0].tolist(), strict=True)) for b in batches]
    assert sum(second_frames[0][place] != second_frames[1][place] for place in range(40)) > 30
    assert len(set(second_frames[0].values())) > 20


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_files_in_training_are_replaced_and_told(workers):
    batches = list(islice(loader(Clips(8, broken={2, 5}), TrainOrder(8, 8, seed=0), 0, workers), 3))
    for batch in batches:
        assert {place for place, _ in batch.broken} == {2, 5}
        assert dict(batch.broken)[5] == "5.mp4: damaged"
        assert not {2, 5} & set(batch.places.tolist())
        assert batch.video[:, 0, 0, 0, 0].tolist() == batch.places.tolist()
        assert batch.label.tolist() == [place % 3 for place in batch.places.tolist()]
        assert len(batch.places) == 8
    again = list(islice(loader(Clips(8, broken={2, 5}), TrainOrder(8, 8, seed=0), 0), 3))
    for one, other in zip(batches, again, strict=True):
        assert torch.equal(one.video, other.video)


def test_broken_files_in_a_test_do_not_count():
    batches = list(loader(Clips(7, broken={0, 6}), TestOrder(7, 3), seed=0))
    assert [place for place in places(batches, 9) if place >= 0] == [1, 2, 3, 4, 5]
    assert [len(batch.places) for batch in batches] == [3, 3, 1]
    assert {place for batch in batches for place, _ in batch.broken} == {0, 6}


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_broken_files(workers):
    feed = Feed(loader(Clips(3, broken={0, 1, 2}), TrainOrder(3, 2, seed=0), 0, workers), "cpu")
    # Kept in this frame, the error would keep the loader, whose workers the garbage collector ends in 5 s each.
    with pytest.raises(VideoError, match=r"(?s)^20 videos in a row cannot be read(?!.*Traceback)"):
        next(iter(feed))


def test_too_many_broken_files_end_a_run(tmp_path, capsys):
    broken = BrokenFiles(20, most=0.1, file=tmp_path / "broken.jsonl")
    broken.add([(3, "3.mp4: damaged")])
    broken.add([(3, "3.mp4: damaged"), (7, "7.mp4: empty")])
    assert [json.loads(line) for line in (tmp_path / "broken.jsonl").read_text().splitlines()] == [
        {"place": 3, "error": "3.mp4: damaged"},
        {"place": 7, "error": "7.mp4: empty"},
    ]
    assert capsys.readouterr().err.count("3.mp4: damaged") == 1  # told once
    with pytest.raises(VideoError, match=r"3 of 20 videos cannot be read, more than the 10\.0%.*\n.*3\.mp4"):
        broken.add([(8, "8.mp4: text")])


def test_data_sets_that_make_whole_batches_are_asked_for_them():
    batch = next(iter(loader(WholeBatches(9), TestOrder(9, 4), seed=0)))
    assert batch.places.tolist() == [0, 1, 2, 3]


def test_a_feed_normalises_and_counts(tmp_path):
    feed = Feed(loader(Clips(8), TestOrder(8, 3), 0), "cpu", BrokenFiles(8, 0, tmp_path / "broken.jsonl"))
    batches = list(feed)
    assert batches[0].video.dtype == torch.float32
    assert batches[1].video[0, 0, 0, 0, 0] == pytest.approx(3 / 127.5 - 1)
    pace = feed.pace(seconds=1000.0, workers=0)  # more than any machine takes
    assert pace["clips_per_second"] == 0.008
    assert pace["loader_clips_per_second"] > 0.008 < pace["model_clips_per_second"] * 1.0001
    assert len(list(feed)) == 3  # once more
    assert feed.pace(seconds=1.0, workers=0, processes=2)["clips_per_second"] == 16


def test_labels_of_several_heads():
    class Actions(Clips):
        def __getitem__(self, place):
            video, label = super().__getitem__(place)
            return video, {"verb": label, "noun": place}

    batch = next(iter(Feed(loader(Actions(4), TestOrder(4, 4), 0), "cpu")))
    assert batch.label["noun"].tolist() == [0, 1, 2, 3]
    assert batch.label["verb"].tolist() == [0, 1, 2, 0]


WAIT = """
import signal, time
from tests.training.test_loading import Clips, TrainOrder, loader

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: None)
    batches = iter(loader(Clips(8), TrainOrder(8, 8, seed=0), seed=0, workers=1))
    next(batches)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_workers_stay_as_long_as_their_loader(end):
    """A terminal and SLURM signal all processes: workers and their server go on; they leave with the loader."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "ready\n"
        family = psutil.Process(process.pid).children(recursive=True)
        others = [p for p in family if "forkserver" in " ".join(p.cmdline())]
        try:
            assert len(others) == 2
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(0.2)
            assert all(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in others)
            if end == signal.SIGINT:  # as Ctrl-C
                os.killpg(process.pid, end)
            else:
                process.kill()
            assert process.wait(60) == -end
            _, alive = psutil.wait_procs(others, timeout=60)
            assert not alive
        finally:
            process.kill()
            for left in others:
                with suppress(psutil.NoSuchProcess):
                    left.kill()
