"""From a video file to pictures of what a model looks at."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import randomise, tiny_config
from tests.footage import X264, write_video
from vivit_zoo import ViViT, plots
from vivit_zoo.cli import main
from vivit_zoo.inference import FusedMlp
from vivit_zoo.interpret.attention_rollout import rollout
from vivit_zoo.interpret.colours import dense_features, pca
from vivit_zoo.interpret.maps import head_maps
from vivit_zoo.interpret.overlay import _film, _tubelets, choose_layer


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("videos") / "sixty.mp4", 60, **X264["b_frames"]))


@pytest.fixture
def load(monkeypatch):
    """Lets the command line load a model, whatever the source."""

    def load(**changes):
        model = randomise(ViViT(tiny_config(**changes)))
        monkeypatch.setattr(ViViT, "from_pretrained", lambda source: model, raising=False)
        return model

    return load


@pytest.fixture
def drawn(monkeypatch):
    """What the two pictures are drawn from."""
    seen = {}
    sheet, film = plots.attention_sheet, plots.attention_film
    monkeypatch.setattr(plots, "attention_sheet", lambda *a: (seen.update(sheet=a), sheet(*a)))
    monkeypatch.setattr(plots, "attention_film", lambda *a: (seen.update(film=a), film(*a)))
    return seen


def test_the_pictures_show_what_the_functions_say(video, load, drawn, tmp_path, capsys):
    model = load(variant="factorised_dot_product").train()
    arguments = ["attend", video, "--checkpoint", "m", "--top", "2", "--stride", "3"]
    assert main([*arguments, "--layer", "-1", "--features", "0", "--out", str(tmp_path / "new" / "out")]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    png, gif = (tmp_path / "new" / "out" / f"sixty.{suffix}" for suffix in ("png", "gif"))
    assert lines[0] == video
    assert len(lines) == 4
    assert lines[3] == f"written to {png} and {gif}"
    assert err == ""
    assert not model.training
    assert any(isinstance(module, FusedMlp) for module in model.modules())  # optimised for inference

    frames, rows, file = drawn["sheet"]
    assert file == png
    assert frames.shape == (3, 8, 12, 3)  # one a tubelet
    heads = [f"encoder.blocks.1.attn, head {head}" for head in range(4)]
    assert list(rows) == ["rollout", *heads, "features after block 0, PCA"]
    film, shares, _, fps = drawn["film"]
    assert film.shape == (16, 8, 12, 3)  # five steps of three, and the last
    assert np.array_equal(film[::6], frames)
    assert [rows["rollout"].tolist().index(one.tolist()) for one in shares] == [0] * 6 + [1] * 6 + [2] * 4
    clip = torch.from_numpy(film[::3]).permute(3, 0, 1, 2)[None] / 127.5 - 1
    torch.testing.assert_close(rows["rollout"].flatten(1), rollout(model, clip)[0])
    heads = torch.stack([one for name, one in rows.items() if "head" in name]).flatten(2)
    torch.testing.assert_close(heads, head_maps(model, clip, "encoder.blocks.1.attn")[0])
    with torch.no_grad():
        (tokens,) = model.forward_intermediates(clip, [0], norm=True, intermediates_only=True)
    torch.testing.assert_close(rows["features after block 0, PCA"], pca(tokens)[0])
    with Image.open(gif) as animation:
        assert animation.n_frames == 16
        assert animation.size == (24, 8)  # beside each other
        assert animation.info["duration"] == pytest.approx(1000 / fps, abs=10)


@pytest.mark.parametrize(
    "changes",
    [{"in_chans": 1}, {"num_classes": {"verb": 3, "noun": 2}}, {"num_frames": 14, "sampled_frames": 6}],
    ids=["gray", "two heads", "sampled frames"],
)
def test_models_of_all_kinds(video, load, tmp_path, capsys, changes):
    load(variant="factorised_encoder", **changes)
    assert main(["attend", video, "--checkpoint", "m", "--out", str(tmp_path)]) == 0
    assert ("verb" in capsys.readouterr().out) == ("num_classes" in changes)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["sixty.gif", "sixty.png"]


def test_the_last_features_with_places(load):
    video = torch.rand(1, 3, 6, 8, 12) * 2 - 1
    model = load(variant="factorised_encoder", depth=2, temporal_depth=2)
    dense = dense_features(model, video)
    assert dense.shape == (1, 3, 2, 3, 24)
    assert torch.equal(dense, dense_features(model, video, 1))
    with pytest.raises(ValueError, match="block -1 sees a frame as one token; choose a block of the spatial encoder"):
        dense_features(model, video, -1)


def test_short_videos_are_filled_up(load, drawn, tmp_path):
    load()
    path = str(write_video(tmp_path / "four.mp4", 4, **X264["b_frames"]))
    for policy, length in {"repeat_last": 7, "wrap": 9}.items():
        assert main(["attend", path, "--checkpoint", "m", "--out", str(tmp_path), "--policy", policy]) == 0
        assert len(drawn["film"][0]) == length


def test_a_film_shows_every_frame_once_but_where_the_clip_repeats_it():
    assert [x.tolist() for x in _film(np.array([4, 7, 9]))] == [[4, 5, 6, 7, 8, 9], [0, 0, 0, 1, 1, 2]]
    assert [x.tolist() for x in _film(np.array([0, 2, 3, 3, 3]))] == [[0, 1, 2, 3, 3, 3], [0, 0, 1, 2, 3, 4]]
    assert [x.tolist() for x in _film(np.array([2, 4, 1, 3]))] == [[2, 3, 4, 1, 2, 3], [0, 0, 1, 2, 2, 3]]


def test_frames_that_the_model_skips_belong_to_the_nearest_it_takes():
    shown, place = _tubelets(ViViT(tiny_config()))
    assert shown.tolist() == [0, 2, 4]
    assert place.tolist() == [0, 0, 1, 1, 2, 2]
    shown, place = _tubelets(ViViT(tiny_config(num_frames=14, sampled_frames=6)))  # takes 2, 4, 6, 8, 10, 12
    assert shown.tolist() == [2, 6, 10]
    assert place.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_layers_by_name_and_number():
    model = ViViT(tiny_config(variant="factorised_self_attention"))
    assert choose_layer(model, "encoder.blocks.1.attn_time") == "encoder.blocks.1.attn_time"
    assert choose_layer(model, "0") == "encoder.blocks.0.attn"
    assert choose_layer(model, "-1") == "encoder.blocks.1.attn_time"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "2"], "there is no layer '2'; the model has 2, 0 to 1: encoder.blocks.0.attn, "),
        (["--layer", "head"], "there is no layer 'head'"),
        (["--features", "2"], "block 2 is not in -2 to 1"),
        (["--device", "abacus"], "there is no device 'abacus'; this machine has cpu"),
        (["--stride", "30", "--policy", "error"], "60 frames are too few"),
    ],
)
def test_wrong_arguments_are_told_in_a_line(video, load, tmp_path, capsys, arguments, message):
    load()
    given = ["attend", video, "--checkpoint", "m", "--out", str(tmp_path), *arguments]
    assert main(given) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("vivit-zoo: ")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_layer_is_refused_before_the_weights_are_read(video, tmp_path, capsys):
    ViViT(tiny_config()).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not read")
    for source in (tmp_path / "model", tmp_path / "model" / "config.json", tmp_path / "model" / "model.safetensors"):
        given = ["attend", video, "--checkpoint", str(source), "--out", str(tmp_path / "out"), "--layer", "9"]
        assert main(given) == 2
        assert "there is no layer '9'; the model has 2, 0 to 1" in capsys.readouterr().err


def test_wrong_sources_are_told_in_a_line(load, tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.mp4"
    page.write_text("<html>")
    load()
    for path, message in ((page, "a text file, not a video"), (tmp_path / "none.mp4", "there is no such file")):
        assert main(["attend", str(path), "--checkpoint", "m", "--out", str(tmp_path / "out")]) == 2
        assert f"vivit-zoo: {path}: {message}" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["attend", str(page), "--checkpoint", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path) in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
