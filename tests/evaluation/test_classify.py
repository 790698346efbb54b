"""From files to classes: views and their order, averaging, names, and the command line."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import randomise, tiny_config
from tests.footage import X264, numbers_of, write_video
from vivit_zoo import ViViT, optimize_for_inference
from vivit_zoo.cli import main
from vivit_zoo.evaluation.classify import class_names, classify, read_ahead, top_classes
from vivit_zoo.evaluation.evaluate import average_views
from vivit_zoo.inference import FusedMlp
from vivit_zoo.video.clips import Views, clip_indices, clip_offsets
from vivit_zoo.video.preprocess import Preprocess
from vivit_zoo.video.reader import VideoError, read_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [str(write_video(folder / f"{count}.mp4", count, **X264["b_frames"])) for count in (60, 25, 1)]


@pytest.fixture
def model():
    return randomise(ViViT(tiny_config())).eval()


@pytest.fixture
def from_pretrained(model, monkeypatch):
    """The command line loads `model`, whatever the source."""
    sources = []
    monkeypatch.setattr(ViViT, "from_pretrained", lambda source: sources.append(source) or model, raising=False)
    return sources


def test_views_are_averaged_as_raw_logits():
    views = torch.randn(2, 5, 1, 3, 4, 4)

    def model(video):
        return video.flatten(1)[:, :7]

    expected = sum(model(views[:, v]) for v in range(5)) / 5
    torch.testing.assert_close(average_views(model, views), expected)
    torch.testing.assert_close(average_views(model, iter(views.unbind(1))), expected)
    heads = average_views(lambda video: {"verb": model(video), "noun": -model(video)}, views)
    torch.testing.assert_close(heads["noun"], -expected)
    assert list(heads) == ["verb", "noun"]
    with pytest.raises(ValueError, match=r"views have the axes \(b, v, c, t, h, w\); got shape \(1, 2\)"):
        average_views(model, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="no views"):
        average_views(model, [])


def test_views_are_computed_together_as_far_as_they_fit(videos, model):
    views, preprocess = Views(clips=5, crops=1, frames=6, stride=1), Preprocess((8, 12))
    expected = classify(model, videos[0], views, preprocess)
    calls = []

    def small(video):
        calls.append(len(video))
        if len(video) > 2:
            raise torch.OutOfMemoryError("too many")
        return {"head": model(video)}

    logits = classify(small, videos[0], views, preprocess, batch=4)
    torch.testing.assert_close(logits["head"], expected)
    assert calls == [4, 2, 2, 1]
    with pytest.raises(torch.OutOfMemoryError):
        classify(lambda video: small(video.repeat(3, 1, 1, 1, 1)), videos[0], views, preprocess)
    calls.clear()
    classify(lambda video: calls.append(len(video)) or model(video), videos[0], views, preprocess)
    assert calls == [1] * 5


def test_the_next_video_is_read_while_this_one_is_worked_on():
    reading = {name: threading.Event() for name in "abc"}

    def read(name):
        reading[name].set()
        if name == "b":
            raise VideoError("b is broken")
        return name.upper()

    seen = []
    for name, result in read_ahead("abc", read):
        following = chr(ord(name) + 1)
        if following in reading:
            assert reading[following].wait(10)  # would never be set if it were read after this turn
        assert not any(event.is_set() for other, event in reading.items() if other > following)
        try:
            seen.append(result())
        except VideoError as error:
            seen.append(str(error))
    assert seen == ["A", "b is broken", "C"]
    assert list(read_ahead([], read)) == []


def test_views_come_crop_by_crop_and_clip_by_clip(videos):
    preprocess = Preprocess((48, 48), 48)  # the video's own height: no resizing
    views = [view for (view,) in Views(clips=4, crops=3, frames=8, stride=3).read(videos[0], preprocess)]
    assert len(views) == 12
    frames = read_video(videos[0])
    expected = []
    for left in (0, 8, 16):
        for start in (0, 12, 24, 36):
            clip = torch.from_numpy(frames[start : start + 24 : 3, :, left : left + 48])
            expected.append(clip.permute(3, 0, 1, 2)[None] / 127.5 - 1)
    for view, wanted in zip(views, expected, strict=True):
        assert torch.equal(view, wanted)


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (4, 3), (2, 1)])
@pytest.mark.parametrize("style", ["original", "transformers"])
def test_classify_equals_the_steps_by_hand(videos, model, clips, crops, style):
    preprocess, views = Preprocess((8, 12), style=style), Views(clips=clips, crops=crops, frames=6, stride=4)
    for path in videos if clips < 4 else videos[:1]:
        frames = read_video(path)
        logits = []
        for offset in clip_offsets(len(frames), clips, 6, 4):
            clip = frames[clip_indices(len(frames), offset, 6, 4)]
            logits += [model(view[None]) for view in preprocess.views(clip, crops)]
        expected = torch.cat(logits).mean(0)
        torch.testing.assert_close(classify(model, path, views, preprocess), expected)


def test_gray_models_get_the_luma(videos):
    seen = []
    classify(
        lambda video: seen.append(video) or video.flatten(1),
        videos[0],
        Views(crops=1, clips=1, frames=3),
        Preprocess(48, 48),
        gray=True,
    )
    assert seen[0].shape == (1, 1, 3, 48, 48)


def test_short_videos(videos):
    preprocess = Preprocess(48, 48)
    with pytest.raises(VideoError, match=r"25\.mp4: 25 frames are too few: 32 with stride 2 from frame 0 need 63"):
        list(Views(policy="error").read(videos[1], preprocess))
    seen = {}
    for policy in ("repeat_last", "wrap"):
        ((view,),) = Views(clips=1, crops=1, frames=20, policy=policy).read(videos[1], Preprocess((48, 64), 48))
        pixels = ((view[0].permute(1, 2, 3, 0) + 1) * 127.5).round().numpy().astype(np.uint8)
        seen[policy] = numbers_of(pixels)
    assert seen["repeat_last"] == [*range(0, 25, 2), *[24] * 7]
    assert seen["wrap"] == [number % 25 for number in range(0, 40, 2)]


def test_what_a_short_video_lacks_changes_nothing_under_the_policy_mask(videos, model):
    """Two views of 25 frames; with the stride of 8 the last two frames of the clip are after the end."""
    views, preprocess = Views(clips=2, crops=1, frames=6, stride=8, policy="mask"), Preprocess((8, 12))
    clip = preprocess(read_video(videos[1])[[0, 8, 16, 24, 24, 24]])[None]
    clip[:, :, -2:] = torch.nan
    expected = model(clip, torch.tensor([[True] * 4 + [False] * 2]))[0]
    torch.testing.assert_close(classify(model, videos[1], views, preprocess), expected)
    assert not torch.allclose(classify(model, videos[1], replace(views, policy="repeat_last"), preprocess), expected)


def test_wrong_views():
    for changes, message in {
        "crops": "2 crops cannot be taken",
        "clips": "clips 0 is not positive",
        "frames": "a clip of 0 frames",
        "stride": "stride 0 is empty",
        "policy": "policy 'no' is unknown",
    }.items():
        with pytest.raises(ValueError, match=message):
            Views(**{changes: {"crops": 2, "policy": "no"}.get(changes, 0)})


def test_top_classes_are_softmax_probabilities():
    best = top_classes(torch.tensor([0.0, 2.0, 1.0]), ["a", "b", "c"], 2)
    assert [(one["class"], one["name"]) for one in best] == [(1, "b"), (2, "c")]
    total = 1 + np.e + np.e**2
    np.testing.assert_allclose([one["probability"] for one in best], [np.e**2 / total, np.e / total], rtol=1e-6)
    assert [one["name"] for one in top_classes(torch.arange(2.0))] == ["class 1", "class 0"]


def test_class_names(tmp_path):
    ViViT(tiny_config(num_classes=400)).save_pretrained(tmp_path / "vivit-b-16x2-kinetics400")
    model = ViViT.from_pretrained(tmp_path / "vivit-b-16x2-kinetics400")
    assert class_names(model)[116] == "eating spaghetti"  # as the official weights, which do not name them
    model.save_pretrained(tmp_path / "mine")
    assert class_names(ViViT.from_pretrained(tmp_path / "mine")) is None  # 400 classes alone may be any
    assert class_names(ViViT(tiny_config(num_classes=400))) is None
    model.class_names = [f"my class {number}" for number in range(400)]
    assert class_names(model) is model.class_names
    assert class_names(ViViT(tiny_config(num_classes=5))) is None


def test_command_line_prints_classes_with_probabilities(videos, from_pretrained, model, capsys):
    model.class_names = ["walking", "running", "eating", "sleeping", "reading"]
    assert main(["classify", videos[0], "--checkpoint", "some/model", "--top", "2", "--views", "2x3"]) == 0
    assert any(isinstance(module, FusedMlp) for module in model.modules())  # optimised for inference
    assert from_pretrained == ["some/model"]
    logits = classify(model, videos[0], Views(clips=2, crops=3, frames=6), Preprocess((8, 12)))
    best = top_classes(logits, model.class_names, 2)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == videos[0]
    assert [line.split() for line in lines[1:]] == [[f"{one['probability']:.2%}", one["name"]] for one in best]
    assert err == ""


def test_one_bad_file_does_not_stop_the_others(videos, from_pretrained, capsys, tmp_path):
    text = tmp_path / "page.mp4"
    text.write_text("<html>")
    paths = [videos[0], str(text), str(tmp_path / "none.mp4"), videos[1]]
    assert main(["classify", *paths, "--checkpoint", "m", "--views", "1x1", "--json"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["video"] for row in rows] == paths
    assert ["error" in row for row in rows] == [False, True, True, False]
    assert [len(row["classes"]) for row in rows if "classes" in row] == [5, 5]
    np.testing.assert_allclose(sum(one["probability"] for one in rows[0]["classes"]), 1, rtol=1e-5)
    assert f"vivit-zoo: {text}: a text file, not a video; it begins '<html>'" in err
    assert f"vivit-zoo: {tmp_path / 'none.mp4'}: there is no such file" in err
    assert "%|" not in err  # no progress bar where nobody watches it


def test_outputs_that_are_no_numbers_are_errors(videos, from_pretrained, model, capsys):
    model.head.bias.data[2] = torch.nan
    assert main(["classify", videos[0], "--checkpoint", "m", "--views", "1x1", "--json"]) == 1
    out, _ = capsys.readouterr()
    assert json.loads(out)["error"].endswith("no finite numbers; its weights may be damaged")


def test_options_reach_their_places(videos, from_pretrained, model, capsys):
    def probabilities(*options):
        assert main(["classify", videos[0], "--checkpoint", "m", "--json", "--views", "1x1", *options]) == 0
        return json.loads(capsys.readouterr().out)["classes"]

    optimize_for_inference(model)  # as the command does, for the same rounding
    for options, views, style in [
        ([], {}, "original"),
        (["--stride", "5"], {"stride": 5}, "original"),
        (["--preprocessing", "transformers"], {}, "transformers"),
        (["--stride", "30", "--policy", "wrap"], {"stride": 30, "policy": "wrap"}, "original"),
        (["--device", "cpu"], {}, "original"),
    ]:
        logits = classify(
            model, videos[0], Views(clips=1, crops=1, frames=6, **views), Preprocess((8, 12), style=style)
        )
        assert probabilities(*options) == top_classes(logits), options
    assert main(["classify", videos[0], "--checkpoint", "m", "--stride", "30", "--policy", "error"]) == 1


def test_a_model_in_training_mode_is_taken_out_of_it(videos, monkeypatch):
    model = ViViT(tiny_config(drop=0.5)).train()
    monkeypatch.setattr(ViViT, "from_pretrained", lambda source: model, raising=False)
    assert main(["classify", videos[0], "--checkpoint", "m", "--views", "1x1"]) == 0
    assert not model.training


def test_several_heads(videos, monkeypatch, capsys):
    model = randomise(ViViT(tiny_config(num_classes={"noun": 4, "verb": 3}))).eval()
    monkeypatch.setattr(ViViT, "from_pretrained", lambda source: model, raising=False)
    arguments = ["classify", videos[0], "--checkpoint", "m", "--views", "1x1", "--top", "2"]
    assert main([*arguments, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert {head: len(classes) for head, classes in row["classes"].items()} == {"noun": 2, "verb": 2}
    assert main(arguments) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == ["noun", "noun", "verb", "verb"]


def test_several_classes_a_video_have_sigmoids(videos, from_pretrained, model, capsys):
    """Averaged over the views; with a threshold all classes above it, and no others."""
    model.class_names, model.problem_type = ["a", "b", "c", "d", "e"], "multi_label_classification"
    arguments = ["classify", videos[0], "--checkpoint", "m", "--views", "2x1"]
    optimize_for_inference(model)
    views = [view for (view,) in Views(clips=2, crops=1, frames=6).read(videos[0], Preprocess((8, 12)))]
    expected = torch.stack([model(view)[0] for view in views]).sigmoid().mean(0).detach()
    assert main([*arguments, "--json", "--top", "3"]) == 0
    best = json.loads(capsys.readouterr().out)["classes"]
    assert [one["class"] for one in best] == expected.topk(3).indices.tolist()
    np.testing.assert_allclose([one["probability"] for one in best], expected.topk(3).values, rtol=1e-5)
    threshold = expected.sort().values[2:4].mean().item()
    assert main([*arguments, "--threshold", str(threshold)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["abcde"[number] for number in expected.topk(2).indices]
    assert main([*arguments, "--threshold", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [videos[0]]  # no class is certain


def test_a_regression_has_values(videos, from_pretrained, model, capsys):
    model.class_names, model.problem_type = ["speed", "size", "x", "y", "z"], "regression"
    arguments = ["classify", videos[0], "--checkpoint", "m", "--views", "2x1"]
    optimize_for_inference(model)
    expected = classify(model, videos[0], Views(clips=2, crops=1, frames=6), Preprocess((8, 12)))
    assert main([*arguments, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in row["values"]] == model.class_names
    assert [one["value"] for one in row["values"]] == expected.tolist()
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [f"{expected[0].item():.5g}", "speed"]


@pytest.mark.parametrize(
    ("problem_type", "why"), [(None, "gives it one; use --top"), ("regression", "predicts numbers")]
)
def test_a_threshold_is_for_several_classes(videos, from_pretrained, model, capsys, problem_type, why):
    model.problem_type = problem_type
    assert main(["classify", videos[0], "--checkpoint", "m", "--threshold", "0.5"]) == 2
    assert (
        f"a threshold of 0.5 is for models that give a video several classes; this one {why}" in capsys.readouterr().err
    )


def test_what_is_wrong_is_said_before_a_model_is_loaded(videos, from_pretrained, capsys, tmp_path):
    for path, device, message in [
        (videos[0], "abacus", "there is no device 'abacus'; this machine has cpu"),
        (str(tmp_path / "none.mp4"), "cpu", "there is no such file"),
        (str(tmp_path), "cpu", "a folder, not a video; give the files in it"),
    ]:
        assert main(["classify", path, "--checkpoint", "m", "--device", device]) == 2
        assert message in capsys.readouterr().err
    assert from_pretrained == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--views", "four"], "'four' is not CLIPSxCROPS, such as 1x1 or 4x3"),
        (["--views", "4x2"], "'4x2' is not CLIPSxCROPS, such as 1x1 or 4x3: at least one clip, and 1 or 3 crops"),
        (["--views", "0x3"], "'0x3' is not CLIPSxCROPS"),
        (["--top", "0"], "argument --top: 0 is too small; give at least 1"),
        (["--stride", "0"], "argument --stride: 0 is too small; give at least 1"),
        (["--stride", "2.5"], "argument --stride: '2.5' is not a whole number"),
        (["--threshold", "50"], "argument --threshold: '50' is not a probability, from 0 to 1"),
        (["--policy", "x"], "invalid choice: 'x'"),
        (["--preprocessing", "x"], "invalid choice: 'x'"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(["classify", "a.mp4", "--checkpoint", "m", *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("changes", "message"), [({"num_classes": 0}, "no head"), ({"in_chans": 5}, "5 channels")])
def test_models_that_cannot_classify_videos(videos, monkeypatch, capsys, changes, message):
    model = ViViT(tiny_config(**changes))
    monkeypatch.setattr(ViViT, "from_pretrained", lambda source: model, raising=False)
    assert main(["classify", videos[0], "--checkpoint", "m"]) == 2
    assert message in capsys.readouterr().err
