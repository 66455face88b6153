"""Run folders to one pandas table: every readable record a row, every unreadable one a problem.

What searches say of themselves is found on the way.

A folder of runs is never perfect: jobs are killed while they write, disks fill up, a colleague
uses a newer version. Such a record costs its own row and nothing else.
"""

import itertools
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec
import pandas as pd

from fmbench.config.schema import CORRUPTIONS
from fmbench.core.console import logger, typed_path
from fmbench.core.errors import ConfigError
from fmbench.core.files import as_text, entries_below, read_regular
from fmbench.records import suspects, trials, tuned
from fmbench.records.record import HISTORY_NAME, MOST_BYTES, RESULT_NAME, Record, Scores
from fmbench.records.suspects import SUSPECTS_NAME, SuspectedTest, SuspectedTests
from fmbench.records.trials import SEARCH_NAME, Search
from fmbench.records.tuned import TUNED_NAME, Tuned
from fmbench.records.validation import UnreadableError

#: Of each kind of file. Whatever is larger than this is none of it, and is not worth reading.
MAX_BYTES = {
    **MOST_BYTES,
    SEARCH_NAME: trials.MOST_BYTES,
    TUNED_NAME: tuned.MOST_BYTES,
    SUSPECTS_NAME: suspects.MOST_BYTES,
}

#: Of all such files of a report: 400,000 records, or the searches of half a million trials.
MAX_TOTAL = {RESULT_NAME: 2**31, SEARCH_NAME: 2**26, TUNED_NAME: 2**27, SUSPECTS_NAME: 2**26}

#: Lines of a history: a longer one would take gigabytes.
MOST_EPOCHS = 100_000

#: Characters of why a run failed, which may quote its config; a longer one is cut.
_LONGEST_ERROR = 10_000


#: Characters of a label; a longer one is none.
_LONGEST_LABEL = 200


def _of(part: str, fields: str, prefix: str = "") -> list[tuple[str, str, str]]:
    return [(prefix + field, part, field) for field in fields.split()]


#: Where a column comes from: its name, the part of the record ("" for the record), the field.
_COLUMNS = (
    *_of("", "key configuration status error fmbench_version started"),
    *_of("", "model augmentation optimizer scheduler loss averaging device"),
    ("data", "data", "name"),
    ("data_sha256", "data", "sha256"),
    ("split", "split", "name"),
    *_of("split", "train validation test hash folds", prefix="split_"),
    ("fold", "split", "fold"),
    ("stage", "tuning", "stage"),
    ("tuning_epochs", "tuning", "epochs"),
    *_of("", "parameters flops batch_size epochs best_test_epoch stopped_epoch peak_memory"),
    *_of("", "seed learning_rate images_per_second runs_at_once"),
    *_of("", "train_accuracy validation_accuracy balanced_accuracy"),
    *_of("", "test_accuracy best_test_accuracy"),
    *_of("", "train_loss validation_loss test_loss"),
    *_of("seconds", "train evaluate total", prefix="seconds_"),
    ("corrupted_accuracy", "corrupted", "mean"),
    ("corrupted", "corrupted", "accuracies"),
    *_of("test_scores", " ".join(Scores.__annotations__), prefix="test_"),
    ("device_type", "fingerprint", "device"),
    *_of("fingerprint", "python torch processor precision memory_format threads"),
    ("threads_asked", "config", "threads"),
    ("label", "config", "label"),
    *_of("fingerprint", "deterministic cuda_graphs"),
    ("experiment", "", "experiment"),
    *_of("reference", "accuracy parameters seconds", prefix="published_"),
    *_of("reference", "device protocol source approximate", prefix="published_"),
    *_of("", "config_dir trust source"),
    *_of("git", "commit dirty", prefix="git_"),
)

#: The same in groups of one part: equal ones of many records are kept once.
_GROUPS = tuple(
    (part, tuple(field for *_, field in columns))
    for part, columns in itertools.groupby(_COLUMNS, lambda column: column[1])
)
_PARTS = {part for part, _ in _GROUPS} - {"", "test_scores"}
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
    **{column: _dtype(part, name) for column, part, name in _COLUMNS},
    **dict.fromkeys(("overrides", "deviations", "config_dirs"), "object"),
    **dict.fromkeys(("about_data", "config", "folder", "tuning"), "str"),
}

log = logger(__name__)

#: Told how many records were read, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """A record, or a file of a search or of suspects, that could not be read."""

    path: Path  # the file (or the folder that could not be listed)
    reason: str  # what is wrong with it, in a few words

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


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
    rows: list[tuple[tuple[Any, ...], ...]] = []
    problems: list[Problem] = []
    searches: dict[str, Search] = {}
    comparisons: dict[str, Tuned] = {}
    suspected: list[SuspectedTest] = []
    # Most groups of values are of many records. By their place in a row: to Python 1 is True.
    known: dict[int, dict[tuple[Any, ...], tuple[Any, ...]]] = defaultdict(dict)
    paths = sorted(_find(folders, problems))
    left = dict(MAX_TOTAL)
    for number, path in enumerate(paths):
        if progress is not None and number % 500 == 0:
            progress(number, len(paths))
        folder, name = os.path.split(path)
        try:
            content = _read(path, name, left)
            if name == SEARCH_NAME:
                searches[as_text(folder)] = Search.from_json(content)
                continue
            if name == TUNED_NAME:
                comparisons[as_text(folder)] = Tuned.from_json(content)
                continue
            if name == SUSPECTS_NAME:
                suspected += SuspectedTests.from_json(content).tests
                continue
            groups = enumerate(_groups(Record.from_json(content), as_text(folder)))
            rows.append(tuple(known[place].setdefault(one, one) for place, one in groups))
        except UnreadableError as error:
            problems.append(Problem(Path(path), str(error)))
    problems.sort(key=lambda problem: problem.path)
    return Results(_frame(rows), problems, searches, comparisons, suspected)


def read_records(*folders: str | Path, problems: list[Problem]) -> Iterator[tuple[Path, Record]]:
    """Every record below some folders with its folder, in the order of the paths.

    One that cannot be read is noted in `problems`.

    Raises:
        ConfigError: A folder does not exist.
    """
    left = dict(MAX_TOTAL)
    for path in sorted(_find(folders, problems)):
        folder, name = os.path.split(path)
        if name != RESULT_NAME:
            continue
        try:
            yield Path(folder), Record.from_json(_read(path, name, left))
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
        if type(values) is dict and _is_count(values.get("epoch")):
            epochs.append({name: x for name, x in values.items() if _is_finite(x)})
    return epochs, len(lines)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 2**53


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _find(folders: tuple[str | Path, ...], problems: list[Problem]) -> Iterator[str]:
    """Every file of `MAX_TOTAL` below some folders, each once whatever its names."""

    def unlisted(error: OSError) -> None:
        problems.append(Problem(Path(error.filename), f"cannot be listed: {error.strerror}"))

    seen: set[tuple[int, int]] = set()
    for folder in map(typed_path, map(str, folders)):
        top = str(folder)
        if not os.path.isdir(top):  # noqa: PTH112 - Path.is_dir raises on too long a name
            quotes = '; conditions stand in quotes: --filter "A=1 B=2"' if "=" in top else ""
            raise ConfigError(f"{folder} is not a folder: give one that holds runs{quotes}")
        for entry in entries_below(top, unlisted, without=".hydra"):
            if entry.name not in MAX_TOTAL:
                continue
            try:
                status = entry.stat()
            except OSError as error:
                problems.append(Problem(Path(entry.path), f"cannot be read: {error.strerror}"))
                continue
            file = status.st_dev, status.st_ino
            if not status.st_ino or file not in seen:  # 0 where the system does not number files
                seen.add(file)
                yield entry.path


def _read(path: str, name: str, left: dict[str, int]) -> bytes:
    """The content of a file, and its size taken from what is left for files of its name."""
    try:
        content = read_regular(path, MAX_BYTES[name])
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from None
    left[name] -= len(content)
    if left[name] < 0:
        raise UnreadableError(f"not read: all before it have {MAX_TOTAL[name]:,} bytes")
    return content


def _groups(run: Record, folder: str) -> Iterator[tuple[Any, ...]]:
    """The values of the columns, in their order; what the record does not know is None."""
    if run.error is not None and len(run.error) > _LONGEST_ERROR:
        run.error = f"{run.error[:_LONGEST_ERROR]}..."
    parts: dict[str, Any] = {part: getattr(run, part) or {} for part in _PARTS}
    parts[""] = vars(run)
    threads, label = run.config.get("threads"), run.config.get("label")
    parts["config"] = {
        "threads": threads if _is_count(threads) else None,
        "label": label if type(label) is str and len(label) <= _LONGEST_LABEL else None,
    }
    if run.corrupted is not None:
        each = _json(run.corrupted["accuracies"])
        parts["corrupted"] = {"mean": _mean_of_corrupted(run), "accuracies": each}
    parts["test_scores"] = run.scores.get("test") or {}
    for part, names in _GROUPS:
        yield tuple(map(parts[part].get, names))
    # In one column: classes, shape and the like are looked at, not computed with.
    about = {key: value for key, value in run.data.items() if key not in ("name", "sha256")}
    tuning = None if run.tuning is None else _json(run.tuning)
    yield (tuple(run.overrides), tuple(run.deviations), tuple(run.config_dirs))
    yield (_json(about),)
    yield (_json(run.config), folder, tuning)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _mean_of_corrupted(run: Record) -> float | None:
    """The mean accuracy over all corruptions and severities; None where not all were evaluated."""
    if run.corrupted is None or run.corrupted["accuracies"].keys() != {*CORRUPTIONS}:
        return None
    found = run.corrupted["accuracies"].values()
    return math.fsum(map(math.fsum, found)) / sum(map(len, found))


def _frame(rows: list[tuple[tuple[Any, ...], ...]]) -> pd.DataFrame:
    values = [column for group in zip(*rows, strict=True) for column in zip(*group, strict=True)]
    frame = pd.DataFrame(
        {
            column: pd.Series(list(of), dtype=dtype)
            for (column, dtype), of in zip(
                DTYPES.items(), values or [()] * len(DTYPES), strict=True
            )
        }
    )
    started = pd.to_datetime(frame["started"], format="ISO8601", utc=True, errors="coerce")
    frame["started"] = started.dt.as_unit("us")
    return frame
