"""Wrong usages and interruptions of `vivit-zoo`, as a new user makes them, with the exit code and message of each.

    python -m tests.system.usages           # run all of them as processes and print the table
    python -m tests.system.usages attend    # those whose arguments have the word

`tests/system/test_usages.py` runs the same list.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Usage(NamedTuple):
    """The arguments, a part of the message on stderr, and whether the parser answers, without importing torch."""

    arguments: str
    message: str
    parser: bool = False
    code: int = 2


CLASSIFY, ATTEND = "classify clip.mp4 --checkpoint model", "attend clip.mp4 --checkpoint model"

WRONG = [
    Usage("", "the following arguments are required: COMMAND", True),
    Usage("sumary B/16x2", "invalid choice: 'sumary'", True),
    Usage("summary", "the following arguments are required: name", True),
    Usage("summary B/16x2 --frames many", "argument --frames: 'many' is not a whole number", True),
    Usage("summary B/16x2 --frames -2", "argument --frames: -2 is too small; give at least 1", True),
    Usage("summary B/16x2 --frame 8", "unrecognized arguments: --frame 8", True),
    Usage("convert model", "the following arguments are required: folder", True),
    Usage("convert model out --format onnx", "invalid choice: 'onnx'", True),
    Usage("convert model page.mp4", "'page.mp4' is a file; give a folder", True),
    Usage("convert model out --variant model2", "invalid choice: 'model2'", True),
    Usage("convert model out --order space", "invalid choice: 'space'", True),
    Usage("classify", "the following arguments are required: VIDEO, --checkpoint", True),
    Usage("classify clip.mp4", "the following arguments are required: --checkpoint", True),
    Usage(f"{CLASSIFY} --views 4x2", "'4x2' is not CLIPSxCROPS, such as 1x1 or 4x3", True),
    Usage(f"{CLASSIFY} --views four", "'four' is not CLIPSxCROPS", True),
    Usage(f"{CLASSIFY} --top 0", "argument --top: 0 is too small", True),
    Usage(f"{CLASSIFY} --stride 0", "argument --stride: 0 is too small", True),
    Usage(f"{CLASSIFY} --policy loop", "invalid choice: 'loop'", True),
    Usage(f"{CLASSIFY} --preprocessing imagenet", "invalid choice: 'imagenet'", True),
    Usage(f"{ATTEND} --out page.mp4", "'page.mp4' is a file; give a folder", True),
    Usage("attend a.mp4 b.mp4 --checkpoint model", "unrecognized arguments: b.mp4", True),
    Usage("check-data", "the following arguments are required: source", True),
    Usage("check-data list.txt --task captions", "invalid choice: 'captions'", True),
    Usage("check-data list.txt --workers -1", "argument --workers: -1 is too small; give at least 0", True),
    Usage("check-data list.txt --frames 0", "argument --frames: 0 is too small", True),
    Usage("bench --seconds -5", "-5 is not a positive number of seconds", True),
    Usage("bench --repeats 0", "argument --repeats: 0 is too small", True),
    Usage("bench --dtype int8", "invalid choice: 'int8'", True),
    Usage("bench --variants model1", "invalid choice: 'model1'", True),
    Usage("bench --batch 0", "argument --batch: 0 is too small", True),
    Usage("bench --out page.mp4", "'page.mp4' is a file; give a folder", True),
    Usage("study variant", "there is no study 'variant'; choose from ", True),
    Usage("train kinetics4000", "there is no recipe 'kinetics4000'; choose from ", True),
    Usage("summary B16", "model name 'B16' is unknown"),
    Usage("summary B/16x2 --image-size 64 96 128", "image_size takes 2 numbers, got (64, 96, 128)"),
    Usage("summary B/16x2 --frames 31", "31 frames are not divisible by the tubelet's 2; use 30"),
    Usage("bench B16", "model name 'B16' is unknown"),
    Usage("bench --checkpointing", "--checkpointing changes training steps alone; add --train"),
    Usage("bench --out results", "results has results already (speeds.json); give another --out"),
    Usage("bench --device abacus", "device 'abacus' cannot be used here"),
    Usage("convert model model", "model is where the source is, which would be lost; give another folder"),
    Usage("convert model other", "other has a model already (config.json); give another folder, or add --overwrite"),
    Usage("convert nothing out", "nothing is neither a file nor a folder here, and no id on the hub"),
    Usage("convert clip.mp4 out", "clip.mp4 is no checkpoint"),
    Usage("convert empty out", "empty has neither config.json nor checkpoint; it holds nothing"),
    Usage("convert owner/name out", "the hub cannot be reached"),
    Usage("classify none.mp4 --checkpoint model", "none.mp4: there is no such file"),
    Usage("classify page.mp4 --checkpoint model", "page.mp4: a text file, not a video", code=1),
    Usage("classify empty --checkpoint model", "empty: not a file"),
    Usage("classify clip.mp4 --checkpoint nothing", "nothing is neither a file nor a folder here"),
    Usage("classify clip.mp4 --checkpoint clip.mp4", "clip.mp4 is no checkpoint"),
    Usage(f"{CLASSIFY} --device cuda:99", "device 'cuda:99' cannot be used here"),
    Usage(f"{ATTEND} --layer 9", "there is no layer '9'; the model has 2, 0 to 1"),
    Usage(f"{ATTEND} --layer head", "there is no layer 'head'"),
    Usage(f"{ATTEND} --stride 30 --policy error", "60 frames are too few"),
    Usage("check-data nothing", "nothing"),
    Usage("check-data empty", "empty"),
    Usage("check-data list.txt --classes nothing", "nothing"),
    Usage("check-data list.txt --fix list.txt", "list.txt"),
    Usage("train --data.train nothing", "nothing"),
    Usage("train --lr fast", "lr"),
    Usage("train --learning_rate 1", "learning_rate"),
    Usage("study variants --seeds many", "seeds"),
    Usage("study variants --device abacus", "device"),
]

# Arguments, seconds until the signal comes, the signal, the exit code. The first ones come while torch is imported.
INTERRUPTED = [
    ("summary B/16x2", 0.3, signal.SIGINT, 130),
    ("summary L/16x2", 1.0, signal.SIGINT, 130),
    ("convert model out", 0.5, signal.SIGINT, 130),
    (f"{CLASSIFY} --views 2000x3", 10.0, signal.SIGINT, 130),
    (f"{ATTEND} --layer 0", 1.0, signal.SIGINT, 130),
    ("bench S/16x4 --repeats 1000 --out speed", 10.0, signal.SIGINT, 130),
    ("check-data list.txt --full --workers 2", 1.0, signal.SIGINT, 130),
    ("train rendered --start.source= --workers 0 --out run", 1.0, signal.SIGINT, 130),
    ("study variants --steps 5000 --out study --device cpu", 15.0, signal.SIGINT, 130),
    ("study variants --steps 5000 --out study2 --device cpu", 15.0, signal.SIGTERM, 143),
]


def make_files(folder: Path) -> None:
    """What the arguments name: a model, a video, a page in HTML, lists, results."""
    from tests.conftest import tiny_config
    from tests.footage import X264, write_video
    from vivit_zoo import ViViT

    for name in ("model", "other"):
        ViViT(tiny_config()).save_pretrained(folder / name)
    write_video(folder / "clip.mp4", 60, **X264["b_frames"])
    (folder / "page.mp4").write_text("<html>", encoding="utf-8")
    (folder / "list.txt").write_text("clip.mp4 0\n", encoding="utf-8")
    (folder / "empty").mkdir()
    (folder / "results").mkdir()
    (folder / "results" / "speeds.json").write_text("[]", encoding="utf-8")


def start(arguments: str, folder: Path) -> subprocess.Popen:
    """The command as a process of its own, without a network."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "vivit_zoo", *arguments.split()]
    pipe = subprocess.PIPE
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a shell's background job, whose processes inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=pipe, text=True, encoding="utf-8"
    )


def run(arguments: str, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    process = start(arguments, folder)
    _, error = process.communicate()
    return process.returncode, error


def interrupt(arguments: str, folder: Path, seconds: float, number: int) -> tuple[int, str]:
    """Exit code and stderr of a command that gets a signal after some seconds."""
    process = start(arguments, folder)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    _, error = process.communicate()
    return process.returncode, error


def main(word: str = "") -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        print("| `vivit-zoo ...` | exit code | last line on stderr | as expected |\n| --- | ---: | --- | --- |")
        for usage in WRONG:
            if word in usage.arguments:
                code, error = run(usage.arguments, folder)
                ok = code == usage.code and usage.message in error and "Traceback" not in error
                print(f"| `{usage.arguments}` | {code} | {error.strip().splitlines()[-1][:160]} | {ok} |", flush=True)
        for arguments, seconds, number, expected in INTERRUPTED:
            if word in arguments:
                code, error = interrupt(arguments, folder, seconds, number)
                last = (error.strip().splitlines() or [""])[-1][:160]
                ok, sign = code == expected and "Traceback" not in error, signal.Signals(number).name
                print(f"| `{arguments}`, {sign} after {seconds:g} s | {code} | {last} | {ok} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
