"""timm's image models as sources: an image ViT is a joint ViViT of one frame, or is refused with the reason.

Everything that a plain ViT computes and ours does not is folded exactly: LayerScale into the layers before it, the
class token's position into the token, registers' positions into the registers, a missing bias into a bias of zero.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.layers import Mlp, PatchEmbed
from timm.models.vision_transformer import Attention, Block, LayerScale, VisionTransformer
from torch import Tensor, nn

from vivit_zoo.model import ViViTConfig
from vivit_zoo.weights.report import Checkpoint, WeightsError

__all__ = ["config_for_image", "image_checkpoint", "read_npz", "timm_model"]

POSITIONS = "Transformer/posembed_input/pos_embedding"
PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def config_for_image(image_model: nn.Module | str, *, num_frames: int = 32, **changes: Any) -> ViViTConfig:
    """See `ViViTConfig.for_image`."""
    model = timm_model(image_model) if isinstance(image_model, str) else image_model
    facts = image_facts(model, type(model).__name__)
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


def image_checkpoint(model: nn.Module, source: str) -> Checkpoint:
    """A timm ViT in our terms: a joint ViViT of one frame, with tubelets of one frame.

    Raises:
        WeightsError: with every reason why it is not a plain ViT.
    """
    config = ViViTConfig(variant="joint", num_classes=0, num_frames=1, **image_facts(model, source))
    state = {name: tensor.detach().float() for name, tensor in model.state_dict().items()}
    checkpoint = Checkpoint(source, config, {}, {})
    tensors, how = checkpoint.tensors, checkpoint.how
    dim = config.dim

    def put(name: str, tensor: Tensor, *theirs: str, computed: str = "") -> None:
        tensors[name], checkpoint.origin[name] = tensor, theirs
        if computed:
            how[name] = computed

    put("tubelet_embed.proj.weight", state["patch_embed.proj.weight"].flatten(1), "patch_embed.proj.weight")
    _put_bias(put, state, "tubelet_embed.proj.bias", "patch_embed.proj.bias", dim)
    positions = state["pos_embed"][0]
    extra = len(positions) - math.prod(config.grid)
    at = 0
    if "cls_token" in state:
        token = state["cls_token"].reshape(dim)
        if extra:
            put(
                "encoder.cls_token.token",
                token.double() + positions[0],
                "cls_token",
                "pos_embed",
                computed="token + its position",
            )
            checkpoint.class_position = positions[0]
        else:
            put("encoder.cls_token.token", token, "cls_token")
        at = 1
    if config.reg_tokens:
        registers = state["reg_token"][0]
        if extra:
            registers = registers + positions[at : at + config.reg_tokens]
            put(
                "encoder.reg_tokens.tokens", registers, "reg_token", "pos_embed", computed="registers + their positions"
            )
        else:
            put("encoder.reg_tokens.tokens", registers, "reg_token")
    put("encoder.pos_embed.table", positions[extra:][None], "pos_embed")
    for norm in ("norm_pre", "norm"):
        for kind in ("weight", "bias"):
            if f"{norm}.{kind}" in state:
                put(f"encoder.{norm}.{kind}", state[f"{norm}.{kind}"], f"{norm}.{kind}")
    for i in range(config.depth):
        for part in PARTS:
            theirs, ours = f"blocks.{i}.{part}", f"encoder.blocks.{i}.{part}"
            put(f"{ours}.weight", state[f"{theirs}.weight"], f"{theirs}.weight")
            if part != "attn.qkv" or config.qkv_bias:
                _put_bias(put, state, f"{ours}.bias", f"{theirs}.bias", len(tensors[f"{ours}.weight"]))
        for scale, part in [("ls1", "attn.proj"), ("ls2", "mlp.fc2")]:
            gamma = f"blocks.{i}.{scale}.gamma"
            if gamma in state:
                for kind in ("weight", "bias"):
                    ours = f"encoder.blocks.{i}.{part}.{kind}"
                    factor = state[gamma].double() if kind == "bias" else state[gamma].double()[:, None]
                    put(
                        ours,
                        (tensors[ours] * factor).float(),
                        *checkpoint.origin[ours],
                        gamma,
                        computed="times LayerScale",
                    )
    used = {name for names in checkpoint.origin.values() for name in names}
    for name in state.keys() - used:
        if name.startswith("head"):
            checkpoint.left[name] = "the image model's head"
        elif name.startswith("attn_pool."):
            checkpoint.left[name] = "attention pooling, which ViViT does not have; the tokens before it are the same"
        else:
            raise WeightsError(f"{source} has {name}, which no ViViT has")
    return checkpoint


def _put_bias(put: Any, state: Mapping[str, Tensor], ours: str, theirs: str, size: int) -> None:
    if theirs in state:
        put(ours, state[theirs], theirs)
    else:
        put(ours, torch.zeros(size), computed="zero: the source has no bias here")


def image_facts(model: nn.Module, source: str) -> dict[str, Any]:
    """The fields of `ViViTConfig` that an image model settles.

    Raises:
        WeightsError: with every reason why it is not a plain ViT.
    """
    if type(model) is not VisionTransformer:
        raise WeightsError(f"{source} is a {type(model).__name__}, not timm's VisionTransformer: no plain ViT")
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
    if not all(isinstance(scale, nn.Identity | LayerScale) for scale in (block.ls1, block.ls2)):
        reasons.append("its branches are scaled in another way than LayerScale")
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
    try:
        with np.load(file) as arrays:
            shapes = {name: arrays[name].shape for name in arrays.files}
        found = next(name for name in shapes if name.endswith("embedding/kernel"))
        prefix = found.removesuffix("embedding/kernel")
        block = f"{prefix}Transformer/encoderblock"
        stacked = f"{block}/LayerNorm_0/scale" in shapes
        depth = (
            shapes[f"{block}/LayerNorm_0/scale"][0]
            if stacked
            else len({name[len(block) :].split("/")[0] for name in shapes if name.startswith(block + "_")})
        )
        first = block if stacked else f"{block}_0"
        query = next(s for n, s in shapes.items() if n.startswith(first) and n.endswith("query/kernel"))
        dense = next(s for n, s in shapes.items() if n.startswith(first) and n.endswith("Dense_0/kernel"))
        ph, pw, chans, dim = shapes[found]
        table = next(s for n, s in shapes.items() if n in (f"{prefix}pos_embedding", f"{prefix}{POSITIONS}"))
        has_token, outside = f"{prefix}cls" in shapes, f"{prefix}pos_embedding" in shapes
        side = math.isqrt(table[1] - (has_token and not outside))
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
