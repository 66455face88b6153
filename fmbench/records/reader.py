"""Run folders to one pandas table: every readable record a row, every unreadable one a problem.

What searches say of themselves is found on the way.

A folder of runs is never perfect: jobs are killed while they write, disks fill up, a colleague
uses a newer version. Such a record costs its own row and nothing else.
"""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd

from fmbench.core.console import logger, typed_path
from fmbench.core.files import read_regular
from fmbench.records.gather import (
    COLUMNS,
    GROUPS,
    MAX_BYTES,
    Batch,
    Problem,
    Progress,
    files_below,
    is_count,
    read,
)
from fmbench.records.record import HISTORY_NAME, RESULT_NAME, Record, Scores
from fmbench.records.suspects import SuspectedTest
from fmbench.records.trials import Search
from fmbench.records.tuned import Tuned
from fmbench.records.validation import UnreadableError

#: Lines of a history: a longer one would take gigabytes.
MOST_EPOCHS = 100_000

_DTYPES = {str: "str", int: "Int64", float: "float64", bool: "boolean"}


def _dtype(part: str, name: str) -> str:
    if part == "config":  # which has any keys
        return "Int64" if name == "threads" else "str"
    if part == "corrupted":
        return "float64" if name == "mean" else "str"
    if part == "test_scores":
        return _DTYPES[_type(Scores, name)]
    return _DTYPES[_type(_type(Record, part) if part else Record, name)]


def _type(of: type, name: str) -> Any:
    """The type of a field where it is not None."""
    hint = get_type_hints(of)[name]
    return next((one for one in get_args(hint) if one is not NoneType), hint)


#: The columns of the table, and their types.
DTYPES = {
    **{column: _dtype(part, name) for column, part, name in COLUMNS},
    **dict.fromkeys(("overrides", "deviations", "config_dirs"), "object"),
    **dict.fromkeys(("about_data", "config", "folder", "tuning"), "str"),
}

log = logger(__name__)


@dataclass(frozen=True)
class Results:
    """What was found below some folders, in the order of the paths."""

    frame: pd.DataFrame  # one row a run; see `load_results` for its columns
    problems: list[Problem]
    searches: dict[str, Search] = field(default_factory=dict)  # by folder
    comparisons: dict[str, Tuned] = field(default_factory=dict)  # tuned ones, by folder
    suspects: list[SuspectedTest] = field(default_factory=list)  # of `fmbench suspects`


def load_results(*folders: str | Path) -> pd.DataFrame:
    """Read every run below some folders into one table, for a notebook.

    A record that cannot be read is logged as a warning and left out.

    Args:
        *folders: Run folders, sweep folders, or whatever holds them. Overlap does no harm.

    Returns:
        One row a run. Accuracies are shares from 0 to 1, `seconds_*` are seconds,
        `peak_memory` is bytes, `flops` counts the forward pass of one image (a multiply-add
        as two), `test_nll` and the like are the scores of the test images
        (`fmbench.records.scores`), `started` is a UTC time, `config`, `about_data` and `tuning`
        (how the settings were searched for) are JSON texts, `overrides` and `deviations` are tuples
        of texts, `published_*` are the figures of the run's experiment, `folder` is where the run
        lies. What a record does not know is missing in pandas' sense.
        A `status` of "running" says that the run is still under way, or was killed. A completed
        run without a `test_accuracy` is a trial of a search, which looks at its best trial alone
        on the test set.

    Raises:
        ConfigError: A folder does not exist.
    """
    results = read_results(*folders)
    for problem in results.problems:
        log.warning("%s", problem)
    return results.frame


def read_results(*folders: str | Path, progress: Progress | None = None) -> Results:
    """Read every run and search below some folders, and say which could not be read.

    Symbolic links to folders are not followed below the given ones, and no record counts twice,
    whatever links lead to it. `progress` is told after every 500 records how many were read.

    Raises:
        ConfigError: A folder does not exist.
    """
    problems: list[Problem] = []
    paths = files_below(folders, problems)
    batch = Batch(problems=problems)
    for done in range(0, len(paths), 500):
        if progress is not None:
            progress(done, len(paths))
        batch.read(paths[done : done + 500])
    return results([batch])


def results(batches: Sequence[Batch]) -> Results:
    """What batches of files say, as one table."""
    found = Results(_frame(batches), [])
    for batch in batches:
        found.problems.extend(batch.problems)
        found.searches.update(batch.searches)
        found.comparisons.update(batch.comparisons)
        found.suspects.extend(batch.suspects)
    found.problems.sort(key=lambda problem: problem.path)
    return found


def read_records(*folders: str | Path, problems: list[Problem]) -> Iterator[tuple[Path, Record]]:
    """Every record below some folders with its folder, in the order of the paths.

    One that cannot be read is noted in `problems`.

    Raises:
        ConfigError: A folder does not exist.
    """
    for path in files_below(folders, problems):
        folder, name = os.path.split(path)
        if name != RESULT_NAME:
            continue
        try:
            yield Path(folder), Record.from_json(read(path, name))
        except UnreadableError as error:
            problems.append(Problem(Path(path), str(error)))


def read_history(folder: str | Path) -> list[dict[str, float]]:
    """Read the epochs of a run, for a notebook or a picture.

    Returns:
        A dict for each line of `history.jsonl`, with `epoch` (counted from 0) and whichever of
        `learning_rate`, `seconds` (of training), `train_loss`, `train_accuracy`, the same of
        `validation_` and `test_`, and `balanced_accuracy` (on the validation part) it has. `wall`
        is seconds from the beginning of training to the epoch's end, its evaluations included: the
        clocks of training and evaluation together, which stand still while a checkpoint is written
        or the run is stopped. The sum of `seconds` up to an epoch is the training clock alone. A
        line that is half-written, or has no epoch, is left out, and so is a value that is not a
        finite number. Of a file that is longer than any run the first `MOST_EPOCHS` lines count.
    """
    return counted_history(folder)[0]


def counted_history(folder: str | Path) -> tuple[list[dict[str, float]], int]:
    """The same, and how many lines were read for it."""
    path = typed_path(str(folder)) / HISTORY_NAME
    try:
        lines = read_regular(path, MAX_BYTES[HISTORY_NAME]).splitlines()[:MOST_EPOCHS]
    except OSError:
        return [], 0
    epochs = []
    for line in lines:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if type(values) is dict and is_count(values.get("epoch")):
            epochs.append({name: x for name, x in values.items() if _is_finite(x)})
    return epochs, len(lines)


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _frame(batches: Sequence[Batch]) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for place, names in enumerate(GROUPS):
        values: dict[tuple[Any, ...], int] = {}
        numbers = [np.empty(0, np.intp)]
        for batch in batches:
            own = [values.setdefault(one, len(values)) for one in batch.values[place]]
            numbers.append(np.array(own, np.intp)[np.asarray(batch.numbers[place])])
        rows = np.concatenate(numbers)
        of_columns = zip(*values, strict=True) if values else itertools.repeat(())
        for name, of in zip(names, of_columns, strict=False):
            distinct = pd.Series(list(of), dtype=DTYPES[name]).array
            columns[name] = distinct if len(distinct) == len(rows) else distinct.take(rows)
    frame = pd.DataFrame(columns)
    started = pd.to_datetime(frame["started"], format="ISO8601", utc=True, errors="coerce")
    frame["started"] = started.dt.as_unit("us")
    return frame
