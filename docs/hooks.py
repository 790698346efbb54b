"""For the site: files of the repository that pages link to become pages; marked `python` blocks become plain ones."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# A link from docs to a file outside, which on GitHub leads there.
OUTSIDE = re.compile(r"\]\((?:\.\./)+((?:experiments|tests|vivit_zoo)/[\w/]+\.py)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each source file that a page links to."""
    pages = [file.content_string for file in files.documentation_pages()]
    for path in sorted({path for page in pages for path in OUTSIDE.findall(page)}):
        code = (ROOT / path).read_text(encoding="utf-8")
        content = f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n````python\n{code}````\n"
        files.append(File.generated(config, f"source/{path}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links to those pages; take off what only the tests read."""
    up = "../" * page.file.src_uri.count("/")
    markdown = re.sub("^```python (hub|ecosystem)$", "```python", markdown, flags=re.MULTILINE)
    return OUTSIDE.sub(rf"]({up}source/\1.md)", markdown)
