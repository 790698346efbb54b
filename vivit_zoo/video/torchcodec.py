"""Decoding with torchcodec, on request: PyAV reads the index, torchcodec decodes the frames that it names.

Frames are asked for by the timestamps of PyAV's index and checked by the timestamps that they come with, so that both
backends number the frames of a file alike. The pixels are equal to the bit wherever we looked: H.264, H.265, VP8, VP9
and FFV1 in MP4, Matroska and WebM, with open groups of pictures, edit lists, turned, and at variable frame rates.

What differs: there are no gray frames. Frames that the decoder had to patch up in a damaged file go unnoticed. And some
frames are refused with a `VideoError` rather than given wrongly: all of mirrored videos, which torchcodec does not
mirror, and of raw streams; those that its seeking misses in transport streams and in streams that refresh their picture
bit by bit, without keyframes; and the last of AVI and MPEG files.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torchcodec.decoders import VideoDecoder

from vivit_zoo.video.pyav import PyAVDecoder
from vivit_zoo.video.source import VideoError, VideoSource

__all__ = ["TorchcodecDecoder"]


class TorchcodecDecoder:
    """Frames of a video by number; see `vivit_zoo.video.reader.VideoReader`."""

    def __init__(self, source: VideoSource, gray: bool, threads: int) -> None:
        if gray:
            raise ValueError("torchcodec decodes to RGB only; gray frames take backend='pyav'")
        self.source = source
        self._index = PyAVDecoder(source, gray, threads)
        self.times = self._index.times
        try:
            if self._index.is_mirrored():
                raise VideoError(f"{source.name}: its picture is mirrored, which torchcodec omits; use backend='pyav'")
        finally:
            self._index.close()
        try:
            self._decoder = VideoDecoder(
                source.from_start(),
                stream_index=self._index.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=threads,
                seek_mode="exact",
                device="cpu",
            )
        except (RuntimeError, ValueError) as error:
            raise VideoError(f"{source.name}: torchcodec cannot open it ({_reason(error)})") from error
        if not self._index.by_time and len(self._decoder) != len(self.times):
            raise VideoError(
                f"{source.name}: its frames have no usable timestamps, and torchcodec counts {len(self._decoder)} of "
                f"them where {len(self.times)} can be decoded; use backend='pyav'"
            )

    def close(self) -> None:
        del self._decoder

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """The frames with these numbers, each (h, w, c) uint8.

        Raises:
            VideoError: if one cannot be decoded.
        """
        return map(self._frame, numbers)

    def _frame(self, number: int) -> np.ndarray:
        key, tick = self._index.keys[number], self._index.time_base
        try:
            if not self._index.by_time:
                return self._decoder.get_frame_at(number).data.numpy()
            frame = self._decoder.get_frame_played_at((key + 0.5) * tick)  # half a tick: nothing is left to rounding
        except (RuntimeError, IndexError) as error:
            raise VideoError(
                f"{self.source.name}: torchcodec cannot decode frame {number} of {len(self.times)} ({_reason(error)})"
            ) from error
        if round(frame.pts_seconds / tick) != key:
            raise VideoError(
                f"{self.source.name}: torchcodec gives the frame of second {frame.pts_seconds:.3f} for number {number}"
                f" of {len(self.times)}, which is that of {key * tick:.3f}; use backend='pyav'"
            )
        return frame.data.numpy()


def _reason(error: Exception) -> str:
    """What torchcodec says, without the place in its source."""
    return str(error).strip().rpartition(".cpp:")[2].partition(", ")[2] or str(error).strip()
