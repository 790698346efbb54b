"""An encoder of your own in place of a variant's."""

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from tests.conftest import randomise, tiny_config, video_for
from vivit_zoo import ViViT
from vivit_zoo.blocks import Block
from vivit_zoo.positions import PosEmbed


class OwnFrameThenAll(nn.Module):
    """A variant of somebody's own, in 15 lines: a block within frames, then blocks over all tokens."""

    def __init__(self, t, n, dim, depth, num_heads):
        super().__init__()
        self.pos_embed = PosEmbed(t, n, dim=dim)
        self.within = Block(dim, num_heads)
        self.across = nn.Sequential(*(Block(dim, num_heads) for _ in range(depth - 1)))

    def forward(self, x):
        x = self.within(self.pos_embed(x))
        return self.across(x.flatten(1, 2)).mean(1)


def test_own_encoder_runs_wherever_the_four_run():
    config = tiny_config(num_classes={"noun": 3, "verb": 2})
    model = randomise(ViViT(config, encoder=OwnFrameThenAll)).double().eval()
    video = video_for(config)
    assert {name: logits.shape for name, logits in model(video).items()} == {"noun": (2, 3), "verb": (2, 2)}
    model.reset_classifier(5)
    randomise(model.head)
    model.double()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(video), model(video))
    assert create_optimizer_v2(model, opt="sgd", lr=0.1, layer_decay=0.5).param_groups
    with pytest.raises(ValueError, match="OwnFrameThenAll holds no Encoder"):
        model.set_grad_checkpointing()


def test_own_encoder_gets_the_fields_it_names():
    seen = {}

    def encoder(t, n, dim, temporal_depth=7, order=None, **options):
        seen.update(t=t, n=n, dim=dim, temporal_depth=temporal_depth, order=order, options=options)
        return nn.Identity()

    ViViT(tiny_config(temporal_depth=None, order="time_space", drop=0.1, global_pool="avg"), encoder)
    assert (seen["t"], seen["n"], seen["dim"], seen["temporal_depth"], seen["order"]) == (3, 6, 24, 7, "time_space")
    assert seen["options"].keys() == {
        "attend", "attn_drop", "attn_inner_norm", "attn_pool", "act", "drop", "drop_path", "gated", "global_pool",
        "last_norm", "mlp_inner_norm", "mlp_ratio", "norm", "pos_embed", "pre_norm", "qk_norm", "qkv_bias",
        "reg_tokens",
    }  # fmt: skip
