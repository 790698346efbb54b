"""The code blocks of the README and the docs run, and the README's commands are the ones that CI runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in PAGES
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_block_runs(block):
    exec(compile(block, "block", "exec"), {})


def test_blocks_were_found():
    assert len(BLOCKS) >= 4


def test_links_to_files_exist():
    for page in PAGES:
        for link in re.findall(r"\]\(\s*([^)#\s]+)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_readme_shows_the_table_that_the_experiment_wrote():
    assert (ROOT / "docs/results/variants/table.md").read_text().strip() in (ROOT / "README.md").read_text()
