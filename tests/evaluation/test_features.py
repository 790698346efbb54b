"""Features of sliding windows: equal to those of single clips, whole files, resumable, any form of data set."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import randomise, tiny_config
from tests.footage import BROKEN, X264, damage, write_broken_set, write_set, write_video
from vivit_zoo import ViViT
from vivit_zoo.cli import main
from vivit_zoo.datasets import MovingDigits, read_catalogue
from vivit_zoo.datasets.catalogue import Catalogue, Entry
from vivit_zoo.evaluation.feature_files import list_features, read_features
from vivit_zoo.evaluation.features import Extraction, compute_features, extract_features, read_sources, windows_of
from vivit_zoo.evaluation.probe import load_features
from vivit_zoo.video.clips import Views, Windows
from vivit_zoo.video.preprocess import Preprocess
from vivit_zoo.video.reader import VideoReader, read_video

EVERYTHING = Extraction(layers=(0, -1), outputs=("pooled", "frames", "dense"))


@pytest.fixture(scope="module")
def model():
    return randomise(
        ViViT(tiny_config(variant="factorised_self_attention", image_size=(32, 48), tubelet_size=(2, 8, 8)))
    )


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    """A video of 60 s at 30 frames a second."""
    return write_video(tmp_path_factory.mktemp("video") / "minute.mp4", 1800, size=(36, 64), preset="ultrafast", g=30)


@pytest.fixture
def decoded(monkeypatch):
    """Numbers of the frames that are decoded, in order."""
    numbers, read = [], VideoReader.read

    def count(self, indices, change=None):
        numbers.extend(indices)
        return read(self, indices, change)

    monkeypatch.setattr(VideoReader, "read", count)
    return numbers


def test_windows_of_a_long_video_equal_single_clips(model, checkpoint, minute, tmp_path, decoded, capsys):
    """The command on a video of 60 s, windows of 6 frames with stride 5, every 3 sampled frames."""
    out = tmp_path / "features"
    sizes = [
        "--stride",
        "5",
        "--hop",
        "3",
        "--layers",
        "0",
        "-1",
        "--outputs",
        "pooled",
        "frames",
        "dense",
        "--batch",
        "7",
    ]
    assert (
        main(["features", str(minute), "--checkpoint", checkpoint, "--out", str(out), "--device", "cpu", *sizes]) == 0
    )
    assert "1 written, 0 skipped, as they exist, 0 could not be read" in capsys.readouterr().out
    assert decoded == list(range(0, 1800, 5))  # each sampled frame once, though it is in two windows
    (file,) = list_features(out)
    found = read_features(file)
    assert found.video == str(minute)
    assert (found.label, found.class_name) == (None, None)
    assert found.settings["layers"] == [0, 1]
    assert found.settings["checkpoint"] == checkpoint
    frames, times = found.tensors["frames"], found.tensors["times"]
    assert len(frames) == (360 - 6) // 3 + 1
    assert frames[2].tolist() == [30, 35, 40, 45, 50, 55]
    torch.testing.assert_close(times, frames.double() / 30)
    preprocess = windows_of(model)[1]
    for number in (0, 1, 57, len(frames) - 1):
        clip = preprocess(read_video(minute, frames[number].numpy()))[None]
        with torch.no_grad():
            features, tokens = model.eval().forward_intermediates(clip, [0, 1], norm=True)
        torch.testing.assert_close(found.tensors["features"][number], features[0], rtol=1e-4, atol=1e-5)
        for layer, dense in enumerate(tokens):
            forms = {"pooled": dense.mean((1, 2, 3)), "frames": dense.mean((2, 3)), "dense": dense}
            for name, expected in forms.items():
                assert found.tensors[f"layer.{layer}.{name}"].dtype == torch.float32
                torch.testing.assert_close(
                    found.tensors[f"layer.{layer}.{name}"][number], expected[0], rtol=1e-4, atol=1e-5
                )


def test_a_model_that_spreads_its_frames_gets_one_window(model):
    from vivit_zoo.weights.processing import Processing

    spreading = ViViT(model.config)
    spreading.processing = Processing(short_side=None)
    assert windows_of(spreading)[0] == Views(clips=1, crops=1, frames=6, spread=True)
    assert windows_of(spreading, hop=3)[0] == Windows(frames=6, stride=2, hop=3)
    assert windows_of(model, fps=4.0)[0] == Windows(frames=6, stride=2, fps=4.0)
    with pytest.raises(ValueError, match="stride 2 and fps 4 are both given"):
        windows_of(model, stride=2, fps=4.0)


def same_files(one, other):
    assert [file.name for file in list_features(one)] == [file.name for file in list_features(other)]
    for a, b in zip(list_features(one), list_features(other), strict=True):
        a, b = read_features(a), read_features(b)
        assert (a.video, a.label, a.class_name, a.settings) == (b.video, b.label, b.class_name, b.settings)
        for name, tensor in a.tensors.items():
            torch.testing.assert_close(b.tensors[name], tensor, rtol=1e-4, atol=1e-5)


def test_killed_in_the_middle_and_resumed(checkpoint, tmp_path, capsys):
    """SIGKILL of the command at some moment, when a file is there and others are not."""
    clips = write_set(tmp_path / "clips", per_class=5)
    command = ["features", str(clips), "--checkpoint", checkpoint, "--device", "cpu", "--stride", "1", "--hop", "1"]
    command += ["--batch", "1", "--outputs", "dense"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vivit_zoo", *command, "--out", str(tmp_path / "killed")],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not list((tmp_path / "killed").glob("*.safetensors")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = list_features(tmp_path / "killed")
    assert 1 <= len(left) < 15
    times = {file: file.stat().st_mtime_ns for file in left}
    assert main([*command, "--out", str(tmp_path / "killed"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"written": 15 - len(left), "skipped": len(left), "broken": {}}
    assert {file: file.stat().st_mtime_ns for file in left} == times
    assert not list((tmp_path / "killed").glob("*.part"))
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    same_files(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_whole_files(model, tmp_path, monkeypatch, number, capsys):
    monkeypatch.setattr(
        signal, "getsignal", lambda n: {signal.SIGINT: signal.default_int_handler}.get(n, signal.SIG_DFL)
    )
    videos, batches = MovingDigits("train", 6).videos(), []
    gray = randomise(ViViT(tiny_config(in_chans=1, num_frames=4))).eval()
    compute = gray.forward_intermediates

    def told(*args, **kwargs):
        batches.append(1)
        if len(batches) == 2:
            os.kill(os.getpid(), number)
        return compute(*args, **kwargs)

    monkeypatch.setattr(gray, "forward_intermediates", told)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
        extract_features(gray, videos, tmp_path, batch_size=5)
    assert len(batches) == 2
    assert "stopped: 5 of 6 videos are done" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 5
    report = extract_features(gray, videos, tmp_path, batch_size=5)
    assert (report.written, report.skipped) == (1, 5)


def test_labels_and_settings_are_in_the_files(checkpoint, model, tmp_path):
    write_set(tmp_path / "clips", per_class=1)
    model = ViViT.from_pretrained(checkpoint)
    extract_features(model, read_catalogue(tmp_path / "clips"), tmp_path / "out", Extraction(dtype="float16"))
    found = [read_features(file, ["features"]) for file in list_features(tmp_path / "out")]
    assert [(one.label, one.class_name) for one in found] == [(0, "jump"), (1, "run"), (2, "walk")]
    assert all(one.tensors["features"].dtype == torch.float16 for one in found)
    assert found[0].settings["checkpoint"] == checkpoint
    assert found[0].settings["sampler"] == "Windows"
    with pytest.raises(ValueError, match=r"has no tensor 'layer.0.pooled'; it has features, frames, layer.1.pooled"):
        read_features(list_features(tmp_path / "out")[0], ["layer.0.pooled"])
    with pytest.raises(ValueError, match="there are no files of features"):
        list_features(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"what": Extraction(layers=(0,))}, r"layers \[1\] instead of \[0\]"),
        ({"what": Extraction(norm=False)}, "norm True instead of False"),
        ({"sampler": Windows(frames=6, stride=1)}, "sampler.stride 2 instead of 1"),
        ({"preprocess": Preprocess((32, 48), style="transformers")}, "preprocess.style 'original' instead of 'transf"),
    ],
)
def test_other_settings_are_refused(model, tmp_path, change, message):
    write_set(tmp_path / "clips", per_class=1)
    videos = read_catalogue(tmp_path / "clips")
    extract_features(model.eval(), videos, tmp_path / "out", checkpoint="one")
    with pytest.raises(ValueError, match=message):
        extract_features(model, videos, tmp_path / "out", **change)
    assert extract_features(model, videos, tmp_path / "out", checkpoint="moved").skipped == 3
    with pytest.raises(ValueError, match=r"weights '[0-9a-f]{16}' instead of"):
        extract_features(randomise(ViViT(model.config), seed=1).eval(), videos, tmp_path / "out")
    relabelled = Catalogue([Entry(entry.video, 0) for entry in videos.entries], videos.classes)
    with pytest.raises(ValueError, match="label 1 instead of 0"):
        extract_features(model, relabelled, tmp_path / "out")


def test_unreadable_videos_are_reported_and_counted(checkpoint, tmp_path, capsys):
    """Broken from the start, or in the middle, when windows of the video are written already."""
    write_broken_set(tmp_path / "clips")
    damaged = tmp_path / "clips" / "run" / "run_5.mp4"
    write_video(damaged, 200, g=5, **{k: v for k, v in X264["b_frames"].items() if k != "g"})
    damage(damaged, 60, 160)
    command = ["features", str(tmp_path / "clips"), "--checkpoint", checkpoint, "--out", str(tmp_path / "out")]
    assert main([*command, "--device", "cpu", "--stride", "1", "--batch", "2", "--json"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    named = {name for name, (spoil, said) in BROKEN.items() if "only one frame" not in said} | {"run/run_5.mp4"}
    assert {os.path.relpath(name, tmp_path / "clips") for name in report["broken"]} == named
    assert report["written"] == 30 - len(named)
    assert err.count("skipped: ") == len(named)
    assert len(list((tmp_path / "out").iterdir())) == report["written"]


def test_any_form_of_data_set(model, tmp_path):
    """A csv, shards and a table give the features of the folder; the same video has one file, however it is listed."""
    import tarfile

    from datasets import Dataset

    clips = write_set(tmp_path / "clips", per_class=1)
    files = sorted(clips.glob("*/*.mp4"))
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{file},{file.parent.name}\n" for file in files))
    with tarfile.open(tmp_path / "shard-000.tar", "w") as shard:
        for file in files:
            (tmp_path / "x.cls").write_text(file.parent.name)
            shard.add(file, f"{file.stem}.mp4")
            shard.add(tmp_path / "x.cls", f"{file.stem}.cls")
    table = Dataset.from_dict(
        {"video": [{"path": None, "bytes": f.read_bytes()} for f in files], "label": [f.parent.name for f in files]}
    )
    model.eval()
    sources = {"folder": clips, "list": tmp_path / "list.csv", "shards": tmp_path / "shard-000.tar", "table": table}
    for name, source in sources.items():
        extract_features(model, read_catalogue(source), tmp_path / name)
    expected = [load_file(file)["features"] for file in list_features(tmp_path / "folder")]
    for name in sources:
        found = [read_features(file) for file in list_features(tmp_path / name)]
        found.sort(key=lambda one: one.class_name)
        assert [one.class_name for one in found] == ["jump", "run", "walk"]
        for one, features in zip(found, expected, strict=True):
            torch.testing.assert_close(one.tensors["features"], features)
    report = extract_features(model, read_catalogue(tmp_path / "list.csv"), tmp_path / "folder")
    assert (report.written, report.skipped) == (0, 3)


def test_files_and_data_sets_together(tmp_path):
    clips = write_set(tmp_path / "clips", per_class=1)
    single = write_video(tmp_path / "single.mp4", 5)
    catalogue = read_sources([str(single), str(clips)])
    assert [entry.label for entry in catalogue.entries] == [None, 0, 1, 2]
    assert list(catalogue.classes) == ["jump", "run", "walk"]


def test_images_have_no_times(tmp_path):
    from PIL import Image

    for number in range(8):
        folder = tmp_path / "set" / "walk" / "clip"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 12), number, np.uint8)).save(folder / f"{number}.png")
    gray = randomise(ViViT(tiny_config(in_chans=1))).eval()
    extract_features(gray, read_catalogue(tmp_path / "set"), tmp_path / "out", sampler=Windows(frames=6, stride=1))
    found = read_features(list_features(tmp_path / "out")[0])
    assert found.tensors["times"].isnan().all()
    assert found.tensors["frames"].tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 7, 7, 7, 7]]


@pytest.mark.parametrize("variant", ["joint", "factorised_self_attention"])
def test_features_of_the_last_window_are_those_of_its_frames(variant, tmp_path):
    """Under the policy "mask"; of 16 frames the third window of 6 has four, which fill two of its three tubelets."""
    model = randomise(ViViT(tiny_config(in_chans=1, variant=variant, image_size=32))).eval()
    what = Extraction(layers=(0, 1), outputs=("pooled", "frames", "dense"))
    sampler = Windows(frames=6, stride=1, policy="mask")
    preprocess = windows_of(model)[1]
    videos = MovingDigits("train", 1).videos()
    (file,) = extract_features(model, videos, tmp_path, what, sampler=sampler, preprocess=preprocess).files
    tensors = read_features(file).tensors
    assert tensors["mask"].tolist() == [[True] * 6, [True] * 6, [True] * 4 + [False] * 2]
    with videos.entries[0].video.open(gray=True) as video:
        frames = video.read(tensors["frames"][2].numpy(), change=preprocess.resize)
    clip = preprocess(frames)[None]
    clip[:, :, 4:] = torch.nan
    with torch.no_grad():
        features, tokens = model.forward_intermediates(clip, [0, 1], norm=True, mask=tensors["mask"][2:])
    torch.testing.assert_close(tensors["features"][2], features[0], rtol=1e-4, atol=1e-5)
    for layer, dense in enumerate(tokens):
        there = dense[0, :2]
        torch.testing.assert_close(tensors[f"layer.{layer}.dense"][2, :2], there, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tensors[f"layer.{layer}.pooled"][2], there.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
        assert not tensors[f"layer.{layer}.dense"][2, 2].any()
        assert not tensors[f"layer.{layer}.frames"][2, 2].any()
    assert load_features([file], "layer.1.pooled").tokens.shape == (1, 3, 1, 24)
    with pytest.raises(ValueError, match="probes cannot leave out frames that are not there"):
        load_features([file], "layer.1.frames")


def test_what_cannot_be_extracted(model, tmp_path):
    videos = MovingDigits("train", 1).videos()
    with pytest.raises(ValueError, match="the model is in training mode"):
        extract_features(ViViT(tiny_config(in_chans=1)), videos, tmp_path)
    with pytest.raises(ValueError, match="the model takes 2 channels"):
        extract_features(ViViT(tiny_config(in_chans=2)).eval(), videos, tmp_path)
    with pytest.raises(ValueError, match="layer 2 is not in -2 to 1"):
        extract_features(ViViT(tiny_config(in_chans=1)).eval(), videos, tmp_path, Extraction(layers=(2,)))
    with pytest.raises(ValueError, match="the views have 3 crops"):
        extract_features(ViViT(tiny_config(in_chans=1)).eval(), videos, tmp_path, sampler=Views(crops=3))
    with pytest.raises(ValueError, match="output 'mean' is unknown"):
        Extraction(outputs=("mean",))
    with pytest.raises(ValueError, match="dtype 'int8' is unknown"):
        Extraction(dtype="int8")
    with pytest.raises(ValueError, match="need an output"):
        Extraction(outputs=())


@pytest.mark.parametrize("variant", ["joint", "factorised_encoder"])
def test_layers_of_every_variant(variant):
    model = randomise(ViViT(tiny_config(variant=variant))).eval()
    video = torch.randn(2, *model.config.input_shape)
    found = compute_features(model, video, Extraction(layers=(-1, 0), outputs=("frames", "dense")))
    last = 3 if variant == "factorised_encoder" else 1
    assert set(found) == {"features", *(f"layer.{n}.{form}" for n in (0, last) for form in ("frames", "dense"))}
    assert found["layer.0.dense"].shape == (2, 3, 2, 3, 24)
    assert found[f"layer.{last}.frames"].shape == (2, 3, 24)
