"""Which optional dependency brings a module that is not installed."""

import re
from importlib.metadata import PackageNotFoundError, requires

__all__ = ["install_advice"]

# Where the name of a module is not that of its distribution on the package index.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "huggingface_hub": "huggingface-hub"}


def install_advice(error: ModuleNotFoundError) -> str:
    """A line for a module that cannot be found, with the command that installs it.

    The extra is read from this package's own metadata: the first one that requires the module's distribution.
    """
    module = (error.name or "").partition(".")[0]
    if not module:
        return str(error)
    name = DISTRIBUTIONS.get(module, module).replace("_", "-")
    try:
        requirements = requires("vivit-zoo") or []
    except PackageNotFoundError:  # run from the source, never installed
        requirements = []
    for requirement in requirements:
        wanted = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if wanted and extra and wanted[0].replace("_", "-").lower() == name.lower():
            return f"{module} is not installed; this needs it: pip install 'vivit-zoo[{extra[1]}]'"
    return f"{module} is not installed; this needs it: pip install {name}"
