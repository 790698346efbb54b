"""Video files to frames: exact frames of real files (PyAV).

Only this file reads videos, and only it imports PyAV (`pip install 'vivit_zoo[video]'`), when a file is opened.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

__all__ = ["Source", "VideoError", "VideoReader", "read_video"]

Source = str | os.PathLike[str]

Frame = np.ndarray  # (h, w, c) uint8 in [0, 255]


class VideoError(ValueError):
    """A video that cannot be read, or is too short for what was asked of it. The message names the file."""


def read_video(path: str | os.PathLike[str], indices: Sequence[int] | None = None, gray: bool = False) -> np.ndarray:
    """Frames of a file, all of them or those numbered: (t, h, w, c) uint8. See `VideoReader` for details and errors."""
    with VideoReader(path, gray=gray) as video:
        return video.read(range(len(video)) if indices is None else indices)


class VideoReader:
    """An open video file whose frames can be read by number, exactly: `with VideoReader(path) as video: ...`.

    Opening reads the timestamps of all packets and, as a rule, decodes nothing. A frame is then known by its timestamp:
    the reader seeks to the keyframe before it and decodes forward until that very timestamp appears, so that B-frames,
    variable frame rates and inexact seeking cannot shift the count. Where a seek lands too late, and in files without
    usable timestamps, it decodes from the start.

    Frames are upright (rotation and mirroring of the file's display matrix are applied) and have the pixels that are
    stored: a sample aspect ratio is not applied. Frames before the first keyframe, and those that an edit list cuts
    off, do not count. Frames that the decoder reports as lost or patched up are refused; not every codec does, and
    transport streams do not tell when their end is missing.

    Args:
        path: of a file on this machine.
        gray: frames with one channel, the luma, in place of RGB.
        threads: of the decoder; 0 for one per core. Take 1 inside worker processes.

    Raises:
        VideoError: if the file is missing, empty, no video, truncated, or without a video stream or frames.
        ImportError: without PyAV.
    """

    _frames: Iterator[tuple[float, Any]]

    def __init__(self, path: str | os.PathLike[str], gray: bool = False, threads: int = 0) -> None:
        self.name = str(path)
        self.path, self.gray, self.threads = Path(path), gray, threads
        self._container, self._stream = _open(self.path, threads)
        try:
            self._read_index()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read after."""
        self._container.close()

    def frames_at(self, seconds: Sequence[float] | np.ndarray) -> np.ndarray:
        """The number of the frame on show at each time; before the first frame the first, after the last the last."""
        return np.maximum(np.searchsorted(self.times, seconds, side="right") - 1, 0)

    def read(self, indices: Sequence[int] | np.ndarray, change: Callable[[Frame], Frame] | None = None) -> np.ndarray:
        """The frames with these numbers, in this order, repeats allowed: (t, h, w, c) uint8 in [0, 255].

        Each is decoded once, and no others are kept.

        Args:
            indices: numbers from 0, such as `vivit_zoo.clips` gives.
            change: applied to each frame (h, w, c) when it is decoded, such as `Preprocess.resize`: what is kept is
                then small, whatever the size of the video.

        Raises:
            IndexError: if a number is outside the video.
            VideoError: if one of the frames cannot be decoded, or if they differ in size.
            ValueError: if there are no indices.
        """
        places: dict[int, list[int]] = {}
        for place, number in enumerate(indices):
            if not 0 <= number < len(self):
                raise IndexError(f"{self.path}: there is no frame {number}; they are numbered 0 to {len(self) - 1}")
            places.setdefault(int(number), []).append(place)
        clip: np.ndarray | None = None
        for number in sorted(places):
            frame = self._to_array(self._decode(number))
            frame = frame if change is None else change(frame)
            if clip is None:
                clip = np.empty((len(indices), *frame.shape), frame.dtype)
            if frame.shape != clip.shape[1:]:
                raise VideoError(
                    f"{self.path}: the frames change size, from {clip.shape[1:]} to {frame.shape} (h, w, c) at frame "
                    f"{number}; read them apart, or resize each with `change=`"
                )
            clip[places[number]] = frame
        if clip is None:
            raise ValueError("no frames were asked for: indices is empty")
        return clip

    def _read_index(self) -> None:
        """Give each frame a key by which it is known when it is decoded: its timestamp or, without one, its number.

        Sets `times`: when each frame is shown, in seconds from the first, (frames,) float64, increasing.
        """
        packets = _read_packets(self.path, self._container, self._stream)
        times = [packet.pts for packet in packets if packet.pts is not None]
        codec, time_base = self._stream.codec_context.name, float(self._stream.time_base)
        # VP8 has packets that show no frame, with timestamps like any other.
        self._by_time = len(set(times)) == len(packets) and packets[0].is_keyframe and not codec.startswith("vp8")
        self._can_seek = self._by_time
        self._reopen()
        if self._by_time:
            # What is shown before the first keyframe but stored after it refers to frames that are not there.
            self._keys = sorted(packet.pts for packet in packets if packet.pts >= times[0] and not packet.is_cut_off)
            self._keyframes = sorted(packet.pts for packet in packets if packet.is_keyframe)
            seconds = np.array(self._keys) * time_base
        else:
            shown = [frame.pts for _, frame in self._frames]
            self._reopen()
            if not shown:
                raise VideoError(f"{self.path}: not one of its {len(packets)} packets can be decoded")
            self._keys = list(range(len(shown)))
            rising = None not in shown and all(a < b for a, b in pairwise(shown))
            rate = float(self._stream.average_rate or 25)
            seconds = np.array(shown) * time_base if rising else np.arange(len(shown)) / rate
        self.times = seconds - seconds[0]

    def _decode(self, number: int) -> Any:
        key = self._keys[number]
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
            raise VideoError(f"{self.path}: frame {number} of {len(self)} cannot be decoded; the file is damaged")
        return frame

    def _forward_to(self, key: int) -> Any | None:
        for position, frame in self._frames:
            self._position = position
            if position >= key:
                return frame if position == key else None
        return None

    def _seek(self, keyframe: int) -> None:
        import av

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
        self._container, self._stream = _open(self.path, self.threads)
        self._start_from(-inf)

    def _start_from(self, keyframe: float) -> None:
        self._started_at = keyframe
        self._position = -inf
        self._frames = self._decode_on()

    def _decode_on(self) -> Iterator[tuple[float, Any]]:
        """Each frame from here on with its key. Damaged packets are passed over: their frames will be missed."""
        import av

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
                if not self._by_time:
                    yield number, frame
                elif frame.pts is not None:
                    yield frame.pts, frame
                number += 1

    def _to_array(self, frame: Any) -> Frame:
        image = frame.to_ndarray(format="gray" if self.gray else "rgb24")
        image = image[..., None] if self.gray else image
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return image if matrix is None else _upright(image, np.frombuffer(matrix, np.int32))


def _open(path: Path, threads: int) -> tuple[Any, Any]:
    """The container and its video stream."""
    try:
        import av
    except ImportError as error:
        raise ImportError("reading videos takes PyAV: pip install 'vivit_zoo[video]'") from error
    if not path.is_file():
        raise VideoError(f"{path}: {'not a file' if path.exists() else 'there is no such file'}")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    if missing := _missing_bytes(path):
        raise VideoError(
            f"{path}: truncated: {missing} bytes are missing at its end; fetch it again, or see whether "
            "`ffmpeg -i FILE -c copy NEW` can save what is there"
        )
    try:
        container = av.open(str(path.absolute()))  # absolute, so that a name such as "a:b" is no protocol
    except (OSError, av.error.FFmpegError) as error:
        raise VideoError(f"{path}: {_why_unreadable(path)} ({error.strerror or error})") from error
    if container.format.name == "tty":  # FFmpeg plays text files as the pictures of a terminal
        container.close()
        raise VideoError(f"{path}: {_why_unreadable(path)}")
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams or streams[0].codec_context is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams} - {"video"})) or "nothing"
        container.close()
        if not streams:
            raise VideoError(f"{path}: there is no video stream in it, only {kinds}")
        raise VideoError(f"{path}: FFmpeg cannot tell how its video is coded, or has no decoder for it")
    streams[0].thread_type = "AUTO"
    streams[0].codec_context.thread_count = threads
    return container, streams[0]


def _missing_bytes(path: Path) -> int:
    """How many bytes an MP4, QuickTime, Matroska or WebM file lacks at its end; FFmpeg passes over that in silence."""
    end = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"\x1aE\xdf\xa3":  # EBML (RFC 8794): a header, then the segment; each identifier, size, content
            at, size = _ebml_size(head, 4)
            start = at + size
            file.seek(start)
            head = file.read(12)
            at, size = _ebml_size(head, 4)
            known = head[:4] == b"\x18S\x80g" and size + 1 != 1 << 7 * (at - 4)  # all ones: unknown, as in live streams
            return max(0, start + at + size - end) if known else 0
        place = 0
        while head[4:8].isalnum() and (place or head[4:8] == b"ftyp"):  # ISO 14496-12: boxes of size, name, content
            size = int.from_bytes(head[:4])
            size = int.from_bytes(head[8:16]) if size == 1 else size
            if size < 8:  # 0: to the end of the file
                break
            place += size
            file.seek(place)
            head = file.read(16)
        return max(0, place - end)


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """The place behind a number, and the number: its leading zero bits tell its length."""
    length = 9 - head[at].bit_length() if len(head) > at and head[at] else 1
    return at + length, int.from_bytes(head[at : at + length]) & ((1 << 7 * length) - 1)


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if start[4:8] == b"ftyp":
        return "truncated: the file ends before the table of its frames (moov), so that none can be found"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return f"a text file, not a video; it begins {start[:40].decode()!r}"
    return "not a video, or its beginning is damaged"


class _Packet(NamedTuple):
    """What an encoded frame says of itself; others may need one that an edit list cuts off, so that it is decoded."""

    pts: Any  # int, or None
    is_keyframe: bool
    is_cut_off: bool


def _read_packets(path: Path, container: Any, stream: Any) -> list[_Packet]:
    """The packets from the first keyframe on, in decoding order."""
    import av

    packets = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                packets.append(_Packet(packet.pts, packet.is_keyframe, packet.is_discard))
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: truncated or damaged after {len(packets)} frames ({error.strerror})") from error
    if all(packet.is_cut_off for packet in packets):
        raise VideoError(f"{path}: its video stream holds no frames")
    first = next((place for place, packet in enumerate(packets) if packet.is_keyframe), 0)
    return packets[first:]


def _upright(image: Frame, matrix: np.ndarray) -> Frame:
    """Turn or mirror a frame as a display matrix (3x3, row by row) says, to the nearest quarter of a turn.

    The matrix maps (x, y) to (a x + c y, b x + d y), with a, b in its first row and c, d in its second.
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: 1 if d >= 0 else -1, :: 1 if a >= 0 else -1]
