"""A table's rows as plain values, and the names of the data sets they are about."""

from typing import Any

import pandas as pd

from fmbench.data.synthetic import CLASSES

REAL = "fashion_mnist"
SYNTHETIC = "synthetic"


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts of plain Python values, None where a value is missing."""
    objects = table.astype(object)  # numbers become Python's, and faster than by `to_dict`
    cells = objects.where(objects.notna(), None).to_numpy().tolist()
    names = list(table.columns)  # an index is slow to walk, and would be again for every row
    return [dict(zip(names, row, strict=True)) for row in cells]


def class_names(data: str) -> tuple[str, ...]:
    """The names of a data set's classes, by number; none where only numbers are known."""
    return CLASSES if data in (REAL, SYNTHETIC) else ()
