"""The figures of a report: the table of their kinds, and how many are drawn at most.

Nothing is drawn before it is asked for, and matplotlib is imported with the first figure.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fmbench.core.console import logger
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.figures.accuracy import (
    accuracy_parameters,
    accuracy_time,
    batch_size,
    published_figure,
)
from fmbench.report.figures.calibration import calibration
from fmbench.report.figures.curves import curves, epochs
from fmbench.report.figures.predictions import confusion_figure, mistakes
from fmbench.report.figures.search import search_figure
from fmbench.report.figures.times import accuracy_seconds, profiles
from fmbench.report.figures.tuned import tuned_figure
from fmbench.report.table.columns import Row
from fmbench.report.table.formats import MISSING
from fmbench.report.table.search import SearchPart
from fmbench.report.table.sections import Section
from fmbench.report.table.tuned import ComparisonPart

#: Of a report. Searches come last, but have their places kept.
MOST_FIGURES = 40
MOST_SEARCHES = 10

#: Of a section, by models: those with the best row.
MOST_MODELS = 6

#: Of a section, by rows: the best that have what is drawn; fewer of a section of many rows, whose
#: report takes long enough.
MOST_ROWS, FEW_ROWS, MANY = 6, 2, 100

#: What a figure is drawn for: the rows of a data set, those of one model, one row, a search, a
#: comparison.
SECTION, MODEL, ROW, SEARCH, COMPARISON = "section", "model", "row", "search", "comparison"
#: Or all data sets together.
ALL = "all"

#: Every kind of figure by its name, with which the names of its files begin. What draws it returns
#: None where there is nothing to show.
KINDS: dict[str, tuple[str, Callable[..., Figure | None]]] = {
    "published": (SECTION, published_figure),
    "accuracy_parameters": (SECTION, accuracy_parameters),
    "accuracy_time": (SECTION, accuracy_time),
    "epochs": (SECTION, epochs),
    "accuracy_seconds": (SECTION, accuracy_seconds),
    "calibration": (SECTION, calibration),
    "curves": (MODEL, curves),
    "batch_size": (MODEL, batch_size),
    "confusion": (ROW, confusion_figure),
    "mistakes": (ROW, mistakes),
    "profiles": (ALL, profiles),
    "search": (SEARCH, search_figure),
    "tuned": (COMPARISON, tuned_figure),
}

#: Of a part of a file's name, in characters.
LONGEST_NAME = 60

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")

log = logger(__name__)


def figures(
    sections: Sequence[Section],
    searches: Sequence[SearchPart],
    comparisons: Sequence[ComparisonPart] = (),
) -> Iterator[Figure]:
    """Draw the figures of a report, one after another.

    Yields:
        The figures of the comparisons, of each section in turn, then of the searches, at most
        `MOST_FIGURES`:
        each once, with a name that no other has. A figure whose files cannot be read, or that would
        show nothing, is not there; one that raises is logged.
    """
    # Named by the place of the search, whichever are drawn.
    names = ["search", *(f"search_{place}" for place in range(2, len(searches) + 1))]
    searched = [pair for pair in zip(names, searches, strict=False) if pair[1].search.trials]
    searched = searched[:MOST_SEARCHES]
    compared = comparisons[:MOST_SEARCHES]
    left = MOST_FIGURES - len(searched) - len(compared)
    for place, comparison in enumerate(compared, 1):
        if found := _drawn("tuned", comparison, "tuned" if place == 1 else f"tuned_{place}"):
            yield found
    used: dict[str, str] = {}
    budget = style.Budget()
    for section in sections:
        for figure in itertools.islice(_section(section, used, budget), left):
            left -= 1
            used[figure.name] = figure.data
            yield figure
    if left > 0 and (found := _drawn("profiles", sections, unused("profiles", used, ""))):
        yield found
    for name, part in searched:
        if found := _drawn("search", part, name):
            yield found


def _drawn(kind: str, *arguments: Any) -> Figure | None:
    _, draw = KINDS[kind]
    try:
        return draw(*arguments)
    except Exception as error:  # noqa: BLE001 - a bug, but the other figures are drawn
        reason = f"{type(error).__name__}: {error}"
        log.warning("the figure %s could not be drawn: %s", kind, reason)
        return None


def _section(section: Section, used: Mapping[str, str], budget: style.Budget) -> Iterator[Figure]:
    # Whatever order the table is in; and of several configurations in one row there are no curves.
    rows = [row for row in section.rows if row["test_accuracy"] is not None]
    rows.sort(key=lambda row: -row["test_accuracy"])
    models: dict[str, list[Row]] = {}
    for row in rows:
        if row["command"] is not None:
            models.setdefault(row["model"] or MISSING, []).append(row)
    best = list(models.items())[:MOST_MODELS]
    limit = f" Shown for {len(best)} of {len(models)} models, the best."
    data = section.data
    for kind, (of, _) in KINDS.items():
        if of == SECTION and (figure := _drawn(kind, rows, data, unused(kind, used, data), budget)):
            yield figure
        for model, some in best if of == MODEL else ():
            name = unused(f"{kind}_{model}", used, data)
            if figure := _drawn(kind, model, some, data, name, budget):
                yield replace(figure, caption=figure.caption + limit * (len(best) < len(models)))
        if of == ROW:
            yield from _of_rows(kind, rows, data, used, budget)


def _of_rows(
    kind: str, rows: Sequence[Row], data: str, used: Mapping[str, str], budget: style.Budget
) -> Iterator[Figure]:
    """One figure for each of the best rows that have what is drawn."""
    asked = rows[: style.MOST_ASKED]
    most, drawn = MOST_ROWS if len(rows) <= MANY else FEW_ROWS, 0
    for row, said in zip(asked, style.told(asked), strict=True):
        name = unused(f"{kind}_{row['model']}", used, data)
        if figure := _drawn(kind, row, said, data, name, budget):
            drawn += 1
            more = drawn == most and row is not rows[-1]
            limit = f" No more than {most} rows are shown so, the best."
            yield replace(figure, caption=figure.caption + limit * more)
        if drawn == most:
            return


def unused(name: str, used: Mapping[str, str], data: str) -> str:
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
