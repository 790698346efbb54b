"""Videos of eight containers and images of four kinds, damaged."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tests.footage import X264, numbered, write_video
from tests.fuzz.mutate import Fuzzer, Read, mutate
from vivit_zoo.datasets.sources import FrameFolder
from vivit_zoo.video.reader import VideoError, VideoReader

CONTAINERS = {
    "mp4": X264["b_frames"],
    "mkv": X264["open_gop"],
    "avi": {"codec": "mpeg4", "g": 12, "bf": 2},
    "ts": X264["b_frames"],
    "mpg": {"codec": "mpeg2video", "g": 12, "bf": 2},
    "webm": {"codec": "libvpx", "g": 12},
    "flv": X264["b_frames"],
    "h264": X264["b_frames"],
}


def _video(folder: Path, suffix: str) -> Read:
    """From a file, and every other time from bytes."""
    file = write_video(folder / f"video.{suffix}", 16, **CONTAINERS[suffix])
    good = file.read_bytes()

    def read(rng: np.random.Generator) -> None:
        data = mutate(good, rng)
        file.write_bytes(data)
        source = file if rng.random() < 0.5 else data
        try:
            with VideoReader(source, name=str(file), threads=1) as video:
                video.read([len(video) - 1, 0, int(rng.integers(len(video)))], change=lambda frame: frame[:8, :8])
        except VideoError as error:
            if str(file) not in str(error):
                raise TypeError(f"the error names no file: {error}") from error
            raise

    return read


def _image(folder: Path, suffix: str) -> Read:
    pixels = numbered(5) if suffix != "png" else (numbered(5)[..., 0].astype(np.uint16) * 257)
    file = folder / f"1.{suffix}"
    Image.fromarray(pixels).save(file)
    good = file.read_bytes()

    def read(rng: np.random.Generator) -> None:
        file.write_bytes(mutate(good, rng))
        with FrameFolder(folder).open(gray=rng.random() < 0.5) as video:
            video.read([0])

    return read


FUZZERS = {
    **{suffix: Fuzzer(partial(_video, suffix=suffix), (VideoError,)) for suffix in CONTAINERS},
    **{suffix: Fuzzer(partial(_image, suffix=suffix), (VideoError,)) for suffix in ("png", "jpg", "tif", "webp")},
}
