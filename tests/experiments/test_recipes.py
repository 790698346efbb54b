"""Each recipe is the paper's: its configuration against Table 7, typed anew, and the sizes against Table 2 and 6."""

import importlib
from pathlib import Path

import pytest
import torch

from vivit_zoo import ViViT
from vivit_zoo.flops import count_params

RECIPES = Path(__file__).parents[2] / "experiments" / "recipes"
# lr, epochs, colour, RandAugment layers and magnitude, stochastic depth, label smoothing, mixup
TABLE_7 = {
    "kinetics400": (0.1, 30, 0.8, (0, 0), 0, 0, 0),
    "kinetics400_large": (0.1, 30, 0.8, (0, 0), 0, 0, 0),
    "kinetics600": (0.1, 30, 0.8, (0, 0), 0, 0, 0),
    "moments": (0.25, 10, 0.8, (0, 0), 0, 0, 0),
    "epic_kitchens": (0.5, 50, 0, (2, 15), 0.2, 0.2, 0.1),
    "something": (0.5, 35, 0, (2, 20), 0.3, 0.3, 0.3),
}
# Variant, temporal depth, stride, short side and crop, classes, training videos, start's positions; 4.
MODELS = {
    "kinetics400": ("joint", None, 2, (256, 224), 400, 214_834, "tile"),
    "kinetics400_large": ("factorised_encoder", 24, 2, (256, 224), 400, 214_834, "tile"),
    "kinetics600": ("factorised_encoder", 24, 2, (256, 224), 600, 363_213, "tile"),
    "moments": ("factorised_encoder", 24, 2, (256, 224), 339, 802_264, "tile"),
    "epic_kitchens": ("factorised_encoder", 4, 1, (256, 224), {"verb": 97, "noun": 300}, 67_217, "tile"),
    "something": ("factorised_encoder", 4, 1, (288, 256), 174, 168_913, "resize"),
}


@pytest.fixture
def base(monkeypatch):
    """The configuration of a recipe by its name."""
    monkeypatch.syspath_prepend(RECIPES)
    return lambda name: importlib.import_module(name).BASE


def test_every_recipe_is_looked_at():
    assert {file.stem for file in RECIPES.glob("*.py")} == {*TABLE_7, "table7", "own_videos", "rendered_digits"}


@pytest.mark.parametrize("name", TABLE_7)
def test_hyper_parameters_are_those_of_table_7(base, name):
    config = base(name)
    lr, epochs, colour, rand_augment, drop_path, smoothing, mixup = TABLE_7[name]
    variant, temporal_depth, stride, sizes, classes, videos, positions = MODELS[name]
    augment, model = config.data.augment, config.model
    assert (config.opt, config.momentum, config.weight_decay, config.batch_size) == ("momentum", 0.9, 0, 64)
    assert (config.lr, config.clip_grad) == (lr, 1)
    assert (config.steps, config.warmup_steps) == (epochs * (videos // 64), int(2.5 * (videos // 64)))
    assert (augment.scale_jitter, augment.flip, augment.colour) == ((0.9, 1.33), 0.5, colour)
    assert (augment.gray > 0) == (colour > 0)
    assert (augment.rand_augment_layers, augment.rand_augment_magnitude) == rand_augment
    assert (model.drop_path, config.label_smoothing, config.mixup) == (drop_path, smoothing, mixup)
    assert (config.ema, config.layer_decay, model.drop, model.attn_drop) == (0, None, 0, 0)
    assert (model.variant, model.temporal_depth, model.num_classes) == (variant, temporal_depth, classes)
    assert (model.num_frames, config.data.stride, config.data.views) == (32, stride, (4, 3))
    # The crop is the model's; the short side follows from it unless it is said.
    short_side = augment.short_side or 256
    assert (short_side, *model.frame_size) == (sizes[0], sizes[1], sizes[1])
    assert (config.start.positions, config.start.tubelet) == (positions, "central_frame")


# Counts of the original's modules, which have a position for each class token, where ours is part of the token.
@pytest.mark.parametrize(
    ("name", "params", "tokens"), [("kinetics400", 88_954_000, 1), ("kinetics400_large", 606_827_920, 2)]
)
def test_models_have_the_papers_size(base, name, params, tokens):
    model = base(name).model
    with torch.device("meta"):
        assert count_params(ViViT(model)) == params - tokens * model.dim


@pytest.mark.parametrize("name", TABLE_7)
def test_every_model_can_be_built(base, name):
    with torch.device("meta"):
        ViViT(base(name).model)


def test_the_image_models_fit(base):
    """The names are timm's, and the models that they name have the video models' width, depth and patches."""
    import timm

    for name in ("kinetics400", "kinetics400_large"):
        config = base(name)
        assert config.start.source in timm.list_pretrained()
        with torch.device("meta"):
            image = timm.create_model(config.start.source.split(".")[0])
        assert (image.embed_dim, len(image.blocks)) == (config.model.dim, config.model.depth)
        assert image.blocks[0].attn.num_heads == config.model.num_heads
        assert image.patch_embed.grid_size == config.model.grid[1:]


def test_own_videos_start_from_the_official_weights_with_the_classes_of_the_data(base):
    config = base("own_videos")
    assert config.start.source == "google/vivit-b-16x2-kinetics400"
    assert config.model.num_classes == 0
    assert 0 < config.data.held_out < 0.5
