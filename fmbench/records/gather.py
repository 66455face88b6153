"""The files of runs, searches and suspected labels below some folders: found, read, checked.

Without pandas, which takes long to import: a second process can begin to read at once.
"""

import itertools
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fmbench.config.schema import CORRUPTIONS
from fmbench.core.console import typed_path
from fmbench.core.errors import ConfigError
from fmbench.core.files import as_text, entries_below, read_regular
from fmbench.records import suspects, trials, tuned
from fmbench.records.record import MOST_BYTES, RESULT_NAME, Record, Scores
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

#: Characters of why a run failed, which may quote its config; a longer one is cut.
_LONGEST_ERROR = 10_000


#: Characters of a label; a longer one is none.
_LONGEST_LABEL = 200


def _of(part: str, fields: str, prefix: str = "") -> list[tuple[str, str, str]]:
    return [(prefix + field, part, field) for field in fields.split()]


#: Where a column comes from: its name, the part of the record ("" for the record), the field.
COLUMNS = (
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

#: The same in groups of one part.
_OF_PARTS = tuple(
    (part, tuple(field for *_, field in columns))
    for part, columns in itertools.groupby(COLUMNS, lambda column: column[1])
)
_PARTS = {part for part, _ in _OF_PARTS} - {"", "test_scores"}

#: The groups of the table's columns, by their names: equal values of many records are kept once.
GROUPS = (
    *(
        tuple(name for name, *_ in columns)
        for _, columns in itertools.groupby(COLUMNS, lambda column: column[1])
    ),
    ("overrides", "deviations", "config_dirs"),
    ("about_data",),
    ("config", "folder", "tuning"),
)

#: Told how many records were read, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """A record, or a file of a search or of suspects, that could not be read."""

    path: Path  # the file (or the folder that could not be listed)
    reason: str  # what is wrong with it, in a few words

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def files_below(folders: Iterable[str | Path], problems: list[Problem]) -> list[str]:
    """The files of `MAX_TOTAL` below some folders, in the order of their paths.

    As `find` has them, which notes in `problems` what cannot be looked at, and `bounded`.
    """
    return bounded(find(folders, problems), problems)


def bounded(found: Iterable[tuple[str, int]], problems: list[Problem]) -> list[str]:
    """The paths of files of some sizes, in their order, as long as all are within `MAX_TOTAL`.

    Those behind them are noted in `problems`.
    """
    left = dict(MAX_TOTAL)
    paths = []
    for path, size in sorted(found):
        name = os.path.basename(path)  # noqa: PTH119 - of 100,000
        # One that is too large is not read, which its reading says.
        left[name] -= size if size <= MAX_BYTES[name] else 0
        if left[name] >= 0:
            paths.append(path)
        else:
            reason = f"not read: all before it have {MAX_TOTAL[name]:,} bytes"
            problems.append(Problem(Path(path), reason))
    return paths


@dataclass
class Batch:
    """What some files say. Equal values of many records are kept once, in groups of columns."""

    #: For each group of columns its distinct values, numbered as they came; and for each record the
    #: number of its values. Each group has a dict of its own, since 1 and True are equal keys.
    values: list[dict[tuple[Any, ...], int]] = field(default_factory=lambda: [{} for _ in GROUPS])
    numbers: list["array[int]"] = field(default_factory=lambda: [array("I") for _ in GROUPS])
    problems: list[Problem] = field(default_factory=list)
    searches: dict[str, Search] = field(default_factory=dict)  # by folder
    comparisons: dict[str, Tuned] = field(default_factory=dict)  # tuned ones, by folder
    suspects: list[SuspectedTest] = field(default_factory=list)  # of `fmbench suspects`

    def read(self, paths: Iterable[str]) -> None:
        """Read more files; one that cannot be read is a problem."""
        for path in paths:
            folder, name = os.path.split(path)
            try:
                content = read(path, name)
                if name == SEARCH_NAME:
                    self.searches[as_text(folder)] = Search.from_json(content)
                elif name == TUNED_NAME:
                    self.comparisons[as_text(folder)] = Tuned.from_json(content)
                elif name == SUSPECTS_NAME:
                    self.suspects += SuspectedTests.from_json(content).tests
                else:
                    groups = _groups(Record.from_json(content), as_text(folder))
                    for values, numbers, one in zip(self.values, self.numbers, groups, strict=True):
                        numbers.append(values.setdefault(one, len(values)))
            except UnreadableError as error:
                self.problems.append(Problem(Path(path), str(error)))


def find(folders: Iterable[str | Path], problems: list[Problem]) -> Iterator[tuple[str, int]]:
    """Every file of `MAX_TOTAL` below some folders, with its size.

    Symbolic links to folders are not followed below the given ones, and no file is there twice,
    whatever links lead to it. What cannot be looked at is noted in `problems`.

    Raises:
        ConfigError: A folder does not exist.
    """

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
                yield entry.path, status.st_size


def read(path: str, name: str) -> bytes:
    """The content of a file of this name; UnreadableError where it cannot be read."""
    try:
        return read_regular(path, MAX_BYTES[name])
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from None


def _groups(run: Record, folder: str) -> Iterator[tuple[Any, ...]]:
    """The values of the columns, in their order; what the record does not know is None."""
    if run.error is not None and len(run.error) > _LONGEST_ERROR:
        run.error = f"{run.error[:_LONGEST_ERROR]}..."
    parts: dict[str, Any] = {part: getattr(run, part) or {} for part in _PARTS}
    parts[""] = vars(run)
    threads, label = run.config.get("threads"), run.config.get("label")
    parts["config"] = {
        "threads": threads if is_count(threads) else None,
        "label": label if type(label) is str and len(label) <= _LONGEST_LABEL else None,
    }
    if run.corrupted is not None:
        each = _json(run.corrupted["accuracies"])
        parts["corrupted"] = {"mean": _mean_of_corrupted(run), "accuracies": each}
    parts["test_scores"] = run.scores.get("test") or {}
    for part, names in _OF_PARTS:
        yield tuple(map(parts[part].get, names))
    # In one column: classes, shape and the like are looked at, not computed with.
    about = {key: value for key, value in run.data.items() if key not in ("name", "sha256")}
    tuning = None if run.tuning is None else _json(run.tuning)
    yield (tuple(run.overrides), tuple(run.deviations), tuple(run.config_dirs))
    yield (_json(about),)
    yield (_json(run.config), folder, tuning)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number that a column can hold; a bool is none."""
    return type(value) is int and 0 <= value <= 2**53


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _mean_of_corrupted(run: Record) -> float | None:
    """The mean accuracy over all corruptions and severities; None where not all were evaluated."""
    if run.corrupted is None or run.corrupted["accuracies"].keys() != {*CORRUPTIONS}:
        return None
    found = run.corrupted["accuracies"].values()
    return math.fsum(map(math.fsum, found)) / sum(map(len, found))
