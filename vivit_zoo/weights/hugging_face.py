"""transformers' image models: a folder or an instance of one, by the `model_type` of its configuration.

transformers itself is not needed: config.json, preprocessor_config.json and the tensors say everything. The names are
those of all its versions, in memory and in files.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from einops import rearrange
from torch import Tensor

from vivit_zoo.config import RotaryConfig
from vivit_zoo.weights.family import ACTS
from vivit_zoo.weights.files import read_json
from vivit_zoo.weights.folds import ImageModel, Pixels, rename
from vivit_zoo.weights.report import WeightsError

__all__ = ["FAMILIES", "family", "read_hugging_face", "read_pixels"]

RENAMES = (
    (r"^embeddings\.patch_embeddings?\.(projection\.)?", "patch."),
    (r"^embeddings\.position_embeddings?(\.weight)?$", "pos_embed"),
    (r"^embeddings\.(cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_tokens"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^(layernorm|post_layernorm)\.", "norm."),
    (r"^((model|encoder)\.)*layers?\.", "blocks."),
    (r"\.(layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.(attention\.attention|attention|self_attn)\.([qkv])(uery|ey|alue|_proj)\.", r".attn.\2."),
    (r"\.(attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.(intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.weights_out|mlp\.down_proj)\.", ".mlp.fc2."),
    (r"\.mlp\.(gate|up)_proj\.", r".mlp.\1."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^head\.probe$", "attn_pool.query"),
    (r"^head\.attention\.in_proj_", "attn_pool.qkv."),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)
PATCHES = re.compile(r"^(.*)embeddings\.patch_embeddings?\.(projection\.)?weight$")
LEFT = (
    (r"pooler\.", "the pooler comes after the tokens' pooling"),
    (r"embeddings\.mask_token$", "a token of the pretraining"),
    (r"embeddings\.position_ids$", "a count of places, no weight"),
)
# model_type -> what transformers assumes where config.json is silent, and how the model pools.
VIT = {"num_attention_heads": 12, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "image_size": 224, "patch_size": 16}
DINOV2 = VIT | {"layer_norm_eps": 1e-6, "patch_size": 14}
CLIP = VIT | {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "patch_size": 32}
SIGLIP = VIT | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "global_pool": "attention"}
SIGLIP2 = SIGLIP | {"image_size": None, "num_patches": 256, "positions_filter": "antialiased"}
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "deit": VIT,
    "vit_mae": VIT,
    "ijepa": VIT,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2 | {"patch_size": 16},
    "dinov3_vit": VIT | {"num_attention_heads": 6, "layer_norm_eps": 1e-5, "rope_theta": 100.0},
    "clip_vision_model": CLIP,
    "clip": CLIP,
    "siglip_vision_model": SIGLIP,
    "siglip": SIGLIP,
    "siglip2_vision_model": SIGLIP2,
    "siglip2": SIGLIP2,
}


def family(config: Any) -> str | None:
    """The `model_type` of a configuration of transformers' that is an image model's; None of any other."""
    kind = config.get("model_type") if isinstance(config, Mapping) else getattr(config, "model_type", None)
    return kind if isinstance(kind, str) and kind in FAMILIES else None


def read_hugging_face(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str, pixels: Pixels | None = None
) -> ImageModel:
    """An image model of transformers' under the names of `folds`.

    Args:
        config: what config.json holds.
        tensors: under the names of any version, alone or as part of a classifier, a CLIP, an autoencoder.
        source: for messages.
        pixels: mean and standard deviation, if known.

    Raises:
        WeightsError: on a configuration or tensors that are not as transformers makes them.
    """
    anchors = [found for name in tensors if (found := PATCHES.match(name))]
    if len(anchors) != 1:
        raise WeightsError(f"{source} has {len(anchors)} patch embeddings; it holds {', '.join(sorted(tensors)[:6])}")
    prefix = anchors[0][1]
    left, theirs = {}, {}
    for name, tensor in tensors.items():
        why = next((why for pattern, why in LEFT if re.match(re.escape(prefix) + pattern, name)), None)
        if not name.startswith(prefix) or why:
            left[name] = why or "not part of the image encoder"
        else:
            theirs[name] = tensor
    origin = rename((name.removeprefix(prefix) for name in theirs), RENAMES, source)
    origin = {ours: (prefix + name,) for ours, (name,) in origin.items()}
    vit = {ours: theirs[name] for ours, (name,) in origin.items()}
    image = ImageModel(source, _facts(config, vit, source), vit, origin, left=left, pixels=pixels)
    if vit["patch.weight"].ndim == 2:  # SigLIP 2 cuts its patches itself, channels last
        ph, pw = image.facts["patch"]
        kernel = rearrange(vit["patch.weight"], "o (h w c) -> o c h w", h=ph, w=pw)
        image.replace("patch.weight", kernel, "patch.weight")
    return image


def _facts(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    defaults = FAMILIES[config["model_type"]]
    vision = config.get("vision_config", config)
    fields = defaults | {name: vision[name] for name in defaults if vision.get(name) is not None}
    acts = ACTS | {"silu": "silu"}
    act = "silu" if vision.get("use_swiglu_ffn") else fields["hidden_act"]
    if act not in acts:
        raise WeightsError(f"{source}: hidden_act {act!r} is not among {', '.join(acts)}")
    try:
        patch, size = (_pair(fields[name]) for name in ("patch_size", "image_size"))
        if size is None:
            side = math.isqrt(fields["num_patches"])
            size = (side * patch[0], side * patch[1])
        # transformers drops the pixels that fill no patch.
        size = (size[0] - size[0] % patch[0], size[1] - size[1] % patch[1])
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise WeightsError(f"{source}: config.json cannot be used: {error}") from error
    pool = "token" if "cls_token" in tensors else "avg"
    facts = {
        "image_size": size,
        "patch": patch,
        "num_heads": fields["num_attention_heads"],
        "act": acts[act],
        "norm_eps": fields["layer_norm_eps"],
        "positions_filter": defaults.get("positions_filter", "bicubic"),
        "global_pool": defaults["global_pool"] if "attn_pool.query" in tensors else pool,
    }
    if "rope_theta" in fields:
        facts["rope"] = RotaryConfig(coords="centred", base=fields["rope_theta"])
    return facts


def _pair(side: Any) -> Any:
    return (side, side) if isinstance(side, int) else side and tuple(side)


def read_pixels(folder: Path) -> Pixels | None:
    """Mean and standard deviation of a folder's preprocessor_config.json; None where it says none.

    Raises:
        WeightsError: if the file is damaged.
    """
    file = folder / "preprocessor_config.json"
    if not file.exists():
        return None
    content = read_json(file)
    mean, deviation = content.get("image_mean"), content.get("image_std")
    if not content.get("do_normalize", True):
        mean, deviation = (0.0,), (1.0,)
    if not isinstance(mean, list | tuple) or not isinstance(deviation, list | tuple):
        return None
    return tuple(map(float, mean)), tuple(map(float, deviation))
