"""The rows of a section as the web page's script reads them: small, and quick to sort.

Of each column the different texts are kept once, in the order that sorting by it gives, and of each
row only the place of its text in that order. So a script sorts by comparing whole numbers, in the
order of the raw values, and a learning rate that a thousand rows share is written once.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fmbench.core.errors import one_line
from fmbench.report.render.places import Places, Run
from fmbench.report.table.columns import COLUMNS, Column, Row
from fmbench.report.table.formats import MISSING
from fmbench.report.table.sections import Section, published

# It stands before every row, whichever columns are shown.
NUMBER = "number"

#: The column that a row opens by, and that stays in sight.
NET = "model"

# They stand in a row's details in a form of their own.
TOLD = ("command", "published_source", "published_protocol", "deviations")

# Characters of a cell; more would make a row as high as ten.
LONGEST = 80

# A hash's first digits tell it apart; the CSV file has them all.
_HASH = re.compile("[0-9a-f]{32,}")
_DIGITS = 12

# No longer, or Python refuses to read it as one.
_NUMBER = re.compile(r"(\d{1,18})")

# Within a script element these could end it, or start what does not end; the last two are line
# ends to old JavaScript.
_ACTIVE = "<>&\u2028\u2029"


@dataclass(frozen=True)
class PackedColumn:
    """A column of a section.

    Attributes:
        key: Its name, as in the CSV file.
        title: What people read above it; the key where only the CSV file has the column.
        right: Numbers stand flush right.
        gives_way, recipe, optimistic: See `fmbench.report.table.columns.Column`.
        texts: The different cells, in the order of their raw values; those without one last.
        known: How many of them have a raw value.
        at: For each row the place of its cell in `texts`.
    """

    key: str
    title: str
    right: bool
    gives_way: int
    recipe: bool
    optimistic: bool
    texts: list[str]
    known: int
    at: list[int]

    def cell(self, row: int) -> str:
        """The text of a row."""
        return self.texts[self.at[row]]

    def short(self, row: int) -> str:
        """The text of a row as the table has it: its details have the whole of a long one."""
        return one_line(self.cell(row), LONGEST)

    @property
    def constant(self) -> bool:
        """Whether all rows say the same."""
        return len(self.texts) == 1

    @property
    def packed(self) -> dict[str, Any]:
        """What the script reads; what it can tell by itself is left out."""
        content: dict[str, Any] = {"key": self.key, "title": self.title, "texts": self.texts}
        if not self.constant:
            content |= {"at": self.at, "known": self.known}
        if self.right:
            content["right"] = True
        if self.gives_way:
            content["way"] = self.gives_way
        content |= {name: True for name in ("recipe", "optimistic") if getattr(self, name)}
        return content


@dataclass(frozen=True)
class PackedRows:
    """The rows of a section.

    Attributes:
        columns: Those that the table can show.
        others: Those of the CSV file only that have a value in any row.
        first: The number of the first row; the others follow.
        commands: For each row the command that makes it again; empty where none does.
        sources: For each row where its published figures stand; empty where there are none.
        runs: For each row its runs.
        seeds: For each row its seeds.
    """

    columns: list[PackedColumn]
    others: list[PackedColumn]
    first: int
    commands: list[str]
    sources: list[str]
    runs: list[list[Run]]
    seeds: list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.commands)

    @property
    def same(self) -> list[tuple[str, str]]:
        """What all rows say alike beside their cells."""
        alike = [column for column in self.others if column.constant and len(self) > 1]
        return [(column.title, column.texts[0]) for column in alike]

    def details(self, row: int) -> list[tuple[str, str]]:
        """What a row says beside its cells, and not as all others do."""
        said = [column for column in self.columns if len(column.cell(row)) > LONGEST]
        said += [column for column in self.others if not column.constant or len(self) == 1]
        told = [(column.title, column.cell(row)) for column in said]
        return [(title, text) for title, text in told if text != MISSING]

    @property
    def json(self) -> str:
        """All of it as JSON that can stand inside a script element."""
        words, commands = _indexed(command.split(" ") for command in self.commands)
        sources, at = _indexed([source] for source in self.sources)
        folders, runs = _packed_runs(self.runs)
        content = {
            "net": NET,
            "longest": LONGEST,
            "columns": [column.packed for column in self.columns],
            "others": [column.packed for column in self.others],
            "first": self.first,
            "words": words,
            "commands": commands,
            "sources": {"texts": sources, "at": [place for (place,) in at]},
            "folders": folders,
            "runs": runs,
        }
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        for sign in _ACTIVE:
            text = text.replace(sign, f"\\u{ord(sign):04x}")
        return text


def pack(section: Section, places: Places) -> PackedRows:
    """Pack the rows of a section.

    Args:
        section: With its rows in their order.
        places: Where their runs are.
    """
    rows = section.rows
    cells = list(zip(*section.cells, strict=True)) or [()] * len(section.columns)
    others = [
        _packed(column, column.key, [_raw(row[column.key]) for row in rows], rows)
        for column in COLUMNS
        if not column.heading and column.key not in TOLD
    ]
    return PackedRows(
        columns=[
            _packed(column, column.title, texts, rows)
            for column, texts in zip(section.columns, cells, strict=True)
            if column.key != NUMBER
        ],
        others=[column for column in others if column.texts != [MISSING]],
        first=rows[0][NUMBER] if rows else 1,
        commands=[row["command"] or "" for row in rows],
        sources=[
            "" if row["published_source"] is None else one_line(published(row)) for row in rows
        ],
        runs=[[places.run(folder) for folder in row["folders"]] for row in rows],
        seeds=[row["seeds"] for row in rows],
    )


def _packed(column: Column, title: str, cells: Sequence[str], rows: Sequence[Row]) -> PackedColumn:
    raw = [row[column.key] for row in rows]
    is_number = all(isinstance(value, (int, float)) for value in raw if value is not None)
    pairs = list(zip(raw if is_number else [None] * len(raw), cells, strict=True))

    def order(pair: tuple[Any, str]) -> tuple[Any, ...]:
        value, text = pair
        if is_number:
            return value is None, value or 0, text
        return text == MISSING, _natural(text)

    distinct = sorted(dict.fromkeys(pairs), key=order)
    places = {pair: place for place, pair in enumerate(distinct)}
    return PackedColumn(
        key=column.key,
        title=title,
        right=column.right,
        gives_way=column.gives_way,
        recipe=column.recipe,
        optimistic=column.optimistic,
        texts=[one_line(text) for _, text in distinct],
        known=sum(not order(pair)[0] for pair in distinct),
        at=[places[pair] for pair in pairs],
    )


def _natural(text: str) -> list[Any]:
    """A key that sorts as people do: resnet8 before resnet18, A beside a."""
    return [int(part) if part.isdecimal() else part for part in _NUMBER.split(text.casefold())]


def _raw(value: Any) -> str:
    """A raw value as text."""
    if isinstance(value, tuple):
        return ", ".join(map(_raw, value)) or MISSING
    if value is None or value == "":
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"{text[:_DIGITS]}..." if _HASH.fullmatch(text) else text


def _indexed(rows: Iterable[Iterable[str]]) -> tuple[list[str], list[list[int]]]:
    """The different texts of some rows, and for each row the places of its own among them."""
    places: dict[str, int] = {}
    at = [[places.setdefault(text, len(places)) for text in row] for row in rows]
    return list(places), at


def _packed_runs(rows: Iterable[Iterable[Run]]) -> tuple[list[list[str]], list[list[list[Any]]]]:
    """The parents of run folders, and for each row its runs: parent, name, and what is unusual.

    That is the address, where it is not what people read, and 0 for a run without a config.
    """
    parents: dict[tuple[str, str], int] = {}
    packed: list[list[list[Any]]] = []
    for runs in rows:
        packed.append(row := [])
        for run in runs:
            place, _, name = run.place.rpartition("/")
            address, _, called = run.address.rpartition("/")
            entry: list[Any] = [parents.setdefault((place, address), len(parents)), name]
            if called != name or not run.has_config:
                entry += [called, int(run.has_config)]
            row.append(entry)
    return [list(parent) for parent in parents], packed
