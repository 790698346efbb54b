"""Do the models attend to the moving digit?

    python experiments/attention.py              # trains the four variants on MovingDigits, a minute each on two cores
    python experiments/attention.py --seeds 3    # with the spread over seeds; finished cells are kept

The paper shows no attention maps, so there is no published number. The measure is the digit's share of the attention
rollout, divided by the digit's share of the area, on 200 test clips. 1 means no preference. A model that attends only
to the tubelet with most of the digit would get 4.9. Two controls: the same models before training, and the digits of
other clips, which must give 1. The last column is the same number for the single head, of all layers, that has the
largest one.

Expected: well above 1, and above the untrained model, for all four variants, since only the digit determines the class.

Seen (docs/results/attention, three seeds): 1.6 to 2.0 for all four, 1.1 to 1.2 before training, 1.0 on other digits.
The heads with the largest preference, 2.6 to 3.8, are all in the first spatial or joint layer. Two things keep the
rollout below its maximum: residual connections spread part of it evenly, and much of it is on the edges of the digit,
in tubelets that the digit covers only in part.

It also draws the features of one clip after the last block that has a token for each place, as colours
(`interpret.pca`).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor
from variants import settings as variants

from vivit_zoo import plots
from vivit_zoo.datasets import MovingDigits
from vivit_zoo.interpret import attention_layers, dense_features, head_maps, pca, rollout
from vivit_zoo.model import ViViT
from vivit_zoo.studies.study import BASE, Cell, Setting, run_from_command_line
from vivit_zoo.system.machine import describe_machine
from vivit_zoo.training.checkpoint import write_whole
from vivit_zoo.training.config import TrainConfig
from vivit_zoo.training.loop import train

CLIPS = 200
SHOWN = 3  # of them


class Seen(NamedTuple):
    """What one cell looks at."""

    shares: Tensor  # rollout of the trained model (b, t, n)
    colours: Tensor  # of its features of the clip shown (t, h, w, 3)
    trained: Tensor  # preferences (b,)
    untrained: Tensor
    control: Tensor
    head: tuple[float, str]  # the highest mean preference of a head, and which it is


def settings(base: TrainConfig) -> list[Setting]:
    """The four variants, without the controls of that study."""
    return variants(base)[:4]


def covered(video: Tensor, model: ViViT) -> Tensor:
    """What share of each tubelet's pixels the digit covers: (b, 1, T, H, W) in [-1, 1] -> (b, t, n) in [0, 1]."""
    t, h, w = model.config.tubelet_size
    digit = (video > -0.4).float()  # the noise ends at -0.8
    return reduce(digit, "b 1 (t pt) (h ph) (w pw) -> b t (h w)", "mean", pt=t, ph=h, pw=w)


def preference(shares: Tensor, cover: Tensor) -> Tensor:
    """The digit's share of what is attended to over its share of the area; 1 is none: (b, t, n) twice -> (b,)."""
    return (shares * cover).sum((1, 2)) / shares.sum((1, 2)) / cover.mean((1, 2))


def look(cell: Cell, video: Tensor) -> Seen:
    """Measure a finished cell."""
    trained = train(cell.train, cell.folder).model  # from its checkpoint; nothing is left to train
    assert isinstance(trained, ViViT)
    torch.manual_seed(cell.seed)
    untrained, model = cell.setting.build(), trained.cpu()
    cover, shares = covered(video, model), rollout(model, video)
    heads = [
        (preference(one, cover).mean().item(), f"{name.removeprefix('encoder.')}, {number}")
        for name in attention_layers(model)
        for number, one in enumerate(head_maps(model, video, name).unbind(1))
    ]
    return Seen(
        shares,
        pca(dense_features(model, video[SHOWN, None]))[0],  # of this clip alone; all clips would show their classes
        preference(shares, cover),
        preference(rollout(untrained, video), cover),
        preference(shares, cover.roll(1, 0)),
        max(heads),
    )


def draw(cells: Sequence[Cell], out: Path) -> None:
    """Write preference.md, and sheet.png and features.png, all variants on one clip; print the table."""
    video = torch.stack([clip for clip, _ in MovingDigits("test", CLIPS).__getitems__(list(range(CLIPS)))])
    seen: dict[str, list[Seen]] = {}
    for cell in cells:
        seen.setdefault(cell.setting.name, []).append(look(cell, video))
    lines = [
        "| variant | rollout | before training | another clip's digit | its keenest head |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, seeds in seen.items():
        numbers = [_interval([getattr(one, what) for one in seeds]) for what in ("trained", "untrained", "control")]
        best, head = max(one.head for one in seeds)
        lines.append(f"| {' | '.join([name, *numbers, f'{best:.2f} ({head})'])} |")
    several = max(map(len, seen.values())) > 1
    note = f"The digit's share over its area's, 1 is no preference; {CLIPS} test clips, "
    note += "mean ± standard deviation over seeds" if several else "mean ± 95 % interval over clips, one seed"
    text = "\n".join([*lines, "", f"{note}. {describe_machine(torch.device('cpu'))}"])
    write_whole(out / "preference.md", lambda file: file.write_text(f"{text}\n", encoding="utf-8"))
    print(f"\n{text}")

    config = cells[0].train.model
    pt, h = config.tubelet_size[0], config.grid[1]
    frames = rearrange((video[SHOWN, :, ::pt] + 1) * 127.5, "c t h w -> t h w c").round().byte().numpy()
    rows = {name: rearrange(seeds[0].shares[SHOWN], "t (h w) -> t h w", h=h) for name, seeds in seen.items()}
    plots.attention_sheet(frames, rows, out / "sheet.png")
    colours = {f"{name}: features, PCA": seeds[0].colours for name, seeds in seen.items()}
    plots.attention_sheet(frames, colours, out / "features.png")


def _interval(preferences: list[Tensor]) -> str:
    means = [one.mean().item() for one in preferences]
    clips = preferences[0]
    half = stdev(means) if len(means) > 1 else 1.96 * clips.std().item() / len(clips) ** 0.5
    return f"{mean(means):.2f} ± {half:.2f}"


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, BASE, settings, out="runs/attention", finish=draw))
