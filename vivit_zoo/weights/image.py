"""An image model in our terms: a joint ViViT of one frame, with the weights that `folds` makes of its own."""

from typing import Any

from vivit_zoo.config import AttentionPoolConfig, ViViTConfig
from vivit_zoo.weights.folds import FOLDS, ImageModel
from vivit_zoo.weights.report import Checkpoint, WeightsError

__all__ = ["image_checkpoint", "image_config"]

# Layers that have a bias in ours, whether the source has one or not.
BIASED = ("patch", "attn.proj", "fc1", "fc2", "attn_pool.q", "attn_pool.kv", "attn_pool.proj")
LAST = {"norm": "before_pool", "fc_norm": "after_pool"}
FACTS = ("image_size", "num_heads", "act", "norm", "norm_eps", "global_pool", "rope")
MOVED = {
    "patch.weight": "tubelet_embed.proj.weight",
    "patch.bias": "tubelet_embed.proj.bias",
    "patch_norm.weight": "tubelet_embed.norm.weight",
    "patch_norm.bias": "tubelet_embed.norm.bias",
    "pos_embed": "encoder.pos_embed.table",
    "cls_token": "encoder.cls_token.token",
    "reg_tokens": "encoder.reg_tokens.tokens",
    "fc_norm.weight": "encoder.norm.weight",
    "fc_norm.bias": "encoder.norm.bias",
}


def image_config(checkpoint: Checkpoint, *, num_frames: int = 32, **changes: Any) -> ViViTConfig:
    """The configuration of a video model that an image model fits."""
    config = checkpoint.config
    fields: dict[str, Any] = {
        "num_frames": num_frames,
        "tubelet_size": (2 if num_frames % 2 == 0 else 1, *config.tubelet_size[1:]),
        "num_classes": 400,
    }
    if checkpoint.default_size is not None:
        fields["image_size"] = checkpoint.default_size
    return config.replace(**(fields | changes))


def image_checkpoint(image: ImageModel) -> Checkpoint:
    """An image model as a joint ViViT of one frame, with tubelets of one frame.

    Raises:
        WeightsError: if its tensors do not fit together, or are none of a ViT's.
    """
    for fold in FOLDS:
        fold(image)
    fields = _fields(image)
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
        default_size=image.facts.get("default_size"),
        positions_filter=image.facts.get("positions_filter") or "bicubic",
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
    kernel = tensors["patch.weight"] = tensors["patch.weight"].flatten(1)
    patch, dim = tuple(facts["patch"]), len(kernel)
    hidden = shapes[0]["mlp.fc2.weight"][1]
    last = [where for name, where in LAST.items() if f"{name}.weight" in tensors]
    if len(last) == 2:
        raise WeightsError(f"{image.source} has a norm before and one after the pooling, ViViT one of them")
    if shapes[0]["attn.proj.weight"][1] != dim:
        raise WeightsError(f"{image.source}: its heads do not add up to its width")
    return {
        "tubelet_size": (1, *patch),
        "in_chans": kernel.shape[1] // (patch[0] * patch[1]),
        "dim": dim,
        "depth": len(blocks),
        "mlp_ratio": hidden / dim,
        "qkv_bias": "attn.qkv.bias" in shapes[0],
        "gated": shapes[0]["mlp.fc1.weight"][0] == 2 * hidden,
        "qk_norm": "attn.q_norm.weight" in shapes[0],
        "attn_inner_norm": "attn.inner_norm.weight" in shapes[0],
        "mlp_inner_norm": "mlp.inner_norm.weight" in shapes[0],
        "rel_pos": "rel_pos.table" in shapes[0],
        "patch_norm": "patch_norm.weight" in tensors,
        "pre_norm": "norm_pre.weight" in tensors,
        "last_norm": last[0] if last else "none",
        "class_token": "cls_token" in tensors,
        "reg_tokens": len(tensors.get("reg_tokens", ())),
        "pos_embed": "learned" if "pos_embed" in tensors else "none",
        "attn_pool": _pooling(image) if facts["global_pool"] == "attention" else None,
    } | {name: facts[name] for name in FACTS if name in facts}


def _pooling(image: ImageModel) -> AttentionPoolConfig:
    """The options of attention pooling."""
    image.replace("attn_pool.query", image.tensors["attn_pool.query"].flatten(), "attn_pool.query")
    fc1 = image.tensors.get("attn_pool.mlp.fc1.weight")
    ratio = None if fc1 is None else len(fc1) / fc1.shape[1]
    return AttentionPoolConfig(num_heads=image.facts.get("pool_heads"), mlp_ratio=ratio)
