"""transformers' video models, by the `model_type` of their config.json, both ways."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vivit_zoo.weights.family import Family, read_family, unlike, write_family
from vivit_zoo.weights.report import Checkpoint, WeightsError
from vivit_zoo.weights.timesformer import TIMESFORMER
from vivit_zoo.weights.videomae import VIDEOMAE
from vivit_zoo.weights.videoprism import VIDEOPRISM
from vivit_zoo.weights.videoprism_tower import VIDEOPRISM_TOWER
from vivit_zoo.weights.vivit import VIVIT
from vivit_zoo.weights.vjepa2 import VJEPA2

__all__ = ["FAMILIES", "to_transformers", "transformers_checkpoint"]

FAMILIES: dict[str, Family] = {
    "vivit": VIVIT,
    "videomae": VIDEOMAE,
    "timesformer": TIMESFORMER,
    "vjepa2": VJEPA2,
    "videoprism_vision_model": VIDEOPRISM,
    "videoprism": VIDEOPRISM_TOWER,  # of a video and a text model
}
# Classes of the same model_type, by the beginning of a name that only their tensors have.
CLASSES: dict[str, dict[str, Family]] = {"videoprism_vision_model": {"auxiliary_layers.": VIDEOPRISM_TOWER}}
TOWERS = ("video",)


def transformers_checkpoint(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: str,
    processor: Mapping[str, Any] | None = None,
    tower: str | None = None,
) -> Checkpoint:
    """A model of one of the `FAMILIES` in our terms; see `read_family`.

    Args:
        config, tensors, source, processor: as for `read_family`.
        tower: "video" for the video model of a file that holds a video and a text model.

    Raises:
        WeightsError: where it asks for what a ViViT does not have; if a file of two models comes without `tower`.
    """
    kind, nested = config["model_type"], config.get("vision_config")
    if tower is not None and tower not in TOWERS:
        raise WeightsError(f"tower {tower!r} is unknown; choose from {', '.join(TOWERS)}")
    if isinstance(nested, Mapping) and tower is None:
        raise WeightsError(
            f"{source} holds a video and a text model ({kind}), which a ViViT is not; "
            "ViViT.from_pretrained(source, tower='video') loads its video model, without classes"
        )
    found = (family for start, family in CLASSES.get(kind, {}).items() if any(start in name for name in tensors))
    family = next(found, FAMILIES[kind])
    return read_family(family, nested if isinstance(nested, Mapping) else config, tensors, source, processor)


def to_transformers(
    checkpoint: Checkpoint,
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, dict[str, Any]]]:
    """config.json, tensors, and other files by name, for the family that has such a classifier.

    Raises:
        WeightsError: for what no family has; the message names the closest one.
    """
    writable = [(name, family) for name, family in FAMILIES.items() if family.writable]
    differences = [unlike(family, checkpoint.config) for _, family in writable]
    closest = min(range(len(writable)), key=lambda i: len(differences[i]))
    model_type, family = writable[closest]
    if wrong := differences[closest]:
        raise WeightsError(f"transformers has no {family.name} with {', '.join(wrong)}; save in our own format")
    return write_family(family, model_type, checkpoint)
