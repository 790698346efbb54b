"""Decoding with PyAV: the index of a video's frames, and each frame by its timestamp."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby, pairwise
from math import inf
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vivit_zoo.video.source import VideoError, VideoSource

__all__ = ["PyAVDecoder"]

MOST_PIXELS = 1 << 26  # twice those of 8K; a damaged header may say more, and converting these takes seconds


class PyAVDecoder:
    """Frames of a video by number; see `vivit_zoo.video.reader.VideoReader`.

    Attributes:
        times: when each frame is shown, in seconds from the first, (frames,) float64, increasing.
        keys: what identifies each frame when it is decoded: its timestamp in ticks of `time_base` or, where `by_time`
            is false, its place among the frames that are decoded from the start.
        by_time: whether the timestamps identify the frames. They do not where they are missing, repeated, in the order
            of decoding, or where the clock is set back within the recording.
        stream_index: the place of the video stream among the file's streams.
    """

    _frames: Iterator[tuple[float, Any]]

    def __init__(self, source: VideoSource, gray: bool, threads: int) -> None:
        self.source, self.gray, self.threads = source, gray, threads
        self._reformatter = VideoReformatter()  # one for all frames: a frame's own costs more than to decode it
        self._container, self._stream = _open(source, threads)
        try:
            self._read_index()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def frame(self, number: int) -> np.ndarray:
        """(h, w, c) uint8.

        Raises:
            VideoError: if it cannot be decoded.
        """
        return self._to_array(self._decode(number))

    def is_mirrored(self) -> bool:
        """Whether the picture is to be mirrored, and not only turned, when it is shown; decodes the first frame.

        Raises:
            VideoError: if it cannot be decoded.
        """
        matrix = self._decode(0).side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return False
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
        return a * d < b * c

    def _read_index(self) -> None:
        """Set the attributes that the class lists."""
        packets = _read_packets(self.source, self._container, self._stream)
        codec = self._stream.codec_context
        self.time_base, self.stream_index = float(self._stream.time_base or 1), self._stream.index
        timestamps = _known(packet.pts for packet in packets)
        decoding = _known(packet.dts for packet in packets)
        self.by_time = (
            len(set(timestamps)) == len(packets)
            and packets[0].is_keyframe
            and not codec.name.startswith("vp8")  # it has packets that show no frame, with timestamps like any other
            and decoding == sorted(decoding)
        )
        if self.by_time:
            # What is shown before the first keyframe but stored after it refers to frames that are not there.
            self.keys = sorted(
                packet.pts for packet in packets if packet.pts >= timestamps[0] and not packet.is_cut_off
            )
            if not self.keys:
                raise VideoError(f"{self.source.name}: its video stream holds no frames that are shown")
            if codec.has_b_frames and timestamps == sorted(timestamps):
                # Either it has no B-frames, or these are times of decoding, as in AVI: only decoding shows it.
                shown = [frame.pts for frame in self._decode_all()]
                self.by_time = None not in shown and all(a < b for a, b in pairwise(_known(shown)))
        if self.by_time:
            self._keyframes = sorted(packet.pts for packet in packets if packet.is_keyframe)
            self._position = inf  # at the end of the file, from where the first frame is sought
            self.times = rising_times([self.keys], self.time_base, unique=True)
        else:
            frames = _without_leading(self._decode_all(), packets[0].is_cut_off)
            if not frames:
                raise VideoError(f"{self.source.name}: not one of its {len(packets)} packets can be decoded")
            self.keys = [frame.number for frame in frames]
            runs = [[frame.pts for frame in run] for _, run in groupby(frames, key=lambda frame: frame.run)]
            self.times = rising_times(runs, self.time_base, float(self._stream.average_rate or 25))
        self._can_seek = self.by_time

    def _decode_all(self) -> list["_Shown"]:
        """What each frame says of itself, decoded from the start; the container then stands there again."""
        by_time, self.by_time = self.by_time, False
        self._reopen()
        shown: list[_Shown] = []
        for key, frame in self._frames:
            shown.append(_Shown(int(key), frame.pts, bool(frame.key_frame), self._run))
        self._reopen()
        self.by_time = by_time
        return shown

    def _decode(self, number: int) -> Any:
        key = self.keys[number]
        if self._can_seek:
            keyframe = self._keyframes[bisect_right(self._keyframes, key) - 1]
            if not keyframe <= self._position < key:
                self._seek(keyframe)
        elif self._position >= key:
            self._reopen()
        frame = self._forward_to(key)
        if frame is None and self._can_seek:  # a seek that landed too late, or a damaged file
            self._can_seek = False
            self._reopen()
            frame = self._forward_to(key)
        if frame is None or frame.is_corrupt:
            raise VideoError(
                f"{self.source.name}: frame {number} of {len(self.keys)} cannot be decoded; the file is damaged"
            )
        return frame

    def _forward_to(self, key: int) -> Any | None:
        for position, frame in self._frames:
            self._position = position
            if position >= key:
                return frame if position == key else None
        return None

    def _seek(self, keyframe: int) -> None:
        try:
            self._container.seek(keyframe, stream=self._stream)
        except av.error.FFmpegError:
            self._can_seek = False
            self._reopen()
        else:
            self._start_from(keyframe)

    def _reopen(self) -> None:
        """Go back to the start, in the one way that every file allows."""
        self._container.close()
        self._container, self._stream = _open(self.source, self.threads)
        self._start_from(-inf)

    def _start_from(self, keyframe: float) -> None:
        self._started_at = keyframe
        self._position = -inf
        self._frames = self._decode_on()

    def _decode_on(self) -> Iterator[tuple[float, Any]]:
        """Each frame from here on with its key. Damaged packets are skipped: their frames will be missed."""
        self._run, number, last = 0, 0, -inf
        for place, packet in enumerate(self._packets()):
            # Past its keyframe a seek may bring up frames that refer to others before it: they would come out broken.
            if place == 0 and self._started_at > -inf and (packet.pts is None or packet.pts > self._started_at):
                return
            frames: list[Any] = []
            if packet.dts is not None and packet.dts < last and not self.by_time:  # another recording begins
                frames = self._try(lambda: self._stream.codec_context.decode(None))
                self._stream.codec_context.flush_buffers()
            for frame in frames:
                yield number, frame
                number += 1
            self._run += packet.dts is not None and packet.dts < last
            last = packet.dts if packet.dts is not None else last
            for frame in self._try(packet.decode):
                if not self.by_time:
                    yield number, frame
                elif frame.pts is not None:
                    yield frame.pts, frame
                number += 1

    def _packets(self) -> Iterator[Any]:
        """The packets from here on, as far as they can be read."""
        with suppress(av.error.FFmpegError):
            yield from self._container.demux(self._stream)

    def _try(self, decode: Callable[[], list[Any]]) -> list[Any]:
        """The frames that a call of the decoder gives, none if it cannot decode."""
        try:
            return decode()
        except av.error.FFmpegError:
            return []

    def _to_array(self, frame: Any) -> np.ndarray:
        pixels = "gray" if self.gray else "rgb24"
        if frame.width * frame.height > MOST_PIXELS:
            raise VideoError(
                f"{self.source.name}: a frame of {frame.width}x{frame.height} pixels is larger than any camera's; the "
                "file is damaged"
            )
        try:
            image = self._reformatter.reformat(frame, format=pixels, threads=self.threads).to_ndarray()
        except (av.error.FFmpegError, MemoryError, ValueError) as error:
            kind = f"{frame.width}x{frame.height} pixels of the format {frame.format.name}"
            raise VideoError(
                f"{self.source.name}: a frame of {kind} cannot be converted to {pixels} ({error})"
            ) from error
        image = image[..., None] if self.gray else image
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return image if matrix is None else _upright(image, np.frombuffer(matrix, np.int32))


def _open(source: VideoSource, threads: int) -> tuple[Any, Any]:
    """The container and its video stream."""
    # With PyAV's log callback on, which other packages turn on, a thread of the decoder may wait in it for Python's
    # lock while closing the decoder holds the lock and waits for that thread.
    if av.logging.get_level() is not None:
        av.logging.set_level(None)
    try:
        container = av.open(source.from_start(), metadata_errors="replace")
    except (OSError, av.error.FFmpegError) as error:
        raise VideoError(f"{source.name}: {source.why_unreadable()} ({error.strerror or error})") from error
    # FFmpeg plays text files as the pictures of a terminal, or as lists of other files.
    if container.format.name in ("tty", "concat"):
        container.close()
        raise VideoError(f"{source.name}: {source.why_unreadable()}")
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams or streams[0].codec_context is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams} - {"video"})) or "nothing"
        container.close()
        if not streams:
            raise VideoError(f"{source.name}: there is no video stream in it, only {kinds}")
        raise VideoError(f"{source.name}: FFmpeg cannot tell how its video is coded, or has no decoder for it")
    streams[0].thread_type = "AUTO"
    streams[0].codec_context.thread_count = threads
    return container, streams[0]


class _Packet(NamedTuple):
    """What an encoded frame says of itself; others may need one that an edit list cuts off, so that it is decoded."""

    pts: Any  # int, or None
    dts: Any
    is_keyframe: bool
    is_cut_off: bool


class _Shown(NamedTuple):
    """What a decoded frame says of itself, and in which run it is: a new one begins where the clock is set back."""

    number: int
    pts: int | None
    is_keyframe: bool
    run: int


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _without_leading(shown: list[_Shown], first_is_cut_off: bool) -> list[_Shown]:
    """The frames without those that are shown before the first keyframe of a run: they refer to frames not there.

    Where an edit list cuts off the first keyframe, those of the first run refer to that, and stay.
    """
    kept: list[_Shown] = []
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


def _read_packets(source: VideoSource, container: Any, stream: Any) -> list[_Packet]:
    """The packets from the first keyframe on, in decoding order."""
    packets = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                packets.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{source.name}: truncated or damaged after {len(packets)} frames ({error.strerror})"
        ) from error
    if all(packet.is_cut_off for packet in packets):
        raise VideoError(f"{source.name}: its video stream holds no frames")
    first = next((place for place, packet in enumerate(packets) if packet.is_keyframe), 0)
    return packets[first:]


def _upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turn or mirror a frame as a display matrix (3x3, row by row) says, to the nearest quarter of a turn.

    The matrix maps (x, y) to (a x + c y, b x + d y), with a, b in its first row and c, d in its second.
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: 1 if d >= 0 else -1, :: 1 if a >= 0 else -1]
