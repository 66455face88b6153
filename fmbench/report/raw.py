"""The benchmark for programs: raw values, every column, as CSV and as JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

import fmbench
from fmbench.report.columns import COLUMNS, Row
from fmbench.report.escape import spreadsheet
from fmbench.report.rows import plain_rows
from fmbench.results import Problem
from fmbench.trials import Search

#: Of `benchmark.json`.
SCHEMA = 1


def sheet(table: pd.DataFrame) -> str:
    """Write the table as CSV text.

    Args:
        table: What `benchmark_table` gives.

    Returns:
        Comma-separated lines under machine-readable headings; a missing value is an empty cell,
        accuracies are shares from 0 to 1, times are seconds, sizes are bytes. Several values in
        one cell, such as seeds, have a space between them.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(column.key for column in COLUMNS)
    for row in plain_rows(table):
        writer.writerow(_cell(row[column.key]) for column in COLUMNS)
    return file.getvalue()


def document(
    table: pd.DataFrame,
    *,
    made: datetime,
    notes: Sequence[str],
    unfinished: Sequence[Row],
    problems: Sequence[Problem],
    searches: Mapping[str, Search],
) -> str:
    """Write the benchmark as one JSON object.

    Args:
        table: What `benchmark_table` gives.
        made: When, in UTC.
        notes: How the runs were looked at, where not as the benchmark itself.
        unfinished: The runs that did not complete, as plain values.
        problems: The records that could not be read.
        searches: By folder.

    Returns:
        JSON text. `rows` holds an object a row of the table with the keys of the CSV file's
        heading, and `folders` and `accuracies` of its runs; numbers are numbers, several values a
        list, a missing value is null.
    """
    content = {
        "schema": SCHEMA,
        "fmbench_version": fmbench.__version__,
        "made": made.isoformat(timespec="seconds"),
        "notes": list(notes),
        "rows": plain_rows(table),
        "not_completed": [{**run, "started": _time(run["started"])} for run in unfinished],
        "unreadable": [
            {"path": str(problem.path), "reason": problem.reason} for problem in problems
        ],
        "searches": {folder: json.loads(search.to_json()) for folder, search in searches.items()},
    }
    return json.dumps(content, indent=1, default=_plain) + "\n"


def _time(started: Any) -> str | None:
    return None if started is None else str(started.isoformat())


def _plain(value: Any) -> Any:
    """A number of NumPy's or pandas' as Python has it."""
    return value.item()


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        # One seed is a number: a minus in front of it is no formula.
        value = value[0] if len(value) == 1 else " ".join(map(str, value))
    return spreadsheet(value) if isinstance(value, str) else value
