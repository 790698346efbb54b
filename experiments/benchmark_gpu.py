"""How fast are the four variants on a GPU, beside transformers' and vit-pytorch's, and how close to what it can?

    python experiments/benchmark_gpu.py                     # about 7 minutes at most; writes docs/benchmarks/gpu
    python experiments/benchmark_gpu.py --seconds 1800      # if some cases were out of time

ViViT-B/16x2 on 32x224x224: forward passes and training steps of batches of 1 to 64, in bfloat16 (weights and
activations), tf32 and float32, with and without torch.compile, with and without activation checkpointing; then longer
clips and larger frames. All candidates of a case take turns in one process, beside a large matrix product.

Expected: joint at least 1.5 times as fast as transformers' sdpa, and at 60 % or more of the bfloat16 matrix-product
rate at its best batch; the factorised variants as close to that rate as the joint one.

It has not run on a GPU yet: none could be had when it was written. Tried was, on a CPU, that it ends in time and writes
its files: `--device cpu --size Ti/16x2 --side 32 --repeats 1 --seconds 30`, which tells nothing about speed.
"""

import argparse
import sys
from pathlib import Path

import torch

from vivit_zoo.bench import Candidate, Case, campaign
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.model import named_config
from vivit_zoo.peers import candidates

Plan = list[tuple[Case, list[Candidate]]]


def plan(size: str, side: int, device: str) -> Plan:
    """The cases, the most wanted first, so that what runs out of time is what matters least."""

    def case(batch: int, dtype: str = "bfloat16", train: bool = False, frames: int = 32, side: int = side) -> Case:
        return Case(shape=(batch, 3, frames, side, side), dtype=dtype, device=device, train=train)

    def models(case: Case, *names: str, compile: bool = False) -> tuple[Case, list[Candidate]]:
        frames, side = case.shape[2:4]
        configs = [named_config(size, variant=n, num_frames=frames, image_size=side) for n in names or ENCODERS]
        again = case.train and case.shape[0] == 16
        return case, candidates(configs, peers=not compile, checkpointing=again and not compile, compile=compile)

    exact = ["tf32", "float32"] if device != "cpu" else ["float32"]
    return [
        *(models(case(batch)) for batch in (16, 1, 64, 4)),
        *(models(case(batch, train=True)) for batch in (16, 1, 4, 64)),
        # A case each, because compiling takes most of the time and so the share of a case.
        *(models(case(16), name, compile=True) for name in ENCODERS),
        *(models(case(16, dtype)) for dtype in exact),
        *(models(case(4, dtype, train=True)) for dtype in exact),
        *(models(case(16, train=True), name, compile=True) for name in ENCODERS),
        *(models(case(4, frames=frames)) for frames in (8, 16, 64, 128)),
        *(models(case(4, side=larger)) for larger in (128, 160, 288, 320, 384) if side == 224),
    ]


def main() -> int:
    """Measure and write; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=420.0, help="for everything (420)")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/gpu"), help="folder (docs/benchmarks/gpu)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu to try the script out (cuda)")
    parser.add_argument("--size", default="B/16x2", help="the paper's name of a model (B/16x2)")
    parser.add_argument("--side", type=int, default=224, help="of a frame, pixels (224)")
    parser.add_argument("--repeats", type=int, default=10, help="rounds of a case (10)")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print(f"{parser.prog}: there is no GPU here that torch {torch.__version__} can use", file=sys.stderr)
        return 2
    print(campaign(plan(options.size, options.side, options.device), options.out, options.repeats, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
