"""Probes of frozen features: a linear layer, attention pooling with or without frame positions, nearest neighbours."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vivit_zoo.evaluation.evaluate import unpack
from vivit_zoo.evaluation.feature_files import read_features
from vivit_zoo.evaluation.features import Extraction, compute_features
from vivit_zoo.model import ViViT
from vivit_zoo.pooling import AttentionPool
from vivit_zoo.positions import sincos_1d
from vivit_zoo.video.preprocess import normalise

__all__ = [
    "PROBES",
    "AttentiveProbe",
    "FrozenFeatures",
    "LinearProbe",
    "ProbeConfig",
    "fit_probe",
    "frozen_features",
    "load_features",
]

PROBES = ("linear", "attentive", "attentive+positions", "knn")
"""Names of the probes. "attentive" does not see which frame a token is of, "attentive+positions" does."""

WITH_MASK = "probes cannot leave out frames that are not there"


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of the clips of a data set, with their labels.

    Args:
        tokens: (n, t, s, d): s tokens of each of t frames, which may be 1; floating-point.
        labels: class numbers (n,), int64.

    Raises:
        ValueError: if the shapes do not fit, or there are no clips.
    """

    tokens: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.tokens.ndim != 4 or self.labels.shape != self.tokens.shape[:1]:
            raise ValueError(
                f"tokens are (n, t, s, d) and labels (n,); got {tuple(self.tokens.shape)} and "
                f"{tuple(self.labels.shape)}"
            )
        if not len(self.labels):
            raise ValueError("there is nothing to probe: the data set is empty")

    def take(self, places: Tensor) -> "FrozenFeatures":
        """Return some of the clips."""
        return FrozenFeatures(self.tokens[places], self.labels[places])


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How probes are fitted.

    Args:
        lrs, weight_decays: settings of AdamW to try, all pairs.
        neighbours: numbers of neighbours to try.
        held_out: share of the training clips on which the settings are compared; never the test clips.
        epochs, least_steps: steps of a fit: so many passes over the clips, and at least `least_steps`.
        batch_size: clips in a step.
        num_heads: heads of the attentive probes.
        temperature: neighbours vote with weights exp(cosine / temperature).

    Raises:
        ValueError: on values that cannot work.
    """

    lrs: tuple[float, ...] = (3e-3, 1e-2)
    weight_decays: tuple[float, ...] = (1e-3, 1e-1)
    neighbours: tuple[int, ...] = (5, 10, 20, 50)
    held_out: float = 0.2
    epochs: int = 20
    least_steps: int = 200
    batch_size: int = 64
    num_heads: int = 4
    temperature: float = 0.07

    def __post_init__(self) -> None:
        for name in ("lrs", "weight_decays", "neighbours"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one value")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out {self.held_out} is not a share in (0, 1)")
        for name in ("epochs", "least_steps", "batch_size", "num_heads", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} is not positive")


class LinearProbe(nn.Module):
    """A linear layer on the mean of the tokens: (b, t, s, d) -> (b, classes)."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, num_classes)
        nn.init.zeros_(self.head.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(tokens.mean((1, 2)))


class AttentiveProbe(nn.Module):
    """Attention pooling of the tokens and a linear layer: (b, t, s, d) -> (b, classes).

    Without positions the result does not depend on the order of the tokens.

    Args:
        dim: width d of the tokens.
        num_classes: number of classes.
        num_heads: heads of the pooling; must divide `dim`.
        positions: whether sine-cosine positions of the frames are added to the tokens.
    """

    def __init__(self, dim: int, num_classes: int, num_heads: int = 4, positions: bool = False) -> None:
        super().__init__()
        self.positions = positions
        self.pool = AttentionPool(dim, num_heads, mlp_ratio=None)
        self.head = nn.Linear(dim, num_classes)
        nn.init.zeros_(self.head.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.positions:
            tokens = tokens + sincos_1d((tokens.shape[1],), tokens.shape[-1]).to(tokens)[:, None]
        return self.head(self.pool(rearrange(tokens, "b t s d -> b (t s) d")))


def frozen_features(
    model: ViViT,
    batches: Iterable[Any],
    layer: int = -1,
    output: str = "frames",
    norm: bool = True,
    device: torch.device | str = "cpu",
) -> FrozenFeatures:
    """Compute the features of a data set in memory.

    Args:
        model: in evaluation mode, on the device.
        batches: of (video, label) or (video, label, mask), such as a `DataLoader`; videos (b, c, t, h, w) as for
            `normalise`, masks (b, t).
        layer: number of the block.
        output: "pooled", "frames" or "dense", see `vivit_zoo.evaluation.features.OUTPUTS`.
        norm: whether the last norm is applied to the tokens.
        device: of the model.

    Raises:
        ValueError: on a layer that the model does not have, if there are no batches, or on a mask with another output
            than "pooled".
    """
    what, tokens, labels = Extraction(layers=(layer,), outputs=(output,), norm=norm), [], []
    for batch in batches:
        video, label, mask, _ = unpack(batch)
        if mask is not None and output != "pooled":
            raise ValueError(f"{WITH_MASK}; use output 'pooled', or data without the policy 'mask'")
        here = (x.to(device) for x in (mask,) if x is not None)
        *_, x = compute_features(model, normalise(video.to(device)), what, *here).values()
        tokens.append(_as_tokens(x.cpu()[:, None], output))
        labels.append(torch.as_tensor(label).long())
    if not tokens:
        raise ValueError("there is nothing to probe: the data set is empty")
    return FrozenFeatures(torch.cat(tokens).float(), torch.cat(labels))


def load_features(files: Sequence[str | Path], name: str, head: str = "") -> FrozenFeatures:
    """Read the features of several videos, whose windows follow each other in time.

    Args:
        files: of `extract_features`.
        name: of the tensor, such as "layer.11.frames".
        head: whose labels, where videos have several.

    Raises:
        ValueError: if the videos differ in their number of windows, have no class number as label, or have features of
            frames that are not there, from the policy "mask".
    """
    tokens, labels = [], []
    for file in files:
        found = read_features(file, [name])
        if found.settings.get("sampler.policy") == "mask" and name.rpartition(".")[2] in ("frames", "dense"):
            raise ValueError(f"{found.video}: {WITH_MASK}; use pooled features")
        label = found.label.get(head) if isinstance(found.label, dict) else found.label
        if not isinstance(label, int) or (head and not isinstance(found.label, dict)):
            heads = ", ".join(found.label) if isinstance(found.label, dict) else ""
            choices = f"give head, one of {heads}" if heads else "probes learn one class a video"
            raise ValueError(f"{found.video}: the label {found.label!r} is no class number; {choices}")
        tokens.append(_as_tokens(found.tensors[name].float()[None], name.rpartition(".")[2]))
        labels.append(label)
    if len({len(one[0]) for one in tokens}) > 1:
        raise ValueError("the videos have different numbers of windows; probes need the same of each, such as one clip")
    return FrozenFeatures(torch.cat(tokens), torch.tensor(labels))


def _as_tokens(x: Tensor, output: str) -> Tensor:
    """(b, windows, ...) of an output -> (b, t, s, d)."""
    patterns = {"frames": "b k t d -> b (k t) 1 d", "dense": "b k t h w d -> b (k t) (h w) d"}
    return rearrange(x, patterns.get(output, "b k d -> b k 1 d"))


def fit_probe(
    name: str,
    train: FrozenFeatures,
    test: FrozenFeatures,
    num_classes: int,
    config: ProbeConfig | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Fit a probe and test it.

    Features are standardised by mean and deviation of each channel of the training clips. The settings are compared on
    a random part of the training clips that holds out a share of each class; the best is fitted to all of them.

    Args:
        name: of the probe, from `PROBES`.
        train, test: features of the clips.
        num_classes: number of classes.
        config: how; None for the defaults.
        seed: of the held-out part, the initial weights and the order of the clips.
        device: that fits.

    Returns:
        "accuracy" on the test clips in [0, 1], "setting", the best, "held_out", its accuracy there, and "params".

    Raises:
        ValueError: on an unknown probe, features or labels that do not fit, or features that are not finite.
    """
    if name not in PROBES:
        raise ValueError(f"probe {name!r} is unknown; choose from {', '.join(PROBES)}")
    if train.tokens.shape[1:] != test.tokens.shape[1:]:
        shapes = tuple(train.tokens.shape[1:]), tuple(test.tokens.shape[1:])
        raise ValueError(f"the training features are (t, s, d) = {shapes[0]}, those of the test {shapes[1]}")
    for split, features in {"training": train, "test": test}.items():
        if broken := int((~features.tokens.isfinite().flatten(1).all(1)).sum()):
            raise ValueError(
                f"the features of {broken} of {len(features.labels)} {split} clips have values that are not finite; "
                "check the model, or extract them as float32, because float16 ends at 65504"
            )
        if not 0 <= features.labels.min() <= features.labels.max() < num_classes:
            raise ValueError(
                f"labels go from {features.labels.min()} to {features.labels.max()}; {num_classes} classes are 0 to "
                f"{num_classes - 1}"
            )
    config = config or ProbeConfig()
    fit_part, held_out = _split(train.labels, config.held_out, seed)
    parts = train.take(fit_part), train.take(held_out)

    def score(features: FrozenFeatures, on: FrozenFeatures, setting: dict[str, Any]) -> tuple[float, float, int]:
        """Accuracy, minus the loss, and parameters of a probe that is fitted to features and tested on others."""
        mean, std = features.tokens.mean((0, 1, 2)), features.tokens.std((0, 1, 2)).clamp(min=1e-6)
        features, on = (FrozenFeatures((x.tokens - mean) / std, x.labels) for x in (features, on))
        if name == "knn":
            logits, params = _vote(features, on.tokens, num_classes, setting["neighbours"], config.temperature), 0
        else:
            probe = _fit(name, features, num_classes, config, setting, seed, device)
            logits = torch.cat([probe(x.to(device)).cpu() for x in on.tokens.split(256)])
            params = sum(one.numel() for one in probe.parameters())
        accuracy = (logits.argmax(1) == on.labels).double().mean().item()
        return accuracy, -F.cross_entropy(logits, on.labels).item(), params

    if name == "knn":
        settings: list[dict[str, Any]] = [{"neighbours": number} for number in config.neighbours]
    else:
        settings = [{"lr": lr, "weight_decay": decay} for lr, decay in product(config.lrs, config.weight_decays)]
    tried = [score(*parts, setting) for setting in settings]
    best = max(range(len(settings)), key=lambda number: tried[number])
    accuracy, _, params = score(train, test, settings[best])
    return {"accuracy": accuracy, "setting": settings[best], "held_out": tried[best][0], "params": params}


def _split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Places of clips to fit and to hold out; of each class with several clips at least one is held out.

    Raises:
        ValueError: if no class has two clips.
    """
    generator = torch.Generator().manual_seed(seed)
    fitted, held = [], []
    for label in labels.unique():
        places = (labels == label).nonzero()[:, 0]
        places = places[torch.randperm(len(places), generator=generator)]
        count = min(max(1, round(share * len(places))), len(places) - 1)
        held.append(places[:count])
        fitted.append(places[count:])
    if not len(torch.cat(held)):
        raise ValueError(f"each of the {len(held)} classes has one training clip; there is none to hold out")
    return torch.cat(fitted), torch.cat(held)


def _fit(
    name: str,
    train: FrozenFeatures,
    num_classes: int,
    config: ProbeConfig,
    setting: dict[str, Any],
    seed: int,
    device: torch.device | str,
) -> nn.Module:
    dim = train.tokens.shape[-1]
    makes: dict[str, Callable[[], nn.Module]] = {
        "linear": partial(LinearProbe, dim, num_classes),
        "attentive": partial(AttentiveProbe, dim, num_classes, config.num_heads),
        "attentive+positions": partial(AttentiveProbe, dim, num_classes, config.num_heads, positions=True),
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        probe = makes[name]().to(device)
    steps = max(config.least_steps, math.ceil(config.epochs * len(train.labels) / config.batch_size))
    optimizer = torch.optim.AdamW(probe.parameters(), **setting)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < config.batch_size:
            order = torch.cat([order, torch.randperm(len(train.labels), generator=generator)])
        places, order = order[: config.batch_size], order[config.batch_size :]
        loss = F.cross_entropy(probe(train.tokens[places].to(device)), train.labels[places].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return probe.requires_grad_(False).eval()


def _vote(train: FrozenFeatures, tokens: Tensor, num_classes: int, neighbours: int, temperature: float) -> Tensor:
    """Logarithms of the shares of the votes of the nearest training clips by cosine, as in DINO: (b, classes)."""
    known = F.normalize(train.tokens.mean((1, 2)), dim=-1)
    votes = F.one_hot(train.labels, num_classes).float()
    found = []
    for x in F.normalize(tokens.mean((1, 2)), dim=-1).split(1024):
        cosines, places = (x @ known.T).topk(min(neighbours, len(known)))
        weights = (cosines / temperature).softmax(1)
        found.append((weights[..., None] * votes[places]).sum(1).clamp(min=1e-6).log())
    return torch.cat(found)
