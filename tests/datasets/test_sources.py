"""A video is the same wherever it lies: in a file, in a part of one, in a shard, in a table, in a folder of images."""

import pickle

import numpy as np
import pytest
from PIL import Image

from tests.datasets.test_shards import write_shard
from tests.footage import HEIGHT, WIDTH, number_of, numbered, numbers_of, write_video
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


def test_two_series_in_one_folder(tmp_path):
    folder = write_images(tmp_path / "v", range(2))
    write_images(folder, range(2), "left_{}.png")
    with pytest.raises(VideoError, match=r"have the same number; keep one series a folder"):
        FrameFolder(folder).open()


def test_broken_rows_and_members_are_named(clip, tmp_path):
    place = places(clip, tmp_path)["shard"]
    place.shard.unlink()
    with pytest.raises(VideoError, match=r"0\.tar::x\.mp4: No such file"):
        place.open()
    write_shard(place.shard, {"x.txt": b"0", "x.mp4": bytes(place.size)})
    with pytest.raises(VideoError, match=r"0\.tar::x\.mp4: not a video, or its beginning is damaged"):
        place.open()
