"""The benchmark as a Markdown page that renders on GitHub.

Whatever came from a record passes through `fmbench.report.escape` on its way in.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import fmbench
from fmbench.reference import in_words
from fmbench.report.columns import ACCURACY, SHOWN, Row, shown
from fmbench.report.escape import link, markdown, one_line
from fmbench.report.figure import Figure
from fmbench.report.figures import search_name
from fmbench.report.formats import MISSING, percent
from fmbench.report.search import SearchPart
from fmbench.report.sections import Section, reason, started
from fmbench.results import Problem

# An error's text may quote a whole config; the run's log has all of it.
LONGEST_REASON = 300

# Of a picture: the main figures in words.
LONGEST_ALT = 600

READING = """\
## How to read the table

- **Test accuracy** is measured after the last epoch; nothing was chosen on the test set. Over
  n ≥ 2 seeds it is the mean ± the standard deviation (n - 1 in the denominator). Rows are ordered
  by this mean. **+1 failed** counts runs of the same config that ended early, **pruned** those that
  a search gave up, **unfinished** those that still run or were killed. Trials of a search that were
  not looked at on the test set are no rows.
- **Best on test** is the best epoch as seen on the test set itself. That is optimistic, and never
  decides the order; it stands only where every seed has it.
- **Published** is the figure of the project that a row takes its recipe from, and how it was
  chosen where that is stated. **Difference** is ours less theirs: where theirs is the best epoch on
  test, so is ours, if we looked each epoch; else ours is the last epoch. A row whose recipe was
  changed has none. Precision and device are no part of a recipe.
- **Split** names the images to train, validate and test on.
- **FLOPs** count the forward pass of one image, a multiply-add as two operations.
- **Wall time** is the training clock, mean over the seeds: evaluation and start-up are outside it.
  It and **images/s**, the training images of all seeds over their training clocks, compare only
  between rows of one device and precision. **Published time** was taken on another device.
- One row is one configuration on one device in one precision. The same run made again (same
  settings, same seed) counts once, the newest of them.
"""


def page(
    sections: Sequence[Section],
    problems: Sequence[Problem],
    made: datetime,
    base: Path | None,
    *,
    searches: Sequence[SearchPart] = (),
    figures: Sequence[Figure] = (),
) -> str:
    """Write the page.

    Args:
        sections: What to show, a table each.
        problems: The records that could not be read.
        made: When, in UTC.
        base: The folder the page will lie in; run folders are named relative to it.
        searches: The searches among the runs.
        figures: The pictures; they lie in the folder `figures` beside the page.

    Returns:
        Markdown, ending in a newline.
    """
    blocks = [
        "# Benchmark",
        f"Made {made:%Y-%m-%d %H:%M} UTC with fmbench {fmbench.__version__}.",
    ]
    for section in sections:
        blocks += _section(section, base)
        for figure in figures:
            if figure.data == section.data:
                blocks += [f"### {markdown(figure.title)}", *_figure(figure)]
    named = {figure.name: figure for figure in figures if figure.data is None}
    for place, part in enumerate(searches, 1):
        blocks += _search(part, named.get(search_name(place)))
    blocks.append(READING.rstrip())
    if problems:
        rows = (
            [_place(problem.path, base), one_line(problem.reason, LONGEST_REASON)]
            for problem in problems
        )
        blocks += ["## Records that could not be read", _table(["record", "reason"], rows)]
    return "\n\n".join(blocks) + "\n"


def _section(section: Section, base: Path | None) -> Iterator[str]:
    yield f"## {markdown(section.title)}"
    yield from (f"> **{markdown(note)}**" for note in section.notes)
    if section.rows:
        columns = shown(section.rows)
        cells = (
            [str(number), *(column.cell(row) for column in columns)]
            for number, row in enumerate(section.rows, 1)
        )
        right = [True, *(column.right for column in columns)]
        yield _table(["#", *(column.title for column in columns)], cells, right)
    yield markdown(section.summary)
    if section.unfinished:
        yield "### Runs that did not complete"
        yield _table(
            ["net", "seed", "status", "reason", "started", "folder"],
            (
                [
                    run["model"] or MISSING,
                    MISSING if run["seed"] is None else str(run["seed"]),
                    run["status"],
                    one_line(reason(run), LONGEST_REASON),
                    started(run),
                    _place(run["folder"], base),
                ]
                for run in section.unfinished
            ),
        )
    if section.rows:
        yield "<details><summary>Commands that make these rows again, and their runs</summary>"
        for number, row in enumerate(section.rows, 1):
            name = SHOWN[0].cell(row)
            accuracy = percent(*(row[key] for key in ACCURACY))
            links = ", ".join(_link(folder, base) for folder in row["folders"])
            yield f"Row {number}: {markdown(f'{name}, {accuracy} %')}. Runs: {links}"
            if row["published_source"] is not None:
                yield markdown(_published(row))
            yield _code(row["command"])
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


def _published(row: Row) -> str:
    """Where a row's published figures stand, and what it did otherwise."""
    said = f"Published in {one_line(row['published_source'], LONGEST_REASON)}"
    said += f" ({in_words(row['published_protocol'])})."
    if row["deviations"]:
        changes = one_line(", ".join(row["deviations"]), LONGEST_REASON)
        said += f" Otherwise than published: {changes}."
    return said


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


def _code(command: str) -> str:
    # Only a fence at least as long as this one could end the block.
    longest = max(map(len, re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{command}\n{fence}"


def _link(folder: str, base: Path | None) -> str:
    place = _place(folder, base)
    return f"[{markdown(place)}]({link(place)})"


def _place(path: Path | str, base: Path | None) -> str:
    return os.path.relpath(path, base or Path())
