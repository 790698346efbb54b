"""Evaluate any classifier of clips on a data set, and controls that show whether it uses time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vivit_zoo.evaluation.scores import Scores

__all__ = ["average_views", "evaluate", "shuffle_frames", "swap_halves"]


@torch.no_grad()
def evaluate(
    model: Callable[[Tensor], Any],
    batches: Iterable[Any],
    device: torch.device | str = "cpu",
    change: Callable[[Tensor], Tensor] | None = None,
    softmax: bool = False,
) -> Scores:
    """Run a model over batches of (video, label) or (video, label, index) and return its scores.

    Videos are clips (b, c, t, h, w), or views (b, v, c, t, h, w), which are averaged by `average_views`. Labels are
    (b,), or a dictionary by head. Indices (b,) are the positions of the clips in the data set. Further elements of a
    batch are ignored.

    Args:
        model: any callable from videos (b, c, t, h, w) to logits (b, classes), or to a dictionary of logits by head.
            Modules must be in evaluation mode.
        batches: any iterable, such as a `DataLoader`.
        device: device of the model.
        change: function applied to each batch of clips before the model, such as `shuffle_frames()`.
        softmax: average the probabilities of the views instead of their logits.

    Raises:
        ValueError: if there are no batches, or the labels do not match the logits.
    """
    answers, labels, indices = [], [], []

    def changed(video: Tensor) -> Any:
        return model(video if change is None else change(video))

    for video, label, *more in batches:
        video = video.to(device)
        answers.append(_to_cpu(average_views(changed, video, softmax) if video.ndim == 6 else changed(video), float))
        labels.append(_to_cpu(label, int))
        indices += more[:1]
    if not answers:
        raise ValueError("nothing to evaluate: the data set is empty")
    return Scores(_join(answers), _join(labels), torch.cat(indices).cpu() if indices else None)


def _to_cpu(x: Any, kind: type) -> Any:
    """Convert a tensor, or a dictionary of tensors, to float32 or int64 on the CPU."""
    if isinstance(x, Mapping):
        return {head: _to_cpu(one, kind) for head, one in x.items()}
    return x.float().cpu() if kind is float else x.long().cpu()


def _join(batches: list[Any]) -> Any:
    """Concatenate tensors, or dictionaries of tensors."""
    if isinstance(batches[0], Mapping):
        return {head: torch.cat([one[head] for one in batches]) for head in batches[0]}
    return torch.cat(batches)


@torch.no_grad()
def average_views(
    model: Callable[[Tensor], Tensor | dict[str, Tensor]], views: Tensor | Iterable[Tensor], softmax: bool = False
) -> Any:
    """Average the logits over the views of each video: (b, v, c, t, h, w) -> (b, classes).

    Like the original code, this averages logits and not probabilities. The views are computed one at a time.

    Args:
        model: any callable from videos (b, c, t, h, w) to logits (b, classes), or to a dictionary of logits by head.
            The result has the same type. Modules must be in evaluation mode.
        views: (b, v, c, t, h, w), or an iterable of v tensors (b, c, t, h, w), which may be made one at a time.
        softmax: average probabilities instead, and return the logarithm of the mean.

    Raises:
        ValueError: if there are no views, or a tensor does not have six axes.
    """
    if isinstance(views, Tensor):
        if views.ndim != 6:
            raise ValueError(f"views have the axes (b, v, c, t, h, w); got shape {tuple(views.shape)}")
        views = views.unbind(1)
    logits: list[Any] = [model(view) for view in views]
    if not logits:
        raise ValueError("there are no views to average")

    def mean(of_views: list[Tensor]) -> Tensor:
        stacked = torch.stack(of_views)
        return stacked.softmax(-1).mean(0).log() if softmax else stacked.mean(0)

    if isinstance(logits[0], dict):
        return {head: mean([one[head] for one in logits]) for head in logits[0]}
    return mean(logits)


def shuffle_frames(seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Return a function that shuffles the frames of each clip, (b, c, t, h, w) -> same, as `change` of `evaluate`.

    Each clip gets its own random order. The order depends on the seed and the number of the clip, not on the batches.
    """
    generator = torch.Generator().manual_seed(seed)

    def shuffle(video: Tensor) -> Tensor:
        order = torch.stack([torch.randperm(video.shape[2], generator=generator) for _ in video]).to(video.device)
        return video.gather(2, order[:, None, :, None, None].expand_as(video))

    return shuffle


def swap_halves(video: Tensor) -> Tensor:
    """Swap the two halves of a clip in time: (b, c, t, h, w) -> same, for even t."""
    return rearrange(video, "b c (half t) h w -> half b c t h w", half=2).flip(0).movedim(0, 2).flatten(2, 3)
