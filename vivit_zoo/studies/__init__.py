"""Ablation studies: settings x seeds -> a table with intervals, on one machine or on SLURM.

A name is imported from its file when it is first used, so that importing this package loads nothing heavy.
"""

from typing import TYPE_CHECKING

from vivit_zoo.system.lazy import import_on_use

if TYPE_CHECKING:
    from vivit_zoo.studies.cells import BASE, Cell, Setting, run_cell
    from vivit_zoo.studies.study import plan_study, report, rows_of, run_from_command_line, run_study
    from vivit_zoo.studies.tables import Row, read_rows, study_table, write_rows

__all__ = [
    "BASE",
    "Cell",
    "Row",
    "Setting",
    "plan_study",
    "read_rows",
    "report",
    "rows_of",
    "run_cell",
    "run_from_command_line",
    "run_study",
    "study_table",
    "write_rows",
]

__getattr__ = import_on_use(
    __name__,
    {
        "cells": ["BASE", "Cell", "Setting", "run_cell"],
        "study": ["plan_study", "report", "rows_of", "run_from_command_line", "run_study"],
        "tables": ["Row", "read_rows", "study_table", "write_rows"],
    },
)
