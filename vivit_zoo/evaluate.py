"""Accuracy of any classifier of clips, and the controls that tell whether it uses time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["Scores", "average_views", "evaluate", "shuffle_frames", "swap_halves"]


@dataclass(frozen=True)
class Scores:
    """What a model answered to a data set: logits (clips, classes) in float32 and labels (clips,), both on the CPU."""

    logits: Tensor
    labels: Tensor

    def accuracy(self, labels: Tensor | None = None) -> float:
        """Share of the clips, in [0, 1], whose highest logit is the label's; other labels may be given."""
        labels = self.labels if labels is None else labels
        return (self.logits.argmax(dim=1) == labels).double().mean().item()


@torch.no_grad()
def evaluate(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device | str = "cpu",
    change: Callable[[Tensor], Tensor] | None = None,
) -> Scores:
    """Run a model over batches of (video (b, c, t, h, w), label (b,)).

    Args:
        model: any callable from videos to logits (b, classes); put modules into evaluation mode yourself.
        batches: such as a `DataLoader`.
        device: where the model lives.
        change: applied to each batch of videos before the model, such as `shuffle_frames()`.

    Raises:
        ValueError: if there are no batches.
    """
    logits, labels = [], []
    for video, label in batches:
        video = video.to(device)
        logits.append(model(video if change is None else change(video)).float().cpu())
        labels.append(label.cpu())
    if not logits:
        raise ValueError("nothing to evaluate: the data set is empty")
    return Scores(torch.cat(logits), torch.cat(labels))


@torch.no_grad()
def average_views(model: Callable[[Tensor], Tensor | dict[str, Tensor]], views: Tensor | Iterable[Tensor]) -> Any:
    """The mean of the raw logits over the views of each video: (b, v, c, t, h, w) -> (b, classes).

    As the original code evaluates: what is averaged are logits, not probabilities. One view is computed at a time.

    Args:
        model: any callable from videos (b, c, t, h, w) to logits (b, classes), or to a dictionary of them by head; the
            result is of the same kind. Put modules into evaluation mode yourself.
        views: (b, v, c, t, h, w), or an iterable over v of (b, c, t, h, w), which need not be in memory at once.

    Raises:
        ValueError: if there are no views, or a tensor has not six axes.
    """
    if isinstance(views, Tensor):
        if views.ndim != 6:
            raise ValueError(f"views have the axes (b, v, c, t, h, w); got shape {tuple(views.shape)}")
        views = views.unbind(1)
    logits: list[Any] = [model(view) for view in views]
    if not logits:
        raise ValueError("there are no views to average")
    if isinstance(logits[0], dict):
        return {head: torch.stack([one[head] for one in logits]).mean(0) for head in logits[0]}
    return torch.stack(logits).mean(0)


def shuffle_frames(seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A change for `evaluate`: the frames of each clip in a random order of its own, (b, c, t, h, w) -> same.

    The n-th clip it is given gets the n-th order of the seed, however the clips are cut into batches.
    """
    generator = torch.Generator().manual_seed(seed)

    def shuffle(video: Tensor) -> Tensor:
        order = torch.stack([torch.randperm(video.shape[2], generator=generator) for _ in video]).to(video.device)
        return video.gather(2, order[:, None, :, None, None].expand_as(video))

    return shuffle


def swap_halves(video: Tensor) -> Tensor:
    """The second half of the frames before the first: (b, c, t, h, w) -> same, with an even t."""
    return rearrange(video, "b c (half t) h w -> half b c t h w", half=2).flip(0).movedim(0, 2).flatten(2, 3)
