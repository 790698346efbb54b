"""Writes docs/results.md from what the studies found, and their tables wherever a page shows them.

    python experiments/table.py    # takes what is new in runs/, and rebuilds the page from docs/results/

Each study has a folder docs/results/{study} with its results, seed by seed, its table and a picture; the page shows the
study's own docstring with them, and first what became of the paper's findings.
"""

import argparse
import ast
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vivit_zoo.studies.tables import Row, difference, interval, markdown, note, read_rows, study_table, with_interval

MARGIN = 5.0  # percent, within which two accuracies are called equal
PACED = ("from_disk",)  # where the pace is the question
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
FILES = sorted(ROOT.glob("experiments/*.py"))
STUDIES = [file.stem for file in FILES if f'settings, out="runs/{file.stem}"))' in file.read_text()]


@dataclass(frozen=True)
class Finding:
    """What the paper found: one setting against another.

    Args:
        claim: in words.
        paper: the numbers there, or where they are shown.
        study: ours.
        settings: the names of the two rows.
        better: whether the first is to be better, or else equal.
        head: whose accuracy is compared; all heads' together by default.
    """

    claim: str
    paper: str
    study: str
    settings: tuple[str, str]
    better: bool = True
    head: str = ""


CONTROL = "single frame (control)"
JOINT, MODEL_2 = "joint (Model 1)", "factorised encoder (Model 2)"
FINDINGS = (
    Finding(
        "a temporal encoder beats the average over frames",
        "Table 2: 78.8, 75.8",
        "variants",
        (MODEL_2, "average pool (baseline)"),
    ),
    Finding(
        "joint attention beats the factorised encoder on much data", "Table 2: 80.0, 78.8", "variants", (JOINT, MODEL_2)
    ),
    Finding(
        "the first temporal layer brings most",
        "Table 3: 78.6, 75.8",
        "temporal_depth",
        ("1 temporal layers", "0 temporal layers"),
    ),
    Finding(
        "four temporal layers bring hardly more than one",
        "Table 3: 78.8, 78.6",
        "temporal_depth",
        ("4 temporal layers", "1 temporal layers"),
        better=False,
    ),
    Finding(
        "tubelets from the central frame beat random ones: numbers",
        "Table 1: 79.2, 73.2",
        "input_encoding",
        ("tubelets, central_frame", "tubelets, random"),
        head="number",
    ),
    Finding(
        "tubelets from the central frame beat filter inflation: numbers",
        "Table 1: 79.2, 77.6",
        "input_encoding",
        ("tubelets, central_frame", "tubelets, filter_inflation"),
        head="number",
    ),
    Finding(
        "tubelets from the central frame beat uniform frame sampling: numbers",
        "Table 1: 79.2, 78.5",
        "input_encoding",
        ("tubelets, central_frame", "uniform frame sampling"),
        head="number",
    ),
    Finding(
        "shorter tubelets are better (2 frames, 4)",
        "Figure 8",
        "tubelet_length",
        ("tubelets of 2", "tubelets of 4"),
    ),
    Finding(
        "shorter tubelets are better (4 frames, 8)",
        "Figure 8",
        "tubelet_length",
        ("tubelets of 4", "tubelets of 8"),
    ),
    Finding(
        "the order within Model 3 makes no difference",
        "section 3.3",
        "block_order",
        ("space, then time", "time, then space"),
        better=False,
    ),
    Finding(
        "larger frames are better: numbers",
        "Table 5: 81.0, 80.3",
        "resolution",
        ("48 pixels", "32 pixels"),
        head="number",
    ),
    Finding("a larger model is better", "Figure 7", "model_size", ("width 108, depth 3", "width 72, depth 3")),
    Finding(
        "regularisation helps on little data",
        "Table 4: 43.7, 38.4",
        "regularisation",
        ("+ mixup 0.1", "+ colour jitter"),
    ),
    Finding(
        "an image start helps: what a still image shows",
        "section 3.4",
        "image_start",
        ("image model, central frame", "random weights"),
        head="number",
    ),
    Finding(
        "an image start helps: number and order together",
        "section 3.4",
        "image_start",
        ("image model, central frame", "random weights"),
    ),
    Finding(
        "views make up for frames",
        "Figure 9",
        "frames_and_views",
        ("4 frames, 4 views", "16 frames, 1 views"),
        better=False,
    ),
)


INTRODUCTION = """\
# Results

Written by `experiments/table.py` from what the studies have left in `docs/results/`, each by the command above its
table. All of them, and this page, with the runs that several studies need done once:

```sh
{commands}
python experiments/table.py
```"""
READING = """\
Accuracies are of new clips, in percent: the mean over the seeds and its 95 % interval (Student's t). Differences are
from the first row, seed by seed; bold are those whose interval leaves out zero. *Frames shuffled* and *halves swapped*
are the controls: a model that sees time falls to a bag's accuracy, 50, or below when the frames are shuffled, and
answers with the reversed order when the halves are swapped. What one frame (16.7) and an unordered bag of tubelets (50)
can tell is known by construction, see `MovingDigits`; it is the ceiling in the tables. The model of a single frame is
the same in all of them. Among so many comparisons some intervals leave out zero by chance: believe those that are far
from it.

## What became of the paper's findings

On MovingDigits, with small models and few steps: what holds on Kinetics need not hold here. A finding is confirmed or
refuted where the interval of the difference leaves out zero; that two are equal, where it lies within 5 of zero."""


def collect(runs: Path) -> None:
    """Take over what studies have written into `runs`."""
    for study in STUDIES:
        pictures = ["accuracies.png", *(["accuracy_vs_gmacs.png", "clips.png"] if study == "variants" else [])]
        for name in ("results.json", *pictures):
            if (file := runs / study / name).exists():
                (RESULTS / study).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, RESULTS / study / name)


def read_studies() -> dict[str, Sequence[Row]]:
    """The results that are there, by study."""
    files = {study: RESULTS / study / "results.json" for study in STUDIES}
    return {study: read_rows(file) for study, file in files.items() if file.exists()}


def findings(studies: dict[str, Sequence[Row]]) -> str:
    """The table of what became of the paper's findings; those of studies without results are left out."""
    columns: dict[str, list[str]] = {"the paper's finding": [], "paper": [], "difference here": [], "verdict": []}
    for finding in FINDINGS:
        rows = {row.name: row for row in studies.get(finding.study, ())}
        if not rows:
            continue
        if gone := [name for name in finding.settings if name not in rows]:
            raise ValueError(f"the study {finding.study} has no row {gone[0]!r}; it has {', '.join(rows)}")
        one, other = (rows[name] for name in finding.settings)
        values = difference(one, other, *(("head_accuracy", finding.head) if finding.head else ("accuracy",)))
        text = with_interval(values, "+")
        cells = [
            f"{finding.claim} ([{finding.study}](#{finding.study}))",
            finding.paper,
            text,
            verdict(values, finding.better),
        ]
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return markdown(columns, left=tuple(columns))


def verdict(differences: Sequence[float], better: bool) -> str:
    """By the 95 % interval of the differences, in percent: whether it leaves out zero, and on which side.

    That two are equal is confirmed if the whole interval lies within `MARGIN` of zero.
    """
    if len(differences) < 2:
        return "one seed tells nothing" if differences else "no results"
    middle, half = interval(differences)
    if not better and abs(middle) + half <= MARGIN:
        return "confirmed"
    if abs(middle) <= half:
        return "within the noise"
    return "confirmed" if better and middle > 0 else "refuted"


def with_control(study: str, studies: dict[str, Sequence[Row]]) -> list[Row]:
    """A study's rows, and the model of a single frame below them where the order of the motions is the question."""
    rows = list(studies[study])
    if any(row.values("reversed_when_swapped") for row in rows):
        rows += [row for row in studies.get("variants", ()) if row.name == CONTROL and study != "variants"]
    return rows


def page(studies: dict[str, Sequence[Row]]) -> str:
    """The whole page."""
    cells = {result["cell"]: result for rows in studies.values() for row in rows for result in row.results.values()}
    hours = sum(result["core_seconds"] for result in cells.values()) / 3600
    machines = sorted({result["machine"] for result in cells.values()})
    commands = [
        f"python experiments/{study}.py --seeds {max(len(row.results) for row in rows)} --jobs 2 --cells runs/cells"
        for study, rows in studies.items()
    ]
    parts = [
        INTRODUCTION.format(commands="\n".join(commands)),
        f"{len(cells)} runs, {hours:.1f} hours of one core in all, on {'; '.join(machines)}.",
        READING,
        findings(studies),
    ]
    for study in studies:
        doc = ast.get_docstring(ast.parse((Path(__file__).parent / f"{study}.py").read_text())) or ""
        question, _, body = doc.partition("\n")
        parts += [
            f'<a id="{study}"></a>',
            f"## {question}",
            body.strip("\n"),
            study_table(with_control(study, studies), pace=study in PACED),
            f"![Accuracy of each setting](results/{study}/accuracies.png)",
        ]
    return "\n\n".join(parts) + "\n"


def with_tables(text: str) -> str:
    """A page with what its marks name, such as `<!-- results: docs/results/variants/table.md -->`, as it is now."""
    return re.sub(
        r"(<!-- results: (docs/results/\S+) -->\n).*?(\n<!-- end of results -->)",
        lambda found: found[1] + (ROOT / found[2]).read_text().strip() + found[3],
        text,
        flags=re.DOTALL,
    )


def main() -> None:
    """Collect and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the studies' folders are (runs)")
    options = parser.parse_args()
    collect(options.runs)
    studies = read_studies()
    if not studies:
        parser.error(f"no study has a results.json, neither in {options.runs} nor in {RESULTS}; run one, see --help")
    for study, rows in studies.items():
        text = f"{study_table(rows, pace=study in PACED)}\n\n{note(rows)}\n"
        (RESULTS / study / "table.md").write_text(text)
    (ROOT / "docs/results.md").write_text(page(studies))
    for file in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        file.write_text(with_tables(file.read_text()))
    print(f"docs/results.md: {len(studies)} of {len(STUDIES)} studies")


if __name__ == "__main__":
    main()
