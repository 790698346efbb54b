"""Draw who attends to whom in each variant, as its own attention says: docs/variants/*.png.

    python docs/draw_variants.py

A tiny model of each variant looks at one clip. In every attention of its first blocks the value of one token after the
other is changed; the outputs that change with it are those that attend to it. Nothing here knows what the variants do.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from vivit_zoo import ViViT, ViViTConfig
from vivit_zoo.attention import Attention
from vivit_zoo.encoders import ENCODERS

OUT = Path(__file__).parent / "variants"
CONFIG = ViViTConfig(num_frames=8, image_size=48, dim=16, depth=1, temporal_depth=1, num_heads=4, num_classes=2)
T, H, W = CONFIG.grid
ASKER = (1, 5)  # frame and place of the token whose attention is drawn
ASKS, SEEN, UNSEEN = "#c1121f", "#48a9d8", "#e9ecef"


def who_sees_whom(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(h, *axes, *axes), whether an output (the first axes) depends on a value (the last).

    The axes are those of q, k and v (1, ..., h, n, d) without batch, heads and width: of a grid t, n, else n.
    """
    before = attention.attend(q, k, v, 0.0).movedim(-3, 0)
    axes = before.shape[2:-1]
    seen = []
    for place in range(axes.numel()):
        changed = v.movedim(-3, 0).flatten(2, -2).clone()
        changed[:, :, place] += 1
        after = attention.attend(q, k, changed.unflatten(2, axes).movedim(0, -3), 0.0).movedim(-3, 0)
        seen.append((after != before).any(-1)[:, 0])
    return torch.stack(seen, dim=-1).unflatten(-1, axes)


def masks(variant: str) -> dict[str, Tensor]:
    """`who_sees_whom` of each attention that a clip goes through, in that order, by the name of its module."""
    torch.manual_seed(0)
    model = ViViT(CONFIG.replace(variant=variant)).double().eval()
    found = {}

    def record(name: str, attention: Attention) -> None:
        plain = attention.attend

        def recording(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
            attention.attend = plain
            found[name] = who_sees_whom(attention, q, k, v)
            return plain(q, k, v, dropout)

        attention.attend = recording

    for name, module in model.named_modules():
        if isinstance(module, Attention):
            record(name.removeprefix("encoder."), module)
    with torch.no_grad():
        model(torch.rand(1, *CONFIG.input_shape, dtype=torch.float64))
    return found


def panels(variant: str) -> list[tuple[str, Tensor, tuple[int, ...]]]:
    """What to draw: a title, what the asker sees (*axes), and where it is; heads that see the same share one."""
    drawn = []
    for name, mask in masks(variant).items():
        asker = _asker(mask.shape[1 : mask.ndim // 2 + 1])
        groups: dict[tuple[bool, ...], list[int]] = {}
        for head, seen in enumerate(mask):
            groups.setdefault(tuple(seen.flatten().tolist()), []).append(head)
        for heads in groups.values():
            seen = mask[heads[0]][asker]
            which = "" if len(groups) == 1 else f", heads {heads[0] + 1}-{heads[-1] + 1}"
            drawn.append((f"{name}{which}\nsees {int(seen.sum())} of {seen.numel()}", seen, asker))
    return drawn


def _asker(axes: torch.Size) -> tuple[int, ...]:
    """The asker's place: in the grid, in each frame, in the sequence of all, or of the frames; after a class token."""
    frame, place = ASKER
    if len(axes) == 2:
        return frame, place + axes[1] - H * W
    return (1 + (frame * H * W + place if axes[0] > 1 + T else frame),)


def draw(ax: Axes, title: str, seen: Tensor, asker: tuple[int, ...]) -> None:
    """One panel: the frames side by side, class tokens above what they stand for."""
    ask = torch.zeros_like(seen)
    ask[asker] = True

    def square(x: float, y: float, side: float, place: tuple[int, ...], label: str = "") -> None:
        colour = ASKS if ask[place] else SEEN if seen[place] else UNSEEN
        ax.add_patch(Rectangle((x, y), side, side, facecolor=colour, edgecolor="white", linewidth=1.2))
        ax.text(x + side / 2, y + side / 2, label, ha="center", va="center", fontsize=6)

    step = W + 0.6
    for frame in range(T):
        if seen.shape == (1 + T,):
            square(frame * step, 0, W, (1 + frame,), "frame")
        else:
            for place in range(H * W):
                first = seen.shape[-1] - H * W  # of the frame, in what it is a part of
                index = (frame, first + place) if seen.ndim == 2 else (1 + frame * H * W + place,)
                square(frame * step + place % W, place // W, 1, index)
        if seen.shape == (T, 1 + H * W):
            square(frame * step + (W - 1) / 2, -1.3, 1, (frame, 0), "cls")
        ax.text(frame * step + W / 2, H + 0.25, f"t = {frame}", ha="center", va="top", fontsize=7)
    if seen.ndim == 1:
        square((T * step - 0.6 - 1) / 2, -1.3, 1, (0,), "cls")
    top = -0.2 if seen.shape == (T, H * W) else -1.5  # without class tokens
    ax.set(xlim=(-0.2, T * step - 0.4), ylim=(H + 0.9, top), aspect="equal")
    ax.set_title(title, fontsize=8, family="monospace")
    ax.axis("off")


def main() -> None:
    """Draw each variant into a file of its own."""
    OUT.mkdir(exist_ok=True)
    for variant in ENCODERS:
        drawn = panels(variant)
        size = (3.6 * len(drawn), 1.6 if drawn[0][1].shape == (T, H * W) else 1.9)
        figure, axes = plt.subplots(1, len(drawn), figsize=size, squeeze=False, layout="constrained")
        for ax, panel in zip(axes[0], drawn, strict=True):
            draw(ax, *panel)
        figure.savefig(OUT / f"{variant}.png", dpi=110, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
