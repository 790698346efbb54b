"""Wrong usages and interruptions of `vivit-zoo`, as a new user makes them, with the exit code and message of each.

    python -m tests.system.usages           # run all of them as processes and print the table
    python -m tests.system.usages attend    # those whose arguments have the word

`tests/system/test_usages.py` runs the same list.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, NamedTuple

ROOT = Path(__file__).parents[2]


class Usage(NamedTuple):
    """The arguments, a part of the message on stderr, whether the parser answers without torch, and the exit code."""

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
    Usage(
        "summary B/16x2 --frame 8", "vivit-zoo summary: error: there is no option --frame; did you mean --frames?", True
    ),
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
    Usage("attend a.mp4 b.mp4 --checkpoint model", "vivit-zoo attend: error: 'b.mp4' is one argument too many", True),
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
    Usage("bench --device abacus", "there is no device 'abacus'; this machine has cpu"),
    Usage("bench --device CPU", "there is no device 'CPU'; write cpu"),
    Usage("bench data page.mp4", "page.mp4: a text file, not a video"),
    Usage("bench data", "the following arguments are required: VIDEO", True),
    Usage("convert model model", "model is where the source is, which would be lost; give another folder"),
    Usage("convert model other", "other has a model already (config.json); give another folder, or add --overwrite"),
    Usage("convert nothing out", "nothing is neither a file nor a folder here, and no id on the hub"),
    Usage("convert clip.mp4 out", "clip.mp4 is no checkpoint"),
    Usage("convert cut out", "model.safetensors is no safetensors file, or is cut short"),
    Usage("convert cut/model.safetensors out", "model.safetensors is no safetensors file, or is cut short"),
    Usage("convert page.mp4 out", "page.mp4 is no checkpoint"),
    Usage("convert model /proc/out", "/proc/out"),
    Usage("convert model out --image-size -8", "argument --image-size: -8 is too small", True),
    Usage("convert model out --classes 3", "there is no option --classes", True),
    Usage("convert empty out", "empty has neither config.json nor checkpoint; it holds nothing"),
    Usage("convert owner/name out", "the hub cannot be reached"),
    Usage("classify none.mp4 --checkpoint model", "none.mp4: there is no such file"),
    Usage("classify page.mp4 --checkpoint model", "page.mp4: a text file, not a video", code=1),
    Usage("classify empty --checkpoint model", "empty: a folder, not a video; give the files in it"),
    Usage("classify clip.mp4 --checkpoint nothing", "nothing is neither a file nor a folder here"),
    Usage("classify clip.mp4 --checkpoint clip.mp4", "clip.mp4 is no checkpoint"),
    Usage("classify sound.wav --checkpoint model", "sound.wav: there is no video stream in it, only audio", code=1),
    Usage("classify hole.mp4 --checkpoint model", "hole.mp4: the file is empty"),
    Usage("classify half.mp4 --checkpoint model", "half.mp4: truncated: "),
    Usage("classify list.txt --checkpoint model", "list.txt: a text file, not a video", code=1),
    Usage("classify clip.mp4 --checkpoint cut", "model.safetensors is no safetensors file, or is cut short"),
    Usage("classify clip.mp4 --checkpoint model/README.md", "README.md"),
    Usage("classify clip.mp4 none.mp4 --checkpoint model --views 1x1", "none.mp4: there is no such file", code=1),
    Usage(f"{CLASSIFY} --threshold 2", "'2' is not a probability, from 0 to 1", True),
    Usage(f"{CLASSIFY} --threshold 0.5", "a threshold of 0.5 is for models that give a video several classes"),
    Usage(f"{CLASSIFY} --view 1x1", "there is no option --view; did you mean --views or --device?", True),
    Usage(f"{CLASSIFY} --device cuda:99", "device 'cuda:99' cannot be used here"),
    Usage(f"{CLASSIFY} --device mps", "device 'mps' cannot be used here; this machine has cpu"),
    Usage(f"{CLASSIFY} --device CUDA", "there is no device 'CUDA'; write cuda"),
    Usage(f"{ATTEND} --layer 9", "there is no layer '9'; the model has 2, 0 to 1"),
    Usage(f"{ATTEND} --layer head", "there is no layer 'head'"),
    Usage(f"{ATTEND} --stride 30 --policy error", "60 frames are too few"),
    Usage(f"{ATTEND} --features 99", "block 99 is not in -2 to 1"),
    Usage(f"{ATTEND} --policy mask", "invalid choice: 'mask'", True),
    Usage("attend clip.mp4 --checkpoint theirs --layer 9", "there is no layer '9'"),
    Usage("features clip.mp4 --checkpoint model", "the following arguments are required: --out", True),
    Usage("features clip.mp4 --checkpoint model --out out --layers 9", "layer 9 is not in -2 to 1"),
    Usage("features clip.mp4 --checkpoint model --out out --stride 2 --fps 3", "stride 2 and fps 3 are both given"),
    Usage("features clip.mp4 --checkpoint model --out out --fps 0", "0 is not a positive number of frames", True),
    Usage("features clip.mp4 --checkpoint model --out out --window 5", "5 frames are not divisible by the tubelet's 2"),
    Usage("features empty --checkpoint model --out out", "empty: it holds no class folders"),
    Usage("probe --checkpoint model", "the following arguments are required: --train", True),
    Usage("probe --checkpoint model --train nothing", "nothing: there is no such file or folder"),
    Usage("probe --checkpoint model --train list.txt", "there is none to hold out for testing"),
    Usage("probe --checkpoint model --train list.txt --clips 0", "argument --clips: 0 is too small", True),
    Usage("check-data nothing", "nothing: there is no such file or folder"),
    Usage("check-data empty", "empty: it holds no class folders"),
    Usage("check-data hole.csv", "hole.csv"),
    Usage("check-data header.csv", "header.csv: there are no videos in it"),
    Usage("check-data clip.mp4", "clip.mp4"),
    Usage("check-data list.txt --classes nothing", "nothing: there is no such file; give one with the names"),
    Usage("check-data list.txt --classes empty", "empty: there is no such file; give one with the names"),
    Usage("check-data list.txt --fix list.txt", "list.txt is there already; give another name, or remove it"),
    Usage("train --data.train nothing", "vivit-zoo train: nothing: there is no such file or folder"),
    Usage("train --lr fast", "vivit-zoo train: error: --lr takes a number, got 'fast'"),
    Usage("train --lr -1 --start.source=", "lr -1.0 is not positive"),
    Usage("train --batch_size 0 --start.source=", "batch_size 0 is not positive"),
    Usage("train --epochs -1 --start.source= --data.train clips", "epochs -1.0 is not positive"),
    Usage("train --learning_rate 1", "there is no option --learning_rate"),
    Usage("train --model.dpeth 3", "there is no option --model.dpeth; did you mean --model.depth"),
    Usage("train --data.views 4x3", "--data.views takes a list of 2 whole numbers, such as '[1,2]', got '4x3'"),
    Usage("train --sampling evenly", "--sampling takes one of shuffled, balanced, got 'evenly'"),
    Usage("train --device CUDA", "--device takes one of auto, cpu, cuda, mps, got 'CUDA'"),
    Usage("train --device mps --start.source=", "device 'mps' is not available here"),
    Usage("train --data.train clips --start.source nothing/here", "nothing/here"),
    Usage("train --data.train empty --start.source=", "empty: it holds no class folders"),
    Usage("train --data.train clips --start.source= --out page.mp4", "page.mp4"),
    Usage(
        "train --data.train clips --start.source= --out /proc/run",
        "vivit-zoo train: /proc/run: No such file or directory",
    ),
    Usage("study variants --seeds many", "--seeds takes a whole number or auto, got 'many'"),
    Usage("study variants --seeds 0", "a study needs at least one setting and one seed"),
    Usage("study variants --jobs 0", "jobs 0 is not positive"),
    Usage("study variants --out page.mp4", "page.mp4"),
    Usage("study variants --device abacus", "--device takes one of auto, cpu, cuda, mps, got 'abacus'"),
]


class Interruption(NamedTuple):
    """The arguments, what is awaited, the seconds from then to the signal, the signal, and the exit code.

    What is awaited is a file in the folder, or on Linux the name of a library that the process has loaded; "" for the
    start of the process.
    """

    arguments: str
    awaited: str = ""
    seconds: float = 0.0
    number: int = signal.SIGINT
    code: int = 130


TINY = (
    "--model.dim 24 --model.depth 1 --model.num_frames 4 --model.image_size 32 --start.source= --device cpu --workers 1"
)
RUN = f"train --data.train clips {TINY} --steps 100000 --eval_every 2 --batch_size 2 --data.augment.short_side 32"
STUDY = "study variants --steps 5000 --device cpu"

INTERRUPTED = [
    Interruption("summary B/16x2", "libtorch_cpu"),  # while torch is imported
    Interruption("summary L/16x2", "libtorch_python", 1.0),
    Interruption("convert model out", "libtorch_cpu"),
    Interruption(f"{CLASSIFY} --views 2000x3 --stride 1", "libtorch_python", 6.0),
    Interruption("attend long.mp4 --checkpoint model --layer 0", "libtorch_python", 2.0),
    Interruption("bench S/16x4 --repeats 1000 --out speed", "libtorch_python", 8.0),
    Interruption("features long.mp4 --checkpoint model --hop 1 --out features", "features", 0.2),
    Interruption("probe --checkpoint model --train clips --seeds 999 --out probe", "probe/features/test", 2.0),
    Interruption("check-data clips --full --workers 2", "libtorch_python", 1.0),
    Interruption(f"{RUN} --out run", "run/metrics.jsonl", 0.5),
    Interruption(f"{RUN} --out run2", "run2/metrics.jsonl", 0.5, signal.SIGTERM, 143),
    Interruption(f"{STUDY} --out study", "study", 5.0),
    Interruption(f"{STUDY} --out study2", "study2", 5.0, signal.SIGTERM, 143),
]


def make_files(folder: Path) -> None:
    """What the arguments name: models, videos whole and broken, other files, lists, results."""
    from tests.conftest import tiny_config
    from tests.footage import X264, audio_only, write_set, write_video
    from vivit_zoo import ViViT

    model = ViViT(tiny_config())
    for name in ("model", "other", "cut"):
        model.save_pretrained(folder / name)
    model.save_pretrained(folder / "theirs", format="transformers")
    (folder / "model" / "README.md").write_text("# A model", encoding="utf-8")
    write_set(folder / "clips", 3)
    video = write_video(folder / "clip.mp4", 60, **X264["b_frames"]).read_bytes()
    write_video(folder / "long.mp4", 3000, **X264["b_frames"])
    for file, content in {
        "half.mp4": video[: len(video) // 2],
        "hole.mp4": b"",
        "hole.csv": b"",
        "header.csv": b"path,label\n",
        "page.mp4": b"<html>",
        "list.txt": b"clip.mp4 0\n",
        "cut/model.safetensors": (folder / "model" / "model.safetensors").read_bytes()[:20_000],
    }.items():
        (folder / file).write_bytes(content)
    audio_only(folder / "sound.wav")
    (folder / "empty").mkdir()
    (folder / "results").mkdir()
    (folder / "results" / "speeds.json").write_text("[]", encoding="utf-8")


def start(arguments: str, folder: Path, stderr: IO[str]) -> subprocess.Popen:
    """The command as a process of its own, without a network."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "vivit_zoo", *arguments.split()]
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a shell's background job, whose processes inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)


def run(arguments: str, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    with TemporaryFile("w+", encoding="utf-8") as stderr:  # no pipe, which processes that outlive this one would hold
        code = start(arguments, folder, stderr).wait()
        stderr.seek(0)
        return code, stderr.read()


def interrupt(usage: Interruption, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a command that gets a signal."""
    with TemporaryFile("w+", encoding="utf-8") as stderr:
        process = start(usage.arguments, folder, stderr)
        while not _is_there(usage.awaited, process.pid, folder) and process.poll() is None:
            time.sleep(0.01)
        try:
            process.wait(usage.seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(usage.number)
        code = process.wait()
        stderr.seek(0)
        return code, stderr.read()


def _is_there(awaited: str, process: int, folder: Path) -> bool:
    """Whether a file is in the folder, or a library is loaded by a process."""
    if not awaited.startswith("lib"):
        return (folder / awaited).exists()
    maps = Path(f"/proc/{process}/maps")
    return not maps.exists() or awaited in maps.read_text(encoding="utf-8")


def main(word: str = "") -> None:
    """Print the table."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        print("| `vivit-zoo ...` | exit code | last line on stderr | as expected |\n| --- | ---: | --- | --- |")

        def show(title: str, code: int, error: str, ok: bool) -> None:
            last = (error.strip().splitlines() or [""])[-1][:160].replace("|", "\\|")
            print(
                f"| {title} | {code} | {last} | {'yes' if ok and 'Traceback' not in error else '**no**'} |", flush=True
            )

        for usage in WRONG:
            if word in usage.arguments:
                code, error = run(usage.arguments, folder)
                show(f"`{usage.arguments}`", code, error, code == usage.code and usage.message in error)
        for stopped in INTERRUPTED:
            if word in stopped.arguments:
                code, error = interrupt(stopped, folder)
                when = f"{stopped.seconds:g} s after {stopped.awaited}" if stopped.seconds else f"at {stopped.awaited}"
                title = f"`{stopped.arguments}`, {signal.Signals(stopped.number).name} {when}"
                show(title, code, error, code == stopped.code)


if __name__ == "__main__":
    main(*sys.argv[1:])
