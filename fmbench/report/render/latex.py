"""The benchmark as LaTeX tables for a paper: `booktabs`, and no other package.

Whatever came from a record is escaped, so that no name ends a cell, a table or the document.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fmbench._version import __version__
from fmbench.core.errors import one_line
from fmbench.report.table.columns import MODEL, Column, differing
from fmbench.report.table.formats import MISSING
from fmbench.report.table.sections import Section
from fmbench.report.table.view import TEST_ACCURACY
from fmbench.stats import MODELS

if TYPE_CHECKING:
    from fmbench.report.benchmark import Report

#: Rows of a table; more fill no page.
MOST_ROWS = 100

#: Characters of a cell.
LONGEST = 120

# Beside the first columns, and those in which rows differ.
_ALSO = ("n", "published_accuracy", "difference")

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    # In front of a row they would belong to the end of the one before it.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    **{sign: rf"\{sign}" for sign in "#$%&_{}"},
}
# Ligatures: two hyphens are a dash.
_HYPHENS = re.compile(r"-(?=-)")
# What pdfTeX has letters for without further packages.
_LAST_LETTER = "\u017f"


def escape(value: str) -> str:
    """The value as plain text of LaTeX, on one line; letters beyond Latin by their numbers."""
    return "".join(map(_letter, _HYPHENS.sub("-\0", one_line(value, LONGEST)))).replace("\0", "{}")


def _letter(letter: str) -> str:
    if letter in _SPECIAL:
        return _SPECIAL[letter]
    known = letter == "\0" or letter.isascii() or "\u00bf" < letter <= _LAST_LETTER
    return letter if known else rf"\texttt{{U+{ord(letter):04X}}}"


def page(report: "Report") -> str:
    """Write `benchmark.tex`: a table for each section, for LaTeX's command input."""
    made = f"% Made {report.made:%Y-%m-%d %H:%M} UTC with fmbench {__version__}."
    needs = r"% In the preamble: \usepackage{booktabs}"
    tables = ("\n".join(_table(section)) for section in report.sections if section.rows)
    return "\n\n".join([f"{made}\n{needs}", *tables]) + "\n"


def _columns(section: Section) -> list[Column]:
    """Those of a paper: the first ones, and whatever tells the rows apart."""
    telling = {column.key for column in differing(section.rows)}
    keys = {MODEL.key, section.metric, *_ALSO, *telling}
    return [column for column in section.columns if column.first or column.key in keys]


def _table(section: Section) -> Iterator[str]:
    columns = _columns(section)
    places = [section.columns.index(column) for column in columns]
    cells = [[texts[place] for place in places] for texts in section.cells[:MOST_ROWS]]
    label = re.sub(r"[^a-z0-9]+", "-", section.data.lower())[:40].strip("-")
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\caption{{{_caption(section)}}}"
    yield rf"\label{{tab:{label}}}"
    yield rf"\begin{{tabular}}{{{''.join('r' if column.right else 'l' for column in columns)}}}"
    yield r"\toprule"
    yield _line([escape(column.title) for column in columns])
    yield r"\midrule"
    for row, texts in zip(section.rows, cells, strict=False):
        best = row["rank"] == 1
        yield _line([
            rf"\textbf{{{_cell(text)}}}" if best and column.key == section.metric else _cell(text)
            for column, text in zip(columns, texts, strict=True)
        ])  # fmt: skip
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


def _line(cells: list[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _cell(text: str) -> str:
    return "--" if text == MISSING else escape(text)


def _caption(section: Section) -> str:
    said = [f"{section.title}."]
    if section.metric == TEST_ACCURACY:
        said.append("Test accuracy after the last epoch: mean ± standard deviation over n runs.")
    if any(row["rank"] == 1 for row in section.rows):
        said.append("Bold: no row is better beyond doubt (p < 0.05, Holm).")
    if any(row["rank_of"] == MODELS for row in section.rows):
        said.append(section.footnote)
    if len(section.rows) > MOST_ROWS:
        said.append(f"The first {MOST_ROWS} of {len(section.rows):,} rows.")
    return " ".join(escape(sentence) if sentence else "" for sentence in said).strip()
