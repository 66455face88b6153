"""The figures of a report: the table of their kinds, and how many are drawn at most.

Nothing is drawn before it is asked for, and matplotlib is imported with the first figure.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from fmbench.report.figure import Figure
from fmbench.report.figures.batch_size import batch_size
from fmbench.report.figures.cost import accuracy_parameters, accuracy_time
from fmbench.report.figures.curves import curves
from fmbench.report.figures.predictions import confusion_figure, mistakes
from fmbench.report.figures.published import published_figure
from fmbench.report.figures.rows import Budget, unused
from fmbench.report.figures.search import search_figure
from fmbench.report.table.columns import Row
from fmbench.report.table.formats import MISSING
from fmbench.report.table.search import SearchPart
from fmbench.report.table.sections import Section

#: Of a report. Searches come last, but have their places kept.
MOST_FIGURES = 40
MOST_SEARCHES = 10

#: Of a section, by models: those with the best row.
MOST_MODELS = 6

#: What a figure is drawn for: the rows of a data set, those of one model, or a search.
SECTION, MODEL, SEARCH = "section", "model", "search"

#: Every kind of figure by its name, with which the names of its files begin. What draws it returns
#: None where there is nothing to show.
KINDS: dict[str, tuple[str, Callable[..., Figure | None]]] = {
    "published": (SECTION, published_figure),
    "accuracy_parameters": (SECTION, accuracy_parameters),
    "accuracy_time": (SECTION, accuracy_time),
    "curves": (MODEL, curves),
    "batch_size": (MODEL, batch_size),
    "confusion": (MODEL, confusion_figure),
    "mistakes": (SECTION, mistakes),
    "search": (SEARCH, search_figure),
}

#: Told of a figure that could not be drawn: its kind, and why.
Failed = Callable[[str, Exception], None]


def figures(
    sections: Sequence[Section], searches: Sequence[SearchPart], failed: Failed | None = None
) -> Iterator[Figure]:
    """Draw the figures of a report, one after another.

    Args:
        sections: The data sets, each with its rows.
        searches: The searches; one without trials has no figure.
        failed: Told of a figure that raises, which is then left out; without it, it is raised.

    Yields:
        The figures of each section in turn, then those of the searches, at most `MOST_FIGURES`:
        each once, with a name that no other has. A figure whose files cannot be read, or that would
        show nothing, is not there.
    """
    searched = [
        (search_name(place), part) for place, part in enumerate(searches, 1) if part.search.trials
    ][:MOST_SEARCHES]  # fmt: skip
    left = MOST_FIGURES - len(searched)
    used: dict[str, str | None] = {}
    budget = Budget()
    for section in sections:
        for figure in islice(_section(section, used, failed, budget), left):
            left -= 1
            used[figure.name] = figure.data
            yield figure
    for name, part in searched:
        if found := _tried(failed, "search", part, name):
            yield found


def search_name(place: int) -> str:
    """The name of the figure of a search, by its place from 1: search, search_2."""
    return "search" if place == 1 else f"search_{place}"


def _tried(failed: Failed | None, kind: str, *arguments: Any) -> Figure | None:
    _, draw = KINDS[kind]
    try:
        return draw(*arguments)
    except Exception as error:
        if failed is None:
            raise
        failed(kind, error)
        return None


def _section(
    section: Section, used: Mapping[str, str | None], failed: Failed | None, budget: Budget
) -> Iterator[Figure]:
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
        if of == SECTION:
            name = unused(kind, used, data)
            if figure := _tried(failed, kind, rows, data, name):
                yield figure
        for model, some in best if of == MODEL else ():
            name = unused(f"{kind}_{model}", used, data)
            if figure := _tried(failed, kind, model, some, data, name, budget):
                caption = figure.caption + limit * (len(best) < len(models))
                yield replace(figure, caption=caption)
