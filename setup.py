"""Puts experiments/ into the wheel, for `vivit-zoo study` and `vivit-zoo train`; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExperiments(build_py):
    """Copy experiments/ into the package, except in an editable installation, which has the folder itself."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for file in sorted(Path("experiments").rglob("*.py")):
            target = Path(self.build_lib, "vivit_zoo", file)
            self.mkpath(str(target.parent))
            self.copy_file(str(file), str(target))


setup(cmdclass={"build_py": BuildWithExperiments})
