"""Train only some parts of a model: choose parameters by name, freeze the others."""

import re
from collections.abc import Iterable

from torch import nn

__all__ = ["PARTS", "freeze", "frozen_modules", "set_train_mode"]

HEAD = r"^(head|pre_logits)\."
PARTS = {
    "pool": r"(^|\.)attn_pool\.",
    "temporal": r"^encoder\.temporal\.|\.(attn_time|norm_time)\.",
    "spatial": r"^encoder\.spatial\.",
    "norm": r"(^|\.)norm\w*\.",
    "bias": r"\.bias$",
}
"""Names of parts -> regular expressions of the names of their parameters. The head is trained with each of them."""


def freeze(model: nn.Module, only: str) -> list[str]:
    """Freeze all parameters except those of some parts and of the head, and return the names of those that train.

    The head is always trained: a new head starts at zero, so that nothing below a frozen one would get a gradient.

    Args:
        model: its parameters have the names of `ViViT`.
        only: parts, separated by commas: "head", a key of `PARTS`, or a regular expression that is searched in the
            names of the parameters, such as `blocks\\.11\\.`. "" freezes nothing.

    Raises:
        ValueError: if a part is not a regular expression, or the model has no parameter of that name; the message
            lists the parts and modules that the model has.
    """
    names = [name for name, _ in model.named_parameters()]
    if not only:
        return names
    trained = _names_of(HEAD, names)
    for part in only.split(","):
        part = part.strip()
        if part == "head" and trained:
            continue
        try:
            found = _names_of(PARTS.get(part, part), names) if part and part != "head" else set()
        except re.error as error:
            raise ValueError(f"only {part!r} is not a regular expression ({error}); {_advice(names)}") from error
        if not found:
            raise ValueError(f"only {part!r} is the name of no parameter of this model; {_advice(names)}")
        trained |= found
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return [name for name in names if name in trained]


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Return the largest modules with parameters of which none trains; not the modules inside of them."""
    own = list(model.parameters())
    if own and not any(parameter.requires_grad for parameter in own):
        return [model]
    return [frozen for child in model.children() for frozen in frozen_modules(child)]


def set_train_mode(model: nn.Module, frozen: Iterable[nn.Module] | None = None) -> None:
    """Set the training mode of a model, but evaluation mode of its frozen modules.

    So dropout and stochastic depth do not change the features of frozen modules. A module of which a part trains, such
    as a block whose temporal attention does, is in training mode.

    Args:
        model: the model.
        frozen: its `frozen_modules`, if they are known.
    """
    model.train()
    for module in frozen_modules(model) if frozen is None else frozen:
        module.eval()


def _names_of(pattern: str, names: list[str]) -> set[str]:
    return {name for name in names if re.search(pattern, name)}


def _advice(names: list[str]) -> str:
    parts = [part for part, pattern in {"head": HEAD, **PARTS}.items() if _names_of(pattern, names)]
    modules = dict.fromkeys(re.sub(r"\.(\d+)\..*", r".\1", name.rpartition(".")[0]) for name in names)
    return (
        f"choose from the parts {', '.join(parts)}, or a regular expression for names of parameters, which begin with "
        f"{', '.join(modules)}"
    )
