"""Evaluate any classifier of clips on a data set, and controls that show whether it uses time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_args, overload

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vivit_zoo.evaluation.predictions import Average, Predictions
from vivit_zoo.evaluation.scores import Scores

__all__ = ["average_views", "evaluate", "shuffle_frames", "swap_halves", "unpack"]

Kind = TypeVar("Kind", bound=Predictions)


@overload
def evaluate(
    model: Callable[..., Any],
    batches: Iterable[Any],
    device: torch.device | str = ...,
    change: Callable[[Tensor], Tensor] | None = ...,
    average: Average | None = ...,
) -> Scores: ...
@overload
def evaluate(
    model: Callable[..., Any],
    batches: Iterable[Any],
    device: torch.device | str = ...,
    change: Callable[[Tensor], Tensor] | None = ...,
    average: Average | None = ...,
    *,
    kind: type[Kind],
) -> Kind: ...
@torch.no_grad()
def evaluate(
    model: Callable[..., Any],
    batches: Iterable[Any],
    device: torch.device | str = "cpu",
    change: Callable[[Tensor], Tensor] | None = None,
    average: Average | None = None,
    *,
    kind: type[Predictions] = Scores,
) -> Predictions:
    """Run a model over batches of (video, label) or (video, label, index) and return its scores.

    Videos are clips (b, c, t, h, w), or views (b, v, c, t, h, w), which are averaged by `average_views`. Labels are
    (b,), or a dictionary by head, for other kinds of scores (b, outputs). Indices (b,) are the positions of the clips
    in the data set. A mask (b, t) or (b, v, t) is the model's second argument: the attribute `mask` of a batch, such as
    a `training.loading.Batch`, or a boolean third element, before the indices, such as of `VideoClips` under the policy
    "mask". Further elements of a batch are ignored.

    Args:
        model: any callable from videos (b, c, t, h, w) to logits (b, classes), or to a dictionary of logits by head.
            Modules must be in evaluation mode.
        batches: any iterable, such as a `DataLoader`.
        device: device of the model.
        change: function applied to each batch of clips before the model, such as `shuffle_frames()`.
        average: what is averaged over views, see `average_views`; None for what `kind` averages.
        kind: `Scores` for one class a clip, `MultiLabelScores` for several, `RegressionScores` for numbers.

    Raises:
        ValueError: if there are no batches, the labels do not match the logits, or clips with a mask are to be changed.
    """
    answers, labels, indices = [], [], []

    def changed(video: Tensor, *mask: Tensor) -> Any:
        if mask and change is not None:
            raise ValueError("clips with a mask cannot be changed: their frames would leave their place in it")
        return model(video if change is None else change(video), *mask)

    for batch in batches:
        video, label, mask, index = unpack(batch)
        clip = tuple(x.to(device) for x in (video, mask) if x is not None)
        if video.ndim == 6:
            views = zip(*(x.unbind(1) for x in clip), strict=True)
            answers.append(_to_cpu(average_views(changed, views, average or kind.average)))
        else:
            answers.append(_to_cpu(changed(*clip)))
        labels.append(_to_cpu(label))
        indices += [] if index is None else [index]
    if not answers:
        raise ValueError("nothing to evaluate: the data set is empty")
    return kind(_join(answers), _join(labels), torch.cat(indices).cpu() if indices else None)


def unpack(batch: Any) -> tuple[Tensor, Any, Tensor | None, Tensor | None]:
    """Return video, label, mask and indices of a batch; None for a mask or indices that it does not have.

    The mask is the attribute `mask`, or a boolean third element, as collated from `VideoClips` and `VideoViews` under
    the policy "mask". The element after the label, or after the mask, holds the indices.
    """
    video, label, *more = batch
    mask = getattr(batch, "mask", None)
    if more and isinstance(more[0], Tensor) and more[0].dtype == torch.bool:
        mask, *more = more
    return video, label, mask, more[0] if more else None


def _to_cpu(x: Any) -> Any:
    """Convert a tensor, or a dictionary of tensors, to float32 or int64 on the CPU."""
    if isinstance(x, Mapping):
        return {head: _to_cpu(one) for head, one in x.items()}
    return x.float().cpu() if x.is_floating_point() else x.long().cpu()


def _join(batches: list[Any]) -> Any:
    """Concatenate tensors, or dictionaries of tensors."""
    if isinstance(batches[0], Mapping):
        return {head: torch.cat([one[head] for one in batches]) for head in batches[0]}
    return torch.cat(batches)


@torch.no_grad()
def average_views(
    model: Callable[..., Tensor | dict[str, Tensor]],
    views: Tensor | Iterable[Tensor | tuple[Tensor, ...]],
    average: Average = "logits",
) -> Any:
    """Average the outputs over the views of each video: (b, v, c, t, h, w) -> (b, classes).

    Like the original code, this averages logits and not probabilities. The views are computed one at a time.

    Args:
        model: any callable from videos (b, c, t, h, w) to logits (b, classes), or to a dictionary of logits by head.
            The result has the same type. Modules must be in evaluation mode.
        views: (b, v, c, t, h, w), or an iterable of v tensors (b, c, t, h, w), which may be made one at a time. A tuple
            in place of a tensor holds all arguments of the model, such as a video and its mask.
        average: "softmax" averages probabilities of one class instead, and returns the logarithm of the mean; "sigmoid"
            those of several classes, and returns the logits of the mean.

    Raises:
        ValueError: if there are no views, a tensor does not have six axes, or `average` is unknown.
    """
    if average not in get_args(Average):
        raise ValueError(f"average {average!r} is unknown; choose from {', '.join(get_args(Average))}")
    if isinstance(views, Tensor):
        if views.ndim != 6:
            raise ValueError(f"views have the axes (b, v, c, t, h, w); got shape {tuple(views.shape)}")
        views = views.unbind(1)
    logits: list[Any] = [model(*view) if isinstance(view, tuple) else model(view) for view in views]
    if not logits:
        raise ValueError("there are no views to average")

    def mean(of_views: list[Tensor]) -> Tensor:
        stacked = torch.stack(of_views)
        if average == "softmax":
            return stacked.softmax(-1).mean(0).log()
        if average == "sigmoid":  # as sums of logarithms, so that probabilities near 0 and 1 do not round to them
            return F.logsigmoid(stacked).logsumexp(0) - F.logsigmoid(-stacked).logsumexp(0)
        return stacked.mean(0)

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
