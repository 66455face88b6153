"""Run folders to one pandas table: every readable record a row, every unreadable one a problem.

What searches say of themselves is found on the way.

A folder of runs is never perfect: jobs are killed while they write, disks fill up, a colleague
uses a newer version. Such a record costs its own row and nothing else. What a record must hold is
said in `fmbench.records.validation`.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.core.console import logger, typed_path
from fmbench.core.errors import ConfigError
from fmbench.core.files import read_regular
from fmbench.records import trials
from fmbench.records.record import HISTORY_NAME, MOST_BYTES, RESULT_NAME
from fmbench.records.trials import SEARCH_NAME, Search
from fmbench.records.validation import COUNT, DTYPES, UnreadableError, compact, to_row

#: Of each kind of file. Whatever is larger than this is none of it, and is not worth reading.
MAX_BYTES = {**MOST_BYTES, SEARCH_NAME: trials.MOST_BYTES}

#: Of all such files of a report: 400,000 records, or the searches of half a million trials.
MAX_TOTAL = {RESULT_NAME: 2**31, SEARCH_NAME: 2**26}

#: Lines of a history: a longer one would take gigabytes.
MOST_EPOCHS = 100_000

log = logger(__name__)

#: Told how many records were read, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """A record, or a search's file, that could not be read.

    Attributes:
        path: The file (or the folder that could not be listed).
        reason: What is wrong with it, in a few words.
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Results:
    """What was found below some folders.

    Attributes:
        frame: One row a run; see `load_results` for its columns.
        problems: The records that could not be read, in the order of their paths.
        searches: The searches among them by folder, in the order of their paths.
    """

    frame: pd.DataFrame
    problems: list[Problem]
    searches: dict[str, Search] = field(default_factory=dict)


def load_results(*folders: str | Path) -> pd.DataFrame:
    """Read every run below some folders into one table, for a notebook.

    A record that cannot be read is logged as a warning and left out.

    Args:
        *folders: Run folders, sweep folders, or whatever holds them. Overlap does no harm.

    Returns:
        One row a run. Accuracies are shares from 0 to 1, `seconds_*` are seconds,
        `peak_memory` is bytes, `flops` counts the forward pass of one image (a multiply-add
        as two), `started` is a UTC time, `config` is JSON text, `overrides` and `deviations` are
        tuples of texts, `published_*` are the figures of the run's experiment, `folder` is where
        the run lies. What a record does not know is missing in pandas' sense.
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
    whatever links lead to it.

    Args:
        *folders: Run folders, sweep folders, or whatever holds them.
        progress: Told after every 500 records how many were read, and of how many.

    Returns:
        The table, the problems, the searches.

    Raises:
        ConfigError: A folder does not exist.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    searches: dict[str, Search] = {}
    known: dict[str, str] = {}  # 100,000 records hold few different texts: each is kept once
    paths = sorted(_find(folders, problems))
    left = dict(MAX_TOTAL)
    for number, path in enumerate(paths):
        if progress is not None and number % 500 == 0:
            progress(number, len(paths))
        folder, name = os.path.split(path)
        try:
            text = _read(path, name, left)
            if name == SEARCH_NAME:
                searches[_printable(folder)] = _parse_search(text)
                continue
            row = [known.setdefault(x, x) if type(x) is str else x for x in _parse(text)]
            rows.append((*row, _printable(folder)))
        except UnreadableError as error:
            problems.append(Problem(Path(path), str(error)))
    return Results(_frame(rows), sorted(problems, key=lambda problem: problem.path), searches)


def read_history(folder: str | Path) -> list[dict[str, float]]:
    """Read the epochs of a run, for a notebook or a picture.

    Args:
        folder: A run folder.

    Returns:
        A dict for each line of `history.jsonl`, with `epoch` (counted from 0) and whichever of
        `learning_rate`, `seconds` (of training), `train_loss`, `train_accuracy` and the same of
        `validation_` and `test_` it has. A line that is half-written, or has no epoch, is left
        out, and so is a value that is not a finite number; where there is no such file the list is
        empty, and of one that is longer than any run the first `MOST_EPOCHS` lines count.
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
        if type(values) is dict and COUNT.holds(values.get("epoch")):
            epochs.append({name: x for name, x in values.items() if _is_finite(x)})
    return epochs, len(lines)


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _find(folders: tuple[str | Path, ...], problems: list[Problem]) -> Iterator[str]:
    seen: set[str] = set()
    inodes: set[tuple[int, int]] = set()
    for folder in map(typed_path, map(str, folders)):
        top = str(folder)
        if not os.path.isdir(top):  # noqa: PTH112 - Path.is_dir raises on too long a name
            quotes = '; conditions stand in quotes: --filter "A=1 B=2"' if "=" in top else ""
            raise ConfigError(f"{folder} is not a folder: give one that holds runs{quotes}")
        # Links are not followed on the way down, so only the top and linked files need resolving.
        # By os.path.realpath: Path.resolve raises on a link that leads to itself.
        resolved_top = os.path.realpath(top)
        for entry in _entries(top, problems):
            try:
                if entry.is_symlink():
                    resolved = os.path.realpath(entry.path)
                else:
                    resolved = resolved_top + entry.path[len(top) :]
                if resolved in seen:
                    continue
                seen.add(resolved)
                status = entry.stat()
                if status.st_nlink > 1:  # a file of a megabyte can have 100,000 names
                    if (status.st_dev, status.st_ino) in inodes:
                        continue
                    inodes.add((status.st_dev, status.st_ino))
            except OSError as error:
                problems.append(Problem(Path(entry.path), f"cannot be read: {error.strerror}"))
            else:
                yield entry.path


def _entries(top: str, problems: list[Problem]) -> Iterator["os.DirEntry[str]"]:
    """Whatever is called result.json or search.json at or below a folder, without recursion."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name in (RESULT_NAME, SEARCH_NAME):
                        yield entry
                    elif entry.name != ".hydra" and entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError as error:
            problems.append(Problem(Path(folder), f"cannot be listed: {error.strerror}"))


def _read(path: str, name: str, left: dict[str, int]) -> str:
    """The text of a file, and its size taken from what is left for files of its name."""
    try:
        content = read_regular(path, MAX_BYTES[name])
        text = content.decode("utf-8")
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnreadableError("not UTF-8 text") from None
    left[name] -= len(content)
    if left[name] < 0:
        raise UnreadableError(f"not read: all before it have {MAX_TOTAL[name]:,} bytes")
    if not text.strip("\0 \t\r\n"):
        raise UnreadableError("empty")
    return text


def _parse_search(text: str) -> Search:
    try:
        return Search.from_json(text)
    except ValueError as error:
        raise UnreadableError(str(error)) from None


def _parse(text: str) -> tuple[Any, ...]:
    try:
        record = json.loads(text)
        # Half of a surrogate pair is fine in JSON but can be written to no file.
        if "\\u" in text:
            compact(record).encode("utf-8")
        return to_row(record)
    except json.JSONDecodeError as error:
        raise UnreadableError(
            f"half-written or not JSON (line {error.lineno}, column {error.colno})"
        ) from None
    except UnicodeEncodeError:
        raise UnreadableError("holds text that is not valid Unicode") from None
    except (ValueError, RecursionError):  # a number of 5,000 digits, 100,000 nested brackets
        raise UnreadableError("holds a value that is too long or too deep") from None


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    dtypes = DTYPES | {"folder": "str"}
    values = zip(*rows, strict=True) if rows else [()] * len(dtypes)
    frame = pd.DataFrame(
        {
            column: pd.Series(list(column_values), dtype=dtype)
            for (column, dtype), column_values in zip(dtypes.items(), values, strict=True)
        }
    )
    started = pd.to_datetime(frame["started"], format="ISO8601", utc=True, errors="coerce")
    frame["started"] = started.dt.as_unit("us")
    return frame


def _printable(path: str) -> str:
    """A path that can be written to a UTF-8 file, whatever bytes its name is made of."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")
