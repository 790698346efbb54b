"""Video files to frames: any frame of a real file by its number, exactly.

Nothing that decodes is imported before a file is opened: PyAV (`pip install 'vivit-zoo[video]'`) for both backends, and
torchcodec (`pip install 'vivit-zoo[torchcodec]'`, and FFmpeg's libraries on the system) for the second.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np

from vivit_zoo.video.crops import Crop
from vivit_zoo.video.source import Source, VideoError, VideoSource

__all__ = ["Backend", "Source", "VideoError", "VideoReader", "check_backend", "read_video"]

Backend = Literal["pyav", "torchcodec"]

Frame = np.ndarray  # (h, w, c) uint8 in [0, 255]


def read_video(
    source: Source,
    indices: Sequence[int] | np.ndarray | None = None,
    gray: bool = False,
    *,
    name: str | None = None,
    backend: Backend = "pyav",
) -> np.ndarray:
    """Frames of a file, all of them or those numbered: (t, h, w, c) uint8. See `VideoReader` for details and errors."""
    with VideoReader(source, gray=gray, name=name, backend=backend) as video:
        return video.read(range(len(video)) if indices is None else indices)


class VideoReader:
    """An open video whose frames can be read by number, exactly: `with VideoReader(path) as video: ...`.

    Opening reads the timestamps of all packets and usually decodes nothing. A frame is then identified by its
    timestamp: the reader seeks to the keyframe before it and decodes forward until that timestamp appears, so that
    B-frames, variable frame rates and inexact seeking cannot shift the count. Where timestamps are missing, repeated,
    in the order of decoding or set back within the recording, frames are numbered by decoding all of them once. Such
    files, and files where a seek lands too late, are decoded from the start.

    Frames are upright (rotation and mirroring of the file's display matrix are applied) and have the pixels that are
    stored: a sample aspect ratio is not applied. Frames before the first keyframe, and those that an edit list cuts
    off, do not count. Frames that the decoder reports as lost or patched up are refused; not every codec does, and
    a missing end of a transport stream is not noticed.

    Args:
        source: the path of a file on this machine; the bytes of one, such as a member of a tar file; or an open binary
            seekable file, which stays open.
        gray: frames with one channel, the luma, in place of RGB.
        threads: of the decoder; 0 for one per core. Take 1 inside worker processes.
        name: what messages call the video, such as "shard.tar::clip.mp4"; None for its path.
        backend: what decodes: "pyav", or "torchcodec" on request; see `vivit_zoo.video.torchcodec` for what differs.
            No backend is replaced by the other.

    Attributes:
        name: as messages call the video.
        times: when each frame is shown, in seconds from the first, (frames,) float64, increasing.

    Raises:
        VideoError: if the file is missing, empty, no video, truncated, or without a video stream or frames.
        ImportError: if the backend is not installed or cannot be loaded.
        ValueError: on an unknown backend, or gray frames of torchcodec.
    """

    def __init__(
        self,
        source: Source,
        gray: bool = False,
        threads: int = 0,
        *,
        name: str | None = None,
        backend: Backend = "pyav",
    ) -> None:
        decoder = _decoder(backend)
        opened = VideoSource(source, name)
        self.name = opened.name
        self._decoder = decoder(opened, gray, threads)
        self.times: np.ndarray = self._decoder.times

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.times)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read after."""
        self._decoder.close()

    def frames_at(self, seconds: Sequence[float] | np.ndarray) -> np.ndarray:
        """The number of the frame on show at each time; before the first frame the first, after the last the last."""
        return np.maximum(np.searchsorted(self.times, seconds, side="right") - 1, 0)

    def read(self, indices: Sequence[int] | np.ndarray, change: Callable[[Frame], Frame] | None = None) -> np.ndarray:
        """The frames with these numbers, in this order, repeats allowed: (t, h, w, c) uint8 in [0, 255].

        Each is decoded once, and no others are kept.

        Args:
            indices: numbers from 0, such as `vivit_zoo.video.clips` gives.
            change: applied to each frame (h, w, c) when it is decoded, such as `Preprocess.resize`: what is kept is
                then small, for any size of the video.

        Raises:
            IndexError: if a number is outside the video.
            VideoError: if one of the frames cannot be decoded, or if they differ in size.
            ValueError: if there are no indices.
        """
        places = self._places(indices)
        clip = np.empty(0, np.uint8)
        for (number, where), frame in zip(places.items(), self._decoder.frames(list(places)), strict=True):
            frame = frame if change is None else change(frame)
            if not clip.size:
                clip = np.empty((len(indices), *frame.shape), frame.dtype)
            if frame.shape != clip.shape[1:]:
                raise VideoError(
                    f"{self.name}: the frames change size, from {clip.shape[1:]} to {frame.shape} (h, w, c) at frame "
                    f"{number}; read them apart, or resize each with `change=`"
                )
            clip[where] = frame
        return clip

    def read_crop(self, indices: Sequence[int] | np.ndarray, choose: Callable[[int, int], Crop]) -> np.ndarray:
        """A crop of the scaled frames with these numbers, in this order, repeats allowed: (c, t, h, w) uint8.

        Conversion to RGB, scaling and cropping are one step, made of the part of the frame that is shown; see
        `vivit_zoo.video.converter`. Only for videos that have `can_crop`.

        Args:
            indices: numbers from 0.
            choose: called with height and width of the frames, in pixels; returns the crop, the same for all frames.

        Raises:
            IndexError, VideoError, ValueError: as `read`.
        """
        return self.read_crops([(indices, choose)])[0]

    def read_crops(
        self, requests: Sequence[tuple[Sequence[int] | np.ndarray, Callable[[int, int], Crop]]]
    ) -> list[np.ndarray]:
        """Several `read_crop` at once: each frame is decoded once for all of them."""
        places = [self._places(indices) for indices, _ in requests]
        wanted = [(numbers, choose) for numbers, (_, choose) in zip(places, requests, strict=True)]
        clips: dict[int, np.ndarray] = {}
        for request, number, channels in self._decoder.crops(wanted):
            if request not in clips:
                shape = (len(channels), len(requests[request][0]), *channels[0].shape)
                clips[request] = np.empty(shape, np.uint8)
            for place in places[request][number]:
                for one, channel in zip(clips[request], channels, strict=True):
                    one[place] = channel
        return [clips[request] for request in range(len(requests))]

    @property
    def can_crop(self) -> bool:
        """Whether there is `read_crop`: with the backend "pyav"."""
        return hasattr(self._decoder, "crops")

    def _places(self, indices: Sequence[int] | np.ndarray) -> dict[int, list[int]]:
        """Each number, in rising order, and where it stands in the indices."""
        places: dict[int, list[int]] = {}
        for place, number in enumerate(indices):
            if not 0 <= number < len(self):
                raise IndexError(f"{self.name}: there is no frame {number}; they are numbered 0 to {len(self) - 1}")
            places.setdefault(int(number), []).append(place)
        if not places:
            raise ValueError("no frames were asked for: indices is empty")
        return dict(sorted(places.items()))


def check_backend(backend: str) -> None:
    """Raise what opening a video would raise if its decoder is missing.

    Raises:
        ImportError: if the backend is not installed or cannot be loaded.
        ValueError: on an unknown backend.
    """
    _decoder(backend)


def _decoder(backend: str) -> Any:
    """The class that decodes: made of (source, gray, threads), it has `times`, `frames(numbers)` and `close()`."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend {backend!r} is unknown; choose from {', '.join(get_args(Backend))}")
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ImportError("reading videos takes PyAV: pip install 'vivit-zoo[video]'") from error
    if backend == "pyav":
        from vivit_zoo.video.pyav import PyAVDecoder

        return PyAVDecoder
    try:
        import torchcodec.decoders  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError("the backend 'torchcodec' takes: pip install 'vivit-zoo[torchcodec]'") from error
    except (ImportError, OSError, RuntimeError) as error:  # it loads FFmpeg's libraries at import
        raise ImportError(
            "torchcodec is installed but cannot be loaded. It takes FFmpeg's shared libraries on the system (such as "
            "`apt install ffmpeg` or `conda install ffmpeg`) and the release that goes with this torch; or use "
            f"backend='pyav'. {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        ) from error
    from vivit_zoo.video.torchcodec import TorchcodecDecoder

    return TorchcodecDecoder
