"""The benchmark for programs: raw values, every column, as CSV and as JSON."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fmbench._version import __version__
from fmbench.records.reader import Problem
from fmbench.records.trials import Search
from fmbench.report.escape import spreadsheet
from fmbench.report.table.columns import COLUMNS, Row

#: Of `benchmark.json`.
SCHEMA = 1


def sheet(rows: Sequence[Row]) -> str:
    """Write the table as CSV text.

    Args:
        rows: Of `benchmark_table`, as plain values.

    Returns:
        Comma-separated lines under machine-readable headings; a missing value is an empty cell,
        accuracies are shares from 0 to 1, times are seconds, sizes are bytes. Several values in
        one cell, such as seeds, have a space between them.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(column.key for column in COLUMNS)
    for row in rows:
        writer.writerow(_cell(row[column.key]) for column in COLUMNS)
    return file.getvalue()


def document(
    rows: Sequence[Row],
    *,
    made: datetime,
    notes: Sequence[str],
    unfinished: Sequence[Row],
    problems: Sequence[Problem],
    searches: Mapping[str, Search],
    figures: Sequence[str] = (),
) -> str:
    """Write the benchmark as one JSON object.

    Args:
        rows: Of `benchmark_table`, as plain values.
        made: When, in UTC.
        notes: How the runs were looked at, where not as the benchmark itself.
        unfinished: The runs that did not complete, as plain values.
        problems: The records that could not be read.
        searches: By folder.
        figures: The names of the pictures beside it, in the folder `figures`, without ending.

    Returns:
        JSON text. `rows` holds an object a row of the table with the keys of the CSV file's
        heading, and `folders`, `accuracies` and the like of its runs; numbers are numbers, several
        values a list, a missing value is null.
    """
    content = {
        "schema": SCHEMA,
        "fmbench_version": __version__,
        "made": made.isoformat(timespec="seconds"),
        "notes": list(notes),
        "figures": list(figures),
        # The config is in the record of each run.
        "rows": [{key: row[key] for key in row if key != "config"} for row in rows],
        "not_completed": [{**run, "started": _time(run["started"])} for run in unfinished],
        "unreadable": [
            {"path": str(problem.path), "reason": problem.reason} for problem in problems
        ],
        "searches": {folder: json.loads(search.to_json()) for folder, search in searches.items()},
    }
    # A line for each item: indented all the way, a large one would take five times as long.
    parts = []
    for name, value in content.items():
        if isinstance(value, list) and value:
            items = ",\n".join(_dumps(item) for item in value)
            parts.append(f"{json.dumps(name)}: [\n{items}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _dumps(item: Any) -> str:
    try:
        return json.dumps(item, default=_plain, allow_nan=False)
    except ValueError:  # a loss beyond all bounds has no place in JSON
        return json.dumps(_finite(item), default=_plain)


def _finite(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _finite(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_finite(value) for value in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item


def _time(started: Any) -> str | None:
    return None if started is None else str(started.isoformat())


def _plain(value: Any) -> Any:
    """A number of NumPy's or pandas' as Python has it."""
    return value.item()


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        # One seed is a number: a minus in front of it is no formula.
        value = value[0] if len(value) == 1 else " ".join(map(str, value))
    if isinstance(value, float) and not math.isfinite(value):
        return None  # as in the JSON file
    return spreadsheet(value) if isinstance(value, str) else value
