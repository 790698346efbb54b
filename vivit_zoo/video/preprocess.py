"""Clips as a model takes them: preprocessing of decoded frames, as the original code and as transformers do it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

__all__ = ["Filter", "Layout", "Preprocess", "Style", "normalise"]

Style = Literal["original", "transformers", "antialiased"]
Filter = Literal["bilinear", "bicubic"]
Layout = Literal["t h w c", "t c h w", "c t h w"]


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop and scale frames: any form of clip -> (c, t, h, w), or of a batch -> (b, c, t, h, w), float32.

    - "original": as ViViT was trained and its checkpoints expect. Short side to 256, bilinear (without antialiasing,
      fractions cut off), crop of 224x224, x / 127.5 - 1: values in [-1, 1].
    - "transformers": equal to the default `VivitImageProcessor` of transformers, for those who must match it. Its
      resizing is antialiased, a crop larger than the frame is filled up with black, and it scales twice, to [-1, 1] and
      then by mean and deviation 0.5: values in [-3, 1]. Not what the checkpoints were trained on.
    - "antialiased": as the video processors of transformers that torchvision computes, for the pretrained video models
      whose `processing` says so. Antialiased from bytes to bytes, values in [-1, 1].

    Args:
        size: of the crop, (h, w) or one number for a square, in pixels.
        short_side: of the frame before the crop, in pixels; None for 256 per 224 of the crop's short side. For a crop
            that is not square, the original's frames are resized so that they cover 256/224 of both its sides.
        style: "original", "transformers" or "antialiased".
        filter: of resizing in the style "antialiased", "bilinear" or "bicubic".
        stretch: whether frames are resized to `size` whatever their shape; in the style "antialiased".

    Raises:
        ValueError: on an unknown style or filter, sizes that are not positive, or a short side below the original's
            crop.
    """

    size: int | tuple[int, int] = 224
    short_side: int | None = None
    style: Style = "original"
    filter: Filter = "bilinear"
    stretch: bool = False

    def __post_init__(self) -> None:
        if self.filter not in get_args(Filter):
            raise ValueError(f"filter {self.filter!r} is unknown; choose from {', '.join(get_args(Filter))}")
        if self.style != "antialiased" and (self.stretch or self.filter != "bilinear"):
            raise ValueError(f"the style {self.style!r} has no other filter and no stretch; use 'antialiased'")
        if self.style not in get_args(Style):
            raise ValueError(f"style {self.style!r} is unknown; choose from {', '.join(get_args(Style))}")
        if min(*self.crop_size, self.resized_side) < 1:
            raise ValueError(f"size {self.size} and short_side {self.short_side} must be positive")
        if self.style == "original" and self.resized_side < min(self.crop_size):
            raise ValueError(
                f"frames with a short side of {self.resized_side} are smaller than the crop of {self.size}"
            )

    @property
    def crop_size(self) -> tuple[int, int]:
        """(h, w) of the result."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    @property
    def resized_side(self) -> int:
        """The short side of a frame before the crop."""
        return min(self.crop_size) * 256 // 224 if self.short_side is None else self.short_side

    def __call__(
        self,
        video: Any,
        value_range: tuple[float, float] | None = None,
        layout: Layout = "t h w c",
        crop: int | None = None,
    ) -> Tensor:
        """Preprocess a clip or a batch of clips.

        Args:
            video: a clip: an array or tensor with the axes of `layout`, or a list of frames (arrays, tensors or PIL
                images). A batch: one more axis in front, or a list of clips, which may differ in size. 1 or 3 channels.
            value_range: the values of black and white. uint8 is always (0, 255); floating-point frames have to say
                theirs, such as (0, 1) or (-1, 1). "transformers" rounds them to bytes, as PIL does need.
            layout: order of the axes; of single frames, the same without t. PIL images know theirs.
            crop: None for the centre; or 0, 1, 2 for left, middle, right of a wide frame, and top, middle, bottom of a
                high one. As in the original, the centre's odd pixel is rounded down and the middle's up.

        Raises:
            ValueError, TypeError: if the input is anything else; the message says what was given and what to do.
        """
        clips, batched = _to_clips(video, value_range, layout)
        done = [self._scale(self.crop(torch.stack([self._resize(frame) for frame in clip]), crop)) for clip in clips]
        result = rearrange(done, "b t h w c -> b c t h w").contiguous()
        return result if batched else result[0]

    def views(self, video: Any, crops: int = 3, **options: Any) -> Tensor:
        """One crop, the centre, or the three crops: as `__call__`, -> (crops, c, t, h, w) or (b, crops, c, t, h, w).

        Raises:
            ValueError: if crops is neither 1 nor 3.
        """
        return torch.stack([self(video, crop=crop, **options) for crop in view_crops(crops)], dim=-5)

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """Only the resizing, of a uint8 frame (h, w, c) -> (h', w', c), to keep frames small while they are decoded.

        Resizing a second time changes nothing, so that the result can be preprocessed like any other frame.
        """
        return self._resize(torch.from_numpy(np.array(frame))).numpy()

    def crop(self, clip: Tensor | np.ndarray, crop: int | None = None) -> Tensor:
        """Only the crop, of a resized clip (t, h, w, c) -> (t, h', w', c), a tensor of the same values.

        With `resize` before and `normalise` after, it is the whole preprocessing of the style "original".

        Args:
            clip: frames as `resize` gives them; any axes may stand in front of h, w, c.
            crop: as of a call.

        Raises:
            ValueError: on another crop than None, 0, 1 and 2.
        """
        if crop not in (None, 0, 1, 2):
            raise ValueError(f"crop {crop!r} is unknown; None is the centre, 0, 1 and 2 are the three crops of a view")
        return _crop(torch.as_tensor(clip), self.crop_size, crop)

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of a frame after the resizing, before the crop."""
        if self.stretch:
            return self.crop_size
        if self.style != "original":
            short, long = sorted((height, width))
            other = int(self.resized_side * long / short)
            return (self.resized_side, other) if height <= width else (other, self.resized_side)
        least_h, least_w = (side * self.resized_side // min(self.crop_size) for side in self.crop_size)
        return max(least_h, height * least_w // width), max(least_w, width * least_h // height)

    def _resize(self, frame: Tensor) -> Tensor:
        size = self.resized_shape(*frame.shape[:2])
        if self.style == "original":
            return _resize_bilinear(frame, size)
        if self.stretch or self.style == "antialiased":
            return _resize_bytes(frame, size, self.filter)
        return _resize_antialiased(frame, size)

    def _scale(self, pixels: Tensor) -> Tensor:
        """From [0, 255] to what the style's models take, float32."""
        if self.style != "transformers":
            return pixels.float() / 127.5 - 1
        # In this order and these precisions, which reproduces numpy's results in transformers to the last bit.
        return ((pixels.double() * (1 / 127.5)).float() - 1 - 0.5) / 0.5


def normalise(video: Tensor) -> Tensor:
    """Pixels as models take them: uint8 in [0, 255] -> float32 in [-1, 1]; floating-point videos are left as they are.

    Call it on the device, after the transfer: uint8 has a quarter of the bytes. Any axes.

    Raises:
        TypeError: on other integers.
    """
    if video.is_floating_point():
        return video
    if video.dtype != torch.uint8:
        raise TypeError(f"video has dtype {video.dtype}; it is uint8 in [0, 255] or floating-point in [-1, 1]")
    return video.float() / 127.5 - 1


def view_crops(crops: int) -> Sequence[int | None]:
    """The values of `Preprocess`'s argument `crop` for one or three crops.

    Raises:
        ValueError: on another number.
    """
    if crops not in (1, 3):
        raise ValueError(f"{crops} crops cannot be taken; views have 1 (the centre) or 3")
    return (None,) if crops == 1 else (0, 1, 2)


def _resize_bilinear(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear without antialiasing, pixels' centres aligned; bytes lose their fractions, as a cast does."""
    if tuple(frame.shape[:2]) == size:
        return frame
    (top, bottom, down), (left, right, across) = map(_neighbours, frame.shape[:2], size)

    def along_row(rows: Tensor) -> Tensor:
        rows = frame[rows.to(frame.device)].float()
        first = rows[:, left]
        # a + (b - a) w keeps equal neighbours exactly equal; (1 - w) a + w b can fall short and lose a whole step.
        return first + (rows[:, right] - first) * across[:, None].to(frame.device)

    above = along_row(top)
    return (above + (along_row(bottom) - above) * down[:, None, None].to(frame.device)).to(frame.dtype)


def _neighbours(old: int, new: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `new` places along a side: the two old places around it, and how far it is from the first."""
    place = ((torch.arange(new) + 0.5) * (old / new) - 0.5).clamp(min=0)
    first = place.floor().long()
    return first, (first + 1).clamp(max=old - 1), place - first


def _resize_antialiased(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear as PIL does it, from bytes to bytes."""
    from PIL import Image

    height, width = size
    image = Image.fromarray(frame.round().byte().cpu().squeeze(-1).numpy())
    resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized.reshape(height, width, -1)).to(frame.device)


def _resize_bytes(frame: Tensor, size: tuple[int, int], filter: Filter) -> Tensor:
    """Antialiased as torchvision does it, from bytes to bytes."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    frame = rearrange(frame.round().byte() if frame.is_floating_point() else frame, "h w c -> c h w")
    return rearrange(resize(frame, list(size), InterpolationMode(filter), antialias=True), "c h w -> h w c")


def _crop(video: Tensor, size: tuple[int, int], crop: int | None) -> Tensor:
    """The crop's pixels of frames (..., h, w, c); 0 where there are none."""
    height, width = video.shape[-3:-1]
    spare_h, spare_w = height - size[0], width - size[1]
    if crop is None:
        top, left = spare_h // 2, spare_w // 2
    else:
        top, left = -(-spare_h // 2), -(-spare_w // 2)
        if height > width:
            top = (0, top, spare_h)[crop]
        else:
            left = (0, left, spare_w)[crop]
    # Negative padding cuts.
    return F.pad(video, (0, 0, -left, size[1] + left - width, -top, size[0] + top - height))


def _to_clips(video: Any, value_range: tuple[float, float] | None, layout: str) -> tuple[list[list[Tensor]], bool]:
    """Clips of frames (h, w, c), uint8 or float32 in [0, 255], and whether they were a batch."""
    if layout not in get_args(Layout):
        raise ValueError(f"layout {layout!r} is unknown; choose from {', '.join(map(repr, get_args(Layout)))}")
    if isinstance(video, str | Path):
        raise TypeError(f"{str(video)!r} is a path; decode the file first, such as with vivit_zoo.video.read_video")
    if isinstance(video, np.ndarray | Tensor):
        if video.ndim not in (4, 5):
            raise ValueError(
                f"a clip has the axes ({layout}) and a batch has (b {layout}); got shape {tuple(video.shape)}"
                + ("; a single frame is a clip of one: pass [frame]" if video.ndim == 3 else "")
            )
        batched = video.ndim == 5
        clips: list[Any] = list(video) if batched else [video]
    elif isinstance(video, list | tuple):
        batched = any(isinstance(item, list | tuple) or getattr(item, "ndim", 0) >= 4 for item in video)
        clips = list(video) if batched else [video]
    else:
        raise TypeError(f"got a {type(video).__name__}; frames come as an array, a tensor, or a list of frames")
    if not clips:
        raise ValueError("the batch is empty")

    result = []
    for number, clip in enumerate(clips):
        of_clip = f" of clip {number}" if batched else ""
        if isinstance(clip, np.ndarray | Tensor):
            if clip.ndim != 4:
                raise ValueError(f"clip {number} of the batch has shape {tuple(clip.shape)} instead of ({layout})")
            frames = list(rearrange(clip, f"{layout} -> t h w c"))
            frame_layout, given = "h w c", layout
        elif isinstance(clip, list | tuple):
            frames, frame_layout = list(clip), layout.replace("t ", "")
            given = frame_layout
        else:
            raise TypeError(f"clip {number} of the batch is a {type(clip).__name__}; the others are clips")
        if not frames:
            raise ValueError(f"the clip has no frames{of_clip}")
        result.append(
            [_to_frame(f, f"frame {i}{of_clip}", value_range, frame_layout, given) for i, f in enumerate(frames)]
        )
        for i, frame in enumerate(result[-1]):
            if frame.shape != result[-1][0].shape:
                raise ValueError(
                    f"the frames{of_clip} differ: frame {i} is {_size(frame)}, frame 0 is {_size(result[-1][0])}; "
                    "resize the frames of a clip to one size first"
                )
    for number, frames in enumerate(result):
        if len(frames) != len(result[0]) or frames[0].shape[2] != result[0][0].shape[2]:
            raise ValueError(
                f"clip {number} has {len(frames)} frames of {frames[0].shape[2]} channels, clip 0 has {len(result[0])} "
                f"of {result[0][0].shape[2]}; a batch needs equal numbers: sample them (vivit_zoo.video.clip_indices) "
                "or preprocess the clips one by one"
            )
    return result, batched


def _to_frame(frame: Any, name: str, value_range: tuple[float, float] | None, layout: str, given_layout: str) -> Tensor:
    """One frame as (h, w, c), uint8 or float32 in [0, 255]."""
    if isinstance(frame, np.ndarray | Tensor):
        if frame.ndim == 2:
            raise ValueError(f"{name} has no channels, only shape {tuple(frame.shape)}; add an axis: frame[..., None]")
        if frame.ndim != 3:
            raise ValueError(f"{name} has shape {tuple(frame.shape)}; a frame has the axes ({layout})")
        # einops keeps numpy arrays, so that the copy is made after it: it makes any strides and flags harmless.
        frame = rearrange(frame, f"{layout} -> h w c")
        pixels = frame.detach() if isinstance(frame, Tensor) else _copy(frame, name)
    elif hasattr(frame, "convert") and hasattr(frame, "getbands"):
        if "A" in frame.getbands():
            raise ValueError(f"{name} has the PIL mode {frame.mode}, with transparency; use image.convert('RGB')")
        pixels = _copy(np.asarray(frame.convert("RGB")), name)
    else:
        raise TypeError(f"{name} is a {type(frame).__name__}; frames are arrays, tensors or PIL images")
    height, width, channels = pixels.shape
    if channels not in (1, 3):
        raise ValueError(
            f"{name} has {channels} channels, {width} columns and {height} rows in the layout {given_layout!r}; frames "
            "have 1 or 3 channels: give the order of the axes with layout="
            + " or ".join(map(repr, get_args(Layout)))
            + ", or drop what is no colour: frames[..., :3]"
        )
    if min(height, width) < 1:
        raise ValueError(f"{name} is empty: {_size(pixels)}")
    return _to_bytes_range(pixels, name, value_range)


def _copy(array: np.ndarray, name: str) -> Tensor:
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} has dtype {array.dtype}; {_DTYPES}")
    return torch.from_numpy(np.array(array))


_DTYPES = "pixels are uint8 in [0, 255], or floating-point with value_range=(black, white)"


def _to_bytes_range(pixels: Tensor, name: str, value_range: tuple[float, float] | None) -> Tensor:
    """uint8 as it is; floating-point from its stated range to float32 in [0, 255]."""
    if pixels.dtype == torch.uint8:
        if value_range is not None and tuple(value_range) != (0, 255):
            raise ValueError(
                f"{name} is uint8, so its range is (0, 255), not {tuple(value_range)}; leave value_range out"
            )
        return pixels
    if not pixels.is_floating_point():
        raise TypeError(f"{name} has dtype {pixels.dtype}; {_DTYPES}")
    low, high = pixels.min().item(), pixels.max().item()
    if value_range is None:
        raise ValueError(
            f"{name} is {pixels.dtype} with values from {low:g} to {high:g}, which does not say what black and white "
            "are; pass value_range=(0, 1), (0, 255) or (-1, 1)"
        )
    black, white = value_range
    if not black < white:
        raise ValueError(f"value_range {value_range} must rise from black to white")
    slack = 1e-3 * (white - black)  # a little more than float16 and resampling leave
    if not black - slack <= low <= high <= white + slack:
        raise ValueError(
            f"{name} has values from {low:g} to {high:g}, outside value_range {tuple(value_range)}; state the true "
            "range or clip the values"
        )
    return ((pixels.float() - black) * (255 / (white - black))).clamp(0, 255)


def _size(frame: Tensor) -> str:
    return f"{frame.shape[0]}x{frame.shape[1]} with {frame.shape[2]} channels"
