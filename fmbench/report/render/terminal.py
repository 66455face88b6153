"""The benchmark in a terminal, fitted to its width; as plain aligned text where there is none."""

import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fmbench.core.console import aligned, say
from fmbench.core.errors import one_line
from fmbench.report.table.columns import SHOWN, Column, shown
from fmbench.report.table.compare import Comparison
from fmbench.report.table.formats import count, percent, probability
from fmbench.report.table.sections import Section
from fmbench.report.table.tuned import ComparisonPart
from fmbench.stats import NEITHER

if TYPE_CHECKING:
    from fmbench.report.benchmark import Report

# A terminal shows the first; the whole list is in benchmark.md, and in what a pipe gets.
MOST_LISTED = 10
MOST_ROWS = 50

# Characters of a cell beside a target.
LONGEST = 40

# A window that has room for the first columns of any table.
ROOM = 100

# Between two columns: one cell of padding and one of the box.
PADDING = 2

# A heading folds at its spaces, but a sign stays with its number.
_STACKED = re.compile(" (?!%)")

# Where room is short, these fold between their words; the others stand on one line.
FOLDING = {"model", "split", "n", "device"}

# The rows of a comparison, below the seeds.
_COMPARED = (
    *("test_accuracy", "test_accuracy_low", "parameters"),
    *("seconds_train", "runs_at_once", "device"),
)


def print_tables(report: "Report", console: Console | None = None) -> None:
    """Print the tables, the runs that did not complete, the searches, and what could not be read.

    To standard output by default: fitted to a terminal, or plain where there is none. Searches are
    printed in brief; benchmark.md has all of them.
    """
    console = console or Console()
    for note in report.view.notes:
        _line(console, note, "yellow")
    for comparison in report.comparisons:
        _print_comparison(console, comparison)
    for section in report.sections:
        _line(console, section.title, "bold")
        for note in section.notes:
            _line(console, note, "yellow")
        if section.rows:
            (_print_fitted if console.is_terminal else _print_plain)(console, section)
        if section.footnote:
            _line(console, section.footnote)
        if section.power:
            _line(console, section.power)
        _line(console, section.summary)
        for table in section.tables:
            _line(console, "")
            _line(console, table.title, "bold")
            cells = [[one_line(text, LONGEST) for text in line] for line in table.rows]
            cells = cells[: MOST_ROWS if console.is_terminal else None]
            for line in aligned([list(table.headings), *cells], list(table.right)):
                _write(console, Text(line))
            if len(table.rows) > len(cells):
                more = len(table.rows) - len(cells)
                _line(console, f"And {more:,} more: see benchmark.md.", "dim")
        unfinished = [
            f"{status}: {model} in {place}: {reason}; started {started}"
            for model, _, status, reason, started, place in section.unfinished_cells(
                report.places.path
            )
        ]
        _print_list(console, unfinished)
        _line(console, "")
    for part in report.searches:
        _line(console, part.title, "bold")
        for sentence in part.sentences:
            _line(console, sentence)
        if part.search.importances:
            said = ", ".join(" ".join(row) for row in part.importance_rows)
            _line(console, f"Importances: {said}.")
        _line(console, "")
    if report.problems:
        _line(console, "Records that could not be read", "bold")
        _print_list(console, [": ".join(cells) for cells in report.problem_cells])
        _line(console, "")


def _print_comparison(console: Console, part: ComparisonPart) -> None:
    """A tuned comparison; where there is little room its widest columns stay in benchmark.md."""
    _line(console, part.title, "bold")
    for table in part.tables:
        columns = [*zip(table.headings, table.right, *table.rows, strict=True)]
        left_out = []
        while console.is_terminal and len(columns) > 3 and _wide(columns) > console.width:
            left_out.append(columns.pop()[0])
        headings, right, *rows = zip(*columns, strict=True)
        for line in aligned([headings, *rows], list(right)):
            _write(console, Text(line))
        if left_out:
            said = "; ".join(map(str, reversed(left_out)))
            _line(console, f"In benchmark.md, or in a wider window: {said}.", "dim")
        _line(console, "")
    for sentence in part.sentences:
        _line(console, sentence)
    _line(console, "")


def _wide(columns: Sequence[tuple[object, ...]]) -> int:
    return sum(
        PADDING + max(cell_len(str(cell)) for cell in (heading, *cells))
        for heading, _, *cells in columns
    )


def _print_fitted(console: Console, section: Section) -> None:
    rows = section.rows
    cells = dict(zip(section.columns, _cells(section), strict=True))
    columns = list(cells)
    headings = {column: column.title for column in columns}
    same = ""
    most = min(len(rows), MOST_ROWS)

    def widest(column: Column, *, words: bool = False) -> int:
        lines = [*headings[column].splitlines(), *cells[column][:most]]
        return PADDING + max(map(cell_len, " ".join(lines).split() if words else lines))

    if sum(map(widest, columns)) > console.width:
        headings = {column: _STACKED.sub("\n", column.title) for column in columns}
        # What all rows share is said once below the table, before anything is left out.
        same = section.same
        columns = [column for column in columns if column not in section.shared]
    least = {column: widest(column, words=column.key in FOLDING) for column in columns}
    # What tells the rows apart stays longest: rows that look the same say nothing. Where there is
    # room for both, the numbers that everybody looks for come first.
    telling = [c for c in columns if c.recipe and len(set(cells[c])) > 1]
    wide = console.width >= ROOM
    room, found = console.width, set()
    for column in sorted(
        columns,
        key=lambda c: (c.gives_way > 0, not (wide and c.first), c not in telling, c.gives_way),
    ):
        if not column.gives_way or least[column] <= room:
            found.add(column)
            room -= least[column]
    kept = [column for column in columns if column in found]
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for column in kept:
        table.add_column(
            Text(headings[column]),
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column.key not in FOLDING,
            min_width=least[column] - PADDING,
        )
    for position in range(most):
        table.add_row(
            *(Text(cells[column][position]) for column in kept),
            # Those that no test can tell from the best.
            style="bold green" if rows[position]["rank"] == 1 else "",
        )
    console.print("", table, "", sep="\n")
    if len(rows) > most:
        _line(console, f"And {len(rows) - most:,} more rows: see benchmark.md.", "dim")
    if same:
        _line(console, same, "dim")
    left_out = "; ".join(c.heading for c in columns if c not in kept and c.key != "number")
    if left_out:
        _line(console, f"In benchmark.md, or in a wider window: {left_out}.", "dim")


def _print_plain(console: Console, section: Section) -> None:
    columns = section.columns
    lines = [[column.title for column in columns], *zip(*_cells(section), strict=True)]
    for line in aligned(lines, [column.right for column in columns]):
        _write(console, Text(line))


def _print_list(console: Console, lines: Sequence[str]) -> None:
    most = MOST_LISTED if console.is_terminal else len(lines)
    for line in lines[:most]:
        _line(console, f"- {line}")
    if len(lines) > most:
        _line(console, f"- and {len(lines) - most:,} more: see benchmark.md")


def _line(console: Console, line: str, style: str = "") -> None:
    _write(console, Text(one_line(line), style=style))


def _write(console: Console, text: Text) -> None:
    # As Text: rich must not look for its markup in a value. Past it where lines may be long:
    # what is piped is not wrapped, and a few thousand rows should not take seconds.
    if console.is_terminal:
        console.print(text)
    else:
        console.file.write(f"{text.plain}\n")


def _cells(section: Section) -> list[list[str]]:
    """For each column its cells."""
    return [[one_line(text) for text in texts] for texts in zip(*section.cells, strict=True)]


def print_comparison(found: Comparison) -> None:
    """Print two rows compared: tables, and the conclusion in a sentence."""
    console = Console()
    sentence = one_line(found.sentence)
    wide = max(console.width, 20) if console.is_terminal else len(sentence)
    say(*_comparison(found), "", *textwrap.wrap(sentence, wide))


def _comparison(found: Comparison) -> Iterator[str]:
    for letter, name, row in zip("AB", found.names, found.rows, strict=True):
        where = os.path.relpath(os.path.commonpath(row["folders"]) or ".")
        yield f"{letter}: {one_line(name)} (runs: {len(row['folders'])}, in {one_line(where)})"
    yield ""
    seeds = ["seeds", *(", ".join(map(str, row["seeds"])) for row in found.rows)]
    compared = [column for column in SHOWN if column.key in _COMPARED]
    if found.folds:
        held_out = found.rows[0]["held_out"]
        keys = ("n", held_out, f"{held_out}_low", *_COMPARED)
        compared = [column for column in shown(found.rows) if column.key in keys]
    cells = [[c.title, *(one_line(c.cell(row)) for row in found.rows)] for c in compared]
    yield from aligned([["", "A", "B"], seeds, *cells], [False, True, True])
    yield ""
    lead = f"Difference, A less B: {100 * found.difference.mean:+.2f} points"
    if found.difference.about == NEITHER:
        yield f"{lead}, no test: one seed does not tell how far another would land"
    else:
        yield f"{lead}, {found.interval(signed=True)}"
        yield "The ranks of a table are of the same test, corrected for all its pairs."
    yield from found.more
    if found.folds:
        yield from ("", "By fold, on the images that it held out")
        lines = [["fold", "A (%)", "B (%)", "difference (points)"]]
        lines += [
            [str(fold), percent(a), percent(b), f"{100 * (a - b):+.2f}"]
            for fold, a, b in found.folds
        ]
        yield from aligned(lines, [True] * 4)
    if found.seeds:
        yield from ("", "McNemar's test, runs of one seed")
        lines = [["seed", "A (%)", "B (%)", "A alone right", "B alone right", "p"]]
        lines += [
            [str(seed), percent(a), percent(b), count(only_a), count(only_b), probability(p)]
            for seed, a, b, only_a, only_b, p in found.seeds
        ]
        yield from aligned(lines, [True] * 6)
    if found.classes:
        yield from ("", "By class (p corrected for their number)")
        lines = [["class", "A (%)", "B (%)", "difference (points)", "p"]]
        lines += [
            [name, percent(a), percent(b), f"{100 * (a - b):+.2f}", probability(p)]
            for name, a, b, p in found.classes
        ]
        yield from aligned(lines, [False, *[True] * 4])
    yield ""
    if found.time_ratio is not None:
        yield f"Training time, A over B: {found.time_ratio:.3g}"
    elif found.time_note is not None:
        yield f"Training times do not compare: {found.time_note}"
    if found.problems:
        yield from ("", "Records that could not be read, so that runs may be missing:")
        yield from (f"- {one_line(f'{p.path}: {p.reason}', 300)}" for p in found.problems[:10])
        if len(found.problems) > 10:
            yield f"- and {len(found.problems) - 10:,} more"
