"""Texts about rows in figures, and how much of their files is read."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fmbench.core.errors import one_line
from fmbench.report.table.columns import SHOWN, Row
from fmbench.report.table.formats import MISSING
from fmbench.report.table.rows import class_names as names_of

#: As many of a model's rows, the best first, are asked for their files: of thousands that have none
#: the others have none either.
MOST_ASKED = 50

#: Of a name of a file, and of one that is shown, in characters.
LONGEST_NAME, LONGEST_LABEL = 60, 60

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")

#: Of the table's columns these say nothing beside what stands below them.
_PLAIN = ("model", "optimizer", "device")


@dataclass
class Budget:
    """How many epochs and predictions are read for all figures of a report together.

    Runs of one row are added up, so that files of a megabyte that a stranger has linked into
    thousands of run folders would take hours and all memory.
    """

    epochs: int = 300_000
    predictions: int = 2**28


def model_of(row: Row) -> str:
    """The model with its own settings, as the table has it: wideresnet depth=16."""
    name = row["model"] or MISSING
    return one_line(f"{name} {row['model_settings']}".strip(), LONGEST_LABEL)


def apart(rows: Sequence[Row]) -> list[str]:
    """For each row what sets it apart from the others, in the table's words: batch size 64."""
    several = len({row["model"] for row in rows}) > 1
    said: list[list[str]] = [[] for _ in rows]
    for column in SHOWN:
        cells = [column.cell(row) for row in rows] if column.recipe else []
        if len(set(cells)) > 1:
            if column.key == "model":
                names = [model_of(row) if several else row["model_settings"] for row in rows]
                parts = zip(names, (row["differs"] for row in rows), strict=True)
                cells = [", ".join(filter(None, pair)) for pair in parts]
            for texts, cell in zip(said, cells, strict=True):
                if cell:
                    texts.append(cell if column.key in _PLAIN else f"{column.heading} {cell}")
    return [one_line(", ".join(texts), LONGEST_LABEL) for texts in said]


def recipe(row: Row) -> str:
    """The main settings of a row: batch size 64, sgd, learning rate 0.05, 4 epochs."""
    cells = {column.key: column.cell(row) for column in SHOWN}
    said = [
        f"batch size {cells['batch_size']}", cells["optimizer"],
        f"learning rate {cells['learning_rate']}", f"{cells['epochs']} epochs",
    ]  # fmt: skip
    return one_line(", ".join(said), LONGEST_LABEL)


def class_names(data: str, classes: int) -> list[str]:
    """The names of a data set's classes; their numbers where nothing else is known."""
    known = names_of(data)
    return list(known) if classes <= len(known) else list(map(str, range(classes)))


def unused(name: str, used: Mapping[str, str | None], data: str) -> str:
    """The name in safe characters, with something behind it where another figure has it.

    That is the data set where the other one, by `used`, is of another. Some file systems do not
    tell A from a.
    """
    taken = {one.lower(): of for one, of in used.items()}
    safe = _UNSAFE.sub("_", name)[:LONGEST_NAME].strip("_") or "figure"
    if taken.get(safe.lower(), data) != data:
        safe = f"{safe}_{_UNSAFE.sub('_', data)[:LONGEST_NAME]}"
    others = (f"{safe}_{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([safe], others) if one.lower() not in taken)
