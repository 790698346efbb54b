"""Decoding with PyAV: the index of a video's frames, and each frame by its timestamp."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vivit_zoo.video.source import VideoError, VideoSource

__all__ = ["PyAVDecoder"]


class PyAVDecoder:
    """Frames of a video by number; see `vivit_zoo.video.reader.VideoReader`.

    Attributes:
        times: when each frame is shown, in seconds from the first, (frames,) float64, increasing.
        keys: by what each frame is known when it is decoded: its timestamp in ticks of `time_base` or, where `by_time`
            is false because they cannot tell the frames apart, its number.
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
        times = [packet.pts for packet in packets if packet.pts is not None]
        codec, time_base = self._stream.codec_context.name, float(self._stream.time_base)
        self.time_base, self.stream_index = time_base, self._stream.index
        # VP8 has packets that show no frame, with timestamps like any other.
        self.by_time = len(set(times)) == len(packets) and packets[0].is_keyframe and not codec.startswith("vp8")
        self._can_seek = self.by_time
        if self.by_time:
            self._position = inf  # at the end of the file, from where the first frame is sought
            # What is shown before the first keyframe but stored after it refers to frames that are not there.
            self.keys = sorted(packet.pts for packet in packets if packet.pts >= times[0] and not packet.is_cut_off)
            self._keyframes = sorted(packet.pts for packet in packets if packet.is_keyframe)
            seconds = np.array(self.keys) * time_base
        else:
            self._reopen()
            shown = [frame.pts for _, frame in self._frames]
            self._reopen()
            if not shown:
                raise VideoError(f"{self.source.name}: not one of its {len(packets)} packets can be decoded")
            self.keys = list(range(len(shown)))
            rising = None not in shown and all(a < b for a, b in pairwise(shown))
            rate = float(self._stream.average_rate or 25)
            seconds = np.array(shown) * time_base if rising else np.arange(len(shown)) / rate
        self.times = seconds - seconds[0]

    def _decode(self, number: int) -> Any:
        key = self.keys[number]
        if self._can_seek:
            keyframe = self._keyframes[bisect_right(self._keyframes, key) - 1]
            if not keyframe <= self._position < key:
                self._seek(keyframe)
        elif self._position >= key:
            self._reopen()
        frame = self._forward_to(key)
        if frame is None and self._can_seek:  # a seek that landed too late, or a damaged file: the sure way tells
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
        """Each frame from here on with its key. Damaged packets are passed over: their frames will be missed."""
        number = 0
        for place, packet in enumerate(self._container.demux(self._stream)):
            # Past its keyframe a seek may bring up frames that refer to others before it: they would come out broken.
            if place == 0 and self._started_at > -inf and (packet.pts is None or packet.pts > self._started_at):
                return
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue
            for frame in frames:
                if not self.by_time:
                    yield number, frame
                elif frame.pts is not None:
                    yield frame.pts, frame
                number += 1

    def _to_array(self, frame: Any) -> np.ndarray:
        pixels = "gray" if self.gray else "rgb24"
        image = self._reformatter.reformat(frame, format=pixels, threads=self.threads).to_ndarray()
        image = image[..., None] if self.gray else image
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return image if matrix is None else _upright(image, np.frombuffer(matrix, np.int32))


def _open(source: VideoSource, threads: int) -> tuple[Any, Any]:
    """The container and its video stream."""
    try:
        container = av.open(source.from_start())
    except (OSError, av.error.FFmpegError) as error:
        raise VideoError(f"{source.name}: {source.why_unreadable()} ({error.strerror or error})") from error
    if container.format.name == "tty":  # FFmpeg plays text files as the pictures of a terminal
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
    is_keyframe: bool
    is_cut_off: bool


def _read_packets(source: VideoSource, container: Any, stream: Any) -> list[_Packet]:
    """The packets from the first keyframe on, in decoding order."""
    packets = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                packets.append(_Packet(packet.pts, packet.is_keyframe, packet.is_discard))
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
