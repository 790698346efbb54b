"""The dependency rules of the house, read off the source."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import vivit_zoo
from vivit_zoo.encoders import ENCODERS

PACKAGE = Path(vivit_zoo.__file__).parent

CORE = ["attention", "mlp", "blocks", "positions", "tokens", "pooling", "encoders", "config", "model"]
# From the ground up: what a file of the root or a wing may import of ours, besides its own wing.
MAY_IMPORT = {
    "attention": set(),
    "mlp": set(),
    "blocks": {"attention", "mlp", "tokens"},
    "positions": set(),
    "tokens": {"positions"},
    "pooling": {"attention", "blocks", "mlp"},
    "encoders": {"attention", "blocks", "mlp", "pooling", "positions", "tokens"},
    "config": {"blocks", "encoders", "mlp", "positions", "tokens"},
    # The methods that load and save import `weights` when they are called, and only then.
    "model": {"attention", "config", "encoders", "mlp", "pooling", "positions", "system", "tokens", "weights"},
    "flops": set(),
    "hf": {"config", "encoders", "model", "positions"},
    "inference": {"attention", "mlp"},
    "plots": set(),
    "system": set(),
    "weights": {"config", "system", "tokens"},
    "video": {"system"},
    "evaluation": {
        *("datasets", "encoders", "inference", "model", "pooling", "positions", "system", "tokens", "video"),
    },
    "datasets": {"system", "video"},
    "interpret": {
        *("attention", "encoders", "evaluation", "inference", "mlp", "model", "plots", "positions", "system", "video"),
        "pooling",
        "tokens",
    },
    "training": {
        *("attention", "config", "datasets", "evaluation", "flops", "model", "plots", "system", "video", "weights"),
    },
    "studies": {"config", "datasets", "evaluation", "flops", "model", "plots", "system", "training"},
    "bench": {"config", "inference", "flops", "model", "plots", "system", "training", "video"},
    "__main__": {"cli"},
    "cli": {"commands", "scripts", "system"},
    "commands": {
        *("bench", "config", "datasets", "encoders", "evaluation", "flops", "inference", "interpret", "model"),
        *("studies", "system", "video", "weights"),
    },
    "scripts": {"system", "training"},
}
WINGS = sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py"))
FILES = sorted(".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in PACKAGE.rglob("*.py"))
# Names of torch that are private, or that reach into a module's insides.
PRIVATE = re.compile(
    r"torch\.(\w+\.)*_[a-zA-Z]|torch\.ops\.|_forward_(pre_)?hooks|_C\b|forward_ad|register_flop_formula"
)


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


def arrows(name: str) -> set[str]:
    """The files of ours that a file imports: of a wing's front door, the front door."""
    found = set()
    for imported in ours(imports(path(name))):
        while imported and imported not in FILES and f"{imported}.__init__" not in FILES:
            imported = imported.rpartition(".")[0]
        found.add(f"{imported}.__init__" if imported in WINGS else imported)
    return found - {"vivit_zoo", ""}


def path(name: str) -> Path:
    return PACKAGE / f"{name.replace('.', '/')}.py"


def test_every_room_has_a_rule():
    assert {name.split(".")[0] for name in FILES} - {"__init__"} == MAY_IMPORT.keys()


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__"])
def test_each_file_imports_only_what_it_may(name):
    room = name.split(".")[0]
    assert {to.split(".")[0] for to in arrows(name)} <= MAY_IMPORT[room] | {room}


def test_no_circle():
    """Imports inside of functions and for types count, except a front door's own, which wait until they are used."""
    below = {name: arrows(name) for name in FILES if not name.endswith("__init__")}
    done: set[str] = set()
    while ready := [name for name in below.keys() - done if below[name] & below.keys() <= done]:
        done |= set(ready)
    assert below.keys() - done == set()


@pytest.mark.parametrize("wing", WINGS)
def test_a_front_door_names_what_is_public(wing):
    door = import_module(f"vivit_zoo.{wing}")
    for name in getattr(door, "__all__", ()):
        assert not isinstance(getattr(door, name), ModuleType), f"{name} is a file of {wing}, too"
    with pytest.raises(AttributeError, match=f"'vivit_zoo.{wing}' has no attribute 'nothing'"):
        door.nothing  # noqa: B018


@pytest.mark.parametrize("name", CORE)
def test_core_uses_public_torch_only(name):
    assert PRIVATE.search(path(name).read_text()) is None


@pytest.mark.parametrize("name", CORE)
def test_core_needs_torch_and_einops_only(name):
    foreign = {full.split(".")[0] for full in imports(path(name))}
    assert foreign - sys.stdlib_module_names <= {"torch", "einops", "vivit_zoo"}


@pytest.mark.parametrize("name", CORE[:-2])
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
