"""The pictures of a report: what there is to draw, under which names, and how many at most.

Nothing is drawn before it is asked for, and matplotlib is imported with the first picture.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from fmbench.report.figure import Figure
from fmbench.report.figures.evidence import Budget
from fmbench.report.table.search import SearchPart
from fmbench.report.table.sections import Section

#: Of a report. Searches come last, but have their places kept.
MOST_FIGURES = 40
MOST_SEARCHES = 10

#: Of a section, by nets: those with the best row.
MOST_NETS = 6


#: What the names of all pictures begin with; behind it stands which one it is.
KINDS = (
    *("published", "accuracy_parameters", "accuracy_time", "curves", "batch_size", "confusion"),
    *("mistakes", "search"),
)


#: Told of a picture that could not be drawn: its kind, and why.
Failed = Callable[[str, Exception], None]


def figures(
    sections: Sequence[Section], searches: Sequence[SearchPart], failed: Failed | None = None
) -> Iterator[Figure]:
    """Draw the pictures of a report, one after another.

    Args:
        sections: The data sets, each with its rows, the best first.
        searches: The searches; one without trials has no picture.
        failed: Told of a picture that raises, which is then left out; without it, it is raised.

    Yields:
        The figures of each section in turn, then those of the searches, at most `MOST_FIGURES`:
        each once, with a name that no other has. A figure whose files cannot be read, or that would
        show nothing, is not there.
    """
    searched = [
        (place, part) for place, part in enumerate(searches, 1) if part.search.trials
    ][:MOST_SEARCHES]  # fmt: skip
    left = MOST_FIGURES - len(searched)
    used: dict[str, str | None] = {}
    budget = Budget()
    for section in sections:
        for figure in islice(_section(section, used, failed, budget), left):
            left -= 1
            used[figure.name] = figure.data
            yield figure
    for place, part in searched:
        from fmbench.report.figures.search import search_figure

        if found := _tried(failed, "search", search_figure, part, search_name(place)):
            yield found


def search_name(place: int) -> str:
    """The name of the figure of a search, by its place from 1: search, search_2."""
    return "search" if place == 1 else f"search_{place}"


def _tried(
    failed: Failed | None, kind: str, draw: Callable[..., Figure | None], *arguments: Any
) -> Figure | None:
    try:
        return draw(*arguments)
    except Exception as error:
        if failed is None:
            raise
        failed(kind, error)
        return None


def _section(
    section: Section, used: dict[str, str | None], failed: Failed | None, budget: Budget
) -> Iterator[Figure]:
    from fmbench.report.figures.batch_size import batch_size
    from fmbench.report.figures.confusion import confusion_figure
    from fmbench.report.figures.curves import curves
    from fmbench.report.figures.mistakes import mistakes
    from fmbench.report.figures.names import by_net, unused
    from fmbench.report.figures.published import published_figure
    from fmbench.report.figures.tradeoff import accuracy_parameters, accuracy_time

    def name(text: str) -> str:
        return unused(text, used, section.data)

    # Whatever order the table is in; and of several configurations in one row there are no curves.
    rows = [row for row in section.rows if row["test_accuracy"] is not None]
    rows.sort(key=lambda row: -row["test_accuracy"])
    single = [row for row in rows if row["command"] is not None]
    every = by_net(single)
    nets = list(every.items())[:MOST_NETS]
    limit = f" Shown for {len(nets)} of {len(every)} nets, the best."

    def tried(kind: str, draw: Callable[..., Figure | None], *arguments: Any) -> Figure | None:
        return _tried(failed, kind, draw, *arguments)

    def drawn() -> Iterator[Figure | None]:
        yield tried("published", published_figure, rows, section.data, name("published"))
        kind = "accuracy_parameters"
        yield tried(kind, accuracy_parameters, rows, section.data, name(kind))
        for draw in accuracy_time(rows, section.data):
            yield tried("accuracy_time", draw, name("accuracy_time"))
        for kind, draw_net in (
            ("curves", partial(curves, budget=budget)),
            ("batch_size", batch_size),
            ("confusion", partial(confusion_figure, budget=budget)),
        ):
            for net, some in nets:
                figure = tried(kind, draw_net, net, some, section.data, name(f"{kind}_{net}"))
                if figure is not None and len(nets) < len(every):
                    figure = replace(figure, caption=figure.caption + limit)
                yield figure
        named = (single, section.data, lambda net: name(f"mistakes_{net}"))
        yield tried("mistakes", mistakes, *named)

    yield from (figure for figure in drawn() if figure is not None)
