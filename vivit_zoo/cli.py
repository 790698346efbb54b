"""The command line: `vivit-zoo summary B/16x2`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch

from vivit_zoo import __version__
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.flops import count_macs, count_params, paper_gflops
from vivit_zoo.model import ViViT, named_config
from vivit_zoo.paper import MODELS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 2 where the arguments were wrong."""
    parser = argparse.ArgumentParser(prog="vivit-zoo", description="Modular ViViT variants.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    summary = commands.add_parser("summary", help="size and cost of each variant, beside the paper's numbers")
    summary.add_argument("name", help="the paper's name of a model: B/16x2, L/16x2, H/14x2, S/16x4, ...")
    summary.add_argument("--frames", type=int, help="frames of a clip (default: 32)")
    summary.add_argument("--image-size", type=int, nargs="+", metavar="PIXELS", help="side, or height and width (224)")
    summary.add_argument("--temporal-depth", type=int, help="blocks of the factorised encoder's temporal half (4)")
    summary.add_argument("--classes", type=int, help="number of classes (400)")
    summary.set_defaults(run=_summary)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except ValueError as error:
        print(f"vivit-zoo: {error}", file=sys.stderr)
        return 2


def _summary(options: argparse.Namespace) -> int:
    changes: dict[str, Any] = {
        "num_frames": options.frames,
        "image_size": options.image_size
        if options.image_size is None or len(options.image_size) > 1
        else options.image_size[0],
        "num_classes": options.classes,
    }
    changes = {field: value for field, value in changes.items() if value is not None}
    deep = {} if options.temporal_depth is None else {"temporal_depth": options.temporal_depth}
    rows: list[dict[str, Any]] = [{"variant": variant} for variant in ENCODERS]
    rows = [row | deep if row["variant"] == "factorised_encoder" else row for row in rows]
    rows += [{"variant": "factorised_encoder", "temporal_depth": 0}]
    rows += [fields for name, fields, *_ in MODELS if name == options.name and fields not in rows and not changes]

    print(f"{'variant':<58} {'params':>13} {'GMACs':>10} {'paper GFLOPs':>13} {'printed':>8}")
    for row in rows:
        config = named_config(options.name, **(row | changes))
        shape = (1, *config.input_shape)
        with torch.device("meta"):
            params = count_params(ViViT(config))
        printed = [
            f"{gflops:.1f}" for name, fields, gflops, _ in MODELS if name == options.name and fields == row | changes
        ]
        label = ", ".join([row["variant"], *(f"{field}={value}" for field, value in row.items() if field != "variant")])
        macs, gflops = count_macs(lambda c=config: ViViT(c), shape), paper_gflops(lambda c=config: ViViT(c), shape)
        print(f"{label:<58} {params:>13,} {macs / 1e9:>10.2f} {gflops:>13.1f} {''.join(printed) or '-':>8}")
    print(
        "GMACs: matrix products alone. Paper GFLOPs: the same and half of every elementary operation, as the paper counted;\n"
        "printed: in the paper, where it prints this model."
    )
    return 0
