"""`ImageModel`, an image ViT under one set of names, and `FOLDS`, which turn it into what a ViViT's blocks compute.

The names are ours below `encoder.`, with separate parts where sources differ:

- `patch`, `patch_norm`, `pos_embed` (positions of the extra tokens first) or `pos_embed_y` and `pos_embed_x`;
- `cls_token`, `dist_token`, `reg_tokens`, `norm_pre`;
- `blocks.{i}.` with `norm1`, `attn.qkv` or `attn.q`, `attn.k`, `attn.v`, `attn.proj`, `rel_pos`, `ls1`, `norm2`,
  `mlp.fc1` or `mlp.gate` and `mlp.up`, `mlp.fc2`, `ls2`, and the optional norms; `rope.freqs` of all blocks;
- `norm` before the pooling or `fc_norm` after it; `attn_pool` with `query`, `qkv` or `q` and `kv`, and our other names.

A fold acts where its names are present, so that a new source needs no new code here.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from vivit_zoo.weights.report import WeightsError

__all__ = ["FOLDS", "ImageModel", "Pixels", "halves_from_pairs", "rename"]

Pixels = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of pixels in [0, 1], one a channel, that a model was trained with."""


@dataclasses.dataclass
class ImageModel:
    """An image model in the vocabulary of this file.

    Args:
        source: where it is from, for messages.
        facts: what no tensor tells: `image_size` and `patch` as (h, w), `num_heads`, and fields of `ViViTConfig`.
        tensors: name -> tensor.
        origin: name -> the source's own names.
        how: name -> what was computed; names that are missing were only moved.
        left: the source's own name -> why it is not used.
        notes: differences that no tensor shows.
        pixels: mean and standard deviation that the model was trained with; None where unknown.
    """

    source: str
    facts: dict[str, Any]
    tensors: dict[str, Tensor]
    origin: dict[str, tuple[str, ...]]
    how: dict[str, str] = dataclasses.field(default_factory=dict)
    left: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    pixels: Pixels | None = None

    @property
    def blocks(self) -> Iterator[str]:
        """Prefixes of the blocks, in order."""
        numbers = {int(name.split(".")[1]) for name in self.tensors if name.startswith("blocks.")}
        yield from (f"blocks.{i}." for i in sorted(numbers))

    def replace(self, name: str, tensor: Tensor, *parts: str, how: str = "") -> None:
        """Put a tensor in place of those that it is computed from."""
        origin = dict.fromkeys(theirs for part in parts for theirs in self.origin.get(part, ()))
        hows = dict.fromkeys(text for text in (*(self.how.get(part, "") for part in parts), how) if text)
        for part in parts:
            for table in (self.tensors, self.origin, self.how):
                table.pop(part, None)
        self.tensors[name], self.origin[name] = tensor, tuple(origin)
        if hows:
            self.how[name] = "; ".join(hows)


def rename(names: Iterable[str], rules: Iterable[tuple[str, str]], source: str) -> dict[str, tuple[str, ...]]:
    """Our name -> (their name,), by regular expressions that are applied one after the other.

    Raises:
        WeightsError: if two of theirs are one of ours.
    """
    rules = list(rules)
    origin: dict[str, tuple[str, ...]] = {}
    for name in names:
        ours = name
        for pattern, new in rules:
            ours = re.sub(pattern, new, ours)
        (other,) = origin.setdefault(ours, (name,))
        if other != name:
            raise WeightsError(f"{source} has one tensor twice, as {other} and as {name}; delete one of them")
    return origin


def factorised_positions(image: ImageModel) -> None:
    """Positions of rows and of columns -> their sums, one a place."""
    if "pos_embed_y" in image.tensors:
        rows, columns = image.tensors["pos_embed_y"][0], image.tensors["pos_embed_x"][0]
        table = rearrange(rows[:, None] + columns, "h w d -> 1 (h w) d")
        image.replace("pos_embed", table, "pos_embed_y", "pos_embed_x", how="rows + columns")


def distillation_token(image: ImageModel) -> None:
    """A distillation token is an extra token like a register: it comes between the class token and the registers."""
    if "dist_token" in image.tensors:
        parts = [name for name in ("dist_token", "reg_tokens") if name in image.tensors]
        tokens = torch.cat([image.tensors[name].flatten(0, -2) for name in parts])
        image.replace("reg_tokens", tokens, *parts)
        image.notes.append("the source has a head for the distillation token, too; ViViT pools the class token alone")


def extra_positions(image: ImageModel) -> None:
    """Split the positions into the grid's own and those of the extra tokens, which are added to the tokens."""
    tensors = image.tensors
    (height, width), (ph, pw) = image.facts["image_size"], image.facts["patch"]
    places = (height // ph) * (width // pw)
    if "cls_token" in tensors:
        image.replace("cls_token", tensors["cls_token"].flatten(), "cls_token")
    if "reg_tokens" in tensors:
        image.replace("reg_tokens", tensors["reg_tokens"].flatten(0, -2), "reg_tokens")
    if "pos_embed" not in tensors:
        return
    positions = tensors["pos_embed"].flatten(0, -2)
    extra = len(positions) - places
    counts = {"cls_token": 1} if "cls_token" in tensors else {}
    if "reg_tokens" in tensors:
        counts["reg_tokens"] = len(tensors["reg_tokens"])
    # Some sources have positions for the class token alone, not for registers.
    have = next((n for n in (0, sum(counts.values()), counts.get("cls_token", 0)) if n == extra), None)
    if have is None:
        raise WeightsError(
            f"{image.source} has {len(positions)} positions for {places} places and {sum(counts.values())} extra tokens"
        )
    at = 0
    for name, count in counts.items():
        if at + count <= have:
            position = positions[at : at + count].reshape(tensors[name].shape)
            if name == "cls_token":
                image.facts["class_position"] = position
            image.origin[name] += image.origin["pos_embed"]
            # In float64: `fill` keeps what the model's own precision rounds away.
            exact = tensors[name].double() + position if name == "cls_token" else tensors[name] + position
            image.replace(name, exact, name, how="token + its position" if count == 1 else "tokens + their positions")
            at += count
    image.replace("pos_embed", positions[have:], "pos_embed")


def grouped_keys(image: ImageModel) -> None:
    """Keys and values that several heads of queries share -> one copy a head."""
    for block in image.blocks:
        q, k = (image.tensors.get(f"{block}attn.{part}.weight") for part in "qk")
        if q is None or k is None or len(q) == len(k):
            continue
        groups = len(q) // len(k)
        size = len(q) // image.facts["num_heads"]
        for name in (f"{block}attn.{part}.{kind}" for part in "kv" for kind in ("weight", "bias")):
            if name in image.tensors:
                copies = repeat(image.tensors[name], "(h d) ... -> (h g d) ...", g=groups, d=size)
                image.replace(name, copies, name, how=f"each head {groups} times")


def join_qkv(image: ImageModel) -> None:
    """Separate queries, keys and values -> one layer; a bias that some of them lack is zero there."""
    for block in image.blocks:
        for kind in ("weight", "bias"):
            parts = [f"{block}attn.{part}.{kind}" for part in "qkv"]
            found = [image.tensors[name] for name in parts if name in image.tensors]
            if not found:
                continue
            if kind == "weight" and len(found) < 3:
                raise WeightsError(f"{image.source} lacks queries, keys or values: {block}attn has {len(found)} of 3")
            how = "" if len(found) == 3 else "zero where the source has no bias"
            zero = torch.zeros_like(found[0])
            joined = torch.cat([image.tensors.get(name, zero) for name in parts])
            image.replace(f"{block}attn.qkv.{kind}", joined, *parts, how=how)


def halves_from_pairs(rows: Tensor, num_heads: int) -> Tensor:
    """Rows of q or k: from rotary pairs (2i, 2i + 1) of channels of each head to (i, i + d/2)."""
    return rearrange(rows, "(h d two) ... -> (h two d) ...", h=num_heads, two=2)


def learned_frequencies(image: ImageModel) -> None:
    """The rotary frequencies (axes, depth, heads, pairs) of all blocks -> those of each block."""
    if "rope.freqs" in image.tensors:
        freqs, origin = image.tensors.pop("rope.freqs"), image.origin.pop("rope.freqs")
        for i, block in enumerate(list(image.blocks)):
            image.tensors[f"{block}attn.rope.freqs"] = freqs[:, i]
            image.origin[f"{block}attn.rope.freqs"] = origin


def rotary_layout(image: ImageModel) -> None:
    """Rotary pairs of neighbours (2i, 2i + 1) -> of halves (i, i + d/2); the pairs of rows before those of columns.

    Both are a permutation within each head of queries and keys.
    """
    interleaved, columns_first = (image.facts.pop(name, False) for name in ("interleaved", "columns_first"))
    if not interleaved and not columns_first:
        return
    learned = image.facts["rope"].learned

    def reorder(x: Tensor, heads: int) -> Tensor:
        x = halves_from_pairs(x, heads) if interleaved else x
        x = rearrange(x, "(h two pair) ... -> h two pair ...", h=heads, two=2)
        if columns_first and not learned:
            x = torch.cat(x.tensor_split(2, dim=2)[::-1], dim=2)
        return rearrange(x, "h two pair ... -> (h two pair) ...")

    for block in image.blocks:
        for kind in ("weight", "bias"):
            name = f"{block}attn.qkv.{kind}"
            if name in image.tensors:
                q, k, v = image.tensors[name].chunk(3)
                qkv = torch.cat([*(reorder(x, image.facts["num_heads"]) for x in (q, k)), v])
                image.replace(name, qkv, name, how="rotary pairs reordered")
            for name in (f"{block}attn.{part}.{kind}" for part in ("q_norm", "k_norm")):
                if name in image.tensors:
                    image.replace(name, reorder(image.tensors[name], 1), name, how="rotary pairs reordered")
        name = f"{block}attn.rope.freqs"
        if name in image.tensors and columns_first:
            image.replace(name, image.tensors[name].flip(0), name)


def relative_positions(image: ImageModel) -> None:
    """Biases of relative positions (offsets, heads), of each block or shared by all -> (heads, offsets) of each."""
    shared, origin = image.tensors.pop("rel_pos", None), image.origin.pop("rel_pos", ())
    for block in list(image.blocks):
        name = f"{block}rel_pos"
        if shared is not None:
            image.tensors[name], image.origin[name] = shared, origin
        if name in image.tensors:
            image.replace(f"{name}.table", image.tensors[name].T, name)


def join_gate(image: ImageModel) -> None:
    """The two first layers of a gated MLP -> one, the gate first; or the one of an MLP without a gate."""
    for block in image.blocks:
        for kind in ("weight", "bias"):
            parts = [f"{block}mlp.{part}.{kind}" for part in ("gate", "up")]
            found = [name for name in parts if name in image.tensors]
            if found:
                image.replace(f"{block}mlp.fc1.{kind}", torch.cat([image.tensors[name] for name in found]), *found)


def layer_scale(image: ImageModel) -> None:
    """LayerScale -> the layer before it, exactly: the rows of its weight and its bias times the scale."""
    for block in image.blocks:
        for scale, layer in (("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")):
            gamma = image.tensors.get(block + scale)
            if gamma is None:
                continue
            origin = image.origin[block + scale]
            for name in (f"{block}{layer}.{kind}" for kind in ("weight", "bias")):
                if name in image.tensors:
                    tensor = image.tensors[name].double()
                    scaled = (tensor * (gamma.double()[:, None] if tensor.ndim == 2 else gamma.double())).float()
                    image.origin[name] += origin
                    image.replace(name, scaled, name, how="times LayerScale")
            for table in (image.tensors, image.origin):
                del table[block + scale]


def pooling_queries(image: ImageModel) -> None:
    """The query, key and value layers of attention pooling, packed in one -> q and kv."""
    for kind in ("weight", "bias"):
        name = f"attn_pool.qkv.{kind}"
        if name in image.tensors:
            q, kv = image.tensors[name].tensor_split([len(image.tensors[name]) // 3])
            origin = image.origin[name]
            image.replace(f"attn_pool.kv.{kind}", kv, name)
            image.tensors[f"attn_pool.q.{kind}"], image.origin[f"attn_pool.q.{kind}"] = q, origin


FOLDS: tuple[Callable[[ImageModel], None], ...] = (
    factorised_positions,
    distillation_token,
    extra_positions,
    grouped_keys,
    join_qkv,
    learned_frequencies,
    rotary_layout,
    relative_positions,
    join_gate,
    layer_scale,
    pooling_queries,
)
