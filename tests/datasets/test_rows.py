"""Rows of tables know their line; one bad row spoils none of the others."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datasets.test_formats import listed, touch, write
from vivit_zoo.datasets import read_catalogue
from vivit_zoo.datasets.rows import RowsError, read_csv, read_lines

BAD_ROWS = {  # a row of a table with the columns path, label: what is said of it
    "b.mp4,": "the label is empty",
    ",0": "the path is empty",
    "b,c.mp4,1": "has 3 cells, the header 2; put quotes around a cell with ',' in it",
    "b.mp4": "has 1 cells, the header 2",
    "path,label": "the header again",
    "Path, Label": "the header again",
    '"b.mp4,1': "cannot be split into cells .* a quote that belongs to a cell is written twice",
    '"b.mp4"x,1': "cannot be split into cells",
    "b.mp4,nan": "stands for a missing value",
    "b.mp4,walk": "the label 'walk' is a name, where 2 labels are numbers",
    "b.mp4,1.5": "is no class number",
    "b.mp4,1;2": "looks like several labels",
    "b\x07.mp4,1": "has characters that cannot be printed",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_told_with_its_line_and_the_others_stay(tmp_path, row):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    source = write(tmp_path / "list.csv", f"\ufeffpath,label\r\na.mp4,0\r\n\r\n{row}\r\nc.mp4,2,\r\n")
    with pytest.raises(RowsError, match=f"line 4: .*{BAD_ROWS[row]}|line 4: {BAD_ROWS[row]}"):
        read_catalogue(source)
    assert listed(read_catalogue(source, strict=False), tmp_path) == [("a.mp4", 0), ("c.mp4", 2)]


def test_all_bad_rows_are_told_at_once_in_order(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    source = write(tmp_path / "list.csv", "\n".join(["path,label", "a.mp4,0", *BAD_ROWS, "c.mp4,2"]))
    with pytest.raises(RowsError) as error:
        read_catalogue(source)
    assert str(error.value).startswith(
        f"{source}: {len(BAD_ROWS)} of {len(BAD_ROWS) + 2} rows cannot be used:\n  line 3:"
    )
    assert [problem.where for problem in error.value.problems] == [f"line {3 + i}" for i in range(len(BAD_ROWS))]


@given(rows=st.lists(st.tuples(st.text(min_size=1), st.text('ab",\n ;é', min_size=1)), min_size=1, max_size=5))
def test_what_a_writer_of_csv_wrote_is_read(rows):
    rows = [[re.sub(r"\r|\n\s*\n", " ", cell).strip() or "x" for cell in row] for row in rows]  # no blank lines
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([["path", "label"], *rows])
    found, problems = read_csv(read_lines(file.getvalue()), ",", "list.csv")
    assert not problems
    assert [[row.cells["path"], row.cells["label"]] for row in found] == rows


def test_headers_that_cannot_be_used(tmp_path):
    touch(tmp_path, "a.mp4")
    with pytest.raises(ValueError, match=r"list\.csv, line 1: the header names the column 'label' twice"):
        read_catalogue(write(tmp_path / "list.csv", "path,label,label\na.mp4,0,1\n"))


def test_lines_that_are_no_json_objects(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    lines = [
        '{"path": "a.mp4", "label": 0}',
        "[]",
        '{"path": "b.mp4"',
        '{"label": 1}',
        '{"path": "b.mp4"}',
        '{"path": 3}',
        '{"path": "b.mp4", "label": 1, "label": 0}',
        '{"path": "b.mp4", "label": 1, "Label": 0}',
    ]
    source = write(tmp_path / "list.jsonl", "\n".join(lines))
    with pytest.raises(RowsError) as error:
        read_catalogue(source)
    assert [problem.what.split(" (")[0] for problem in error.value.problems] == [
        "is no JSON object",
        "is no JSON object",
        "has no 'path'",
        "has no 'label'",
        "has no 'label'",
        "is no JSON object",
        "is no JSON object",
    ]
    assert all(f"line {line}: is no JSON object (it names 'label' twice)" in str(error.value) for line in (7, 8))
    assert "line 3: is no JSON object (Expecting ',' delimiter" in str(error.value)


def test_bad_lines_of_lists(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "v/1.jpg", "v/2.jpg")
    source = write(tmp_path / "list.txt", "a.mp4 0\nb.mp4\na.mp4 walk now\nb.txt 3\nv 2\n")
    catalogue = read_catalogue(source, strict=False)
    assert [entry.label for entry in catalogue.entries] == [0, 2]
    assert [problem.where for problem in catalogue.problems] == ["line 2", "line 3", "line 4"]
    source = write(tmp_path / "frames.txt", "v 0 2 1\nv 2 0\nv 0 1 2\n")
    with pytest.raises(RowsError, match=r"line 2: 'v 2 0' is not 'folder offset count label', as most lines are"):
        read_catalogue(source)


def test_two_separators_that_fit_are_told_apart_by_the_files(tmp_path):
    touch(tmp_path, "a.mp4, b.mp4")
    catalogue = read_catalogue(write(tmp_path / "list.txt", "a.mp4, b.mp4 3\n"))
    assert listed(catalogue, tmp_path) == [("a.mp4, b.mp4", 3)]


PUBLISHED = {
    "kinetics.csv": (
        "label,youtube_id,time_start,time_end\nrun,a,3,13\n",
        {
            "run,b,,13": "the cell 'time_start' is '', not a number from 0 on",
            "run,,3,13": "the cell 'youtube_id' is '', not a text",
            ",a,3,13": "the label is empty",
            "run,a,3": "has 3 cells, the header 4",
        },
    ),
    "epic.csv": (
        "video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,verb_class,noun_class\n"
        "P01_01,00:00:01.00,00:00:02.00,1,9,0,0\n",
        {
            "P01_01,00:00:01.00,x,1,9,0,0": "the cell 'stop_timestamp' is 'x', not a time such as 00:01:02.50",
            "P01_01,00:00:03.00,00:00:02.00,1,9,0,0": "start_timestamp 3 s and stop_timestamp 2 s are no part",
            "P01_01,00:00:01.00,00:00:02.00,1,9,,0": "verb: the label is empty",
            "P01_01,00:00:01.00,00:00:02.00,1,9,0,300": "noun: the label 300 is not in 0 to 299",
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_bad_rows_of_published_lists(tmp_path, name):
    touch(tmp_path, "a_000003_000013.mp4", "P01_01.MP4")
    good, rows = PUBLISHED[name]
    with pytest.raises(RowsError) as error:
        read_catalogue(write(tmp_path / name, good + "\n".join(rows)))
    for number, (problem, message) in enumerate(zip(error.value.problems, rows.values(), strict=True), 3):
        assert str(problem).startswith(f"line {number}: {message}")
