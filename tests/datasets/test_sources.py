"""A video is the same wherever it lies: in a file, in a part of one, in a shard, in a table, in a folder of images."""

import pickle

import numpy as np
import pytest
from PIL import Image

from tests.datasets.test_shards import write_shard
from tests.footage import HEIGHT, WIDTH, number_of, numbered, numbers_of, write_video
from vivit_zoo.datasets import read_catalogue
from vivit_zoo.datasets.formats import hugging_face
from vivit_zoo.datasets.shards import read_samples
from vivit_zoo.datasets.sources import FrameFolder, VideoFile
from vivit_zoo.video.reader import VideoError


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 30, g=7, bf=2)


def write_images(folder, numbers, name="img_{:05}.png", first=1):
    folder.mkdir(parents=True, exist_ok=True)
    for place, number in enumerate(numbers, first):
        Image.fromarray(numbered(number)).save(folder / name.format(place))
    return folder


def places(clip, folder):
    import datasets

    shard = write_shard(folder / "0.tar", {"x.txt": b"0", "x.mp4": clip.read_bytes()})
    features = datasets.Features({"video": datasets.Video(), "label": datasets.Value("int64")})
    row = {"video": {"path": None, "bytes": clip.read_bytes()}, "label": 0}
    table = datasets.Dataset.from_list([row, row | {"video": {"path": str(clip), "bytes": None}}], features=features)
    return {
        "file": VideoFile(clip),
        "shard": read_samples([shard])[0].video,
        "row_of_bytes": hugging_face(table).samples[0].video,
        "row_of_paths": hugging_face(table).samples[1].video,
        "images": FrameFolder(write_images(folder / "images", range(30))),
    }


def test_the_same_frames_from_everywhere(clip, tmp_path):
    for kind, place in places(clip, tmp_path).items():
        place = pickle.loads(pickle.dumps(place))
        for gray in (False, True):
            with place.open(gray=gray, threads=1) as video:
                assert len(video) == 30
                frames = video.read([29, 3, 3, 17])
                assert frames.shape == (4, HEIGHT, WIDTH, 1 if gray else 3)
                assert frames.dtype == np.uint8
                assert video.read([2], change=lambda frame: frame[:5]).shape[1] == 5
            if not gray:
                assert numbers_of(frames) == [29, 3, 3, 17], kind
            with (
                place.open() as video,
                pytest.raises(IndexError, match="no frame 30; they are numbered 0 to 29"),
            ):
                video.read([0, 30])


def test_a_part_of_a_file(clip):
    part = VideoFile(clip, 0.2, 0.5)  # 30 frames a second
    with part.open() as video:
        assert len(video) == 9
        assert numbers_of(video.read([0, 8, 4])) == [6, 14, 10]
        np.testing.assert_allclose(video.times, np.arange(9) / 30)
        with pytest.raises(IndexError, match=r"clip\.mp4 from 0\.2 s to 0\.5 s: there is no frame 9"):
            video.read([9])
    with pytest.raises(VideoError, match=r"clip\.mp4 from 7 s to 9 s: there are no frames; the video ends at 0\.96"):
        VideoFile(clip, 7, 9).open()


def test_images_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_images(tmp_path / "v", range(12), "frame {}.png", first=95)  # 99 before 100
    write_images(folder, [200], "flow_x_{:05}.png", first=96)
    with FrameFolder(folder).open() as video:
        assert numbers_of(video.read(range(12))) == list(range(12))
        with pytest.raises(ValueError, match="images do not tell their frame rate; sample by `stride`"):
            assert video.times
    with FrameFolder(folder, first=3, count=4).open() as video:
        assert len(video) == 4
        assert number_of(video.read([1])[0]) == 4
    with pytest.raises(VideoError, match=r"v, 4 images from 10 on: the folder holds only 12 numbered images"):
        FrameFolder(folder, first=10, count=4).open()


def test_broken_folders_of_images(tmp_path):
    with pytest.raises(VideoError, match="gone: there is no such folder"):
        FrameFolder(tmp_path / "gone").open()
    folder = write_images(tmp_path / "v", range(3))
    (folder / "img_00002.png").write_bytes(b"no image")
    with (
        FrameFolder(folder).open() as video,
        pytest.raises(VideoError, match=r"img_00002\.png: the image cannot"),
    ):
        video.read([0, 1])
    Image.fromarray(numbered(1)[:9]).save(folder / "img_00003.png")
    with (
        FrameFolder(folder).open() as video,
        pytest.raises(VideoError, match=r"v: the images differ in size"),
    ):
        video.read([0, 2])


def order_of(folder):
    with FrameFolder(folder).open() as video:
        return numbers_of(video.read(range(len(video))))


@pytest.mark.parametrize(
    "names",
    [
        ["10-59-59", "11-00-00", "11-00-01"],
        ["0.50", "1.20", "10.00"],
        ["shot1_frame004", "shot2_frame002", "shot10_frame001"],
        ["2024-12-31_5", "2025-01-01_1"],
        ["frame 9", "frame 10", "frame 100"],
    ],
)
def test_natural_order_over_the_whole_name(tmp_path, names):
    for number, name in enumerate(names):
        write_images(tmp_path, [number], name + ".png")
    (tmp_path / "._9.png").write_bytes(b"a fork of a Mac")
    assert order_of(tmp_path) == list(range(len(names)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["img_1", "left_2"], r"img_1\.png and left_2\.png are of two series"),
        (["img_1", "img_01"], r"img_01\.png and img_1\.png have the same number"),
        (["0.5", "0.10"], r"have 1 to 2 digits behind a point, which may be decimals"),
    ],
)
def test_orders_that_the_names_leave_open_are_refused(tmp_path, names, message):
    for number, name in enumerate(names):
        write_images(tmp_path, [number], name + ".png")
    with pytest.raises(VideoError, match=message):
        FrameFolder(tmp_path).open()


def test_gray_images_of_16_bits_are_scaled(tmp_path):
    ramp = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    for name in ("1.png", "2.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
    with FrameFolder(tmp_path).open() as video:
        frames = video.read([0, 1])
    assert frames.shape == (2, 48, 64, 3)
    for frame in frames:
        assert len(np.unique(frame)) == 256
        assert (abs(frame - ramp[..., None] / 257) <= 0.5).all()
    with FrameFolder(tmp_path).open(gray=True) as video:
        np.testing.assert_array_equal(video.read([0])[..., 0], frames[:1, ..., 0])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused(tmp_path, dtype):
    Image.fromarray(np.ones((48, 64), dtype)).save(tmp_path / "1.tif")
    with FrameFolder(tmp_path).open() as video, pytest.raises(VideoError, match=r"1\.tif: .* without a known range"):
        video.read([0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_images_are_upright(tmp_path, orientation, bits, kind):
    upright = np.arange(48 * 64).reshape(48, 64) % 251
    stored = {  # EXIF 2.32, table of Orientation
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = stored.astype(np.uint8) if bits == 8 else (stored * 257).astype(np.uint16)
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"1.{kind}", exif=exif)
    with FrameFolder(tmp_path).open(gray=True) as video:
        np.testing.assert_array_equal(video.read([0])[0, ..., 0], upright)


def test_images_of_several_pictures_are_refused(tmp_path):
    pictures = [Image.fromarray(numbered(number)) for number in range(3)]
    for name, kind in (("1.webp", "WEBP"), ("2.tif", "TIFF"), ("3.png", "PNG"), ("4.png", "GIF")):
        pictures[0].save(tmp_path / name, kind, save_all=True, append_images=pictures[1:])
    for number in range(4):
        with FrameFolder(tmp_path).open() as video, pytest.raises(VideoError, match="holds 3 pictures"):
            video.read([number])


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    write_images(tmp_path, [0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with FrameFolder(tmp_path).open() as video, pytest.raises(VideoError, match=r"the image cannot be read .*bomb"):
        video.read([0])


def test_a_name_that_is_too_long_is_no_file(tmp_path):
    place = tmp_path / f"{'a' * 5000}.mp4"
    for video in (VideoFile(place), FrameFolder(place)):
        assert not video.exists()
        with pytest.raises(VideoError, match=r"a\.mp4"):
            video.open()


def test_broken_rows_and_members_are_named(clip, tmp_path):
    place = places(clip, tmp_path)["shard"]
    place.shard.unlink()
    with pytest.raises(VideoError, match=r"0\.tar::x\.mp4: No such file"):
        place.open()
    write_shard(place.shard, {"x.txt": b"0", "x.mp4": bytes(place.size)})
    with pytest.raises(VideoError, match=r"0\.tar::x\.mp4: not a video, or its beginning is damaged"):
        place.open()


def test_paths_in_a_table_that_are_none_or_stand_there_twice():
    Dataset = pytest.importorskip("datasets").Dataset
    for path, message in ((None, "is empty"), ("", "is empty"), (3, "holds 3, which is no path")):
        listing = hugging_face(Dataset.from_dict({"path": [path], "label": [0]}))
        with pytest.raises(VideoError, match=f"row 0.*: its column 'path' {message}"):
            listing.samples[0].video.open()
    with pytest.raises(ValueError, match=r"row 0 has several labels: 0 \(row 0\), 1 \(row 2\)"):
        read_catalogue(Dataset.from_dict({"path": ["a.mp4", "b.mp4", "./a.mp4"], "label": [0, 1, 1]}))
