"""What sets rows apart that would otherwise look the same: the difference, not a list of settings.

One pass over the rows of a group: a sweep may have thousands that differ in one number.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fmbench.config import schema
from fmbench.core.errors import one_line
from fmbench.records.record import leaves
from fmbench.report.table.columns import SHOWN, Row

# They say that two rows differ, but not how: only where nothing else does.
HASHES = ("data_sha256", "split_hash", "source")

# The same, of a net whose code was changed before records said so.
COUNTS = ("parameters", "flops")

# More than this in brackets behind a net's name is read by nobody.
MOST_DIFFERENCES = 6

# Of a key or a value in them; of what is cut the hash of the configuration tells it apart.
LONGEST = 60

UNSET = "unset"


def differences(rows: Sequence[Row]) -> list[str]:
    """For each row what sets it apart from those that would look the same; mostly nothing.

    Args:
        rows: Of one data set, as plain values, with `config` and `data_sha256`.
    """
    alike = defaultdict(list)
    shown = [column for column in SHOWN if column.recipe]
    for position, row in enumerate(rows):
        alike[tuple(column.cell({**row, "differs": ""}) for column in shown)].append(position)
    differs = [""] * len(rows)
    for positions in alike.values():
        if len(positions) > 1:
            texts = _apart([rows[position] for position in positions])
            for position, said in zip(positions, texts, strict=True):
                differs[position] = said
    return differs


def _apart(rows: Sequence[Row]) -> list[str]:
    settings = [settings_of(row) for row in rows]
    keys = _differing(settings)
    options = {key for key in keys if "." not in key}
    # An option that differs says it all; what it is made of follows only where it does not.
    children = [key for key in keys if "." in key and key.partition(".")[0] in options]
    last = (*HASHES, *COUNTS)
    spoken = [key for key in keys if key not in children and key not in last]
    spoken += _telling(settings, children, given=spoken)
    spoken += _telling(settings, [key for key in keys if key in last], given=spoken)
    if len(spoken) > MOST_DIFFERENCES:
        telling = _telling(settings, spoken)
        rest = [key for key in spoken if key not in telling]
        spoken = sorted([*telling, *rest][:MOST_DIFFERENCES], key=spoken.index)
    said = [_sentence(setting, spoken, options) for setting in settings]
    if len(set(said)) == len(said):
        return said
    # Their configs are silent about it (or too long), but their hashes are not.
    return [
        ", ".join(filter(None, [text, f"configuration {row['configuration'][:8]}"]))
        for text, row in zip(said, rows, strict=True)
    ]


def _differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that do not have one value everywhere."""
    values: dict[str, set[str]] = defaultdict(set)
    holders: dict[str, int] = defaultdict(int)
    for setting in settings:
        for key, value in setting.items():
            values[key].add(value)
            holders[key] += 1
    return [key for key in values if len(values[key]) > 1 or holders[key] < len(settings)]


def _telling(
    settings: Sequence[Mapping[str, str]], keys: Iterable[str], given: Sequence[str] = ()
) -> list[str]:
    """Those of the keys that tell rows apart which the given ones, and those before, do not."""
    classes = [tuple(setting.get(key, UNSET) for key in given) for setting in settings]
    numbers = _numbered(classes)
    telling = []
    for key in keys:
        if len(set(numbers)) == len(settings):
            break
        finer = _numbered([(n, s.get(key, UNSET)) for n, s in zip(numbers, settings, strict=True)])
        if len(set(finer)) > len(set(numbers)):
            numbers = finer
            telling.append(key)
    return telling


def _numbered(classes: Sequence[Any]) -> list[int]:
    """A small number for each class, so that classes of classes stay cheap to compare."""
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(one, len(numbers)) for one in classes]


def _sentence(setting: Mapping[str, str], keys: Sequence[str], options: set[str]) -> str:
    # What another option is made of is not missing here.
    return ", ".join(
        f"{one_line(key, LONGEST)}={one_line(setting.get(key, UNSET), LONGEST)}"
        for key in keys
        if key in setting or "." not in key or key.partition(".")[0] not in options
    )


def settings_of(row: Row) -> dict[str, str]:
    """All that may tell two rows apart, as texts under dotted names."""
    config = json.loads(row["config"] or "{}")
    settings = {"scheduler": str(row["scheduler"])}
    settings |= {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in leaves(config)
        if key != "data.name" and ("." in key or key in schema.DECIDING)
    }
    settings |= {name: str(row[name]) for name in schema.HARDWARE if row[name] is not None}
    settings |= {name: row[name][:8] for name in HASHES if row[name] is not None}
    settings |= {name: str(row[name]) for name in COUNTS if row[name] is not None}
    return settings
