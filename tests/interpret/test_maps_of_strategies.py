"""Maps of your own encoders and strategies."""

import pytest
import torch
from einops import rearrange
from torch import nn

from tests.conftest import randomise, tiny_config, tiny_model, video_for
from tests.interpret.test_maps import dense, inputs_of, rolled, softmax_of
from vivit_zoo import ViViT
from vivit_zoo.attention import attend, attend_over_time
from vivit_zoo.blocks import Block
from vivit_zoo.interpret.attention_rollout import rollout
from vivit_zoo.interpret.maps import attention_maps, head_maps
from vivit_zoo.interpret.recording import attention_layers
from vivit_zoo.positions import PosEmbed


def attend_to_the_past(q, k, v, dropout=0.0):
    past = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=past, dropout_p=dropout)


def attend_in_pairs(q, k, v, dropout=0.0):
    pairs = [rearrange(x, "b (t two) h n d -> b t h (two n) d", two=2) for x in (q, k, v)]
    return rearrange(attend(*pairs, dropout), "b t h (two n) d -> b (t two) h n d", two=2)


class Mine(nn.Module):
    """An encoder of somebody's own: in pairs of frames, then over time, then causally over the clip."""

    def __init__(self, t, n, dim, num_heads):
        super().__init__()
        self.pos_embed = PosEmbed(t, n, dim=dim)
        self.pairs = Block(dim, num_heads, attend=attend_in_pairs)
        self.time = Block(dim, num_heads, attend=attend_over_time)
        self.across = Block(dim, num_heads, attend=attend_to_the_past)
        self.norm = nn.RMSNorm(dim)

    def forward(self, x):
        x = self.time(self.pairs(self.pos_embed(x)))
        return self.norm(self.across(x.flatten(1, 2))).mean(1)


def test_encoders_and_strategies_of_ones_own():
    config = tiny_config(num_frames=8, image_size=(8, 12), dim=12)
    model = randomise(ViViT(config, Mine)).double().eval()
    video = video_for(config, batch=1)
    maps = attention_maps(model, video)
    assert {axis: one.layers for axis, one in maps.items()} == {
        "clip": ("encoder.pairs.attn", "encoder.across.attn"),
        "time": ("encoder.time.attn",),
    }
    pairs, across = maps["clip"].weights[:, :, 0]
    reach = pairs.mean(0) > 0
    assert torch.equal(reach, torch.block_diag(*[torch.ones(12, 12)] * 2).bool())  # two pairs of frames of six places
    seen = inputs_of(model, video)
    causal = softmax_of(model.encoder.across.attn, seen["encoder.across.attn"][0]).tril()
    torch.testing.assert_close(across, causal / causal.sum(-1, keepdim=True))
    time = dense(model.encoder.time.attn, seen["encoder.time.attn"][0], "time")
    expected = rolled([pairs.mean(0), time, across.mean(0)]).mean(0)
    torch.testing.assert_close(rollout(model, video).flatten(), expected)
    torch.testing.assert_close(head_maps(model, video, "encoder.across.attn")[0].flatten(1), across.mean(-2))


def test_a_strategy_without_maps_is_named():
    def attend_by_value(q, k, v, dropout=0.0):
        return attend(q, k, v.exp(), dropout)

    model = tiny_model()
    model.encoder.blocks[1].attn.attend = attend_by_value
    with pytest.raises(ValueError, match=r"attend_by_value of encoder\.blocks\.1\.attn does not weigh its values"):
        attention_maps(model, video_for(model.config))
    assert attention_maps(model, video_for(model.config), ["encoder.blocks.0.attn"])["clip"].weights.shape[0] == 1


def test_maps_of_different_shapes_are_named_and_can_be_had_apart():
    class Uneven(nn.Module):
        def __init__(self, t, n, dim, num_heads):
            super().__init__()
            self.few, self.many = Block(dim, num_heads), Block(dim, 2 * num_heads)

        def forward(self, x):
            return self.many(self.few(x.flatten(1, 2))).mean(1)

    model = ViViT(tiny_config(), Uneven)
    video = video_for(model.config, dtype=torch.float32)
    with pytest.raises(
        ValueError, match=r"over clip differ in shape: encoder\.few\.attn \(4, 2, 18, 18\), encoder\.many"
    ):
        attention_maps(model, video)
    assert attention_maps(model, video, ["encoder.many.attn"])["clip"].weights.shape == (1, 8, 2, 18, 18)


def test_a_layer_that_nobody_knows_is_named():
    class Foreign(Mine):
        def __init__(self, t, n, dim, num_heads):
            super().__init__(t, n, dim, num_heads)
            self.recurrent = nn.GRU(dim, dim)

    with pytest.raises(ValueError, match=r"encoder\.recurrent is a trained GRU outside of attention and MLP"):
        rollout(ViViT(tiny_config(num_frames=8), Foreign), video_for(tiny_config(num_frames=8)))
    with pytest.raises(ValueError, match="do not fit into float16"):
        rollout(tiny_model().half(), video_for(tiny_config()).half())


def test_nothing_reaches_the_class_token_under_a_causal_mask():
    model = tiny_model()
    for name in attention_layers(model):
        model.get_submodule(name).attend = attend_to_the_past
    assert not rollout(model, video_for(model.config)).any()
