"""Tables of names: one row a tensor, `{}` for the number of a block, read in both directions.

A row is `our name: (their names, layout)`. `[a|b|c]` in their names stands for three tensors, stacked along our first
axis; the layout is an einops pattern from their axes to ours. A `Fold` in place of the layout computes our tensor from
all of theirs, which may be joined by " + ", or be none.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from vivit_zoo.weights.report import WeightsError

__all__ = [
    "ZERO_BIAS",
    "ZERO_KEY_BIAS",
    "Fold",
    "Rows",
    "Table",
    "count_blocks",
    "exactly",
    "export_tensors",
    "fold_notes",
    "import_tensors",
    "layers",
    "nest",
    "transformer_block",
]


class Fold(NamedTuple):
    """How a tensor of ours is computed from theirs, and back.

    Args:
        how: for the report.
        read: their tensors, in the order of the names -> ours, of the same dtype.
        write: ours -> theirs, in the same order; None where there is no way back.
    """

    how: str
    read: Callable[..., Tensor]
    write: Callable[[Tensor], Sequence[Tensor]] | None = None


def exactly(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function of tensors, computed in float64 and rounded once, to the dtype of the first."""
    return lambda *tensors: compute(*(x.double() for x in tensors)).to(tensors[0].dtype)


Table = Mapping[str, tuple[str, str | Fold]]
Rows = dict[str, tuple[str, str | Fold]]

# From the weights of the layer.
ZERO_BIAS = Fold(
    "zero: the source has no bias here", lambda *weights: weights[0].new_zeros(sum(len(weight) for weight in weights))
)
# The softmax does not see a bias of the keys: it adds the same number to all scores of a query.
ZERO_KEY_BIAS = Fold(
    "a key bias of zero between the two",
    lambda q, v: torch.cat([q, torch.zeros_like(q), v]),
    lambda bias: bias.chunk(3)[::2],
)


def layers(*rows: tuple[str, str], weight: str | Fold = "... -> ...", bias: str | Fold = "... -> ...") -> Rows:
    """Rows for weight and bias of each layer, our name and theirs, that has the same layout on both sides."""
    kinds = {"weight": weight, "bias": bias}
    return {f"{ours}.{kind}": (f"{theirs}.{kind}", how) for ours, theirs in rows for kind, how in kinds.items()}


def transformer_block(
    ours: str,
    theirs: str,
    *,
    qkv: str = "attention.[q_proj|k_proj|v_proj]",
    proj: str = "attention.o_proj",
    norms: tuple[str, str] = ("layernorm_before", "layernorm_after"),
    mlp: tuple[str, str] = ("mlp.fc1", "mlp.fc2"),
    norm_weight: str | Fold = "... -> ...",
) -> Rows:
    """Rows for the layers of a pre-norm block: prefixes of our and of their names, and their names of the layers.

    The defaults are what transformers calls them in models that it has from version 5 on.
    """
    return {
        **layers(*((f"{ours}norm{i}", theirs + norm) for i, norm in enumerate(norms, 1)), weight=norm_weight),
        **layers((ours + "attn.qkv", theirs + qkv), (ours + "attn.proj", theirs + proj)),
        **layers(*((f"{ours}mlp.fc{i}", theirs + layer) for i, layer in enumerate(mlp, 1))),
    }


def nest(table: Table, ours: str, theirs: str) -> Rows:
    """The same table one level down: with prefixes before our and their names."""
    return {ours + name: (theirs + other, layout) for name, (other, layout) in table.items()}


def find_row(table: Table, name: str) -> tuple[list[str], str | Fold] | None:
    """Their names of one of ours, and the layout; None where the table does not know it."""
    number = re.search(r"\bblocks\.(\d+)\.", name)
    key = name if number is None else name.replace(number[0], "blocks.{}.")
    if key not in table:
        return None
    theirs, layout = table[key]
    theirs = theirs if number is None else theirs.replace("{}", number[1])
    return [other for joined in theirs.split(" + ") if joined for other in _alternatives(joined)], layout


def _alternatives(theirs: str) -> list[str]:
    """`a.[x|y].b` -> `a.x.b`, `a.y.b`."""
    parts = re.split(r"\[(.*?)\]", theirs)
    return [parts[0] + part + parts[2] for part in parts[1].split("|")] if len(parts) == 3 else [theirs]


def fold_notes(table: Table, names: Iterable[str]) -> dict[str, str]:
    """Those of `names` (ours) that are computed -> how."""
    rows = {name: find_row(table, name) for name in names}
    return {name: row[1].how for name, row in rows.items() if row and isinstance(row[1], Fold)}


def import_tensors(
    table: Table, names: Iterable[str], tensors: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Those of `names` (ours) that the table knows, taken from `tensors` (theirs); and where each came from.

    Raises:
        WeightsError: if one is missing, or has other axes than its layout says.
    """
    ours: dict[str, Tensor] = {}
    origin: dict[str, tuple[str, ...]] = {}
    missing = []
    for name in names:
        row = find_row(table, name)
        if row is None:
            continue
        theirs, layout = row
        absent = [other for other in theirs if other not in tensors]
        if absent:
            missing += absent
            continue
        try:
            if isinstance(layout, Fold):
                ours[name] = layout.read(*(tensors[other] for other in theirs))
            else:
                parts = [rearrange(tensors[other], layout) for other in theirs]
                ours[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
        except (EinopsError, RuntimeError, IndexError) as error:
            shapes = ", ".join(f"{other} {tuple(tensors[other].shape)}" for other in theirs)
            wanted = (
                f"cannot be folded ({layout.how})" if isinstance(layout, Fold) else f"expected the axes of '{layout}'"
            )
            raise WeightsError(f"{source} has wrong shapes: {shapes}; {wanted}") from error
        origin[name] = tuple(theirs)
    if missing := list(dict.fromkeys(missing)):  # one may go into several of ours
        more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
        raise WeightsError(f"{source} lacks {', '.join(missing[:6])}{more}")
    return ours, origin


def export_tensors(table: Table, tensors: Mapping[str, Tensor], **sizes: int) -> dict[str, Tensor]:
    """Our tensors under their names and in their layout; `sizes` are those of axes that a layout joins.

    Raises:
        WeightsError: on a tensor that the table does not know, or that has no way back.
    """
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        row = find_row(table, name)
        if row is None:
            raise WeightsError(f"{name} has no name in this format")
        others, layout = row
        if isinstance(layout, Fold):
            if layout.write is None:
                raise WeightsError(f"{name} cannot be written in this format ({layout.how})")
            theirs |= dict(zip(others, layout.write(tensor), strict=True))
            continue
        there, here = layout.split(" -> ")
        known = {axis: size for axis, size in sizes.items() if re.search(rf"\b{axis}\b", layout)}
        for other, part in zip(others, tensor.chunk(len(others)), strict=True):
            theirs[other] = rearrange(part, f"{here} -> {there}", **known).contiguous()
    return theirs


def count_blocks(tensors: Iterable[str], prefix: str) -> int:
    """Number of blocks after a prefix such as `encoder.layer.`; if their numbers have gaps, others will be missed."""
    return len({found[1] for name in tensors if (found := re.match(rf"{re.escape(prefix)}(\d+)\b", name))})
