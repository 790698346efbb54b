"""The command line: `vivit-zoo summary | convert | classify | attend | features | probe | check-data | bench | ...`.

This file imports nothing heavy, so that `--help` and wrong arguments are answered at once; `commands.py` does the work.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from vivit_zoo import __version__
from vivit_zoo.system.extras import install_advice
from vivit_zoo.system.pipes import exit_if_pipe_closes
from vivit_zoo.system.program import error_text, plain_warnings, unknown_argument

__all__ = ["main"]

# The keys of `vivit_zoo.encoders.ENCODERS`, without importing torch.
VARIANTS = ("joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code.

    Returns:
        0; 1 if a video could not be read; 2 for wrong arguments or input; 130 after Ctrl-C.

    Raises:
        SystemExit: with 141 if the reader of the output closed it, as `head` does; with 2 from the parser.
    """
    try:
        with plain_warnings("vivit-zoo"), exit_if_pipe_closes():
            return _run(sys.argv[1:] if arguments is None else list(arguments))
    except ModuleNotFoundError as error:
        print(f"vivit-zoo: {install_advice(error)}", file=sys.stderr)
        return 2
    except (ImportError, OSError, ValueError) as error:
        print(f"vivit-zoo: {error_text(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(arguments: list[str]) -> int:
    if arguments[:1] in (["train"], ["study"]):  # their options are the script's, so its parser takes them
        from vivit_zoo.scripts import run_recipe, run_study

        return (run_recipe if arguments[0] == "train" else run_study)(arguments[1:])
    if arguments[:2] == ["bench", "data"]:  # two words, one command
        arguments = ["bench data", *arguments[2:]]
    options = _parser().parse_args(arguments)
    commands = import_module("vivit_zoo.commands")
    return getattr(commands, re.sub("[- ]", "_", options.command))(options)


class _Parser(argparse.ArgumentParser):
    """Names the options that are similar to an unknown one; of a command, with the usage of the command."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(unknown_argument(rest[0], re.findall(r"--[\w-]+", self.format_usage())))
        return options, rest


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vivit-zoo",
        description="Video vision transformers (ViViT): train them, classify videos, look inside, compare.",
        epilog="vivit-zoo COMMAND --help lists the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    add = partial(commands.add_parser, allow_abbrev=False)
    _add_summary(add("summary", help="parameters and cost of each variant, beside the paper's numbers"))
    _add_convert(add("convert", help="convert a checkpoint to another format, with a report"))
    _add_classify(add("classify", help="print the most likely classes of video files"))
    _add_attend(add("attend", help="draw what a model attends to in a video"))
    _add_features(add("features", help="write features of sliding windows, one file a video"))
    _add_probe(add("probe", help="linear and attentive probes and k-NN on frozen features"))
    _add_check_data(add("check-data", help="open every video of a data set: classes, broken files"))
    _add_bench(add("bench", help="speed and memory of each variant, and of other libraries' ViViTs"))
    _add_bench_data(add("bench data", help="speed of reading training clips from video files, by stages"))
    # For the list of commands alone: `_run` passes their arguments on.
    commands.add_parser("train", help="fine-tune a model on your videos, or run another recipe", add_help=False)
    commands.add_parser("study", help="run an ablation study; without a name: list the studies", add_help=False)
    return parser


def _add_summary(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", help="the paper's name of a model: B/16x2, L/16x2, H/14x2, S/16x4, ...")
    command.add_argument("--frames", type=_positive, help="frames of a clip (default: 32)")
    command.add_argument("--image-size", **_SIDES, help="side, or height and width (224)")
    command.add_argument(
        "--temporal-depth", type=_not_negative, help="blocks of the factorised encoder's temporal encoder (4)"
    )
    command.add_argument("--classes", type=_not_negative, help="number of classes (400)")


def _add_convert(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", help="hub id, folder or file: transformers', the original JAX code's, or our own")
    command.add_argument("folder", type=_folder, help="folder to write to")
    command.add_argument("--format", choices=("vivit_zoo", "transformers"), default="vivit_zoo")
    command.add_argument("--overwrite", action="store_true", help="replace a model that is in the folder already")
    command.add_argument("--revision", help="branch, tag or commit of the hub's repository")
    command.add_argument("--variant", choices=VARIANTS, help="for an original checkpoint that does not say it")
    command.add_argument(
        "--frames", type=_positive, help="frames of a clip: as trained (original checkpoints), else to resize to"
    )
    command.add_argument("--image-size", **_SIDES, help="side, or height and width, likewise")
    command.add_argument(
        "--order", choices=("space_time", "time_space"), help="of an original factorised self-attention"
    )
    command.add_argument("--sampled-frames", type=_positive, help="of an original with uniform frame sampling")


def _add_classify(command: argparse.ArgumentParser) -> None:
    command.description = "Print the most likely classes of video files."
    command.epilog = "Such as: vivit-zoo classify clip.mp4 --checkpoint google/vivit-b-16x2-kinetics400"
    command.add_argument("videos", nargs="+", metavar="VIDEO", help="files that FFmpeg can read")
    _add_model(command)
    command.add_argument(
        "--views",
        type=_views,
        metavar="CLIPSxCROPS",
        help="clips of a video and crops of each whose outputs are averaged: 1x1, 4x3, ... (as the model was tested; "
        "if that is unknown, 4x3)",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object a line")
    command.add_argument(
        "--threshold",
        type=_share,
        metavar="P",
        help="for models of several classes a video: print all classes of at least this probability, instead of --top",
    )
    _add_video_options(command, "mask")


def _add_attend(command: argparse.ArgumentParser) -> None:
    command.description = "Draw the attention rollout, and on request each head of a layer, over the frames of a clip."
    command.add_argument("video", metavar="VIDEO", help="a file that FFmpeg can read; the clip in its middle is taken")
    _add_model(command)
    command.add_argument(
        "--layer", help="show each head of this layer too: its number, from 0, -1 for the last, or its name"
    )
    command.add_argument(
        "--features", type=int, metavar="BLOCK", help="show the features after this block as colours, too (their PCA)"
    )
    command.add_argument("--out", type=_folder, default=Path("runs/attend"), help="folder for pictures (runs/attend)")
    _add_video_options(command)


def _add_features(command: argparse.ArgumentParser) -> None:
    command.description = "Write the features of the windows of each video to a file. The same command resumes."
    command.add_argument("sources", nargs="+", metavar="SOURCE", help="video files, or data sets; see docs/data.md")
    _add_model(command)
    _add_reading(command)
    command.add_argument("--out", type=_folder, required=True, help="folder for the files, one a video")
    command.add_argument(
        "--layers", type=int, nargs="*", default=[-1], help="numbers of blocks, from 0; -1 for the last (-1)"
    )
    command.add_argument(
        "--outputs",
        nargs="+",
        choices=("pooled", "frames", "dense"),
        default=["pooled"],
        help="of each layer: the mean of its tokens, that of each frame, or all tokens (pooled)",
    )
    command.add_argument("--no-norm", action="store_true", help="leave out the model's last norm of these tokens")
    command.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="in the files (float32)")
    command.add_argument("--window", type=_positive, help="frames of a window (those of the model)")
    command.add_argument("--hop", type=_positive, help="distance of two windows, in sampled frames (a window)")
    _add_sampling(command, "mask")
    command.add_argument("--fps", type=_positive_rate, help="sampled frames a second, instead of --stride")
    command.add_argument("--batch", type=_positive, default=8, help="windows in a batch (8)")
    command.add_argument("--json", action="store_true", help="print the report as one JSON object")


def _add_probe(command: argparse.ArgumentParser) -> None:
    command.description = "Extract the features of a data set once, fit probes to them, and print a table."
    _add_model(command)
    command.add_argument("--train", required=True, metavar="SOURCE", help="training videos; see docs/data.md")
    command.add_argument("--test", metavar="SOURCE", help="test videos (the last fifth of each class of --train)")
    command.add_argument("--root", help="folder that a list's paths start from (that of the list)")
    command.add_argument("--head", default="", help="the labels to learn, where videos have several, such as verb")
    command.add_argument("--layers", type=int, nargs="+", default=[-1], help="numbers of blocks, from 0 (-1)")
    command.add_argument(
        "--tokens",
        choices=("frames", "dense"),
        default="frames",
        help="what the attentive probes see: the mean of the tokens of each frame, or all tokens (frames)",
    )
    command.add_argument(
        "--probes",
        nargs="+",
        choices=("linear", "attentive", "attentive+positions", "knn"),
        default=["linear", "attentive", "attentive+positions", "knn"],
        help="which (all)",
    )
    command.add_argument("--clips", type=_positive, default=1, help="clips of a video, spread evenly over it (1)")
    command.add_argument("--seeds", type=_positive, default=3, help="fits of each probe (3)")
    command.add_argument("--batch", type=_positive, default=8, help="clips in a batch of the model (8)")
    command.add_argument("--out", type=_folder, default=Path("runs/probe"), help="folder for features and results")
    _add_sampling(command)


def _add_check_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", help="list file, folder, shards such as 'train-{000..015}.tar'; see docs/data.md")
    _add_reading(command)
    command.add_argument("--frames", type=_positive, default=32, help="frames of a clip, to find shorter videos (32)")
    command.add_argument("--stride", type=_positive, default=2, help="distance of a clip's frames in the video (2)")
    command.add_argument("--full", action="store_true", help="decode every frame, which finds damage in the middle")
    command.add_argument(
        "--workers", type=_not_negative, default=os.cpu_count() or 1, help="processes; 0 for none (one a core)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument(
        "--fix", type=Path, metavar="OUT", help="write a list of what is usable, in the form of the source (a new file)"
    )


def _add_bench(command: argparse.ArgumentParser) -> None:
    command.description = "Measure speed and memory of models, as shares of what the machine can do."
    command.epilog = "Such as: vivit-zoo bench S/16x2 --peers --dtype float32 bfloat16"
    command.add_argument("name", nargs="?", default="B/16x2", help="the paper's name of a model (B/16x2)")
    models = command.add_argument_group("models")
    variants, dtypes = ", ".join(VARIANTS), ("float32", "tf32", "bfloat16", "float16")
    several: dict[str, Any] = {"type": _positive, "nargs": "+"}
    models.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS], metavar="VARIANT", help=f"of {variants} (all)"
    )
    models.add_argument("--peers", action="store_true", help="add transformers' and vit-pytorch's, of the same sizes")
    models.add_argument("--checkpointing", action="store_true", help="add each with activation checkpointing")
    models.add_argument("--compile", action="store_true", help="add each under torch.compile")
    cases = command.add_argument_group("cases; with several values of an option, one after the other")
    cases.add_argument("--frames", **several, default=[32], metavar="N", help="of a clip (32)")
    cases.add_argument("--image-size", **several, default=[224], metavar="SIDE", help="of a frame (224)")
    cases.add_argument("--batch", **several, default=[1], metavar="N", help="clips of a step (1)")
    cases.add_argument("--dtype", nargs="+", choices=dtypes, default=dtypes[:1], metavar="TYPE", help=", ".join(dtypes))
    cases.add_argument("--train", action="store_true", help="measure training steps instead of forward passes")
    cases.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ... (auto)")
    run = command.add_argument_group("measurement")
    run.add_argument("--repeats", type=_positive, default=10, help="rounds; each measures every model once (10)")
    run.add_argument("--seconds", type=_positive_seconds, default=600.0, help="time limit for everything (600)")
    run.add_argument("--out", type=_folder, default=Path("runs/bench"), help="folder for the results (runs/bench)")
    run.add_argument("--overwrite", action="store_true", help="replace results that are in the folder already")


def _add_bench_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("videos", nargs="+", metavar="VIDEO", help="files that FFmpeg can read")
    command.add_argument("--frames", type=_positive, default=32, help="of a clip (32)")
    command.add_argument("--stride", type=_positive, default=2, help="distance of a clip's frames in the video (2)")
    command.add_argument("--image-size", type=_positive, default=224, metavar="SIDE", help="of a clip (224)")
    command.add_argument("--repeats", type=_positive, default=7, help="clips of each file (7)")
    command.add_argument(
        "--clips-per-second",
        type=_positive_speed,
        metavar="N",
        help="speed of a model in training, to tell how many cores feed it",
    )


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--checkpoint", required=True, metavar="SOURCE", help="hub id, folder or file of a model")


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", help="folder that a list's paths start from (that of the list)")
    command.add_argument(
        "--classes", metavar="FILE", help="names of the classes, one a line, in the order of their numbers"
    )
    command.add_argument(
        "--task",
        choices=("single_label", "multi_label", "regression"),
        default="single_label",
        help="what a label is: one class, several, or a score (single_label)",
    )
    command.add_argument(
        "--targets",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="for regression, the columns of a csv that hold the scores (the column of labels)",
    )
    command.add_argument(
        "--video-key",
        default="",
        help="which video of a shard's sample is meant, such as base.mp4, if there are several",
    )


def _add_video_options(command: argparse.ArgumentParser, *policies: str) -> None:
    _add_sampling(command, *policies)
    command.add_argument("--top", type=_positive, default=5, help="number of classes to print (5)")


def _add_sampling(command: argparse.ArgumentParser, *policies: str) -> None:
    command.add_argument(
        "--stride", type=_positive, help="distance of a clip's frames in the video (as the model was tested, else 2)"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ... (auto)")
    command.add_argument(
        "--preprocessing",
        choices=("original", "transformers"),
        help="pixels as ViViT was trained on, or as transformers' VivitImageProcessor makes them (as the model was "
        "tested, else original)",
    )
    command.add_argument(
        "--policy",
        choices=("repeat_last", "wrap", "error", *policies),
        default=None if policies else "repeat_last",
        help="for a video shorter than a clip: repeat its last frame, start it again, or refuse it"
        + (
            "; mask: what is missing changes nothing in the result (as the model was tested, else "
            if policies
            else " ("
        )
        + "repeat_last)",
    )


def _views(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or int(match[1]) < 1 or match[2] not in ("1", "3"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not CLIPSxCROPS, such as 1x1 or 4x3: at least one clip, and 1 or 3 crops"
        )
    return int(match[1]), int(match[2])


def _folder(text: str) -> Path:
    path = Path(text)
    for part in (path, *path.parents):
        if part.exists():
            if not part.is_dir():
                raise argparse.ArgumentTypeError(f"{str(part)!r} is a file; give a folder")
            break
    return path


def _positive(text: str) -> int:
    return _integer(text, least=1)


def _not_negative(text: str) -> int:
    return _integer(text, least=0)


def _integer(text: str, least: int) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    if int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is too small; give at least {least}")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability, from 0 to 1")
    return share


def _positive_seconds(text: str) -> float:
    return _positive_number(text, "number of seconds")


def _positive_speed(text: str) -> float:
    return _positive_number(text, "number of clips a second")


def _positive_rate(text: str) -> float:
    return _positive_number(text, "number of frames a second")


def _positive_number(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a {what}") from None
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive {what}")
    return number


_SIDES: dict = {"type": _positive, "nargs": "+", "metavar": "PIXELS"}


if __name__ == "__main__":
    sys.exit(main())
