"""How fast are the four variants, beside transformers' and vit-pytorch's, and how close to what the machine can do?

    python experiments/benchmark.py inference     # forward passes of one clip, float32 and bfloat16
    python experiments/benchmark.py training      # training steps, with and without activation checkpointing
    python experiments/benchmark.py frames        # growth with the length of a clip, 8 to 128 frames
    python experiments/benchmark.py sides         # growth with the side of a frame, 128 to 384 pixels
    python experiments/benchmark.py compiled      # what torch.compile adds
    python experiments/benchmark.py optimized     # what optimize_for_inference adds
    python experiments/benchmark.py frozen        # the same beside torch.compile with freezing
    python experiments/benchmark.py gpu_inference # on a GPU, batches of 1 to 32; each gpu part takes 7 minutes
    python experiments/benchmark.py gpu_training  # on a GPU, with and without activation checkpointing
    python experiments/benchmark.py gpu_compiled  # on a GPU, eager, under torch.compile and as CUDA graphs
    python experiments/benchmark.py gpu_long      # on a GPU, 8 to 128 frames
    python experiments/benchmark.py page          # measures nothing: puts what was written into docs/performance.md

ViViT-B/16x2 on 32x224x224. All candidates of a case take turns in one process, beside a large matrix product; peak
memory is that of a first step in a process of its own. Each part writes speeds.json, table.md and pictures into
docs/benchmarks/{part}; on two CPU cores the parts take 5 to 15 minutes each. On Linux, where
autogroups are on, `nice` counts within a session only.

Expected: the joint model faster than transformers' sdpa with half its memory in training; the factorised variants as
close to the matrix-product rate as the joint one; time linear in frames for the factorised variants and memory linear
in tokens for all.

The parts for GPUs have not run on one, as none was available. On a CPU they end in time and write their files at a very
small size: `gpu_inference --device cpu --size Ti/16x2 --side 32 --repeats 1 --seconds 60 --out runs/gpu`. Begin with
gpu_inference and gpu_training, which show whether the aims are met; `seeds_together.py --device cuda` is another part.
"""

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import linear_regression
from typing import Any

import torch

from vivit_zoo.bench.campaigns import campaign
from vivit_zoo.bench.measure import Candidate
from vivit_zoo.bench.peers import candidates
from vivit_zoo.bench.report import Case, Speed, draw, read, report, write
from vivit_zoo.config import named_config
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.system.pipes import exit_if_pipe_closes

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs/performance.md", ROOT / "docs/benchmarks"
Plan = list[tuple[Case, list[Candidate]]]
CaseOf = Callable[..., tuple[Case, list[Candidate]]]  # `case_of` with a size and a device


def case_of(
    size: str,
    device: str,
    *variants: str,
    side: int,
    num_frames: int = 32,
    batch: int = 1,
    dtype: str = "bfloat16",
    train: bool = False,
    peers: bool = True,
    only: str = "",
    **options: bool,
) -> tuple[Case, list[Candidate]]:
    """A case and its candidates: the variants (all four) and their peers whose names match `only`."""
    case = Case(shape=(batch, 3, num_frames, side, side), dtype=dtype, device=device, train=train)
    changes = {"num_frames": num_frames, "image_size": side}
    configs = [named_config(size, variant=variant, **changes) for variant in variants or ENCODERS]
    return case, [one for one in candidates(configs, peers, **options) if re.search(only, one.name)]


GPU_BATCH = 8  # clips, of which the training of every candidate fits 80 GB

# The attention maps of transformers' eager attention take gigabytes where clips are long.
FUSED = "^(?!.*eager)"


def inference(of: CaseOf, side: int) -> Plan:
    """One clip, everything that is there."""
    return [of(side=side, dtype=dtype) for dtype in ("float32", "bfloat16")]


def training(of: CaseOf, side: int) -> Plan:
    """One clip; what checkpointing costs and saves is asked of the joint models alone."""
    joint = r"^(joint|transformers sdpa)(, checkpointing)?$"
    every = r"^(?!.*eager)(?!(factorised|transformers).*checkpointing)"
    return [
        of(side=side, dtype="float32", train=True, checkpointing=True, only=every),
        of("joint", side=side, train=True, checkpointing=True, only=joint),
    ]


def frames(of: CaseOf, side: int) -> Plan:
    """Longer clips."""
    return [of(side=side, num_frames=length, only=FUSED) for length in (8, 16, 32, 64, 128)]


def sides(of: CaseOf, side: int) -> Plan:
    """Larger frames, at the shares of 128 to 384 pixels of 224."""
    return [of(side=round(side * share / 224), only=FUSED) for share in (128, 160, 224, 288, 384)]


def compiled(of: CaseOf, side: int) -> Plan:
    """A case each, because compiling takes most of the time."""
    return [
        of(name, side=side, dtype=dtype, peers=False, compile=True)
        for dtype in ("float32", "bfloat16")
        for name in ENCODERS
    ]


def optimized(of: CaseOf, side: int) -> Plan:
    """Each variant as built and with the explicit step."""
    return _forms(of, side, {"": {}, ", optimized": {"optimize": True}})


def frozen(of: CaseOf, side: int) -> Plan:
    """Each variant with the explicit step, and compiled with frozen weights, which takes minutes at the first call."""
    return _forms(of, side, {", optimized": {"optimize": True}, ", compiled": {"compile": {"freezing": True}}})


def _forms(
    of: CaseOf, side: int, forms: dict[str, dict[str, Any]], dtypes: Sequence[str] = ("float32", "bfloat16")
) -> Plan:
    """A case for each variant and dtype, with the variant in each of these forms."""
    plan = []
    for dtype in dtypes:
        for name in ENCODERS:
            case, (ours,) = of(name, side=side, dtype=dtype, peers=False)
            plan.append((case, [Candidate(ours.name + form, ours.make, **fields) for form, fields in forms.items()]))
    return plan


def gpu_inference(of: CaseOf, side: int) -> Plan:
    """The most important first, so that what runs out of time matters least."""
    exact = ["tf32", "float32"] if torch.cuda.is_available() else ["float32"]
    return [
        *(of(side=side, batch=batch, only=FUSED) for batch in (GPU_BATCH, 1, 32, 4)),
        *(of(side=side, batch=4, dtype=dtype, only=FUSED) for dtype in exact),
    ]


def gpu_training(of: CaseOf, side: int) -> Plan:
    """The aims' batch, the largest (which may fit the memory only with checkpointing), and small ones."""
    at = partial(of, side=side, train=True, only=FUSED)
    plan = [at(batch=batch, checkpointing=batch >= GPU_BATCH) for batch in (GPU_BATCH, 32, 1, 4)]
    return [*plan, at(batch=4, dtype="tf32" if torch.cuda.is_available() else "float32")]


def gpu_compiled(of: CaseOf, side: int) -> Plan:
    """Each variant eager, compiled, and as CUDA graphs, whose gain is largest where launching kernels takes longest."""
    forms: dict[str, dict[str, Any]] = {
        "": {},
        ", compiled": {"compile": True},
        ", CUDA graphs": {"compile": "reduce-overhead"},
    }
    sizes = [(1, False), (GPU_BATCH, False), (GPU_BATCH, True)]
    return [
        one
        for batch, train in sizes
        for one in _forms(partial(of, batch=batch, train=train), side, forms, ["bfloat16"])
    ]


def gpu_long(of: CaseOf, side: int) -> Plan:
    """Longer clips, first the longest, in inference and training."""
    plan = [of(side=side, num_frames=128, only=FUSED), of(side=side, num_frames=128, only=FUSED, train=True)]
    return plan + [of(side=side, num_frames=length, only=FUSED) for length in (8, 16, 32, 64)]


PARTS = {part.__name__: part for part in (inference, training, frames, sides, compiled, optimized, frozen)}
PARTS |= {part.__name__: part for part in (gpu_inference, gpu_training, gpu_compiled, gpu_long)}


def exponents(speeds: Sequence[Speed]) -> dict[str, tuple[float, float]]:
    """Of each candidate's time and memory over tokens; 1 is linear growth.

    Time over all sizes, by least squares of the logarithms; memory between the two largest, since the others share what
    a first step takes whatever its size.
    """
    points: dict[str, list[tuple[float, ...]]] = {}
    for speed in speeds:
        if speed.seconds and speed.peak_bytes:
            pixels = math.prod(speed.case.shape)  # as many times more than tokens, everywhere
            numbers = tuple(math.log(number) for number in (pixels, speed.best, speed.peak_bytes))
            points.setdefault(speed.candidate, []).append(numbers)

    def slope(sizes: list[tuple[float, ...]], column: int) -> float:
        return linear_regression([size[0] for size in sizes], [size[column] for size in sizes]).slope

    return {name: (slope(sizes, 1), slope(sorted(sizes)[-2:], 2)) for name, sizes in points.items() if len(sizes) > 1}


def growth(speeds: Sequence[Speed]) -> str:
    """The exponents as a table."""
    rows = [f"| {name} | {time:.2f} | {memory:.2f} |" for name, (time, memory) in exponents(speeds).items()]
    return "\n".join(["| candidate | time ~ tokens^ | peak memory ~ tokens^ |", "| --- | ---: | ---: |", *rows])


def aims() -> str:
    """What was aimed at, what was measured, and whether that is enough, as a table."""
    rows = ["| aim | command | wanted | measured | |", "| --- | --- | ---: | ---: | --- |"]

    def row(what: str, part: str, wanted: str, value: float) -> None:
        bound = float(wanted[2:])
        met = value >= bound if wanted[0] == "≥" else value <= bound
        said = "not measured" if math.isnan(value) else "met" if met else "**not met**"
        rows.append(f"| {what} | `{part}` | {wanted} | {value:.3g} | {said} |")

    def speeds_of(part: str, dtype: str, batch: int = 1) -> dict[str, Speed]:
        speeds, _ = read(RESULTS / part / "speeds.json")
        return {one.candidate: one for one in speeds if (one.case.dtype, one.case.shape[0]) == (dtype, batch)}

    def measured(part: str) -> bool:
        return (RESULTS / part / "speeds.json").exists()

    pairs = {"joint": "transformers sdpa"}
    pairs |= {f"factorised_{x}": f"vit-pytorch factorised {x.replace('_', '-')}" for x in ("encoder", "self_attention")}
    for dtype, joint, others, share in (("float32", "1.4", "1", "0.9"), ("bfloat16", "1.6", "1.15", "0.8")):
        now = speeds_of("inference", dtype) if measured("inference") else {}
        for ours, other in pairs.items() if now else ():
            wanted = f"≥ {joint if ours == 'joint' else others}"
            row(f"{ours}, {dtype}: times as fast as {other}", "inference", wanted, now[other].best / now[ours].best)
        for name in ENCODERS if now else ():
            row(f"{name}, {dtype}: share of the matrix product's rate", "inference", f"≥ {share}", now[name].share)
    for dtype in ("float32", "bfloat16") if measured("training") else ():
        now = speeds_of("training", dtype)
        joint_model, again, sdpa = now["joint"], now["joint, checkpointing"], now["transformers sdpa"]
        memory = [(one.peak_bytes or math.nan) / (sdpa.peak_bytes or math.nan) for one in (joint_model, again)]
        row(f"joint, {dtype}: times as fast as transformers sdpa", "training", "≥ 1.25", sdpa.best / joint_model.best)
        row(f"joint, {dtype}: memory over transformers sdpa's", "training", "≤ 0.5", memory[0])
        row(f"the same with checkpointing, {dtype}", "training", "≤ 0.2", memory[1])
        row(f"checkpointing, {dtype}: time over our own without", "training", "≤ 1.35", again.best / joint_model.best)
    unknown = (math.nan, math.nan)
    for part in ("frames", "sides"):
        powers = exponents(read(RESULTS / part / "speeds.json")[0]) if measured(part) else {}
        if powers:
            row("joint: memory ~ tokens^", part, "≤ 1.1", powers.get("joint", unknown)[1])
        for name in [*ENCODERS][1:] if powers and part == "frames" else ():
            row(f"{name}: time ~ frames^", part, "≤ 1.1", powers.get(name, unknown)[0])
    for part in ("gpu_inference", "gpu_training"):
        now = speeds_of(part, "bfloat16", GPU_BATCH) if measured(part) else {}
        if now:
            fast, sdpa = now["joint"], now["transformers sdpa"]
            about = f"batches of {GPU_BATCH}"
            row(f"joint, {about}: times as fast as transformers sdpa", part, "≥ 1.5", sdpa.best / fast.best)
            if part == "gpu_training":
                taken = (fast.peak_bytes or math.nan) / (sdpa.peak_bytes or math.nan)
                row(f"joint, {about}: memory over transformers sdpa's", part, "≤ 0.5", taken)
        for name in [*ENCODERS][1:] if now else ():
            row(f"{name}, {about}: share of the matrix product's rate", part, "≥ 0.6", now[name].share)
    return "\n".join(rows)


def shown(part: str) -> str:
    """What the page shows of a part, made of its file: its table and, where sizes grow, their exponents."""
    if part == "aims":
        return aims()
    if not (RESULTS / part / "speeds.json").exists():
        table = RESULTS / part / "table.md"
        more = sorted({*table.parent.glob("*.md")} - {table})
        return "\n\n".join(file.read_text(encoding="utf-8").strip() for file in (table, *more))
    speeds, about = read(RESULTS / part / "speeds.json")
    text = report(speeds, about)
    return f"{growth(speeds)}\n\n{text}" if part in ("frames", "sides") else text


def page(text: str) -> str:
    """The page with the tables of what was measured, here and by other scripts, between its marks."""
    for part in [*PARTS, "kernels", "data", "seeds", "gpu_seeds", "cell", "aims"]:
        start, end = f"<!-- results: docs/benchmarks/{part} -->\n", "<!-- end of results -->"
        if start in text and (part == "aims" or (RESULTS / part / "table.md").exists()):
            before, rest = text.split(start, 1)
            text = f"{before}{start}{shown(part)}\n{end}{rest.split(end, 1)[1]}"
    return text


@exit_if_pipe_closes()
def main() -> int:
    """Measure and write the results. Returns 2 if a GPU is requested and there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "page"])
    parser.add_argument("--seconds", type=float, help="for everything (1200 on a CPU, 420 elsewhere)")
    parser.add_argument("--out", type=Path, help="folder (docs/benchmarks/{part}, if on its device)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (cuda for gpu parts, cpu for the others)")
    parser.add_argument("--size", default="B/16x2", help="the paper's name of a model (B/16x2)")
    parser.add_argument("--side", type=int, default=224, help="of a frame, pixels (224)")
    parser.add_argument("--repeats", type=int, help="rounds of a case (3 on a CPU, 10 elsewhere)")
    options = parser.parse_args()
    if options.part == "page":
        text = PAGE.read_text(encoding="utf-8")
        for file in RESULTS.glob("*/speeds.json"):
            speeds, about = read(file)
            write(speeds, about, file)  # with what is derived of it
            (file.parent / "table.md").write_text(report(speeds, about) + "\n", encoding="utf-8")
            if f"](benchmarks/{file.parent.name}/" in text:
                draw(speeds, file.parent)
        PAGE.write_text(page(text), encoding="utf-8")
        return 0
    own_device = "cuda" if options.part.startswith("gpu") else "cpu"
    device = options.device or own_device
    if device != "cpu" and not torch.cuda.is_available():
        print(f"{parser.prog}: there is no GPU here that torch {torch.__version__} can use", file=sys.stderr)
        return 2
    if options.out is None and torch.device(device).type != own_device:
        parser.error(f"{RESULTS / options.part} is for numbers of {own_device}: say --out")
    plan = PARTS[options.part](partial(case_of, options.size, device), options.side)
    seconds, repeats = (1200, 3) if device == "cpu" else (420, 10)
    out = options.out or RESULTS / options.part
    print(campaign(plan, out, options.repeats or repeats, options.seconds or seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
