"""Running any classifier of clips over a data set, and the controls that tell whether it uses time."""

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
    """Run a model over batches of (video, label) or (video, label, index); what else they hold is left alone.

    A video is a clip each (b, c, t, h, w), or views (b, v, c, t, h, w), which are averaged as `average_views` does. A
    label is (b,), or by head. An index (b,) is a clip's place in its data set, kept in the scores.

    Args:
        model: any callable from videos (b, c, t, h, w) to logits (b, classes), or to a dictionary of them by head; put
            modules into evaluation mode yourself.
        batches: such as a `DataLoader`.
        device: where the model lives.
        change: applied to each batch of clips before the model, such as `shuffle_frames()`.
        softmax: average the views' probabilities in place of their logits.

    Raises:
        ValueError: if there are no batches, or labels do not fit the logits.
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
    """A tensor, or a dictionary of tensors, as float32 or int64."""
    if isinstance(x, Mapping):
        return {head: _to_cpu(one, kind) for head, one in x.items()}
    return x.float().cpu() if kind is float else x.long().cpu()


def _join(batches: list[Any]) -> Any:
    """Tensors, or dictionaries of tensors, one after the other."""
    if isinstance(batches[0], Mapping):
        return {head: torch.cat([one[head] for one in batches]) for head in batches[0]}
    return torch.cat(batches)


@torch.no_grad()
def average_views(
    model: Callable[[Tensor], Tensor | dict[str, Tensor]], views: Tensor | Iterable[Tensor], softmax: bool = False
) -> Any:
    """The mean of the raw logits over the views of each video: (b, v, c, t, h, w) -> (b, classes).

    As the original code evaluates: what is averaged are logits, not probabilities. One view is computed at a time.

    Args:
        model: any callable from videos (b, c, t, h, w) to logits (b, classes), or to a dictionary of them by head; the
            result is of the same kind. Put modules into evaluation mode yourself.
        views: (b, v, c, t, h, w), or an iterable over v of (b, c, t, h, w), which need not be in memory at once.
        softmax: average probabilities; the result is the logarithm of their mean, whose softmax is that mean.

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

    def mean(of_views: list[Tensor]) -> Tensor:
        stacked = torch.stack(of_views)
        return stacked.softmax(-1).mean(0).log() if softmax else stacked.mean(0)

    if isinstance(logits[0], dict):
        return {head: mean([one[head] for one in logits]) for head in logits[0]}
    return mean(logits)


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
