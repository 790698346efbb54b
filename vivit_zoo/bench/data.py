"""Measure how fast training clips are read from video files: stages, the floor, other libraries.

All candidates of a file take turns, with the same frames in a round, so that other load on the machine affects all
alike. Times are of one thread; CPU time is compared, since wall time includes waiting for other processes.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch.utils.data import default_collate

from vivit_zoo.system.markdown import markdown
from vivit_zoo.video import pyav
from vivit_zoo.video.augment import Augment
from vivit_zoo.video.clips import ClipSampler
from vivit_zoo.video.preprocess import Preprocess
from vivit_zoo.video.reader import VideoReader

__all__ = ["FLOOR", "FileSpeed", "Seconds", "measure", "report"]

FLOOR = "PyAV: seek, decode, convert to RGB"
PLAIN = "clip"
COLOURS = "clip, colours"
COLLATED = 8  # clips of a batch, to collate


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Time of one clip."""

    cpu: float
    wall: float


Timer = Callable[[int], Seconds]  # reads the clip of a seed


@dataclasses.dataclass(frozen=True)
class FileSpeed:
    """What was measured of one file.

    Args:
        file: its name, and what is in it.
        clips: candidate -> times of a clip, one for each round.
        stages: candidate -> stage -> CPU seconds of the stage, one for each round; measured apart from `clips`. The
            index is that of the first epoch; `clips` are of later ones, which need not read it.
    """

    file: str
    clips: Mapping[str, Sequence[Seconds]]
    stages: Mapping[str, Mapping[str, Sequence[float]]]

    def cpu(self, candidate: str) -> float:
        """Median CPU seconds of a clip."""
        return median(one.cpu for one in self.clips[candidate])

    def over_floor(self, candidate: str) -> float:
        """Median over the rounds of the CPU time as a multiple of the floor's."""
        pairs = zip(self.clips[candidate], self.clips[FLOOR], strict=True)
        return median(one.cpu / floor.cpu for one, floor in pairs)


def measure(
    path: str | Path,
    sampler: ClipSampler,
    size: int = 224,
    rounds: int = 7,
    others: Mapping[str, Timer] | None = None,
) -> FileSpeed:
    """Read clips of a file in all ways that are installed, by turns.

    Args:
        path: a video file.
        sampler: which frames of the video make a clip.
        size: side of the clips, in pixels.
        rounds: each reads one clip, of other frames and another crop, with each candidate.
        others: more candidates.

    Raises:
        VideoError: if the file cannot be read.
    """
    path = str(path)
    augments = {name: Augment(size=size, colour=colour, gray=0) for name, colour in {PLAIN: 0, COLOURS: 1}.items()}
    exact = {f"{name}, exact": dataclasses.replace(one, exact=True) for name, one in augments.items()}
    timers: dict[str, Timer] = {FLOOR: partial(_floor, path, sampler)}
    for name, augment in (augments | exact).items():
        timers[name] = _timed(partial(_read, path, sampler, augment))
    timers |= {name: _timed(partial(read, path, sampler, size)) for name, read in _peers().items()}
    timers |= others or {}
    clips: dict[str, list[Seconds]] = {name: [] for name in timers}
    stages: dict[str, dict[str, list[float]]] = {name: {} for name in augments | exact}
    for timer in timers.values():
        timer(0)  # what the first call imports and allocates
    for seed in range(1, rounds + 1):
        for name, timer in timers.items():
            clips[name].append(timer(seed))
        for name, augment in (augments | exact).items():
            pyav.INDICES.clear()
            with _watch() as spent:
                clip = _read(path, sampler, augment, seed)
            started = time.process_time()
            default_collate([clip] * COLLATED)
            spent["collate"] = (time.process_time() - started) / COLLATED
            for stage, seconds in spent.items():
                stages[name].setdefault(stage, []).append(seconds)
    return FileSpeed(_describe(path), clips, stages)


def report(speeds: Sequence[FileSpeed], clips_per_second: float | None = None) -> str:
    """Format as tables in Markdown: for each file its stages, then its candidates.

    Args:
        speeds: of the files.
        clips_per_second: of a model, to tell how many cores feed it.
    """
    return "\n\n".join(
        f"**{speed.file}**\n\n{_stage_table(speed)}\n\n{_clip_table(speed, clips_per_second)}" for speed in speeds
    )


def _stage_table(speed: FileSpeed) -> str:
    names = list(dict.fromkeys(stage for stages in speed.stages.values() for stage in stages))
    columns = {"CPU ms": names}
    for candidate, stages in speed.stages.items():
        columns[candidate] = [f"{1e3 * median(stages[name]):.1f}" if name in stages else "" for name in names]
    return markdown(columns, left=["CPU ms"])


def _clip_table(speed: FileSpeed, clips_per_second: float | None) -> str:
    columns = {
        "a clip": list(speed.clips),
        "CPU ms": [f"{1e3 * speed.cpu(name):.1f}" for name in speed.clips],
        "wall ms": [f"{1e3 * median(one.wall for one in clips):.1f}" for clips in speed.clips.values()],
        "of the floor": [f"{speed.over_floor(name):.2f}" for name in speed.clips],
        "clips/s a core": [f"{1 / speed.cpu(name):.1f}" for name in speed.clips],
    }
    if clips_per_second is not None:
        title = f"cores for {clips_per_second:g} clips/s"
        columns[title] = [f"{clips_per_second * speed.cpu(name):.1f}" for name in speed.clips]
    return markdown(columns, left=["a clip"])


def _describe(path: str) -> str:
    with av.open(path) as container:
        stream = container.streams.video[0]
        keyframes = sum(packet.is_keyframe for packet in container.demux(stream) if packet.size)
        codec = stream.codec_context
        return (
            f"{Path(path).name}: {codec.name}, {codec.width}x{codec.height}, {stream.frames} frames, "
            f"{keyframes} keyframe{'s' if keyframes > 1 else ''}"
        )


def _read(path: str, sampler: ClipSampler, augment: Augment, seed: int) -> torch.Tensor:
    """The augmented clip of a seed, as a training set reads it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        with VideoReader(path, threads=1) as video:
            return augment.from_video(video, sampler.indices(video))[0]


def _chosen(path: str, sampler: ClipSampler, seed: int) -> tuple[np.ndarray, list[int]]:
    """The frames of the clip of a seed, and the timestamps that rise."""
    with torch.random.fork_rng(devices=[]), VideoReader(path, threads=1) as video:
        torch.default_generator.manual_seed(seed)
        indices = sampler.indices(video)
        return indices, [video._decoder.keys[number] for number in sorted(set(indices.tolist()))]


def _timed(read: Callable[[int], Any]) -> Timer:
    def timer(seed: int) -> Seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        read(seed)
        return Seconds(time.process_time() - cpu, time.perf_counter() - wall)

    return timer


def _floor(path: str, sampler: ClipSampler, seed: int) -> Seconds:
    """PyAV's seek, decoding of all frames from the keyframe on, and conversion of the clip's; opened before."""
    _, keys = _chosen(path, sampler, seed)
    wanted = set(keys)
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        reformatter = VideoReformatter()

        def read(_: int) -> list[np.ndarray]:
            found: list[np.ndarray] = []
            container.seek(keys[0], stream=stream)
            for frame in container.decode(stream):
                if frame.pts in wanted:
                    found.append(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
                if len(found) == len(wanted):
                    break
            return found

        return _timed(read)(seed)


def _peers() -> dict[str, Callable[[str, ClipSampler, int, int], Any]]:
    found: dict[str, Callable[[str, ClipSampler, int, int], Any]] = {}
    if find_spec("transformers"):
        found["transformers: load_video, VivitImageProcessor"] = _read_with_transformers
    if find_spec("torchcodec"):
        try:
            import torchcodec.decoders  # noqa: F401
        except (ImportError, OSError, RuntimeError):  # it lacks FFmpeg's libraries
            return found
        found["torchcodec: decode, resize, crop"] = _read_with_torchcodec
    return found


def _read_with_transformers(path: str, sampler: ClipSampler, size: int, seed: int) -> Any:
    """Without augmentation: short side to 256 per 224, the centre, scaled."""
    from transformers import VivitImageProcessor
    from transformers.video_utils import load_video

    indices, _ = _chosen(path, sampler, seed)
    frames: Any = load_video(path, backend="pyav", sample_indices_fn=lambda *_, **__: indices)[0]  # type: ignore[arg-type]
    short = {"shortest_edge": Preprocess(size).resized_side}
    processor = VivitImageProcessor(size=short, crop_size={"height": size, "width": size})
    return processor(list(frames), return_tensors="pt")


def _read_with_torchcodec(path: str, sampler: ClipSampler, size: int, seed: int) -> Any:
    """Without augmentation but a resize and the centre."""
    from torchcodec.decoders import VideoDecoder
    from torchvision.transforms.v2 import functional as F

    indices, _ = _chosen(path, sampler, seed)
    frames = VideoDecoder(path, num_ffmpeg_threads=1, device="cpu").get_frames_at(indices.tolist()).data
    return F.center_crop(F.resize(frames, [Preprocess(size).resized_side]), [size, size])


# Stage -> the functions of which it consists. Time of a function within another counts for the inner one.
_STAGES: dict[str, list[tuple[Any, str]]] = {
    "open": [(pyav, "_open")],
    "index": [(pyav.PyAVDecoder, "_read_index")],
    "seek, decode": [(pyav.PyAVDecoder, "_decode")],
    "convert, scale, crop": [(pyav.PyAVDecoder, "_to_crop"), (pyav.PyAVDecoder, "_to_array")],
    "resize": [(Preprocess, "resize")],
    "scale, crop": [(Augment, "_scaled_crop")],
    "flip, colours": [(Augment, "_flip_and_colour")],
}


@contextmanager
def _watch() -> Iterator[dict[str, float]]:
    """Stage -> CPU seconds spent in its functions within the block; "copies" is the rest."""
    spent: dict[str, float] = {}
    running = ["copies, rest"]
    last = time.process_time()

    def turn_to(stage: str | None) -> None:
        nonlocal last
        now = time.process_time()
        spent[running[-1]] = spent.get(running[-1], 0.0) + now - last
        last = now
        if stage is None:
            running.pop()
        else:
            running.append(stage)

    def watched(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            turn_to(stage)
            try:
                return function(*args, **options)
            finally:
                turn_to(None)

        return call

    with ExitStack() as stack:
        for stage, functions in _STAGES.items():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, watched(stage, getattr(owner, name))))
        yield spent
        turn_to(None)
    spent["copies, rest"] = spent.pop("copies, rest")  # last
