"""Does a probe see the order of two motions in frozen features?

    python experiments/frozen_order.py --seeds 3    # about seven minutes of one core

The models (motions.py) were trained to name the two motions of a clip, not their order. Now they are frozen, and probes
learn the order from 1,000 clips: the class is an ordered pair, so that whoever sees the motions and not their order is
right half of the time. The features are the means of each frame's tokens: after the last spatial block and the last
block of a VideoPrism-shaped model, and after the last block of a VideoMAE-shaped one, for whole clips and for windows
of one tubelet. Each seed has models of its own.

Expected: where frames are encoded apart, as in the spatial half of VideoPrism and in single tubelets, the order is
invisible to a linear probe and to an attentive one, and visible to an attentive one with positions of the frames. Where
frames attend to each other and know their positions, nothing says that it is invisible to any of them.

Seen: as expected. Of frames that are encoded apart, only the probe with positions is above one half, and it is near
100 %. After the last block all probes see the order, the attentive ones nearly always.
"""

import sys
from collections.abc import Sequence

import torch
from einops import rearrange
from motions import SHAPES, pretrained
from torch.utils.data import DataLoader

from vivit_zoo import ViViT
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.evaluation.probe import FrozenFeatures, frozen_features
from vivit_zoo.studies.comparisons import Row
from vivit_zoo.studies.probes import probe_from_command_line, probe_rows

CLIPS = {"train": 1_000, "test": 500}
PROBES = ("linear", "attentive", "attentive+positions", "knn")
LAYERS = {  # name of the features -> shape of the model, number of the block
    "VideoPrism, spatial half": ("VideoPrism", SHAPES["VideoPrism"].depth - 1),
    "VideoPrism, last block": ("VideoPrism", -1),
    "VideoMAE, last block": ("VideoMAE", -1),
    "VideoMAE, tubelets apart": ("one tubelet of VideoMAE", -1),
}
APART = ("VideoPrism, spatial half", "VideoMAE, tubelets apart")


def features(seed: int) -> dict[str, tuple[FrozenFeatures, FrozenFeatures]]:
    """The features of the training and the test clips by name."""
    torch.set_num_threads(1)
    models = {shape: ViViT.from_pretrained(pretrained(shape, seed)) for shape in SHAPES}
    whole = models["VideoMAE"]
    one = models["one tubelet of VideoMAE"] = ViViT(
        whole.config.replace(num_frames=whole.config.tubelet_size[0])
    ).eval()
    one.load_state_dict(whole.state_dict())  # fixed positions: those of the first tubelet
    found = {}
    for name, (shape, layer) in LAYERS.items():
        train, test = (
            in_windows(models[shape], DataLoader(MovingDigits(split, clips), 250), layer)  # type: ignore[arg-type]
            for split, clips in CLIPS.items()
        )
        found[name] = train, test
    return found


def in_windows(model: ViViT, batches: DataLoader, layer: int) -> FrozenFeatures:
    """The features of clips, cut into windows of as many frames as the model takes: tokens (n, t, 1, d)."""
    frames = model.config.num_frames
    windows = ((rearrange(x, "b c (k t) h w -> (b k) c t h w", t=frames), y) for x, y in batches)
    several = ((x, y.repeat_interleave(len(x) // len(y))) for x, y in windows)
    found, count = frozen_features(model, several, layer), MovingDigits.num_frames // frames
    return FrozenFeatures(rearrange(found.tokens, "(n k) t 1 d -> n (k t) 1 d", k=count), found.labels[::count])


def rows(seeds: Sequence[int]) -> list[Row]:
    """Each probe on each kind of features."""
    blind = {f"{name}, {probe}": MovingDigits.bag_ceiling for name in APART for probe in ("linear", "attentive", "knn")}
    return probe_rows(features, PROBES, seeds, len(MovingDigits.orders), ceilings=blind)


if __name__ == "__main__":
    sys.exit(probe_from_command_line(__doc__, rows, out="runs/frozen_order"))
