"""The benchmark as CSV: one line a row of the table, raw values, every column."""

import csv
import io
from typing import Any

import pandas as pd

from fmbench.report.columns import COLUMNS
from fmbench.report.escape import spreadsheet
from fmbench.report.rows import plain_rows


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


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        # One seed is a number: a minus in front of it is no formula.
        value = value[0] if len(value) == 1 else " ".join(map(str, value))
    return spreadsheet(value) if isinstance(value, str) else value
