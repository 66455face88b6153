"""The benchmark as one self-contained web page, to send to somebody or to put on paper.

It needs nothing beside it and fetches nothing: its Content-Security-Policy lets one script run, its
own, which is known by its hash. Rows are plain HTML, which the script sorts, filters and hides; the
first are read without it, and those behind them wait in a `template` element, not yet laid out.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from fmbench._version import __version__
from fmbench.core.errors import one_line
from fmbench.report.escape import Places, link
from fmbench.report.table.columns import CHOSEN_ON_TEST, COLUMNS, MODEL, READING, Column, Row
from fmbench.report.table.formats import MISSING
from fmbench.report.table.sections import UNFINISHED, Section, published

if TYPE_CHECKING:
    from fmbench.report.benchmark import Report

# Rows of a table that are drawn at first, and by a browser without JavaScript.
FIRST_ROWS = 100

# More runs that did not complete, or records that could not be read, are in benchmark.md.
MOST_LISTED = 200

# Characters of a cell; more would make a row as high as ten. Its details have the whole text.
LONGEST = 80

# A row's details have these in another form.
_TOLD = ("command", "published_source", "published_protocol", "deviations")

# Python refuses to read longer numbers.
_NUMBER = re.compile(r"(\d{1,18})")

_FOLDER = Path(__file__).parent


def page(report: "Report", tables: Sequence[dict[str, Any] | None]) -> str:
    """Write `benchmark.html`: HTML, ending in a newline; `tables` are what `tables_of` gives."""
    style, script = (_FOLDER.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = environment.get_template("page.html.j2").render(
        report=report,
        version=__version__,
        digest=digest,
        style=Markup(style),  # noqa: S704 - ours, as are the script and the figures
        script=Markup(script),  # noqa: S704
        drawing=lambda figure: Markup(figure.inline),  # noqa: S704
        link=link,
        verbatim=escape,  # of lines that are clean already; spaces in a command's quotes count
        tables=tables,
        reading=READING,
        headings=UNFINISHED,
        first=FIRST_ROWS,
        most=MOST_LISTED,
        chosen=CHOSEN_ON_TEST,
    )
    return f"{text}\n"


def tables_of(report: "Report") -> list[dict[str, Any] | None]:
    """The table of each section as the template reads it; None where there are no rows."""
    return [_table(one, report.places) if one.rows else None for one in report.sections]


def _table(section: Section, places: Places) -> dict[str, Any]:
    """The rows of a section as the template reads them, and what all rows have in common."""
    rows = section.rows
    columns = [column for column in section.columns if column.key != "number"]
    cells = [texts[1:] for texts in section.cells]
    texts = dict(zip(columns, zip(*cells, strict=True), strict=True))
    alike = [column for column in columns if len(set(texts[column])) == 1]
    # What only the CSV file has: what differs stands in the details of each row.
    raw, same = {}, []
    for key in (c.key for c in COLUMNS if not c.heading and c.key not in _TOLD):
        values = [row[key] for row in rows]
        if len(set(values)) > 1:
            raw[key] = [_raw(value) for value in values]
        elif (text := _raw(values[0])) != MISSING:
            same.append(f"{key}={text}")
    orders = [_order(column, rows, texts[column]) for column in columns]
    opens, right = [column is MODEL for column in columns], [column.right for column in columns]

    def details(place: int) -> str:
        said = [text for text in cells[place] if len(text) > LONGEST]
        told = ((key, values[place]) for key, values in raw.items())
        said += [f"{key}={text}" for key, text in told if text != MISSING]
        return "\n".join(map(one_line, said))

    return {
        "columns": columns,
        # What tells rows apart is hidden last.
        "turns": [c.gives_way and c.gives_way + 100 * (c in alike) for c in columns],
        "same": "\n".join(same),
        "rows": [
            {
                "number": row["number"],
                "order": " ".join([str(order[place]) for order in orders]),
                "cells": Markup("".join(map(_cell, opens, right, cells[place]))),  # noqa: S704
                "command": row["command"],
                "published": row["published_source"] and published(row),
                "runs": [
                    (_run(seed, fold), places.run(folder))
                    for seed, fold, folder in zip(
                        row["run_seeds"], row["run_folds"], row["folders"], strict=True
                    )
                ],
                "details": details(place),
            }
            for place, row in enumerate(rows)
        ],
    }


def _run(seed: int, fold: int | None) -> str:
    return f"seed {seed}" if fold is None else f"fold {fold}, seed {seed}"


@functools.lru_cache(maxsize=100_000)
def _cell(opens: bool, right: bool, text: str) -> str:
    """A cell of a row, as HTML; most texts stand in many."""
    text = escape(one_line(text, LONGEST))
    if opens:
        return f'<th scope="row"><details><summary>{text}</summary></details></th>'
    return f'<td class="n">{text}</td>' if right else f"<td>{text}</td>"


def _order(column: Column, rows: Sequence[Row], texts: Sequence[str]) -> list[int]:
    """For each row the place of its value in the column's order, which a script sorts by.

    By the raw values where these are numbers, else by the texts; -1 for a row without a value.
    """
    values: list[Any] = [row[column.key] for row in rows]
    key = None
    if not all(isinstance(value, (int, float)) for value in values if value is not None):
        values, key = [None if text == MISSING else text for text in texts], _natural
    places = {value: place for place, value in enumerate(sorted({*values} - {None}, key=key))}
    return [places.get(value, -1) for value in values]


def _natural(text: str) -> tuple[list[Any], str]:
    """A key for natural order: resnet8 before resnet18, A beside a."""
    parts = _NUMBER.split(text.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], text


def _raw(value: Any) -> str:
    """A raw value as text."""
    if isinstance(value, tuple):
        return ", ".join(map(_raw, value)) or MISSING
    if value is None or value == "":
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    return one_line(str(value))


def _finalize(value: Any) -> Any:
    """Texts of a record on one line, without control characters."""
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value
