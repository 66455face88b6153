"""Accuracies on corrupted test images, by corruption: a table beside the column of their mean."""

import json
from collections.abc import Sequence
from typing import Any

from fmbench.report.table.formats import MISSING, percent
from fmbench.report.table.search import Table

HEADING = "Accuracy on corrupted test images (fmbench corruptions v1, %)"

#: Rows of the benchmark that have a column: more do not fit on a page.
MOST_ROWS = 8


def table(rows: Sequence[dict[str, Any]]) -> Table | None:
    """A line for each corruption, with the mean over severities and runs of the first rows.

    None where no run was evaluated on corrupted images. A row has what all of its runs have.
    """
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        if len(found) < MOST_ROWS and (means := _means(row["run_corrupted"] or ())):
            found[row["number"]] = means
    if not found:
        return None
    names = list(dict.fromkeys(name for means in found.values() for name in means))
    cells = [
        (
            name.replace("_", " "),
            *(percent(means[name]) if name in means else MISSING for means in found.values()),
        )
        for name in names
    ]
    headings = ("corruption", *(f"row {number}" for number in found))
    return Table(HEADING, headings, cells, (False, *[True] * len(found)))


def _means(runs: Sequence[str | None]) -> dict[str, float]:
    """The mean of each corruption that all runs have, by the texts of the reader."""
    read = [json.loads(text) for text in runs if text is not None]
    if not read or len(read) < len(runs):
        return {}
    shared = [name for name in read[0] if all(name in one for one in read)]
    return {
        name: sum(sum(one[name]) for one in read) / sum(len(one[name]) for one in read)
        for name in shared
    }
