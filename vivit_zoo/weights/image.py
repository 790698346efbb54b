"""timm's image models as sources: an image ViT is a joint ViViT of one frame, or is refused with the reason.

Everything that a plain ViT computes and ours does not is folded exactly: LayerScale into the layers before it, the
class token's position into the token, registers' positions into the registers, a missing bias into a bias of zero.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.layers import Mlp, PatchEmbed
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from vivit_zoo.config import ViViTConfig
from vivit_zoo.weights.report import Checkpoint, WeightsError

__all__ = ["image_checkpoint", "image_config", "read_npz", "timm_model"]

PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
GIVEN = "the given image model"  # one in memory has no other name


def image_config(model: nn.Module, source: str = GIVEN, *, num_frames: int = 32, **changes: Any) -> ViViTConfig:
    """The configuration of a video model that a timm image model fits; see `config_for_image`."""
    facts = image_facts(model, source)
    patch = facts["tubelet_size"][1:]
    # With a class token each variant takes its own default, which is that token wherever there is one.
    pool = None if facts.pop("global_pool") == "token" else "avg"
    fields = facts | {"num_frames": num_frames, "global_pool": pool, "num_classes": 400}
    fields["tubelet_size"] = (2 if num_frames % 2 == 0 else 1, *patch)
    return ViViTConfig().replace(**(fields | changes))


def timm_model(source: str) -> nn.Module:
    """A pretrained timm model by its name or `local-dir:` folder.

    Raises:
        WeightsError: if timm does not know it, or cannot fetch or read its weights.
    """
    try:
        return timm.create_model(source, pretrained=True, num_classes=0)
    except Exception as error:
        # timm lets through what its readers, the hub's client and torch raise; there is no common class of these.
        raise WeightsError(f"timm cannot load {source!r}: {type(error).__name__}: {error}") from error


def image_checkpoint(model: nn.Module, source: str = GIVEN) -> Checkpoint:
    """A timm ViT in our terms: a joint ViViT of one frame, with tubelets of one frame.

    Raises:
        WeightsError: with every reason why it is not a plain ViT.
    """
    config = ViViTConfig(variant="joint", num_classes=0, num_frames=1, **image_facts(model, source))
    state = {name: tensor.detach().float() for name, tensor in model.state_dict().items()}
    checkpoint = Checkpoint(source, config, {}, {}, notes=_pixels(model))
    tensors, origin, how = checkpoint.tensors, checkpoint.origin, checkpoint.how

    def put(ours: str, tensor: Tensor, *theirs: str, computed: str = "") -> None:
        tensors[ours], origin[ours] = tensor, theirs
        if computed:
            how[ours] = computed

    def put_layer(ours: str, theirs: str) -> None:
        weight, bias = state[f"{theirs}.weight"], f"{theirs}.bias"
        put(f"{ours}.weight", weight, f"{theirs}.weight")
        if bias in state:
            put(f"{ours}.bias", state[bias], bias)
        elif not theirs.endswith("attn.qkv"):  # the one layer of ours that can do without
            put(f"{ours}.bias", torch.zeros(len(weight)), computed="zero: the source has no bias here")

    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    put_layer("tubelet_embed.proj", "patch_embed.proj")
    positions = state["pos_embed"][0]
    extra = len(positions) - math.prod(config.grid)  # of the class token, then the registers; or all have none
    put("encoder.pos_embed.table", positions[extra:][None], "pos_embed")
    at = 0
    if "cls_token" in state:
        name, token, at = "encoder.cls_token.token", state["cls_token"].flatten(), 1
        if extra:
            checkpoint.class_position = positions[0]
            put(name, token.double() + positions[0], "cls_token", "pos_embed", computed="token + its position")
        else:
            put(name, token, "cls_token")
    if config.reg_tokens:
        name, registers = "encoder.reg_tokens.tokens", state["reg_token"][0]
        if extra:
            registers = registers + positions[at : at + config.reg_tokens]
            put(name, registers, "reg_token", "pos_embed", computed="registers + their positions")
        else:
            put(name, registers, "reg_token")
    for norm in ("norm_pre", "norm") if config.pre_norm else ("norm",):
        put_layer(f"encoder.{norm}", norm)
    for i in range(config.depth):
        for part in PARTS:
            put_layer(f"encoder.blocks.{i}.{part}", f"blocks.{i}.{part}")
        for scale, part in [("ls1", "attn.proj"), ("ls2", "mlp.fc2")]:
            gamma = f"blocks.{i}.{scale}.gamma"
            if gamma in state:
                for kind, factor in [("weight", state[gamma].double()[:, None]), ("bias", state[gamma].double())]:
                    ours = f"encoder.blocks.{i}.{part}.{kind}"
                    scaled = (tensors[ours] * factor).float()
                    put(ours, scaled, *origin[ours], gamma, computed="times LayerScale")
    used = {name for names in origin.values() for name in names}
    for name in state.keys() - used:
        if name.startswith("head"):
            checkpoint.left[name] = "the image model's head"
        elif name.startswith("attn_pool."):
            checkpoint.left[name] = "attention pooling, which ViViT does not have; the tokens before it are the same"
        else:
            raise WeightsError(f"{source} has {name}, which no ViT has")
    return checkpoint


def _pixels(model: nn.Module) -> list[str]:
    """A note where timm says that the weights were trained on pixels in another range than this package's."""
    known = getattr(model, "pretrained_cfg", None) or {}
    mean, deviation = (known.get(name) for name in ("mean", "std"))
    if mean is None or deviation is None or {*mean, *deviation} == {0.5}:
        return []
    return [
        f"the image model knows pixels less a mean of {tuple(mean)} over a deviation of {tuple(deviation)}; clips come "
        "in [-1, 1], a mean and a deviation of 0.5 (docs/image-start.md)"
    ]


def image_facts(model: nn.Module, source: str) -> dict[str, Any]:
    """The fields of `ViViTConfig` that an image model settles.

    Raises:
        WeightsError: with every reason why it is not a plain ViT.
    """
    if type(model) is not VisionTransformer:
        raise WeightsError(f"{source} is of the class {type(model).__name__}: no plain ViT (timm's VisionTransformer)")
    if type(model.patch_embed) is not PatchEmbed or not len(model.blocks):
        made_of = f"{type(model.patch_embed).__name__} and {len(model.blocks)} blocks"
        raise WeightsError(
            f"{source} is no plain ViT: it is made of {made_of}, not of PatchEmbed and one block or more"
        )
    reasons = [reason for block in model.blocks for reason in _unlike_ours(block)]
    if model.pos_embed is None:
        reasons.append("it has no learned positions")
    if not isinstance(model.patch_embed.norm, nn.Identity):
        reasons.append("its patches are normalised")
    if not isinstance(model.fc_norm, nn.Identity):
        reasons.append("its last norm comes after the average over tokens, ours before it (fc_norm)")
    elif not isinstance(model.norm, nn.LayerNorm):
        reasons.append(f"its last norm is {type(model.norm).__name__}")
    if model.has_class_token and model.global_pool not in ("token", ""):
        reasons.append(f"it has a class token and pools by {model.global_pool!r}")
    if not model.has_class_token and model.global_pool == "token":
        reasons.append("it pools by a class token that it does not have")
    if reasons:
        raise WeightsError(f"{source} is no plain ViT: {'; '.join(dict.fromkeys(reasons))}")
    block: Any = model.blocks[0]
    height, width = (n * p for n, p in zip(model.patch_embed.grid_size, model.patch_embed.patch_size, strict=True))
    return {
        "image_size": (height, width),
        "tubelet_size": (1, *model.patch_embed.patch_size),
        "in_chans": model.patch_embed.proj.in_channels,
        "dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
        "qkv_bias": block.attn.qkv.bias is not None,
        "act": _act_name(block.mlp.act),
        "norm_eps": block.norm1.eps,
        "pre_norm": isinstance(model.norm_pre, nn.LayerNorm),
        "reg_tokens": model.num_reg_tokens,
        "global_pool": "token" if model.has_class_token else "avg",
    }


def _unlike_ours(block: Any) -> list[str]:
    """Why a block is not a pre-norm block with plain attention and a plain MLP."""
    if type(block) is not Block:
        return [f"its blocks are {type(block).__name__}"]
    attn, mlp = block.attn, block.mlp
    if type(attn) is not Attention or type(mlp) is not Mlp:
        return [f"its blocks are made of {type(attn).__name__} and {type(mlp).__name__}"]
    reasons = []
    norms = (attn.q_norm, attn.k_norm, getattr(attn, "norm", nn.Identity()), getattr(mlp, "norm", nn.Identity()))
    if not all(isinstance(norm, nn.Identity) for norm in norms):
        reasons.append("its attention or MLP has norms inside")
    if getattr(attn, "gate", None) is not None:
        reasons.append("its attention is gated")
    if attn.proj.in_features != attn.qkv.in_features:
        reasons.append("its heads do not add up to its width")
    if not all(isinstance(norm, nn.LayerNorm) for norm in (block.norm1, block.norm2)):
        reasons.append(f"its norms are {type(block.norm1).__name__}")
    if _act_name(mlp.act) is None:
        reasons.append(f"its activation is {type(mlp.act).__name__}")
    return reasons


def _act_name(act: nn.Module) -> str | None:
    if type(act).__name__ in ("QuickGELU", "GELUTanh"):
        return {"QuickGELU": "quick_gelu", "GELUTanh": "gelu_tanh"}[type(act).__name__]
    if type(act).__name__ == "GELU":
        return "gelu_tanh" if getattr(act, "approximate", "none") == "tanh" else "gelu"
    return None


def read_npz(file: Path) -> nn.Module:
    """The image model of an original .npz file, read by timm's own reader into a timm model of the file's sizes.

    Raises:
        WeightsError: if the file is broken or is no plain ViT.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def find(start: str, end: str) -> str:
        for name in shapes:
            if name.startswith(start) and name.endswith(end):
                return name
        inside = ", ".join(sorted(shapes)[:6]) or "nothing"
        raise WeightsError(f"{file} has no {end}{f' below {start}' if start else ''}: no image ViT; it holds {inside}")

    try:
        with np.load(file) as arrays:
            shapes |= {name: arrays[name].shape for name in arrays.files}
        kernel = find("", "embedding/kernel")
        prefix, (ph, pw, chans, dim) = kernel.removesuffix("embedding/kernel"), shapes[kernel]
        block = f"{prefix}Transformer/encoderblock"
        stacked = f"{block}/LayerNorm_0/scale" in shapes
        depth = (
            shapes[f"{block}/LayerNorm_0/scale"][0]
            if stacked
            else len({name[len(block) :].split("/")[0] for name in shapes if name.startswith(block + "_")})
        )
        first = block if stacked else f"{block}_0"
        query, dense = shapes[find(first, "query/kernel")], shapes[find(first, "Dense_0/kernel")]
        has_token, outside = f"{prefix}cls" in shapes, f"{prefix}pos_embedding" in shapes
        places = shapes[find(prefix, "pos_embedding")][1]
        side = math.isqrt(places - (has_token and not outside))
        model = VisionTransformer(
            img_size=(side * ph, side * pw),
            patch_size=(ph, pw),
            in_chans=chans,
            num_classes=0,
            embed_dim=dim,
            depth=depth,
            num_heads=query[-2],
            mlp_ratio=dense[-1] / dim,
            class_token=has_token,
            no_embed_class=outside,
            global_pool="token" if has_token else "map" if f"{prefix}MAPHead_0/probe" in shapes else "avg",
            fc_norm=False,
            act_layer="gelu_tanh",
            weight_init="skip",
        )
        model.load_pretrained(str(file))
    except WeightsError:
        raise
    except Exception as error:
        # numpy, zipfile and timm's reader fail in as many ways as files can be broken.
        raise WeightsError(f"{file} is no image ViT that timm can read: {type(error).__name__}: {error}") from error
    return model
