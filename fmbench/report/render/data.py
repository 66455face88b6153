"""The benchmark for programs: raw values, every column, as CSV and as JSON."""

import csv
import io
import json
import math
from collections.abc import Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any

import msgspec

from fmbench._version import __version__
from fmbench.core.files import as_text
from fmbench.report.escape import spreadsheet
from fmbench.report.table.columns import COLUMNS, Row

if TYPE_CHECKING:
    from fmbench.report.benchmark import Report
    from fmbench.report.table.tuned import ComparisonPart

#: Of `benchmark.json`.
SCHEMA = 1


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as comma-separated lines under machine-readable headings.

    A missing value is an empty cell, accuracies are shares from 0 to 1, times are seconds, sizes
    are bytes. Several values in one cell, such as seeds, have a space between them.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(column.key for column in COLUMNS)
    columns = [_cells([row[column.key] for row in rows]) for column in COLUMNS]
    writer.writerows(zip(*columns, strict=True))
    return file.getvalue()


def contestants_text(comparisons: "Sequence[ComparisonPart]") -> str:
    """The contestants of tuned comparisons as such lines, ranked within each."""
    rows = [
        {"comparison": part.folder, **entry.row()} for part in comparisons for entry in part.entries
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(rows[0] if rows else [])
    for row in rows:
        writer.writerow(map(_cell, row.values()))
    return file.getvalue()


def json_text(report: "Report") -> str:
    """The benchmark as one JSON object; several values are a list, a missing value is null."""
    unfinished = [run for section in report.sections for run in section.unfinished]
    content = {
        "schema": SCHEMA,
        "fmbench_version": __version__,
        "made": report.made.isoformat(timespec="seconds"),
        "notes": report.view.notes,
        "figures": [figure.name for figure in report.figures],
        # The config is in the record of each run.
        "rows": [{key: row[key] for key in row if key != "config"} for row in report.rows],
        "not_completed": [
            {**run, "started": run["started"] and run["started"].isoformat()} for run in unfinished
        ],
        "unreadable": [
            {"path": as_text(str(problem.path)), "reason": problem.reason}
            for problem in report.problems
        ],
        "comparisons": {
            part.folder: {
                **json.loads(part.tuned.to_json()),
                "rows": [entry.row() for entry in part.entries],
                "pairs": part.pairs,
            }
            for part in report.comparisons
        },
        "searches": {part.folder: json.loads(part.search.to_json()) for part in report.searches},
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
    # What is not finite, a loss beyond all bounds, is null.
    return msgspec.json.encode(item, enc_hook=_plain).decode()


def _plain(value: Any) -> Any:
    return value.item()  # of a number of NumPy's or pandas'


def _cells(values: list[Any]) -> list[Any]:
    """The cells of a column; finite numbers and missing values are cells as they are."""
    plain = {*map(type, values)} <= {bool, int, float, NoneType} and all(
        map(math.isfinite, (value for value in values if value is not None))
    )
    return values if plain else list(map(_cell, values))


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        # One seed is a number: a minus in front of it is no formula.
        value = value[0] if len(value) == 1 else " ".join(map(str, value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # as in the JSON file
    return spreadsheet(value) if isinstance(value, str) else value
