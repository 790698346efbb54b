"""timm's families as sources: tokens and pooled features of the variants that equal timm's, from its registry."""

import runpy
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer_relpos import VisionTransformerRelPos

import vivit_zoo
from tests.conftest import randomise
from tests.weights.image_models import distances, small, start
from vivit_zoo.weights import WeightsError, config_for_image, init_from_image
from vivit_zoo.weights.timm import build_timm

DOCS = Path(vivit_zoo.__file__).parents[1] / "docs"
# One of each family; test_every_signature has them all.
ARCHITECTURES = [
    "aimv2_1b_patch14_224",
    "beit3_base_patch16_224",
    "beit_base_patch16_224",
    "deit_base_distilled_patch16_224",
    "eva02_base_patch16_clip_224",
    "eva02_small_patch14_224",
    "naflexvit_base_patch16_parfac_gap",
    "naflexvit_base_patch16_siglip",
    "test_vit3",
    "vit_5b_patch16_sapiens2",
    "vit_base_patch16_dinov3",
    "vit_base_patch16_radio_v3",
    "vit_base_patch16_rope_mixed_ape_224",
    "vit_base_patch16_siglip_224",
    "vit_betwixt_patch16_reg4_gap_256",
    "vit_giant_patch14_reg4_dinov2",
    "vit_pe_core_base_patch16_224",
    "vit_relpos_medium_patch16_cls_224",
    "vit_srelpos_medium_patch16_224",
]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_tokens_and_pooled_features_are_timms(arch):
    for name, distance in distances(small(arch)).items():
        assert distance < 3e-6, name


@pytest.mark.slow
def test_every_signature():
    """Every architecture that the registry has pretrained weights of, and one of each signature against timm."""
    rows = list(runpy.run_path(str(DOCS / "image_families.py"))["walk"]())
    accepted = [row for row in rows if row.checkpoint is not None]
    assert sum(len(row.tags) for row in accepted) >= 0.93 * sum(len(row.tags) for row in rows)
    assert all(row.reason for row in rows if row.checkpoint is None)
    for arch in {row.signature: row.arch for row in accepted}.values():
        for name, distance in distances(small(arch)).items():
            assert distance < 3e-6, (arch, name)


def test_class_token_and_registers_come_along_by_default():
    image = small("vit_small_patch14_reg4_dinov2")
    for variant in ("factorised_self_attention", "factorised_dot_product"):
        model = start(image, variant, 2)
        assert (model.config.class_token, model.config.reg_tokens, model.config.global_pool) == (True, 4, "token")
        report = init_from_image(model, image)
        assert not any("token" in name for name in report.left)
        bare = vivit_zoo.ViViT(model.config.replace(class_token=False, reg_tokens=0, global_pool="avg"))
        report = init_from_image(bare, image)
        assert {report.left[name] for name in ("cls_token", "reg_token")} == {
            "the model has no class token",
            "the model has no registers",
        }


def test_relative_positions_of_another_grid_are_refused_with_the_way_out():
    image = small("beit_base_patch16_224")
    model = vivit_zoo.ViViT(config_for_image(image, num_frames=2, image_size=64))
    with pytest.raises(WeightsError, match=r"relative positions for 3x4 places, the model 4x4; build the image model"):
        init_from_image(model, image, positions="resize")


@pytest.mark.parametrize("class_token", [True, False])
def test_tables_of_relative_positions_with_and_without_a_class_token(class_token):
    sizes = {"img_size": 24, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 0}
    pool = "token" if class_token else "avg"
    image = randomise(VisionTransformerRelPos(**sizes, rel_pos_type="bias", class_token=class_token, global_pool=pool))
    model = start(image.eval(), "joint", 1)
    still = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        tokens = model.encoder.forward_features(model.tubelet_embed(still[:, :, None]))
        torch.testing.assert_close(tokens, image.forward_features(still), rtol=1e-5, atol=1e-5)


def test_a_model_without_values_gives_a_configuration_and_no_weights():
    image = build_timm("vit_tiny_patch16_224")
    model = vivit_zoo.ViViT(config_for_image(image, num_frames=2, depth=12))
    with pytest.raises(WeightsError, match="is on the meta device, without values"):
        init_from_image(model, image)


def test_rotary_positions_must_be_the_sources():
    image = small("vit_base_patch16_dinov3")
    config = config_for_image(image, num_frames=2)
    with pytest.raises(WeightsError, match=r"rope RotaryConfig.*, the model None"):
        init_from_image(vivit_zoo.ViViT(config.replace(rope=None)), image)
    with pytest.raises(WeightsError, match=r"base=100\.0.*, the model .*base=50\.0"):
        init_from_image(vivit_zoo.ViViT(config.replace(rope={"base": 50.0})), image)
    over_time = vivit_zoo.ViViT(config.replace(rope={"axes": "thw"}))
    assert any(note.startswith("rope is") for note in init_from_image(over_time, image).notes)
