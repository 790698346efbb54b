"""Other people's ViViT models in the geometry of ours, for benchmarks: transformers' and vit-pytorch's.

They are taken as they come: transformers' computes tanh GELU from elementary operations; vit-pytorch's has the erf
form, no bias on queries, keys and values, and two LayerNorms around the tubelet embedding.
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
    """transformers' `VivitForVideoClassification` with our layout: (b, c, T, H, W) -> (b, num_classes).

    Args:
        config: sizes; the defaults of everything else are transformers' own.
        attention: its `attn_implementation`, "eager" or "sdpa".
        checkpointing: whether the backward pass computes each layer's activations again.

    Raises:
        ValueError: on frames that are not square, which it does not take.
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
    """vit-pytorch's `ViViT`: (b, c, T, H, W) -> (b, num_classes).

    Args:
        config: sizes.
        variant: its own name of it, "factorized_encoder" or "factorized_self_attention".
        pool: "cls" or "mean".

    Raises:
        ValueError: on tubelets that are not square, which it mixes up.
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
    """A model of others: which of our variants it is, what builds it, the module it comes in."""

    variant: str
    make: Callable[..., nn.Module]
    package: str
    can_checkpoint: bool = False


PEERS = {
    "transformers eager": Peer("joint", partial(TransformersViViT, attention="eager"), "transformers", True),
    "transformers sdpa": Peer("joint", partial(TransformersViViT, attention="sdpa"), "transformers", True),
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
    """Our models, named after their variants, and those of others that are the same variants.

    Args:
        configs: of our models, with a variant each.
        peers: whether to add the others.
        checkpointing: whether to add each that can compute its activations again in the backward pass, doing so.
        compile: whether to add each of all these under torch.compile.

    Raises:
        ImportError: if the package of a peer is not installed.
    """
    found = []
    for config in configs:
        makes: dict[str, Callable[..., nn.Module]] = {config.variant: our_model}
        rivals = {name: peer for name, peer in PEERS.items() if peers and peer.variant == config.variant}
        for name, peer in rivals.items():
            if find_spec(peer.package) is None:
                raise ImportError(
                    f"{name} needs {peer.package}; pip install 'vivit-zoo[bench]', or leave out the peers"
                )
            makes[name] = peer.make
        for name, make in makes.items():
            found.append(Candidate(name, partial(make, config)))
            if checkpointing and (name not in rivals or rivals[name].can_checkpoint):
                found.append(Candidate(f"{name}, checkpointing", partial(make, config, checkpointing=True)))
    return found + [Candidate(f"{one.name}, compiled", one.make, True) for one in found if compile]


def our_model(config: ViViTConfig, checkpointing: bool = False) -> ViViT:
    """The model of a configuration, with or without activation checkpointing."""
    model = ViViT(config)
    model.set_grad_checkpointing(checkpointing)
    return model
