"""The training of the small models that studies start from: still_digits.py, motions.py."""

from collections.abc import Callable
from typing import Any

from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from vivit_zoo.training.optim import warmup_cosine


def fit(
    model: nn.Module,
    data: Dataset[Any],
    loss: Callable[[Tensor, Any], Tensor],
    title: str,
    *,
    batch_size: int,
    lr: float,
    warmup_steps: int,
    weight_decay: float,
) -> None:
    """Train a model in place on a data set of (x, label), in its order and each item once.

    Args:
        model: in training mode.
        data: its items.
        loss: of a batch, from (the model's output, label).
        title: of the progress bar.
        batch_size, lr, warmup_steps, weight_decay: of AdamW, with a cosine after the warm-up.
    """
    optimizer = create_optimizer_v2(model, opt="adamw", lr=lr, weight_decay=weight_decay)
    batches = DataLoader(data, batch_size)
    for step, (x, label) in enumerate(tqdm(batches, desc=title, leave=False)):
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_cosine(step, warmup_steps, len(batches))
        loss(model(x), label).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
