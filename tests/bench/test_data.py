"""Measuring the data path: every candidate reads the same frames, and the stages are those of the reader."""

import time

import pytest
import torch

from tests.footage import X264, write_video
from vivit_zoo.bench import data
from vivit_zoo.bench.data import COLOURS, FLOOR, PLAIN, FileSpeed, Seconds, measure, report
from vivit_zoo.cli import main
from vivit_zoo.video.clips import ClipSampler


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_peers", dict)
    return write_video(tmp_path / "video.mp4", 40, size=(64, 80), **X264["b_frames"])


def test_all_candidates_are_measured_as_often(path):
    seen = []
    others = {"other": lambda seed: seen.append(seed) or Seconds(1.0, 2.0)}
    speed = measure(path, ClipSampler(frames=8), 32, rounds=3, others=others)
    assert list(speed.clips) == [FLOOR, PLAIN, COLOURS, f"{PLAIN}, exact", f"{COLOURS}, exact", "other"]
    assert all(len(clips) == 3 for clips in speed.clips.values())
    assert seen == [0, 1, 2, 3]
    assert speed.file == "video.mp4: h264, 80x64, 40 frames, 4 keyframes"
    plain, exact = speed.stages[PLAIN], speed.stages[f"{PLAIN}, exact"]
    ours = ["open", "index", "seek, decode", "convert, scale, crop", "flip, colours", "collate"]
    assert plain.keys() - {"copies, rest"} == set(ours)
    assert exact.keys() - plain.keys() == {"resize", "scale, crop"}
    assert all(len(seconds) == 3 and min(seconds) >= 0 for seconds in plain.values())


def test_the_floor_reads_the_frames_of_the_clip(path):
    sampler = ClipSampler(frames=8)
    chosen = {seed: data._chosen(str(path), sampler, seed)[0].tolist() for seed in (1, 2, 3)}
    assert len({tuple(indices) for indices in chosen.values()}) == 3
    torch.manual_seed(0)
    before = torch.get_rng_state()
    clip = data._read(str(path), sampler, data.Augment(size=32, colour=0, gray=0), 1)
    assert clip.shape == (3, 8, 32, 32)
    assert torch.equal(torch.get_rng_state(), before)


def test_time_within_an_inner_stage_counts_once(monkeypatch):
    class Reader:
        def outer(self):
            spin(0.02)
            self.inner()

        def inner(self):
            spin(0.04)

    def spin(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    monkeypatch.setattr(data, "_STAGES", {"outer": [(Reader, "outer")], "inner": [(Reader, "inner")]})
    with data._watch() as spent:
        spin(0.01)
        Reader().outer()
    assert [name for name, _ in sorted(spent.items(), key=lambda item: -item[1])] == ["inner", "outer", "copies, rest"]
    assert "watched" not in Reader.outer.__qualname__


def test_tables():
    times = {FLOOR: [0.01, 0.03, 0.02], PLAIN: [0.02, 0.03, 0.04], COLOURS: [0.03, 0.09, 0.08]}
    clips = {name: [Seconds(cpu, 2 * cpu) for cpu in cpus] for name, cpus in times.items()}
    stages = {PLAIN: {"open": [0.001] * 3}, COLOURS: {"open": [0.002] * 3, "flip, colours": [0.03, 0.01, 0.02]}}
    speed = FileSpeed("a.mp4", clips, stages)
    assert speed.over_floor(COLOURS) == 3
    text = report([speed], clips_per_second=100)
    assert "| flip, colours |      |          20.0 |" in text
    assert "| clip, colours                      |   80.0 |   160.0 |         3.00 |           12.5 |" in text
    assert "8.0 |" in text.splitlines()[-1]


def test_command(path, capsys):
    assert main(["bench", "data", str(path), "--frames", "4", "--image-size", "32", "--repeats", "1"]) == 0
    assert "**video.mp4: h264, 80x64" in capsys.readouterr().out
    assert main(["bench", "data", str(path) + "x"]) == 2
    assert "there is no such file" in capsys.readouterr().err
