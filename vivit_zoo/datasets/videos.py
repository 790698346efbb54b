"""Videos of a catalogue as data sets: random clips to train on, all views of a video to test on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
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


class VideoClips(Dataset[tuple[Any, ...]]):
    """One clip of each video, to train on: (video (c, t, h, w) uint8, label).

    Labels are class numbers, or by head; for several labels a video (classes,) float32 of 0 and 1; for scores
    (targets,) float32. Under the policy "mask" of the sampler an item has the clip's mask (t,) bool
    third, see `Sample`.

    Which clip, and what the transform makes of it, is drawn anew for every item, from torch's global generator alone. A
    file is opened when its item is asked for; only the clip's frames are decoded, each once.

    Args:
        catalogue: the videos.
        sampler: which frames of a video make a clip.
        transform: (clip (t, c, h, w) uint8, label) -> (video (c, t, h, w), label); None leaves clip and label alone. If
            it has a method `clips_of`, as `Augment` has, and there is no `resize`, that method reads the frames.
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

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self._clips(index, [None])[0]

    def copies(self, index: int, seeds: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return the item with each of these seeds of torch's global generator: several random clips of one video.

        They equal `self[index]` after `torch.manual_seed(seed)`, but the video is opened once and no frame is decoded
        twice. The state of the generator afterwards is that of the last item.
        """
        return self._clips(index, seeds)

    def labels(self) -> list[Label]:
        """Return the labels of all videos, as the catalogue has them."""
        return [entry.label for entry in self.catalogue.entries]

    def _clips(self, index: int, seeds: Sequence[int | None]) -> list[tuple[Any, ...]]:
        """An item for each seed; None goes on with the generator as it is."""
        source, label = self.catalogue.entries[index]
        samples, states = [], []
        with _open(source, self.sampler.frames, self.reading) as video:
            for seed in seeds:
                if seed is not None:
                    torch.default_generator.manual_seed(seed)
                samples.append(self.sampler.sample(video))
                states.append(torch.get_rng_state())
            clips = self._read(video, [indices for indices, _ in samples], states, label)
        items = []
        for (clip, target), (_, mask) in zip(clips, samples, strict=True):
            item = clip, target_of(target, self.catalogue)
            items.append(item if mask is None else (*item, torch.from_numpy(mask)))
        return items

    def _read(
        self, video: Reader, indices: Sequence[np.ndarray], states: Sequence[Tensor], label: Label
    ) -> list[tuple[Tensor, Label]]:
        """The clips of these frames, transformed, each with the state of the generator after its frames were drawn."""
        clips_of = getattr(self.transform, "clips_of", None)
        if self.resize is None and clips_of is not None:
            return clips_of(video, indices, states, label)
        frames = torch.from_numpy(video.read(np.concatenate(indices), change=self.resize))
        clips = []
        for clip, state in zip(frames.split(list(map(len, indices))), states, strict=True):
            torch.set_rng_state(state)
            if self.transform is None:
                clips.append((rearrange(clip, "t h w c -> c t h w").contiguous(), label))
            else:
                clips.append(self.transform(rearrange(clip, "t h w c -> t c h w").contiguous(), label))
        return clips


class VideoViews(Dataset[tuple[Any, ...]]):
    """All views of each video, to test on: ((v, c, t, h, w) uint8, label), with labels as in `VideoClips`.

    Under the policy "mask" of the views an item has their mask (v, t) bool third.

    The order is the original's: all clips of the first crop, then of the next. Nothing is random. With `normalise` on
    the device the views are those that `classify` sees.

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

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        source, label = self.catalogue.entries[index]
        with _open(source, self.views.frames, self.reading) as video:
            views, *mask = self.views.cut(video, self.preprocess)
            return views, target_of(label, self.catalogue), *mask


def target_of(label: Label, catalogue: Catalogue) -> Any:
    """Return the label of an item as a data set gives it, which all have the same shape and can be stacked.

    That is a class number, or a dictionary of them by head; for several labels a video (classes,) float32 of 0 and 1;
    for scores (targets,) float32.
    """
    if catalogue.task == "multi_label":
        target = torch.zeros(len(catalogue.classes))
        target[list(label)] = 1.0  # type: ignore[arg-type]
        return target
    return torch.tensor(label, dtype=torch.float32).reshape(-1) if catalogue.task == "regression" else label


def _open(source: Place, frames: int, reading: dict[str, Any]) -> Reader:
    video = source.open(**reading)
    if len(video) == 1 < frames:
        video.close()
        raise VideoError(f"{source.name}: {ONE_FRAME}")
    return video


# Still pictures that ended up among videos; repeated, they would be clips without any motion.
ONE_FRAME = "there is only one frame in it, a picture and no video"
