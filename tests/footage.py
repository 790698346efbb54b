"""Small sets of real video files, good and broken, for the tests of data sets."""

from test_video import audio_only, write_video

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
