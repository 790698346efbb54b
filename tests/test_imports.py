"""The dependency rules of the house, read off the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vivit_zoo
from vivit_zoo.encoders import ENCODERS

PACKAGE = Path(vivit_zoo.__file__).parent

WEIGHTS = {f"weights.{file.stem}" for file in (PACKAGE / "weights").glob("[!_]*.py")}
CORE = ["attention", "blocks", "tokens", "encoders", "model"]
MAY_IMPORT_OF_OURS = {
    "attention": set(),
    "blocks": {"attention"},
    "tokens": set(),
    "encoders": {"attention", "blocks", "tokens"},
    # The methods that load and save import `weights` when they are called, and only then.
    "model": {"blocks", "tokens", "encoders", "weights", "weights.report"},
    "maps": {"attention", "blocks", "encoders", "model"},
    "__init__": {"model", "weights"},  # the second only when it is asked for
    "flops": set(),
    "paper": set(),
    "plots": {"tables"},
    "tables": set(),
    "speed": {"checkpoint", "vivit_zoo"},  # the second for `plots`, where pictures are drawn
    "bench": {"flops", "machine", "speed", "workers"},
    "peers": {"bench", "model"},
    "preprocess": set(),
    "augment": {"preprocess"},
    "mixing": set(),
    "scores": set(),
    "evaluate": {"scores"},
    "video": {"video_pyav", "video_source", "video_torchcodec"},
    "video_source": set(),
    "video_pyav": {"video_source"},
    "video_torchcodec": {"video_pyav", "video_source"},
    "workers": set(),
    "server": set(),  # by the server of `workers`, which names it in a list
    "clips": {"preprocess", "video"},
    "datasets.__init__": {f"datasets.{name}" for name in ("catalogue", "check", "config", "digits", "videos")},
    "datasets.digits": {"datasets.catalogue", "datasets.formats", "datasets.sources"},
    "datasets.sources": {"video"},
    "datasets.shards": {"datasets.sources"},
    "datasets.formats": {"datasets.shards", "datasets.sources"},
    "datasets.catalogue": {"datasets.formats", "datasets.shards", "datasets.sources"},
    "datasets.videos": {"clips", "datasets.catalogue", "datasets.formats", "datasets.sources", "preprocess", "video"},
    "datasets.check": {"datasets.catalogue", "datasets.sources", "datasets.videos", "video", "workers"},
    "datasets.config": {"augment", "clips", *(f"datasets.{name}" for name in ("catalogue", "digits", "videos"))},
    "loading": {"preprocess", "video", "workers"},
    "checkpoint": set(),
    "machine": set(),
    "optim": set(),
    "signals": set(),
    "distributed": {"optim"},
    "train": {
        *("checkpoint", "datasets", "distributed", "evaluate", "loading", "machine", "mixing", "model", "optim"),
        *("scores", "signals", "weights", "weights.resize", "weights.start"),
    },
    "classify": {"clips", "evaluate", "model", "preprocess", "video"},
    "attend": {"classify", "clips", "maps", "model", "preprocess", "tokens", "video", "vivit_zoo"},
    "cli": {
        *(
            "attend",
            "bench",
            "classify",
            "clips",
            "datasets",
            "encoders",
            "flops",
            "model",
            "paper",
            "peers",
            "preprocess",
        ),
        "vivit_zoo",
    },
    "cells": {"checkpoint", "datasets", "evaluate", "flops", "machine", "model", "train"},
    "launch": {"workers"},
    "slurm": {"launch"},
    "command": {"checkpoint", "flops", "machine", "model", "plots", "scores", "train", "vivit_zoo", "weights"},
    "ablation": {
        *("cells", "checkpoint", "command", "datasets", "launch", "plots", "slurm", "tables", "train", "vivit_zoo"),
    },
}


def imports(file: Path, top_level_only: bool = False) -> set[str]:
    """Absolute names of everything that a file imports."""
    tree = ast.parse(file.read_text())
    names = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively"
            names.add(node.module)
    return names


def ours(names: set[str]) -> set[str]:
    return {name.removeprefix("vivit_zoo").removeprefix(".") or "vivit_zoo" for name in names if "vivit_zoo" in name}


def test_every_file_has_a_rule():
    files = [*PACKAGE.glob("*.py"), *PACKAGE.glob("datasets/*.py")]
    assert {".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files} == MAY_IMPORT_OF_OURS.keys()


def test_weights_know_the_model_and_no_training():
    for name in WEIGHTS:
        assert ours(imports(PACKAGE / f"{name.replace('.', '/')}.py")) <= WEIGHTS | {"model", "tokens", "vivit_zoo"}


@pytest.mark.parametrize("name", MAY_IMPORT_OF_OURS)
def test_each_file_imports_only_what_it_may(name):
    assert ours(imports(PACKAGE / f"{name.replace('.', '/')}.py")) <= MAY_IMPORT_OF_OURS[name]


@pytest.mark.parametrize("name", CORE)
def test_core_needs_torch_and_einops_only(name):
    foreign = {full.split(".")[0] for full in imports(PACKAGE / f"{name}.py")}
    assert foreign - sys.stdlib_module_names <= {"torch", "einops", "vivit_zoo"}


@pytest.mark.parametrize("name", CORE[:-1])
def test_blocks_never_see_a_configuration(name):
    assert "Config" not in (PACKAGE / f"{name}.py").read_text()


def test_variants_are_told_apart_in_one_place():
    """Nothing is compared with a variant's name; `ENCODERS` is the only table of them."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare | ast.Match):
                literals = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not literals & ENCODERS.keys(), f"{file.name}: {ast.unparse(node)}"


def test_weights_are_offered_at_the_top():
    from vivit_zoo.weights import init_from_image

    assert vivit_zoo.init_from_image is init_from_image
    with pytest.raises(AttributeError, match="no attribute 'init_from_video'"):
        getattr(vivit_zoo, "init_from_" + "video")


def test_library_never_imports_experiments():
    for file in PACKAGE.rglob("*.py"):
        assert not any(name.startswith("experiments") for name in imports(file)), file.name


def test_importing_the_package_loads_nothing_heavy():
    heavy = [
        "timm",
        "msgpack",
        "safetensors",
        "huggingface_hub",
        "torchvision",
        "transformers",
        "vit_pytorch",
        "matplotlib",
        "accelerate",
        "av",
        "torchcodec",
        "submitit",
        "sklearn",
        "jsonargparse",
    ]
    code = f"import sys, vivit_zoo; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
