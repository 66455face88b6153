"""The benchmark in a terminal, fitted to its width; as plain aligned text where there is none."""

import os
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fmbench.report.columns import MISSING, SHOWN, Column
from fmbench.report.escape import one_line
from fmbench.report.table import Section
from fmbench.results import Problem

# A terminal is for a look; the whole list is in benchmark.md, and in what a pipe gets.
MOST_LISTED = 10

# What rich's SIMPLE_HEAD box puts around each column.
PADDING = 2


def print_sections(
    sections: Sequence[Section], problems: Sequence[Problem], console: Console | None = None
) -> None:
    """Print the tables, the runs that did not complete, and the records that could not be read.

    Args:
        sections: What to show, a table each.
        problems: The records that could not be read.
        console: Where to; standard output by default.
    """
    console = console or Console()
    for section in sections:
        _line(console, section.title, "bold")
        for note in section.notes:
            _line(console, note, "yellow")
        if section.rows and console.is_terminal:
            _print_fitted(console, section.rows)
        elif section.rows:
            _print_plain(console, section.rows)
        _line(console, section.summary)
        _print_list(
            console,
            [
                f"{run['status']}: {run['model'] or MISSING} in {_place(run['folder'])}: "
                f"{run['error'] or 'no reason recorded'}"
                for run in section.unfinished
            ],
        )
        _line(console, "")
    if problems:
        _line(console, "Records that could not be read", "bold")
        _print_list(console, [f"{_place(problem.path)}: {problem.reason}" for problem in problems])
        _line(console, "")


def fit(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[Column]:
    """The columns that fit, the least important left out first.

    Args:
        columns: In their order.
        widths: What each needs, padding included, in terminal cells.
        width: Of the terminal.
    """
    room = dict(zip(columns, widths, strict=True))
    for column in sorted(columns, key=lambda column: -column.gives_way):
        if column.gives_way and sum(room.values()) > width:
            del room[column]
    return list(room)


def _print_fitted(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    cells = {column: _cells(column, rows) for column in SHOWN}
    columns = [c for c in SHOWN if not c.gives_way or set(cells[c]) != {MISSING}]
    headings = {column: column.title for column in columns}
    shared: list[Column] = []

    def needs(column: Column) -> int:
        # The net's name may fold between its words, the others stand on one line.
        words = " ".join(cells[column]).split() if column is SHOWN[0] else cells[column]
        return PADDING + max(map(cell_len, [*headings[column].splitlines(), *words]))

    if sum(map(needs, columns)) > console.width:
        headings = {column: column.title.replace(" ", "\n") for column in columns}
        # What all rows share is said once below the table, before anything is left out.
        shared = [c for c in columns if c.recipe and c.gives_way and len(set(cells[c])) == 1]
        columns = [column for column in columns if column not in shared]
    kept = fit(columns, [needs(column) for column in columns], console.width)

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in kept:
        table.add_column(
            Text(headings[column]),
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column is not SHOWN[0],
        )
    for position in range(len(rows)):
        table.add_row(
            *(Text(cells[column][position]) for column in kept),
            style="bold green" if position == 0 and len(rows) > 1 else "",
        )
    console.print(table)
    if shared:
        same = "; ".join(f"{column.heading} {cells[column][0]}" for column in shared)
        _line(console, f"{'All rows' if len(rows) > 1 else 'And'}: {same}.", "dim")
    left_out = "; ".join(column.heading for column in columns if column not in kept)
    if left_out:
        _line(console, f"In benchmark.md, or in a wider window: {left_out}.", "dim")


def _print_plain(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    lines = [[column.title, *_cells(column, rows)] for column in SHOWN]
    widths = [max(map(cell_len, cells)) for cells in lines]
    for line in zip(*lines, strict=True):
        padded = [
            " " * (width - cell_len(cell)) + cell
            if column.right
            else cell + " " * (width - cell_len(cell))
            for column, cell, width in zip(SHOWN, line, widths, strict=True)
        ]
        _write(console, Text("  ".join(padded).rstrip()))


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


def _cells(column: Column, rows: Sequence[dict[str, Any]]) -> list[str]:
    return [one_line(column.cell(row)) for row in rows]


def _place(path: Any) -> str:
    return os.path.relpath(str(path))
