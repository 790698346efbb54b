"""Videos of a catalogue as data sets: random clips to train on, all views of a video to test on."""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from vivit_zoo.datasets.catalogue import Catalogue
from vivit_zoo.datasets.labels import Classes, Label
from vivit_zoo.datasets.sources import Place, Reader
from vivit_zoo.video.clips import ClipSampler, Views
from vivit_zoo.video.preprocess import Preprocess
from vivit_zoo.video.reader import Frame, VideoError

__all__ = ["VideoClips", "VideoViews"]


class VideoClips(Dataset[tuple[Tensor, Label]]):
    """One clip of each video, to train on: (video (c, t, h, w) uint8, label).

    Which clip, and what the transform makes of it, is drawn anew for every item, from torch's global generator alone. A
    file is opened when its item is asked for; only the clip's frames are decoded, each once.

    Args:
        catalogue: the videos.
        sampler: which frames of a video make a clip.
        transform: (clip (t, c, h, w) uint8, label) -> (video (c, t, h, w), label); None leaves clip and label alone.
        resize: applied to each frame (h, w, c) uint8 when it is decoded, such as `Preprocess.resize`, so that what is
            kept is small for any size of the video.
        gray: one channel, the luma, in place of three.
        **reading: more options of `VideoReader`; `threads` of the decoder is 1, for data sets are read in processes.

    Raises:
        VideoError: by an item whose video is broken, or too short for the sampler; the message names it.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        sampler: ClipSampler,
        transform: Callable[[Tensor, Label], tuple[Tensor, Label]] | None = None,
        *,
        resize: Callable[[Frame], Frame] | None = None,
        gray: bool = False,
        **reading: Any,
    ) -> None:
        self.catalogue, self.sampler, self.transform, self.resize = catalogue, sampler, transform, resize
        self.reading = {"gray": gray, "threads": 1} | reading

    @property
    def classes(self) -> Classes:
        """Names by class number, or a dictionary of them by head."""
        return self.catalogue.classes

    def __len__(self) -> int:
        return len(self.catalogue)

    def __getitem__(self, index: int) -> tuple[Tensor, Label]:
        source, label = self.catalogue.entries[index]
        with _open(source, self.sampler.frames, self.reading) as video:
            clip = torch.from_numpy(video.read(self.sampler.indices(video), change=self.resize))
        if self.transform is None:
            return rearrange(clip, "t h w c -> c t h w").contiguous(), label
        return self.transform(rearrange(clip, "t h w c -> t c h w").contiguous(), label)


class VideoViews(Dataset[tuple[Tensor, Label]]):
    """All views of each video, to test on: ((v, c, t, h, w) uint8, label), in the original's order.

    That is all clips of the first crop, then of the next. Nothing is random. With `normalise` on the device the views
    are those that `classify` sees.

    Args:
        catalogue: the videos.
        views: how many clips and crops, of which frames.
        preprocess: resizes each frame when it is decoded, and crops; of the style "original".
        gray: one channel, the luma, in place of three.
        **reading: more options of `VideoReader`, as of `VideoClips`.

    Raises:
        ValueError: on another style of preprocessing, whose scaling bytes cannot hold.
        VideoError: by an item whose video is broken, or too short for the views; the message names it.
    """

    def __init__(
        self, catalogue: Catalogue, views: Views, preprocess: Preprocess, *, gray: bool = False, **reading: Any
    ) -> None:
        if preprocess.style != "original":
            raise ValueError(f"preprocessing of the style {preprocess.style!r} is not x / 127.5 - 1; use 'original'")
        self.catalogue, self.views, self.preprocess = catalogue, views, preprocess
        self.reading = {"gray": gray, "threads": 1} | reading

    @property
    def classes(self) -> Classes:
        """Names by class number, or a dictionary of them by head."""
        return self.catalogue.classes

    def __len__(self) -> int:
        return len(self.catalogue)

    def __getitem__(self, index: int) -> tuple[Tensor, Label]:
        source, label = self.catalogue.entries[index]
        with _open(source, self.views.frames, self.reading) as video:
            return self.views.cut(video, self.preprocess), label


def _open(source: Place, frames: int, reading: dict[str, Any]) -> Reader:
    video = source.open(**reading)
    if len(video) == 1 < frames:
        video.close()
        raise VideoError(f"{source.name}: {ONE_FRAME}")
    return video


# Still pictures that ended up among videos; repeated, they would be clips without any motion.
ONE_FRAME = "there is only one frame in it, a picture and no video"
