"""The four variants as models of transformers: Auto classes, `Trainer`, `pipeline`."""

import json

import pytest
import torch
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForVideoClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from tests.conftest import VARIANTS, randomise, tiny_config, video_for
from tests.footage import X264, write_video
from vivit_zoo import ViViT
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.hf import ViViTForVideoClassification, VivitZooConfig
from vivit_zoo.studies.cells import BASE
from vivit_zoo.training.losses import binary_cross_entropy, cross_entropy, squared_error
from vivit_zoo.weights.processing import Processing

NAMES = ["walking", "running", "eating", "sleeping", "reading"]

variants = pytest.mark.parametrize("variant", VARIANTS)


def saved(folder, **changes):
    model = randomise(ViViT(tiny_config(**changes))).eval()
    model.class_names = NAMES if model.num_classes == 5 else None
    model.processing = Processing(short_side=9, antialias=False, stride=3, views=(2, 3))
    model.save_pretrained(folder)
    return model


def load(folder, **options):
    model, info = AutoModelForVideoClassification.from_pretrained(folder, output_loading_info=True, **options)
    return model, {kind: found for kind, found in info.items() if found}


@variants
@pytest.mark.parametrize(
    "changes", [{"norm": "rms", "gated": True}, {"pos_embed": "sincos_3d"}, {"num_frames": 14, "sampled_frames": 6}]
)
def test_auto_class_reads_our_folder_and_we_read_its_folder(variant, changes, tmp_path):
    ours = saved(tmp_path / "ours", variant=variant, **changes)
    theirs, wrong = load(tmp_path / "ours")
    assert wrong == {}
    video = video_for(ours.config, dtype=torch.float32)
    with torch.no_grad():
        logits = ours(video)
        assert torch.equal(theirs(video.transpose(1, 2)).logits, logits)
        assert [theirs.config.id2label[i] for i in range(5)] == NAMES
        theirs.save_pretrained(tmp_path / "theirs")
        again = ViViT.from_pretrained(tmp_path / "theirs")
        assert torch.equal(again(video), logits)
    assert (again.config, again.class_names, again.processing) == (ours.config, NAMES, ours.processing)
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert "auto_map" not in config  # no code travels with the weights


TASKS = {
    "single_label_classification": (torch.tensor([1, 4]), cross_entropy),
    "multi_label_classification": (torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]), binary_cross_entropy),
    "regression": (torch.arange(10.0).reshape(2, 5), squared_error),
}


@pytest.mark.parametrize("problem_type", TASKS)
def test_the_problem_type_chooses_the_loss_and_travels_both_ways(problem_type, tmp_path):
    """Its loss is that of our own training."""
    ours = saved(tmp_path / "ours")
    assert ViViT.from_pretrained(tmp_path / "ours").problem_type is None
    ours.problem_type = problem_type
    ours.save_pretrained(tmp_path / "ours")
    labels, loss = TASKS[problem_type]
    video = video_for(ours.config, dtype=torch.float32)
    for theirs in (load(tmp_path / "ours")[0], ViViTForVideoClassification.from_vivit(ours)):
        assert theirs.config.problem_type == problem_type
        found = theirs(video.transpose(1, 2), labels=labels).loss
        torch.testing.assert_close(found, loss(ours(video), labels))
    theirs.save_pretrained(tmp_path / "theirs")
    again = ViViT.from_pretrained(tmp_path / "theirs")
    assert (again.problem_type, again.class_names, again.processing) == (problem_type, NAMES, ours.processing)
    assert ViViT.from_pretrained(tmp_path / "theirs", num_classes=2).problem_type is None  # a new head


def test_another_number_of_classes_makes_a_new_head_of_zeros(tmp_path):
    saved(tmp_path)
    model, wrong = load(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    names = {key if isinstance(key, str) else key[0] for key in wrong["mismatched_keys"]}  # pairs since transformers 5
    assert names == {"head.weight", "head.bias"}
    assert not model.head.weight.any()
    assert model(torch.zeros(1, 6, 3, 8, 12)).logits.shape == (1, 3)


def test_what_transformers_cannot_have_is_said_in_words(tmp_path):
    saved(tmp_path / "heads", num_classes={"noun": 2, "verb": 3})
    with pytest.raises(ValueError, match=r"the model has several heads \(noun, verb\), and transformers' classifiers"):
        AutoConfig.from_pretrained(tmp_path / "heads")
    saved(tmp_path / "none", num_classes=0)
    with pytest.raises(ValueError, match="the model has no classes; give it some"):
        load(tmp_path / "none")
    model, _ = load(tmp_path / "none", num_labels=4)
    assert model(torch.zeros(1, 6, 3, 8, 12)).logits.shape == (1, 4)
    with pytest.raises(ValueError, match="num_heads 5"):
        VivitZooConfig(dim=24, num_heads=5)


def test_weights_that_are_missing_are_no_silent_start(tmp_path):
    model = saved(tmp_path)
    state = model.state_dict()
    del state["encoder.blocks.1.mlp.fc1.weight"]
    other = ViViTForVideoClassification.from_vivit(model)
    with pytest.raises(ValueError, match=r"the checkpoint has no encoder\.blocks\.1\.mlp\.fc1\.weight"):
        ViViTForVideoClassification.from_pretrained(None, config=other.config, state_dict=state)


def test_a_model_in_memory_is_wrapped_with_its_weights():
    model = randomise(ViViT(tiny_config(variant="factorised_encoder"))).eval()
    wrapped = ViViTForVideoClassification.from_vivit(model).eval()
    video = video_for(model.config, dtype=torch.float32)
    out = wrapped(video.transpose(1, 2), labels=torch.tensor([1, 2]))
    assert torch.equal(out.logits, model(video))
    torch.testing.assert_close(out.loss, torch.nn.functional.cross_entropy(out.logits, torch.tensor([1, 2])))
    assert [name for name, _ in wrapped.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert isinstance(wrapped(video.transpose(1, 2), return_dict=False), tuple)


def test_gradient_checkpointing_is_switched_in_the_encoders():
    wrapped = ViViTForVideoClassification.from_vivit(ViViT(tiny_config(variant="factorised_encoder")))
    for name, on in {"enable": True, "disable": False}.items():
        for prefix in ("activation", "gradient"):  # its name since transformers 5, and before
            switch = getattr(wrapped, f"{prefix}_checkpointing_{name}", None)
            if switch is not None:
                break
        switch()
        assert wrapped.gradient_checkpointing is on  # what transformers asks for
        assert wrapped.encoder.spatial.grad_checkpointing is wrapped.encoder.temporal.grad_checkpointing is on


def test_checkpointing_of_some_blocks_is_refused():
    wrapped = ViViTForVideoClassification.from_vivit(ViViT(tiny_config()))
    with pytest.raises(ValueError, match="every_n_layers 2 is not possible here"):
        wrapped._set_gradient_checkpointing(True, every_n_layers=2)


def test_a_wrapped_model_keeps_its_filter_of_positions_and_no_names_that_it_never_had(tmp_path):
    model = ViViT(tiny_config())
    model.positions_filter = "bicubic"
    ViViTForVideoClassification.from_vivit(model).save_pretrained(tmp_path)
    again = ViViT.from_pretrained(tmp_path)
    assert (again.positions_filter, again.class_names) == ("bicubic", None)


class Clips(Dataset):
    """The embedded task in colour, in the form that `Trainer` takes."""

    def __init__(self, split, count):
        self.clips = MovingDigits(split, count)

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        video, label = self.clips[index]
        return {"pixel_values": video.transpose(0, 1).expand(-1, 3, -1, -1), "labels": label}


def fine_tune(variant, folder, steps):
    """transformers' `Trainer` on the embedded task, with checkpointing; returns its losses and the evaluation."""
    config = BASE.model.replace(variant=variant, in_chans=3, dim=24, depth=2, temporal_depth=1)
    start = ViViT(config)
    start.class_names = list(MovingDigits.classes)
    start.save_pretrained(folder / "start")
    model, wrong = load(folder / "start")
    assert wrong == {}
    name = "activation_checkpointing" if hasattr(model, "activation_checkpointing_enable") else "gradient_checkpointing"
    arguments = TrainingArguments(
        str(folder / "run"),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        logging_steps=1,
        save_strategy="steps",
        save_steps=steps,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **{name: True},
    )
    processor = AutoImageProcessor.from_pretrained(folder / "start")
    trainer = Trainer(
        model, arguments, train_dataset=Clips("train", 1000), eval_dataset=Clips("test", 8), processing_class=processor
    )
    trainer.train()
    assert all(module.grad_checkpointing for module in model.modules() if hasattr(module, "grad_checkpointing"))
    metrics = trainer.evaluate()
    trainer.save_model(folder / "out")
    return [line["loss"] for line in trainer.state.log_history if "loss" in line], metrics


def assert_names(folder, model):
    """`pipeline` gives the classes of a video file as the model does; returns the pixels that it read."""
    path = str(write_video(folder / "clip.mp4", 60, **X264["b_frames"]))
    classify = pipeline("video-classification", model=str(folder), device="cpu")
    classify.video_processor = None  # which needs torchcodec; the processor of images reads with PyAV
    best = classify(path, top_k=model.num_classes)
    assert {one["label"] for one in best} == set(model.class_names)
    assert sum(one["score"] for one in best) == pytest.approx(1, abs=1e-4)
    pixels = classify.preprocess(path)["pixel_values"]
    with torch.no_grad():
        assert best[0]["label"] == model.class_names[int(model.eval()(pixels.float().transpose(1, 2)).argmax())]
    return pixels


@pytest.mark.filterwarnings("ignore")  # transformers' own
@variants
def test_trainer_fine_tunes_evaluates_and_saves(variant, tmp_path):
    steps = 20
    losses, metrics = fine_tune(variant, tmp_path, steps)
    assert len(losses) == steps
    assert losses[0] == pytest.approx(1.7918, abs=1e-3)  # log 6: the head starts at zero
    assert losses[-1] != losses[0]
    assert metrics["eval_loss"] > 0
    trained, wrong = load(tmp_path / "out")
    assert wrong == {}
    for folder in ("out", f"run/checkpoint-{steps}"):  # both for `pipeline`, which needs the processor
        again = AutoImageProcessor.from_pretrained(tmp_path / folder)
        assert again.to_dict() == AutoImageProcessor.from_pretrained(tmp_path / "start").to_dict()
        assert_names(tmp_path / folder, ViViT.from_pretrained(tmp_path / folder))
    ours = ViViT.from_pretrained(tmp_path / "out")
    assert ours.class_names == list(MovingDigits.classes)
    video = video_for(ours.config, dtype=torch.float32)
    torch.testing.assert_close(trained.eval()(video.transpose(1, 2)).logits, ours(video))
    assert not torch.equal(ours.head.weight, torch.zeros_like(ours.head.weight))


@pytest.mark.filterwarnings("ignore")  # transformers' own
@variants
def test_pipeline_names_the_class_of_a_video_file(variant, tmp_path):
    pixels = assert_names(tmp_path / "model", saved(tmp_path / "model", variant=variant))
    assert pixels.shape == (1, 6, 3, 8, 12)
    assert -1 <= pixels.min() < -0.3
    assert 0.3 < pixels.max() <= 1
