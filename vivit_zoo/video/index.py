"""The index of a video's frames: what identifies each, and when it is shown."""

import os
from collections import OrderedDict
from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

import av
import numpy as np

from vivit_zoo.video.source import VideoError, VideoSource

__all__ = ["Index", "IndexCache", "Packet", "Shown", "known", "read_packets", "rising_times", "without_leading"]


class Index(NamedTuple):
    """The frames of a file, in the order in which they are shown.

    times: when each frame is shown, in seconds from the first, (frames,) float64, increasing.
    keys: what identifies each frame when it is decoded: its timestamp in ticks of `time_base` or, where `by_time` is
        false, its place among the frames that are decoded from the start. Rising.
    keyframes: the keys of those from which decoding can begin; none where `by_time` is false.
    by_time: whether the timestamps identify the frames. They do not where they are missing, repeated, in the order of
        decoding, or where the clock is set back within the recording.
    time_base: of the timestamps, in seconds.
    stream_index: the place of the video stream among the file's streams.
    format: FFmpeg's name of the container's format, with which opening the file again takes half the time.
    """

    times: np.ndarray
    keys: list[int]
    keyframes: list[int]
    by_time: bool
    time_base: float
    stream_index: int
    format: str


class IndexCache:
    """The indices of the files read last, up to a number of frames in all.

    A file is recognised by its path, its size and when it was changed, so that one that was replaced is read again.

    Args:
        frames: most frames to keep the index of; each takes about 50 bytes.
    """

    def __init__(self, frames: int) -> None:
        self.frames, self._held = frames, 0
        self._indices: OrderedDict[tuple[str, int, int], Index] = OrderedDict()

    def get(self, path: str | None) -> Index | None:
        """The index of a file, if it is kept and the file did not change."""
        key = self._key(path)
        if key is None or key not in self._indices:
            return None
        self._indices.move_to_end(key)
        return self._indices[key]

    def add(self, path: str | None, index: Index) -> None:
        """Keep the index of a file; None is not kept."""
        key = self._key(path)
        if key is None or key in self._indices or len(index.keys) > self.frames:
            return
        self._indices[key] = index
        self._held += len(index.keys)
        while self._held > self.frames:
            _, oldest = self._indices.popitem(last=False)
            self._held -= len(oldest.keys)

    def clear(self) -> None:
        """Forget all."""
        self._indices.clear()
        self._held = 0

    @staticmethod
    def _key(path: str | None) -> tuple[str, int, int] | None:
        if path is None:
            return None
        found = os.stat(path)
        return path, found.st_mtime_ns, found.st_size


class Packet(NamedTuple):
    """What an encoded frame says of itself; others may need one that an edit list cuts off, so that it is decoded."""

    pts: Any  # int, or None
    dts: Any
    is_keyframe: bool
    is_cut_off: bool


class Shown(NamedTuple):
    """What a decoded frame says of itself, and in which run it is: a new one begins where the clock is set back."""

    number: int
    pts: int | None
    is_keyframe: bool
    run: int


def known(values: Iterable[Any]) -> list[Any]:
    """The values that are not None."""
    return [value for value in values if value is not None]


def without_leading(shown: list[Shown], first_is_cut_off: bool) -> list[Shown]:
    """The frames without those that are shown before the first keyframe of a run: they refer to frames not there.

    Where an edit list cuts off the first keyframe, those of the first run refer to that, and stay.
    """
    kept: list[Shown] = []
    for number, run in groupby(shown, key=lambda frame: frame.run):
        frames = list(run)
        keyframes = [place for place, frame in enumerate(frames) if frame.is_keyframe]
        kept += frames[keyframes[0] :] if keyframes and (number or not first_is_cut_off) else frames
    return kept


def rising_times(runs: list[list[Any]], tick: float, rate: float = 25.0, unique: bool = False) -> np.ndarray:
    """Timestamps of frames in ticks -> seconds from the first, (frames,) float64, increasing.

    Each run is sorted: where timestamps are in the order of decoding, frames come in another order than their times.
    Equal times are spread up to the next one. A run that begins before the end of the one before follows after a usual
    step, and so does what follows a jump of 2^32 ticks, half of the clock of MPEG. If a time is missing, all are
    counted at the rate. `unique` says that there is one run, which rises, to save time.
    """
    if unique and runs[0][-1] - runs[0][0] < 2**32:
        return (np.array(runs[0]) - runs[0][0]) * tick
    if any(time is None for run in runs for time in run):
        return np.arange(sum(map(len, runs))) / rate
    joined: list[np.ndarray] = []
    end = None
    for run in runs:
        times = np.sort(np.array(run, np.float64)) * tick
        steps = np.diff(times)
        usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1 / rate
        for jump in np.flatnonzero(steps > 2**32 * tick):
            times[jump + 1 :] -= steps[jump] - usual
        values, first, counts = np.unique(times, return_index=True, return_counts=True)
        for place in np.flatnonzero(counts > 1):
            step = values[place + 1] - values[place] if place + 1 < len(values) else usual
            times[first[place] : first[place] + counts[place]] += step * np.arange(counts[place]) / counts[place]
        if end is not None and times[0] <= end:
            times += end + usual - times[0]
        joined.append(times)
        end = float(times[-1])
    seconds = np.concatenate(joined)
    return seconds - seconds[0]


def read_packets(source: VideoSource, container: Any, stream: Any) -> list[Packet]:
    """The packets from the first keyframe on, in decoding order."""
    packets = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                packets.append(Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{source.name}: truncated or damaged after {len(packets)} frames ({error.strerror})"
        ) from error
    if all(packet.is_cut_off for packet in packets):
        raise VideoError(f"{source.name}: its video stream holds no frames")
    first = next((place for place, packet in enumerate(packets) if packet.is_keyframe), 0)
    return packets[first:]
