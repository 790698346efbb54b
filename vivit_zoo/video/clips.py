"""Which frames of a video make a clip: one to train on, or the views of a test.

The names are those of torchcodec's samplers where they mean the same: "random" starts a clip where
`clips_at_random_indices` does (with fps, `clips_at_random_timestamps`), and the policies are called alike. They differ
in what is repeated: "repeat_last" here shows the last frame of the video and not the last one the stride met, and
"wrap" starts the video again, as the original code, and not the clip.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vivit_zoo.video.preprocess import Preprocess, view_crops
from vivit_zoo.video.reader import Frame, Source, VideoError, VideoReader

__all__ = ["ClipSampler", "Policy", "Sample", "Views", "Where", "Windows", "clip_indices", "clip_offsets"]

Policy = Literal["repeat_last", "wrap", "error", "mask"]
Where = Literal["random", "uniform", "centre"]

# Matroska rounds timestamps to milliseconds, on both sides of a difference: a frame that comes this little after the
# moment asked for, in seconds, is the one that was meant.
_SLACK = 1.5e-3


class Video(Protocol):
    """What is sampled: anything with a length, times and frames, such as a `VideoReader`."""

    @property
    def times(self) -> np.ndarray:
        """When each frame is shown, in seconds, increasing."""

    def __len__(self) -> int: ...
    def read(self, indices: np.ndarray, change: Callable[[Frame], Frame] | None = None) -> np.ndarray:
        """The frames with these numbers, (t, h, w, c) uint8."""


class Sample(NamedTuple):
    """The frames of a clip, or of several.

    indices: frame numbers, (frames,) or (clips, frames) int64.
    mask: under the policy "mask", bool of the same shape, False where the video has no frame; else None.
    """

    indices: np.ndarray
    mask: np.ndarray | None


def clip_offsets(length: int, clips: int = 1, frames: int = 32, stride: int = 2) -> list[int]:
    """First frames of the test clips of a video of `length` frames, as the original code places them.

    Several clips start evenly between the first frame and `length - frames * stride`, rounded down; one clip is in
    the middle. A video shorter than `frames * stride` gives offsets of 0. (From 15 clips on, the original's rounding of
    binary fractions can differ by one frame.)

    Raises:
        ValueError: if a count is not positive.
    """
    for name, count in {"length": length, "clips": clips, "frames": frames, "stride": stride}.items():
        if count < 1:
            raise ValueError(f"{name} {count} is not positive")
    last = max(0, length - frames * stride)
    return [last // 2] if clips == 1 else [clip * last // (clips - 1) for clip in range(clips)]


def clip_indices(
    length: int, offset: int = 0, frames: int = 32, stride: int = 2, policy: Policy = "repeat_last"
) -> np.ndarray:
    """Frame numbers (frames,) of a clip that starts at `offset` in a video of `length` frames, int64 in [0, length).

    Args:
        length: frames of the video.
        offset: first frame of the clip.
        frames: frames of the clip.
        stride: distance between two of them.
        policy: what stands where the video is over: "repeat_last" its last frame; "wrap" the video again from its
            start, as in the original code; "error" nothing, such a video is refused; "mask" its last frame, which a
            mask then tells the model to leave out, see `ClipSampler.sample`.

    Raises:
        VideoError: with the policy "error", if the clip ends after the video.
        ValueError: on an unknown policy, or an offset outside the video.
    """
    _check(frames, stride, policy)
    if not 0 <= offset < length:
        raise ValueError(f"offset {offset} is outside a video of {length} frames")
    wanted = offset + stride * np.arange(frames)
    if policy == "wrap":
        return wanted % length
    if policy == "error" and wanted[-1] >= length:
        raise VideoError(
            f"{length} frames are too few: {frames} with stride {stride} from frame {offset} need {wanted[-1] + 1}; "
            "use a smaller stride, or the policy 'repeat_last' or 'wrap'"
        )
    return np.minimum(wanted, length - 1)


def _check(frames: int, stride: int, policy: Policy) -> None:
    if policy not in get_args(Policy):
        raise ValueError(f"policy {policy!r} is unknown; choose from {', '.join(get_args(Policy))}")
    if frames < 1 or stride < 1:
        raise ValueError(f"a clip of {frames} frames with stride {stride} is empty; both must be positive")


@dataclass(frozen=True, kw_only=True)
class _Clips:
    """How the frames of a clip follow each other, whatever its place. Places are frames or, with fps, seconds."""

    frames: int = 32
    stride: int = 2
    fps: float | None = None
    policy: Policy = "repeat_last"

    def __post_init__(self) -> None:
        _check(self.frames, self.stride, self.policy)
        if self.fps is not None and not (self.fps > 0 and isfinite(self.fps)):
            raise ValueError(f"fps {self.fps} is no rate; give frames per second, or None to count by stride")

    def sample(self, video: Video) -> Sample:
        """The frames of a clip or of several, and which of them the video has."""
        raise NotImplementedError

    def indices(self, video: Video) -> np.ndarray:
        """Frame numbers int64 in [0, len(video)), for `VideoReader.read`: (frames,), or (clips, frames) of several."""
        return self.sample(video).indices

    def _even_starts(self, video: Video, clips: int) -> list[int] | list[float]:
        """As `clip_offsets`; in seconds nothing is rounded."""
        if self.fps is None:
            return clip_offsets(len(video), clips, self.frames, self.stride)
        last = max(0.0, self._duration(video) - self.frames / self.fps)
        return [last / 2] if clips == 1 else [clip * last / (clips - 1) for clip in range(clips)]

    def _random_start(self, video: Video) -> int | float:
        if self.fps is None:
            return int(torch.randint(max(len(video) - (self.frames - 1) * self.stride, 1), ()))
        room = self._duration(video) - (self.frames - 1) / self.fps - _SLACK
        return float(torch.rand((), dtype=torch.float64)) * max(room, 0.0)

    def _clip(self, video: Video, start: int | float) -> Sample:
        """The frames (frames,) of the clip that starts there, as `clip_indices`."""
        try:
            if self.fps is None:
                indices = clip_indices(len(video), int(start), self.frames, self.stride, self.policy)
                return self._sample(indices, start + self.stride * np.arange(self.frames) < len(video))
            wanted, duration = start + np.arange(self.frames) / self.fps + _SLACK, self._duration(video)
            if self.policy == "error" and wanted[-1] >= duration:
                raise VideoError(
                    f"{duration:.2f} seconds are too short: {self.frames} frames at {self.fps:g} a second from second "
                    f"{start:.2f} end after it; use a higher fps, or the policy 'repeat_last' or 'wrap'"
                )
        except VideoError as error:
            raise VideoError(f"{getattr(video, 'name', 'a video')}: {error}") from error
        if self.policy == "wrap":
            wanted %= duration
        indices = np.maximum(np.searchsorted(video.times - video.times[0], wanted, side="right") - 1, 0)
        return self._sample(indices, wanted < duration)

    def _spread(self, video: Video, indices: np.ndarray) -> Sample:
        """Frames from all over the video; where it is too short, some come several times in a row."""
        if self.policy == "error" and len(video) < self.frames:
            raise VideoError(
                f"{getattr(video, 'name', 'a video')}: {len(video)} frames are too few to take {self.frames} "
                "different ones; take fewer, or use the policy 'repeat_last'"
            )
        return self._sample(indices, np.diff(indices, axis=-1, prepend=-1) > 0)

    def _several(self, video: Video, starts: Sequence[int] | Sequence[float]) -> Sample:
        indices, masks = zip(*(self._clip(video, start) for start in starts), strict=True)
        return Sample(np.stack(indices), np.stack(masks) if self.policy == "mask" else None)

    def _sample(self, indices: np.ndarray, mask: np.ndarray) -> Sample:
        return Sample(indices, mask if self.policy == "mask" else None)

    def _duration(self, video: Video) -> float:
        """Seconds from the first frame to the end of the last, which is taken to last as long as the mean of them."""
        if len(video) == 1:
            return 1 / self.fps if self.fps else 0.0
        return float(video.times[-1] - video.times[0]) * len(video) / (len(video) - 1)


@dataclass(frozen=True, kw_only=True)
class ClipSampler(_Clips):
    """Chooses the frames of one clip of a video.

    Args:
        frames: frames of the clip.
        stride: distance in frames between two of them.
        fps: in place of the stride: frames of the clip for a second of the video, whatever its own rate. Each is the
            frame on show at its moment, so that clips of videos with a variable rate move at the right speed.
        where: "random", as the original code trains: each start from which the clip ends within the video is equally
            likely, drawn from torch's global generator; a shorter video starts at its first frame. "centre": the one
            test clip of `clip_offsets`. "uniform": no clip but frames from all over the video, as TSN's: its length is
            cut into as many equal parts as there are `frames`, and the middle frame of each is taken, number
            (2 i + 1) length // (2 frames); stride and fps do not matter.
        policy: what stands where a video is over, see `clip_indices`. "uniform" shows the frames of a short video
            several times each and in their order, but under "error"; "mask" then leaves out the repetitions.

    Raises:
        ValueError: on numbers or names that cannot work.
    """

    where: Where = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where not in get_args(Where):
            raise ValueError(f"where {self.where!r} is unknown; choose from {', '.join(get_args(Where))}")
        if self.where == "uniform" and self.fps is not None:
            raise ValueError(
                f"'uniform' spreads the frames over the whole video, at no rate; fps {self.fps} must be None"
            )

    def sample(self, video: Video) -> Sample:
        """The frames (frames,) of a clip, and which of them the video has.

        Raises:
            VideoError: under the policy "error", if the video is too short.
        """
        if self.where == "uniform":
            return self._spread(video, (2 * np.arange(self.frames) + 1) * len(video) // (2 * self.frames))
        start = self._random_start(video) if self.where == "random" else self._even_starts(video, 1)[0]
        return self._clip(video, start)


@dataclass(frozen=True, kw_only=True)
class Views(_Clips):
    """Which parts of a video a model sees in a test: `clips` times `crops` views, as the paper's "4x3".

    Args:
        clips: number of clips, spread evenly over the video as `clip_offsets` does; one is in its middle.
        crops: 1 for the centre of the picture; 3 for left, middle, right (of a high picture top, middle, bottom).
        spread: whether frames are spread over the whole video, in place of stride and fps: frame i of a clip k of K is
            (i + k / K) length // frames. VideoPrism takes its one clip so.
        frames: frames of a clip.
        stride: distance in frames between two of them.
        fps: in place of the stride, see `ClipSampler`.
        policy: what to do with a video that is shorter than a clip; see `clip_indices`.

    Raises:
        ValueError: on numbers that cannot work.
    """

    clips: int = 4
    crops: int = 3
    spread: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        view_crops(self.crops)
        clip_offsets(1, self.clips)
        if self.spread and self.fps is not None:
            raise ValueError(f"spread takes frames from the whole video, at no rate; fps {self.fps} must be None")

    def sample(self, video: Video) -> Sample:
        """The frames (clips, frames) of the clips, and which of them the video has.

        Raises:
            VideoError: under the policy "error", if the video is too short.
        """
        if self.spread:
            places = np.arange(self.frames) * self.clips + np.arange(self.clips)[:, None]
            return self._spread(video, places * len(video) // (self.frames * self.clips))
        return self._several(video, self._even_starts(video, self.clips))

    def cut(self, video: Video, preprocess: Preprocess) -> tuple[Tensor, ...]:
        """The views of a video, resized and cropped but not scaled: ((v, c, t, h, w) uint8 in [0, 255],).

        They come in the original's order: all clips of a crop, then the next crop. Under the policy "mask" their mask
        (v, t) comes second.

        Raises:
            VideoError: if the video cannot be read, or is too short under the policy "error".
        """
        frames, mask = self._resized(video, preprocess)
        views = torch.stack([preprocess.crop(frames, crop) for crop in view_crops(self.crops)])
        views = rearrange(views, "crop clip t h w c -> (crop clip) c t h w").contiguous()
        return (views,) if mask is None else (views, mask.repeat(self.crops, 1))

    def read(self, source: Source, preprocess: Preprocess, gray: bool = False) -> Iterator[tuple[Tensor, ...]]:
        """The views of a file one after the other in the same order, for a model's call.

        Each is ((1, c, t, h, w) as `preprocess` scales it,), under the policy "mask" with its mask (1, t) second.

        Raises:
            VideoError: if the file cannot be read, or is too short under the policy "error".
        """
        with VideoReader(source, gray=gray) as video:
            frames, mask = self._resized(video, preprocess)
        for crop in view_crops(self.crops):
            for number, clip in enumerate(frames):
                view = preprocess(clip, crop=crop)[None]
                yield (view,) if mask is None else (view, mask[number, None])

    def _resized(self, video: Video, preprocess: Preprocess) -> tuple[np.ndarray, Tensor | None]:
        """Frames (clips, t, h, w, c) uint8, and their mask (clips, t)."""
        indices, mask = self.sample(video)
        frames = video.read(indices.ravel(), change=preprocess.resize)
        frames = rearrange(frames, "(clip t) h w c -> clip t h w c", clip=self.clips)
        return frames, None if mask is None else torch.from_numpy(mask)


@dataclass(frozen=True, kw_only=True)
class Windows(_Clips):
    """Sliding windows: clips at equal distances, from the first frame of a video to its end.

    The video is first sampled at the stride or the rate. Window k then has `frames` sampled frames from number k * hop
    on, so that overlapping windows share their frames. The last window is the first one that holds the last sampled
    frame, or the last one that starts within the video, if windows are further apart than their length.

    Args:
        frames: frames of a window.
        stride: distance in frames between two of them.
        fps: in place of the stride, see `ClipSampler`.
        hop: distance between the starts of two windows, in sampled frames; None for `frames`, without overlap.
        policy: what stands where the last window goes past the end of the video, see `clip_indices`. Under "error" that
            window is left out, and a video shorter than one window is refused.

    Raises:
        ValueError: on numbers that cannot work.
    """

    hop: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hop is not None and self.hop < 1:
            raise ValueError(f"hop {self.hop} is not positive; give the distance of two windows in sampled frames")

    def sample(self, video: Video) -> Sample:
        """The frames (windows, frames) of the windows, and which of them the video has.

        Raises:
            VideoError: under the policy "error", if the video is shorter than a window.
        """
        hop = self.hop or self.frames
        if self.fps is None:
            sampled, step = -(-len(video) // self.stride), float(self.stride)
        else:
            sampled, step = max(1, ceil((self._duration(video) - _SLACK) * self.fps)), 1 / self.fps
        past = max(0, sampled - self.frames)
        windows = 1 + (past // hop if self.policy == "error" else -(-past // hop))
        windows = min(windows, -(-sampled // hop))  # those further apart than their length may miss the end
        return self._several(video, [number * hop * step for number in range(windows)])
