"""The study of a search: where Optuna keeps it, its trials, and the result of each.

A study may be shared by several searches, each with a folder of its own; a trial says in whose
folder its run is, and which number it has there.
"""

import contextlib
import math
import random
import sqlite3
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    json_to_distribution,
)
from optuna.exceptions import OptunaError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from fmbench.config import objectives
from fmbench.config.overrides import refuse_password
from fmbench.config.sweep import JOURNAL
from fmbench.core.errors import ConfigError, StorageError, described
from fmbench.records import trials as search_json
from fmbench.records.folder import read_record
from fmbench.records.record import (
    COMPLETED,
    DIVERGED,
    INFEASIBLE,
    PRUNED,
    RESULT_NAME,
    Record,
)
from fmbench.search import optuna_compat

#: Its only study; a database that is shared holds many.
OWN_STUDY = "search"

#: A trial's attributes: the sweep's folder, the number of its first run there, how many runs it has
#: (1 unless said), their overrides, the seconds of their training clocks, and why it failed.
FOLDER, JOB, RUNS = "fmbench.folder", "fmbench.job", "fmbench.runs"
OVERRIDES, SECONDS, ERROR = "fmbench.overrides", "fmbench.seconds", "fmbench.error"

#: A study's attributes: one naming its search, and what its sampler has of what configs leave open.
_SEARCH, _SAMPLER = "fmbench", "fmbench.sampler"

#: To open a database that others may be opening for the first time, before it is given up.
_TRIES = 4

#: Seconds that a process waits for another one that writes to the same SQLite file.
_PATIENCE = 60.0

#: For so long another search may take to say that a trial is its own.
_FRESH = timedelta(minutes=1)

#: Seconds between looks at trials that others are asking for.
_LOOK = 0.1

#: With fewer trials PED-ANOVA says nothing.
LEAST_TRIALS = 8

#: What goes wrong between here and a database.
FAULTS = (OptunaError, SQLAlchemyError, OSError)

_STATES = {
    TrialState.COMPLETE: search_json.COMPLETE,
    TrialState.PRUNED: search_json.PRUNED,
    TrialState.FAIL: search_json.FAILED,
}


def name(sweep: Mapping[str, Any], folder: Path) -> str:
    """The name of a search's study, by the keys of `sweep` and the folder of the sweep."""
    if sweep["study"] is not None:
        return str(sweep["study"])
    if sweep["storage"] is None:
        return OWN_STUDY
    return "/".join(folder.absolute().parts[-2:])


def open_storage(sweep: Mapping[str, Any], folder: Path) -> BaseStorage:
    """The database or the journal of a search; one connection for a whole process.

    Raises:
        ConfigError: its URL is none, or needs a driver that is not installed.
        StorageError: it cannot be reached.
    """
    # Optuna's log lines on a trial: the run's own say more.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = sweep["storage"]
    refuse_password("sweep.storage", str(url))
    try:
        if str(url).startswith(JOURNAL):
            return _journal(str(url).removeprefix(JOURNAL))
        if url is not None:
            return _shared(str(url))
        journal = folder.absolute() / search_json.JOURNAL_NAME
        if sweep.get("detach") or journal.exists():
            return _journal(str(journal))
        return _own(folder.absolute() / search_json.DATABASE_NAME)
    except (ArgumentError, ImportError, ValueError) as error:
        hidden = "@" in str(url) and "://" not in str(url)  # no URL, and a password perhaps
        raise ConfigError(
            f"sweep.storage{'' if hidden else f'={url}'}: {described(error, 300)}"
        ) from error
    except FAULTS as error:
        where = folder / "the study" if url is None else "sweep.storage"
        raise StorageError(f"{where}: cannot be opened: {described(error, 300)}") from error


@lru_cache
def _shared(url: str) -> RDBStorage:
    # The connection may have died since the last epoch, hours ago.
    connect = partial(RDBStorage, url, engine_kwargs={"pool_pre_ping": True})
    for _ in range(_TRIES):
        # Another search may be making the tables just now, which Optuna does without a lock.
        with contextlib.suppress(DBAPIError):
            return connect()
        time.sleep(random.uniform(0.2, 1.0))  # noqa: S311 - so that they do not meet again
    return connect()


@lru_cache
def _journal(path: str) -> JournalStorage:
    # By a file that only one process can make: file locks are local to a machine on many disks.
    try:
        return JournalStorage(optuna_compat.Journal(path))
    except OSError:
        raise
    except Exception as error:  # whatever Optuna makes of lines that are no journal's
        raise StorageError(f"{path}: is no journal of Optuna's: {described(error, 300)}") from error


@lru_cache
def _own(path: Path) -> RDBStorage:
    # Not by a URL: a folder's name may hold what means something there.
    connect = partial(sqlite3.connect, path, timeout=_PATIENCE)
    return RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": NullPool})


def foreign(folder: Path) -> StorageError:
    """What is raised of a folder with runs of another sweep."""
    return StorageError(f"{folder}: holds the runs of another sweep; take another folder")


def is_of(trial: FrozenTrial, folder: Path) -> bool:
    """Whether a trial's run is in this sweep's folder."""
    return trial.user_attrs.get(FOLDER) in ("", str(folder.absolute()))


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial is within its constraints."""
    return all(above <= 0 for above in trial.constraints.values())


def jobs_of(trial: FrozenTrial | Trial) -> range:
    """The numbers of a trial's runs in its folder."""
    attributes = trial.user_attrs
    return range(attributes[JOB], attributes[JOB] + attributes.get(RUNS, 1))


def reached(record: Record, objective: str) -> float | None:
    """The value of an objective that a run has reached; None where it is unknown or not finite."""
    timed = objective == "train_seconds"
    found = record.seconds["train"] if timed else getattr(record, objective)
    return float(found) if found is not None and math.isfinite(found) else None


def _is_fresh(trial: FrozenTrial) -> bool:
    """Whether another search may be about to say that this trial is its own."""
    now, started = datetime.now(), trial.datetime_start  # noqa: DTZ005 - as Optuna has it
    return trial.state == TrialState.RUNNING and started is not None and now - started < _FRESH


class SearchStudy:
    """The study of a search, by the keys of `sweep`, in the folder of the sweep; and its trials.

    `runs` is how many runs each trial has; `first` the number of the first run where the folder
    holds several searches, and None where it holds this one alone.

    Raises:
        ConfigError: the storage's URL is none.
        StorageError: the storage cannot be reached, or the folder holds another sweep.
    """

    def __init__(
        self,
        keys: Mapping[str, Any],
        folder: Path,
        pruner: BasePruner,
        *,
        runs: int = 1,
        first: int | None = None,
    ) -> None:
        self.folder, self.runs, self.first = folder, runs, first or 0
        self.objectives = objectives.names(keys["objective"])
        self.at_most: Mapping[str, float] = keys["at_most"] or {}
        #: Where this search's runs are; its own database may be moved together with them.
        self.label = str(folder.absolute()) if keys["storage"] else ""
        if keys.get("detach") and not self.label and (folder / search_json.DATABASE_NAME).exists():
            raise StorageError(
                f"{folder}: holds a search that was begun without sweep.detach, in a database of "
                "one machine; go on without it, or take another folder"
            )
        used = first is None and any(folder.glob(f"*/{RESULT_NAME}"))
        # Before a database is made there, by which it would be taken for a search.
        if used and not self.label and not search_json.has_study(folder):
            raise foreign(folder)
        storage = open_storage(keys, folder)
        #: Whether other searches may draw trials too.
        self.shared = bool(self.label)
        directions = [objectives.DIRECTIONS[name] for name in self.objectives]
        try:
            self.study = optuna.create_study(
                study_name=name(keys, folder),
                storage=storage,
                pruner=pruner,
                directions=[StudyDirection[direction.upper()] for direction in directions],
                load_if_exists=True,
            )
        except FAULTS as error:
            raise StorageError(f"sweep.storage: {described(error, 300)}") from error
        if used and not self.mine():
            raise foreign(folder)

    def agree(self, said: Mapping[str, str], sampler: Mapping[str, Any]) -> bool:
        """Whether a search is resumed of which the same is said; else the study is new.

        A new study keeps what its `sampler` has by defaults that may change.

        Raises:
            StorageError: the study is of another search.
        """
        said = {**said, **{f"sweep.at_most.{key}": str(at) for key, at in self.at_most.items()}}
        before = self.study.user_attrs.get(_SEARCH)
        if before is None:
            # First: another search that shares the study reads it where the name is there.
            self.study.set_user_attr(_SAMPLER, dict(sampler))
            self.study.set_user_attr(_SEARCH, dict(said))
            return False
        for key in [*before, *said]:
            if before.get(key) != said.get(key):
                there, here = (each.get(key, "not set") for each in (before, said))
                ways = ["take another folder", "or another sweep.study"]
                if (override := _as_override(key, there)) is not None:
                    ways.insert(0, f"'{override}' resumes it")
                raise StorageError(
                    f"{self.folder}: holds another search ({key} is {there} there and {here} "
                    f"here); {', '.join(ways)}"
                )
        return True

    @property
    def sampler(self) -> dict[str, Any] | None:
        """What the sampler has by the defaults of when the study was begun; None in older ones."""
        return self.study.user_attrs.get(_SAMPLER)

    # Trials

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, of all searches that share the study; of some states, if given."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def mine(self, *states: TrialState) -> list[FrozenTrial]:
        """Those whose runs are in this folder, by their numbers there."""
        found = [trial for trial in self.trials(*states) if is_of(trial, self.folder)]
        return sorted(found, key=lambda trial: jobs_of(trial)[0])

    def ended(self) -> list[int]:
        """The numbers of the runs in this folder whose trials have ended."""
        over = (trial for trial in self.mine() if trial.state.is_finished())
        return [job for trial in over for job in jobs_of(trial)]

    def drawn(self) -> int:
        """How many trials there are, but for those whose search was killed as it asked for them."""
        return sum(FOLDER in trial.user_attrs for trial in self.trials())

    def ask(self, total: int, claim: Callable[[int], bool] = lambda _: True) -> Trial | None:
        """A new trial; None where others have just drawn the last ones, or it is claimed.

        `claim` is called with its number before others can see that it is one of ours.
        """
        trial = self.study.ask()
        if self.shared and not self._is_needed(trial.number, total):
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        if not claim(trial.number):
            return None
        self._adopt(trial)
        return trial

    def _is_needed(self, number: int, total: int) -> bool:
        """Whether fewer than `total` trials come before this one.

        Waits for those that other searches are asking for: until then it is not known whether they
        will be theirs, and the caller's summary could not say who has them. By a clock or a time
        zone that is ahead of ours, a trial can look as if asked for just now for hours.
        """
        patience = time.monotonic() + _FRESH.total_seconds()
        while True:
            others = [other for other in self.trials() if other.number < number]
            drawn = sum(FOLDER in other.user_attrs for other in others)
            if drawn >= total:
                return False
            asked = sum(FOLDER in other.user_attrs or _is_fresh(other) for other in others)
            if asked < total or time.monotonic() > patience:
                return True
            time.sleep(_LOOK)

    def adopt(self) -> None:
        """Make trials ours that were asked for by a process that was killed right then."""
        for trial in self.trials(TrialState.RUNNING):
            if FOLDER not in trial.user_attrs:
                self._adopt(optuna_compat.live(self.study, trial))

    def _adopt(self, trial: Trial) -> None:
        if self.runs > 1:
            trial.set_user_attr(RUNS, self.runs)
        # Numbers of the study alone: several processes may be asking.
        trial.set_user_attr(JOB, self.first + trial.number * self.runs)
        trial.set_user_attr(FOLDER, self.label)

    def record(self, job: int) -> Record | None:
        """The record of a run; None where it cannot be read."""
        try:
            return read_record(self.folder / str(job))
        except (OSError, ValueError):
            return None

    def tell(
        self, trial: Trial, jobs: Sequence[int], returned: object, *, pruned: bool = False
    ) -> str | None:
        """Report a trial's result to the study, by the records of its runs: their mean.

        A trial of which a run diverged is pruned to Optuna: its samplers forget trials that fail,
        and would look where the loss is no number again and again. So is one that is infeasible; by
        how much is told for each trial, since samplers learn from those within the limits too.

        Args:
            trial: that has ended.
            jobs: the numbers of those of its runs that were begun.
            returned: what the last one's launcher returned.
            pruned: whether its other runs were given up.

        Returns:
            Why it failed; None where it did not.
        """
        records = [self.record(job) for job in jobs]
        there = [record for record in records if record is not None]
        statuses = {None if record is None else record.status for record in records}
        values: list[float] | None = None
        state, failure = TrialState.FAIL, None
        if statuses == {COMPLETED}:
            found = [self.value(there, name) for name in self.objectives]
            known = [value for value in found if value is not None]
            if len(known) == len(found):
                state, values = TrialState.COMPLETE, known
            if pruned:
                state, values = TrialState.PRUNED, None
        elif statuses and statuses <= {COMPLETED, PRUNED, INFEASIBLE}:
            state = TrialState.PRUNED
        if there:
            trial.set_user_attr(SECONDS, sum(record.seconds["train"] for record in there))
            for key in self.at_most.keys() - trial.constraints:
                if (size := getattr(there[0], key)) is not None:
                    trial.set_constraint(key, size - self.at_most[key])
        if state == TrialState.FAIL:
            said = next((record.error for record in there if record.error), None)
            failure = said or " ".join(str(returned or "it left no record").split())
            trial.set_user_attr(ERROR, failure)
            if DIVERGED in statuses and len(self.objectives) == 1:
                state = TrialState.PRUNED
        # Optuna's sampler of a grid stops the study when all is drawn, which it may not do here.
        with contextlib.suppress(RuntimeError):
            self.study.tell(trial, values=values, state=state)
        return failure

    def value(self, records: Sequence[Record], objective: str) -> float | None:
        """The mean of an objective over runs; None where one has no value."""
        found = [reached(record, objective) for record in records]
        known = [value for value in found if value is not None]
        return statistics.fmean(known) if known and len(known) == len(found) else None

    def best(self) -> list[FrozenTrial]:
        """The best trial, of equals the first, or the Pareto front; of those that may be it.

        Empty where none has completed, or none of them is within its constraints.
        """
        complete = list(filter(is_feasible, self.trials(TrialState.COMPLETE)))
        if len(self.objectives) > 1:
            return self.study.best_trials if complete else []
        sign = 1 if self.study.direction == StudyDirection.MAXIMIZE else -1
        return sorted(complete, key=lambda one: (-sign * one.values[0], one.number))[:1]

    def best_here(self) -> list[FrozenTrial]:
        """Those of the best whose runs are in this folder."""
        return [trial for trial in self.best() if is_of(trial, self.folder)]

    # What the report reads

    def described(self, *, total: int, pruner: str, sampler: str) -> search_json.Search:
        """What the search has tried so far, as `search.json` has it.

        Raises:
            ValueError: a value is none that a report could show.
        """
        found = [trial for trial in self.trials() if FOLDER in trial.user_attrs]
        # Another search may have ended a trial since.
        complete = {trial.number for trial in found if trial.state == TrialState.COMPLETE}
        return search_json.Search(
            study=self.study.study_name,
            sampler=sampler,
            pruner=pruner,
            total=max(total, len(found)),
            objectives=tuple(
                search_json.Objective(name, objectives.DIRECTIONS[name]) for name in self.objectives
            ),
            trials=tuple(self._written(trial) for trial in found),
            importances=self._importances(),
            best=tuple(trial.number for trial in self.best() if trial.number in complete),
            runs=self.runs,
        )

    def _written(self, trial: FrozenTrial) -> search_json.Trial:
        told, job = trial.user_attrs, str(trial.user_attrs[JOB])
        state = _STATES.get(trial.state, search_json.RUNNING)
        if state == search_json.PRUNED and not is_feasible(trial):
            state = search_json.INFEASIBLE
        return search_json.Trial(
            number=trial.number,
            # One that diverged is pruned to Optuna.
            state=search_json.FAILED if ERROR in told else state,
            parameters={key: plain(value) for key, value in trial.params.items()},
            values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
            reports=dict(trial.intermediate_values),
            folder=job if is_of(trial, self.folder) else str(Path(told[FOLDER], job)),
            seconds=told.get(SECONDS),
            error=told.get(ERROR),
            runs=told.get(RUNS, 1),
        )

    def _importances(self) -> dict[str, float] | None:
        """The share of each parameter in the changes of the first objective, by PED-ANOVA.

        Watanabe, Bansal and Hutter, "PED-ANOVA", 2023. None where there are too few trials.
        """
        if len(self.trials(TrialState.COMPLETE)) < LEAST_TRIALS:
            return None
        sign = 1 if self.study.directions[0] == StudyDirection.MINIMIZE else -1  # low is good
        try:
            with warnings.catch_warnings(action="ignore"):
                shares = optuna.importance.get_param_importances(
                    self.study, target=lambda trial: sign * trial.values[0]
                )
        except (RuntimeError, ValueError):  # a parameter that never moved, or was not in all trials
            return None
        return {key: float(value) for key, value in shares.items()} or None


def plain(value: Any) -> Any:
    """A value as a person writes it: texts come with the quotes that the command line needs."""
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _as_override(key: str, distribution: str) -> str | None:
    """The override that searches a distribution, as JSON; None where it is none, or has steps."""
    try:
        found = json_to_distribution(distribution)
    except (KeyError, TypeError, ValueError):
        return None
    if isinstance(found, CategoricalDistribution):
        return f"{key}=choice({','.join(map(str, found.choices))})"
    if not isinstance(found, FloatDistribution) or found.step is not None:
        return None
    values = f"interval({found.low!r},{found.high!r})"
    return f"{key}=tag(log,{values})" if found.log else f"{key}={values}"
