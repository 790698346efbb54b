"""Starts from original image checkpoints: every tensor as the original code initialises it."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from einops import rearrange
from timm.layers import LayerNorm
from torch import nn

from tests.conftest import tiny_config
from tests.weights.test_start import image_model
from vivit_zoo import ViViT, ViViTConfig
from vivit_zoo.weights import config_for_image, init_from_image
from vivit_zoo.weights.original import read_facts, to_checkpoint

INIT = [
    "fdp_central_tile", "fe_average", "fe_central", "fe_gap_from_token", "fsa_central_tile_default",
    "joint_arp_tile_t4", "joint_central_tile", "joint_central_tile_t4", "joint_from_joint_same_shape_new_head",
    "joint_resize_tile", "joint_token_from_gap", "joint_uniform_sampling_tile",
]  # fmt: skip


TUBELETS = {
    "central_frame_initializer": "central_frame",
    "average_frame_initializer": "filter_inflation",
    "average_arp_frame_initializer": "arp",
}


def video_checkpoint(file, target):
    """A video model's parameters out of an .npz, in our terms."""
    params = {name: torch.from_numpy(array) for name, array in np.load(file).items()}
    if params["embedding/kernel"].ndim == 4:
        params["embedding/kernel"] = params["embedding/kernel"][None]
    facts = read_facts(params, "the case")
    config = ViViTConfig(
        **facts
        | {
            "variant": target["variant"],
            "num_frames": target["num_frames"],
            "image_size": (target["image_height"], target["image_width"]),
            "order": target["attention_config"].get("attention_order", "space_time"),
            "sampled_frames": target["temporal_encoding_config"].get("n_sampled_frames"),
        }
    )
    return to_checkpoint(params, {}, config, "the case"), params


@pytest.mark.parametrize("case", INIT)
def test_every_tensor_equals_the_original_initialisers(parity, case):
    folder = parity / "init" / case
    config = json.loads((folder / "config.json").read_text())
    target, provenance = config["target"], config["provenance"]
    before, raw = video_checkpoint(folder / "video_params_before.npz", target)
    after, _ = video_checkpoint(folder / "video_params_after.npz", target)
    model = ViViT(before.config).eval()
    model.load_state_dict(before.tensors)
    name = "cls_SpatialTransformer"
    if provenance.get(name, "").startswith("UNTOUCHED"):
        # The original keeps the model's class token and replaces the position that is added to it. Ours has no position
        # to replace: the token alone is the model's.
        model.encoder.spatial.cls_token.token.data = raw[name].flatten()

    report = init_from_image(
        model,
        folder / "source_checkpoint",
        tubelet=TUBELETS.get(target["temporal_encoding_config"].get("kernel_init_method"), "central_frame"),
        positions=config["init_from"]["positional_embed_size_change"],
        temporal="copy",
    )
    state = model.state_dict()
    assert state.keys() == after.tensors.keys()
    for name, tensor in after.tensors.items():
        torch.testing.assert_close(state[name], tensor.float(), rtol=0, atol=2e-6, msg=name)
        # The report says the same as the original's provenance, up to the sum of class token and position.
        told = {provenance[theirs].split()[0] for theirs in after.origin[name]}
        ours = "COPY" if name in report.copied else "DERIVED" if name in report.derived else "UNTOUCHED(target"
        if not name.endswith(("cls_token.token", "pos_embed.table")):
            assert {ours} == told, name
    assert report.copied.keys() | report.derived.keys() | report.new.keys() == state.keys()

    io = np.load(folder / "io.npz")
    logits = model(rearrange(torch.from_numpy(io["video"]), "b t h w c -> b c t h w"))
    np.testing.assert_allclose(logits.detach(), io["logits"], rtol=0, atol=5e-6)


def test_npz_by_timms_reader_equals_the_same_parameters_as_msgpack(parity):
    """The pre-Linen names; whatever reader takes them, the tensors are the same."""
    file = parity / "image_vit_seed301_prelinen_names.npz"
    config = tiny_config(
        variant="joint", num_frames=6, image_size=16, tubelet_size=(2, 4, 4), mlp_ratio=56 / 24, num_classes=7
    )
    model = ViViT(config)
    report = init_from_image(model, file)
    arrays = {name: torch.from_numpy(array) for name, array in np.load(file).items()}
    block = "Transformer/encoderblock_1"
    query = arrays[f"{block}/MultiHeadDotProductAttention_1/query/kernel"].flatten(1).T
    torch.testing.assert_close(model.encoder.blocks[1].attn.qkv.weight[:24], query)
    torch.testing.assert_close(model.encoder.blocks[1].norm2.weight, arrays[f"{block}/LayerNorm_2/scale"])
    table = arrays["Transformer/posembed_input/pos_embedding"][0]
    torch.testing.assert_close(model.encoder.pos_embed.table, table[1:].expand(3, -1, -1))
    torch.testing.assert_close(model.encoder.cls_token.token, arrays["cls"].flatten() + table[0])
    assert not report.notes  # the original's GELU is the tanh form, as the model's


def test_npz_of_big_vision_with_positions_outside_the_class_token(tmp_path):
    """Written here from a timm model in big_vision's names: blocks stacked, no position for the class token."""
    act = partial(nn.GELU, approximate="tanh")
    image = image_model(img_size=24, no_embed_class=True, act_layer=act, norm_layer=partial(LayerNorm, eps=1e-6))
    state = {name: tensor.numpy() for name, tensor in image.state_dict().items()}
    arrays = {"cls": state["cls_token"], "pos_embedding": state["pos_embed"]}
    arrays["embedding/kernel"] = state["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    arrays["embedding/bias"] = state["patch_embed.proj.bias"]
    for ours, kind in [("weight", "scale"), ("bias", "bias")]:
        arrays[f"Transformer/encoder_norm/{kind}"] = state[f"norm.{ours}"]
    rows = {}
    for i in range(2):
        block, blocks = f"blocks.{i}.", rows.setdefault
        for number in (0, 1):
            for ours, kind in [("weight", "scale"), ("bias", "bias")]:
                blocks(f"LayerNorm_{number}/{kind}", []).append(state[f"{block}norm{number + 1}.{ours}"])
            dense = f"MlpBlock_0/Dense_{number}/"
            blocks(f"{dense}kernel", []).append(state[f"{block}mlp.fc{number + 1}.weight"].T)
            blocks(f"{dense}bias", []).append(state[f"{block}mlp.fc{number + 1}.bias"])
        attention = "MultiHeadDotProductAttention_0/"
        for part, name in enumerate(("query", "key", "value")):
            taken = slice(48 * part, 48 * (part + 1))
            blocks(f"{attention}{name}/kernel", []).append(state[f"{block}attn.qkv.weight"][taken].T.reshape(48, 4, 12))
            blocks(f"{attention}{name}/bias", []).append(state[f"{block}attn.qkv.bias"][taken].reshape(4, 12))
        blocks(f"{attention}out/kernel", []).append(state[f"{block}attn.proj.weight"].T.reshape(4, 12, 48))
        blocks(f"{attention}out/bias", []).append(state[f"{block}attn.proj.bias"])
    arrays |= {f"Transformer/encoderblock/{name}": np.stack(row) for name, row in rows.items()}
    np.savez(tmp_path / "image.npz", **{f"params/{name}": array for name, array in arrays.items()})
    read, given = (ViViT(config_for_image(image, num_frames=2)) for _ in range(2))
    init_from_image(read, tmp_path / "image.npz")
    init_from_image(given, image)
    for name, tensor in given.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], tensor, rtol=0, atol=0, msg=name)
