"""A view of the runs: which of them, in what groups, by which metric, in what order."""

import fnmatch
import functools
import json
import operator
import re
import shlex
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from fmbench.core.errors import ConfigError
from fmbench.report.table.columns import CHOSEN_ON_TEST, COLUMNS, METRICS

TEST_ACCURACY = "test_accuracy"

# Filtering runs by these makes their means optimistic.
_OF_TEST = re.compile("(best_)?test_(accuracy|loss)")

_CONDITION = re.compile(r"(?P<key>[\w.]+)(?P<operator>!=|>=|<=|=|>|<)(?P<values>.*)", re.DOTALL)
_ORDERS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}

# Columns of the runs that are no single value.
_NO_KEYS = ("config", "overrides")

# Names in a command, and in the runs' table.
_ALIASES = {
    "data.split": "split",
    "lr": "learning_rate",
    "net": "model",
    "data.name": "data",
    "test_every": "evaluation.every",
}


@dataclass(frozen=True)
class View:
    """A view of the runs."""

    condition: str = ""  # which runs: `model=resnet18 batch_size=64,256`, all of it
    group_by: tuple[str, ...] = ()  # what the runs of a row have in common; () is all but the seed
    metric: str = TEST_ACCURACY  # one of METRICS: is shown with its spread, and orders the rows
    sort: str | None = None  # the column that orders the rows instead; may end in :asc or :desc
    targets: tuple[float, ...] = ()  # accuracies: when rows reached them

    @property
    def notes(self) -> list[str]:
        """Notes for the reader."""
        notes = []
        if self.condition.strip():
            notes.append(f"Only runs with {' and '.join(shlex.split(self.condition))}.")
        if self.group_by:
            notes.append(
                f"A row is all runs with the same {', '.join(self.group_by)} on one data set; what "
                "they do not share is left out, and the spread is over these runs."
            )
        if self.by_luck:
            notes.append(
                "The runs were chosen by what they reached on the test set: their means are "
                "optimistic, so there are no ranks and no intervals."
            )
        if self.sort is not None:
            key, ascending = self.order()
            (heading,) = (c.heading or c.key for c in COLUMNS if c.key == key)
            notes.append(f"Ordered by {heading}, the {'least' if ascending else 'most'} first.")
        elif self.metric != TEST_ACCURACY:
            notes.append(f"Ordered by {METRICS[self.metric].heading}, and not ranked.")
        return notes

    @property
    def by_luck(self) -> bool:
        """Whether runs were chosen by what they reached on the test set."""
        return any(_OF_TEST.fullmatch(key) for key, _, _ in _conditions(self.condition))

    @property
    def ranks(self) -> bool:
        """Whether rows are ranked: repetitions of one configuration, by test accuracy."""
        return not self.group_by and self.metric == TEST_ACCURACY and not self.by_luck

    def order(self) -> tuple[str, bool]:
        """The column to sort by, and whether the smallest comes first.

        Raises:
            ConfigError: There is no such column.
        """
        if self.sort is None:
            return self.metric, METRICS[self.metric].ascending
        said, _, direction = self.sort.partition(":")
        columns = [column for column in COLUMNS if column.key != "number"]
        names = {"net": "model"} | {_plain(c.heading): c.key for c in columns if c.heading}
        names |= {column.key: column.key for column in columns}
        key = names.get(_plain(said.strip()))
        if key in CHOSEN_ON_TEST:
            raise ConfigError(f"sort: {said} was chosen on the test set, so it orders nothing")
        if key is None or direction not in ("", "asc", "desc"):
            raise ConfigError(
                f"sort: {self.sort!r} is no column; there are {', '.join(sorted(names))}, each "
                "with :asc or :desc behind it or nothing"
            )
        usual = METRICS[key].ascending if key in METRICS else "accuracy" not in key
        return key, usual if not direction else direction == "asc"

    @property
    def is_plain(self) -> bool:
        """Whether all runs are shown in their rows and order."""
        return replace(self, targets=()) == PLAIN


#: The benchmark itself: all runs, ranked by test accuracy.
PLAIN = View()


def check(view: View) -> None:
    """Refuse a view that cannot be.

    Raises:
        ConfigError: There is no such metric or column, or a condition is none.
    """
    if view.metric not in METRICS:
        raise ConfigError(f"metric: {view.metric!r} is none; there are {', '.join(METRICS)}")
    view.order()
    _conditions(view.condition)


def is_condition(text: str) -> bool:
    """Whether a text consists of conditions."""
    try:
        return bool(_conditions(text))
    except ConfigError:
        return False


def chosen(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The runs for which all of some conditions hold, as `docs/report.md` explains them.

    Raises:
        ConfigError: A word is no condition, or no run has such a key.
    """
    keep = pd.Series(data=True, index=frame.index)
    for key, sign, values in _conditions(condition):
        # By type, too: to a dict True is 1.
        holds = functools.lru_cache(None, typed=True)(partial(_holds, sign=sign, values=values))
        held = [holds(cell) for cell in values_of(frame, key, "filter")]
        keep &= pd.Series(held, index=frame.index, dtype=bool)
    return frame[keep]


def values_of(frame: pd.DataFrame, key: str, said_in: str) -> pd.Series:
    """A column of the runs, or a key of their configs, as plain values.

    Raises:
        ConfigError: No run has such a key; `said_in` names the option that asked for it.
    """
    name = column_of(key)
    if name in frame and name not in _NO_KEYS:
        # Several texts are one, and none is no value: a tuple is one value to pandas.
        cells = frame[name].astype(object)
        known = cells.where(cells.notna(), None)
        values = [(", ".join(cell) or None) if type(cell) is tuple else cell for cell in known]
        return pd.Series(values, index=frame.index, dtype=object)
    path = name.split(".")
    leaf = functools.cache(lambda text: _leaf(json.loads(text), path))  # runs share few configs
    found = pd.Series(map(leaf, frame["config"]), index=frame.index, dtype=object)
    if len(frame) and found.isna().all():
        there_are = ", ".join(sorted({*frame.columns} - {*_NO_KEYS}))
        raise ConfigError(
            f"{said_in}: no run has {key!r}; there are {there_are}, and the keys of the runs' "
            "configs, such as optimizer.weight_decay"
        )
    return found


def column_of(key: str) -> str:
    """The name of a key in the runs' table."""
    return _ALIASES.get(key, key)


def counted(frame: pd.DataFrame, metric: str) -> str:
    """What a completed run must have to count in a table that is ordered by a metric."""
    return metric if metric in frame else TEST_ACCURACY


def _plain(heading: str) -> str:
    return heading.lower().replace(" ", "_")


def _leaf(config: Any, path: list[str]) -> Any:
    for step in path:
        if not isinstance(config, dict) or step not in config:
            return None
        config = config[step]
    if isinstance(config, (str, int, float, bool)):
        return config
    # As it is typed in a command: null, [6,13], {size:8}.
    return json.dumps(config, separators=(",", ":")).replace('"', "")


def _conditions(text: str) -> list[tuple[str, str, list[str]]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"filter: {text!r}: {error}") from None
    conditions = []
    for word in words:
        found = _CONDITION.fullmatch(word)
        if found is None:
            raise ConfigError(f"filter: {word!r} is no condition such as model=lenet or epochs>=30")
        if found["values"].startswith("="):
            raise ConfigError(f"filter: {word!r}: write {word.replace('==', '=', 1)}")
        if found["operator"] in _ORDERS and _number(found["values"]) is None:
            raise ConfigError(f"filter: {word!r} compares with no number")
        conditions.append((found["key"], found["operator"], _alternatives(found["values"])))
    return conditions


def _alternatives(text: str) -> list[str]:
    """The parts between commas; those within brackets are of one list."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _holds(cell: Any, sign: str, values: list[str]) -> bool:
    """Whether a condition holds for a value; a missing one equals `null` alone."""
    if sign in _ORDERS:
        number = _number(cell)
        return number is not None and bool(_ORDERS[sign](number, float(values[0])))
    found = "null" in values if cell is None else any(_is(cell, value) for value in values)
    return found == (sign == "=")


def _is(cell: Any, value: str) -> bool:
    """Whether a value equals a text: as numbers where both are, else as texts."""
    if isinstance(cell, bool):
        return str(cell).lower() == value.lower()
    if isinstance(cell, (int, float)):
        number = _number(cell)
        return number is not None and number == _number(value)
    if value.startswith(("[", "{")):
        return str(cell) == value.replace(" ", "")
    return fnmatch.fnmatchcase(str(cell), value)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        return None
