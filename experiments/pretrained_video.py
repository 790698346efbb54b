"""What do pretrained video models cost in these blocks, beside transformers' own?

    python experiments/pretrained_video.py            # about 20 minutes on one CPU core; prints a table

Models of official sizes with random weights, one clip each, float32. The two implementations take turns, and the ratio
is that of the medians, ours over theirs. Load is `ViViT.from_pretrained` from a folder; "apart" is the largest
difference of logits over the largest of theirs. V-JEPA 2 gets 16 of its 64 frames. VideoPrism has the unfused attention
of its soft cap, and in a second row the fused attention without the cap, which is another function.

Expected: ratios near 1 where both attentions are fused, and below 1 where transformers' is not.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import nn

from vivit_zoo import ViViT
from vivit_zoo.system.machine import describe_machine

# Row: configuration, class, sizes that differ from the defaults, and changes of ours.
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "VideoPrism-B": ("VideoPrismVisionConfig", "VideoPrismForVideoClassification", {"num_labels": 400}, {}),
    "VideoPrism-B, no cap": (
        "VideoPrismVisionConfig", "VideoPrismForVideoClassification", {"num_labels": 400}, {"attn_softcap": None},
    ),
    "VideoMAE-B": ("VideoMAEConfig", "VideoMAEForVideoClassification", {"num_labels": 400}, {}),
    "TimeSformer-B": ("TimesformerConfig", "TimesformerForVideoClassification", {"num_labels": 400}, {}),
    "V-JEPA 2-L, 16 frames": (
        "VJEPA2Config", "VJEPA2ForVideoClassification", {"frames_per_clip": 16, "num_labels": 174}, {},
    ),
}  # fmt: skip


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.inference_mode()
def row(name: str, rounds: int) -> str:
    """The table's row of a model."""
    config, architecture, sizes, changes = MODELS[name]
    theirs = getattr(transformers, architecture)(getattr(transformers, config)(**sizes)).eval()
    with TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        start = time.perf_counter()
        ours = ViViT.from_pretrained(folder)
        load = time.perf_counter() - start
    if changes:
        other = ViViT(ours.config.replace(**changes)).eval()
        other.load_state_dict(ours.state_dict())
        other.processing, ours = ours.processing, other
    clip = torch.rand(1, *ours.config.input_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert ours.processing is not None
    mean, std = (torch.tensor(x)[:, None, None] for x in (ours.processing.mean, ours.processing.std))
    pixels = ((clip.transpose(1, 2) + 1) / 2 - mean) / std
    expected = theirs(pixels).logits.flatten()
    apart = (ours(clip).flatten() - expected).abs().max() / expected.abs().max()
    times: dict[nn.Module, list[float]] = {ours: [], theirs: []}
    for _ in range(rounds):
        times[ours].append(seconds(lambda: ours(clip)))
        times[theirs].append(seconds(lambda: theirs(pixels)))
    mine, other_time = median(times[ours]), median(times[theirs])
    params = sum(parameter.numel() for parameter in ours.parameters()) / 1e6
    cells = name, f"{params:.0f} M", f"{load:.1f} s", f"{mine:.2f} s", f"{other_time:.2f} s", f"{mine / other_time:.2f}"
    return f"| {' | '.join(cells)} | {apart:.0e} |"


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS], help="which (all)")
    parser.add_argument("--rounds", type=int, default=3, help="forward passes of each (3)")
    options = parser.parse_args(arguments)
    columns = ("model", "parameters", "load", "forward", "transformers'", "ratio", "apart")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name in options.models:
        print(row(name, options.rounds), flush=True)
    print(f"\n{describe_machine(torch.device('cpu'))}, transformers {transformers.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
