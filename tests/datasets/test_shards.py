"""Members of WebDataset shards are found by their place, and broken shards are refused, wherever they are cut."""

import gzip
import io
import json
import tarfile

import pytest

from vivit_zoo.datasets import read_catalogue
from vivit_zoo.datasets.rows import RowsError
from vivit_zoo.datasets.shards import expand, read_samples


def write_shard(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def bytes_of(member):
    with member.shard.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


MEMBERS = {
    "a/0.mp4": b"first" * 300,
    "a/0.cls": b"3\n",
    "b/0.json": json.dumps({"label": 1}).encode(),
    "b/0.webm": b"second",
    "1.seg.AVI": b"third",
    "1.txt": b"2",
    "a/very/long/folder/" + "x" * 120 + ".mkv": b"fourth",
    "a/very/long/folder/" + "x" * 120 + ".cls": b"0",
}


def test_samples_share_their_name_up_to_the_first_dot(tmp_path):
    samples = read_samples([write_shard(tmp_path / "0.tar", MEMBERS)])
    assert [bytes_of(sample.video)[:6] for sample in samples] == [b"firstf", b"second", b"third", b"fourth"]
    assert [sample.label for sample in samples] == ["3\n", 1, "2", "0"]
    assert samples[0].video.name == f"{tmp_path}/0.tar::a/0.mp4"


def test_patterns_of_shards(tmp_path):
    for number in range(12):
        write_shard(tmp_path / f"t-{number:03}.tar", {f"{number}.mp4": b"video", f"{number}.cls": b"walk"})
    for pattern, count in {"t-{000..011}.tar": 12, "t-{003,005}.tar": 2, "t-0{0,1}[01].tar": 4, "t-*.tar": 12}.items():
        shards = expand(f"{tmp_path}/{pattern}")
        assert len(shards) == count
        assert shards == sorted(shards)
        assert len(read_catalogue(f"{tmp_path}/{pattern}")) == count
    assert [entry.video.member for entry in read_catalogue(tmp_path).entries] == [f"{i}.mp4" for i in range(12)]
    with pytest.raises(ValueError, match=r"t-012\.tar: there is no such shard \(from '.*t-\{010\.\.012\}\.tar'\)"):
        read_catalogue(f"{tmp_path}/t-{{010..012}}.tar")


def test_samples_without_video_are_absent_and_without_label_refused(tmp_path):
    write_shard(tmp_path / "0.tar", {"a.mp4": b"video", "a.cls": b"0", "b.cls": b"1"})
    with pytest.warns(UserWarning, match=r"1 of 2 videos are absent, such as .*0\.tar::b"):
        assert len(read_catalogue(tmp_path / "0.tar")) == 1
    write_shard(tmp_path / "0.tar", {"a.mp4": b"video", "b.mp4": b"video", "b.cls": b"0"})
    with pytest.raises(ValueError, match=r"0\.tar::a: has no label, which is in \.cls"):
        read_catalogue(tmp_path / "0.tar")
    write_shard(tmp_path / "0.tar", {"a.mp4": b"video", "a.json": b"{"})
    with pytest.raises(ValueError, match=r"0\.tar::a: a\.json holds no label \(Expecting property"):
        read_catalogue(tmp_path / "0.tar")


def test_two_samples_of_one_name(tmp_path):
    write_shard(tmp_path / "0.tar", {"a.mp4": b"one", "a.MP4": b"two"})
    with pytest.raises(ValueError, match=r"0\.tar: the sample 'a' has two members \.MP4; keys must be unique"):
        read_catalogue(tmp_path / "0.tar")


def test_a_shard_cut_anywhere_is_refused(tmp_path):
    data = write_shard(tmp_path / "whole.tar", MEMBERS).read_bytes()
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512  # behind it are only the zeros that mark the end
    path = tmp_path / "cut.tar"
    for keep in [0, 1, *range(100, end, 412), *range(512, end + 1, 512), end + 511]:
        path.write_bytes(data[:keep])
        with pytest.raises(ValueError, match=r"cut\.tar: the shard is truncated"):
            read_samples([path])


def test_damaged_and_compressed_shards(tmp_path):
    data = bytearray(write_shard(tmp_path / "0.tar", MEMBERS).read_bytes())
    path = tmp_path / "1.tar"
    path.write_bytes(gzip.compress(data))
    with pytest.raises(ValueError, match=r"1\.tar: the shard is compressed; gunzip it"):
        read_samples([path])
    data[2048:2100] = b"?" * 52  # the header of the second member
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"1\.tar: the shard is truncated or damaged at byte 2048, after 1 files"):
        read_samples([path])


def test_samples_with_several_videos_need_a_key(tmp_path):
    members = {"x.pose.mp4": b"pose", "x.base.mp4": b"base", "x.cls": b"1", "y.base.MP4": b"other", "y.cls": b"0"}
    shard = write_shard(tmp_path / "0.tar", members)
    with pytest.raises(
        RowsError, match=r"0\.tar::x: has the videos \.base\.mp4, \.pose\.mp4; name one, such as video_key"
    ):
        read_catalogue(shard)
    for key in ("base.mp4", ".base.MP4"):
        catalogue = read_catalogue(shard, video_key=key)
        assert [bytes_of(entry.video) for entry in catalogue.entries] == [b"base", b"other"]
    with pytest.warns(UserWarning, match=r"1 of 2 videos are absent, such as .*0\.tar::y"):
        assert [bytes_of(entry.video) for entry in read_catalogue(shard, video_key="pose.mp4").entries] == [b"pose"]
    write_shard(shard, {"x.mp4": b"one", "x.webm": b"two", "x.cls": b"0"})
    with pytest.raises(RowsError, match=r"has the videos \.mp4, \.webm"):
        read_catalogue(shard)


def test_tables_with_several_videos_need_a_key():
    datasets = pytest.importorskip("datasets")
    features = {"pose": datasets.Video(), "base": datasets.Video(), "label": datasets.Value("int64")}
    row = {"pose": {"path": "p.mp4", "bytes": None}, "base": {"path": "b.mp4", "bytes": None}, "label": 0}
    table = datasets.Dataset.from_list([row], features=datasets.Features(features))
    with pytest.raises(ValueError, match="any of the columns pose, base could be meant; name the one of the video"):
        read_catalogue(table)
    assert read_catalogue(table, video_key="base").entries[0].video.column == "base"
    with pytest.raises(ValueError, match="the columns are pose, base, label; none is called 'x'"):
        read_catalogue(table, video_key="x")


def test_what_a_mac_adds_to_a_shard_is_no_sample(tmp_path):
    members = {"./._a.mp4": b"fork", "./a.mp4": b"video", "./a.cls": b"\xef\xbb\xbf0", "__MACOSX/._a.mp4": b"fork"}
    catalogue = read_catalogue(write_shard(tmp_path / "0.tar", members))
    assert [bytes_of(entry.video) for entry in catalogue.entries] == [b"video"]


def test_labels_of_several_lines_are_refused(tmp_path):
    write_shard(
        tmp_path / "0.tar",
        {"a.mp4": b"a", "a.cls": b"3\n4\n", "b.mp4": b"b", "b.cls": b"", "c.mp4": b"c", "c.cls": b"1"},
    )
    with pytest.raises(
        RowsError, match=r"2 of 3 rows cannot be used:\n.*::a: the label '3\\n4' .*\n.*::b: the label is empty"
    ):
        read_catalogue(tmp_path / "0.tar")
    write_shard(tmp_path / "0.tar", {"a.mp4": b"a", "a.cls": b"\xff\xfe1\x00"})
    with pytest.raises(RowsError, match=r"(?s)::a: a\.cls holds no label \('utf-8' codec.*\nCorrect them$"):
        read_catalogue(tmp_path / "0.tar")
