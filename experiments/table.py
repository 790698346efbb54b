"""Write docs/results.md from the results of the studies, and their tables wherever a page shows them.

    python experiments/table.py          # takes new results from runs/ and rebuilds the page from docs/results/
    python experiments/table.py --run    # first runs all studies, hours on one core; a second call resumes

A study runs with the last command of its docstring, and shares its cells with the others. Each has a folder
docs/results/{study} with its results by seed, its table and pictures. Results in runs/ of fewer runs than those that
are there, such as of a first try with one seed, are left out. The page first lists what the studies say about each of
the paper's findings, then each study with its docstring.
"""

import argparse
import ast
import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from findings import FINDINGS, Finding

from vivit_zoo.studies import pictures
from vivit_zoo.studies.comparisons import Comparison, Design, Row, compare, read_results
from vivit_zoo.studies.statistics import ALPHA, holm
from vivit_zoo.studies.tables import decision_text, markdown, note, study_table
from vivit_zoo.system.pipes import exit_if_pipe_closes

PACED = ("from_disk",)  # where the pace is the question
PROBED = ("frozen_order",)  # whose fits are no runs of training
# Pictures of the runs themselves that are kept, beside those that are drawn from the results.
SHOWN = {
    "variants": ["clips.png"],
    "learning_speed": ["curves.png"],
    "hidden_object": ["clips.png", "curves.png"],
    "counted_turns": ["clips.png", "curves.png"],
}
TITLES = {"clips.png": "A clip of each class", "curves.png": "Learning curves, median and range of the seeds"}
EXPERIMENTS = Path(__file__).parent
ROOT = EXPERIMENTS.parent
RESULTS = ROOT / "docs" / "results"
FILES = sorted(EXPERIMENTS.glob("*.py"))
STUDY = r'(settings|rows), out="runs/{}"(?!, finish)'
STUDIES = [file.stem for file in FILES if re.search(STUDY.format(file.stem), file.read_text(encoding="utf-8"))]

Studies = dict[str, tuple[Sequence[Row], Design]]


INTRODUCTION = """\
# Results

Written by `experiments/table.py` from the results of the studies in `docs/results/`. One command runs all of them and
rebuilds this page. It resumes if it was stopped, and runs that several studies need are run once:

```sh
python experiments/table.py --run
```"""
READING = """\
Accuracies are of new clips, in percent: the mean over the seeds and its 95 % interval (Student's t). Differences are
from the first row, seed by seed, and bold if their interval excludes zero. *Decision* says what the interval decides:
away from zero, equal within a margin, or open, with the number of seeds that would decide it if mean and spread stay as
they are. Some studies measure the clips that training takes to reach an accuracy: then means are geometric, differences
are ratios, and a run that does not get there counts as if it did at its end. *GMACs to 90 %* are the same as
computation: those of a forward pass of each clip, times three for training. If seeds were added until differences were
decided (`--seeds auto`), the intervals of the differences allow for that, and hold for all of a study together; see
[own-study.md](own-study.md).

*Frames shuffled* and *halves swapped* are controls: a model that uses time falls to the accuracy of a bag of
frames (50) or below when the frames are shuffled, and answers with the reversed order when the halves are swapped. The
ceilings in the tables, such as that of one frame (16.7) and of an unordered bag of tubelets (50), are known by
construction, see `MovingDigits`, `HiddenDigits` and `TurningDigits`.

## The paper's findings

On embedded tasks, with small models: a finding about Kinetics need not hold here. A claim that one setting is better is
confirmed or refuted if the interval of the difference excludes zero; a claim that two are equal is confirmed if the
interval is within the margin, 5 points or a ratio of 1.25, and refuted if it excludes zero. *All together* says whether
the verdict also holds if the error of {alpha:.0%} is that of the whole table, by Holm's method."""

CHANGED = """\
### Verdicts that changed

Most studies of the first version of this page compared accuracies after 150 steps. Now each has the measure that its
question asks for, and says which in its text; findings about a budget name it. Studies that did not change keep their
runs. The differences of accuracies in the first version, and why its verdicts changed:

| finding | then | reason |
| --- | --- | --- |
| joint attention beats the factorised encoder | -4.2 ± 22.7, open | after 300 steps all variants have learned it |
| tubelets of 4 frames beat those of 8 | +24.6 ± 107.9, open | after 150 steps only some seeds had learned it |
| views make up for frames | -56.2 ± 64.0, open | after 300 steps 16 frames have learned it |

Later, with more seeds under the sequential rule:

| finding | then | now |
| --- | --- | --- |
| the factorised encoder beats joint attention on little data | 0.80 (0.36 to 1.75), 5 seeds, open | confirmed |

The order within Model 3, the random start of tubelets and the image start are measured in clips now, with the same
verdicts."""


def docstring(study: str) -> str:
    """The docstring of a study."""
    return ast.get_docstring(ast.parse((EXPERIMENTS / f"{study}.py").read_text(encoding="utf-8"))) or ""


def command(study: str) -> list[str]:
    """The arguments of a study's run for the page: those of the last command in its docstring."""
    *_, last = re.findall(rf"^    python experiments/{study}\.py(.*)$", docstring(study), re.MULTILINE)
    return shlex.split(last, comments=True)


def run_all(runs: Path) -> int:
    """Run the studies one after the other, with cells in common, and return the exit code of the first that fails.

    What is finished is skipped, and an interrupted run resumes.
    """
    for study in STUDIES:
        shared = [] if study in PROBED else ["--cells", str(runs / "cells")]
        options = ["--out", str(runs / study), *shared, *command(study)]
        print(f"\n{study} {' '.join(options)}", flush=True)
        if code := run_study([sys.executable, EXPERIMENTS / f"{study}.py", *options]):
            return code
    return 0


def run_study(command: Sequence[str | Path]) -> int:
    """Run a study and return its exit code; on Ctrl-C, which it gets as well, wait until it has saved its runs."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 130


def collect(runs: Path) -> None:
    """Copy the results that studies have written into `runs`, unless those that are there are of more runs."""
    for study in STUDIES:
        found, kept = (_count(folder / study / "results.json") for folder in (runs, RESULTS))
        if found < kept:
            if found:
                print(f"{RESULTS / study} has the results of {kept} runs and stays; {runs / study} has {found}")
            continue
        for name in ("results.json", *SHOWN.get(study, ())):
            if (file := runs / study / name).exists():
                (RESULTS / study).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, RESULTS / study / name)


def _count(file: Path) -> int:
    """The number of runs in a file of results; 0 if it is not there."""
    return sum(len(row.results) for row in read_results(file)[0]) if file.exists() else 0


def read_studies() -> Studies:
    """The results that there are, with their designs, by study."""
    files = {study: RESULTS / study / "results.json" for study in STUDIES}
    return {study: read_results(file) for study, file in files.items() if file.exists()}


@dataclass(frozen=True)
class Verdict:
    """What a study says about a finding."""

    finding: Finding
    compared: Comparison | None
    design: Design

    @property
    def text(self) -> str:
        """In words."""
        if self.compared is None:
            return "no results"
        if len(self.compared.values) < 2:
            return "open, one seed"
        decision, sign = self.compared.decision, self.compared.decision.sign * self.design.measure.better
        margin = self.design.measure.margin_text(self.design.within)
        if not self.finding.better and decision.equal:
            return "confirmed"
        if sign:
            return "confirmed" if self.finding.better and sign > 0 else "refuted"
        return f"refuted, equal within {margin}" if decision.equal else decision_text(self.compared, self.design)

    @property
    def by_equality(self) -> bool:
        """Whether the verdict is that the two settings are equal."""
        if self.compared is None:
            return False
        return self.compared.decision.equal and not (self.finding.better and self.compared.decision.sign)


def verdicts(studies: Studies) -> list[Verdict]:
    """What became of each finding whose study has results."""
    found = []
    for finding in FINDINGS:
        if finding.study not in studies:
            continue
        table, design = studies[finding.study]
        rows = {row.name: row for row in table}
        if missing := [name for name in finding.settings if name not in rows]:
            raise ValueError(f"the study {finding.study} has no row {missing[0]!r}; it has {', '.join(rows)}")
        if finding.head:
            design = dataclasses.replace(design, measure=dataclasses.replace(design.measure, head=finding.head))
        one, other = (rows[name] for name in finding.settings)
        found.append(Verdict(finding, compare(one, other, design), design))
    return found


def findings(studies: Studies) -> str:
    """The table of the paper's findings."""
    found = verdicts(studies)
    # Each finding is two questions, whether there is a difference and whether it is within the margin.
    adjusted = holm([p for one in found if (c := one.compared) for p in (c.p_zero, c.p_unequal)])
    columns: dict[str, list[str]] = {
        title: [] for title in ("the paper's finding", "paper", "here", "seeds", "verdict", "all together")
    }
    for one in found:
        finding, compared = one.finding, one.compared
        holds = ""
        if compared:
            p_zero, p_unequal, *adjusted = adjusted
            decided = one.text.startswith(("confirmed", "refuted"))
            holds = ("yes" if (p_unequal if one.by_equality else p_zero) <= ALPHA else "no") if decided else ""
        cells = [
            f"{finding.claim} ([{finding.study}](#{finding.study}))",
            finding.paper,
            one.design.measure.difference(compared.middle, compared.half) if compared else "",
            str(len(compared.values)) if compared else "",
            one.text,
            holds,
        ]
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return markdown(columns, left=tuple(columns))


def draw_findings(studies: Studies, file: Path) -> None:
    """The forest plot of all findings, a panel for each kind of measure."""
    panels: dict[str, list[tuple[str, Comparison, Design]]] = {}
    for one in verdicts(studies):
        if one.compared:
            label = "ratio of clips" if one.design.measure.log else "difference, percent"
            panels.setdefault(label, []).append((one.finding.claim, one.compared, one.design))
    if panels:
        pictures.compared(panels, file)


def one_seed(rows: Sequence[Row]) -> list[float]:
    """The core seconds of each setting's first seed."""
    return [row.results[min(row.results)]["core_seconds"] for row in rows if row.results]


def page(studies: Studies) -> str:
    """The whole page."""
    cells = {result["cell"]: result for rows, _ in studies.values() for row in rows for result in row.results.values()}
    hours = sum(result["core_seconds"] for result in cells.values()) / 3600
    machines = sorted({result["machine"] for result in cells.values()})
    once = {study: sum(one_seed(rows)) for study, (rows, _) in studies.items()}
    longest = max(once, key=once.__getitem__)
    parts = [
        INTRODUCTION,
        f"{len(cells)} runs, {hours:.1f} hours of one core in all, on {'; '.join(machines)}. With one seed, "
        f"{longest} takes longest: {once[longest] / 60:.0f} minutes of one core.",
        READING.format(alpha=ALPHA),
    ]
    if verdicts(studies):
        parts += [findings(studies), "![Differences with their intervals](results/findings.png)", CHANGED]
    for study, (rows, design) in studies.items():
        question, _, body = docstring(study).partition("\n")
        parts += [
            f'<a id="{study}"></a>',
            f"## {question}",
            body.strip("\n"),
            study_table(rows, design, pace=study in PACED),
            f"![{design.measure.title.capitalize()} of each setting](results/{study}/points.png)",
            f"![Differences from the first setting](results/{study}/forest.png)",
            *(f"![{TITLES[name]}](results/{study}/{name})" for name in SHOWN.get(study, ())),
        ]
    return "\n\n".join(parts) + "\n"


def with_tables(text: str) -> str:
    """A page with what its marks name, such as `<!-- results: docs/results/variants/table.md -->`, as it is now."""
    return re.sub(
        r"(<!-- results: (docs/(?:results|benchmarks)/\S+\.md) -->\n).*?(\n<!-- end of results -->)",
        lambda found: found[1] + (ROOT / found[2]).read_text(encoding="utf-8").strip() + found[3],
        text,
        flags=re.DOTALL,
    )


@exit_if_pipe_closes()
def main() -> int:
    """Run the studies if asked to, collect and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the studies' folders are (runs)")
    parser.add_argument("--run", action="store_true", help="run all studies first; finished runs are skipped")
    options = parser.parse_args()
    if options.run and (code := run_all(options.runs)):
        return code
    collect(options.runs)
    studies = read_studies()
    if not studies:
        parser.error(f"no study has a results.json, neither in {options.runs} nor in {RESULTS}; run one, see --help")
    for study, (rows, design) in studies.items():
        text = f"{study_table(rows, design, pace=study in PACED)}\n\n{note(rows, design)}\n"
        (RESULTS / study / "table.md").write_text(text, encoding="utf-8")
        pictures.measured(rows, design.measure, RESULTS / study / "points.png")
        pictures.forest(rows, design, RESULTS / study / "forest.png")
        if study == "variants":
            pictures.measure_vs_gmacs(rows, design.measure, RESULTS / study / "cost.png")
    draw_findings(studies, RESULTS / "findings.png")
    (ROOT / "docs/results.md").write_text(page(studies), encoding="utf-8")
    for file in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        file.write_text(with_tables(file.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"docs/results.md: {len(studies)} of {len(STUDIES)} studies")
    return 0


if __name__ == "__main__":
    sys.exit(main())
