"""The check is the gate: what a run would refuse it lists, and what it writes with --fix is a set that trains."""

import json
import os

import pytest

from tests.conftest import tiny_config
from tests.datasets.test_formats import KINETICS, touch, write
from tests.datasets.test_rows import BAD_ROWS
from tests.datasets.test_shards import write_shard
from tests.footage import BROKEN, write_broken_set, write_set, write_video
from vivit_zoo.cli import main
from vivit_zoo.datasets import DataConfig, read_catalogue
from vivit_zoo.datasets.rows import RowsError
from vivit_zoo.training.loop import TrainConfig, train
from vivit_zoo.video.augment import Augment

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def quiet(capsys):
    yield
    capsys.readouterr()


def check(*arguments):
    return main(["check-data", *map(str, arguments), "--workers", "0", "--frames", "4", "--stride", "1"])


@pytest.mark.filterwarnings("ignore:.*are training videos too")
def test_a_list_with_each_bad_row_is_stopped_and_trains_once_it_is_mended(tmp_path, capsys):
    root = write_set(tmp_path / "set", 1, frames=8)
    (root / "cut.mp4").write_bytes((root / "walk/walk_0.mp4").read_bytes()[:-50])
    good = ["walk/walk_0.mp4,0", "run/run_0.mp4,1", "jump/jump_0.mp4,0"]
    twice = ["walk/../run/run_0.mp4,1"]
    bad = [*BAD_ROWS, "cut.mp4,1", "gone.mp4,1"]
    source = write(tmp_path / "list.csv", "\n".join(["path,label", *good, *bad, *twice]))

    def config(path):
        augment = Augment(scale_jitter=(1, 1))
        return DataConfig(train=str(path), test=str(path), root=str(root), stride=1, views=(1, 1), augment=augment)

    with pytest.raises(RowsError) as error:
        config(source).build((3, 4, 16, 16))
    assert len(error.value.problems) == len(BAD_ROWS)
    assert all(f"line {line}: " in str(error.value) for line in range(5, 5 + len(BAD_ROWS)))

    out = tmp_path / "clean.csv"
    assert check(source, "--root", root, "--fix", out) == 1
    said = capsys.readouterr()
    assert f"{len(BAD_ROWS)} rows that cannot be used\n" in said.out
    assert all(f"  line {line}: " in said.out for line in range(5, 5 + len(BAD_ROWS)))
    assert "6 of 6 videos looked at, 2 broken" in said.out
    assert f"{out}: 4 usable videos; their paths start from {root}" in said.err
    assert out.read_text().splitlines() == ["path,label", *good, *twice]
    assert check(out, "--root", root) == 0

    model = tiny_config(num_classes=2, num_frames=4, image_size=16)
    few = {"steps": 2, "batch_size": 2, "eval_every": 2, "eval_clips": 2, "warmup_steps": 1, "device": "cpu"}
    trained = train(TrainConfig(model=model, data=config(out), **few), tmp_path / "run")
    assert trained.data.num_classes == 2
    assert len(trained.data.train) == 4


def test_class_folders_become_a_list(tmp_path):
    root = write_broken_set(tmp_path / "set")
    assert check(root, "--fix", tmp_path / "clean.csv") == 1
    before, after = read_catalogue(root), read_catalogue(tmp_path / "clean.csv", root=root)
    kept = [entry for entry in before.entries if str(entry.video.path.relative_to(root)) not in BROKEN]
    assert after.entries == kept
    assert after.classes == before.classes
    assert len(kept) == 25


@pytest.mark.filterwarnings("ignore:.*their labels are joined")
def test_lines_are_kept_as_they_are_in_every_form(tmp_path):
    write_video(tmp_path / "a.mp4", 4)
    (tmp_path / "b.mp4").write_bytes(b"")
    forms = {
        "list.txt": ("a.mp4 1\nb.mp4 1\n", "a.mp4 1\n"),
        "list.jsonl": (
            '{"path": "a.mp4", "label": 1, "x": "é"}\n[]\n{"path": "b.mp4", "label": 0}',
            '{"path": "a.mp4", "label": 1, "x": "é"}\n',
        ),
        "list.csv": ('who;path;label\n"x; y";a.mp4;1\n;b.mp4;1\n', 'who;path;label\n"x; y";a.mp4;1\n'),
        "several.csv": ("path,label\na.mp4,0\na.mp4,2\nb.mp4,1\n", "path,label\na.mp4,0\na.mp4,2\n"),
    }
    for name, (text, expected) in forms.items():
        source = write(tmp_path / name, text)
        out = source.with_stem("clean_" + source.stem)
        task = "multi_label" if name == "several.csv" else "single_label"
        assert check(source, "--fix", out, "--task", task) == 1
        assert out.read_text() == expected
        read_catalogue(out, task=task)


def test_published_lists_keep_their_form(tmp_path):
    write_video(tmp_path / "7.mp4", 4)
    touch(tmp_path, "8.mp4")
    clips = [{"id": "7", "template": "Holding [something]"}, {"id": "8", "template": "Holding [something]"}]
    write(tmp_path / "labels.json", json.dumps({"Holding something": "0"}))
    source = write(tmp_path / "train.json", json.dumps(clips))
    assert check(source, "--fix", tmp_path / "clean.json") == 1
    assert json.loads((tmp_path / "clean.json").read_text()) == clips[:1]
    (tmp_path / "elsewhere").mkdir()
    assert check(source, "--fix", tmp_path / "elsewhere/clean.json") == 2
    write_video(tmp_path / "-A0x-abc_12_000003_000013.mp4", 4)
    touch(tmp_path, "-Zz_000100_000110.mp4")
    source = write(tmp_path / "k.csv", KINETICS)
    assert check(source, "--fix", tmp_path / "clean.csv") == 1
    assert (tmp_path / "clean.csv").read_text() == "".join(KINETICS.splitlines(keepends=True)[:2])


def test_where_no_list_can_be_written(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", 4)
    source = write(tmp_path / "list.csv", "path,label\na.mp4,0\n")
    shard = write_shard(tmp_path / "0.tar", {"a.mp4": (tmp_path / "a.mp4").read_bytes(), "a.cls": b"0"})
    for arguments, message in {
        (
            shard,
            tmp_path / "new.csv",
        ): "is neither a list nor class folders; a list of its usable videos cannot be written",
        (source, source): "is there already; give another name",
        (source, tmp_path / "new.txt"): r"must end in '.csv'",
    }.items():
        assert check(arguments[0], "--fix", arguments[1]) == 2
        assert message in capsys.readouterr().err
    touch(tmp_path, "b.mp4")
    source = write(tmp_path / "broken.csv", "path,label\nb.mp4,0\n")
    assert check(source, "--fix", tmp_path / "new.csv") == 2
    assert "new.csv is not written: no video is usable" in capsys.readouterr().err
    assert not (tmp_path / "new.csv").exists()


def test_the_report_has_all_problems_as_json_too(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", 4)
    source = write(tmp_path / "list.csv", "path,score\na.mp4,0.5\na.mp4,\n")
    assert check(source, "--task", "regression", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == [{"where": "line 3", "what": "the label is empty"}]
    assert report["counts"] == {}
    assert check(source, "--task", "regression") == 1
    assert "1 rows that cannot be used\n  line 3: the label is empty\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", [b"\xe9.mp4", b"a\nb.mp4"])  # Latin-1, which is no UTF-8, and an end of a line
def test_names_that_a_list_cannot_hold(tmp_path, capsys, name):
    root = write_set(tmp_path / "set", 1, frames=8)
    (root / "walk/walk_0.mp4").rename(root / "walk" / os.fsdecode(name))
    assert check(root) == 0
    assert capsys.readouterr().out.encode()  # can be printed
    assert check(root, "--fix", tmp_path / "clean.csv") == 2
    said = ascii(os.fsdecode(name))[1:-1]
    assert f"{said}' has characters that a list cannot hold; rename it" in capsys.readouterr().err
    assert not (tmp_path / "clean.csv").exists()


def test_the_folder_of_the_list_must_be_there(tmp_path, capsys):
    root = write_set(tmp_path / "set", 1, frames=8)
    assert check(root, "--fix", tmp_path / "gone/clean.csv") == 2
    assert "gone/clean.csv: there is no such folder to write it to" in capsys.readouterr().err


def test_a_number_of_thousands_of_digits_is_told_in_short(tmp_path, capsys):
    root = write_set(tmp_path / "set", 1, frames=8)
    source = write(tmp_path / "list.csv", f"path,label\nwalk/walk_0.mp4,{'9' * 5000}\nrun/run_0.mp4,0\n")
    assert check(source, "--root", root) == 1
    assert f"line 2: the label {'9' * 57}... is no class number" in capsys.readouterr().out
