"""Speeds are measured, told and drawn; no test looks at how large they are."""

import dataclasses
import json
import math
import os
import signal
import time
from functools import partial
from time import perf_counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.conftest import VARIANTS, tiny_config
from vivit_zoo.bench import campaigns as campaigns_module
from vivit_zoo.bench import measure as bench_module
from vivit_zoo.bench.campaigns import campaign
from vivit_zoo.bench.measure import Candidate, bench, compare
from vivit_zoo.bench.peers import candidates
from vivit_zoo.bench.report import OOM, OUT_OF_TIME, Case, Speed, draw, read, report, table, write
from vivit_zoo.cli import main
from vivit_zoo.config import SIZES
from vivit_zoo.inference import FusedMlp

SHAPE = (2, 1, 2, 4, 4)


class Toy(nn.Module):
    """(b, 1, 2, 4, 4) -> (b, 3), with a head that starts at zero and a buffer of a known size while it runs."""

    def __init__(self, megabytes=0, break_with=None):
        super().__init__()
        self.megabytes, self.break_with = megabytes, break_with
        self.body, self.head = nn.Linear(32, 8), nn.Linear(8, 3)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        if self.break_with is not None:
            self.break_with()
        torch.ones(self.megabytes * 250_000)
        return {"one": self.head(self.body(x.flatten(1)))}


def not_enough():
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: 9e9")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def wrong():
    raise ValueError("this is wrong\nat length")


@pytest.fixture
def quick(monkeypatch):
    """Short measurements, and no processes, which take seconds to start: the first step is taken for granted."""
    monkeypatch.setattr(bench_module, "_MEASURED_SECONDS", 1e-4)
    monkeypatch.setattr(bench_module, "_first_step_in_new_process", lambda *_: {"peak_bytes": 10**6})


@pytest.mark.parametrize("train", [False, True])
def test_a_module_is_measured(quick, train):
    speed = bench(Toy, SHAPE, train=train, repeats=3)
    assert len(speed.seconds) == len(speed.matmul) == 3
    assert speed.flops == 2 * 2 * (32 * 8 + 8 * 3) * (3 if train else 1)
    assert 0 < speed.best <= speed.median
    assert speed.clips_per_second == 2 / speed.best
    assert speed.share == pytest.approx(speed.flops / speed.best / max(speed.matmul))


def test_memory_of_the_first_step_and_how_it_may_fail():
    """In a process each: one's peak is not another's, and one that is killed for its memory ends nothing."""
    makes = {"big": partial(Toy, 400), "small": partial(Toy, 100), "killed": partial(Toy, 0, killed)}
    speeds = compare([Candidate(*item) for item in makes.items()], Case(shape=SHAPE), repeats=1)
    assert [speed.failure for speed in speeds] == [None, None, OOM]
    for speed, megabytes in zip(speeds[:2], (400, 100), strict=True):
        assert speed.peak_bytes / 1e6 == pytest.approx(megabytes, abs=60)  # the system counts pages in a hurry


def test_out_of_time_before_the_first_step_is_done():
    start = time.monotonic()
    (speed,) = compare([Candidate("slow", partial(Toy, 0, partial(time.sleep, 600)))], Case(shape=SHAPE), seconds=0.5)
    assert speed.failure == OUT_OF_TIME
    assert time.monotonic() - start < 300


def test_failures_are_cells_and_end_nothing(quick, monkeypatch):
    makes = {"fine": Toy, "large": partial(Toy, 0, not_enough), "wrong": partial(Toy, 0, wrong)}
    speeds = compare([Candidate(*item) for item in makes.items()], Case(shape=SHAPE), repeats=2)
    assert [speed.failure for speed in speeds] == [None, OOM, "ValueError: this is wrong"]
    lines = table(speeds).splitlines()
    assert lines[0] == "step forward, dtype float32, batch 2, clip 1x2x4x4"
    assert [line.split("|")[2].strip() for line in lines[5:7]] == [OOM, "failed (1)"]
    assert lines[-1] == "(1) wrong: ValueError: this is wrong"
    assert len({len(line) for line in lines[2:7]}) == 1


def test_what_no_other_process_can_build_is_told_and_ends_nothing():
    made_here, importable = Candidate("lambda", lambda: Toy()), Candidate("toy", Toy)
    first, second = compare([made_here, importable], Case(shape=SHAPE), repeats=1)
    assert "pickle" in first.failure.lower()
    assert second.failure is None


@pytest.mark.parametrize("work", ["making", "measuring"])
def test_memory_that_the_product_lacks_is_told(quick, monkeypatch, work):
    monkeypatch.setattr(bench_module, "_matmul", (lambda _: not_enough) if work == "measuring" else not_enough_for)
    speeds = compare([Candidate("one", Toy), Candidate("two", Toy)], Case(shape=SHAPE), repeats=3)
    assert [(speed.failure, speed.seconds) for speed in speeds] == [(OOM, ())] * 2


def not_enough_for(case):
    not_enough()


class Eager(Toy):
    """Counts the passes that torch.compile does not run. Of a width of its own, it shares no graph with another."""

    count = 0

    def __init__(self, width):
        super().__init__()
        self.body, self.head = nn.Linear(32, width), nn.Linear(width, 3)

    def forward(self, x):
        if not (torch.compiler.is_compiling() or x.is_meta):  # operations are counted there
            type(self).count += 1
        return super().forward(x)


@pytest.mark.slow
@pytest.mark.slow
def test_each_of_many_is_compiled(quick, monkeypatch):
    """Dynamo has a limit of 8 graphs a function, beyond which it says nothing and compiles nothing."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: compile_module(self, backend="eager", **how))
    many = [Candidate(f"compiled {i}", partial(Eager, 4 + i), compile=True) for i in range(20)]
    speeds = compare(many, Case(shape=SHAPE), repeats=1)
    assert [speed.failure for speed in speeds] == [None] * len(many)
    assert Eager.count == 0


@pytest.mark.parametrize("train", [False, True])
def test_inference_is_optimised_and_training_is_not(quick, train):
    made = []
    (ours,) = candidates([tiny_config()])
    keep = dataclasses.replace(ours, make=lambda: made.append(ours.make()) or made[-1])
    case = Case(shape=(1, *tiny_config().input_shape), train=train)
    bench_module._step(keep, case, case.video())()
    assert any(isinstance(module, FusedMlp) for module in made[-1].modules()) is not train


def test_options_and_first_call_of_torch_compile(quick, monkeypatch, tmp_path):
    given, steps = [], []
    monkeypatch.setattr(nn.Module, "compile", lambda self, dynamic, **how: given.append(how))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(1))
    makes = [Candidate("plain", Toy), Candidate("compiled", Toy, True), Candidate("frozen", Toy, {"freezing": True})]
    speeds = compare(makes, Case(shape=SHAPE), repeats=1)
    assert given == [{}, {"options": {"freezing": True}}]
    assert not steps
    compare([Candidate("graphs", Toy, "reduce-overhead")], Case(shape=SHAPE), repeats=1)
    assert given[2:] == [{"mode": "reduce-overhead"}]
    assert steps
    assert [(speed.compile, speed.first_seconds is None) for speed in speeds] == [
        (False, True),
        (True, False),
        (True, False),
    ]
    assert speeds[1].peak_bytes is not None
    header, _, plain, compiled, _ = (line.split("|")[1:-1] for line in table(speeds).splitlines()[2:])
    assert header[-1].strip() == "first call, s"
    assert plain[-1].isspace()
    assert float(compiled[-1]) == pytest.approx(speeds[1].first_seconds, rel=1e-3)
    write(speeds, {}, tmp_path / "speeds.json")
    assert read(tmp_path / "speeds.json")[0] == speeds


def test_candidates_share_their_input(quick, monkeypatch):
    """Of a batch of 64 clips each copy would take a gigabyte."""
    made, video = [], Case.video
    monkeypatch.setattr(Case, "video", lambda case: made.append(case) or video(case))
    compare([Candidate(name, Toy) for name in "abc"], Case(shape=SHAPE), repeats=2)
    assert len(made) == 1


@pytest.mark.parametrize(("dtype", "exactly"), [("float32", True), ("tf32", False)])
def test_float32_is_computed_as_such_on_cuda(dtype, exactly):
    """Products and convolutions, of which cuDNN rounds by default; what was set before is set again."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with bench_module._float32_products(dtype):
        assert torch.backends.cuda.matmul.allow_tf32 is not exactly
        assert torch.backends.cudnn.allow_tf32 is not exactly
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_case_that_is_slow_to_warm_up_is_measured_all_the_same(quick, tmp_path, monkeypatch):
    """The first use of a device may take more than the case's share of the time, which is for its rounds."""
    clock = [0.0]
    clocks = SimpleNamespace(monotonic=lambda: clock[0], perf_counter=perf_counter)
    for module in (bench_module, campaigns_module):
        monkeypatch.setattr(module, "time", clocks)

    def slow_at_first():
        clock[0] = max(clock[0], 80.0)

    plan = [
        (Case(shape=SHAPE, train=train), [Candidate("toy", partial(Toy, 0, slow_at_first))]) for train in (False, True)
    ]
    campaign(plan, tmp_path, repeats=3, seconds=100)
    speeds, _ = read(tmp_path / "speeds.json")
    assert [(len(speed.seconds), speed.failure) for speed in speeds] == [(3, None)] * 2


def test_rounds_take_their_part_of_the_time_alone(quick, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(bench_module, "time", SimpleNamespace(monotonic=lambda: clock[0], perf_counter=perf_counter))

    def ten_seconds():
        clock[0] += 10

    monkeypatch.setattr(bench_module, "_MEASURED_SECONDS", 1e-9)  # one step a round
    slow = Candidate("slow", partial(Toy, 0, ten_seconds))
    for seconds, rounds in {15: 2, -1: 1}.items():
        (speed,) = compare([slow], Case(shape=SHAPE), seconds=1000, round_seconds=seconds)
        assert len(speed.seconds) == rounds


def test_rounds_of_one_case_leave_time_for_the_next(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(campaigns_module, "compare", lambda *_, round_seconds: given.append(round_seconds) or [])
    monkeypatch.setattr(campaigns_module, "draw", lambda *_: [])
    given = []
    campaign([(Case(shape=SHAPE), [])] * 3, tmp_path, seconds=600)
    assert given == pytest.approx([100, 150, 300], rel=0.01)


def test_rounds_end_with_the_time(quick):
    (speed,) = compare([Candidate("one", Toy)], Case(shape=SHAPE), repeats=10**9, seconds=0.5)
    assert len(speed.seconds) >= 1
    (none,) = compare([Candidate("one", Toy)], Case(shape=SHAPE), seconds=-1.0)
    assert none.failure == OUT_OF_TIME
    assert math.isnan(none.best)


def test_a_head_at_zero_gets_gradients_through(monkeypatch):
    step_of = Toy()
    case = Case(shape=SHAPE)
    bench_module._step(Candidate("toy", lambda: step_of), case, case.video())()
    assert step_of.head.weight.abs().min() > 0
    assert not step_of.training


def test_wrong_cases_are_refused(capsys, tmp_path):
    with pytest.raises(ValueError, match="dtype 'int8' is unknown; choose from float32, tf32, bfloat16, float16"):
        Case(shape=SHAPE, dtype="int8")
    with pytest.raises(ValueError, match="on cpu use float32"):
        Case(shape=SHAPE, dtype="tf32")
    with pytest.raises(ValueError, match="share a name: a, a"):
        compare([Candidate("a", Toy), Candidate("a", Toy)], Case(shape=SHAPE))
    with pytest.raises(ValueError, match="repeats 0 is not positive"):
        compare([Candidate("a", Toy)], Case(shape=SHAPE), repeats=0)
    with pytest.raises(ValueError, match="nothing to measure"):
        campaign([], tmp_path)
    assert main(["bench", "--checkpointing"]) == 2
    assert "add --train" in capsys.readouterr().err


def test_a_campaign_writes_what_it_found(quick, tmp_path):
    plan = [
        (Case(shape=(b, 1, 2, 4, 4), train=train), [Candidate("toy", Toy)]) for b in (1, 2) for train in (False, True)
    ]
    text = campaign(plan, tmp_path, repeats=2)
    written = json.loads((tmp_path / "speeds.json").read_text())
    assert {"command", "date", "machine", "versions", "speeds"} == written.keys()
    assert [speed["case"]["shape"][0] for speed in written["speeds"]] == [1, 1, 2, 2]
    first = written["speeds"][0]
    assert first["clips_per_second"] == 1 / min(first["seconds"])
    assert first["flops_per_second"] == first["flops"] / min(first["seconds"])
    assert (tmp_path / "table.md").read_text() == text + "\n"
    assert report(*read(tmp_path / "speeds.json")) == text
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["forward-float32-batch.png", "train-float32-batch.png"]


def speed_of(shape, seconds=(0.1,), **values):
    return Speed(candidate="one", compile=False, case=Case(shape=shape), seconds=seconds, **values)


def test_pictures_of_what_was_varied(tmp_path):
    shapes = [(1, 3, 8, 32, 32), (1, 3, 16, 32, 32), (1, 3, 8, 64, 64), (4, 3, 8, 128, 128)]
    names = [path.name for path in draw([speed_of(shape) for shape in shapes], tmp_path)]
    assert names == ["forward-float32-frames.png", "forward-float32-side.png"]
    bars = draw([speed_of(shapes[0]), speed_of(shapes[0], (), failure=OOM)], tmp_path)
    assert [path.name for path in bars] == ["forward-float32.png"]


def test_command_compares_with_others(quick, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(SIZES, "Ti", {"dim": 24, "depth": 1, "num_heads": 3})
    sizes = ["--frames", "4", "--image-size", "32", "--repeats", "1", "--out", str(tmp_path), "--device", "cpu"]
    assert (
        main(
            [
                "bench",
                "Ti/16x2",
                "--peers",
                "--train",
                "--checkpointing",
                *sizes,
                "--variants",
                *VARIANTS[::3],
                VARIANTS[1],
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("|")][2:]
    assert rows == [
        *("joint", "joint, checkpointing"),
        *("transformers eager", "transformers eager, checkpointing"),
        *("transformers sdpa", "transformers sdpa, checkpointing"),
        *("factorised_dot_product", "factorised_dot_product, checkpointing"),
        *("factorised_encoder", "factorised_encoder, checkpointing", "vit-pytorch factorised encoder"),
    ]
    # Three heads cannot be halved; nothing else fails.
    assert out.count("failed (") == 2
    assert "num_heads 3 is odd" in out


def test_peers_have_the_geometry_of_ours():
    """The same tokens through layers of the same sizes: as many parameters, but for what they do otherwise."""
    for variant in ("joint", "factorised_encoder", "factorised_self_attention"):
        config = tiny_config(variant=variant, image_size=12)
        ours, *others = candidates([config], peers=True)
        assert len(others) == (2 if variant == "joint" else 1)
        video = torch.randn(2, *config.input_shape)
        blocks = sum(p.numel() for name, p in ours.make().named_parameters() if "blocks" in name and p.ndim > 1)
        for other in others:
            peer = other.make()
            assert peer(video).shape == (2, config.num_classes)
            layers = [(n, p) for n, p in peer.named_parameters() if "layers." in n and p.ndim > 1]
            assert sum(p.numel() for _, p in layers) == blocks


def test_peers_refuse_what_they_cannot_do():
    config = tiny_config(image_size=(8, 12))
    with pytest.raises(ValueError, match="takes square frames, not 8x12"):
        candidates([config], peers=True)[1].make()
    config = tiny_config(variant="factorised_encoder", tubelet_size=(2, 4, 2))
    with pytest.raises(ValueError, match="square patches, not 4x2"):
        candidates([config], peers=True)[1].make()


def test_missing_peers_are_told(monkeypatch, capsys):
    monkeypatch.setattr("vivit_zoo.bench.peers.find_spec", lambda name: None)
    assert main(["bench", "--peers", "--device", "cpu"]) == 2
    assert "pip install 'vivit-zoo[bench]'" in capsys.readouterr().err
