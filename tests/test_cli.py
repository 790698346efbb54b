import pytest

from vivit_zoo import ViViT
from vivit_zoo.cli import main


def test_summary_prints_the_papers_numbers_beside_ours(capsys):
    assert main(["summary", "B/16x2"]) == 0
    rows = {line.split("  ")[0]: line.split()[-4:] for line in capsys.readouterr().out.splitlines()}
    assert rows["joint"] == ["88,953,232", "451.52", "455.2", "455.2"]
    assert rows["factorised_self_attention"] == ["117,319,312", "371.09", "372.3", "372.3"]
    assert rows["factorised_encoder, temporal_depth=0"][-2:] == ["283.9", "283.9"]


def test_summary_of_other_sizes_claims_no_paper(capsys):
    assert main(["summary", "S/16x2", "--frames", "8", "--image-size", "64", "96", "--temporal-depth", "2"]) == 0
    out = capsys.readouterr().out
    assert "factorised_encoder, temporal_depth=2" in out
    assert all(line.endswith("-") for line in out.splitlines()[1:7])


def test_summary_where_a_size_has_not_every_variant(capsys):
    assert main(["summary", "Ti/16x2", "--temporal-depth", "0", "--frames", "4", "--image-size", "32"]) == 0
    out = capsys.readouterr().out
    assert "factorised_dot_product: factorised dot-product attention halves the heads; num_heads 3 is odd" in out
    assert out.count("temporal_depth=0") == 1


def test_wrong_name_and_wrong_size(capsys):
    assert main(["summary", "B16"]) == 2
    assert "vivit-zoo: model name 'B16' is unknown" in capsys.readouterr().err
    assert main(["summary", "B/16x2", "--image-size", "64", "96", "128"]) == 2
    assert "image_size takes 2 numbers, got (64, 96, 128)" in capsys.readouterr().err
    assert main(["summary", "B/16x2", "--frames", "31"]) == 2
    assert "31 frames are not divisible by the tubelet's 2; use 30" in capsys.readouterr().err


def test_no_command_says_how(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "summary" in capsys.readouterr().err


def test_convert_passes_every_option_on(monkeypatch, tmp_path, capsys):
    asked = {}

    class Model:
        load_report = "the report"

        def save_pretrained(self, folder, format):
            asked.update(folder=folder, format=format)

    monkeypatch.setattr(ViViT, "from_pretrained", lambda source, **given: asked.update(given, source=source) or Model())
    options = "--revision v1 --variant factorised_self_attention --frames 6 --image-size 8 12 --order time_space"
    folder = str(tmp_path)
    assert main(["convert", "a/b", folder, *options.split(), "--sampled-frames", "3", "--format", "transformers"]) == 0
    assert asked == {
        "source": "a/b", "folder": folder, "format": "transformers", "revision": "v1", "order": "time_space",
        "variant": "factorised_self_attention", "num_frames": 6, "image_size": (8, 12), "sampled_frames": 3,
    }  # fmt: skip
    assert "the report" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["bench", "attend"])
def test_results_go_into_a_folder(command, tmp_path, capsys):
    file = tmp_path / "there.txt"
    file.write_text("kept")
    with pytest.raises(SystemExit, match="2"):
        main([command, *({"attend": ["clip.mp4", "--checkpoint", "m"]}.get(command, [])), "--out", str(file)])
    assert "there.txt' is a file; give a folder" in capsys.readouterr().err
    assert file.read_text() == "kept"
