"""What a record must hold to become a row of the results table.

A record is checked here, once, so that whatever reads the table afterwards may trust types, ranges
and depth, whoever wrote the file.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from fmbench.config.schema import renamed
from fmbench.core.errors import without_password
from fmbench.records.identity import keys_of
from fmbench.records.record import (
    COMPLETED,
    DIVERGED,
    FAILED,
    INTERRUPTED,
    OLDEST,
    PRUNED,
    RUNNING,
    SCHEMA,
)

STATUSES = (COMPLETED, DIVERGED, FAILED, INTERRUPTED, PRUNED, RUNNING)

# A composed config is four deep. What is nested much deeper was made to exhaust the stack of
# whoever walks through it.
MAX_DEPTH = 50


# Characters of a name: a longer one is cut, or it would fill the screen and every page. Why a run
# failed may quote its config.
LONGEST, LONGEST_ERROR = 1_000, 10_000

# Of a list of texts, such as the overrides of a run: how many, and their characters together.
MOST_TEXTS, MOST_CHARACTERS = 1_000, 100_000


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
    Field("runs_at_once", "", "runs_at_once", COUNT),
    *_fields("", SHARE, "train_accuracy validation_accuracy test_accuracy best_test_accuracy"),
    *_fields("", LOSS, "train_loss validation_loss test_loss"),
    *_fields("seconds", AMOUNT, "train evaluate total", prefix="seconds_"),
    Field("device_type", "fingerprint", "device", TEXT),
    *_fields("fingerprint", TEXT, "python torch processor precision memory_format"),
    *_fields("fingerprint", COUNT, "threads"),
    Field("threads_asked", "config", "threads", COUNT),
    *_fields("fingerprint", FLAG, "deterministic cuda_graphs"),
    Field("experiment", "", "experiment", TEXT),
    *_fields("reference", SHARE, "accuracy", prefix="published_"),
    *_fields("reference", COUNT, "parameters", prefix="published_"),
    *_fields("reference", AMOUNT, "seconds", prefix="published_"),
    *_fields("reference", TEXT, "device protocol source", prefix="published_"),
    *_fields("reference", FLAG, "approximate", prefix="published_"),
    Field("config_dir", "", "config_dir", FLAG),  # of older records: there were folders
    Field("trust", "", "trust", TEXT),
    Field("source", "", "source", TEXT),
    Field("git_commit", "git", "commit", TEXT),
    Field("git_dirty", "git", "dirty", FLAG),
)
PARTS = tuple(dict.fromkeys(field.part for field in FIELDS if field.part))

#: The columns that `to_row` gives, in its order, and their types.
DTYPES = {field.column: field.kind.dtype for field in FIELDS} | {
    "overrides": "object",
    "deviations": "object",
    "config_dirs": "object",
    "config": "str",
}

ALWAYS = ("key", "configuration", "status")
WHEN_COMPLETED = ("model", "data", "test_accuracy")

compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class UnreadableError(Exception):
    """Why a record does not become a row."""


def to_row(record: Any) -> tuple[Any, ...]:
    """Check a record and flatten it.

    Args:
        record: Whatever a result.json held.

    Returns:
        The values of the columns in `DTYPES`; what the record does not know is None.

    Raises:
        UnreadableError: It is no record of this schema, or a value is of the wrong kind.
    """
    if type(record) is not dict:
        raise UnreadableError("not a record: its JSON is not an object")
    check_schema(record.get("schema"), SCHEMA, OLDEST)
    parts = {"": record}
    for part in (*PARTS, "choices", "config"):
        inner = record.get(part)
        if inner is not None and type(inner) is not dict:
            raise UnreadableError(f"{part} is {brief(inner)}, not an object")
        parts[part] = inner or {}
    texts = [_texts(record, name) for name in ("overrides", "deviations", "config_dirs")]
    _check_depth(parts["config"])
    config = renamed(parts["config"])
    evaluated = config["evaluation"].get("test") != "never"
    if record["schema"] < SCHEMA:
        key, configuration = keys_of(record)
        parts[""] = record | {"key": key, "configuration": configuration}

    row: dict[str, Any] = {}
    for column, part, name, kind in FIELDS:
        value = parts[part].get(name)
        if value is not None and not kind.holds(value):
            where = f"{part}.{name}" if part else name
            raise UnreadableError(f"{where} is {brief(value)}, not {kind.meaning}")
        if kind is TEXT and value is not None and len(value) > LONGEST:
            value = _cut(value, column)
        row[column] = value
    if row["data"] is None and type(parts["choices"].get("data")) is str:
        row["data"] = parts["choices"]["data"]  # the run ended before it saw its data
    _check_required(row, evaluated=evaluated)
    return (*row.values(), *texts, compact(config))


def _cut(text: str, column: str) -> str:
    most = LONGEST_ERROR if column == "error" else LONGEST
    return text if len(text) <= most else f"{text[:most]}..."


def _texts(record: dict[str, Any], name: str) -> tuple[str, ...]:
    texts = record.get(name) or []
    if type(texts) is not list or not all(type(item) is str for item in texts):
        raise UnreadableError(f"{name} is not a list of texts")
    if len(texts) > MOST_TEXTS or sum(map(len, texts)) > MOST_CHARACTERS:
        raise UnreadableError(
            f"{name} has more than {MOST_TEXTS:,} texts, or {MOST_CHARACTERS:,} characters"
        )
    return tuple(texts)


def check_schema(schema: Any, known: int, oldest: int | None = None) -> None:
    """Refuse a file of another schema.

    Args:
        schema: What the file says.
        known: The newest that is read here.
        oldest: The oldest; by default the newest alone.

    Raises:
        UnreadableError: It is another one.
    """
    if type(schema) is int and schema > known:
        raise UnreadableError(
            f"schema {brief(schema)} is newer than this fmbench reads ({known}): upgrade fmbench"
        )
    oldest = known if oldest is None else oldest
    if type(schema) is not int or schema < oldest:
        read = f"{oldest} to {known}" if oldest < known else str(known)
        raise UnreadableError(f"schema is {brief(schema)}, not {read}")


def _check_depth(config: dict[str, Any]) -> None:
    # Level by level: a recursive walk is what a deep config breaks.
    level: list[Any] = [config]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise UnreadableError(f"config is nested deeper than {MAX_DEPTH}")


def _check_required(row: dict[str, Any], *, evaluated: bool) -> None:
    required: tuple[str, ...] = ALWAYS
    if row["status"] == COMPLETED:
        required += WHEN_COMPLETED
    if row["validation_accuracy"] is not None or not evaluated:
        # A trial of a search: only the best is looked at on the test set, once. Or a run that was
        # to take no look (`evaluation.test=never`).
        required = tuple(name for name in required if name != "test_accuracy")
    missing = [name for name in required if row[name] is None]
    if missing:
        raise UnreadableError(f"lacks {', '.join(missing)}")
    if row["status"] not in STATUSES:
        raise UnreadableError(f"status is {brief(row['status'])}, none of {', '.join(STATUSES)}")


def brief(value: Any) -> str:
    """A value of a file as an error quotes it: short, and in ASCII."""
    if type(value) is float and not math.isfinite(value):
        return "not finite"
    if type(value) is int and abs(value) > 2**64:  # printing a long one takes long, or fails
        return "a huge number"
    text = without_password(ascii(value))
    return text if len(text) <= 40 else f"{text[:40]}..."
