"""Models of the pretrained families' shapes train from their checkpoints."""

import pytest
import torch

from tests.weights.families import FAMILIES, save, transformers
from vivit_zoo import ViViT, config_for_image, init_from_image
from vivit_zoo.datasets import MovingDigits

WIDTHS = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "num_channels": 1, "num_frames": 16}
SIZES = {
    "videoprism": {"tubelet_size": [1, 8, 8], "num_spatial_layers": 2, "num_temporal_layers": 1},
    "videomae": {"patch_size": 8, "tubelet_size": 2, "num_hidden_layers": 3, "initializer_range": 0.1},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")
@pytest.mark.parametrize("family", SIZES)
def test_a_dozen_clips_are_fitted_from_a_checkpoint(family, tmp_path):
    torch.manual_seed(0)
    config, architecture, _ = FAMILIES[family]
    sizes = getattr(transformers, config)(**WIDTHS, **SIZES[family], image_size=32)
    save(getattr(transformers, architecture)(sizes), tmp_path, processor=None)
    model = ViViT(config_for_image(tmp_path, num_classes=len(MovingDigits.classes))).train()
    init_from_image(model, tmp_path, positions="resize")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    clips = MovingDigits("train", 12)
    video = torch.stack([clip for clip, _ in clips])
    labels = torch.tensor([label for _, label in clips])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    for step in range(100):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(video), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert (model(video).argmax(1) == labels).all()
    assert all((parameter != before[name]).any() for name, parameter in model.named_parameters())
