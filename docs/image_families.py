"""Which of timm's pretrained ViTs can start a ViViT, and what each needs: the table of docs/image-start.md.

Every architecture behind a pretrained tag of timm's ViT-shaped modules is built without values and read as
`init_from_image` reads it. Nothing is downloaded.

    python docs/image_families.py                 # print the table and the refused architectures with their reasons
    python docs/image_families.py --write         # write the table into docs/image-start.md
"""

import argparse
import dataclasses
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm

from vivit_zoo import ViViTConfig
from vivit_zoo.system.markdown import markdown
from vivit_zoo.weights.image import image_checkpoint
from vivit_zoo.weights.report import Checkpoint, WeightsError
from vivit_zoo.weights.timm import build_timm, read_timm

PAGE = Path(__file__).parent / "image-start.md"
MODULES = (
    "vision_transformer", "eva", "deit", "beit", "naflexvit", "vision_transformer_relpos", "vision_transformer_sam",
    "vision_transformer_hybrid",
)  # fmt: skip
# The first that matches names a row of the table; the towers of language models are left out.
FAMILIES = (
    ("", r"qwen|deepseek|gemma"),
    ("DINOv3", r"dinov3"),
    ("DINOv2", r"dinov2"),
    ("DINO", r"\.dino$"),
    ("EVA-02", r"^eva02"),
    ("EVA", r"^eva"),
    ("PE", r"_pe_|\bpe\b"),
    ("SigLIP 1 and 2", r"siglip"),
    ("CLIP, OpenCLIP, MetaCLIP, DFN", r"clip"),
    ("AIMv2", r"aimv2"),
    ("BEiT 1 to 3", r"^beit"),
    ("RADIO", r"radio"),
    ("InternViT", r"intern"),
    ("TIPS", r"tips"),
    ("RoPE-ViT", r"rope"),
    ("Sapiens 2", r"sapiens"),
    ("I-JEPA", r"ijepa"),
    ("MAE", r"mae"),
    ("DeiT and DeiT-3", r"^deit"),
    ("SAM", r"^samvit|_sam"),
    ("ViTs with relative positions alone", r"relpos|_srelpos"),
    ("convolutional stems", r"_r\d+_|_r26|_resnet|_mci_|hybrid"),
    ("FlexiViT", r"^flexivit"),
    ("NaFlex", r"^naflex"),
    ("average pooling, some with registers", r"gap"),
    ("AugReg, ViT and others", r""),
)
# Fields of ViViTConfig that are sizes, or that every start sets.
SIZES = (
    "variant", "num_classes", "num_frames", "image_size", "tubelet_size", "in_chans", "dim", "depth", "num_heads",
    "mlp_ratio", "attn_pool",
)  # fmt: skip
# Options that most families set, and what to call the folds.
COMMON = {"act", "class_token", "global_pool"}
FOLDED = {
    "times LayerScale": "LayerScale",
    "token + its position": "positions of tokens",
    "tokens + their positions": "positions of tokens",
    "rotary pairs reordered": "order of rotary pairs",
    "rows + columns": "positions of rows and columns",
    "each head 2 times": "shared keys",
    "zero: the source has no bias here": "missing biases",
    "zero where the source has no bias": "missing biases",
}


class Row(NamedTuple):
    """An architecture with pretrained tags: its checkpoint without values, or the reason why there is none."""

    arch: str
    tags: list[str]
    checkpoint: Checkpoint | None
    signature: tuple[Any, ...]
    reason: str


def options(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of `ViViTConfig` that differ from the defaults, sizes apart."""
    usual, own = ViViTConfig(), checkpoint.config
    fields = {field.name: getattr(own, field.name) for field in dataclasses.fields(own) if field.name not in SIZES}
    return {name: value for name, value in fields.items() if value != getattr(usual, name)}


def walk() -> Iterator[Row]:
    """Every architecture of timm's with a pretrained tag and the shape of a ViT, language models' towers left out."""
    names = [name for module in MODULES for name in timm.list_models(module=module, pretrained=True)]
    tags: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        if family(name):
            tags.setdefault(name.split(".")[0], []).append(name)
    for arch, mine in tags.items():
        model = build_timm(arch)
        try:
            checkpoint = image_checkpoint(read_timm(model, arch))
        except WeightsError as error:
            reason = re.sub(r"^.*?(cannot start a ViViT: |cannot be a ViViT: |: )", "", str(error))
            yield Row(arch, mine, None, (), reason)
            continue
        shape = {re.sub(r"\d+", "", name) for name in model.state_dict()}
        parts = {type(module).__name__ for module in model.modules()}
        own = options(checkpoint)
        if checkpoint.config.rope is not None:
            own["rope"] = dataclasses.replace(checkpoint.config.rope, reference=None)
        signature = (frozenset(shape), frozenset(parts), checkpoint.pixels is None, str(sorted(own.items())))
        yield Row(arch, mine, checkpoint, signature, "")


def family(tag: str) -> str:
    """The row of the table that a tag belongs to; "" for none."""
    return next(name for name, pattern in FAMILIES if re.search(pattern, tag))


def table(rows: list[Row]) -> str:
    """One line a family: tags accepted, options that they use, what is folded, and what is refused."""
    lines: list[list[str]] = []
    for name in dict.fromkeys(name for name, _ in FAMILIES if name):
        mine = [(row, tag) for row in rows for tag in row.tags if family(tag) == name]
        if not mine:
            continue
        accepted = [(row.checkpoint, tag) for row, tag in mine if row.checkpoint is not None]
        used = {option for checkpoint, _ in accepted for option in options(checkpoint)} - COMMON
        folds = {fold for checkpoint, _ in accepted for how in checkpoint.how.values() for fold in how.split("; ")}
        pixels = sum({*map(float, tag_pixels(tag))} != {0.5} for _, tag in accepted)
        folded = [f"pixels ({pixels})"] if pixels else []
        folded += [FOLDED[fold] for fold in sorted(folds) if fold in FOLDED]
        refused = {re.sub(r" is none of .*$", "", row.reason) for row, _ in mine if row.reason}
        count = f"{len(accepted)}" if len(accepted) == len(mine) else f"{len(accepted)} of {len(mine)}"
        words = [code(used), dict.fromkeys(folded), code(refused)]
        lines.append([name, count, *(", ".join(column) for column in words)])
    titles = ("family", "tags", "options of `ViViTConfig`", "folded", "refused")
    return markdown(dict(zip(titles, map(list, zip(*lines, strict=True)), strict=True)), left=titles)


def code(words: set[str]) -> list[str]:
    """Words in the type of code, in order."""
    return [f"`{word}`" for word in sorted(words)]


def tag_pixels(tag: str) -> tuple[float, ...]:
    """Mean and standard deviation of a pretrained tag, one number after the other."""
    known = timm.get_pretrained_cfg(tag)
    assert known is not None
    return (*known.mean, *known.std)


def main() -> int:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = list(walk())
    tags = sum(len(row.tags) for row in rows)
    accepted = sum(len(row.tags) for row in rows if row.checkpoint is not None)
    total = f"{accepted} of the {tags} pretrained tags ({100 * accepted / tags:.1f} %) of timm {timm.__version__}"
    text = f"{total}:\n\n{table(rows)}"
    if args.write:
        page = PAGE.read_text(encoding="utf-8")
        start, end = "<!-- families -->\n", "<!-- /families -->"
        before, rest = page.split(start)
        PAGE.write_text(f"{before}{start}\n{text}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")
    else:
        print(text)
        print(f"\nsignatures: {len({row.signature for row in rows if row.checkpoint})}\n\nrefused:")
        for row in rows:
            if row.reason:
                print(f"  {row.arch} ({len(row.tags)}): {row.reason}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
