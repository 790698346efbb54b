"""Original image checkpoints as .npz files, of the original JAX code's first version and of big_vision."""

import math
from pathlib import Path

import numpy as np
from timm.models.vision_transformer import VisionTransformer

from vivit_zoo.weights.image import image_checkpoint
from vivit_zoo.weights.report import Checkpoint, WeightsError
from vivit_zoo.weights.timm import read_timm

__all__ = ["read_npz"]


def read_npz(file: Path) -> Checkpoint:
    """The image model of an original .npz file in our terms, by way of a timm model of the file's sizes.

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
    image = read_timm(model, str(file))
    image.pixels = ((0.5,), (0.5,))  # as everywhere in the original code
    image.facts["positions_filter"] = "linear"
    checkpoint = image_checkpoint(image)
    # The original's rule: a class token where the variant pools one, none in Models 3 and 4.
    pool = None if checkpoint.config.global_pool == "token" else checkpoint.config.global_pool
    checkpoint.config = checkpoint.config.replace(class_token=None, global_pool=pool)
    return checkpoint
