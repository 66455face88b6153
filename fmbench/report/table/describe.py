"""Describes a row: the command that makes it again, its published figures, what sets it apart."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import msgspec
import pandas as pd

from fmbench.config import schema
from fmbench.config.published import BEST_ON_TEST, comparable
from fmbench.core.errors import one_line, without_password
from fmbench.records.record import leaves, recorded_overrides
from fmbench.report.escape import shell_word
from fmbench.report.table.columns import SHOWN, Row
from fmbench.report.table.rows import SYNTHETIC, plain_rows

#: Packages whose classes a config may instantiate; see `fmbench.config.checks`.
_TRUST = "FMBENCH_TRUST"

#: The key that the runs of a row of folds differ in.
FOLD = "data.split.fold"

#: In place of a folder that an old record does not name.
ANY_FOLDER = "DIR"

# Hashes tell that two rows differ, but not how: shown where nothing else differs. So are the counts
# of a model whose code was changed before records said so.
HASHES = ("data_sha256", "split_hash", "source")
COUNTS = ("parameters", "flops")

# Differences in brackets behind a model's name.
MOST_DIFFERENCES = 6

# Of a key or a value in them; of what is cut the hash of the configuration tells it apart.
LONGEST = 60

UNSET = "unset"

# Of the experiment that a run was started from.
PUBLISHED = [
    *("experiment", "deviations", "published_accuracy", "published_parameters"),
    *("published_seconds", "published_approximate", "published_device"),
    *("published_protocol", "published_source"),
]


# --- the command ----------------------------------------------------------------------------------


def command(row: Row) -> tuple[str, tuple[str, ...]]:
    """The command that makes a row's runs again, quoted for a POSIX shell.

    And the words of the record that it was made without. It is made to be copied, and a record may
    be a stranger's: it holds only what fmbench itself records for a run, and names no package that
    whoever makes the report does not trust.
    """
    overrides, seeds, trust = row["overrides"], row["seeds"], row["trust"]
    # What the hardware chose then the experiment's file says otherwise now.
    if row["difference_in"] and "precision" not in _typed(overrides):
        overrides = (*overrides, f"precision={row['difference_in']}")
    kept = recorded_overrides(overrides)
    left = [without_password(word) for word in overrides if word not in kept]
    folds = row["folds"] or ()
    start = ["python", "-m", "fmbench", *(["-m"] if max(len(seeds), len(folds)) > 1 else [])]
    for folder in row["config_dirs"] or ((ANY_FOLDER,) if row["config_dir"] else ()):
        if folder == ANY_FOLDER or PurePath(folder).is_absolute():
            start += ["--config-dir", folder]
        else:
            left.append(f"--config-dir={folder}")
    before = ""
    if trust and _names(trust) <= _names(os.environ.get(_TRUST, "")):
        before = f"{_TRUST}={shell_word(trust)} "
    elif trust:
        left.append(f"{_TRUST}={trust}")
    several = {key: values for key, values in ((FOLD, folds), ("seed", seeds)) if values}
    pairs = [*dict.fromkeys(zip(row["run_folds"], row["run_seeds"], strict=True))] if folds else []
    paired = len(several) == 2 and len(pairs) < len(folds) * len(seeds)
    if paired:  # not each seed was run on each fold
        several = dict(zip(several, zip(*pairs, strict=True), strict=True))
    words = [word for word in kept if word.lstrip("+").partition("=")[0] not in several]
    words += [f"{key}={','.join(map(str, values))}" for key, values in several.items()]
    words += [f"sweep.zip=[{','.join(several)}]"] if paired else []
    return before + " ".join(map(shell_word, [*start, *words])), tuple(left)


def _names(trust: str) -> set[str]:
    return {*map(str.strip, trust.split(","))} - {""}


def _typed(overrides: tuple[str, ...]) -> dict[str, str]:
    """What was typed, by key: the rest of the word, with its equals sign."""
    words = (word.lstrip("+").partition("=") for word in overrides)
    return {key: equals + value for key, equals, value in words}


def settings_of_group(group: str, overrides: tuple[str, ...]) -> dict[str, str]:
    """What was typed about the keys of a group, by key, without the group's name."""
    typed = (
        (key.replace(f"{group}.", "", 1), value)
        for key, value in _typed(overrides).items()
        if key.lstrip("~").startswith(f"{group}.")
    )
    return {key: key + value for key, value in typed}


def model_settings(
    model: str, overrides: tuple[str, ...], config: Mapping[str, Any] = MappingProxyType({})
) -> str:
    """What was typed about the model itself, as it stands behind its name: width=16 depth=40.

    And whether each image was evaluated with its mirror, which no accuracy may stand without.
    """
    said = settings_of_group("model", overrides)
    # Where one option stands for many models, the name of the model has it already.
    if model.endswith(f"/{said.get('name', '').partition('=')[2]}"):
        said.pop("name", None)
    if said.get("_target_") == f"_target_={model.partition('/')[0]}":
        said.pop("_target_")
    flips = (config.get("evaluation") or {}).get("flips") is True
    return " ".join([*said.values(), *["evaluation.flips=true"] * flips])


# --- published figures ----------------------------------------------------------------------------


def published(made: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The published figures of each row of a table, and how far ours are from them.

    Of all completed runs, repeats too, oldest first, with the number of their `row`, which is the
    index of the table. The columns are those of `PUBLISHED`, and `difference`, `_of` and `_in`.
    """
    # Of repeats too: the newest may have been typed out without its experiment. Several experiments
    # can lead to one recipe: the one it is published under says most.
    started = made[made["experiment"].notna() | made["published_source"].notna()]
    faithful = started["deviations"].map(len) == 0
    newest = started.assign(faithful=faithful).sort_values("faithful", kind="stable")
    figures = newest.drop_duplicates("row", keep="last").set_index("row")[PUBLISHED]
    figures = figures.reindex(table.index)
    figures["deviations"] = [
        value if isinstance(value, tuple) else () for value in figures["deviations"]
    ]
    # There are no published figures of synthetic data.
    names = [name for name in PUBLISHED if name.startswith("published_")]
    figures.loc[table["data"] == SYNTHETIC, names] = None
    ours = ["test_accuracy", "best_test_accuracy", "config", "precision", "overrides"]
    found = [_difference(row) for row in plain_rows(figures.join(table[ours]))]
    figures["difference"] = pd.array([share for share, _, _ in found], dtype="Float64")
    figures["difference_of"] = pd.Series([of for _, of, _ in found], table.index, dtype=object)
    figures["difference_in"] = pd.Series([other for *_, other in found], table.index, dtype=object)
    return figures


def compared(row: Row) -> tuple[float, ...]:
    """Our accuracies that a published one is compared with, one a seed.

    Those of the best epochs on the test set where the `difference` is of them, else those of the
    last epochs.
    """
    key = "best_accuracies" if row["difference_of"] == BEST_ON_TEST else "accuracies"
    return tuple(row[key])


def is_like_with_like(row: Row) -> bool:
    """Whether ours were chosen and computed as the published one was, as far as is known."""
    chosen = row["published_protocol"] != BEST_ON_TEST or row["difference_of"] == BEST_ON_TEST
    return bool(chosen and row["difference_in"] is None)


def _difference(row: Row) -> tuple[float | None, str | None, str | None]:
    """Our accuracy less the published one, which of ours, and in which number format.

    The first two are None where the recipe is another, the third where it is the recipe's own:
    fp32, unless the experiment's file says another. Earlier records left it to the hardware.
    """
    config, other = msgspec.json.decode(row["config"]), None
    if row["experiment"] is not None and row["precision"] not in (None, "fp32"):
        typed = "precision" in _typed(row["overrides"])
        of_recipe = not typed and config.get("precision") == row["precision"]
        other = None if of_recipe else row["precision"]
    theirs, ours = row["published_accuracy"], row["test_accuracy"]
    if theirs is None or row["deviations"] or ours is None:
        return None, None, other
    every = config.get("evaluation", {}).get("every")
    ours, of = comparable(row["published_protocol"], ours, row["best_test_accuracy"], every=every)
    return ours - theirs, of, other


# --- what sets rows apart -------------------------------------------------------------------------


def differences(rows: Sequence[Row]) -> list[str]:
    """For each row of a data set what sets it apart from those that look the same; mostly nothing.

    One pass over the rows of a group: a sweep may have thousands that differ in one number.
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
    known = dict.fromkeys(key for one in settings for key in one)
    keys = [key for key in known if len({one.get(key) for one in settings}) > 1]
    options = {key for key in keys if "." not in key}
    # An option that differs says it all; what it is made of follows only where it does not.
    children = [key for key in keys if "." in key and key.partition(".")[0] in options]
    last = [key for key in keys if key in (*HASHES, *COUNTS)]
    spoken = [key for key in keys if key not in children and key not in last]
    spoken += _telling(settings, [*children, *last], given=spoken)
    if len(spoken) > MOST_DIFFERENCES:
        first = dict.fromkeys([*_telling(settings, spoken), *spoken])
        spoken = sorted([*first][:MOST_DIFFERENCES], key=spoken.index)
    said = [
        ", ".join(
            f"{one_line(key, LONGEST)}={one_line(setting.get(key, UNSET), LONGEST)}"
            for key in spoken
            # What another option is made of is not missing here.
            if key in setting or "." not in key or key.partition(".")[0] not in options
        )
        for setting in settings
    ]
    if len(set(said)) == len(said):
        return said
    # Their configs are silent about it (or too long), but their hashes are not.
    return [
        ", ".join(filter(None, [text, f"configuration {row['configuration'][:8]}"]))
        for text, row in zip(said, rows, strict=True)
    ]


def _telling(
    rows: Sequence[Mapping[str, str]], keys: Iterable[str], given: Sequence[str] = ()
) -> list[str]:
    """Those of the keys that tell rows apart which the given ones, and those before, do not."""
    classes = _numbered([tuple(row.get(key) for key in given) for row in rows])
    found = []
    for key in keys:
        finer = _numbered([(n, row.get(key)) for n, row in zip(classes, rows, strict=True)])
        if max(finer) > max(classes):
            classes = finer
            found.append(key)
    return found


def _numbered(classes: Sequence[Any]) -> list[int]:
    """A small number for each class, so that classes of classes stay cheap to compare."""
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(one, len(numbers)) for one in classes]


def settings_of(row: Row) -> dict[str, str]:
    """All that may tell two rows apart, as texts under dotted names."""
    options = ("scheduler", "loss", "averaging")
    settings = {name: str(row[name]) for name in options if row.get(name) is not None}
    settings |= _NEUTRAL
    settings |= {
        key: _as_text(value)
        for key, value in leaves(msgspec.json.decode(row["config"] or "{}"))
        if key not in ("data.name", FOLD) and ("." in key or key in schema.DECIDING)
    }
    settings |= {name: str(row[name]) for name in schema.HARDWARE if row[name] is not None}
    settings |= {name: row[name][:8] for name in HASHES if row[name] is not None}
    return settings | {name: str(row[name]) for name in COUNTS if row[name] is not None}


def _as_text(value: Any) -> str:
    if type(value) in (int, float):
        return repr(value)  # as JSON has it, without the time that its encoder takes
    return value if isinstance(value, str) else json.dumps(value)


_NEUTRAL = {key: _as_text(value) for key, value in schema.NEUTRAL_DECIDING.items()}
