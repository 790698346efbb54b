"""Mix the clips of a batch: mixup and CutMix.

Both mix each clip with its partner in the reversed batch and draw from torch's global CPU generator, so that a resumed
run draws the same values. Each process draws its own.
"""

from typing import Any

import torch
from torch import Tensor

from vivit_zoo.training.losses import Heads

__all__ = ["cutmix", "mix", "mixup"]


def mix(video: Tensor, target: Heads, mixup_alpha: float, cutmix_alpha: float) -> tuple[Tensor, Any]:
    """Apply `mixup` or `cutmix`, if both are given one of them with probability 1/2: shapes as in `mixup`.

    Args:
        video, target: as for `mixup`.
        mixup_alpha, cutmix_alpha: parameters of the Beta distributions; 0 for no mixing of this kind.
    """
    if cutmix_alpha and (not mixup_alpha or torch.rand(()) < 0.5):
        return cutmix(video, target, cutmix_alpha)
    return mixup(video, target, mixup_alpha)


def mixup(video: Tensor, target: Heads, alpha: float) -> tuple[Tensor, Any]:
    """Mix each clip with its partner in the reversed batch: (b, c, t, h, w), (b, classes) -> same.

    As in the original code, pixels and labels become w x + (1 - w) x', with one weight w ~ Beta(alpha, alpha) per
    batch. The paper uses alpha = 0.1 for Epic Kitchens and 0.3 for Something-Something v2 (Table 7).

    Args:
        video: floating-point clips, as from `normalise`, on any device.
        target: probabilities, as from `one_hot`, or targets of a regression.
        alpha: parameter of the Beta distribution; 0 for no mixing.

    Raises:
        TypeError: if video or target are integers.
        ValueError: if alpha is negative.
    """
    weight = _draw_share(alpha)
    _check_float(video)
    return (_blend(video, weight) if alpha else video), _mix_heads(target, weight if alpha else 1.0)


def cutmix(video: Tensor, target: Heads, alpha: float) -> tuple[Tensor, Any]:
    """Replace a box of each clip by that of its partner in the reversed batch: (b, c, t, h, w), (b, classes) -> same.

    CutMix (arXiv 1905.04899) for videos: one box per batch, the same in all frames. Its area is a share 1 - w of the
    frame with w ~ Beta(alpha, alpha), its centre is uniform, and what lies outside the frame is cut off. Labels are
    mixed by the area that is left, w' y + (1 - w') y'.

    Args:
        video: clips of any type, on any device.
        target: probabilities, as from `one_hot`.
        alpha: parameter of the Beta distribution, 1 in the paper; 0 for no mixing.

    Raises:
        TypeError: if target are integers.
        ValueError: if alpha is negative.
    """
    share = _draw_share(alpha)
    if not alpha:
        return video, _mix_heads(target, 1.0)
    height, width = video.shape[-2:]
    rows, columns = (_draw_side(side, (1 - share) ** 0.5) for side in (height, width))
    mixed = video.clone()
    mixed[..., rows, columns] = video.flip(0)[..., rows, columns]
    inside = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, _mix_heads(target, 1 - inside / (height * width))


def _draw_share(alpha: float) -> float:
    if alpha < 0:
        raise ValueError(f"alpha {alpha} is negative; use 0 for no mixing")
    return torch.distributions.Beta(alpha, alpha).sample().item() if alpha else 1.0


def _draw_side(side: int, share: float) -> slice:
    """One side of a box: its length is a share of `side`, its centre uniform."""
    length, centre = int(side * share), int(torch.randint(side, ()))
    return slice(max(centre - length // 2, 0), min(centre + (length + 1) // 2, side))


def _blend(x: Tensor, weight: float) -> Tensor:
    return x * weight + x.flip(0) * (1 - weight)


def _mix_heads(target: Heads, weight: float) -> Any:
    if not isinstance(target, Tensor):
        return {head: _mix_heads(one, weight) for head, one in target.items()}
    _check_float(target)
    return target if weight == 1 else _blend(target, weight)


def _check_float(x: Tensor) -> None:
    if not x.is_floating_point():
        raise TypeError(f"{x.dtype} cannot be mixed; use `normalise` for the video and `one_hot` for the labels")
