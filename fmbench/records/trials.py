"""Trials of a search and their results: `search.json` in a sweep's folder.

The sweeper writes the file again after each trial, the report reads it. It may come from a
stranger, so all of it is checked where it is read. Texts may still say anything: they are escaped
where they are shown.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from msgspec import Meta
from msgspec.json import Decoder

from fmbench.records.validation import (
    Amount,
    Count,
    Number,
    Seed,
    Share,
    Text,
    decode,
    encode,
    one_of,
)

SCHEMA = 1
SEARCH_NAME = "search.json"

#: Of such a file; a trial has some hundred.
MOST_BYTES = 2**24

#: The study of a search whose storage is not named, in the sweep's folder: a database, or a journal
#: where workers on several machines write to it.
DATABASE_NAME, JOURNAL_NAME = "study.db", "study.journal"

#: A folder there with a lock for each trial that a worker has.
CLAIMS_NAME = ".workers"

#: What became of a trial. One that is `running` may have been killed.
COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"
INFEASIBLE = "infeasible"  # above `sweep.at_most`, and so not trained
STATES = (COMPLETE, PRUNED, INFEASIBLE, FAILED, RUNNING)

MAXIMIZE, MINIMIZE = "maximize", "minimize"
DIRECTIONS = (MAXIMIZE, MINIMIZE)

MOST_OBJECTIVES = 3

Parameter = Text | Seed | Number | bool | None
Epoch = Annotated[int, Meta(ge=0, lt=10**9)]


@dataclass(frozen=True)
class Objective:
    """What is searched for."""

    name: Text  # as `sweep.objective` has it
    direction: Annotated[str, one_of(*DIRECTIONS)]

    @property
    def sign(self) -> int:
        """Times this, more is better."""
        return 1 if self.direction == MAXIMIZE else -1


@dataclass(frozen=True)
class Trial:
    """One run of a search, or several that differ in their seeds or folds."""

    number: Count  # from 0
    state: Annotated[str, one_of(*STATES)]
    parameters: dict[Text, Parameter]  # the values that were tried, by key of the config
    # One for each objective; every complete trial has them, a pruned one may.
    values: tuple[Number, ...] | None = None
    # The first objective by epoch, or by run where there are several, as far as it was reported;
    # None where it was not finite.
    reports: dict[Epoch, Number | None] = field(default_factory=dict)
    # Of the first run, below the sweep's folder, or the absolute path of another driver's; None
    # where the trial came to no folder.
    folder: Annotated[Text, Meta(pattern=r"\A[^\0]+\Z")] | None = None
    seconds: Amount | None = None  # of training, of all runs
    # How many runs; the values are their means. They are in the folder and those numbered next.
    runs: Annotated[int, Meta(ge=1, le=10**6)] = 1
    error: str | None = None  # why it failed

    def __post_init__(self) -> None:
        if self.values is None and self.state == COMPLETE:
            raise ValueError("values: a complete trial has them")
        if self.values is not None and self.state not in (COMPLETE, PRUNED):
            raise ValueError("values: only of a trial that is complete or pruned")
        path = PurePosixPath(self.folder or "")
        absolute = path.is_absolute() or PureWindowsPath(self.folder or "").is_absolute()
        # Nothing is opened by this name, but it is shown.
        if not absolute and ".." in path.parts:
            raise ValueError("folder: neither below the sweep's folder nor absolute")

    @property
    def last_report(self) -> float | None:
        """The last finite value that was reported."""
        known = [epoch for epoch, value in self.reports.items() if value is not None]
        return self.reports[max(known)] if known else None


@dataclass(frozen=True)
class Search:
    """`search.json`, schema 1."""

    study: Text
    sampler: Text  # what chose the values, as Optuna names it
    pruner: Text  # what stopped trials early; "none" where nothing did
    total: Count  # how many trials were asked for
    objectives: Annotated[tuple[Objective, ...], Meta(min_length=1, max_length=MOST_OBJECTIVES)]
    trials: tuple[Trial, ...]  # in any order
    # The share of each parameter in what moves the first objective; None where it is not known.
    importances: dict[Text, Share] | None = None
    best: tuple[int, ...] = ()  # numbers of the best trial, or of the Pareto front
    runs: Annotated[int, Meta(ge=1, le=1000)] = 1  # of each trial that is to come

    def __post_init__(self) -> None:
        _refuse_twice("objectives", [one.name for one in self.objectives])
        _refuse_twice("trials", [one.number for one in self.trials])
        _refuse_twice("best", self.best)
        complete = {one.number for one in self.trials if one.state == COMPLETE}
        if not complete.issuperset(self.best):
            raise ValueError("best: not numbers of complete trials")
        values = [one.values for one in self.trials if one.values is not None]
        if any(len(of_trial) != len(self.objectives) for of_trial in values):
            raise ValueError("trials: values are not one for each objective")

    def to_json(self) -> str:
        """The text of `search.json`.

        Raises:
            ValueError: `from_json` would refuse it: a value is not finite, say.
        """
        return encode(self, _DECODER, schema=SCHEMA)

    @classmethod
    def from_json(cls, text: bytes | str) -> "Search":
        """A search as `to_json` gave it.

        Raises:
            UnreadableError: it is none, or of another schema, or a value is out of its bounds or
                contradicts the rest.
        """
        return decode(_DECODER, text, oldest=SCHEMA, newest=SCHEMA)


def has_study(folder: Path) -> bool:
    """Whether a sweep's folder holds the study of a search."""
    return any((folder / name).exists() for name in (DATABASE_NAME, JOURNAL_NAME))


_DECODER = Decoder(Search)


def _refuse_twice(name: str, numbers: Sequence[Hashable]) -> None:
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{name}: one of them is there twice")
