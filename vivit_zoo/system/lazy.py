"""Packages whose names are imported on first use."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["import_on_use"]


def import_on_use(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Make the `__getattr__` (PEP 562) of a package that imports its public names on first use.

    Args:
        package: name of the package, its `__name__`.
        names: module inside the package -> public names in it.

    Raises:
        AttributeError: from the function that is returned, if no module has the name.
    """
    homes = {name: module for module, defined in names.items() for name in defined}

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return __getattr__
