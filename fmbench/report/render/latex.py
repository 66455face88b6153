"""The benchmark as LaTeX tables for a paper: `booktabs`, and no other package.

Whatever came from a record is escaped, so that no name ends a cell, a table or the document.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
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
    "\u00d7": r"$\times$",
    "\u00f7": r"$\div$",
    **{sign: rf"\{sign}" for sign in "#$%&_{}"},
}
# Ligatures: two hyphens are a dash.
_HYPHENS = re.compile(r"-(?=-)")
# What pdfLaTeX sets in its default font encoding, OT1, without further packages: these letters, and
# Latin ones under these accents. It has no ogonek, and no letters such as eth, thorn and eng.
_LETTERS = frozenset("ÆØßæøıŁłŒœ")
_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_LAST_LETTER = "\u017f"


def escape(value: str) -> str:
    """The value as plain text of LaTeX, on one line; other letters by their numbers."""
    return "".join(map(_letter, _HYPHENS.sub("-\0", one_line(value, LONGEST)))).replace("\0", "{}")


def _letter(letter: str) -> str:
    if letter in _SPECIAL:
        return _SPECIAL[letter]
    accent = unicodedata.normalize("NFD", letter)[1:] if letter <= _LAST_LETTER else ""
    accented = len(accent) == 1 and accent in _ACCENTS
    known = letter == "\0" or letter.isascii() or letter in _LETTERS or accented
    return letter if known else rf"\texttt{{U+{ord(letter):04X}}}"


def page(report: "Report") -> str:
    """Write `benchmark.tex`: a table for each section, for LaTeX's command input."""
    made = f"% Made {report.made:%Y-%m-%d %H:%M} UTC with fmbench {__version__}."
    needs = r"% In the preamble: \usepackage{booktabs}"
    shown = [section for section in report.sections if section.rows]
    labels = _labels([section.data for section in shown])
    tables = ("\n".join(_table(*one)) for one in zip(shown, labels, strict=True))
    return "\n\n".join([f"{made}\n{needs}", *tables]) + "\n"


def _labels(names: Sequence[str]) -> list[str]:
    """A label for each data set, of plain letters; those that repeat are numbered."""
    found: list[str] = []
    for name in names:
        label = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "data"
        numbered = (f"{label}-{number}" for number in itertools.count(2))
        found.append(next(one for one in itertools.chain([label], numbered) if one not in found))
    return found


def _columns(section: Section) -> list[Column]:
    """Those of a paper: the first ones, and whatever tells the rows apart."""
    telling = {column.key for column in differing(section.rows)}
    keys = {MODEL.key, section.metric, *_ALSO, *telling}
    return [column for column in section.columns if column.first or column.key in keys]


def _table(section: Section, label: str) -> Iterator[str]:
    columns = _columns(section)
    places = [section.columns.index(column) for column in columns]
    cells = [[texts[place] for place in places] for texts in section.cells[:MOST_ROWS]]
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
