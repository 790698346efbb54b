"""Each form that a data set comes in gives the videos and labels that are written there, or says what is wrong.

The files are empty: a catalogue opens no video.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit_zoo.datasets import read_catalogue
from vivit_zoo.datasets.sources import FrameFolder, VideoFile


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def listed(catalogue, root):
    """Paths below the root, with labels."""
    return [(str(entry.video.path.relative_to(root)), entry.label) for entry in catalogue.entries]


@pytest.mark.parametrize("separator", [" ", ",", "\t", ", ", "  "])
@pytest.mark.parametrize("labels", [("0", "2"), ("walk", "jump")])
def test_list_files(tmp_path, separator, labels):
    touch(tmp_path, "a.mp4", "deep/b, c d.AVI")
    text = f"a.mp4{separator}{labels[0]}\n\ndeep/b, c d.AVI{separator}{labels[1]}\n"
    catalogue = read_catalogue(write(tmp_path / "list.txt", text))
    numbers, classes = ([0, 2], ["0", "1", "2"]) if labels[0] == "0" else ([1, 0], ["jump", "walk"])
    assert listed(catalogue, tmp_path) == [("a.mp4", numbers[0]), ("deep/b, c d.AVI", numbers[1])]
    assert catalogue.classes == classes
    assert not catalogue.absent


names = st.text("ab ,'é{}#-_.", min_size=1, max_size=12).filter(lambda name: name.strip() == name and name[0] != ".")


rows = st.lists(st.tuples(names, st.sampled_from([0, 5, 9])), min_size=1, max_size=6, unique_by=lambda row: row[0])


@given(rows, st.sampled_from([" ", ",", "\t"]))
def test_paths_may_hold_any_separator(tmp_path_factory, rows, separator):
    folder = tmp_path_factory.mktemp("set")
    touch(folder, *(f"{name}.mp4" for name, _ in rows))
    text = "".join(f"{name}.mp4{separator}{label}\n" for name, label in rows)
    catalogue = read_catalogue(write(folder / "list.txt", text))
    assert listed(catalogue, folder) == [(f"{name}.mp4", label) for name, label in rows]


def test_root_and_absolute_paths(tmp_path):
    touch(tmp_path / "videos", "a.mp4")
    touch(tmp_path / "elsewhere", "b.mp4")
    lists = write(tmp_path / "lists" / "train.txt", f"a.mp4 0\n{tmp_path}/elsewhere/b.mp4 1\n")
    catalogue = read_catalogue(lists, root=tmp_path / "videos")
    assert listed(catalogue, tmp_path) == [("videos/a.mp4", 0), ("elsewhere/b.mp4", 1)]


def test_labels_of_several_words_after_a_comma_or_tab(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    catalogue = read_catalogue(write(tmp_path / "list.csv", 'a.mp4,riding a bike\n"b.mp4","push, pull"\n'))
    assert listed(catalogue, tmp_path) == [("a.mp4", 1), ("b.mp4", 0)]
    assert catalogue.classes == ["push, pull", "riding a bike"]
    with pytest.raises(
        ValueError, match=r"list\.txt, line 1: 'a\.mp4 riding a bike' is not 'path label'.* needs a tab"
    ):
        read_catalogue(write(tmp_path / "list.txt", "a.mp4 riding a bike\n"))


@pytest.mark.parametrize("header", ["path,label,split", "Class;who;File_Name", "video\tlabel"])
def test_headers_are_recognised_and_say_the_columns(tmp_path, header):
    touch(tmp_path, "a b.mp4")
    separator = next(mark for mark in ",;\t" if mark in header)
    cells = {"path": "a b.mp4", "file_name": "a b.mp4", "video": "a b.mp4", "label": "walk", "class": "walk"}
    row = separator.join(cells.get(name.lower(), "x") for name in header.split(separator))
    catalogue = read_catalogue(write(tmp_path / "list.csv", f"\ufeff{header}\n{row}\n"))
    assert listed(catalogue, tmp_path) == [("a b.mp4", 0)]
    assert catalogue.classes == ["walk"]


def test_header_without_labels(tmp_path):
    with pytest.raises(ValueError, match=r"of the columns path, caption one must hold the paths.* and one the labels"):
        read_catalogue(write(tmp_path / "list.csv", "path,caption\na.mp4,walks\n"))


@pytest.mark.parametrize(
    ("line", "first"), [("a/v1 3 1", 0), ("a/v1 0 3 1", 0), ("a/v1 2 3 1", 2), ("a/v1,2,3,1", 2), ("a/v1\t3\t1", 0)]
)
def test_raw_frame_lists(tmp_path, line, first):
    touch(tmp_path, *(f"a/v1/img_{number:05}.jpg" for number in range(1, 6)))
    catalogue = read_catalogue(write(tmp_path / "list.txt", line + "\n"))
    assert catalogue.entries == [(FrameFolder(tmp_path / "a/v1", first, 3), 1)]


def test_list_of_whole_folders_of_images(tmp_path):
    touch(tmp_path, "v 1/1.jpg", "v 2/1.jpg")
    catalogue = read_catalogue(write(tmp_path / "list.txt", "v 1 walk\nv 2 run\n"))
    assert catalogue.entries == [(FrameFolder(tmp_path / "v 1"), 1), (FrameFolder(tmp_path / "v 2"), 0)]


def test_folder_by_class(tmp_path):
    touch(
        tmp_path, "walk/b.mp4", "walk/a.webm", "jump/deep/c.avi", "jump/frames/1.jpg", "jump/frames/2.jpg", ".git/x.mp4"
    )
    catalogue = read_catalogue(tmp_path)
    assert catalogue.classes == ["jump", "walk"]
    assert catalogue.entries == [
        (VideoFile(tmp_path / "jump/deep/c.avi"), 0),
        (FrameFolder(tmp_path / "jump/frames"), 0),
        (VideoFile(tmp_path / "walk/a.webm"), 1),
        (VideoFile(tmp_path / "walk/b.mp4"), 1),
    ]


def test_what_a_folder_by_class_leaves_out_is_told(tmp_path):
    touch(tmp_path, "walk/a.mp4", "walk/notes.txt", "walk/b.mp4.part", "jump/b.mp4", "loose.mp4")
    with pytest.warns(UserWarning, match="left out") as warned:
        catalogue = read_catalogue(tmp_path)
    notes = [
        "2 files left out, whose names are not those of videos: .part (1), .txt (1)",
        "1 videos left out, which are in no class folder",
    ]
    assert sorted(catalogue.notes) == sorted(notes)
    assert sorted(str(one.message) for one in warned) == sorted(f"{tmp_path}: {note}" for note in notes)


def test_folders_whose_names_are_numbers_are_names(tmp_path):
    touch(tmp_path, "10/a.mp4", "2/b.mp4")
    catalogue = read_catalogue(tmp_path)
    assert catalogue.classes == ["10", "2"]
    assert [entry.label for entry in catalogue.entries] == [0, 1]
    touch(tmp_path, "list/c.mp4")
    with pytest.raises(ValueError, match="labels are numbers, and so are the names of the classes given, in another"):
        read_catalogue(write(tmp_path / "list" / "test.txt", "c.mp4 1\n"), classes=catalogue.classes)


def test_splits_are_no_classes(tmp_path):
    touch(tmp_path, "train/walk/a.mp4", "val/walk/b.mp4")
    with pytest.raises(ValueError, match="holds splits, not classes; name one of them: train, val"):
        read_catalogue(tmp_path)
    assert len(read_catalogue(tmp_path / "train")) == 1


def test_folder_without_classes(tmp_path):
    touch(tmp_path, "a.mp4")
    with pytest.raises(ValueError, match="it holds no class folders; put videos into a folder for each"):
        read_catalogue(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_video_folder_with_metadata(tmp_path, kind):
    touch(tmp_path, "a.mp4", "sub/b.mp4")
    rows = [{"file_name": "a.mp4", "label": "walk"}, {"file_name": "sub/b.mp4", "label": "run"}]
    lines = ["file_name,label", *(",".join(row.values()) for row in rows)] if kind == "csv" else map(json.dumps, rows)
    write(tmp_path / f"metadata.{kind}", "\n".join(lines))
    assert listed(read_catalogue(tmp_path), tmp_path) == [("a.mp4", 1), ("sub/b.mp4", 0)]


KINETICS = """label,youtube_id,time_start,time_end,split
abseiling,-A0x-abc_12,3,13,train
"tying knot (not on a tie)",-Zz,100,110,train
abseiling,gone,7,17,train
"""


@pytest.mark.parametrize("folder", ["", "abseiling/", "train/part_0/"])
def test_kinetics(tmp_path, folder):
    touch(tmp_path / "videos", f"{folder}-A0x-abc_12_000003_000013.mp4", f"{folder}-Zz_000100_000110.mkv", "other.mp4")
    with pytest.warns(UserWarning, match="1 of 3 videos are absent, such as gone_000007_000017"):
        catalogue = read_catalogue(write(tmp_path / "train.csv", KINETICS), root=tmp_path / "videos")
    assert [label for _, label in listed(catalogue, tmp_path)] == [0, 1]
    assert catalogue.classes == ["abseiling", "tying knot (not on a tie)"]
    assert catalogue.absent == ["gone_000007_000017"]


def test_kinetics_with_two_files_for_one_clip(tmp_path):
    touch(tmp_path / "videos", "a/-Zz_000100_000110.mp4", "b/-Zz_000100_000110.mp4")
    with pytest.raises(ValueError, match=r"line 3: -Zz_000100_000110 may be any of .*a/-Zz.*, .*b/-Zz"):
        read_catalogue(write(tmp_path / "train.csv", KINETICS), root=tmp_path / "videos")


def test_something_something(tmp_path):
    touch(tmp_path / "videos", "78687.webm", "42.webm")
    clips = [
        {
            "id": "78687",
            "label": "holding potato next to bottle",
            "template": "Holding [something] next to [something]",
        },
        {"id": "42", "label": "dropping a pen", "template": "Dropping [something]"},
    ]
    write(tmp_path / "labels.json", json.dumps({"Dropping something": "1", "Holding something next to something": "0"}))
    catalogue = read_catalogue(write(tmp_path / "train.json", json.dumps(clips)), root=tmp_path / "videos")
    assert listed(catalogue, tmp_path) == [("videos/78687.webm", 0), ("videos/42.webm", 1)]
    assert catalogue.classes == ["Holding something next to something", "Dropping something"]
    with pytest.raises(ValueError, match=r"is not like Something-Something's train\.json"):
        read_catalogue(write(tmp_path / "test.json", json.dumps([{"id": "42"}])), root=tmp_path / "videos")
    write(tmp_path / "labels.json", '{"Dropping something": 0, "Dropping something": 1}')
    with pytest.raises(ValueError, match=r"labels\.json: is no JSON \(it names 'Dropping something' twice"):
        read_catalogue(tmp_path / "train.json", root=tmp_path / "videos")
    (tmp_path / "labels.json").unlink()
    with pytest.raises(ValueError, match=r"needs one labels\.json in the same folder; found "):
        read_catalogue(tmp_path / "train.json", root=tmp_path / "videos")


EPIC = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,3,['door'],[3]\n"
    "P02_01_0,P02,P02_01,00:00:01.089,01:02:03.50,01:02:04.00,11,20,take cup,take,0,cup,13,['cup'],[13]\n"
)


def test_epic_kitchens_has_labels_by_head(tmp_path):
    touch(tmp_path, "P01/rgb_frames/P01_01/frame_0000000001.jpg", "P02/videos/P02_01.MP4")
    catalogue = read_catalogue(write(tmp_path / "EPIC_100_train.csv", EPIC))
    assert catalogue.entries == [
        (FrameFolder(tmp_path / "P01/rgb_frames/P01_01", 7, 195), {"verb": 3, "noun": 3}),
        (VideoFile(tmp_path / "P02/videos/P02_01.MP4", 3723.5, 3724.0), {"verb": 0, "noun": 13}),
    ]
    assert {head: len(names) for head, names in catalogue.classes.items()} == {"verb": 97, "noun": 300}


def test_epic_kitchens_names_its_classes(tmp_path):
    touch(tmp_path, "P01/P01_01.MP4")
    write(
        tmp_path / "EPIC_100_verb_classes.csv",
        "id,key,instances,category\n1,put,[],\n0,take,[],\n2,wash,[],\n3,open,[],",
    )
    with pytest.warns(UserWarning, match="1 of 2 videos are absent, such as P02_01"):
        catalogue = read_catalogue(write(tmp_path / "EPIC_100_train.csv", EPIC))
    assert catalogue.classes["verb"] == ["take", "put", "wash", "open"]
    write(tmp_path / "EPIC_100_verb_classes.csv", "id,key\n0,take\n1,put\n")
    with pytest.raises(ValueError, match="line 2: verb: the label 3 is not in 0 to 1"):
        read_catalogue(tmp_path / "EPIC_100_train.csv")


def test_what_is_no_source(tmp_path):
    with pytest.raises(ValueError, match="nothing: there is no such file or folder"):
        read_catalogue(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"a\.mp4 is a single video; give a list"):
        read_catalogue(touch(tmp_path, "a.mp4") / "a.mp4")
    with pytest.raises(ValueError, match="the file is empty"):
        read_catalogue(touch(tmp_path, "list.txt") / "list.txt")
    with pytest.raises(ValueError, match="neither URLs nor pipes are read"):
        read_catalogue("s3://bucket/train-{000..015}.tar")
    (tmp_path / "data.bin").write_bytes(b"\xff\xfe\x00\x81" * 9)
    with pytest.raises(ValueError, match="is text in UTF-16; save it as UTF-8"):
        read_catalogue(tmp_path / "data.bin")
    (tmp_path / "data.csv").write_bytes("path,label\nété.mp4,0\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"data\.csv: is neither a list in UTF-8 text \(byte 11, in line 2, is none\)"):
        read_catalogue(tmp_path / "data.csv")
    with pytest.raises(ValueError, match="got a list"):
        read_catalogue(["a.mp4"])


def test_hugging_face_tables_and_what_save_to_disk_wrote(tmp_path):
    datasets = pytest.importorskip("datasets")
    labels = datasets.ClassLabel(names=["walk", "run"])
    features = datasets.Features({"clip": datasets.Video(), "what": labels, "label": datasets.Value("string")})
    rows = [{"clip": {"path": "a.mp4", "bytes": b"x"}, "what": 1, "label": "other"}]
    data = datasets.Dataset.from_list(rows, features=features)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "splits")
    for catalogue in (
        read_catalogue(data),
        read_catalogue(tmp_path / "one"),
        read_catalogue(tmp_path / "splits/train"),
    ):
        assert catalogue.classes == ["walk", "run"]
        assert [(entry.video.name, entry.video.column, entry.label) for entry in catalogue.entries] == [
            ("row 0", "clip", 1)
        ]
    assert [entry.label for entry in read_catalogue(data, classes=["run", "walk"]).entries] == [0]
    with pytest.raises(ValueError, match=r"splits: holds the splits train; name one: .*train"):
        read_catalogue(tmp_path / "splits")
    with pytest.raises(ValueError, match="got a DatasetDict; choose a split"):
        read_catalogue(datasets.DatasetDict({"train": data}))
    with pytest.raises(ValueError, match="the columns are a; one must hold videos"):
        read_catalogue(datasets.Dataset.from_list([{"a": 1}]))
