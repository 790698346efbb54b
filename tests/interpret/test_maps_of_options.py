"""Maps and rollout of models with the options of pretrained ones."""

import pytest
import torch
from einops import rearrange

from tests.conftest import tiny_model, video_for
from vivit_zoo import optimize_for_inference
from vivit_zoo.interpret.attention_rollout import rollout
from vivit_zoo.interpret.maps import attention_maps, head_maps
from vivit_zoo.interpret.recording import attention_layers

TOKENS = {"class_token": True, "reg_tokens": 1}
MODELS = {
    "self-attention, frames' class tokens": (
        {"variant": "factorised_self_attention", "global_pool": "token", "reg_tokens": 1},
        {"space": (3, 8, 8), "time": (8, 3, 3)},
    ),
    "self-attention, the clip's class token": (
        {"variant": "factorised_self_attention", "global_pool": "token", "share_class_token": True},
        {"space": (3, 7, 7), "time": (6, 3, 3)},
    ),
    "dot-product, tokens and a cap": (
        {"variant": "factorised_dot_product", "attn_softcap": 2.0, **TOKENS},
        {"space": (3, 8, 8), "time": (8, 3, 3)},
    ),
    "encoder, at each place, a cap": (
        {"variant": "factorised_encoder", "temporal_per_place": True, "global_pool": "avg", "attn_softcap": 2.0},
        {"space": (3, 6, 6), "time": (6, 3, 3)},
    ),
    "joint, relative positions": ({"rel_pos": True, **TOKENS, "global_pool": "all"}, {"clip": (20, 20)}),
    "joint, rope": ({"rope": {"axes": "thw"}, "global_pool": "avg"}, {"clip": (18, 18)}),
}
models = pytest.mark.parametrize(("changes", "shapes"), MODELS.values(), ids=MODELS)


@models
def test_maps_have_the_axes_they_say_and_sum_to_one(changes, shapes):
    model = tiny_model(**changes)
    maps = attention_maps(model, video_for(model.config))
    assert {axis: tuple(found.weights.shape[3:]) for axis, found in maps.items()} == shapes
    for found in maps.values():
        torch.testing.assert_close(found.weights.sum(-1), torch.ones_like(found.weights[..., 0]))


@models
def test_rollout_and_heads_are_shares_of_the_places(changes, shapes):
    model = tiny_model(**changes)
    video = video_for(model.config)
    shares = rollout(model, video)
    assert shares.shape == (2, 3, 6)
    assert shares.sum((1, 2)).tolist() == pytest.approx([1, 1])
    assert (shares > 0).all()
    for layer in attention_layers(model):
        heads = head_maps(model, video, layer)
        assert heads.shape == (2, 4, 3, 6)
        assert (heads.sum((2, 3)) <= 1 + 1e-9).all()


def test_maps_of_capped_scores_are_their_softmax():
    model = tiny_model(attn_softcap=2.0)
    block = model.encoder.blocks[0]
    seen = []
    block.attn.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    maps = attention_maps(model, video_for(model.config), ["encoder.blocks.0.attn"])["clip"]
    q, k, _ = rearrange(block.attn.qkv(seen[0]), "b n (qkv h d) -> qkv h b n d", qkv=3, h=4)
    torch.testing.assert_close(maps.weights[0], (2 * torch.tanh(q @ k.mT / 6**0.5 / 2)).softmax(-1))


def test_an_optimised_model_has_the_same_maps():
    model = tiny_model(variant="factorised_encoder").float()
    video = video_for(model.config, dtype=torch.float32)
    before = attention_maps(model, video)
    after = attention_maps(optimize_for_inference(model), video)
    assert before.keys() == after.keys()
    for axis, found in before.items():
        torch.testing.assert_close(after[axis].weights, found.weights)
