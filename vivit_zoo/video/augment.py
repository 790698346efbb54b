"""Random changes of training clips, the same on all frames: scale, crop, flip, and RandAugment or colours.

All random values are drawn from torch's global generator, so that its seed determines them. They are drawn once for a
clip and passed to torchvision's v2 functions, which take the frames as a batch, so that all frames change alike.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from vivit_zoo.video.colours import colour_jitter, uniform
from vivit_zoo.video.crops import Crop
from vivit_zoo.video.preprocess import Preprocess

__all__ = ["RAND_AUGMENT", "Augment", "colour_jitter", "mirrored_classes", "rand_augment"]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """A clip and its label for training: uint8 (t, c, h, w) in [0, 255], 1 or 3 channels -> uint8 (c, t, h', w').

    The steps are the original's, in its order: height and width scaled by independent random factors, a random crop, a
    mirror image, and then RandAugment or, without it, colours. The defaults are the paper's for Kinetics (Table 7).

    Args:
        size: of the crop, (h, w) or one number for a square, in pixels.
        short_side: of the input frames, in pixels, to which `preprocess.resize` brings them; None for 256 per 224
            of the crop.
        scale_jitter: range of the two factors; (1, 1) for none. A side never becomes shorter than the crop.
        flip: probability of the mirror image.
        mirror: what a mirror image shows, for classes that have a direction: class -> the class to label it with, or
            None for a class whose clips are never flipped. See `mirrored_classes`. For labels by head, head -> such a
            mapping. The original flips all classes alike, also Something-Something's "from left to right".
        colour: probability of `colour_jitter`.
        gray: probability of dropping the colours.
        rand_augment_layers: operations of `rand_augment` one after the other; any take the place of the colours.
        rand_augment_magnitude: their strength; see there.
        exact: in `from_video`, whether frames are converted to RGB, resized to `short_side` as for testing, and then
            scaled and cropped, in separate steps as the original does. Otherwise the decoder's converter does it in one
            step, in less time (`vivit_zoo.video.converter`); docs/performance.md has time and difference.

    Raises:
        ValueError: on numbers that cannot work.
    """

    size: int | tuple[int, int] = 224
    short_side: int | None = None
    scale_jitter: tuple[float, float] = (0.9, 1.33)
    flip: float = 0.5
    mirror: Mapping[Any, Any] = field(default_factory=dict)
    colour: float = 0.8
    gray: float = 0.1
    rand_augment_layers: int = 0
    rand_augment_magnitude: float = 0.0
    exact: bool = field(default=False, metadata={"before": True})

    def __post_init__(self) -> None:
        if self.size != 224 or self.short_side is None:  # a run replaces this default by the size of its model
            _ = self.preprocess  # refuses wrong sizes
        low, high = self.scale_jitter
        if not 0 < low <= high:
            raise ValueError(
                f"scale_jitter {self.scale_jitter} must be two rising positive factors, such as (0.9, 1.33)"
            )
        for name in ("flip", "colour", "gray"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is a probability, from 0 to 1")
        if self.rand_augment_layers < 0 or self.rand_augment_magnitude < 0:
            raise ValueError(
                f"rand_augment_layers {self.rand_augment_layers} and rand_augment_magnitude "
                f"{self.rand_augment_magnitude} must not be negative; the paper's are 2 and 15, or 2 and 20"
            )

    @property
    def preprocess(self) -> Preprocess:
        """The plain resizing and cropping to the same size, as for testing."""
        return Preprocess(self.size, self.short_side)

    def __call__(self, clip: Tensor, label: Any = None) -> tuple[Tensor, Any]:
        """A clip (t, c, h, w) and its label -> the augmented clip (c, t, h', w') and its label.

        Args:
            clip: uint8, no side shorter than the crop.
            label: a class, a tuple of classes, or a mapping of head -> class; only `mirror` uses it.

        Raises:
            TypeError, ValueError: if the clip is something else.
        """
        _check(clip, self.preprocess.crop_size)
        return self._flip_and_colour(self._scaled_crop(clip), label)

    def from_video(self, video: Any, indices: Sequence[int] | np.ndarray, label: Any = None) -> tuple[Tensor, Any]:
        """Frames of an open video and its label -> the augmented clip (c, t, h', w') and its label.

        The frames are resized by `preprocess.resize` and augmented as in a call, with the same random values. Unless
        `exact`, both resizings and the crop are one step of the decoder's converter, where the video has one.

        Args:
            video: a `VideoReader`, or what is read like one.
            indices: numbers of the frames.
            label: as of a call.

        Raises:
            VideoError: if a frame cannot be decoded.
        """
        return self.clips_of(video, [np.asarray(indices)], [torch.get_rng_state()], label)[0]

    def clips_of(
        self, video: Any, indices: Sequence[np.ndarray], states: Sequence[Tensor], label: Any = None
    ) -> list[tuple[Tensor, Any]]:
        """Several clips of an open video, of which no frame is decoded twice; each as `from_video`.

        Args:
            video: as of `from_video`.
            indices: numbers of the frames of each clip.
            states: of torch's global generator, from which the random values of each clip are drawn.
            label: as of a call.

        Raises:
            VideoError: if a frame cannot be decoded.
        """
        clips = []
        if self.exact or not getattr(video, "can_crop", False):
            frames = torch.from_numpy(video.read(np.concatenate(indices), change=self.preprocess.resize))
            for clip, state in zip(frames.split(list(map(len, indices))), states, strict=True):
                torch.set_rng_state(state)
                clips.append(self(rearrange(clip, "t h w c -> t c h w"), label))
            return clips
        after = list(states)

        def choose(number: int, height: int, width: int) -> Crop:
            torch.set_rng_state(after[number])
            crop = self._draw_crop(*self.preprocess.resized_shape(height, width))
            after[number] = torch.get_rng_state()
            return crop

        crops = video.read_crops([(one, partial(choose, number)) for number, one in enumerate(indices)])
        for crop, state in zip(crops, after, strict=True):
            torch.set_rng_state(state)
            clips.append(self._flip_and_colour(torch.from_numpy(crop), label))
        return clips

    def _draw_crop(self, height: int, width: int) -> Crop:
        """A random crop of frames scaled by two random factors."""
        size = self.preprocess.crop_size
        scaled = [
            max(least, int(side * uniform(*self.scale_jitter)))
            for side, least in zip((height, width), size, strict=True)
        ]
        corner = [int(torch.randint(have - want + 1, ())) for have, want in zip(scaled, size, strict=True)]
        return Crop((scaled[0], scaled[1]), (corner[0], corner[1]), size)

    def _scaled_crop(self, clip: Tensor) -> Tensor:
        """(t, c, h, w) -> (c, t, h', w'), a contiguous copy."""
        crop = self._draw_crop(*clip.shape[-2:])
        clip = F.resize(clip, list(crop.scaled), F.InterpolationMode.BILINEAR, antialias=False)
        clip = F.crop(clip, *crop.corner, *crop.size)
        return rearrange(clip, "t c h w -> c t h w").clone(memory_format=torch.contiguous_format)

    def _flip_and_colour(self, clip: Tensor, label: Any) -> tuple[Tensor, Any]:
        """(c, t, h, w), contiguous -> same; the clip may be overwritten.

        What can be is done in place and a few frames at a time: to allocate another clip takes longer than to compute.
        """
        mirrored, flips = _mirror_label(label, self.mirror)
        if torch.rand(()) < self.flip and flips:
            for part in clip.flatten(0, 1).split(8):
                part.copy_(part.flip(-1))
            label = mirrored
        clip = rearrange(clip, "c t h w -> t c h w")
        if self.rand_augment_layers:
            clip = rand_augment(clip, self.rand_augment_layers, self.rand_augment_magnitude)
        else:
            if torch.rand(()) < self.colour:
                clip = colour_jitter(clip, overwrite=True)
            if torch.rand(()) < self.gray:
                for frame in clip:
                    frame.copy_(F.rgb_to_grayscale(frame, len(frame)))
        return rearrange(clip, "t c h w -> c t h w").contiguous(), label


def mirrored_classes(names: Sequence[str]) -> dict[int, int | None]:
    """Which classes change in the mirror, by the words left, right, clockwise and counterclockwise in their names.

    "Pushing something from left to right" and "... from right to left" become each other; a class such as "swiping
    left" without a class "swiping right" becomes None: it must not be flipped. The result is for `Augment(mirror=...)`.

    Args:
        names: of the classes, in their order, such as a data set's `classes`.
    """
    spelt_alike = [
        re.sub(r"\b(counter|anti)[ -]?clockwise\b", "counterclockwise", name.lower().replace("_", " "))
        for name in names
    ]
    other = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
    turned = [re.sub(rf"\b({'|'.join(other)})\b", lambda word: other[word[0]], name) for name in spelt_alike]
    number = {name: i for i, name in enumerate(spelt_alike)}
    return {i: number.get(turned[i]) for i, name in enumerate(spelt_alike) if turned[i] != name}


def _mirror_label(label: Any, mirror: Mapping[Any, Any]) -> tuple[Any, bool]:
    """What the mirror image of a label's clip shows, and whether that is a class at all."""
    if isinstance(label, Mapping):
        heads = {head: mirror.get(head, {}).get(one, one) for head, one in label.items()}
        return heads, None not in heads.values()
    if isinstance(label, tuple):  # several classes
        images = tuple(mirror.get(one, one) for one in label)
        return images, None not in images
    image = mirror.get(label, label)
    return image, image is not None or label is None


def _check(clip: Tensor, size: tuple[int, int]) -> None:
    shape = tuple(clip.shape)
    if clip.dtype != torch.uint8 or clip.ndim != 4 or shape[1] not in (1, 3) or not shape[0]:
        raise TypeError(f"a clip is uint8 with the axes (t, c, h, w) and 1 or 3 channels; got {clip.dtype} {shape}")
    if shape[2] < size[0] or shape[3] < size[1]:
        raise ValueError(
            f"frames of {shape[2]}x{shape[3]} are smaller than the crop of {size[0]}x{size[1]}; "
            "`preprocess.resize` them first"
        )


def rand_augment(clip: Tensor, layers: int, magnitude: float) -> Tensor:
    """Some operations of `RAND_AUGMENT` or none, equally likely, one after the other: uint8 (t, c, h, w) -> same.

    The original's list: what changes pixels but moves none, so that all frames stay aligned. Levels are those of the
    TensorFlow reference, made for magnitudes of 0 to 10; the paper uses 15 and 20 (Table 7). Beyond 10 the enhancing
    operations go on growing (to factors 2.8 and 3.7), Cutout's square too (120 and 160 pixels wide), SolarizeAdd adds
    165 and 220, Solarize turns only pure white, and Posterize becomes weaker: it keeps 6 bits at 15, all 8 from 20 on.

    In two places the original does not do what it sets out to do, and this does: its Contrast blends with white instead
    of the mean grey, and its Cutout fills with black instead of grey 128.

    Args:
        clip: of 1 or 3 channels; Color does nothing to one.
        layers: number of operations.
        magnitude: of each, not negative.
    """
    operations = [*RAND_AUGMENT.values(), None]
    for _ in range(layers):
        operation = operations[int(torch.randint(len(operations), ()))]
        if operation is not None:
            clip = operation(clip, magnitude / 10)
    return clip


def _as_one_image(change: Callable[..., Tensor], clip: Tensor, *args: Any) -> Tensor:
    """Apply an image operation that measures the image, so that it measures the clip: all frames in one column."""
    frames = len(clip)
    tall = change(rearrange(clip, "t c h w -> c (t h) w"), *args)
    return rearrange(tall, "c (t h) w -> t c h w", t=frames)


def _cutout(clip: Tensor, level: float) -> Tensor:
    """A grey square, at the same random place of all frames; it may reach over the border."""
    half = int(40 * level)
    y, x = (int(torch.randint(side, ())) for side in clip.shape[-2:])
    clip = clip.clone()
    clip[..., max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 128
    return clip


def _solarize_add(clip: Tensor, level: float) -> Tensor:
    """Dark pixels become lighter."""
    return torch.where(clip < 128, (clip.short() + int(110 * level)).clamp(max=255).byte(), clip)


def _enhance(level: float) -> float:
    """The factor of PIL's enhancing operations: 1 changes nothing."""
    return 1.8 * level + 0.1


RAND_AUGMENT: dict[str, Callable[[Tensor, float], Tensor]] = {
    "AutoContrast": lambda clip, level: _as_one_image(F.autocontrast, clip),
    "Equalize": lambda clip, level: _as_one_image(F.equalize, clip),
    "Invert": lambda clip, level: F.invert(clip),
    "Posterize": lambda clip, level: F.posterize(clip, min(int(4 * level), 8)),
    "Solarize": lambda clip, level: F.solarize(clip, min(int(256 * level), 255)),
    "Color": lambda clip, level: F.adjust_saturation(clip, _enhance(level)),
    "Contrast": lambda clip, level: _as_one_image(F.adjust_contrast, clip, _enhance(level)),
    "Brightness": lambda clip, level: F.adjust_brightness(clip, _enhance(level)),
    "Sharpness": lambda clip, level: F.adjust_sharpness(clip, _enhance(level)),
    "Cutout": _cutout,
    "SolarizeAdd": _solarize_add,
}
"""Name -> operation on a clip uint8 (t, c, h, w) at a level, which is the magnitude as a share of 10."""
