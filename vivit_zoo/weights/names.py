"""Tables of names: one row a tensor, `{}` for the number of a block, read in both directions.

A row is `our name: (their names, layout)`. `[a|b|c]` in their names stands for three tensors, stacked along our first
axis; the layout is an einops pattern from their axes to ours.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from vivit_zoo.weights.report import WeightsError

__all__ = ["Table", "count_blocks", "export_tensors", "import_tensors", "nest"]

Table = Mapping[str, tuple[str, str]]


def nest(table: Table, ours: str, theirs: str) -> dict[str, tuple[str, str]]:
    """The same table one level down: with prefixes before our and their names."""
    return {ours + name: (theirs + other, layout) for name, (other, layout) in table.items()}


def find_row(table: Table, name: str) -> tuple[list[str], str] | None:
    """Their names of one of ours, and the layout; None where the table does not know it."""
    number = re.search(r"\bblocks\.(\d+)\.", name)
    key = name if number is None else name.replace(number[0], "blocks.{}.")
    if key not in table:
        return None
    theirs, layout = table[key]
    theirs = theirs if number is None else theirs.replace("{}", number[1])
    parts = re.split(r"\[(.*?)\]", theirs)
    return ([parts[0] + part + parts[2] for part in parts[1].split("|")] if len(parts) == 3 else [theirs]), layout


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
            parts = [rearrange(tensors[other], layout) for other in theirs]
            ours[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
        except (EinopsError, RuntimeError) as error:
            shapes = ", ".join(f"{other} {tuple(tensors[other].shape)}" for other in theirs)
            raise WeightsError(f"{source} has wrong shapes: {shapes}; expected the axes of '{layout}'") from error
        origin[name] = tuple(theirs)
    if missing:
        more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
        raise WeightsError(f"{source} lacks {', '.join(missing[:6])}{more}")
    return ours, origin


def export_tensors(table: Table, tensors: Mapping[str, Tensor], **sizes: int) -> dict[str, Tensor]:
    """Our tensors under their names and in their layout; `sizes` are those of axes that a layout joins.

    Raises:
        WeightsError: on a tensor that the table does not know.
    """
    theirs = {}
    for name, tensor in tensors.items():
        row = find_row(table, name)
        if row is None:
            raise WeightsError(f"{name} has no name in this format")
        others, layout = row
        there, here = layout.split(" -> ")
        known = {axis: size for axis, size in sizes.items() if re.search(rf"\b{axis}\b", layout)}
        for other, part in zip(others, tensor.chunk(len(others)), strict=True):
            theirs[other] = rearrange(part, f"{here} -> {there}", **known).contiguous()
    return theirs


def count_blocks(tensors: Iterable[str], prefix: str) -> int:
    """Number of blocks after a prefix such as `encoder.layer.`; if their numbers have gaps, others will be missed."""
    return len({found[1] for name in tensors if (found := re.match(rf"{re.escape(prefix)}(\d+)\b", name))})
