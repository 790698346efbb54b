"""Probes: nothing of the order without positions, nothing of the test in the choice of settings."""

import dataclasses

import pytest
import torch
from torch.utils.data import DataLoader

from tests.conftest import randomise, tiny_config
from tests.footage import write_set
from vivit_zoo import ViViT
from vivit_zoo.datasets import MovingDigits, read_catalogue
from vivit_zoo.datasets.catalogue import Catalogue, Entry
from vivit_zoo.evaluation import probe as probe_module
from vivit_zoo.evaluation.features import Extraction, extract_features
from vivit_zoo.evaluation.probe import (
    PROBES,
    AttentiveProbe,
    FrozenFeatures,
    ProbeConfig,
    fit_probe,
    frozen_features,
    load_features,
)
from vivit_zoo.video.clips import Windows
from vivit_zoo.video.preprocess import Preprocess

QUICK = ProbeConfig(lrs=(1e-2,), weight_decays=(1e-3,), neighbours=(5,), epochs=1, least_steps=150)


def ordered(count, seed):
    """Clips of six frames: one event in the first half and another in the second; the class is which came first."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    tokens = 0.3 * torch.randn(count, 6, 2, 8, generator=generator)
    for clip, label in enumerate(labels.tolist()):
        tokens[clip, :3, :, label] += 2
        tokens[clip, 3:, :, 1 - label] += 2
    return FrozenFeatures(tokens, labels)


def still(count, seed):
    """Clips whose class is in the mean of all tokens, at a scale and an offset far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    tokens = torch.randn(count, 6, 2, 8, generator=generator)
    tokens[torch.arange(count), :, :, labels] += 1
    return FrozenFeatures(1e-3 * tokens + 5, labels)


@pytest.mark.parametrize("name", PROBES)
def test_only_positions_show_the_order(name):
    accuracy = fit_probe(name, ordered(200, 0), ordered(200, 1), 2, QUICK)["accuracy"]
    assert accuracy > 0.95 if name == "attentive+positions" else accuracy < 0.65


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_learns_what_the_mean_shows(name):
    found = fit_probe(name, still(200, 0), still(200, 1), 3, QUICK)
    assert found["accuracy"] > 0.9
    assert found["setting"] in ({"lr": 1e-2, "weight_decay": 1e-3}, {"neighbours": 5})
    assert fit_probe(name, still(200, 0), still(200, 1), 3, QUICK) == found


def test_features_are_standardised_by_the_training_clips_alone():
    test = still(200, 1)
    one_class = test.take((test.labels == 1).nonzero()[:, 0])  # whose own mean is that of the class
    assert fit_probe("knn", still(200, 0), one_class, 3, QUICK)["accuracy"] > 0.9


def test_without_positions_the_order_of_frames_changes_nothing():
    tokens = torch.randn(3, 6, 2, 8)
    for positions in (False, True):
        probe = randomise(AttentiveProbe(8, 4, num_heads=2, positions=positions))
        same = torch.allclose(probe(tokens), probe(tokens.flip(1)), atol=1e-5)
        assert same is not positions
        assert torch.allclose(probe(tokens), probe(tokens.flip(2)), atol=1e-5)


def test_settings_are_chosen_on_a_held_out_part_of_the_training_clips(monkeypatch):
    """The test clips are seen once, by the probe of the best setting, which is fitted to all training clips."""
    train, test = still(50, 0), still(30, 1)
    config = dataclasses.replace(QUICK, lrs=(1e-6, 1e-2), least_steps=60)
    fits, fit = [], probe_module._fit

    def keep(name, on, *args):
        fits.append((len(on.labels), args[2]["lr"]))
        return fit(name, on, *args)

    monkeypatch.setattr(probe_module, "_fit", keep)
    found = fit_probe("linear", train, test, 3, config)
    assert found["setting"]["lr"] == 1e-2
    assert [lr for _, lr in fits] == [1e-6, 1e-2, 1e-2]
    held_out = 50 - fits[0][0]
    assert fits[1][0] == fits[0][0]
    assert 8 <= held_out <= 12
    assert fits[2][0] == 50
    assert found["held_out"] == pytest.approx(round(found["held_out"] * held_out) / held_out)


def test_each_class_is_held_out_in_part():
    labels = torch.tensor([0] * 10 + [1] * 2 + [2])
    fitted, held = probe_module._split(labels, 0.2, seed=0)
    assert sorted([*fitted.tolist(), *held.tolist()]) == list(range(13))
    assert labels[held].bincount(minlength=3).tolist() == [2, 1, 0]
    assert not torch.equal(held, probe_module._split(labels, 0.2, seed=1)[1])
    with pytest.raises(ValueError, match="each of the 3 classes has one training clip"):
        probe_module._split(torch.arange(3), 0.2, seed=0)


def test_features_of_files_and_of_memory_are_the_same(tmp_path):
    model = randomise(ViViT(tiny_config(in_chans=1, num_frames=16, image_size=32, tubelet_size=(2, 16, 16)))).eval()
    clips = MovingDigits("test", 6)
    batches = [(((video + 1) * 127.5).round().byte(), label) for video, label in DataLoader(clips, 4)]
    what = Extraction(outputs=("frames", "dense"))
    sizes = {"sampler": Windows(frames=16, stride=1), "preprocess": Preprocess(32, 32), "batch_size": 3}
    report = extract_features(model, clips.videos(), tmp_path, what, **sizes)
    for output, tokens in (("frames", 1), ("dense", 4)):
        files = load_features(report.files, f"layer.1.{output}")
        memory = frozen_features(model, batches, output=output)
        assert files.tokens.shape == (6, 8, tokens, 24)
        assert torch.equal(files.labels, memory.labels)
        torch.testing.assert_close(files.tokens, memory.tokens, rtol=1e-4, atol=1e-4)
        mean = frozen_features(model, batches, output="pooled").tokens[:, 0, 0]
        torch.testing.assert_close(memory.tokens.mean((1, 2)), mean, rtol=1e-4, atol=1e-4)


def test_models_in_half_precision_give_features_that_can_be_probed():
    model = randomise(ViViT(tiny_config())).eval()
    batches = [(torch.rand(4, *model.config.input_shape) * 2 - 1, torch.tensor([0, 1, 0, 1]))]
    full = frozen_features(model, batches)
    half = frozen_features(model.bfloat16(), [(batches[0][0].bfloat16(), batches[0][1])])
    assert half.tokens.dtype == torch.float32
    torch.testing.assert_close(half.tokens, full.tokens, rtol=0.1, atol=0.2)


def test_masks_of_batches_leave_frames_out_of_pooled_features():
    model = randomise(ViViT(tiny_config(num_frames=8))).eval()
    video, label = torch.rand(2, *model.config.input_shape) * 2 - 1, torch.tensor([0, 1])
    mask = torch.arange(8).expand(2, 8) < 4
    found = frozen_features(model, [(video, label, mask)], output="pooled").tokens
    video[:, :, 4:] = 0
    assert torch.equal(frozen_features(model, [(video, label, mask)], output="pooled").tokens, found)
    with pytest.raises(ValueError, match="cannot leave out frames that are not there; use output 'pooled'"):
        frozen_features(model, [(video, label, mask)])


def test_labels_by_head_and_labels_that_cannot_be_probed(tmp_path):
    model = randomise(ViViT(tiny_config())).eval()
    videos = read_catalogue(write_set(tmp_path / "clips", per_class=1))
    several = [Entry(entry.video, {"verb": entry.label, "noun": 4}) for entry in videos.entries]
    classes = {"verb": ["a", "b", "c"], "noun": list("abcde")}
    files = extract_features(model, Catalogue(several, classes), tmp_path / "several").files
    assert load_features(files, "layer.1.pooled", "verb").labels.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="is no class number; give head, one of verb, noun"):
        load_features(files, "layer.1.pooled")
    scores = Catalogue([Entry(entry.video, 0.5) for entry in videos.entries], [])
    files = extract_features(model, scores, tmp_path / "scores").files
    with pytest.raises(ValueError, match=r"the label 0.5 is no class number"):
        load_features(files, "layer.1.pooled")


def test_what_cannot_be_fitted():
    train = still(20, 0)
    with pytest.raises(ValueError, match="probe 'mlp' is unknown; choose from linear, attentive"):
        fit_probe("mlp", train, train, 3)
    with pytest.raises(ValueError, match="labels go from 0 to 2; 2 classes are 0 to 1"):
        fit_probe("linear", train, train, 2)
    with pytest.raises(ValueError, match=r"features are \(t, s, d\) = \(6, 2, 8\), those of the test \(3, 2, 8\)"):
        fit_probe("linear", train, FrozenFeatures(train.tokens[:, :3], train.labels), 3)
    with pytest.raises(ValueError, match=r"tokens are \(n, t, s, d\) and labels \(n,\); got \(20, 6, 2\)"):
        FrozenFeatures(train.tokens[..., 0], train.labels)
    with pytest.raises(ValueError, match="nothing to probe: the data set is empty"):
        FrozenFeatures(train.tokens[:0], train.labels[:0])
    for value in (float("nan"), float("inf")):
        broken = FrozenFeatures(train.tokens.clone(), train.labels)
        broken.tokens[3:5, 0, 0, 0] = value
        with pytest.raises(ValueError, match="features of 2 of 20 training clips have values that are not finite"):
            fit_probe("knn", broken, train, 3)
        with pytest.raises(ValueError, match="features of 2 of 20 test clips have values that are not finite"):
            fit_probe("linear", train, broken, 3)
    with pytest.raises(ValueError, match="held_out 1 is not a share"):
        ProbeConfig(held_out=1)
    with pytest.raises(ValueError, match="lrs is empty"):
        ProbeConfig(lrs=())
    with pytest.raises(ValueError, match="epochs 0 is not positive"):
        ProbeConfig(epochs=0)
