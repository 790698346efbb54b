"""README.md of a model, and what cannot be saved or uploaded."""

import ast
import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from torch import nn

from tests.conftest import randomise, tiny_config, tiny_model
from tests.footage import write_video
from vivit_zoo import ViViT
from vivit_zoo.cli import main
from vivit_zoo.flops import count_params
from vivit_zoo.weights import Checkpoint, WeightsError
from vivit_zoo.weights.card import NEW, Training, model_card
from vivit_zoo.weights.processing import Processing


def card_of(training=None, changes=None, **options):
    model = tiny_model(**(changes or {})).float()
    model.class_names = [f'class "{i}": a|b' for i in range(5)] if model.num_classes == 5 else None
    return model_card(Checkpoint.of_model(model), "me/mine", training=training, **options)


def test_metadata_is_what_the_hub_reads():
    training = Training(data="clips", started_from="google/vivit", metrics={"top-1": 0.5}, test_videos=1200, views=12)
    data = ModelCard(card_of(training, license="mit")).data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == ("mit", "vivit_zoo", "video-classification")
    assert data["base_model"] == "google/vivit"
    result = yaml.safe_load(card_of(training).split("---")[1])["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "clips"
    assert result["metrics"] == [{"type": "accuracy", "name": "top-1", "value": 0.5}]


def test_each_metric_of_a_regression_has_its_type():
    errors = {"rmse": 0.5, "r2": 0.9, "mae_size_of_box": 12.0}
    training = Training(data="clips", metrics=errors, metric="rmse", in_percent=False, test_videos=3)
    metrics = yaml.safe_load(card_of(training).split("---")[1])["model-index"][0]["results"][0]["metrics"]
    assert {one["name"]: one["type"] for one in metrics} == {"rmse": "rmse", "r2": "r2", "mae_size_of_box": "mae"}


@pytest.mark.parametrize("source", ["", "runs/first/model", "local-dir:x/y", "/a/b", "vit_tiny_patch16_224"])
def test_only_an_id_of_the_hub_is_a_base_model(source):
    data = yaml.safe_load(card_of(Training(data="clips", started_from=source)).split("---")[1])
    assert "base_model" not in data
    assert data["license"] == "unknown"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"short_side": 12}, "6 frames spread over the whole video, 8 x 12 pixels, RGB: the short side resized to 12,"),
        ({"short_side": None}, "RGB: resized whatever their shape, pixels"),
        ({"short_side": 9, "stride": 1}, "6 frames, consecutive ones, 8 x 12"),
        ({"short_side": 9, "stride": 3}, "6 frames, 3 frames of the video apart, 8 x 12"),
        ({"short_side": 9, "stride": 3}, 'classify("clip.mp4", frame_sampling_rate=3)'),
        ({"short_side": 9, "fps": 2.5}, "6 frames, 2.5 for each second of the video, 8 x 12"),
    ],
)
def test_a_card_has_the_processing_of_the_model(fields, words):
    model = tiny_model()
    model.processing = Processing(**fields)
    assert words in model_card(Checkpoint.of_model(model), "me/mine")


def test_a_card_says_what_a_user_needs():
    training = Training(data="clips", started_from="google/vivit", metrics={"top-1": 0.5}, test_videos=1200, views=12)
    text = card_of(training)
    for line in (
        f"variant `joint`, with {count_params(tiny_model()):,} parameters",
        "It gives a clip one of 5 classes.",
        'model = ViViT.from_pretrained("me/mine")',
        "| depth | 2 |",
        "import vivit_zoo.hf  # registers the model",
        "6 frames, 8 x 12 pixels, RGB: the short side resized to 9, the centre cropped",
        "Trained on `clips`, from the weights of `google/vivit`.",
        "| accuracy on 1,200 test videos, 12 views each | % |\n| --- | ---: |\n| top-1 | 50.0 |",
        '5 classes: class "0": a|b, ',
        "No licence has been chosen for these weights. They started from `google/vivit`, whose licence applies",
        "| num_frames | 6 |",
    ):
        assert line in text
    model = tiny_model()
    model.class_names, model.problem_type = ["speed", "size", "x", "y", "z"], "regression"
    errors = Training(data="clips", metrics={"rmse": 1234.5678}, metric="rmse", in_percent=False, test_videos=3)
    text = model_card(Checkpoint.of_model(model), "me/mine", training=errors)
    assert "## Targets\n\n- 5 targets: speed, size, x, y, z\n" in text
    assert "| rmse on 3 test videos, 1 view each |  |\n| --- | ---: |\n| rmse | 1235 |" in text
    assert "It predicts 5 numbers for a clip." in text
    heads = card_of(changes={"num_classes": {"noun": 2, "verb": 3}})
    assert "It gives a clip a label for each of noun, verb." in heads
    assert "It has no classifier: it computes features." in card_of(changes={"num_classes": 0})
    assert "pipeline(" not in heads
    assert "import vivit_zoo.hf" not in card_of(format="transformers")


@pytest.mark.filterwarnings("ignore")  # torch.ao is deprecated
def test_a_quantised_model_is_refused_in_words(tmp_path):
    quantised = torch.ao.quantization.quantize_dynamic(ViViT(tiny_config()), {nn.Linear})
    with pytest.raises(WeightsError, match=r"the model is quantised\. Save it before that"):
        quantised.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["sparse", "meta", "shared"])
def test_tensors_that_no_file_can_hold_are_refused_in_words(kind, tmp_path):
    with torch.device("meta" if kind == "meta" else "cpu"):
        model = ViViT(tiny_config())
    if kind == "sparse":
        model.head.weight = nn.Parameter(torch.ones(5, 24).to_sparse())
    if kind == "shared":
        model.encoder.blocks[1].mlp.fc1.weight = model.encoder.blocks[0].mlp.fc1.weight
    message = {"sparse": "torch.sparse_coo", "meta": "on the meta device", "shared": "share memory"}[kind]
    with pytest.raises(WeightsError, match=message):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_hub_that_cannot_be_reached_is_one_error(monkeypatch):
    class ConnectError(Exception):
        """As httpx raises it, which is no OSError."""

    def fail(*_, **__):
        raise ConnectError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fail)
    with pytest.raises(WeightsError, match="me/mine was not written: ConnectError: no route"):
        ViViT(tiny_config()).push_to_hub("me/mine")


def test_a_card_of_ones_own_is_uploaded(monkeypatch):
    seen = {}

    class Api:
        def __init__(self, token):
            pass

        def create_repo(self, repo_id, **_):
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, folder_path, **_):
            seen["card"] = Path(folder_path, "README.md").read_text(encoding="utf-8")
            return type("Commit", (), {"commit_url": ""})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    model = ViViT(tiny_config())
    model.push_to_hub("me/mine", card="# Größer")
    assert seen["card"] == "# Größer"
    model.push_to_hub("me/mine", license="mit")
    assert 'license: "mit"' in seen["card"]
    of_run = model_card(Checkpoint.of_model(model), NEW + "first_run")
    model.push_to_hub("me/mine", card=of_run)
    assert 'from_pretrained("me/mine")' in seen["card"]
    assert "--checkpoint me/mine\n" in seen["card"]
    assert NEW not in seen["card"]


@pytest.mark.parametrize("changes", [{}, {"in_chans": 1}, {"num_classes": {"noun": 2, "verb": 3}}])
@pytest.mark.parametrize("problem_type", [None, "multi_label_classification", "regression"])
def test_the_code_on_a_card_gives_what_classify_prints(changes, problem_type, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", 20)
    model = randomise(ViViT(tiny_config(**changes))).eval()
    model.problem_type = problem_type
    model.processing = Processing(short_side=9, antialias=False, stride=3, views=(2, 1))
    model.save_pretrained("mine")
    code = model_card(Checkpoint.of_model(model), "mine").split("```python\n")[1].split("```")[0]
    exec(code, {})
    printed = ast.literal_eval(capsys.readouterr().out)
    assert main(["classify", "clip.mp4", "--checkpoint", "mine", "--json", "--device", "cpu"]) == 0
    (found,) = [value for name, value in json.loads(capsys.readouterr().out).items() if name != "video"]
    for head in found if isinstance(found, dict) else [None]:
        for one, other in zip(*((x if head is None else x[head]) for x in (printed, found)), strict=True):
            assert one.pop("name") == other.pop("name")
            assert one == pytest.approx(other, abs=1e-5)
