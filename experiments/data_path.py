"""How long does reading a training clip take, beside the least that PyAV takes, and what does the fast path change?

    python experiments/data_path.py speed --before ../before   # three files; tables into docs/benchmarks/data
    python experiments/data_path.py agreement                  # top-1 on 500 clips, read exactly and fast
    python experiments/data_path.py classify                   # 20 videos, beside reading alone and the model alone
    python experiments/data_path.py features                   # the same of the command that writes features

`speed` writes three videos of 10 s (340x256 with a key frame every 250 and every 12 frames, 1280x720 with one every
250) and reads clips of 32 frames with stride 2 and a crop of 224 from each, in all ways by turns, on one thread. The
videos show `--footage FILE`, repeated, or without it moving noise and shapes, made here. `--before FOLDER` is another
version of this package, such as `git worktree add ../before 070f409`, whose reading takes turns with the others in a
process of its own. Then the frames of the fast path are compared with the exact ones. It takes 3 minutes on an idle
core.

`agreement` trains a small model on MovingDigits, and classifies 500 of its test clips as videos, from frames read
exactly and from the same crops read fast; 2 minutes on an idle core. `classify` and `features` take three minutes
each, with `--variant factorised_encoder` half a minute.

Expected: at most 1.35 times the floor without colours and 1.6 times with them; a mean difference of one or two levels
of 255; the same class for 99 of 100 clips or more.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from tqdm import tqdm

from vivit_zoo.bench.data import COLOURS, PLAIN, Seconds, measure, report
from vivit_zoo.system.machine import describe_machine
from vivit_zoo.video.augment import Augment
from vivit_zoo.video.clips import ClipSampler
from vivit_zoo.video.reader import VideoReader

OUT = Path(__file__).parents[1] / "docs/benchmarks/data"
FILES = {"small-gop250": (256, 340, 250), "small-gop12": (256, 340, 12), "large-gop250": (720, 1280, 250)}
FRAMES, RATE = 250, 25
BATCH = 8  # windows of `features`
ROUNDS = 3  # of the classification

# Reads a clip for each seed on stdin, with what both versions have; answers CPU and wall seconds.
CHILD = """
import sys, time, torch
from vivit_zoo.video.augment import Augment
from vivit_zoo.video.clips import ClipSampler
from vivit_zoo.video.reader import VideoReader

torch.set_num_threads(1)
path, colour = sys.argv[1], float(sys.argv[2])
augment = Augment(size=224, colour=colour, gray=0)
for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    torch.manual_seed(int(line))
    with VideoReader(path, threads=1) as video:
        clip = torch.from_numpy(video.read(ClipSampler().indices(video), change=augment.preprocess.resize))
    augment(clip.permute(0, 3, 1, 2).contiguous(), None)
    print(time.process_time() - cpu, time.perf_counter() - wall, flush=True)
"""


class Before:
    """The reading of another version of the package, in a process."""

    def __init__(self, package: Path, video: Path, colour: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(video), str(colour)],
            env=os.environ | {"PYTHONPATH": str(package.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, seed: int) -> Seconds:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(seed, file=self.process.stdin, flush=True)
        cpu, wall = map(float, self.process.stdout.readline().split())
        return Seconds(cpu, wall)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def synthetic(height: int, width: int) -> Any:
    """Frames (h, w, 3) uint8: textured ground that drifts, five textured discs that move over it, and grain."""
    rng = np.random.default_rng(0)
    across = max(height, width)

    def texture(side: int) -> np.ndarray:
        """Noise with most power in large structures, as pictures have, (side, side, 3) in [0, 255]."""
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
        noise = rng.normal(size=(3, side, side))
        waves = np.fft.irfft2(np.fft.rfft2(noise) / np.maximum(frequency, 1 / side), (side, side))
        waves = (waves - waves.mean((1, 2), keepdims=True)) / waves.std((1, 2), keepdims=True)
        return np.moveaxis(128 + 45 * waves, 0, -1).clip(0, 255).astype(np.float32)

    ground, skin = texture(2 * across), texture(across)
    starts, speeds = rng.uniform(0, 1, (5, 2)), rng.normal(0, 0.012, (5, 2))
    radii = rng.uniform(0.08, 0.2, 5) * height
    y, x = np.mgrid[:height, :width]
    for number in range(FRAMES):
        top, left = int(number * height / 900) % across, int(number * width / 450) % across
        frame = ground[top : top + height, left : left + width].copy()
        for start, speed, radius in zip(starts, speeds, radii, strict=True):
            centre = np.abs((start + speed * number + 1) % 2 - 1) * (height, width)
            within = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
            frame[within] = 255 - skin[:height, :width][within]
        grain = rng.normal(0, 2, (height, width, 1)).astype(np.float32)
        yield (frame + grain).clip(0, 255).astype(np.uint8)


def footage(path: Path, height: int, width: int) -> Any:
    """The frames of a file, again and again, scaled so that they cover the size, and cut in the middle."""
    reformatter = VideoReformatter()
    number = 0
    while number < FRAMES:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                ratio = max(height / frame.height, width / frame.width)
                size = (max(width, round(frame.width * ratio)), max(height, round(frame.height * ratio)))
                image = reformatter.reformat(frame, *size, "rgb24", interpolation="BICUBIC").to_ndarray()
                top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
                yield image[top : top + height, left : left + width]
                number += 1
                if number == FRAMES:
                    return


def write(path: Path, frames: Any, height: int, width: int, gop: int) -> Path:
    """H.264 as libx264 makes it by default, but for the distance of key frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": str(gop)})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number, image in enumerate(tqdm(frames, total=FRAMES, desc=path.name, leave=False, mininterval=5)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def speed(options: argparse.Namespace) -> None:
    """Write the files, measure, compare the frames, and write the tables."""
    torch.set_num_threads(1)
    tables, results = [], {}
    source = f"`{options.footage.name}`, repeated" if options.footage else "moving noise and shapes"
    with tempfile.TemporaryDirectory() as folder:
        for name, (height, width, gop) in FILES.items():
            frames = footage(options.footage, height, width) if options.footage else synthetic(height, width)
            path = write(Path(folder) / f"{name}.mp4", frames, height, width, gop)
            others: dict[str, Before] = {}
            if options.before:
                others = {
                    f"{clip}, before": Before(options.before, path, colour)
                    for clip, colour in {PLAIN: 0, COLOURS: 1}.items()
                }
            found = measure(path, ClipSampler(), rounds=options.repeats, others=others)
            for other in others.values():
                other.close()
            kbit = path.stat().st_size * 8 / 1000 / (FRAMES / RATE)
            mean, largest = difference(path)
            results[name] = dataclasses.asdict(found) | {"kbit_per_second": kbit, "mean": mean, "largest": largest}
            tables.append(
                f"{report([found], options.clips_per_second)}\n\n{kbit:,.0f} kbit/s. Fast and exact frames of the same "
                f"crops without colours differ by {mean:.2f} levels of 255 in the mean and {largest} at most."
            )
            print(tables[-1] + "\n", flush=True)
    about = (
        f"Footage: {source}. `data_path.py speed --repeats {options.repeats}`, "
        f"{describe_machine(torch.device('cpu'))}, PyAV {av.__version__}"
    )
    print(about)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text("\n\n".join([*tables, about]) + "\n", encoding="utf-8")
    (options.out / "data.json").write_text(
        json.dumps({"about": about, "files": results}, indent=1) + "\n", encoding="utf-8"
    )


def difference(path: Path, clips: int = 5) -> tuple[float, int]:
    """Mean and largest difference of fast and exact frames, of the same crops."""
    augments = [Augment(size=224, colour=0, gray=0, exact=exact) for exact in (False, True)]
    means, largest = [], 0
    with VideoReader(path, threads=1) as video:
        for seed in range(clips):
            both = []
            for augment in augments:
                torch.manual_seed(seed)
                both.append(augment.from_video(video, ClipSampler().indices(video))[0].int())
            distance = (both[0] - both[1]).abs()
            means.append(float(distance.float().mean()))
            largest = max(largest, int(distance.max()))
    return float(np.mean(means)), largest


def agreement(options: argparse.Namespace) -> None:
    """Train a small model on MovingDigits, and compare its classes of videos of them read exactly and fast."""
    from render_digits import encode, to_frames

    from vivit_zoo.datasets import MovingDigits
    from vivit_zoo.studies.cells import TRAINED
    from vivit_zoo.training.loop import train
    from vivit_zoo.video.preprocess import normalise

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(TRAINED, steps=options.steps, device="cpu")
        model = train(config, Path(folder)).model
    test = MovingDigits("test", options.clips)
    channels, frames, side, _ = test[0][0].shape
    size = int(side)
    fields: dict[str, Any] = {"size": size, "short_side": size, "scale_jitter": (1, 1.1), "flip": 0, "colour": 0}
    augments = [Augment(**fields, gray=0, exact=exact) for exact in (True, False)]
    chosen = np.empty((options.clips, 2), int)
    truth = np.array([test[index][1] for index in range(options.clips)])
    with torch.inference_mode():
        for index in tqdm(range(options.clips), desc="classify", mininterval=10):
            file = encode(to_frames(test[index][0], 4), crf=18)
            with VideoReader(file, gray=channels == 1, threads=1) as video:
                for which, augment in enumerate(augments):
                    torch.manual_seed(index)
                    clip, _ = augment.from_video(video, np.arange(frames))
                    chosen[index, which] = int(model(normalise(clip[None])).argmax())
    right = (chosen == truth[:, None]).mean(0)
    text = (
        f"A small model trained for {options.steps} steps classifies {options.clips} videos from frames read exactly "
        f"and from the same crops read fast: the same class for {(chosen[:, 0] == chosen[:, 1]).mean():.1%} of them; "
        f"top-1 is {right[0]:.1%} read exactly and {right[1]:.1%} read fast."
    )
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "agreement.md").write_text(
        f"{text}\n\n`data_path.py agreement --steps {options.steps}`\n", encoding="utf-8"
    )


def pipeline(options: argparse.Namespace) -> None:
    """Classify 20 videos or write their features as the commands do, beside reading and the model alone."""
    from vivit_zoo import create_model, optimize_for_inference
    from vivit_zoo.evaluation.classify import classify_files, inputs_of
    from vivit_zoo.evaluation.features import extract_features, read_sources

    model = create_model(options.size, variant=options.variant, num_classes=400).eval()
    views, preprocess = inputs_of(model, clips=1, crops=1)
    with tempfile.TemporaryDirectory() as folder:
        height, width, gop = FILES["small-gop250"]
        frames = footage(options.footage, height, width) if options.footage else synthetic(height, width)
        path = write(Path(folder) / "0.mp4", frames, height, width, gop)
        paths = [str(path)]
        for number in range(1, options.videos):
            paths.append(str(path.with_name(f"{number}.mp4")))
            Path(paths[-1]).write_bytes(path.read_bytes())
        optimize_for_inference(model)
        clips: list[Any] = []
        inside = torch.inference_mode()

        def read() -> None:
            clips[:] = (clip for one in paths for clip in views.read(one, preprocess))

        def compute() -> None:
            size = 1 if options.part == "classify" else BATCH
            with inside:
                for start in range(0, len(clips), size):
                    model(*map(torch.cat, zip(*clips[start : start + size], strict=True)))

        def whole() -> None:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                if options.part == "classify":
                    classify_files(model, paths, views, preprocess)
                else:
                    out = tempfile.mkdtemp(dir=folder)
                    source = read_sources(paths)
                    extract_features(model, source, out, sampler=views, preprocess=preprocess, batch_size=BATCH)

        read()
        compute()
        steps = {"read": read, "model": compute, "whole": whole}
        rounds = [{name: timed(step) for name, step in steps.items()} for _ in range(ROUNDS)]
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profile:
            whole()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    shares = ", ".join(f"`{event.key}` {event.self_cpu_time_total / total:.0%}" for event in events[:5])
    cpu, wall = (
        {name: statistics.median(getattr(spent[name], clock) for spent in rounds) for name in steps}
        for clock in ("cpu", "wall")
    )
    text = (
        f"{len(paths)} videos of 340x256, one view each, {options.size}, {options.variant}: reading alone "
        f"{wall['read']:.1f} s, the model alone {wall['model']:.1f} s, `{options.part}` {wall['whole']:.1f} s, "
        f"{wall['whole'] / (wall['read'] + wall['model']):.2f} of their sum (in CPU time "
        f"{cpu['whole'] / (cpu['read'] + cpu['model']):.2f}); medians of {ROUNDS} rounds. "
        f"Torch's time goes to {shares}."
    )
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    command = f"data_path.py {options.part} --size {options.size} --variant {options.variant} --videos {len(paths)}"
    about = f"`{command}`, {describe_machine(torch.device('cpu'))}"
    (options.out / f"{options.part}.md").write_text(f"{text}\n\n{about}\n", encoding="utf-8")


def timed(step: Any) -> Seconds:
    """CPU and wall seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "agreement", "classify", "features"])
    parser.add_argument("--footage", type=Path, help="a video whose frames the files show (moving noise and shapes)")
    parser.add_argument("--before", type=Path, help="folder of another version of the package, to measure it too")
    parser.add_argument("--repeats", type=int, default=11, help="clips of each file (11)")
    parser.add_argument("--clips-per-second", type=float, default=40.0, help="of a model on a GPU, in training (40)")
    parser.add_argument("--size", default="Ti/16x2", help="of the model of classify and features (Ti/16x2)")
    parser.add_argument("--videos", type=int, default=20, help="of classify and features (20)")
    parser.add_argument("--variant", default="joint", help="of that model (joint)")
    parser.add_argument("--clips", type=int, default=500, help="to compare the classes of (500)")
    parser.add_argument("--steps", type=int, default=300, help="of 32 clips, to train for (300)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the tables (docs/benchmarks/data)")
    options = parser.parse_args()
    {"speed": speed, "agreement": agreement}.get(options.part, pipeline)(options)


if __name__ == "__main__":
    main()
