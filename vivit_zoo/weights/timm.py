"""timm's image models: which of them a ViViT can compute, under which names, and what their tensors do not tell.

Classes are known by their names, so that an older timm without some of them is read too. A subclass that changes
nothing of what is computed counts as the class that it is made from.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from difflib import get_close_matches
from typing import Any

import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from vivit_zoo.config import RotaryConfig
from vivit_zoo.weights import hub
from vivit_zoo.weights.folds import ImageModel, Pixels, rename
from vivit_zoo.weights.report import WeightsError
from vivit_zoo.weights.torchvision import build_torchvision

__all__ = ["build_timm", "load_timm", "read_timm"]

RENAMES = (
    (r"^(patch_embed|embeds)\.proj\.", "patch."),
    (r"^(patch_embed|embeds)\.norm\.", "patch_norm."),
    (r"^embeds\.", ""),
    (r"^reg_token$", "reg_tokens"),
    (r"\.gamma_([12])$", r".ls\1.gamma"),
    (r"\.attn\.([qv])_bias$", r".attn.\1.bias"),
    (r"\.attn\.([qkv])_proj\.", r".attn.\1."),
    (r"\.(attn|mlp)\.norm\.", r".\1.inner_norm."),
    (r"^attn_pool\.latent$", "attn_pool.query"),
    (r"\.mlp\.fc1_g\.", ".mlp.gate."),
    (r"\.mlp\.fc1_x\.", ".mlp.up."),
)
LEFT = (
    (r"^(head|head_dist)\.", "the image model's head"),
    (r"^mask_token$", "a token of the pretraining"),
)
# The classes whose computation is known, and the methods that a subclass must leave as they are.
MODELS = ("VisionTransformer", "VisionTransformerDistilled", "Eva", "Beit", "NaFlexVit", "VisionTransformerRelPos")
METHODS = ("forward", "forward_features", "forward_head", "pool", "_pos_embed")
PATCHES, BLOCKS, NORMS = (
    ("PatchEmbed", "NaFlexEmbeds"),
    ("Block", "EvaBlock", "RelPosBlock"),
    ("LayerNorm", "RmsNorm", "Identity"),
)
ATTENTION, MLPS = ("Attention", "EvaAttention", "AttentionRope", "RelPosAttention"), ("Mlp", "GluMlp", "SwiGLU")
ACTS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}
ROTARY = {"RotaryEmbeddingCat": "index", "RotaryEmbeddingDinoV3": "centred", "RotaryEmbeddingMixed": "learned"}
# Mode, whether corners are aligned, whether it is antialiased.
FILTERS: dict[tuple[Any, ...], str] = {
    ("bicubic", False, True): "bicubic",
    ("bilinear", False, True): "antialiased",
    ("bilinear", False, False): "bilinear",
    ("bilinear", True, False): "linear",
}
# Pools of timm that ViViT does not have: the tokens before them are the same.
POOLS = {
    "": "it does not pool",
    "avgmax": "it pools by the mean of average and maximum, which ViViT does not have",
    "prr": "it pools by attention without weights, which ViViT does not have",
}


def load_timm(name: str) -> nn.Module:
    """A pretrained timm model by its name or `local-dir:` folder.

    Raises:
        WeightsError: if timm does not know it, or cannot fetch or read its weights.
    """
    with nullcontext() if name.startswith("local-dir:") else hub.cache_if_unreachable() as unreachable:
        try:
            return timm.create_model(name, pretrained=True, num_classes=0)
        except Exception as error:
            # timm lets through what its readers, the hub's client and torch raise; there is no common class of these.
            reason = f"{type(error).__name__}: {error}{hub.cache_advice(error)}"
            if unreachable is not None and isinstance(error, OSError):
                reason = (
                    f"the hub cannot be reached ({type(unreachable).__name__}), and the weights are not in the cache"
                )
            raise WeightsError(f"timm cannot load {name!r}: {reason}{_near(name)}") from error


def build_timm(name: str, **options: Any) -> nn.Module:
    """A timm model without values, on the meta device, by the name of its architecture.

    Raises:
        WeightsError: if timm does not know it.
    """
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, num_classes=0, **options)
    except Exception as error:
        raise WeightsError(f"timm cannot build {name!r}: {type(error).__name__}: {error}{_near(name)}") from error


def _near(name: str) -> str:
    """A hint at names that are spelt nearly like one that timm does not know."""
    name = name.removeprefix("hf-hub:").removeprefix("timm/")
    if build_torchvision(name) is not None:
        return f"; it is torchvision's name: pass torchvision.models.{name}(weights='DEFAULT')"
    known = timm.list_models(pretrained="." in name)
    if ":" in name or name in known:
        return ""
    close = get_close_matches(name, known, n=3) or get_close_matches(name.split(".")[0], timm.list_models(), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def read_timm(model: nn.Module, source: str) -> ImageModel:
    """A timm ViT under the names of `folds`.

    Raises:
        WeightsError: with every reason why a ViViT cannot compute what it computes.
    """
    reasons = list(dict.fromkeys(_unlike_ours(model)))
    if reasons:
        raise WeightsError(f"{source} cannot start a ViViT: {'; '.join(reasons)}")
    known: Any = model
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    left = {name: why for name in state for pattern, why in LEFT if re.match(pattern, name)}
    theirs = {name: tensor.float() for name, tensor in state.items() if name not in left}
    origin = rename(theirs, RENAMES, source)
    tensors = {name: theirs[others[0]] for name, others in origin.items()}
    for name, (table, parts) in _relative_positions(model).items():
        for ours in [ours for ours, others in origin.items() if others[0] in parts]:
            del tensors[ours], origin[ours]
        tensors[name], origin[name] = table, parts
    image = ImageModel(source, _facts(known, tensors), tensors, origin, left=left, pixels=_pixels(model))
    if tensors["patch.weight"].ndim == 2:
        (ph, pw), order = image.facts["patch"], "h w c" if known.embeds.channels_last else "c h w"
        kernel = rearrange(tensors["patch.weight"], f"o ({order}) -> o c h w", h=ph, w=pw)
        image.replace("patch.weight", kernel, "patch.weight")
    eps: set[Any] = {module.eps for module in model.modules() if type(module).__name__ in NORMS[:2]}
    if len(eps) > 1:
        image.notes.append(f"norm_eps is {image.facts['norm_eps']:g} everywhere; the source has {sorted(eps)}")
    if getattr(_embed(known), "pos_embed_ar_preserving", False):
        image.notes.append(
            "timm cuts positions of images that are not square out of those of a square; here they are resized"
        )
    if known.global_pool in POOLS and not ("cls_token" in tensors and known.global_pool == ""):
        image.notes.append(f"{POOLS[known.global_pool]}; global_pool is {image.facts['global_pool']!r}")
    if note := _other_tokens(known):
        image.notes.append(note)
    return image


def _other_tokens(model: Any) -> str:
    """A note where a model pools other tokens than ViViT does under the same name; "" where it does not.

    Attention and maximum are the cases: over all tokens and over the places in ViViT, either way in timm.
    """
    with_extra = getattr(model, "pool_include_prefix", None)  # None: the class does not have the choice
    if not getattr(model, "num_prefix_tokens", 0):
        return ""
    if model.global_pool == "map" and with_extra is False:
        return "its attention pooling leaves out class token and registers, ViViT's takes them too"
    if model.global_pool == "max" and with_extra:
        return "it takes the maximum with class token and registers, ViViT over the places alone"
    return ""


def _relative_positions(model: nn.Module) -> dict[str, tuple[Tensor, tuple[str, ...]]]:
    """Biases of relative positions: our name -> table (offsets + 3, heads), and which tensors it is made of.

    The last three are those of the class token. An MLP over offsets is a table on a fixed grid.
    """
    found: dict[str, tuple[Tensor, tuple[str, ...]]] = {}
    for name, part in model.named_modules():
        module: Any = part
        table = getattr(module, "relative_position_bias_table", None)
        names: tuple[str, ...] = (f"{name}.relative_position_bias_table",)
        if hasattr(module, "rel_coords_log"):
            table = module.bias_act(module.mlp.fc2(module.mlp.act(module.mlp.fc1(module.rel_coords_log))))
            table = table.flatten(0, 1) * (module.bias_gain or 1)
            names = tuple(f"{name}.mlp.{other}" for other in module.mlp.state_dict())
        if table is not None:
            table = table.detach().float()
            if len(names) > 1 or not getattr(module, "prefix_tokens", 1):  # no biases of the class token
                table = torch.cat([table, table.new_zeros(3, table.shape[1])])
            found[re.sub(r"(attn|shared_rel_pos|rel_pos_bias)(\.rel_pos)?$", "rel_pos", name)] = (table, names)
    return found


def _facts(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What no tensor tells."""
    block, embed = model.blocks[0], _embed(model)
    patch = tuple(embed.patch_size)
    grid = getattr(embed, "grid_size", None) or embed.pos_embed_grid_size
    pool, with_extra = model.global_pool, getattr(model, "pool_include_prefix", False)
    if pool in POOLS:
        pool = "token" if "cls_token" in tensors else "avg"
    facts = {
        "image_size": tuple(n * side for n, side in zip(grid, patch, strict=True)),
        "patch": patch,
        "num_heads": block.attn.num_heads,
        "act": _act_name(block.mlp),
        "norm_eps": block.norm1.eps,
        "norm": "rms" if type(block.norm1).__name__ == "RmsNorm" else "layer",
        "global_pool": {"map": "attention", "avg": "all" if with_extra else "avg"}.get(pool, pool),
        "pool_heads": getattr(getattr(model, "attn_pool", None), "num_heads", None),
        "positions_filter": _filter(embed),
    }
    if hasattr(embed, "pos_embed_grid_size"):  # positions for one size, images of another
        size = embed.default_img_size or (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (0, 0))[-2:]
        facts["default_size"] = tuple(size) if all(size) else None
    rope = getattr(model, "rope", None)
    if rope is not None:
        facts["interleaved"] = not getattr(rope, "rotate_half", False)
        facts["columns_first"] = rope.grid_indexing == "xy"
        facts["rope"] = RotaryConfig(
            coords="centred" if ROTARY[type(rope).__name__] == "centred" else "index",
            base=float(rope.temperature),
            offset=float(getattr(rope, "grid_offset", 0.0)),
            reference=getattr(rope, "ref_feat_shape", None),
            learned=ROTARY[type(rope).__name__] == "learned",
        )
    return facts


def _filter(embed: Any) -> str | None:
    """How timm resizes a model's positions; None for a way that is not here."""
    usual: dict[str, Any] = {"interp_mode": "bicubic", "align_corners": False, "antialias": True}
    return FILTERS.get(tuple(getattr(embed, f"pos_embed_{name}", value) for name, value in usual.items()))


def _embed(model: Any) -> Any:
    return getattr(model, "patch_embed", None) or getattr(model, "embeds", None)


def _pixels(model: nn.Module) -> Pixels | None:
    """Mean and standard deviation that timm says the model was trained with."""
    known = getattr(model, "pretrained_cfg", None) or {}
    mean, deviation = (known.get(name) for name in ("mean", "std"))
    return None if mean is None or deviation is None else (tuple(mean), tuple(deviation))


def _act_name(mlp: Any) -> str | None:
    """Our name of an MLP's activation; None for one that ViViT does not have. A gated MLP's is always SiLU."""
    name = type(mlp.act).__name__
    if type(mlp).__name__ != "Mlp":
        return "silu" if name == "SiLU" else None
    if name == "GELU" and getattr(mlp.act, "approximate", "none") == "tanh":
        return "gelu_tanh"
    return ACTS.get(name)


def _unknown(module: Any, classes: Collection[str], methods: Collection[str] = ("forward",)) -> str:
    """Why a module's computation is not known: of no known class, or of one made from it that changes something."""
    mine = type(module)
    overridden: set[str] = set()
    for cls in mine.__mro__:
        if cls.__name__ in classes and cls.__module__.startswith(("timm.", "torch.")):
            changed = sorted(overridden & set(methods))
            return f"{mine.__name__} has its own {', '.join(changed)}" if changed else ""
        overridden |= vars(cls).keys()
    return f"{mine.__name__} is none of {', '.join(classes)}"


def _unlike_ours(model: Any) -> Iterator[str]:
    """Why a ViViT cannot compute what a model computes."""
    if reason := _unknown(model, MODELS, METHODS):
        inside = [name for name, part in model.named_modules() if name and not _unknown(part, MODELS, METHODS)]
        yield f"{reason}; its {inside[0]} is one: pass that" if inside else reason
        return
    if reason := _unknown(_embed(model), PATCHES):
        yield reason
        return
    if not len(model.blocks):
        yield "it has no blocks"
        return
    embed, first = _embed(model), model.blocks[0]
    if isinstance(embed.proj, nn.Conv2d):
        plain = {"stride": embed.proj.kernel_size, "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        for name, value in plain.items():
            if getattr(embed.proj, name) != value:
                yield f"its patches of {embed.proj.kernel_size} have {name} {getattr(embed.proj, name)}"
    for i, block in enumerate(model.blocks):
        reasons = list(_unlike_block(block))
        yield from reasons
        if reasons:
            continue
        for name, mine, other in (
            ("heads", block.attn.num_heads, first.attn.num_heads),
            ("activation", _act_name(block.mlp), _act_name(first.mlp)),
        ):
            if mine != other:
                yield f"block {i} has {name} {mine}, block 0 {other}"
    norms = {type(module).__name__ for module in model.modules() if hasattr(module, "eps")}
    if not norms <= set(NORMS):
        yield f"its norms are {', '.join(sorted(norms))}"
    elif len(norms) > 1:
        yield f"it mixes {' and '.join(sorted(norms))}"
    has_token = any(getattr(part, "cls_token", None) is not None for part in (model, embed))
    if model.global_pool == "token" and not has_token:
        yield "it pools by a class token that it does not have"
    if all(hasattr(getattr(model, name, None), "weight") for name in ("norm", "fc_norm")):
        yield "it normalises before and after pooling"
    rope: Any = getattr(model, "rope", None)
    kind = type(rope).__name__
    if kind not in (*ROTARY, "NoneType"):
        yield f"its positions are {kind}"
    elif getattr(rope, "in_pixels", False) or getattr(rope, "normalize_coords", "separate") != "separate":
        yield "its rotary positions are in pixels, or scaled by one side for both"
    elif getattr(rope, "min_period", None) is not None or (ROTARY.get(kind) == "centred" and rope.grid_offset):
        yield "its rotary positions have periods or an offset of their own"
    if getattr(embed, "norm_input", None) is not None:
        yield "it normalises pixels"


def _unlike_block(block: Any) -> Iterator[str]:
    """Why a block is not a pre-norm block whose attention and MLP ViViT has."""
    if reason := _unknown(block, BLOCKS):
        yield reason
        return
    for part, classes in ((block.attn, ATTENTION), (block.mlp, MLPS)):
        if reason := _unknown(part, classes):
            yield reason
            return
    for norm in (block.norm1, block.norm2):
        if type(norm).__name__ not in NORMS[:2]:
            yield f"its norms are {type(norm).__name__}"
    attn, mlp = block.attn, block.mlp
    if attn.proj.in_features != attn.proj.out_features:
        yield "its heads do not add up to its width"
    if getattr(attn, "gate", None) is not None:
        yield "its attention is gated"
    if _act_name(mlp) is None:
        yield f"its {type(mlp).__name__} has the activation {type(mlp.act).__name__}"
    if getattr(mlp, "gate_last", False):
        yield "its MLP has the gate last"
