"""torchvision's `vit_*`: their names under those of `folds`."""

from typing import Any

from torch import nn

from vivit_zoo.weights.folds import ImageModel, rename
from vivit_zoo.weights.report import WeightsError

__all__ = ["build_torchvision", "is_torchvision", "read_torchvision"]

RENAMES = (
    (r"^conv_proj\.", "patch."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)
# All of torchvision's weights of ViTs were trained with these.
PIXELS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def is_torchvision(model: nn.Module) -> bool:
    """Whether a model is a ViT of torchvision's."""
    return any(
        cls.__name__ == "VisionTransformer" and cls.__module__.startswith("torchvision.") for cls in type(model).__mro__
    )


def build_torchvision(name: str, **options: Any) -> nn.Module | None:
    """A ViT of torchvision's without values, on the meta device; None where it has none of that name."""
    import torch
    from torchvision import models

    if name not in models.list_models(include="vit_*"):
        return None
    with torch.device("meta"):
        return models.get_model(name, weights=None, **options)


def read_torchvision(model: nn.Module, source: str) -> ImageModel:
    """A ViT of torchvision's under the names of `folds`.

    Raises:
        WeightsError: if it has a convolutional stem, or blocks that differ.
    """
    known: Any = model
    blocks = list(known.encoder.layers)
    if not isinstance(known.conv_proj, nn.Conv2d):
        raise WeightsError(f"{source} cannot start a ViViT: its patches come out of a convolutional stem")
    different = {(block.num_heads, block.ln_1.eps, block.ln_2.eps) for block in blocks}
    if len(different) != 1:
        raise WeightsError(f"{source} cannot start a ViViT: its blocks differ in their heads or in the norms' eps")
    acts = {type(block.mlp[1]).__name__ for block in blocks}
    if acts != {"GELU"}:
        raise WeightsError(f"{source} cannot start a ViViT: its MLPs have the activations {', '.join(sorted(acts))}")
    state = {name: tensor.detach().float() for name, tensor in model.state_dict().items()}
    left = {name: "the image model's head" for name in state if name.startswith("heads.")}
    origin = rename((name for name in state if name not in left), RENAMES, source)
    facts = {
        "image_size": (known.image_size, known.image_size),
        "patch": (known.patch_size, known.patch_size),
        "num_heads": blocks[0].num_heads,
        "act": "gelu",
        "norm_eps": blocks[0].ln_1.eps,
        "global_pool": "token",
    }
    tensors = {ours: state[theirs] for ours, (theirs,) in origin.items()}
    return ImageModel(source, facts, tensors, origin, left=left, pixels=PIXELS)
