"""The benchmark as a Markdown page that renders on GitHub.

Whatever came from a record passes through `fmbench.report.escape` on its way in.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from fmbench._version import __version__
from fmbench.core.errors import one_line
from fmbench.records.reader import Problem
from fmbench.records.record import RESULT_NAME
from fmbench.report.escape import link, markdown
from fmbench.report.figure import Figure
from fmbench.report.figures import search_name
from fmbench.report.render.places import Places, Run
from fmbench.report.table.columns import ACCURACY, METRICS, NET
from fmbench.report.table.reading import READING
from fmbench.report.table.search import SearchPart
from fmbench.report.table.sections import (
    LONGEST_REASON,
    UNFINISHED,
    Section,
    published,
    unfinished_cells,
)

# Behind it the words of a record that are not in its command.
LEFT_OUT = (
    "Left out of this command, as no run records or needs them, or you do not trust them "
    "(FMBENCH_TRUST)"
)

LONGEST_WORDS = 1000

# Of a picture: the main figures in words.
LONGEST_ALT = 600


def page(
    sections: Sequence[Section],
    problems: Sequence[Problem],
    made: datetime,
    places: Places,
    *,
    searches: Sequence[SearchPart] = (),
    figures: Sequence[Figure] = (),
    notes: Sequence[str] = (),
) -> str:
    """Write the page.

    Args:
        sections: What to show, a table each.
        problems: The records that could not be read.
        made: When, in UTC.
        places: Where runs are, seen from the page.
        searches: The searches among the runs.
        figures: The pictures; they lie in the folder `figures` beside the page.
        notes: What a reader must know of how the runs were looked at.

    Returns:
        Markdown, ending in a newline.
    """
    blocks = [
        "# Benchmark",
        f"Made {made:%Y-%m-%d %H:%M} UTC with fmbench {__version__}.",
    ]
    blocks += (f"> **{markdown(note)}**" for note in notes)
    for section in sections:
        blocks += _section(section, places)
        for figure in figures:
            if figure.data == section.data:
                blocks += [f"### {markdown(figure.title)}", *_figure(figure)]
    named = {figure.name: figure for figure in figures if figure.data is None}
    for place, part in enumerate(searches, 1):
        blocks += _search(part, named.get(search_name(place)))
    said = (f"- **{markdown(term)}** {markdown(meaning)}" for term, meaning in READING.items())
    blocks += ["## How to read the table", "\n".join(said)]
    if problems:
        rows = (
            [places.path(problem.path), one_line(problem.reason, LONGEST_REASON)]
            for problem in problems
        )
        blocks += ["## Records that could not be read", _table(["record", "reason"], rows)]
    return "\n\n".join(blocks) + "\n"


def _section(section: Section, places: Places) -> Iterator[str]:
    yield f"## {markdown(section.title)}"
    yield from (f"> **{markdown(note)}**" for note in section.notes)
    if section.rows:
        columns = section.columns
        titles, right = [c.title for c in columns], [c.right for c in columns]
        yield _table(titles, section.cells, right)
    if section.footnote:
        yield markdown(section.footnote)
    yield markdown(section.summary)
    if section.unfinished:
        yield "### Runs that did not complete"
        yield _table(
            [*UNFINISHED, "folder"],
            ([*unfinished_cells(run), places.path(run["folder"])] for run in section.unfinished),
        )
    if section.rows:
        yield "<details><summary>Commands that make these rows again, and their runs</summary>"
        for row in section.rows:
            name = NET.cell(row)
            accuracy = METRICS["test_accuracy"].with_spread(*(row[key] for key in ACCURACY))
            links = ", ".join(_links(places.run(folder)) for folder in row["folders"])
            yield f"Row {row['number']}: {markdown(f'{name}, {accuracy} %')}. Runs: {links}"
            if row["published_source"] is not None:
                yield markdown(published(row))
            if row["command"] is not None:
                yield code_block(row["command"])
            if row["left_out"]:
                words = one_line(" ".join(row["left_out"]), LONGEST_WORDS)
                yield markdown(f"{LEFT_OUT}: {words}")
        yield "</details>"


def _figure(figure: Figure) -> Iterator[str]:
    place = link(f"figures/{figure.name}")
    yield f"![{markdown(one_line(figure.alt, LONGEST_ALT))}]({place}.png)"
    yield f"{markdown(figure.caption)} [SVG]({place}.svg)"


def _search(part: SearchPart, figure: Figure | None) -> Iterator[str]:
    yield f"## {markdown(part.title)}"
    yield markdown(" ".join(part.sentences))
    if figure is not None:
        yield from _figure(figure)
    for table in part.tables:
        yield f"### {markdown(table.title)}"
        yield _table(table.headings, table.rows, table.right)


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool] | None = None
) -> str:
    right = right or [False] * len(headings)
    lines = [
        [markdown(heading) for heading in headings],
        ["---:" if flush else "---" for flush in right],
    ]
    lines += [[markdown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code_block(command: str) -> str:
    """A command to be copied."""
    # Only a fence at least as long as this one could end the block.
    longest = max(map(len, re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{command}\n{fence}"


def _links(run: Run) -> str:
    """Links to a run and to the file that holds its config."""
    config = ".hydra/config.yaml" if run.has_config else RESULT_NAME
    return f"[{markdown(run.place)}]({run.address}) ([config]({run.address}/{config}))"
