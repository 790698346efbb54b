"""Real videos, made here with PyAV, each frame with its number in its pixels, so that a wrong one cannot pass: single
files, good and broken, and small sets of them."""

import struct
from fractions import Fraction

import av
import numpy as np

HEIGHT, WIDTH, CELL = 48, 64, 8


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame whose top row spells its number in eight black or white cells; its lower half is red, then green."""
    frame = np.full((height, width, 3), 128, np.uint8)
    for bit in range(8):
        frame[:CELL, bit * CELL : (bit + 1) * CELL] = 255 * (number >> bit & 1)
    frame[height // 2 :, : width // 2] = (255, 0, 0)
    frame[height // 2 :, width // 2 :] = (0, 255, 0)
    return frame


def number_of(frame: np.ndarray) -> int:
    cells = frame[2 : CELL - 2, : 8 * CELL].mean(axis=(0, 2)).reshape(8, CELL)[:, 2:-2].mean(axis=1)
    return sum(int(cell > 128) << bit for bit, cell in enumerate(cells))


def numbers_of(clip: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in clip]


def write_video(
    path, count=60, codec="libx264", pixels="yuv420p", times=None, movflags="", size=(HEIGHT, WIDTH), **options
):
    """`times` are timestamps in ticks of 1/30 s."""
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=30, options={key: str(value) for key, value in options.items()})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = Fraction(1, 30)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame.pts, frame.time_base = times[number] if times is not None else number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


X264 = {
    "b_frames": {"g": 12, "bf": 3},
    "open_gop": {"g": 10, "bf": 3, "x264-params": "open-gop=1:b-adapt=0:scenecut=0"},
    "one_keyframe": {"g": 1000, "bf": 2},
    "all_keyframes": {"g": 1},
    "short_gops": {"g": 2, "bf": 1},
    "intra_refresh": {"g": 10, "bf": 0, "x264-params": "intra-refresh=1:scenecut=0"},
}
ENCODED = {name: ("video.mp4", options) for name, options in X264.items()} | {
    "matroska": ("video.mkv", X264["b_frames"]),
    "transport_stream": ("video.ts", X264["b_frames"]),
    "transport_stream_open_gop": ("video.ts", X264["open_gop"]),
    "raw_h264": ("video.h264", X264["b_frames"]),
    "fragmented": ("video.mp4", X264["b_frames"] | {"movflags": "frag_keyframe+empty_moov"}),
    "avi_mpeg4": ("video.avi", {"codec": "mpeg4", "g": 12, "bf": 2}),
    "mpeg2": ("video.mpg", {"codec": "mpeg2video", "g": 12, "bf": 2}),
    "h265": ("video.mp4", {"codec": "libx265", "x265-params": "keyint=10:bframes=3:open-gop=1:log-level=none"}),
    "vp8": ("video.webm", {"codec": "libvpx", "g": 12, "auto-alt-ref": 1, "lag-in-frames": 16}),
    "vp9": ("video.webm", {"codec": "libvpx-vp9", "g": 12, "auto-alt-ref": 1, "lag-in-frames": 16, "cpu-used": 5}),
    "lossless": ("video.mkv", {"codec": "ffv1", "pixels": "bgr0"}),
    "ten_bits": ("video.mkv", {"codec": "ffv1", "pixels": "yuv444p10le"}),
}


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def audio_with_cover(path):
    """A song with the picture of its record, which containers keep as a video stream of one frame."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(0), format="rgb24")))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def remux(source, target, change, **options):
    """Copy the packets of a video, each changed."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                change(packet)
                new.mux(packet)
    return target


def damage(path, first, last, keep=0):
    """Overwrite the data of some packets, in decoding order, with noise, but for their first bytes."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for pos, size in places[first:last]:
        data[pos + keep : pos + size] = rng.bytes(size - keep)
    path.write_bytes(data)


ROTATIONS = {  # degrees counter-clockwise that the file asks for, as the matrix (a, b, c, d): (x, y) -> (ax+cy, bx+dy)
    0: (1, 0, 0, 1),
    90: (0, -1, 1, 0),
    180: (-1, 0, 0, -1),
    270: (0, 1, -1, 0),
}


def set_display_matrix(path, a, b, c, d):
    """Write a matrix into the track header (ISO 14496-12, 8.3.2), as phones do for pictures taken upright."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    numbers = [value * 65536 for value in (a, b, 0, c, d, 0, WIDTH * (a < 0 or c < 0), HEIGHT * (b < 0 or d < 0))]
    data[at : at + 36] = struct.pack(">9i", *numbers, 1 << 30)
    path.write_bytes(data)


def truncated(path, movflags=""):
    """Cut in its frames or, where the table of frames follows them, in that."""
    write_video(path, movflags=movflags, **X264["b_frames"])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])


def no_frames(path):
    """A fragmented file that ends with its header."""
    write_video(path, 3, movflags="frag_keyframe+empty_moov")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])


BAD_FILES = {
    "missing": (lambda path: None, "there is no such file"),
    "folder": (lambda path: path.mkdir(), "a folder, not a video"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("<!DOCTYPE html>\n" * 99), r"a text file, not a video; it begins '<!DOCTYPE"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(9999)), "not a video, or its beginning is"),
    "audio": (audio_only, "there is no video stream in it, only audio"),
    "cover": (audio_with_cover, "there is no video stream in it, only audio"),
    "truncated": (truncated, r"truncated: \d+ bytes are missing at its end"),
    "truncated_frames": (lambda path: truncated(path, "faststart"), r"truncated: \d+ bytes are missing at its end"),
    "no_frames": (no_frames, "its video stream holds no frames"),
}


CLASSES = ["jump", "run", "walk"]


def write_set(folder, per_class=2, frames=20):
    """Class folders of clips of `frames` frames, 64x48 pixels, each with its number in its pixels."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            write_video(folder / name / f"{name}_{number}.mp4", frames, g=5)
    return folder


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


# The name of the broken clip in `write_broken_set`, what is done to it, and what is said of it.
BROKEN = {
    "jump/jump_0.mp4": (_truncate, r"truncated: \d+ bytes are missing at its end"),
    "jump/jump_7.mp4": (lambda path: path.write_bytes(b""), "the file is empty"),
    "run/run_3.mp4": (lambda path: path.write_text("<!DOCTYPE html>\n" * 99), "a text file, not a video; it begins"),
    "walk/walk_2.mp4": (audio_only, "there is no video stream in it, only audio"),
    "walk/walk_9.mp4": (lambda path: write_video(path, 1), "there is only one frame in it"),
}


def write_broken_set(folder):
    """Thirty clips in three class folders, five of them broken in different ways."""
    write_set(folder, per_class=10)
    for name, (spoil, _) in BROKEN.items():
        spoil(folder / name)
    return folder
