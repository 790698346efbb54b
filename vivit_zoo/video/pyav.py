"""Decoding with PyAV: the index of a video's frames, and each frame by its timestamp."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import groupby, pairwise
from math import inf
from typing import Any, TypeVar

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vivit_zoo.video.converter import CropConverter
from vivit_zoo.video.crops import Crop
from vivit_zoo.video.index import Index, IndexCache, Shown, known, read_packets, rising_times, without_leading
from vivit_zoo.video.source import VideoError, VideoSource

__all__ = ["PyAVDecoder"]

# Frames to decode on the way to a keyframe rather than to seek it. A seek loses as many: those that the decoder holds
# back to bring them into order.
NEAR = 4

# Decoders that can leave out a frame that no other refers to, such as most B-frames, without decoding it.
CAN_SKIP = ("h264", "hevc")

INDICES = IndexCache(500_000)  # of this process, so that later epochs need not read them again

Pixels = TypeVar("Pixels")

MOST_PIXELS = 1 << 26  # twice those of 8K; a damaged header may say more, and converting these takes seconds


class PyAVDecoder:
    """Frames of a video by number; see `vivit_zoo.video.reader.VideoReader`.

    Attributes: those of `vivit_zoo.video.index.Index`.
    """

    _frames: Iterator[tuple[float, Any]]

    def __init__(self, source: VideoSource, gray: bool, threads: int) -> None:
        self.source, self.gray, self.threads = source, gray, threads
        self._reformatter = VideoReformatter()  # one for all frames: a frame's own costs more than to decode it
        self._wanted: set[int] = set()
        self._last_wanted = -inf
        self.by_time = self._can_seek = False
        index = INDICES.get(source.path)
        self._format = None if index is None else index.format
        self._container, self._stream = _open(source, threads, self._format)
        try:
            index = self._load_index(index)
        except BaseException:
            self.close()
            raise
        self.times, self.keys, self._keyframes, self.by_time, self.time_base, self.stream_index, self._format = index
        self._can_seek = self.by_time

    def close(self) -> None:
        self._container.close()

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """The frames with these rising numbers, each (h, w, c) uint8.

        Raises:
            VideoError: if one cannot be decoded.
        """
        for frame in self._decode_some(numbers):
            yield self._to_array(frame)

    def crops(
        self, requests: Sequence[tuple[Collection[int], Callable[[int, int], Crop]]]
    ) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        """Crops of frames in rising order: the place of the request, the frame's number, its channels (h, w) uint8.

        Args:
            requests: the numbers of frames and what chooses their crop. It is called once, with the height and width
                of the frames, upright.

        Raises:
            VideoError: if a frame cannot be decoded, or if they differ in size.
        """
        wanted = sorted(set().union(*(numbers for numbers, _ in requests)))
        size: tuple[int, int] | None = None
        for number, frame in zip(wanted, self._decode_some(wanted), strict=True):
            if size is None:
                size = (frame.height, frame.width)
                turns = _turns(frame)
                crops = [choose(*(size[::-1] if turns[0] else size)) for _, choose in requests]
                converters = [CropConverter(crop.turned(*turns), self.gray, self.threads) for crop in crops]
            elif size != (frame.height, frame.width):
                raise VideoError(
                    f"{self.source.name}: the frames change size, from {size} to {(frame.height, frame.width)} (h, w) "
                    f"at frame {number}; read them apart, or resize each with `change=`"
                )
            for place, (numbers, _) in enumerate(requests):
                if number in numbers:
                    yield place, number, self._to_crop(frame, converters[place], turns)

    def is_mirrored(self) -> bool:
        """Whether the picture is to be mirrored, and not only turned, when it is shown; decodes the first frame.

        Raises:
            VideoError: if it cannot be decoded.
        """
        matrix = _display_matrix(next(self._decode_some([0])))
        if matrix is None:
            return False
        a, b, _, c, d = matrix[:5].astype(float)
        return a * d < b * c

    def _load_index(self, index: Index | None) -> Index:
        """The index, read if it is not kept; the container then stands at its start, or frames can be sought."""
        if index is None:
            index = self._read_index()
            index.times.setflags(write=False)  # it is shared
            INDICES.add(self.source.path, index)
        self._start_from(-inf)
        if index.by_time:
            self._position = inf  # the first frame is sought, wherever the container stands
        return index

    def _read_index(self) -> Index:
        packets = read_packets(self.source, self._container, self._stream)
        codec = self._stream.codec_context
        time_base = float(self._stream.time_base or 1)
        timestamps = known(packet.pts for packet in packets)
        decoding = known(packet.dts for packet in packets)
        by_time = (
            len(set(timestamps)) == len(packets)
            and packets[0].is_keyframe
            and not codec.name.startswith("vp8")  # it has packets that show no frame, with timestamps like any other
            and decoding == sorted(decoding)
        )
        if by_time:
            # What is shown before the first keyframe but stored after it refers to frames that are not there.
            keys = sorted(packet.pts for packet in packets if packet.pts >= timestamps[0] and not packet.is_cut_off)
            if not keys:
                raise VideoError(f"{self.source.name}: its video stream holds no frames that are shown")
            if codec.has_b_frames and timestamps == sorted(timestamps):
                # Either it has no B-frames, or these are times of decoding, as in AVI: only decoding shows it.
                shown = [frame.pts for frame in self._decode_all()]
                by_time = None not in shown and all(a < b for a, b in pairwise(known(shown)))
        if by_time:
            keyframes = sorted(packet.pts for packet in packets if packet.is_keyframe)
            times = rising_times([keys], time_base, unique=True)
        else:
            frames = without_leading(self._decode_all(), packets[0].is_cut_off)
            if not frames:
                raise VideoError(f"{self.source.name}: not one of its {len(packets)} packets can be decoded")
            keys, keyframes = [frame.number for frame in frames], []
            runs = [[frame.pts for frame in run] for _, run in groupby(frames, key=lambda frame: frame.run)]
            times = rising_times(runs, time_base, float(self._stream.average_rate or 25))
        format = self._container.format.name.split(",")[0]  # such as "mov" of "mov,mp4,m4a,3gp,3g2,mj2"
        return Index(times, keys, keyframes, by_time, time_base, self._stream.index, format)

    def _decode_all(self) -> list["Shown"]:
        """What each frame says of itself, decoded from the start; the container then stands there again."""
        self._reopen()
        shown: list[Shown] = []
        for key, frame in self._frames:
            shown.append(Shown(int(key), frame.pts, bool(frame.key_frame), self._run))
        self._reopen()
        return shown

    def _decode_some(self, numbers: Sequence[int]) -> Iterator[Any]:
        """The decoded frames with these rising numbers. Frames between them need not be decoded."""
        if self._position < self._last_wanted:  # the call before was given up; what it left out may be wanted now
            self._position = inf
        self._wanted = {self.keys[number] for number in numbers}
        self._last_wanted = max(self._wanted)
        return map(self._decode, numbers)

    def _decode(self, number: int) -> Any:
        key = self.keys[number]
        if self._can_seek:
            keyframe = self._keyframes[bisect_right(self._keyframes, key) - 1]
            between = bisect_left(self.keys, keyframe) - bisect_right(self.keys, self._position)
            if self._position >= key or between > NEAR:
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
        self._container, self._stream = _open(self.source, self.threads, self._format)
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
            self._skip_unwanted(packet)
            for frame in self._try(packet.decode):
                if not self.by_time:
                    yield number, frame
                elif frame.pts is not None:
                    yield frame.pts, frame
                number += 1

    def _skip_unwanted(self, packet: Any) -> None:
        """Tell the decoder whether it may leave out the frame of a packet, if no other frame refers to it.

        What comes after the last frame that is wanted is kept, for the next call may want it.
        """
        codec = self._stream.codec_context
        if codec.name in CAN_SKIP:
            skip = self._can_seek and packet.pts is not None and packet.pts < self._last_wanted
            codec.skip_frame = "NONREF" if skip and packet.pts not in self._wanted else "DEFAULT"

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
        """The whole frame, upright: (h, w, c)."""
        pixels = "gray" if self.gray else "rgb24"

        def convert(frame: Any) -> np.ndarray:
            image = self._reformatter.reformat(frame, format=pixels, threads=self.threads).to_ndarray()
            return image[..., None] if self.gray else image

        return _upright(self._convert(frame, convert), *_turns(frame))

    def _to_crop(self, frame: Any, converter: CropConverter, turns: tuple[bool, bool, bool]) -> list[np.ndarray]:
        """A part of the frame, upright: channels (h, w)."""
        return [_upright(channel, *turns) for channel in self._convert(frame, converter)]

    def _convert(self, frame: Any, convert: Callable[[Any], Pixels]) -> Pixels:
        kind = f"{frame.width}x{frame.height} pixels"
        if frame.width * frame.height > MOST_PIXELS:
            raise VideoError(f"{self.source.name}: a frame of {kind} is larger than any camera's; the file is damaged")
        try:
            return convert(frame)
        except (av.error.FFmpegError, MemoryError, ValueError) as error:
            raise VideoError(
                f"{self.source.name}: a frame of {kind} of the format {frame.format.name} cannot be converted to "
                f"{'gray' if self.gray else 'RGB'} ({error})"
            ) from error


# Before version 19, which has no such option and takes any metadata, PyAV refuses those that are not UTF-8.
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def _open(source: VideoSource, threads: int, format: str | None = None) -> tuple[Any, Any]:
    """The container and its video stream; a format of None is guessed from the first bytes."""
    # With PyAV's log callback on, which other packages turn on, a thread of the decoder may wait in it for Python's
    # lock while closing the decoder holds the lock and waits for that thread.
    if av.logging.get_level() is not None:
        av.logging.set_level(None)
    try:
        container = av.open(source.from_start(), format=format, **_METADATA)
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


def _display_matrix(frame: Any) -> np.ndarray | None:
    """3x3, row by row, (9,) int32; None if the frame has none."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else np.frombuffer(matrix, np.int32)


def _turns(frame: Any) -> tuple[bool, bool, bool]:
    """How a frame is made upright, to the nearest quarter of a turn: whether to transpose, then to flip rows, columns.

    The display matrix maps (x, y) to (a x + c y, b x + d y), with a, b in its first row and c, d in its second.
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return False, False, False
    a, b, _, c, d = (int(value) for value in matrix[:5])
    transpose = abs(b) > abs(a)
    if transpose:
        a, d = c, b
    return transpose, d < 0, a < 0


def _upright(image: np.ndarray, transpose: bool, flip_rows: bool, flip_columns: bool) -> np.ndarray:
    """Apply `_turns` to (h, w, ...)."""
    if transpose:
        image = image.swapaxes(0, 1)
    return image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
