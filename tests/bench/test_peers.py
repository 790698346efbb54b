"""Agreement with other people's implementations under the same weights: transformers' ViViT and timm's ViT."""

from functools import partial

import pytest
import timm
import torch
import transformers
from torch import nn

from tests.conftest import randomise, tiny_config, video_for
from vivit_zoo import ViViT
from vivit_zoo.blocks import Block

QKV = ("q", "k", "v")


def transformers_peer(model):
    """transformers' model with the weights of ours, copied name by name, every one of them used."""
    config = model.config
    peer = transformers.VivitForVideoClassification(
        transformers.VivitConfig(
            image_size=config.frame_size[0],
            num_frames=config.num_frames,
            tubelet_size=list(config.tubelet_size),
            hidden_size=config.dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=round(config.dim * config.mlp_ratio),
            num_labels=config.num_classes,
        )
    ).to(next(model.parameters()).dtype)
    ours = dict(model.state_dict())
    tubelets, table, token = (
        ours.pop(f"{n}") for n in ("tubelet_embed.proj.weight", "encoder.pos_embed.table", "encoder.cls_token.token")
    )
    theirs = {
        "vivit.embeddings.patch_embeddings.projection.weight": tubelets.view(-1, config.in_chans, *config.tubelet_size),
        "vivit.embeddings.patch_embeddings.projection.bias": ours.pop("tubelet_embed.proj.bias"),
        "vivit.embeddings.cls_token": token.view(1, 1, -1),
        # Theirs adds a position to the class token; ours is the sum.
        "vivit.embeddings.position_embeddings": torch.cat([torch.zeros(1, config.dim), table.flatten(0, 1)])[None],
    }
    for kind in ("weight", "bias"):
        theirs[f"vivit.layernorm.{kind}"] = ours.pop(f"encoder.norm.{kind}")
        theirs[f"classifier.{kind}"] = ours.pop(f"head.{kind}")
        for i in range(config.depth):
            for our_name, their_name in {
                "norm1": "layernorm_before",
                "norm2": "layernorm_after",
                "attn.proj": "attention.o_proj",
                "mlp.fc1": "mlp.fc1",
                "mlp.fc2": "mlp.fc2",
            }.items():
                theirs[f"vivit.layers.{i}.{their_name}.{kind}"] = ours.pop(f"encoder.blocks.{i}.{our_name}.{kind}")
            for name, part in zip(QKV, ours.pop(f"encoder.blocks.{i}.attn.qkv.{kind}").chunk(3), strict=True):
                theirs[f"vivit.layers.{i}.attention.{name}_proj.{kind}"] = part
    assert not ours
    peer.load_state_dict(theirs)
    return peer.eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_joint_variant_equals_transformers(dtype, tolerance):
    model = randomise(ViViT(tiny_config(image_size=12))).to(dtype).eval()
    peer = transformers_peer(model)
    video = video_for(model.config, dtype=dtype).requires_grad_()
    their_video = video.detach().transpose(1, 2).clone().requires_grad_()  # b t c h w
    out, theirs = model(video), peer(their_video).logits
    scale = theirs.abs().max()
    assert (out - theirs).abs().max() < tolerance * scale

    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    out.backward(cotangent)
    theirs.backward(cotangent)
    their_gradient = their_video.grad.transpose(1, 2)
    assert (video.grad - their_gradient).abs().max() < tolerance * their_gradient.abs().max()
    for name, their_name in gradient_pairs(model.config.depth):
        ours = model.get_parameter(name).grad
        peers = torch.cat([peer.get_parameter(one).grad.flatten() for one in their_name.split()]).view_as(ours)
        assert (ours - peers).abs().max() < tolerance * max(peers.abs().max(), 1), name
    their_positions = peer.vivit.embeddings.position_embeddings.grad[0]
    our_positions = model.encoder.pos_embed.table.grad.flatten(0, 1)
    assert (our_positions - their_positions[1:]).abs().max() < tolerance * their_positions.abs().max()
    their_token = peer.vivit.embeddings.cls_token.grad.flatten()
    assert (model.encoder.cls_token.token.grad - their_token).abs().max() < tolerance * max(their_token.abs().max(), 1)


def gradient_pairs(depth):
    """Our name of each weight and bias of the blocks, the tubelets, the last norm and the head, and theirs."""
    ends = {
        "tubelet_embed.proj": "vivit.embeddings.patch_embeddings.projection",
        "encoder.norm": "vivit.layernorm",
        "head": "classifier",
    }
    parts = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
    parts |= {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    blocks = {f"encoder.blocks.{i}.{a}": f"vivit.layers.{i}.{b}" for i in range(depth) for a, b in parts.items()}
    for kind in ("weight", "bias"):
        yield from ((f"{ours}.{kind}", f"{theirs}.{kind}") for ours, theirs in (ends | blocks).items())
        for i in range(depth):
            theirs = " ".join(f"vivit.layers.{i}.attention.{name}_proj.{kind}" for name in QKV)
            yield f"encoder.blocks.{i}.attn.qkv.{kind}", theirs


def test_block_equals_timm():
    """timm's block takes our names as they are."""
    block = randomise(Block(24, 4, qkv_bias=True)).double().eval()
    options = {"act_layer": partial(nn.GELU, approximate="tanh"), "norm_layer": partial(nn.LayerNorm, eps=1e-6)}
    peer = timm.models.vision_transformer.Block(24, 4, qkv_bias=True, **options)
    peer.load_state_dict(block.state_dict())
    peer.double().eval()
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    torch.testing.assert_close(block(x), peer(x), rtol=0, atol=1e-12)
    frames = torch.randn(2, 3, 7, 24, dtype=torch.float64)
    torch.testing.assert_close(block(frames), peer(frames.flatten(0, 1)).unflatten(0, (2, 3)), rtol=0, atol=1e-12)
