"""The code blocks of the README and the docs run, their links lead somewhere, their numbers are the scripts'."""

import importlib
import re
import runpy
from pathlib import Path
from textwrap import dedent, indent

import pytest

from vivit_zoo.encoders import ENCODERS
from vivit_zoo.weights import WeightsError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# ```python blocks run; ```python hub needs the network, ```python ecosystem the extra of that name. ```py blocks need
# data or files; ```py title="file" shows what that file says.
FENCE = re.compile(r"^```python(?: (hub|ecosystem))?\n(.*?)^```", re.DOTALL | re.MULTILINE)
SOURCE = re.compile(r'^```py title="([^"]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)
MARKS = {
    "": [],
    "hub": [pytest.mark.hub],
    "ecosystem": [pytest.mark.ecosystem, pytest.mark.filterwarnings("ignore")],  # other libraries' own
}
BLOCKS = [
    pytest.param(code, id=f"{page.name}-{i}", marks=MARKS[mark])
    for page in PAGES
    for i, (mark, code) in enumerate(FENCE.findall(page.read_text()))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_block_runs(block, request):
    try:
        exec(compile(block, "block", "exec"), {"__name__": "block"})
    except ModuleNotFoundError as error:
        if request.node.get_closest_marker("ecosystem") is None:
            raise
        pytest.skip(f"{error}; pip install 'vivit-zoo[ecosystem]'")
    except WeightsError as error:
        if "cannot be reached" not in str(error):
            raise
        pytest.skip(str(error))


def test_blocks_were_found():
    assert len(BLOCKS) >= 25


def test_blocks_that_do_not_run_are_python():
    for page in PAGES:
        for code in re.findall(r"^```py\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            compile(code, page.name, "exec")


def test_shown_source_is_the_source():
    shown = [(page, file, code) for page in PAGES for file, code in SOURCE.findall(page.read_text())]
    assert len(shown) >= 6
    for page, file, code in shown:
        text = (ROOT / file).read_text()
        deep = [indent(dedent(code), " " * depth) for depth in range(0, 16, 4)]
        assert any(f"\n{one}" in text for one in deep), f"{page.name} shows what {file} no longer says:\n{code}"


def test_fences_are_of_known_kinds():
    """Else a block with a slip in its first line would be neither run nor looked at."""
    kinds = {"", "py", "python", "python hub", "python ecosystem", "sh"}
    for page in PAGES:
        for kind in re.findall(r"^```(.*)\n(?:.*\n)*?```$", page.read_text(), re.MULTILINE):
            assert kind in kinds or SOURCE.match(f"```{kind}\n```"), f"{page.name}: ```{kind}"


def test_links_to_files_exist():
    for page in PAGES:
        for link in re.findall(r"\]\(\s*([^)#\s]+)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_readme_shows_the_table_that_the_experiment_wrote():
    assert (ROOT / "docs/results/variants/table.md").read_text().strip() in (ROOT / "README.md").read_text()


def test_the_page_on_attention_shows_the_table_that_the_experiment_wrote():
    table = (ROOT / "docs/results/attention/preference.md").read_text().strip()
    assert table in (ROOT / "docs/attention.md").read_text()


def test_the_page_on_export_shows_the_table_that_the_experiment_wrote():
    table = (ROOT / "docs/benchmarks/export/table.md").read_text().strip()
    assert table in (ROOT / "docs/export.md").read_text()


def test_every_page_has_its_place_in_the_site():
    named = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[2:]}
    assert named == {page for page in pages if not re.match("(results|benchmarks)/.*/", page)}


def test_the_first_page_leads_to_every_other():
    first = (ROOT / "docs" / "index.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert not {page for page in pages if f"]({page})" not in first}


def test_every_module_has_an_api_page():
    shown = {
        name for page in PAGES for name in re.findall(r"^::: vivit_zoo\.([\w.]+)$", page.read_text(), re.MULTILINE)
    }
    modules = {
        ".".join(file.relative_to(ROOT / "vivit_zoo").with_suffix("").parts)
        for file in (ROOT / "vivit_zoo").rglob("[!_]*.py")
        if re.search("^__all__", file.read_text(), re.MULTILINE)
    }
    inside = {
        *(
            "cli",
            "commands",
            "plots",
            "scripts",
            "training.help",
            "training.trackers",
            "video.pyav",
            "video.torchcodec",
        ),
        *(
            "evaluation.feature_jobs",
            "system.batches",
            "system.extras",
            "system.lazy",
            "system.markdown",
            "system.pipes",
            "system.program",
            "system.server",
        ),
        *(f"datasets.{name}" for name in ("folders", "formats", "listing", "published", "shards", "sources")),
        *(f"weights.{name}" for name in ("files", "flax", "folds", "hub", "hugging_face", "names", "npz", "original")),
        *(f"weights.{name}" for name in ("state_dicts", "timm", "torchvision", "transformers")),
        *(
            f"weights.{name}"
            for name in ("family", "timesformer", "videomae", "videoprism", "vivit", "vjepa2", "videoprism_npz")
        ),
        *("weights.videoprism_tower", "weights.rules"),
    }
    assert shown == modules - inside


def test_pictures_of_the_variants_show_what_the_pages_say():
    """Each panel's title: the module that attends, the heads, how much of the grid of 4 x (3·3) a token sees."""
    script = runpy.run_path(str(ROOT / "docs" / "draw_variants.py"))
    titles = {variant: [title for title, *_ in script["panels"](variant)] for variant in ENCODERS}
    assert titles == {
        "joint": ["blocks.0.attn\nsees 37 of 37"],
        "factorised_encoder": ["spatial.blocks.0.attn\nsees 10 of 40", "temporal.blocks.0.attn\nsees 5 of 5"],
        "factorised_self_attention": ["blocks.0.attn\nsees 9 of 36", "blocks.0.attn_time\nsees 4 of 36"],
        "factorised_dot_product": ["blocks.0.attn, heads 1-2\nsees 4 of 36", "blocks.0.attn, heads 3-4\nsees 9 of 36"],
    }


def test_performance_page_shows_the_tables_that_the_benchmark_wrote(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    benchmark = importlib.import_module("benchmark")
    text = benchmark.PAGE.read_text()
    parts = sorted({path.parent.name for path in benchmark.RESULTS.glob("*/table.md")} - {"export"})  # see its page
    assert len(parts) >= 3
    for part in parts:
        assert f"<!-- results: docs/benchmarks/{part} -->" in text
        assert (benchmark.RESULTS / part / "table.md").read_text().strip() in text
    assert benchmark.page(text) == text, "run python experiments/benchmark.py page"
    assert benchmark.page(text.replace("|", "")) != text.replace("|", "")
