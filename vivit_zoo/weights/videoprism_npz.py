"""VideoPrism's original files (flax_base_f16r288_repeated.npz, ...): encoders, under the names of transformers'.

An array holds a parameter of all blocks, stacked along its first axis.
"""

import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from einops import EinopsError, rearrange
from torch import Tensor

from vivit_zoo.weights.family import read_family
from vivit_zoo.weights.report import Checkpoint, WeightsError
from vivit_zoo.weights.videoprism import VIDEOPRISM

__all__ = ["is_videoprism", "read_videoprism"]

KERNEL = "params/patch_projection/linear/kernel"
# Theirs in transformers -> here, under `params/`, and the layout; of a block with its number first.
ENDS = {
    "spatial_embeddings.position_embeddings": ("spatial_pos_emb/emb_var", "n d -> 1 n d"),
    "temporal_embeddings.position_embeddings": ("temporal_pos_emb/emb_var", "n d -> 1 n d"),
    "layernorm1.weight": ("spatial_ln/scale", "d -> d"),
    "layernorm1.bias": ("spatial_ln/bias", "d -> d"),
    "layernorm2.weight": ("temporal_ln/scale", "d -> d"),
    "layernorm2.bias": ("temporal_ln/bias", "d -> d"),
}
BLOCK = {
    "layernorm_before.weight": ("layer_norm/scale", "l d -> l d"),
    "layernorm_before.bias": ("layer_norm/bias", "l d -> l d"),
    "layernorm_after.weight": ("ff_layer/layer_norm/scale", "l d -> l d"),
    "layernorm_after.bias": ("ff_layer/layer_norm/bias", "l d -> l d"),
    "attention.q_proj.weight": ("self_attention/query/w", "l i n h -> l (n h) i"),
    "attention.q_proj.bias": ("self_attention/query/b", "l n h -> l (n h)"),
    "attention.k_proj.weight": ("self_attention/key/w", "l i n h -> l (n h) i"),
    "attention.k_proj.bias": ("self_attention/key/b", "l n h -> l (n h)"),
    "attention.v_proj.weight": ("self_attention/value/w", "l i n h -> l (n h) i"),
    "attention.v_proj.bias": ("self_attention/value/b", "l n h -> l (n h)"),
    "attention.o_proj.weight": ("self_attention/post/w", "l o n h -> l o (n h)"),
    "attention.o_proj.bias": ("self_attention/post/b", "l o -> l o"),
    "mlp.fc1.weight": ("ff_layer/ffn_layer1/linear/kernel", "l i o -> l o i"),
    "mlp.fc1.bias": ("ff_layer/ffn_layer1/linear/bias", "l o -> l o"),
    "mlp.fc2.weight": ("ff_layer/ffn_layer2/linear/kernel", "l i o -> l o i"),
    "mlp.fc2.bias": ("ff_layer/ffn_layer2/linear/bias", "l o -> l o"),
}


def is_videoprism(file: Path) -> bool:
    """Whether an .npz is one of VideoPrism's encoders."""
    try:
        with zipfile.ZipFile(file) as archive:
            return f"{KERNEL}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
        return False  # no zip file, or a damaged one, which the reader of other files refuses


def read_videoprism(file: Path) -> Checkpoint:
    """An encoder of VideoPrism in our terms. Clips and patches are taken to be square.

    Raises:
        WeightsError: if the file is damaged, or holds more than an encoder.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            given = {name: torch.from_numpy(np.array(arrays[name])).float() for name in arrays.files}
    except Exception as error:  # numpy and zipfile raise errors of many kinds for damaged files
        raise WeightsError(f"{file} is damaged or cut short: {error}") from error
    try:
        tensors, origin = _named(given)
        d = len(tensors["layernorm1.weight"])
        patch = math.isqrt(len(given[KERNEL]) // 3)
        config = {
            "num_frames": tensors["temporal_embeddings.position_embeddings"].shape[1],
            "image_size": patch * math.isqrt(tensors["spatial_embeddings.position_embeddings"].shape[1]),
            "tubelet_size": [1, patch, patch],
            "hidden_size": d,
            "num_attention_heads": given[_stacked("spatial", "self_attention/query/w")].shape[2],
            "intermediate_size": len(tensors["spatial_layers.0.mlp.fc1.weight"]),
            "num_spatial_layers": len(given[_stacked("spatial", "layer_norm/scale")]),
            "num_temporal_layers": len(given[_stacked("temporal", "layer_norm/scale")]),
        }
    except (EinopsError, LookupError, RuntimeError) as error:
        raise WeightsError(f"{file} is no encoder of VideoPrism: {error}") from error
    unknown = given.keys() - set(origin.values())
    if unknown:
        raise WeightsError(
            f"{file} holds more than an encoder ({', '.join(sorted(unknown)[:4])}); take the files for transformers"
        )
    checkpoint = read_family(VIDEOPRISM, config, tensors, str(file))
    checkpoint.origin = {
        ours: tuple(dict.fromkeys(origin[name] for name in theirs)) for ours, theirs in checkpoint.origin.items()
    }
    return checkpoint


def _stacked(half: str, name: str) -> str:
    return f"params/{half}_encoder/transformers_stack/x_layers/{name}"


def _named(given: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors under transformers' names, and where each is from."""
    patches = "spatial_embeddings.patch_embeddings.projection."
    side = math.isqrt(len(given[KERNEL]) // 3)
    tensors = {
        patches + "weight": rearrange(given[KERNEL], "(h w c) d -> d c 1 h w", h=side, w=side),
        patches + "bias": given[KERNEL.replace("kernel", "bias")],
    }
    origin = {patches + "weight": KERNEL, patches + "bias": KERNEL.replace("kernel", "bias")}
    for name, (theirs, layout) in ENDS.items():
        tensors[name], origin[name] = rearrange(given[f"params/{theirs}"], layout), f"params/{theirs}"
    for half in ("spatial", "temporal"):
        for name, (theirs, layout) in BLOCK.items():
            for i, tensor in enumerate(rearrange(given[_stacked(half, theirs)], layout)):
                block = f"{half}_layers.{i}.{name}"
                tensors[block], origin[block] = tensor, _stacked(half, theirs)
    return tensors, origin
