"""An image model in our terms: a joint ViViT of one frame, with the weights that `folds` makes of its own."""

from typing import Any

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.folds import FOLDS, ImageModel
from vivit_zoo.weights.report import Checkpoint, WeightsError

__all__ = ["image_checkpoint", "image_config"]

# Layers that have a bias in ours, whether the source has one or not.
BIASED = ("patch", "norm_pre", "norm", "norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2")
WITHOUT = {
    "fc_norm.weight": "its last norm comes after the average over tokens, ours before it (fc_norm)",
    "q_norm.weight": "its queries and keys are normalised",
    "attn.norm.weight": "its attention has a norm inside",
    "mlp.norm.weight": "its MLP has a norm inside",
    "patch_norm.weight": "its patches are normalised",
}
MOVED = {
    "patch.weight": "tubelet_embed.proj.weight",
    "patch.bias": "tubelet_embed.proj.bias",
    "pos_embed": "encoder.pos_embed.table",
    "cls_token": "encoder.cls_token.token",
    "reg_tokens": "encoder.reg_tokens.tokens",
}


def image_config(config: ViViTConfig, *, num_frames: int = 32, **changes: Any) -> ViViTConfig:
    """The configuration of a video model that an image model fits, from that of the image model as one frame."""
    # With a class token each variant takes its own default, which is that token wherever there is one.
    pool = None if config.global_pool == "token" else config.global_pool
    tubelet = (2 if num_frames % 2 == 0 else 1, *config.tubelet_size[1:])
    fields = {"num_frames": num_frames, "tubelet_size": tubelet, "global_pool": pool, "num_classes": 400}
    return config.replace(**(fields | changes))


def image_checkpoint(image: ImageModel) -> Checkpoint:
    """An image model as a joint ViViT of one frame, with tubelets of one frame.

    Raises:
        WeightsError: if its tensors do not fit together, or are none of a ViT's.
    """
    for fold in FOLDS:
        fold(image)
    fields = _fields(image)
    for name in [name for name in image.tensors if name.startswith("attn_pool.")]:
        why = "attention pooling, which ViViT does not have; the tokens before it are the same"
        image.left |= dict.fromkeys(image.origin.pop(name), why)
        del image.tensors[name]
    for name in [name for name in image.tensors if name.endswith(".weight")]:
        stem = name.removesuffix(".weight")
        if stem.endswith(BIASED) and f"{stem}.bias" not in image.tensors:
            zeros = image.tensors[name].new_zeros(len(image.tensors[name]))
            image.replace(f"{stem}.bias", zeros, how="zero: the source has no bias here")
    try:
        config = ViViTConfig(variant="joint", num_classes=0, num_frames=1, **fields)
    except ValueError as error:
        raise WeightsError(f"{image.source} cannot be a ViViT: {error}") from error
    names = {name: MOVED.get(name, f"encoder.{name}") for name in image.tensors}
    return Checkpoint(
        image.source,
        config,
        {names[name]: tensor for name, tensor in image.tensors.items()},
        {names[name]: theirs for name, theirs in image.origin.items()},
        {names[name]: how for name, how in image.how.items()},
        image.left,
        image.notes,
        class_position=image.facts.get("class_position"),
        pixels=image.pixels,
        is_image=True,
        positions_filter=image.facts.get("positions_filter", "bicubic"),
    )


def _fields(image: ImageModel) -> dict[str, Any]:
    """The fields of `ViViTConfig` that the facts and the shapes of the tensors settle."""
    tensors, facts, blocks = image.tensors, image.facts, list(image.blocks)
    if not blocks or "patch.weight" not in tensors:
        raise WeightsError(
            f"{image.source} has no blocks or no patch embedding; it has {', '.join(sorted(tensors)[:6])}"
        )
    if [block.split(".")[1] for block in blocks] != [str(i) for i in range(len(blocks))]:
        raise WeightsError(f"{image.source} has the blocks {', '.join(block.split('.')[1] for block in blocks)} only")
    shapes = [
        {name.removeprefix(block): tuple(tensors[name].shape) for name in tensors if name.startswith(block)}
        for block in blocks
    ]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            differing = {name for name, _ in shape.items() ^ shapes[0].items()}
            raise WeightsError(f"{image.source}: block {i} has other {', '.join(sorted(differing)[:3])} than block 0")
    reasons = [reason for name, reason in WITHOUT.items() if any(tensor.endswith(name) for tensor in tensors)]
    if "norm.weight" not in tensors and "fc_norm.weight" not in tensors:
        reasons.append("its last norm is missing")
    if "rope" in facts:
        reasons.append("its positions are rotary")
    if facts.get("norm") == "rms":
        reasons.append("its norms are RmsNorm")
    if len(tensors["blocks.0.mlp.fc1.weight"]) != tensors["blocks.0.mlp.fc2.weight"].shape[1]:
        reasons.append("its MLP is gated")
    pool = facts["global_pool"]
    if pool == "attention":
        pool = "avg"
    if "cls_token" in tensors and pool != "token":
        reasons.append(f"it has a class token and pools by {pool!r}")
    if "pos_embed" not in tensors:
        reasons.append("it has no learned positions")
    if reasons:
        raise WeightsError(f"{image.source} cannot start a ViViT: {'; '.join(reasons)}")
    kernel = tensors["patch.weight"] = tensors["patch.weight"].flatten(1)
    patch, dim = tuple(facts["patch"]), len(kernel)
    hidden = shapes[0]["mlp.fc2.weight"][1]
    if shapes[0]["attn.proj.weight"][1] != dim:
        raise WeightsError(f"{image.source}: its heads do not add up to its width")
    return {
        "image_size": facts["image_size"],
        "tubelet_size": (1, *patch),
        "in_chans": kernel.shape[1] // (patch[0] * patch[1]),
        "dim": dim,
        "depth": len(blocks),
        "mlp_ratio": hidden / dim,
        "qkv_bias": "attn.qkv.bias" in shapes[0],
        "pre_norm": "norm_pre.weight" in tensors,
        "reg_tokens": len(tensors.get("reg_tokens", ())),
        "pos_embed": "learned" if "pos_embed" in tensors else "none",
        "global_pool": pool,
    } | {name: facts[name] for name in ("num_heads", "act", "norm_eps")}
