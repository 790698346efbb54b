"""Awkward videos, made here: each frame has its number in its pixels.

A file is `Awkward`: how it is written, the numbers that are shown, and how often the picture is turned by a quarter.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from tests.footage import ROTATIONS, WIDTH, X264, audio_with_cover, numbered, remux, set_display_matrix, write_video

COUNT = 24
B_FRAMES, OPEN = X264["b_frames"], X264["open_gop"]
X265 = {"codec": "libx265", "x265-params": "keyint=10:bframes=3:open-gop=1:log-level=none"}
CIF = (144, 176)  # h263 knows few sizes


class Awkward(NamedTuple):
    """How a file is written, and what is in it."""

    name: str
    write: Callable[[Path], Any]
    numbers: Sequence[int] = range(COUNT)
    quarter_turns: int = 0  # counter-clockwise, that the reader makes


def _plain(name: str, **options: Any) -> Awkward:
    return Awkward(name, lambda path: write_video(path, COUNT, **options))


CONTAINERS = {  # suffix: codec and its options, of each a file without and with B-frames
    "mp4": {"x264": {"bf": 0}, "x264_b": B_FRAMES, "x265": X265, "mpeg4": {"codec": "mpeg4", "bf": 2},
            "vp9": {"codec": "libvpx-vp9", "cpu-used": 5}, "av1": {"codec": "libsvtav1", "preset": 12}},
    "mov": {"x264_b": B_FRAMES, "prores": {"codec": "prores_ks", "pixels": "yuv422p10le"},
            "mjpeg": {"codec": "mjpeg", "pixels": "yuvj420p"}, "qtrle": {"codec": "qtrle", "pixels": "rgb24"},
            "png": {"codec": "png", "pixels": "rgb24"}},
    "mkv": {"x264_open": OPEN, "x265": X265, "ffv1": {"codec": "ffv1"}, "mpeg2": {"codec": "mpeg2video", "bf": 2},
            "vp8": {"codec": "libvpx"}, "snow": {"codec": "snow", "strict": -2}},
    "webm": {"vp8": {"codec": "libvpx", "auto-alt-ref": 1, "lag-in-frames": 16}, "vp9": {"codec": "libvpx-vp9"},
             "av1": {"codec": "libsvtav1", "preset": 12}},
    "avi": {"x264": {"bf": 0}, "x264_b": B_FRAMES, "x264_open": OPEN, "mpeg4_b": {"codec": "mpeg4", "bf": 2},
            "msmpeg4": {"codec": "msmpeg4"}, "mjpeg": {"codec": "mjpeg", "pixels": "yuvj420p"},
            "raw": {"codec": "rawvideo"}, "ffv1": {"codec": "ffv1"},
            "cinepak": {"codec": "cinepak", "pixels": "rgb24"},
            "huffyuv": {"codec": "huffyuv", "pixels": "yuv422p"}, "utvideo": {"codec": "utvideo"}},
    "ts": {"x264": {"bf": 0}, "x264_b": B_FRAMES, "x264_open": OPEN, "x265": X265, "mpeg2": {"codec": "mpeg2video"}},
    "mpg": {"mpeg1": {"codec": "mpeg1video", "bf": 2}, "mpeg2": {"codec": "mpeg2video", "bf": 2}},
    "flv": {"x264_b": B_FRAMES, "flv1": {"codec": "flv"}},
    "wmv": {"wmv1": {"codec": "wmv1"}, "wmv2": {"codec": "wmv2"}},
    "3gp": {"h263": {"codec": "h263", "size": CIF}, "x264_b": B_FRAMES},
    "h264": {"x264_b": B_FRAMES}, "m2v": {"mpeg2": {"codec": "mpeg2video", "bf": 2}},
    "ivf": {"vp8": {"codec": "libvpx"}},
}  # fmt: skip
PIXELS = {
    "libx264": ["yuv420p10le", "yuv422p", "yuv444p", "yuv444p10le", "gray", "gray10le", "nv12", "yuvj420p"],
    "libx264rgb": ["rgb24", "bgr0"],
    "ffv1": ["gray16le", "yuv420p16le", "gbrp12le", "bgra", "yuva420p", "yuv411p"],
}
SIZES = [(50, 66), (49, 65), (48, 128), (200, 64), (16, 64), (272, 480)]  # h, w
TIMES = {
    "variable": [int(tick) for tick in np.cumsum(np.random.default_rng(1).integers(1, 9, COUNT))],
    "late": range(3000, 3000 + COUNT),
    "slow": range(0, 900 * COUNT, 900),
}


def _turned(matrix: Sequence[int]) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        write_video(path, COUNT, **B_FRAMES)
        set_display_matrix(path, *matrix)

    return write


def _remuxed(change: Callable[[Any], None], **options: Any) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        whole = write_video(path.with_name("whole.mp4"), COUNT, **B_FRAMES)
        remux(whole, path, change, **options)

    return write


def _decoding_times(packet: Any) -> None:
    packet.pts = packet.dts


def _earlier(packet: Any) -> None:
    packet.pts, packet.dts = packet.pts - 7 * 512, packet.dts - 7 * 512


def _without_times(path: Path) -> None:
    """Raw H.264, which has no timestamps at all."""
    write_video(path, COUNT, **OPEN)


def _joined(path: Path) -> None:
    parts = []
    for name, start in (("late", 900), ("early", 0)):
        part = write_video(path.with_name(f"{name}.ts"), 12, times=range(start, start + 12), **B_FRAMES)
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))


def _two_streams(path: Path) -> None:
    """The first of two video streams is the one that is read."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = WIDTH, 48, "yuv420p"
        for number in range(COUNT):
            for offset, stream in enumerate(streams):
                frame = av.VideoFrame.from_ndarray(numbered(number + 100 * offset), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())


def _metadata(path: Path) -> None:
    whole = write_video(path.with_name("whole.mp4"), COUNT, **B_FRAMES)
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        new.metadata["title"] = "Caf##"
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"Caf##", b"Caf\xe9\xff"))


CORPUS = [
    *(
        _plain(f"{codec}.{suffix}", **options)
        for suffix, codecs in CONTAINERS.items()
        for codec, options in codecs.items()
    ),
    *(
        _plain(f"{codec}_{pixels}.mkv", codec=codec, pixels=pixels)
        for codec, formats in PIXELS.items()
        for pixels in formats
    ),
    *(_plain(f"size_{h}x{w}.mkv", codec="ffv1", size=(h, w)) for h, w in SIZES),
    *(_plain(f"size_{h}x{w}.mp4", size=(h, w), **B_FRAMES) for h, w in SIZES if h % 2 == w % 2 == 0),
    *(
        _plain(f"times_{name}.{suffix}", times=times, **B_FRAMES)
        for name, times in TIMES.items()
        for suffix in ("mp4", "mkv", "ts", "flv")
    ),
    *(
        Awkward(f"turned_{degrees}.mp4", _turned(matrix), quarter_turns=degrees // 90)
        for degrees, matrix in ROTATIONS.items()
    ),
    *(_plain(f"range_{name}.mp4", color_range=name, **B_FRAMES) for name in ("pc", "tv")),
    *(_plain(f"{flags}.mp4", movflags=flags, **B_FRAMES) for flags in ("faststart", "frag_keyframe+empty_moov")),
    *(Awkward(f"decoding_times.{suffix}", _remuxed(_decoding_times)) for suffix in ("mkv", "flv", "ts")),
    Awkward("edit_list.mp4", _remuxed(_earlier, avoid_negative_ts="disabled"), range(7, COUNT)),
    Awkward("live.mkv", _remuxed(lambda packet: None, live="1")),
    Awkward("no_times.h264", _without_times),
    Awkward("joined.ts", _joined, [*range(12), *range(12)]),
    Awkward("two_streams.mp4", _two_streams),
    Awkward("latin_1.mkv", _metadata),
    _plain("interlaced.mkv", codec="mpeg2video", flags="+ildct+ilme", size=(64, 64)),
    _plain("one_frame_a_group.mp4", g=1),
    _plain("one_group.mp4", g=1000, bf=3),
    _plain("refreshed.mp4", **X264["intra_refresh"]),
]  # fmt: skip
REFUSED = {"song.mp4": (audio_with_cover, "there is no video stream in it, only audio")}
