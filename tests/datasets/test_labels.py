"""Labels have the same rules in every format: what is none is refused with the reason, numbers stay numbers."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.datasets.test_formats import listed, touch, write
from tests.datasets.test_shards import write_shard
from vivit_zoo.datasets import DataConfig, read_catalogue
from vivit_zoo.datasets.labels import number_labels, read_class_list
from vivit_zoo.datasets.rows import RowsError

NO_LABELS = {  # a value of JSON: what is said of it where one label is wanted
    "": "the label is empty",
    " ": "the label is empty",
    "\ufeff": "the label is empty",
    "nan": "the label 'nan' stands for a missing value",
    "NULL": "the label 'NULL' stands for a missing value",
    "3.0": r"the label 3\.0 is no class number, which is whole; for scores the task is regression",
    "1e3": "the label 1e3 is no class number",
    "0;3;5": "the label '0;3;5' looks like several labels; one is wanted. .* the task is multi_label",
    "1 2": "looks like several labels",
    "[1, 2]": "looks like several labels",
    '{"a": 1}': "looks like several labels",
    "c.mp4": r"the label 'c\.mp4' is the name of a file; put quotes around a path with a comma",
    "a\x00b": "has characters that cannot be printed",
    "-1": "the label -1 is below 0, where class numbers begin; -1 often stands for no label",
    None: r"the label is missing \(null\)",
    True: "the label True is a truth value",
    2.5: r"the label 2\.5 is no class number",
    float("nan"): "the label nan is no class number",
    (1, 2): r"the label \[1, 2\] is a list; one label is wanted. For several the task is multi_label",
    10**7: "the label 10000000 is no class number, of which there are at most 1000000",
}


def as_jsonl(folder, value):
    rows = [{"path": "a.mp4", "label": 0}, {"path": "b.mp4", "label": value}]
    return write(folder / "list.jsonl", "\n".join(map(json.dumps, rows))), "line 2"


def as_json_in_shard(folder, value):
    labels = {"a.json": json.dumps({"label": 0}).encode(), "b.json": json.dumps({"label": value}).encode()}
    return write_shard(folder / "0.tar", {"a.mp4": b"a", "b.mp4": b"b"} | labels), "0.tar::b"


def as_cls_in_shard(folder, value):
    return write_shard(
        folder / "0.tar", {"a.mp4": b"a", "a.cls": b"0", "b.mp4": b"b", "b.cls": value.encode()}
    ), "0.tar::b"


def as_csv(folder, value):
    quoted = '"' + value.replace('"', '""') + '"'
    return write(folder / "list.csv", f"path,label\na.mp4,0\nb.mp4,{quoted}\n"), "line 3"


def as_list(folder, value):
    return write(folder / "list.txt", f"a.mp4\t0\n\nb.mp4\t{value}\n"), "line 3"


def as_table(folder, value):
    import datasets

    kind = datasets.Value("int64") if value is None else None
    features = kind and datasets.Features({"path": datasets.Value("string"), "label": kind})
    labels = [type(value)(0) if not isinstance(value, list | None) else [0] if value else 0, value]
    return datasets.Dataset.from_dict({"path": ["a.mp4", "b.mp4"], "label": labels}, features=features), "row 1"


TEXTS, VALUES = [as_csv, as_list, as_cls_in_shard], [as_jsonl, as_json_in_shard]


@pytest.mark.parametrize("value", NO_LABELS)
def test_what_is_no_label_is_refused_alike_in_all_formats(tmp_path, value):
    value, message = list(value) if isinstance(value, tuple) else value, NO_LABELS[value]
    touch(tmp_path, "a.mp4", "b.mp4")
    for form in VALUES + TEXTS * isinstance(value, str):
        source, where = form(tmp_path, value)
        with pytest.raises(RowsError, match=message) as error:
            read_catalogue(source)
        (problem,) = error.value.problems
        assert problem.where.endswith(where), form.__name__


@pytest.mark.parametrize("value", [None, True, 2.5, [1, 2]])
def test_what_is_no_label_in_a_hugging_face_table(value):
    pytest.importorskip("datasets")
    source, where = as_table(None, value)
    with pytest.raises(RowsError, match=NO_LABELS[tuple(value) if isinstance(value, list) else value]) as error:
        read_catalogue(source)
    assert where in [problem.where for problem in error.value.problems]


@pytest.mark.parametrize("form", TEXTS + VALUES)
def test_right_labels_are_the_same_in_all_formats(tmp_path, form):
    touch(tmp_path, "a.mp4", "b.mp4")
    catalogue = read_catalogue(form(tmp_path, "\ufeff10")[0])
    assert [entry.label for entry in catalogue.entries] == [0, 10]
    assert list(catalogue.classes) == [str(number) for number in range(11)]


def test_numbers_stay_numbers_where_a_cell_is_empty(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "d.mp4", "e.mp4")
    source = write(tmp_path / "list.csv", "path,label\na.mp4,0\nb.mp4,\nd.mp4,10\ne.mp4,2\n")
    with pytest.raises(RowsError, match=r"list\.csv: 1 of 4 rows cannot be used:\n  line 3: the label is empty\n"):
        read_catalogue(source)
    catalogue = read_catalogue(source, strict=False)
    assert listed(catalogue, tmp_path) == [("a.mp4", 0), ("d.mp4", 10), ("e.mp4", 2)]
    assert [str(problem) for problem in catalogue.problems] == ["line 3: the label is empty"]


def test_one_kind_of_label_in_one_file(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    source = write(tmp_path / "list.txt", "a.mp4 3\nb.mp4 three\nc.mp4 0\n")
    with pytest.raises(RowsError, match="line 2: the label 'three' is a name, where 2 labels are numbers"):
        read_catalogue(source)
    names = ["0", "1", "2", "3", "three"]
    assert [entry.label for entry in read_catalogue(source, classes=names).entries] == [3, 4, 0]


def test_names_in_two_spellings(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    source = write(tmp_path / "list.csv", "a.mp4,Push up\nb.mp4,push_up\n")
    with pytest.raises(ValueError, match=r"'Push up' and 'push_up' seem to be one class in two spellings"):
        read_catalogue(source)
    assert len(read_catalogue(source, classes=["Push up", "push_up"])) == 2
    composed, decomposed = "caf\u00e9", "cafe\u0301"  # as Linux and as a Mac spell it
    source = write(tmp_path / "list.csv", f"a.mp4,{composed}\nb.mp4,{decomposed}\nc.mp4,tea\n")
    assert read_catalogue(source).classes == [composed, "tea"]


@pytest.mark.parametrize("other", ["b.mp4", "./b.mp4", "x/../b.mp4", "{here}/b.mp4"])
def test_one_video_with_two_labels(tmp_path, monkeypatch, other):
    touch(tmp_path, "a.mp4", "b.mp4", "x/c.mp4")
    monkeypatch.chdir(tmp_path)
    tmp_path, other = Path(), other.format(here=tmp_path)
    source = write(tmp_path / "list.csv", f"path,label\nb.mp4,1\na.mp4,0\na.mp4,0\n{other},2\n")
    with pytest.raises(
        RowsError, match=r"line 2: .*b\.mp4 has several labels: '1' \(line 2\), '2' \(line 5\); .*multi_label\n  line 5"
    ):
        read_catalogue(source)
    assert listed(read_catalogue(source, strict=False), tmp_path) == [("a.mp4", 0), ("a.mp4", 0)]
    with pytest.warns(UserWarning, match="1 videos are listed several times; their labels are joined"):
        catalogue = read_catalogue(source, task="multi_label")
    assert listed(catalogue, tmp_path) == [("b.mp4", (1, 2)), ("a.mp4", (0,)), ("a.mp4", (0,))]


def test_several_labels(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    source = write(tmp_path / "list.csv", 'path,label\na.mp4,3;0\nb.mp4,"[1]"\nc.mp4,[]\nd.mp4,"[0, 3]"\n')
    catalogue = read_catalogue(source, task="multi_label")
    assert [entry.label for entry in catalogue.entries] == [(0, 3), (1,), (), (0, 3)]
    assert list(catalogue.classes) == ["0", "1", "2", "3"]
    source = write(
        tmp_path / "list.jsonl", '{"path": "a.mp4", "labels": ["walk", "run"]}\n{"path": "b.mp4", "labels": []}'
    )
    catalogue = read_catalogue(source, task="multi_label")
    assert [entry.label for entry in catalogue.entries] == [(0, 1), ()]
    assert catalogue.classes == ["run", "walk"]
    for value, message in {
        "0;": "the label is empty",
        "": r"the label is empty; write \[\] for a video without any of the classes",
        "0;0": "name a class twice; give the numbers or names of the classes that apply, not a row of zeros",
        "[0, 1, 0]": "name a class twice",
        "[0, ": "is no JSON list",
        "[0, [1]]": r"the label \[1\] is a list",
        "0;x": "the label 'x' is a name, where",
    }.items():
        source = write(tmp_path / "list.txt", f"a.mp4\t{value}\nb.mp4\t0;2\n")
        with pytest.raises(RowsError, match=f"line 1: .*{message}"):
            read_catalogue(source, task="multi_label")


def test_scores(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    source = write(tmp_path / "list.csv", "path,score\na.mp4,0.5\nb.mp4,-3\nc.mp4,1e2\n")
    catalogue = read_catalogue(source, task="regression")
    assert [entry.label for entry in catalogue.entries] == [0.5, -3.0, 100.0]
    assert catalogue.classes == ["score"]
    assert [len(part) for part in catalogue.hold_out(0.3)] == [2, 1]
    for value, message in {
        "": "the label is empty",
        "0,5": "is no number; write a decimal point",
        "nan": "'nan' is no number",
        "3 s": "is no number",
        "1e400": "is no finite number",
    }.items():
        source = write(tmp_path / "list.txt", f"a.mp4\t{value}\nb.mp4\t1\n")
        with pytest.raises(RowsError, match=f"line 1: .*{message}"):
            read_catalogue(source, task="regression")
    source = write(tmp_path / "list.csv", "path,score\na.mp4,0.5\na.mp4,0.6\nb.mp4,1\n")
    with pytest.raises(RowsError, match=r"a\.mp4 has several labels: '0\.5' \(line 2\), '0\.6' \(line 3\)"):
        read_catalogue(source, task="regression")


def test_scores_of_several_targets(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = [{"file_name": f"{name}.mp4", "Speed": i, "size": 0.5, "label": "run"} for i, name in enumerate("ab")]
    tables = [
        write(tmp_path / "list.csv", "path,Speed,label,size\na.mp4,0,run,0.5\nb.mp4,1,run,0.5\n"),
        write(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows))),
        tmp_path,  # the same file as VideoFolder's
    ]
    for source in tables:
        catalogue = read_catalogue(source, task="regression", targets=["speed", "size"])
        assert [entry.label for entry in catalogue.entries] == [(0.0, 0.5), (1.0, 0.5)]
        assert catalogue.classes == ["speed", "size"]
        assert [len(part) for part in catalogue.hold_out(0.5)] == [1, 1]  # scores are no classes
    source = write(tmp_path / "bad.csv", "path,speed,size\na.mp4,1,\nb.mp4,x,2\n")
    with pytest.raises(
        RowsError, match=r"line 2: size: the label is empty\n  line 3: speed: the label 'x' is no number"
    ):
        read_catalogue(source, task="regression", targets=["speed", "size"])
    with pytest.raises(ValueError, match="there is no column 'weight' for a target; the columns are path, speed, size"):
        read_catalogue(source, task="regression", targets=["weight"])
    with pytest.raises(
        ValueError, match="targets speed are of the task 'regression'; leave them out for 'multi_label'"
    ):
        read_catalogue(source, task="multi_label", targets=["speed"])
    with pytest.raises(ValueError, match="targets speed, Speed name a column twice"):
        read_catalogue(source, task="regression", targets=["speed", "Speed"])
    plain = write(tmp_path / "list.txt", "a.mp4 1\nb.mp4 2\n")
    kinetics = write(tmp_path / "k.csv", "label,youtube_id,time_start,time_end,split\nrun,a,0,1,train\n")
    for source in (plain, kinetics, (tmp_path / "folder")):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="has no columns, so it cannot have the targets speed; write a csv"):
            read_catalogue(source, task="regression", targets=["speed"])
    with pytest.raises(ValueError, match="targets speed are columns of a csv or a jsonl"):
        read_catalogue(str(tmp_path / "{0..1}.tar"), task="regression", targets=["speed"])


def test_hugging_face_lists_of_classes():
    datasets = pytest.importorskip("datasets")
    classes = datasets.List(datasets.ClassLabel(names=["walk", "run", "jump"]))
    features = datasets.Features({"path": datasets.Value("string"), "label": classes})
    data = datasets.Dataset.from_dict({"path": ["a.mp4", "b.mp4"], "label": [[2, 0], []]}, features=features)
    for table in (data, data.with_format("numpy")):
        catalogue = read_catalogue(table, task="multi_label")
        assert [entry.label for entry in catalogue.entries] == [(0, 2), ()]
        assert catalogue.classes == ["walk", "run", "jump"]


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
@given(values=st.lists(st.text() | st.none() | st.floats() | st.integers() | st.booleans() | st.lists(st.integers())))
def test_every_value_is_a_label_or_a_problem(task, values):
    try:
        numbered = number_labels(values, task)
    except ValueError:  # two names are one in two spellings
        assume(False)
    assert {row for row, label in enumerate(numbered.labels) if label is None} == numbered.problems.keys()
    for label in numbered.labels:
        if task == "regression" and label is not None:
            assert isinstance(label, float)
        for one in (
            (label if isinstance(label, tuple) else [label]) if label is not None and task != "regression" else []
        ):
            assert isinstance(one, int)
            assert 0 <= one < len(numbered.classes)


def test_labels_from_one(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    source = write(tmp_path / "list.txt", "a.mp4 1\nb.mp4 2\nc.mp4 3\n")
    with pytest.warns(
        UserWarning, match=r"labels go from 1 to 3, and none is 0. If they are counted from 1, subtract 1"
    ):
        read_catalogue(source)
    with pytest.raises(
        RowsError,
        match=r"line 3: the label 3 is not in 0 to 2, .*labels seem to be counted from 1, they go to 3: subtract",
    ):
        read_catalogue(source, classes=["run", "walk", "jump"])


def test_test_lists_without_labels(tmp_path):
    touch(tmp_path, "Archery/v_Archery_g01_c01.avi", "Biking/v_Biking_g01_c01.avi")
    lines = "Archery/v_Archery_g01_c01.avi\nBiking/v_Biking_g01_c01.avi\n"
    with pytest.raises(ValueError, match=r"without labels.* UCF101; the folders .* may be the classes, here 'Archery'"):
        read_catalogue(write(tmp_path / "testlist01.txt", lines))


def test_a_test_list_of_numbers_for_named_classes_is_told(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "train/walk/b.mp4", "test/c.mp4", "test/d.mp4")
    test = write(tmp_path / "test/list.txt", "c.mp4 0\nd.mp4 1\n")
    with pytest.warns(
        UserWarning, match=r"list\.txt: its labels are numbers, those of .*train names; 0 is taken for 'run'"
    ):
        DataConfig(train=str(tmp_path / "train"), test=str(test)).build((3, 4, 32, 32))


def test_lists_of_classes(tmp_path):
    file = tmp_path / "names.txt"
    assert read_class_list(write(file, "\ufeffrun\r\nwalk \r\n\r\n")) == ["run", "walk"]
    assert read_class_list(write(file, "run\rwalk\r")) == ["run", "walk"]
    assert read_class_list(write(file, "360 flip\nwalk\n")) == ["360 flip", "walk"]
    assert read_class_list(write(file, "stage 1\nstage 2\n")) == ["stage 1", "stage 2"]
    for text, message in {
        "\n": "the list of classes is empty",
        "run\n\nwalk\n": r"names\.txt names class 1 ''; a name is a text that is not empty",
        "label\nrun\n": "line 1: 'label' looks like a header; remove it, or it would be class 0",
        "1 run\n2 walk\n": "line 1: '1 run' begins with a number, as all lines do; give the names alone",
        "Class Name\nrun\n": "line 1: 'Class Name' looks like a header",
        "0,run\n1,walk\n": "begins with a number",
        "run 0\nwalk 1\n": "line 1: 'run 0' ends with a number, as all lines do; give the names alone",
        "run\t2\nwalk\t1\n": "ends with a number",
        "run\nwa\tlk\n": r"names\.txt, line 2: 'wa\\tlk' is no name alone",
        '["run", "walk"]\n': "line 1: .* looks like JSON; write one name a line",
        "run\nwalk\nrun\n": r"names 1 classes twice: 'run'",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_class_list(write(file, text))
