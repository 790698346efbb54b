"""One published checkpoint of each family of pretrained video models."""

import numpy as np
import pytest
import torch

from vivit_zoo import ViViT
from vivit_zoo.evaluation.classify import inputs_of
from vivit_zoo.video.preprocess import Preprocess
from vivit_zoo.weights import WeightsError


def from_hub(source, **options):
    try:
        return ViViT.from_pretrained(source, **options)
    except WeightsError as error:
        if "cannot be reached" in str(error):
            pytest.skip(str(error))
        raise


def spaghetti():
    """The sixteen frames on which transformers' tests run VideoMAE."""
    from huggingface_hub import hf_hub_download

    return np.load(hf_hub_download("hf-internal-testing/spaghetti-video", "eating_spaghetti.npy", repo_type="dataset"))


@pytest.mark.hub
def test_videomae_of_the_hub_gives_the_published_values():
    """Its values are published for pixels of mean and deviation 0.5, which are not those of its processor's file."""
    model = from_hub("MCG-NJU/videomae-base-finetuned-kinetics")
    assert model.processing.mean == pytest.approx((0.485, 0.456, 0.406))
    clip = Preprocess(224, 224, "antialiased")(spaghetti())[None]
    mean, std = (torch.tensor(x)[:, None, None, None] for x in (model.processing.mean, model.processing.std))
    with torch.no_grad():
        logits = model(2 * (mean + std * clip) - 1)[0]
    assert logits[:3].tolist() == pytest.approx([0.3669, -0.0688, -0.2421], abs=2e-3)
    assert model.class_names[logits.argmax()] == "eating spaghetti"


@pytest.mark.hub
def test_timesformer_of_the_hub_names_what_it_sees():
    model = from_hub("facebook/timesformer-base-finetuned-k400")
    assert sum(parameter.numel() for parameter in model.parameters()) > 100e6
    with torch.no_grad():
        logits = model(inputs_of(model)[1](spaghetti()[::2])[None])
    assert model.class_names[logits.argmax()] == "eating spaghetti"


@pytest.mark.hub
def test_vjepa2_of_the_hub_has_the_classes_of_something_something():
    model = from_hub("facebook/vjepa2-vitl-fpc16-256-ssv2")
    assert len(model.class_names) == 174
    assert "Pushing something from left to right" in model.class_names
    assert model.config.input_shape == (3, 16, 256, 256)


@pytest.mark.hub
def test_videoprism_of_the_hub_has_the_published_size():
    try:
        model = from_hub("google/videoprism-base-f16r288")
    except WeightsError:  # where its main branch holds the original's files alone
        model = from_hub("google/videoprism-base-f16r288", revision="refs/pr/4")
    assert sum(parameter.numel() for parameter in model.parameters()) == 114_365_184
    assert inputs_of(model)[0].spread
