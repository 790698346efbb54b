"""`vivit-zoo train` and `vivit-zoo study`: run the scripts of experiments/, from a clone or an installed wheel.

The scripts are run as files, as `python experiments/variants.py` would; the library never imports them.
"""

import ast
import runpy
import sys
from pathlib import Path

from vivit_zoo.system.program import PROGRAM
from vivit_zoo.training.help import STUDY_HELP, TRAIN_HELP

__all__ = ["experiments_folder", "run_recipe", "run_study"]

DEFAULT_RECIPE = "own_videos"


def experiments_folder() -> Path:
    """Where the scripts are: in the package of a wheel, beside it in a clone or an editable installation.

    Raises:
        FileNotFoundError: if they are in neither place.
    """
    package = Path(__file__).parent
    for folder in (package / "experiments", package.parent / "experiments"):
        if (folder / "variants.py").is_file():
            return folder
    raise FileNotFoundError(f"this installation has no experiments/: looked in {package} and beside it")


def run_recipe(arguments: list[str]) -> int:
    """`vivit-zoo train [RECIPE] [options]`: a script of experiments/recipes."""
    recipes = _scripts(experiments_folder() / "recipes", "train_from_command_line(")
    name, rest = DEFAULT_RECIPE, arguments
    if arguments and not arguments[0].startswith("-"):
        name, rest = arguments[0], arguments[1:]
    if name not in recipes:
        raise ValueError(f"there is no recipe {name!r}; choose from {', '.join(recipes)}")
    if _asks_for_help(rest):
        text = _as_commands(_docstring(recipes[name]), f"experiments/recipes/{name}.py", f"train {name}")
        print(f"usage: vivit-zoo train [RECIPE] [options]\n\nRecipe {name}: {text}\n\n{TRAIN_HELP}")
        print(f"\nRecipes: {', '.join(recipes)}. Without a name: {DEFAULT_RECIPE}.")
        return 0
    return _run(recipes[name], rest, f"vivit-zoo train {name}" if arguments[:1] == [name] else "vivit-zoo train")


def run_study(arguments: list[str]) -> int:
    """`vivit-zoo study [NAME] [options]`: a study of experiments/; without a name, the list of them."""
    studies = _scripts(experiments_folder(), "run_from_command_line(")
    if not arguments or (arguments[0].startswith("-") and _asks_for_help(arguments[:1])):
        width = max(map(len, studies))
        lines = [f"  {name:<{width}}  {_docstring(file).splitlines()[0]}" for name, file in studies.items()]
        print("usage: vivit-zoo study NAME [options]\n\nStudies:", *lines, "", STUDY_HELP, sep="\n")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in studies:
        raise ValueError(f"there is no study {name!r}; choose from {', '.join(studies)}")
    if _asks_for_help(rest):
        text = _as_commands(_docstring(studies[name]), f"experiments/{name}.py", f"study {name}")
        print(f"usage: vivit-zoo study {name} [options]\n\n{text}\n\n{STUDY_HELP}")
        return 0
    return _run(studies[name], rest, f"vivit-zoo study {name}")


def _scripts(folder: Path, call: str) -> dict[str, Path]:
    """The scripts that make a call, by name."""
    files = sorted(folder.glob("*.py"))
    return {file.stem: file for file in files if call in file.read_text(encoding="utf-8")}


def _asks_for_help(arguments: list[str]) -> bool:
    return any(argument in ("-h", "--help") for argument in arguments)


def _docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def _as_commands(text: str, script: str, command: str) -> str:
    """A docstring with the commands as they are called where there is no folder experiments/."""
    return text.replace(f"python {script}", f"vivit-zoo {command}").replace(script, f"-m vivit_zoo {command}")


def _run(file: Path, arguments: list[str], program: str) -> int:
    """Run a script as the main program, with the name of the command for its messages; it ends with `sys.exit`."""
    sys.argv = [str(file), *arguments]
    sys.path.insert(0, str(file.parent))  # as Python does, so that scripts of one folder can import each other
    try:
        runpy.run_path(str(file), init_globals={PROGRAM: program}, run_name="__main__")
    except SystemExit as done:
        if isinstance(done.code, str):
            print(done.code, file=sys.stderr)
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    finally:
        sys.path.remove(str(file.parent))
    return 0
