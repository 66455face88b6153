"""What a search tried and what came of it: `search.json` in a sweep's folder.

The sweeper writes the file again after each trial, the report reads it. It may come from a
stranger, so all of it is checked where it is read, and what reads it afterwards may trust types and
ranges. Texts may still say anything: they are escaped where they are shown.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from fmbench.records.validation import (
    AMOUNT,
    COUNT,
    SEED,
    SHARE,
    TEXT,
    Kind,
    UnreadableError,
    brief,
    check_schema,
)

SCHEMA = 1
SEARCH_NAME = "search.json"

#: Of such a file; a trial has some hundred.
MOST_BYTES = 2**24

#: The database of a search that has none of its own, in the sweep's folder.
DATABASE_NAME = "study.db"

#: What became of a trial. One that is `running` may have been killed.
COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"
STATES = (COMPLETE, PRUNED, FAILED, RUNNING)

MAXIMIZE, MINIMIZE = "maximize", "minimize"
DIRECTIONS = (MAXIMIZE, MINIMIZE)

#: What is searched for by default; others are `parameters`, `flops` and `train_seconds`.
VALIDATION_ACCURACY = "validation_accuracy"
MOST_OBJECTIVES = 3

Parameter = str | int | float | bool | None

_NUMBER = Kind(
    "float64",
    lambda x: (type(x) is float and abs(x) < 1e300) or (type(x) is int and abs(x) <= 2**53),
    "a finite number",
)
_EPOCH = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Objective:
    """What is searched for.

    Attributes:
        name: `validation_accuracy`, `parameters`, `flops` or `train_seconds`.
        direction: `maximize` or `minimize`.
    """

    name: str
    direction: str = MAXIMIZE

    @property
    def sign(self) -> int:
        """Times this, more is better."""
        return 1 if self.direction == MAXIMIZE else -1


@dataclass(frozen=True)
class Trial:
    """One run of a search.

    Attributes:
        number: counted from 0.
        state: one of `STATES`.
        parameters: the values that were tried, by key of the config.
        values: one for each objective; every complete trial has them, a pruned one may.
        reports: the first objective by epoch, as far as it was reported; None where it was not
            finite.
        folder: of the run, below the sweep's folder, or the absolute path of another driver's; None
            where the trial came to no folder.
        seconds: of training.
        error: why it failed.
    """

    number: int
    state: str
    parameters: dict[str, Parameter]
    values: tuple[float, ...] | None = None
    reports: dict[int, float | None] = field(default_factory=dict)
    folder: str | None = None
    seconds: float | None = None
    error: str | None = None

    @property
    def last_report(self) -> float | None:
        """The last finite value that was reported."""
        known = [epoch for epoch, value in self.reports.items() if value is not None]
        return self.reports[max(known)] if known else None


@dataclass(frozen=True)
class Search:
    """`search.json`, schema 1.

    Attributes:
        study: its name.
        sampler: what chose the values, as Optuna names it.
        pruner: what gave trials up; "none" where nothing did.
        total: how many trials were asked for.
        objectives: one to three.
        trials: in any order.
        importances: the share of each parameter in what moves the first objective; None where it
            cannot be said.
        best: numbers of the best trial, or of the Pareto front where there are several objectives.
    """

    study: str
    sampler: str
    pruner: str
    total: int
    objectives: tuple[Objective, ...]
    trials: tuple[Trial, ...]
    importances: dict[str, float] | None = None
    best: tuple[int, ...] = ()

    def to_json(self) -> str:
        """The text of `search.json`.

        Raises:
            ValueError: `from_json` would refuse it: a value is not finite, say.
        """
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"
        Search.from_json(text)
        return text

    @classmethod
    def from_json(cls, text: str) -> "Search":
        """A search as `to_json` gave it.

        Raises:
            ValueError: it is none, it is one of another schema, or something in it is of the wrong
                kind or contradicts the rest.
        """
        try:
            content = json.loads(text)
            if "\\u" in text:  # half of a surrogate pair is fine in JSON but fits in no file
                json.dumps(content, ensure_ascii=False).encode("utf-8")
            return _search(content)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise ValueError(f"half-written or not JSON ({where})") from None
        except UnicodeEncodeError:
            raise ValueError("holds text that is not valid Unicode") from None
        except UnreadableError as error:
            raise ValueError(str(error)) from None
        except (ValueError, RecursionError):  # a number of 5,000 digits, 100,000 nested brackets
            raise ValueError("holds a value that is too long or too deep") from None


def _search(content: Any) -> Search:
    if type(content) is not dict:
        raise UnreadableError("not a search: its JSON is not an object")
    check_schema(content.get("schema"), SCHEMA)
    objectives = tuple(
        _objective(item, f"objectives[{place}]")
        for place, item in enumerate(_list(content, "objectives"))
    )
    names = [objective.name for objective in objectives]
    if not 1 <= len(names) <= MOST_OBJECTIVES or len(set(names)) < len(names):
        raise UnreadableError(f"objectives are not 1 to {MOST_OBJECTIVES} different ones")
    trials = tuple(
        _trial(item, f"trials[{place}]", len(names))
        for place, item in enumerate(_list(content, "trials"))
    )
    complete = {trial.number for trial in trials if trial.state == COMPLETE}
    if len({trial.number for trial in trials}) < len(trials):
        raise UnreadableError("two trials have one number")
    best = tuple(_list(content, "best"))
    if not all(type(number) is int and number in complete for number in best):
        raise UnreadableError(f"best is {brief(list(best))}, not numbers of complete trials")
    if len(set(best)) < len(best):
        raise UnreadableError("best names a trial twice")
    return Search(
        study=_take(content, "study", TEXT),
        sampler=_take(content, "sampler", TEXT),
        pruner=_take(content, "pruner", TEXT),
        total=_take(content, "total", COUNT),
        objectives=objectives,
        trials=trials,
        importances=_importances(content),
        best=best,
    )


def _objective(item: Any, where: str) -> Objective:
    _check_object(item, where)
    name, direction = (_take(item, key, TEXT, where) for key in ("name", "direction"))
    if direction not in DIRECTIONS:
        raise _wrong(f"{where}.direction", direction, f"none of {', '.join(DIRECTIONS)}")
    return Objective(name, direction)


def _trial(item: Any, where: str, objectives: int) -> Trial:
    _check_object(item, where)
    state = _take(item, "state", TEXT, where)
    if state not in STATES:
        raise _wrong(f"{where}.state", state, f"none of {', '.join(STATES)}")
    values = _take(item, "values", None, where)
    if values is not None:
        fits = type(values) is list and len(values) == objectives and all(map(_finite, values))
        if not fits or state in (FAILED, RUNNING):
            wanted = f"{objectives} finite numbers of a trial that is complete or pruned"
            raise _wrong(f"{where}.values", values, f"not {wanted}")
    elif state == COMPLETE:
        raise UnreadableError(f"{where} is complete and has no values")
    return Trial(
        number=_take(item, "number", COUNT, where),
        state=state,
        parameters=_parameters(item, where),
        values=None if values is None else tuple(map(float, values)),
        reports=_reports(item, where),
        folder=_folder(item, where),
        seconds=_take(item, "seconds", AMOUNT, where, optional=True),
        error=_take(item, "error", TEXT, where, optional=True),
    )


def _parameters(item: Mapping[str, Any], where: str) -> dict[str, Parameter]:
    parameters = _take(item, "parameters", None, where)
    _check_object(parameters, f"{where}.parameters")
    for key, value in parameters.items():
        plain = value is None or type(value) in (str, bool) or SEED.holds(value) or _finite(value)
        if not plain:
            wanted = "not a text, a finite number, true, false or null"
            raise _wrong(f"{where}.parameters[{brief(key)}]", value, wanted)
    return dict(parameters)


def _reports(item: Mapping[str, Any], where: str) -> dict[int, float | None]:
    reports = _take(item, "reports", None, where)
    _check_object(reports, f"{where}.reports")
    for epoch, value in reports.items():
        if not _EPOCH.fullmatch(epoch):
            raise _wrong(f"{where}.reports: the epoch", epoch, "which is no whole number")
        if value is not None and not _finite(value):
            raise _wrong(f"{where}.reports[{epoch}]", value, "not a finite number or null")
    return {int(epoch): None if x is None else float(x) for epoch, x in reports.items()}


def _folder(item: Mapping[str, Any], where: str) -> str | None:
    folder: str | None = _take(item, "folder", TEXT, where, optional=True)
    if folder is not None:
        posix = PurePosixPath(folder)
        absolute = posix.is_absolute() or PureWindowsPath(folder).is_absolute()
        # Nothing is opened by this name, but it is shown.
        if "\0" in folder or folder == "" or (not absolute and ".." in posix.parts):
            wanted = "neither below the sweep's folder nor absolute"
            raise _wrong(f"{where}.folder", folder, wanted)
    return folder


def _importances(content: Mapping[str, Any]) -> dict[str, float] | None:
    importances = _take(content, "importances", None)
    if importances is None:
        return None
    _check_object(importances, "importances")
    for key, value in importances.items():
        if not SHARE.holds(value):
            raise _wrong(f"importances[{brief(key)}]", value, f"not {SHARE.meaning}")
    return {key: float(value) for key, value in importances.items()}


def _take(
    item: Mapping[str, Any], key: str, kind: Kind | None, where: str = "", *, optional: bool = False
) -> Any:
    """A value that must be there, of a kind, or null where that is allowed."""
    name = f"{where}.{key}" if where else key
    if key not in item:
        raise UnreadableError(f"lacks {name}")
    value = item[key]
    if kind is not None and not kind.holds(value) and not (optional and value is None):
        raise _wrong(name, value, f"not {kind.meaning}")
    return value


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    items = _take(content, key, None)
    if type(items) is not list:
        raise _wrong(key, items, "not a list")
    return items


def _check_object(item: Any, where: str) -> None:
    if type(item) is not dict:
        raise _wrong(where, item, "not an object")


def _wrong(where: str, value: Any, wanted: str) -> UnreadableError:
    return UnreadableError(f"{where} is {brief(value)}, {wanted}")


def _finite(value: Any) -> bool:
    return _NUMBER.holds(value) and math.isfinite(value)
