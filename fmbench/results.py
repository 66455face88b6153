"""Run folders to one pandas table: every readable record a row, every unreadable one a problem.

A folder of runs is never perfect: jobs are killed while they write, disks fill up, a colleague
uses a newer version. Such a record costs its own row and nothing else. Records are checked here,
once, so that whatever reads the table afterwards may trust types and ranges.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fmbench.errors import ConfigError
from fmbench.record import COMPLETED, DIVERGED, FAILED, INTERRUPTED, RESULT_NAME, SCHEMA

STATUSES = (COMPLETED, DIVERGED, FAILED, INTERRUPTED, "running")

# A record is a few kilobytes. Whatever is larger than this is not one, and is not worth reading.
MAX_BYTES = 16 * 2**20

log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """What a field may hold."""

    dtype: str
    holds: Callable[[Any], bool]
    meaning: str


# `type(x) is int` on purpose: True is an int to Python, and a record of 10^400 is not a number.
TEXT = Kind("str", lambda x: type(x) is str, "a text")
FLAG = Kind("boolean", lambda x: type(x) is bool, "true or false")
COUNT = Kind("Int64", lambda x: type(x) is int and 0 <= x <= 2**53, "a whole number from 0 to 2^53")
SEED = Kind("Int64", lambda x: type(x) is int and -(2**63) <= x < 2**63, "a 64-bit whole number")
SHARE = Kind("float64", lambda x: type(x) in (float, int) and 0 <= x <= 1, "a number from 0 to 1")
AMOUNT = Kind(
    "float64", lambda x: type(x) in (float, int) and 0 <= x < 1e300, "a finite number of at least 0"
)
# The loss of a run that diverged is rightly not a number.
LOSS = Kind(
    "float64", lambda x: type(x) is float or (type(x) is int and abs(x) <= 2**53), "a number"
)


class Field(NamedTuple):
    """A column of the table and where a record keeps it."""

    column: str
    part: str  # the object inside the record; "" for the record itself
    name: str
    kind: Kind


def _fields(part: str, kind: Kind, names: str, prefix: str = "") -> list[Field]:
    return [Field(prefix + name, part, name, kind) for name in names.split()]


FIELDS = (
    *_fields("", TEXT, "key configuration status error fmbench_version started"),
    *_fields("", TEXT, "model augmentation optimizer scheduler device"),
    Field("data", "data", "name", TEXT),
    Field("data_sha256", "data", "sha256", TEXT),
    Field("split", "split", "name", TEXT),
    *_fields("split", COUNT, "train validation test", prefix="split_"),
    Field("split_hash", "split", "hash", TEXT),
    *_fields("", COUNT, "parameters flops batch_size epochs best_test_epoch peak_memory"),
    Field("seed", "", "seed", SEED),
    *_fields("", AMOUNT, "learning_rate images_per_second"),
    *_fields("", SHARE, "train_accuracy validation_accuracy test_accuracy best_test_accuracy"),
    *_fields("", LOSS, "train_loss validation_loss test_loss"),
    *_fields("seconds", AMOUNT, "train evaluate total", prefix="seconds_"),
    *_fields("fingerprint", TEXT, "python torch processor precision memory_format"),
    *_fields("fingerprint", COUNT, "threads"),
    *_fields("fingerprint", FLAG, "deterministic"),
    Field("git_commit", "git", "commit", TEXT),
    Field("git_dirty", "git", "dirty", FLAG),
)
PARTS = tuple(dict.fromkeys(field.part for field in FIELDS if field.part))

ALWAYS = ("key", "configuration", "status")
WHEN_COMPLETED = ("model", "data", "test_accuracy")

_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True)
class Problem:
    """A record that could not be read.

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
    """

    frame: pd.DataFrame
    problems: list[Problem]


class _UnreadableError(Exception):
    """Why a record does not become a row."""


def load_results(*folders: str | Path) -> pd.DataFrame:
    """Read every run below some folders into one table, for a notebook.

    A record that cannot be read is logged as a warning and left out.

    Args:
        *folders: Run folders, sweep folders, or whatever holds them. Overlap does no harm.

    Returns:
        One row a run. Accuracies are shares from 0 to 1, `seconds_*` are seconds,
        `peak_memory` is bytes, `flops` counts the forward pass of one image (a multiply-add
        as two), `started` is a UTC time, `config` is JSON text, `overrides` a tuple of texts,
        `folder` where the run lies. What a record does not know is missing in pandas' sense.

    Raises:
        ConfigError: A folder does not exist.
    """
    results = read_results(*folders)
    for problem in results.problems:
        log.warning("%s", problem)
    return results.frame


def read_results(*folders: str | Path) -> Results:
    """Read every run below some folders, and say which records could not be read.

    Symbolic links to folders are not followed below the given ones, and no record counts twice.

    Args:
        *folders: Run folders, sweep folders, or whatever holds them.

    Returns:
        The table and the problems.

    Raises:
        ConfigError: A folder does not exist.
    """
    rows: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    for path in sorted(_find(folders, problems)):
        try:
            rows.append((*_read(path), _printable(os.path.dirname(path))))  # noqa: PTH120 (speed)
        except _UnreadableError as error:
            problems.append(Problem(Path(path), str(error)))
    return Results(_frame(rows), sorted(problems, key=lambda problem: problem.path))


def _find(folders: tuple[str | Path, ...], problems: list[Problem]) -> Iterator[str]:
    seen: set[str] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder: give one that holds runs")
        top = str(folder)
        # Links are not followed on the way down, so only the top and linked files need resolving.
        resolved_top = str(folder.resolve())
        for entry in _entries(top, problems):
            if entry.is_symlink():
                resolved = str(Path(entry.path).resolve())
            else:
                resolved = resolved_top + entry.path[len(top) :]
            if resolved in seen:
                continue
            seen.add(resolved)
            # Opening a pipe would wait for ever; a link that leads nowhere ends here too.
            if not entry.is_file():
                problems.append(Problem(Path(entry.path), "not a regular file"))
            elif entry.stat().st_size > MAX_BYTES:
                problems.append(Problem(Path(entry.path), "too large for a record"))
            else:
                yield entry.path


def _entries(top: str, problems: list[Problem]) -> Iterator["os.DirEntry[str]"]:
    """Whatever is called result.json at or below a folder, without recursion."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name == RESULT_NAME:
                        yield entry
                    elif entry.name != ".hydra" and entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError as error:
            problems.append(Problem(Path(folder), f"cannot be listed: {error.strerror}"))


def _read(path: str) -> tuple[Any, ...]:
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _UnreadableError("not UTF-8 text") from None
    if not text.strip("\0 \t\r\n"):
        raise _UnreadableError("empty")
    try:
        record = json.loads(text)
        # Half of a surrogate pair is fine in JSON but can be written to no file.
        if "\\u" in text:
            _compact(record).encode("utf-8")
        return _row(record)
    except json.JSONDecodeError as error:
        raise _UnreadableError(
            f"half-written or not JSON (line {error.lineno}, column {error.colno})"
        ) from None
    except UnicodeEncodeError:
        raise _UnreadableError("holds text that is not valid Unicode") from None
    except (ValueError, RecursionError):  # a number of 5,000 digits, 100,000 nested brackets
        raise _UnreadableError("holds a value that is too long or too deep") from None


def _row(record: Any) -> tuple[Any, ...]:
    if type(record) is not dict:
        raise _UnreadableError("not a record: its JSON is not an object")
    _check_schema(record.get("schema"))
    parts = {"": record}
    for part in (*PARTS, "choices", "config"):
        inner = record.get(part)
        if inner is not None and type(inner) is not dict:
            raise _UnreadableError(f"{part} is {_brief(inner)}, not an object")
        parts[part] = inner or {}
    overrides = record.get("overrides") or []
    if type(overrides) is not list or not all(type(item) is str for item in overrides):
        raise _UnreadableError("overrides is not a list of texts")

    row: dict[str, Any] = {}
    for column, part, name, kind in FIELDS:
        value = parts[part].get(name)
        if value is not None and not kind.holds(value):
            where = f"{part}.{name}" if part else name
            raise _UnreadableError(f"{where} is {_brief(value)}, not {kind.meaning}")
        row[column] = value
    if row["data"] is None and type(parts["choices"].get("data")) is str:
        row["data"] = parts["choices"]["data"]  # the run ended before it saw its data
    _check_required(row)
    return (*row.values(), tuple(overrides), _compact(parts["config"]))


def _check_schema(schema: Any) -> None:
    if type(schema) is int and schema > SCHEMA:
        raise _UnreadableError(
            f"schema {_brief(schema)} is newer than this fmbench reads ({SCHEMA}): upgrade fmbench"
        )
    if type(schema) is not int or schema != SCHEMA:
        raise _UnreadableError(f"schema is {_brief(schema)}, not {SCHEMA}")


def _check_required(row: dict[str, Any]) -> None:
    required = ALWAYS + WHEN_COMPLETED if row["status"] == COMPLETED else ALWAYS
    missing = [name for name in required if row[name] is None]
    if missing:
        raise _UnreadableError(f"lacks {', '.join(missing)}")
    if row["status"] not in STATUSES:
        raise _UnreadableError(f"status is {_brief(row['status'])}, none of {', '.join(STATUSES)}")


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    dtypes = {field.column: field.kind.dtype for field in FIELDS}
    dtypes |= {"overrides": "object", "config": "str", "folder": "str"}
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


def _brief(value: Any) -> str:
    if type(value) is float and not math.isfinite(value):
        return "not finite"
    if type(value) is int and abs(value) > 2**64:  # printing a long one takes long, or fails
        return "a huge number"
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _printable(path: str) -> str:
    """A path that can be written to a UTF-8 file, whatever bytes its name is made of."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")
