"""Small models of timm's architectures, with values that hide nothing, and the comparison of a start with them."""

import math
from typing import Any

import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from vivit_zoo import ViViT, config_for_image, init_from_image
from vivit_zoo.weights import WeightsError
from vivit_zoo.weights.timm import build_timm


def embedding(image: Any) -> Any:
    """What cuts an image model's patches."""
    return getattr(image, "patch_embed", None) or image.embeds


def image_size(image: nn.Module) -> tuple[int, int]:
    """(H, W) of the images that the model's positions are for."""
    embed = embedding(image)
    grid = getattr(embed, "grid_size", None) or embed.pos_embed_grid_size
    return tuple(n * side for n, side in zip(grid, embed.patch_size, strict=True))


def small(arch: str) -> nn.Module:
    """Two blocks of an architecture of timm's with random values, for images of another size than its own."""
    try:
        full = build_timm(arch, depth=2)
    except WeightsError:  # it has a number of heads of keys for each block
        full = build_timm(arch)
    embed = embedding(full)
    # Positions of rows and of columns that keep the aspect are timm's own for squares alone.
    grid = (3, 4) if getattr(embed, "pos_embed_y", None) is None else (4, 4)
    size = tuple(n * side for n, side in zip(grid, embed.patch_size, strict=True))
    options = {"pos_embed_grid_size": grid} if hasattr(embed, "pos_embed_grid_size") else {"img_size": size}
    if any(getattr(block.attn, "num_kv_groups", 1) > 1 for block in full.blocks):
        options["num_kv_heads"] = (2, 4)
    model = timm.create_model(arch, num_classes=0, embed_dim=96, num_heads=4, depth=2, **options).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2 and name.endswith("weight"):
            parameter.data = noise / math.sqrt(parameter[0].numel())
        elif name.endswith(("weight", "gamma", "gamma_1", "gamma_2")):
            parameter.data = 1 + 0.3 * noise
        elif name.endswith("freqs"):
            parameter.data = parameter.data + 0.1 * noise
        else:
            parameter.data = 0.5 * noise
    return model


def pixels_and_clip(model: nn.Module, frames: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Frames (b·t, c, h, w) as the image model was trained to see them, and the same as a clip in [-1, 1]."""
    clip = torch.rand(batch, 3, frames, *image_size(model), generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, std = (torch.tensor(model.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    return ((rearrange(clip, "b c t h w -> (b t) c h w") + 1) / 2 - mean) / std, clip


def start(image: nn.Module, variant: str, frames: int, **rules) -> ViViT:
    """A model of `variant` with one frame a tubelet."""
    sizes = {"image_size": image_size(image), "tubelet_size": (1, *embedding(image).patch_size)}
    config = config_for_image(image, variant=variant, num_frames=frames, **sizes)
    model = ViViT(config).eval()
    init_from_image(model, image, **rules)
    return model


def distances(image: nn.Module) -> dict[str, float]:
    """How far tokens and pooled features of three variants are from timm's, in units of timm's largest value."""
    frames = 3
    pixels, clip = pixels_and_clip(image, frames)
    found = {}

    def compare(name: str, ours: Tensor, theirs: Tensor) -> None:
        found[name] = float((ours - theirs).abs().max() / theirs.abs().max())

    with torch.no_grad():
        features = image.forward_features(pixels)
        tokens = features["patches"] if isinstance(features, dict) else features
        # A distilled DeiT averages its class and distillation token, which ViViT does not.
        pooled = tokens[:, 0] if hasattr(image, "dist_token") else image.forward_head(features, pre_logits=True)
        model = start(image, "factorised_encoder", frames)
        grid = model.tubelet_embed(clip)
        compare("Model 2, tokens", model.encoder.spatial.forward_features(grid).flatten(0, 1), tokens)
        compare("Model 2, pooled", model.encoder.spatial(grid).flatten(0, 1), pooled)
        model = start(image, "factorised_self_attention", frames, temporal="zero_out")
        features = model.encoder.forward_features(model.tubelet_embed(clip))
        compare("Model 3, tokens", features.flatten(0, 1), tokens)
        each = [model.encoder.pool(features[:, i : i + 1]) for i in range(frames)]
        compare("Model 3, pooled", torch.stack(each, 1).flatten(0, 1), pooled)
        model = start(image, "joint", 1)
        still = rearrange(clip, "b c t h w -> (b t) c 1 h w")
        features = model.encoder.forward_features(model.tubelet_embed(still))
        compare("Model 1, tokens", features, tokens)
        compare("Model 1, pooled", model.encoder.pool(features), pooled)
    return found
