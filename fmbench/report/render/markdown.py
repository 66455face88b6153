"""The benchmark as a Markdown page that renders on GitHub.

Whatever came from a record passes through `fmbench.report.escape` on its way in.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import TYPE_CHECKING

from fmbench._version import __version__
from fmbench.core.errors import one_line
from fmbench.report.escape import link, markdown
from fmbench.report.figure import Figure
from fmbench.report.table.columns import ACCURACY, METRICS, MODEL, READING
from fmbench.report.table.search import SearchPart
from fmbench.report.table.sections import UNFINISHED, Section, published
from fmbench.report.table.tuned import ComparisonPart

if TYPE_CHECKING:
    from fmbench.report.benchmark import Report

# Words of the record follow that its command leaves out.
LEFT_OUT = (
    "Left out of this command, as no run records or needs them, or you do not trust them "
    "(FMBENCH_TRUST)"
)

# In characters: such words, and a figure's alternative text.
LONGEST_WORDS, LONGEST_ALT = 1000, 600


def page(report: "Report", bodies: Sequence[Sequence[str]]) -> str:
    """Write `benchmark.md`: Markdown, ending in a newline; `bodies` are what `sections` gives."""
    return "\n\n".join(_blocks(report, bodies)) + "\n"


def sections(report: "Report") -> list[list[str]]:
    """The blocks of each section, without its figures."""
    return [[*_section(report, section)] for section in report.sections]


def _blocks(report: "Report", bodies: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "# Benchmark"
    yield f"Made {report.made:%Y-%m-%d %H:%M} UTC with fmbench {__version__}."
    yield from (f"> **{markdown(note)}**" for note in report.view.notes)
    for part in report.comparisons:
        yield from _part(report, part)
    for section, body in zip(report.sections, bodies, strict=True):
        yield from body
        for figure in report.figures:
            if figure.data == section.data:
                yield f"### {markdown(figure.title)}"
                yield from _figure(figure)
    for one in report.searches:
        yield from _part(report, one)
    said = (f"- **{markdown(term)}** {markdown(meaning)}" for term, meaning in READING.items())
    yield from ("## How to read the table", "\n".join(said))
    if report.problems:
        yield "## Records that could not be read"
        yield _table(["record", "reason"], report.problem_cells)


def _part(report: "Report", part: ComparisonPart | SearchPart) -> Iterator[str]:
    """A comparison or a search; of a comparison the table first."""
    yield f"## {markdown(part.title)}"
    yield markdown(" ".join(part.sentences))
    tables = [
        block
        for table in part.tables
        for block in (
            f"### {markdown(table.title)}",
            _table(table.headings, table.rows, table.right),
        )
    ]
    pictures = [
        block
        for figure in report.figures
        if figure.data == part.folder
        for block in _figure(figure)
    ]
    first = isinstance(part, ComparisonPart)
    yield from (*tables, *pictures) if first else (*pictures, *tables)


def _section(report: "Report", section: Section) -> Iterator[str]:
    yield f"## {markdown(section.title)}"
    yield from (f"> **{markdown(note)}**" for note in section.notes)
    if section.rows:
        kept = [column not in section.shared for column in section.columns]
        columns = [*compress(section.columns, kept)]
        cells = [[*compress(texts, kept)] for texts in section.cells]
        yield _table([c.title for c in columns], cells, [c.right for c in columns])
        if section.same:
            yield markdown(section.same)
    if section.footnote:
        yield markdown(section.footnote)
    if section.power:
        yield markdown(section.power)
    yield markdown(section.summary)
    for table in section.tables:
        yield f"### {markdown(table.title)}"
        yield _table(table.headings, table.rows, table.right)
    if section.unfinished:
        yield "### Runs that did not complete"
        yield _table(UNFINISHED, section.unfinished_cells(report.places.path))
    if section.rows:
        yield "<details><summary>Commands that make these rows again, and their runs</summary>"
        for row in section.rows:
            name = MODEL.cell(row)
            accuracy = METRICS["test_accuracy"].with_spread(*(row[key] for key in ACCURACY))
            links = ", ".join(
                f"[{markdown(run.place)}]({run.address}) ([config]({run.address}/{run.config}))"
                for run in map(report.places.run, row["folders"])
            )
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


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool] = ()
) -> str:
    lines = [[markdown(cell) for cell in row] for row in (headings, *rows)]
    lines.insert(1, ["---:" if flush else "---" for flush in right or [False] * len(headings)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code_block(command: str) -> str:
    """A command to be copied."""
    # Only a fence at least as long as this one could end the block.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return f"{fence}sh\n{command}\n{fence}"
