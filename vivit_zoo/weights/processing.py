"""`Processing`: how a trained model takes videos; read from transformers' processor files and written to them.

A model that was trained here has the processing of its test; see `vivit_zoo.training.run`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from vivit_zoo.config import ViViTConfig

__all__ = [
    "Filter",
    "Processing",
    "is_processor",
    "own_processor",
    "processing_from_json",
    "processing_notes",
    "processing_to_json",
    "short_side",
]

Filter = Literal["bilinear", "bicubic"]
Policy = Literal["repeat_last", "wrap", "error", "mask"]
RESAMPLE: dict[Any, Filter] = {2: "bilinear", 3: "bicubic"}  # the numbers of PIL
SAID = ("image_mean", "do_normalize", "do_rescale", "do_resize", "size", "crop_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processing:
    """How a model takes videos.

    Args:
        short_side: of a frame before the crop, in pixels; None where frames are resized to the model's size whatever
            their shape.
        filter: of the resizing, "bilinear" or "bicubic".
        antialias: whether resizing is antialiased; else it is that of ViViT's original code, which is bilinear and has
            a crop.
        stride: distance of a clip's frames in the video; None where `fps` says it, or where the frames are spread
            evenly over the whole video.
        fps: in place of the stride, frames of a clip for each second of the video.
        views: clips of a video and crops of each whose outputs are averaged; 1 crop is the centre.
        policy: what to do with a video that is shorter than a clip, see `vivit_zoo.video.clip_indices`.
        mean, std: of each channel, of the pixels in [0, 1] that the original weights take. They are folded into ours,
            which take [-1, 1]; kept to write the weights back.

    Raises:
        ValueError: on any value that cannot work, with the values that can.
    """

    short_side: int | None
    filter: Filter = "bilinear"
    antialias: bool = True
    stride: int | None = None
    fps: float | None = None
    views: tuple[int, int] = (1, 1)
    policy: Policy = "repeat_last"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        for name in ("short_side", "stride"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and 0 < value < 1 << 20):
                raise ValueError(f"processing.{name} takes a positive whole number or None, got {value!r}")
        for name, known in {"filter": get_args(Filter), "policy": get_args(Policy), "antialias": (True, False)}.items():
            if (value := getattr(self, name)) not in known:
                choices = ", ".join(map(str, known))
                raise ValueError(f"processing.{name} {value!r} is unknown; choose from {choices}")
        if not self.antialias and (self.short_side is None or self.filter != "bilinear"):
            raise ValueError(
                f"processing without antialias is bilinear and needs a short_side, got {self.filter} and "
                f"{self.short_side}"
            )
        if self.fps is not None and (self.stride is not None or not _is_positive(self.fps)):
            raise ValueError(
                f"processing.fps takes a positive number in place of a stride, got {self.fps!r} and the stride "
                f"{self.stride}"
            )
        views: Any = self.views
        if not (isinstance(views, list | tuple) and len(views) == 2 and all(type(x) is int and x > 0 for x in views)):
            raise ValueError(f"processing.views takes two numbers, clips and crops, got {views!r}")
        if views[1] not in (1, 3):
            raise ValueError(f"processing.views takes 1 or 3 crops, got {views[1]}")
        object.__setattr__(self, "views", tuple(views))
        for name in ("mean", "std"):
            value = getattr(self, name)
            numbers = isinstance(value, list | tuple) and all(isinstance(x, int | float) for x in value)
            if not numbers or not value or (name == "std" and min(value) <= 0):
                raise ValueError(f"processing.{name} takes a number for each channel, got {value!r}")
            object.__setattr__(self, name, tuple(map(float, value)))
        if len(self.mean) != len(self.std):
            raise ValueError(f"processing.mean has {len(self.mean)} channels, processing.std {len(self.std)}")

    def for_sizes(self, old: tuple[int, int], new: tuple[int, int]) -> "Processing":
        """The same for a model of another (h, w): the crop keeps its share of the frame."""
        if self.short_side is None or old == new:
            return self
        return dataclasses.replace(self, short_side=max(1, round(self.short_side * min(new) / min(old))))


def is_processor(given: Mapping[str, Any]) -> bool:
    """Whether a JSON object says how a model takes images or videos."""
    return any(name in given for name in SAID)


def processing_from_json(given: Mapping[str, Any], default: Processing) -> Processing:
    """What transformers' preprocessor_config.json or video_preprocessor_config.json says; the rest as in `default`.

    Raises:
        ValueError, TypeError, AttributeError: on values that have no meaning here.
    """
    if given.get("offset"):
        raise ValueError("an offset of the pixels, which these models do not have")
    size = given.get("size", default.short_side)
    if isinstance(size, Mapping):
        size = size.get("shortest_edge")
    scale = given.get("rescale_factor", 1 / 255) * 255 if given.get("do_rescale", True) else 255
    if not scale > 0:
        raise ValueError(f"rescale_factor {given.get('rescale_factor')!r} is not positive")
    given_numbers = (given.get("image_mean"), given.get("image_std"))
    mean, std = (b if a is None else a for a, b in zip(given_numbers, (default.mean, default.std), strict=True))
    if not given.get("do_normalize", True):
        mean, std = 0.0, 1.0
    mean, std = ([x] * len(default.mean) if isinstance(x, int | float) else x for x in (mean, std))
    return dataclasses.replace(
        default,
        short_side=size,
        filter=RESAMPLE.get(given.get("resample"), default.filter),
        mean=tuple(x / scale for x in mean),
        std=tuple(x / scale for x in std),
    )


def processing_notes(given: Mapping[str, Any], processing: Processing, size: tuple[int, int]) -> list[str]:
    """What a processor's file of transformers says that a model of (h, w) does not follow here."""
    edges, resample = given.get("size"), given.get("resample")
    edges = edges if isinstance(edges, Mapping) else {}
    mine, crop, resized = "{}x{}".format(*size), _sides(given.get("crop_size")), _sides(edges)
    ignored = []
    if resample not in (None, *RESAMPLE):
        known = ", ".join(f"{number} ({name})" for number, name in RESAMPLE.items())
        ignored.append(f"resample {resample}, which is not among {known}; frames are resized {processing.filter}")
    if given.get("do_resize") is False:
        ignored.append("do_resize false; frames are resized")
    if resized is not None and resized != size:
        ignored.append("size {}x{}; frames are resized to the model's {}".format(*resized, mine))
    if "shortest_edge" in edges and "longest_edge" in edges:
        ignored.append(f"longest_edge {edges['longest_edge']}; frames are resized by their short side")
    if processing.short_side is not None and given.get("do_center_crop") is False:
        ignored.append(f"do_center_crop false; frames are cropped to the model's {mine}")
    elif processing.short_side is not None and crop is not None and crop != size:
        ignored.append("crop_size {}x{}; frames are cropped to the model's {}".format(*crop, mine))
    notes = [f"its processor's file says {one} here" for one in ignored]
    if given.get("do_normalize", True) and None in (given.get("image_mean"), given.get("image_std")):
        notes.append(
            "its processor's file has no image_mean and image_std: its pixels are taken to have mean "
            f"{processing.mean} and deviation {processing.std}"
        )
    return notes


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 < value < float("inf")


def _sides(size: Any) -> tuple[int, int] | None:
    """Height and width; None where a size does not say both."""
    if isinstance(size, Mapping):
        return (size["height"], size["width"]) if {"height", "width"} <= size.keys() else None
    return None if size is None else (size, size)


def processing_to_json(processing: Processing, size: tuple[int, int]) -> dict[str, Any]:
    """The fields of a processor of transformers, for a model of (h, w)."""
    crop = {"height": size[0], "width": size[1]}
    return {
        "do_resize": True,
        "size": crop if processing.short_side is None else {"shortest_edge": processing.short_side},
        "resample": next(number for number, name in RESAMPLE.items() if name == processing.filter),
        "do_center_crop": processing.short_side is not None,
        "crop_size": crop,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(processing.mean),
        "image_std": list(processing.std),
    }


def own_processor(config: ViViTConfig, processing: Processing | None = None) -> dict[str, Any]:
    """preprocessor_config.json: the pixels that our models take, for transformers' processors of images and videos."""
    usual = Processing(short_side=short_side(config))
    return processing_to_json(processing or usual, config.frame_size) | {
        "image_processor_type": "VivitImageProcessor",
        "rescale_factor": 1 / 127.5,
        "offset": True,
        # With rescaling to [-1, 1] done, normalising as well would leave the range that the weights were trained on.
        "do_normalize": False,
        "image_mean": [0.5] * config.in_chans,
        "image_std": [0.5] * config.in_chans,
    }


def short_side(config: ViViTConfig) -> int:
    """Pixels of a frame's short side before it is cropped, in the paper's proportion of 256 to 224."""
    return min(config.frame_size) * 256 // 224
