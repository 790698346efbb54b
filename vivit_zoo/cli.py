"""The command line: `vivit-zoo summary | convert | classify | attend | check-data | bench`."""

import argparse
import dataclasses
import os
import re
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vivit_zoo import __version__
from vivit_zoo.config import named_config
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.flops import PAPER_GFLOPS, count_macs, count_params, paper_gflops
from vivit_zoo.model import ViViT

if TYPE_CHECKING:
    from vivit_zoo.video.clips import Views
    from vivit_zoo.video.preprocess import Preprocess

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 where a video could not be read, 2 for wrong arguments, 130 if stopped."""
    parser = argparse.ArgumentParser(prog="vivit-zoo", description="Modular ViViT variants.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True)
    summary = commands.add_parser("summary", help="size and cost of each variant, beside the paper's numbers")
    summary.add_argument("name", help="the paper's name of a model: B/16x2, L/16x2, H/14x2, S/16x4, ...")
    summary.add_argument("--frames", type=int, help="frames of a clip (default: 32)")
    summary.add_argument("--image-size", type=int, nargs="+", metavar="PIXELS", help="side, or height and width (224)")
    summary.add_argument("--temporal-depth", type=int, help="blocks of the factorised encoder's temporal half (4)")
    summary.add_argument("--classes", type=int, help="number of classes (400)")
    summary.set_defaults(run=_summary)
    convert = commands.add_parser("convert", help="a checkpoint from one format into another, with a report")
    convert.add_argument("source", help="hub id, folder or file: transformers', the original JAX code's, or our own")
    convert.add_argument("folder", help="to write to")
    convert.add_argument("--format", choices=("vivit_zoo", "transformers"), default="vivit_zoo")
    convert.add_argument("--revision", help="of the hub's repository")
    convert.add_argument("--variant", choices=ENCODERS, help="where an original checkpoint does not tell")
    convert.add_argument("--frames", type=int, help="frames of a clip: as trained (original), or to resize to")
    convert.add_argument(
        "--image-size", type=int, nargs="+", metavar="PIXELS", help="side, or height and width, likewise"
    )
    convert.add_argument(
        "--order", choices=("space_time", "time_space"), help="of an original factorised self-attention"
    )
    convert.add_argument("--sampled-frames", type=int, help="of an original with uniform frame sampling")
    convert.set_defaults(run=_convert)
    classify = commands.add_parser("classify", help="the likeliest classes of video files")
    classify.add_argument("videos", nargs="+", metavar="VIDEO", help="files that FFmpeg can read")
    classify.add_argument("--checkpoint", required=True, metavar="SOURCE", help="Hub id, folder or file of a model")
    classify.add_argument("--views", type=_views, default=(4, 3), metavar="CLIPSxCROPS", help="1x1, 4x3, ... (4x3)")
    classify.add_argument("--json", action="store_true", help="print one JSON object a line")
    classify.set_defaults(run=_classify)
    look = commands.add_parser(
        "attend", help="pictures of what a model looks at in a video: attention rollout and heads"
    )
    look.add_argument("video", metavar="VIDEO", help="a file that FFmpeg can read; the clip in its middle is taken")
    look.add_argument("--checkpoint", required=True, metavar="SOURCE", help="Hub id, folder or file of a model")
    look.add_argument("--layer", help="show each head of this layer too: its number, from 0, -1 for the last, or name")
    look.add_argument("--out", type=_folder, default=Path("runs/attend"), help="folder for the pictures (runs/attend)")
    look.set_defaults(run=_attend)
    for command in (classify, look):
        command.add_argument("--stride", type=int, default=2, help="distance of a clip's frames in the video (2)")
        command.add_argument("--top", type=int, default=5, help="number of classes to print (5)")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (auto)")
        command.add_argument(
            "--preprocessing",
            choices=("original", "transformers"),
            default="original",
            help="pixels as ViViT was trained on, or as transformers' VivitImageProcessor makes them (original)",
        )
        command.add_argument(
            "--policy",
            choices=("repeat_last", "wrap", "error"),
            default="repeat_last",
            help="for a video shorter than a clip: repeat its last frame, start it again, or refuse it (repeat_last)",
        )
    check = commands.add_parser("check-data", help="open every video of a data set: classes, lengths, broken files")
    check.add_argument("source", help="list file, folder, shards such as 'train-{000..015}.tar'; see docs/data.md")
    check.add_argument("--root", help="folder that a list's paths start from (that of the list)")
    check.add_argument(
        "--classes", metavar="FILE", help="names of the classes, one a line, in the order of their numbers"
    )
    check.add_argument("--frames", type=int, default=32, help="frames of a clip, to find videos that are shorter (32)")
    check.add_argument("--stride", type=int, default=2, help="distance of a clip's frames in the video (2)")
    check.add_argument("--full", action="store_true", help="decode every frame, which finds damage in the middle")
    check.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; 0 for none (one a core)")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(run=_check_data)
    bench = commands.add_parser("bench", help="speed and memory of each variant, and of other people's ViViTs")
    bench.add_argument("name", nargs="?", default="B/16x2", help="the paper's name of a model (B/16x2)")
    bench.add_argument("--variants", nargs="+", choices=ENCODERS, default=[*ENCODERS], help="which (all)")
    bench.add_argument("--peers", action="store_true", help="transformers' and vit-pytorch's models of the same sizes")
    bench.add_argument("--frames", type=int, nargs="+", default=[32], help="of a clip: one number or several (32)")
    bench.add_argument("--image-size", type=int, nargs="+", default=[224], metavar="SIDE", help="likewise (224)")
    bench.add_argument("--batch", type=int, nargs="+", default=[1], help="clips, likewise (1)")
    bench.add_argument("--dtype", nargs="+", default=["float32"], help="float32, tf32, bfloat16, float16 (float32)")
    bench.add_argument("--train", action="store_true", help="training steps in place of forward passes")
    bench.add_argument("--checkpointing", action="store_true", help="each with its activations computed again as well")
    bench.add_argument("--compile", action="store_true", help="each under torch.compile as well")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (auto)")
    bench.add_argument("--repeats", type=int, default=10, help="rounds, in each of which all take a turn (10)")
    bench.add_argument(
        "--seconds", type=float, default=600.0, help="for everything; the table tells what is left (600)"
    )
    bench.add_argument("--out", type=_folder, default=Path("runs/bench"), help="folder for the results (runs/bench)")
    bench.set_defaults(run=_bench)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"vivit-zoo: {error}", file=sys.stderr)
        return 2


def _views(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not CLIPSxCROPS, such as 1x1 or 4x3")
    return int(match[1]), int(match[2])


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file; give a folder")
    return path


def _classify(options: argparse.Namespace) -> int:
    from vivit_zoo.evaluation.classify import classify_files

    model, views, preprocess = _model_and_views(options, *options.views)
    device = _device(options.device)
    return classify_files(model, options.videos, views, preprocess, device, top=options.top, as_json=options.json)


def _attend(options: argparse.Namespace) -> int:
    from vivit_zoo.interpret.overlay import attend_file

    model, views, preprocess = _model_and_views(options, clips=1, crops=1)
    device = _device(options.device)
    print(attend_file(model, options.video, views, preprocess, options.out, device, options.layer, options.top))
    return 0


def _model_and_views(options: argparse.Namespace, clips: int, crops: int) -> tuple[ViViT, "Views", "Preprocess"]:
    from vivit_zoo.video.clips import Views
    from vivit_zoo.video.preprocess import Preprocess

    if options.top < 1:
        raise ValueError(f"--top {options.top} is not positive")
    views = Views(clips=clips, crops=crops, stride=options.stride, policy=options.policy)
    model = ViViT.from_pretrained(options.checkpoint)
    views = dataclasses.replace(views, frames=model.config.num_frames)
    return model, views, Preprocess(model.config.frame_size, style=options.preprocessing)


def _check_data(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vivit_zoo.datasets import check_videos, read_catalogue

    classes = None if options.classes is None else Path(options.classes).read_text(encoding="utf-8-sig").splitlines()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what they say is in the report
        catalogue = read_catalogue(options.source, options.root, classes)
    progress = partial(tqdm, desc="check", unit="video", dynamic_ncols=True)
    report = check_videos(catalogue, options.frames, options.stride, options.full, options.workers, progress)
    print(report.to_json() if options.json else report)
    if len(report.videos) < report.total:
        return 130
    return int(bool(report.broken))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return torch.device(name)


def _summary(options: argparse.Namespace) -> int:
    changes = _given(num_frames=options.frames, image_size=_pair(options.image_size), num_classes=options.classes)
    printed = [(fields, gflops) for name, fields, gflops, _ in PAPER_GFLOPS if name == options.name]
    deep = _given(temporal_depth=options.temporal_depth)

    rows: list[dict[str, Any]] = [{"variant": variant} for variant in ENCODERS]
    rows += [{"variant": "factorised_encoder"} | deep, {"variant": "factorised_encoder", "temporal_depth": 0}]
    rows += [] if changes else [fields for fields, _ in printed]
    lines = [f"{'variant':<58} {'params':>13} {'GMACs':>10} {'paper GFLOPs':>13} {'printed':>8}"]
    notes = []
    for row in [row for i, row in enumerate(rows) if row not in rows[:i]]:
        config = named_config(options.name, **(row | changes))
        make, shape = partial(ViViT, config), (1, *config.input_shape)
        label = ", ".join(value if field == "variant" else f"{field}={value}" for field, value in row.items())
        try:
            with torch.device("meta"):
                params = count_params(make())
        except ValueError as error:  # this size has no such variant: three heads cannot be halved
            lines.append(f"{label:<58} {'-':>13} {'-':>10} {'-':>13} {'-':>8}")
            notes.append(f"{label}: {error}")
            continue
        in_paper = [gflops for fields, gflops in printed if fields == row and not changes]
        lines.append(
            f"{label:<58} {params:>13,} {count_macs(make, shape) / 1e9:>10.2f} {paper_gflops(make, shape):>13.1f}"
            f" {in_paper[0] if in_paper else '-':>8}"
        )
    lines += [*notes, _LEGEND]
    print("\n".join(lines))
    return 0


_LEGEND = """\
GMACs: matrix products alone. Paper GFLOPs: the same and half of every elementary operation, as the paper counted;
printed: in the paper, where it prints this model."""


def _convert(options: argparse.Namespace) -> int:
    changes = _given(
        variant=options.variant,
        num_frames=options.frames,
        image_size=_pair(options.image_size),
        order=options.order,
        sampled_frames=options.sampled_frames,
    )
    model = ViViT.from_pretrained(options.source, revision=options.revision, **changes)
    model.save_pretrained(options.folder, format=options.format)
    print(model.load_report)
    print(f"written to {options.folder} in the format of {options.format}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from vivit_zoo.bench.measure import Case, campaign
    from vivit_zoo.bench.peers import candidates

    if options.checkpointing and not options.train:
        raise ValueError("--checkpointing changes training steps alone; add --train")
    device = str(_device(options.device))
    plan = []
    for dtype, side, frames, batch in product(options.dtype, options.image_size, options.frames, options.batch):
        changes = {"num_frames": frames, "image_size": side}
        configs = [named_config(options.name, variant=variant, **changes) for variant in options.variants]
        shape = (batch, *configs[0].input_shape)
        case = Case(shape=shape, dtype=dtype, device=device, train=options.train)
        plan.append((case, candidates(configs, options.peers, options.checkpointing, options.compile)))
    print(campaign(plan, options.out, options.repeats, options.seconds))
    print(f"\nwritten to {options.out}: speeds.json, table.md and pictures")
    return 0


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _pair(size: list[int] | None) -> tuple[int, ...] | None:
    """Height and width from one number or two; more are for the configuration to refuse."""
    return None if size is None else tuple(size * 2 if len(size) == 1 else size)
