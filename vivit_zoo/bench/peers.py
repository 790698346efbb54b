"""The ViViT models of transformers and vit-pytorch with the sizes of ours, for benchmarks.

They are used without changes. That of transformers computes the tanh form of GELU from elementary operations. That of
vit-pytorch has the erf form, no bias on queries, keys and values, and two LayerNorms around the tubelet embedding.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from vivit_zoo.bench.measure import Candidate
from vivit_zoo.config import ViViTConfig
from vivit_zoo.model import ViViT

__all__ = ["PEERS", "Peer", "TransformersViViT", "candidates", "our_model", "vit_pytorch_vivit"]


class TransformersViViT(nn.Module):
    """`VivitForVideoClassification` of transformers in our layout: (b, c, T, H, W) -> (b, num_classes).

    Args:
        config: the sizes; all other options have the defaults of transformers.
        attention: its `attn_implementation`: "eager", "sdpa", or "flash_attention_2".
        checkpointing: whether the backward pass recomputes the activations of each layer.

    Raises:
        ValueError: if the frames are not square.
    """

    def __init__(self, config: ViViTConfig, attention: str = "sdpa", checkpointing: bool = False) -> None:
        from transformers import VivitConfig, VivitForVideoClassification

        super().__init__()
        height, width = config.frame_size
        if height != width:
            raise ValueError(f"transformers' ViViT takes square frames, not {height}x{width}")
        fields: dict[str, Any] = {
            "image_size": height,
            "num_frames": config.num_frames,
            "tubelet_size": list(config.tubelet_size),
            "num_channels": config.in_chans,
            "hidden_size": config.dim,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.num_heads,
            "intermediate_size": round(config.dim * config.mlp_ratio),
            "num_labels": config.num_classes,
            "attn_implementation": attention,
        }
        self.model = VivitForVideoClassification(VivitConfig(**fields))
        if checkpointing:
            # The second is the first's name before transformers 5.
            enable = getattr(self.model, "activation_checkpointing_enable", None)
            (enable or self.model.gradient_checkpointing_enable)({"use_reentrant": False})

    def forward(self, video: Tensor) -> Tensor:
        return self.model(video.transpose(1, 2)).logits


def vit_pytorch_vivit(config: ViViTConfig, variant: str, pool: str) -> nn.Module:
    """`ViViT` of vit-pytorch: (b, c, T, H, W) -> (b, num_classes).

    Args:
        config: the sizes.
        variant: "factorized_encoder" or "factorized_self_attention".
        pool: "cls" or "mean".

    Raises:
        ValueError: if the patches are not square, since vit-pytorch confuses their height and width.
    """
    from vit_pytorch.vivit import ViViT

    frames, height, width = config.tubelet_size
    if height != width:
        raise ValueError(f"vit-pytorch's ViViT is measured on square patches, not {height}x{width}")
    temporal = 4 if config.temporal_depth is None else config.temporal_depth
    return ViViT(
        image_size=config.frame_size,
        image_patch_size=height,
        frames=config.num_frames,
        frame_patch_size=frames,
        num_classes=config.num_classes,
        dim=config.dim,
        spatial_depth=config.depth,
        temporal_depth=temporal if variant == "factorized_encoder" else config.depth,
        heads=config.num_heads,
        mlp_dim=round(config.dim * config.mlp_ratio),
        dim_head=config.dim // config.num_heads,
        channels=config.in_chans,
        pool=pool,
        variant=variant,
    )


@dataclass(frozen=True)
class Peer:
    """A model of another library.

    Args:
        variant: that it implements.
        make: builds it from a configuration.
        package: that it needs.
        can_checkpoint: whether `make` takes `checkpointing`.
        optional: whether it is left out where its package is missing.
    """

    variant: str
    make: Callable[..., nn.Module]
    package: str
    can_checkpoint: bool = False
    optional: bool = False


PEERS = {
    "transformers eager": Peer("joint", partial(TransformersViViT, attention="eager"), "transformers", True),
    "transformers sdpa": Peer("joint", partial(TransformersViViT, attention="sdpa"), "transformers", True),
    # For GPUs, in half precision.
    "transformers flash": Peer(
        "joint", partial(TransformersViViT, attention="flash_attention_2"), "flash_attn", True, optional=True
    ),
    "vit-pytorch factorised encoder": Peer(
        "factorised_encoder", partial(vit_pytorch_vivit, variant="factorized_encoder", pool="cls"), "vit_pytorch"
    ),
    # Without a class token, as in the paper and as ours.
    "vit-pytorch factorised self-attention": Peer(
        "factorised_self_attention",
        partial(vit_pytorch_vivit, variant="factorized_self_attention", pool="mean"),
        "vit_pytorch",
    ),
}


def candidates(
    configs: Iterable[ViViTConfig], peers: bool = False, checkpointing: bool = False, compile: bool = False
) -> list[Candidate]:
    """List our models, named after their variants, and optionally the models of other libraries.

    Ours run with `vivit_zoo.optimize_for_inference` in forward passes, unless they are compiled.

    Args:
        configs: configurations of our models, each of a different variant.
        peers: whether to add the other libraries' models of the same variants.
        checkpointing: whether to add each model with activation checkpointing, if it supports it.
        compile: whether to add each of all these models under torch.compile.

    Raises:
        ImportError: if the package of a peer is not installed, unless the peer is optional.
    """
    found = []
    for config in configs:
        makes: dict[str, Callable[..., nn.Module]] = {config.variant: our_model}
        rivals = {name: peer for name, peer in PEERS.items() if peers and peer.variant == config.variant}
        for name, peer in rivals.items():
            if find_spec(peer.package) is None:
                if peer.optional:
                    continue
                raise ImportError(
                    f"{name} needs {peer.package}; pip install 'vivit-zoo[bench]', or leave out the peers"
                )
            makes[name] = peer.make
        for name, make in makes.items():
            found.append(Candidate(name, partial(make, config), optimize=make is our_model))
            if checkpointing and (name not in rivals or rivals[name].can_checkpoint):
                found.append(Candidate(f"{name}, checkpointing", partial(make, config, checkpointing=True)))
    return found + [Candidate(f"{one.name}, compiled", one.make, True) for one in found if compile]


def our_model(config: ViViTConfig, checkpointing: bool = False) -> ViViT:
    """Build the model of a configuration, with or without activation checkpointing."""
    model = ViViT(config)
    model.set_grad_checkpointing(checkpointing)
    return model
