import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.conftest import tiny_config
from vivit_zoo import ViViT, commands
from vivit_zoo.cli import VARIANTS, main
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.system.program import PROGRAM
from vivit_zoo.training.help import STUDY_HELP, TRAIN_HELP

ROOT = Path(__file__).parents[1]


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
    assert "the following arguments are required: COMMAND" in capsys.readouterr().err


def test_convert_passes_every_option_on(monkeypatch, tmp_path, capsys):
    asked = {}

    class Model:
        load_report = "the report"

        def save_pretrained(self, folder, format):
            asked.update(folder=folder, format=format)

    monkeypatch.setattr(ViViT, "from_pretrained", lambda source, **given: asked.update(given, source=source) or Model())
    options = "--revision v1 --variant factorised_self_attention --frames 6 --image-size 8 12 --order time_space"
    options += " --sampled-frames 3 --format transformers"
    assert main(["convert", "a/b", str(tmp_path), *options.split()]) == 0
    assert asked == {
        "source": "a/b", "folder": tmp_path, "format": "transformers", "revision": "v1", "order": "time_space",
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


def run_python(*arguments, cwd=ROOT, path=ROOT):
    environment = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["classify", "--help"], 0),
        (["classify", "a.mp4", "--checkpoint", "m", "--top", "0"], 2),
        (["study"], 0),
        (["study", "variants", "--help"], 0),
        (["study", "variant"], 2),
        (["train", "--help"], 0),
        (["train", "kinetics4000"], 2),
    ],
)
def test_help_and_wrong_arguments_need_no_torch(arguments, code):
    script = """
import sys
from vivit_zoo.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as done:
    code = done.code or 0
slow = {"torch", "numpy", "timm", "jsonargparse"} & sys.modules.keys()
sys.exit(f"imported {slow}" if slow else code)
"""
    done = run_python("-c", script, *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_variants_are_those_of_the_encoders():
    assert list(VARIANTS) == list(ENCODERS)


def test_classifying_needs_no_timm():
    script = "import sys, vivit_zoo.commands, vivit_zoo.evaluation.classify, vivit_zoo.weights.load as load; load"
    done = run_python("-c", script + "\nprint([name for name in ('timm', 'transformers') if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_studies_and_recipes_of_a_wheel(tmp_path):
    """Built as a wheel is, and run where no clone is."""
    build = "import setuptools; setuptools.setup()"
    assert run_python("-c", build, "-q", "build_py", "--build-lib", str(tmp_path / "site")).returncode == 0
    listed = run_python("-m", "vivit_zoo", "study", cwd=tmp_path, path=tmp_path / "site")
    names = {line.split()[0] for line in listed.stdout.splitlines() if line.startswith("  ") and "--" not in line}
    assert names == {
        file.stem for file in (ROOT / "experiments").glob("*.py") if "run_from_command_line(" in file.read_text()
    }
    assert "Which variant of ViViT learns best for what it costs?" in listed.stdout
    recipe = run_python("-m", "vivit_zoo", "train", "something", "--help", cwd=tmp_path, path=tmp_path / "site")
    assert "Recipe something: " in recipe.stdout, recipe.stderr


@pytest.mark.parametrize(("arguments", "script"), [
    (["study", "variants", "--steps", "3"], "variants.py"),
    (["train", "--lr", "1"], "recipes/own_videos.py"),
    (["train", "moments", "--lr", "1"], "recipes/moments.py"),
])  # fmt: skip
def test_scripts_get_the_arguments_and_give_the_exit_code(arguments, script, monkeypatch):
    seen = []

    def run_path(path, init_globals, run_name):
        assert sys.path[0] == str(Path(path).parent)
        assert init_globals == {PROGRAM: f"vivit-zoo {' '.join(arguments[:-2])}"}
        seen.append((path, run_name, sys.argv[1:]))
        raise SystemExit(3)

    monkeypatch.setattr(sys, "argv", ["vivit-zoo"])
    monkeypatch.setattr(runpy, "run_path", run_path)
    before = list(sys.path)
    assert main(arguments) == 3
    assert seen == [(str(ROOT / "experiments" / script), "__main__", arguments[-2:])]
    assert sys.path == before


@pytest.mark.parametrize(
    ("command", "script", "text"),
    [
        (["train"], "recipes/own_videos.py", TRAIN_HELP),
        (["study", "variants"], "variants.py", STUDY_HELP),
    ],
)
def test_the_options_of_the_short_help_exist(command, script, text, monkeypatch, capsys):
    assert main([*command, "--help-all"]) == 0
    options = set(re.findall(r"--[\w.]+", text)) - {"--help"}
    assert len(options) >= 10
    assert options <= set(re.findall(r"--[\w.]+", capsys.readouterr().out))
    file = str(ROOT / "experiments" / script)
    monkeypatch.setattr(sys, "argv", [file, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(file, run_name="__main__")
    short = capsys.readouterr().out
    assert short.endswith(text + "\n")
    assert len(short.splitlines()) < 50


def test_help_shows_the_commands_as_they_are_called_without_a_clone(capsys):
    for command in ("train own_videos", "study variants"):
        assert main([*command.split(), "--help"]) == 0
        text = capsys.readouterr().out
        assert f"    vivit-zoo {command} " in text or f"    vivit-zoo {command}\n" in text
        assert "experiments/" not in text
    assert main(["train", "--help"]) == 0
    assert "-m vivit_zoo train own_videos --data.train clips" in capsys.readouterr().out


def test_numbers_are_checked_before_anything_runs(capsys):
    for arguments in (
        ["bench", "--seconds", "-5"],
        ["bench", "--seconds", "nan"],
        ["bench", "--repeats", "0"],
        ["bench", "--batch", "0"],
        ["bench", "--dtype", "int8"],
        ["summary", "B/16x2", "--frames", "-2"],
        ["check-data", "x", "--workers", "-1"],
        ["attend", "x", "--checkpoint", "y", "--stride", "0"],
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert f"argument {arguments[-2]}" in capsys.readouterr().err


def test_convert_never_loses_its_source(tmp_path, capsys):
    model = ViViT(tiny_config(num_frames=2, image_size=8, dim=8, depth=1, num_heads=2))
    source, other = tmp_path / "source", tmp_path / "other"
    model.save_pretrained(source, format="transformers")
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    for given in (source, source / "model.safetensors"):
        assert main(["convert", str(given), str(source), "--overwrite"]) == 2
        assert "is where the source is, which would be lost" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before
    assert main(["convert", str(source), str(other)]) == 0
    assert main(["convert", str(source), str(other), "--format", "transformers"]) == 2
    assert "has a model already (config.json); give another folder, or add --overwrite" in capsys.readouterr().err
    assert main(["convert", str(source), str(other), "--format", "transformers", "--overwrite"]) == 0
    for file in ("model.safetensors", "config.json"):
        (other / file).unlink()
    assert main(["convert", str(source), str(other)]) == 2
    assert "has a model already (preprocessor_config.json)" in capsys.readouterr().err


def test_bench_keeps_its_results(tmp_path, capsys):
    (tmp_path / "speeds.json").write_text("kept")
    assert main(["bench", "--out", str(tmp_path)]) == 2
    assert "has results already (speeds.json)" in capsys.readouterr().err
    assert (tmp_path / "speeds.json").read_text() == "kept"


def test_a_missing_module_is_named_with_the_command_that_installs_it(monkeypatch, capsys):
    for module, advice in {
        "matplotlib": "pip install 'vivit-zoo[experiments]'",
        "sklearn": "pip install 'vivit-zoo[experiments]'",
        "av": "pip install 'vivit-zoo[video]'",
        "vit_pytorch": "pip install 'vivit-zoo[bench]'",
        "nobody_knows": "pip install nobody-knows",
    }.items():

        def fail(_, module=module):
            raise ModuleNotFoundError(f"No module named '{module}.x'", name=f"{module}.x")

        monkeypatch.setattr(commands, "summary", fail)
        assert main(["summary", "B/16x2"]) == 2
        assert capsys.readouterr().err == f"vivit-zoo: {module} is not installed; this needs it: {advice}\n"


def test_a_warning_for_the_user_is_one_line(monkeypatch, capsys):
    def warn(_):
        for category in (UserWarning, DeprecationWarning):
            print(warnings.formatwarning("2 of 3 videos are absent", category, "code.py", 7, "line"), end="")
        return 0

    monkeypatch.setattr(commands, "summary", warn)
    before = warnings.formatwarning
    assert main(["summary", "B/16x2"]) == 0
    assert warnings.formatwarning is before
    ours, theirs = "vivit-zoo: warning: 2 of 3 videos are absent\n", "code.py:7: DeprecationWarning: 2 of 3"
    assert capsys.readouterr().out.startswith(ours + theirs)


def test_ctrl_c_is_an_exit_code_without_a_traceback(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "summary", interrupt)
    assert main(["summary", "B/16x2"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [["-m", "vivit_zoo", "study"], ["experiments/variants.py", "--help"]])
def test_a_closed_pipe_is_no_error(command):
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


# Folders of the kernel, in which not even root can write.
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no folder that root cannot write to")
def test_a_home_that_cannot_be_written_stops_nothing(tmp_path):
    """The caches of matplotlib and of the hub are there by default; that of torch's compiler is in /tmp."""
    ViViT(tiny_config(num_frames=2, image_size=8, dim=8, depth=1, num_heads=2)).save_pretrained(tmp_path / "model")
    script = """if True:
        import sys
        from tests.footage import X264, write_video
        from vivit_zoo.cli import main
        write_video("clip.mp4", 8, **X264["b_frames"])
        commands = [["attend", "clip.mp4", "--checkpoint", "model", "--out", "out"], ["convert", "model", "converted"]]
        sys.exit(max(main(command) for command in commands))
    """
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_", "MPL"))}
    environment = keep | {"PYTHONPATH": str(ROOT), "HOME": "/proc"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "clip.png").exists()
    assert (tmp_path / "converted" / "model.safetensors").exists()
