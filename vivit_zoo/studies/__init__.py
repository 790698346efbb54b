"""Ablation studies: settings x seeds -> a table with intervals, on one machine or on SLURM.

A name is imported from its file when it is first used, so that importing this package loads nothing heavy.
"""

from typing import TYPE_CHECKING

from vivit_zoo.system.lazy import import_on_use

if TYPE_CHECKING:
    from vivit_zoo.studies.cells import BASE, TRAINED, UNTIL_LEARNED, Cell, Setting, run_cell
    from vivit_zoo.studies.comparisons import Design, Row, compare, read_results, write_results
    from vivit_zoo.studies.measures import Accuracy, ClipsToReach, Measure
    from vivit_zoo.studies.study import plan_study, report, rows_of, run_from_command_line, run_study
    from vivit_zoo.studies.tables import study_table

__all__ = [
    "BASE",
    "TRAINED",
    "UNTIL_LEARNED",
    "Accuracy",
    "Cell",
    "ClipsToReach",
    "Design",
    "Measure",
    "Row",
    "Setting",
    "compare",
    "plan_study",
    "read_results",
    "report",
    "rows_of",
    "run_cell",
    "run_from_command_line",
    "run_study",
    "study_table",
    "write_results",
]

__getattr__ = import_on_use(
    __name__,
    {
        "cells": ["BASE", "TRAINED", "UNTIL_LEARNED", "Cell", "Setting", "run_cell"],
        "comparisons": ["Design", "Row", "compare", "read_results", "write_results"],
        "measures": ["Accuracy", "ClipsToReach", "Measure"],
        "study": ["plan_study", "report", "rows_of", "run_from_command_line", "run_study"],
        "tables": ["study_table"],
    },
)
