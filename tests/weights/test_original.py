"""The original JAX code's checkpoints, held against what the original code computed with them."""

import json
import math
import re

import numpy as np
import pytest
import torch
from einops import rearrange

from vivit_zoo import ViViT
from vivit_zoo.weights.flax import flatten_tree, read_msgpack
from vivit_zoo.weights.names import export_tensors
from vivit_zoo.weights.original import ORIGINAL, ORIGINAL_FACTORISED, as_original

FORWARD = [
    "fdp_gap", "fe_avgpool_gap", "fe_avgpool_token", "fe_gap", "fe_token", "fe_uniform_sampling_token",
    "fsa_space_time", "fsa_time_space", "joint_gap", "joint_token", "joint_token_prelogits",
    "joint_uniform_sampling_token",
]  # fmt: skip


def arguments(config):
    """What a checkpoint does not say, from the case's description."""
    found = {
        "variant": config["variant"],
        "num_frames": config["num_frames"],
        "image_size": (config["image_height"], config["image_width"]),
    }
    if order := config["attention_config"].get("attention_order"):
        found["order"] = order
    if sampled := config["temporal_encoding_config"].get("n_sampled_frames"):
        found["sampled_frames"] = sampled
    return found


def load_case(folder):
    config = json.loads((folder / "config.json").read_text())
    return ViViT.from_pretrained(folder / "checkpoint", **arguments(config)), config, np.load(folder / "io.npz")


@pytest.mark.parametrize("case", FORWARD)
def test_logits_and_gradients_equal_the_originals(parity, case):
    model, config, io = load_case(parity / "forward" / case)
    video = rearrange(torch.from_numpy(io["video"]), "b t h w c -> b c t h w")
    np.testing.assert_allclose(model(video).detach(), io["logits"], rtol=0, atol=3e-6)

    model.double()
    video = video.double().requires_grad_()
    logits = model(video)
    np.testing.assert_allclose(logits.detach(), io["logits_f64"], rtol=0, atol=1e-9)
    if "prelogits" in io:
        hidden = model.forward_head(model.forward_features(video), pre_logits=True)
        np.testing.assert_allclose(hidden.detach(), io["prelogits"], rtol=0, atol=3e-6)

    (logits * torch.from_numpy(io["cotangent"])).sum().backward()
    gradient = rearrange(video.grad, "b c t h w -> b t h w c")
    np.testing.assert_allclose(gradient, io["video_grad"], rtol=0, atol=1e-5 * np.abs(io["video_grad"]).max())
    norms = {name: gradient.norm().item() for name, gradient in original_gradients(model).items()}
    assert norms.keys() == config["param_grad_l2"].keys()
    largest = max(norms.values())
    for name, norm in norms.items():
        assert math.isclose(norm, config["param_grad_l2"][name], rel_tol=2e-5, abs_tol=2e-6 * largest), name


def original_gradients(model):
    """Gradients under the original names: the table of names, used in the other direction."""
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name in [name for name in gradients if name.endswith("pos_embed.table")]:
        token = gradients.get(name.replace("pos_embed.table", "cls_token.token"))
        rows = gradients[name].flatten(end_dim=-2)
        # The class token and its position are summed, so that both have the gradient of the sum.
        gradients[name] = rows if token is None else as_original(rows, token)
    table = ORIGINAL_FACTORISED if any("attn_time" in name for name in gradients) else ORIGINAL
    config = model.config
    t, h, w = config.tubelet_size
    temporal = {name: gradients.pop(name) for name in list(gradients) if name.startswith("encoder.temporal.")}
    theirs = export_tensors(table, gradients, heads=config.num_heads, t=t, h=h, w=w)
    return theirs | export_tensors(table, temporal, heads=config.temporal_num_heads or 1)


@pytest.mark.parametrize("case", FORWARD)
def test_table_of_names_goes_both_ways(parity, case):
    """What was read, written back under the original names, is what was in the file, up to the folded class token."""
    folder = parity / "forward" / case
    model, config, _ = load_case(folder)
    tree = read_msgpack(folder / "checkpoint")
    for key in config["checkpoint_params_path"].split("/"):
        tree = tree[key]
    params = flatten_tree(tree)
    state = dict(model.state_dict())
    for name in [name for name in state if name.endswith("pos_embed.table")]:
        token = name.replace("pos_embed.table", "cls_token.token") in state
        rows = state[name].flatten(end_dim=-2)
        state[name] = as_original(rows) if token else rows
    sizes = dict(zip("thw", model.config.tubelet_size, strict=True))
    table = ORIGINAL_FACTORISED if "attn_time" in " ".join(state) else ORIGINAL
    temporal = {name: state.pop(name) for name in list(state) if name.startswith("encoder.temporal.")}
    written = export_tensors(table, state, heads=model.config.num_heads, **sizes)
    written |= export_tensors(table, temporal, heads=model.config.temporal_num_heads or 1)
    assert written.keys() == params.keys()
    for name, tensor in params.items():
        if name.startswith("cls"):
            stack = name.replace("cls_", "") if "_" in name else "Transformer"
            tensor = tensor + params[f"{stack}/posembed_input/pos_embedding"][:, :1]
        if name.endswith("pos_embedding") and any(key.startswith("cls") for key in params):
            tensor = torch.cat([torch.zeros_like(tensor[:, :1]), tensor[:, 1:]], dim=1)
        if tensor.ndim == 4 and name == "embedding/kernel":
            tensor = tensor[None]
        assert torch.equal(written[name], tensor), name


@pytest.mark.parametrize("case", FORWARD)
def test_report_covers_everything(parity, case):
    model, config, _ = load_case(parity / "forward" / case)
    report = model.load_report
    assert report.copied.keys() | report.derived.keys() == model.state_dict().keys()
    assert not report.new
    assert report.used.keys() == config["param_shapes"].keys()
    assert set(report.derived) == {name for name in model.state_dict() if name.endswith("cls_token.token")}
    assert any(re.match("opt", name) for name in report.left)
    assert not report.notes
    assert "encoder" in str(report)


def test_an_order_that_is_not_given_is_noted(parity):
    file = parity / "forward" / "fsa_space_time" / "checkpoint"
    report = ViViT.from_pretrained(file, num_frames=6, image_size=16).load_report
    assert "note: order is taken to be 'space_time', which the file does not say" in str(report)
