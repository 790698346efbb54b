"""Compare the built wheel and source distribution with the tracked files: `python .ci/check_dist.py dist`."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

NOT_IN_SDIST = (".ci/", ".gitignore")


def main(folder: Path) -> None:
    """Exit with the names of files that are missing or that should not be there."""
    tracked = set(subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines())
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name for name in tracked if name.startswith("vivit_zoo/")}
    expected |= {f"vivit_zoo/{name}" for name in tracked if name.startswith("experiments/")}
    _compare(wheel.name, packed, expected)
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {name for name in packed if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    _compare(sdist.name, packed - made, {name for name in tracked if not name.startswith(NOT_IN_SDIST)})


def _compare(name: str, packed: set[str], expected: set[str]) -> None:
    missing, extra = sorted(expected - packed), sorted(packed - expected)
    if missing or extra:
        sys.exit(f"{name}: missing {missing}, not expected {extra}")
    print(f"{name}: {len(packed)} files, as in git")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
