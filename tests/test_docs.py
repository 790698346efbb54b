"""The code blocks of the README and the docs run, their links lead somewhere, their numbers are the scripts'."""

import importlib
import re
from pathlib import Path

import pytest

from vivit_zoo.weights import WeightsError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A block that begins with ```python hub needs the network.
FENCE = re.compile(r"^```python( hub)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(code, id=f"{page.name}-{i}", marks=[pytest.mark.hub] if hub else [])
    for page in PAGES
    for i, (hub, code) in enumerate(FENCE.findall(page.read_text()))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_block_runs(block):
    try:
        exec(compile(block, "block", "exec"), {})
    except WeightsError as error:
        if "cannot be reached" not in str(error):
            raise
        pytest.skip(str(error))


def test_blocks_were_found():
    assert len(BLOCKS) >= 4


def test_links_to_files_exist():
    for page in PAGES:
        for link in re.findall(r"\]\(\s*([^)#\s]+)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_readme_shows_the_table_that_the_experiment_wrote():
    assert (ROOT / "docs/results/variants/table.md").read_text().strip() in (ROOT / "README.md").read_text()


def test_performance_page_shows_the_tables_that_the_benchmark_wrote(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    benchmark = importlib.import_module("benchmark")
    text = benchmark.PAGE.read_text()
    parts = sorted(path.parent.name for path in benchmark.RESULTS.glob("*/table.md"))
    assert len(parts) >= 3
    for part in parts:
        assert f"<!-- results: docs/benchmarks/{part} -->" in text
        assert (benchmark.RESULTS / part / "table.md").read_text().strip() in text
    assert benchmark.page(text) == text, "run python experiments/benchmark.py page"
    assert benchmark.page(text.replace("|", "")) != text.replace("|", "")
