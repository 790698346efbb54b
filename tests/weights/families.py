"""Tiny random video models of transformers, and how to run them on the pixels that ours take."""

import json
import warnings

import torch
from torch import nn

from tests.conftest import randomise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import of somebody else's package
    import transformers

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 56,
    "num_labels": 5,
}
PRISM = {
    "image_size": 12,
    "num_frames": 3,
    "tubelet_size": [1, 4, 4],
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_spatial_layers": 2,
    "num_temporal_layers": 3,
    "intermediate_size": 56,
    "num_labels": 5,
    "attn_implementation": "eager",
}
MAE = SIZES | {"image_size": 12, "patch_size": 4, "num_frames": 6, "tubelet_size": 2}
SFORMER = SIZES | {"image_size": 12, "patch_size": 4, "num_frames": 4}
JEPA = {
    **{"crop_size": 12, "patch_size": 4, "frames_per_clip": 6, "tubelet_size": 2},
    **{"hidden_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 2.5, "num_labels": 5},
    **{"pred_hidden_size": 24, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1, "num_pooler_layers": 2},
}
# Configuration class, classifier, sizes.
FAMILIES = {
    "videoprism": ("VideoPrismVisionConfig", "VideoPrismForVideoClassification", PRISM),
    "videomae": ("VideoMAEConfig", "VideoMAEForVideoClassification", MAE),
    "timesformer": ("TimesformerConfig", "TimesformerForVideoClassification", SFORMER),
    "vjepa2": ("VJEPA2Config", "VJEPA2ForVideoClassification", JEPA),
}
MEAN, DEVIATION = [0.4, 0.45, 0.5], [0.2, 0.25, 0.3]
PROCESSOR = {
    "do_resize": True,
    "size": {"shortest_edge": 14},
    "crop_size": {"height": 12, "width": 12},
    "do_center_crop": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "resample": 2,
    "image_mean": MEAN,
    "image_std": DEVIATION,
}


def make(family: str, architecture: str | None = None, seed: int = 0, **changes) -> nn.Module:
    """A model with every parameter random, in evaluation mode."""
    config, classifier, sizes = FAMILIES[family]
    model = getattr(transformers, architecture or classifier)(getattr(transformers, config)(**(sizes | changes)))
    return randomise(model, seed).eval()


def save(model: nn.Module, folder, processor: dict | None = PROCESSOR) -> None:
    model.save_pretrained(folder)
    if processor is not None:
        (folder / "video_preprocessor_config.json").write_text(json.dumps(processor))


def video(config, batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Clips of [-1, 1] as ours take them: (b, c, t, h, w)."""
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, *config.input_shape, generator=generator, dtype=dtype) * 2 - 1


def pixels(clips: torch.Tensor, mean=MEAN, deviation=DEVIATION) -> torch.Tensor:
    """The same clips as theirs take them: (b, t, c, h, w), normalised."""
    mean, deviation = (torch.tensor(x, dtype=clips.dtype)[:, None, None] for x in (mean, deviation))
    return ((clips.transpose(1, 2) + 1) / 2 - mean) / deviation


@torch.no_grad()
def logits(model: nn.Module, clips: torch.Tensor, mean=MEAN, deviation=DEVIATION) -> torch.Tensor:
    # VideoPrism's classifier has an axis of one query left.
    return model(pixels(clips, mean, deviation)).logits.reshape(len(clips), -1)
