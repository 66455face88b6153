"""The study of a search: where Optuna keeps it, and what a run tells it after each epoch.

Imports Optuna, and through it much else: only the sweeper of a search and its runs come here.
"""

import math
import random
import sqlite3
import time
import warnings
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from fmbench.config import objectives
from fmbench.config.overrides import refuse_password
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, StorageError, one_line
from fmbench.records.record import Record
from fmbench.records.trials import DATABASE_NAME

log = logger(__name__)

#: Its only study; a database that is shared holds many.
OWN_STUDY = "search"

#: What a trial says of its run: the sweep's folder, and the run's number in it.
FOLDER, JOB = "fmbench.folder", "fmbench.job"

#: What a trial says of its end, where that was no good one.
ERROR = "fmbench.error"

#: What a trial says of the training clock of its run, in seconds.
SECONDS = "fmbench.seconds"

#: To open a database that others may be opening for the first time.
_TRIES = 5

#: Seconds that a process waits for another one that writes to the same SQLite file.
_PATIENCE = 60.0

#: Of successive halving: one in so many goes on.
_RATE = 4

#: What goes wrong between here and a database.
FAULTS = (OptunaError, SQLAlchemyError, OSError)


def name(sweep: Mapping[str, Any], folder: Path) -> str:
    """The name of a search's study.

    Args:
        sweep: the keys of `sweep`.
        folder: of the sweep.
    """
    if sweep["study"] is not None:
        return str(sweep["study"])
    if sweep["storage"] is None:
        return OWN_STUDY
    return "/".join(folder.absolute().parts[-2:])


def open_storage(sweep: Mapping[str, Any], folder: Path) -> RDBStorage:
    """The database of a search; one connection for a whole process.

    Args:
        sweep: the keys of `sweep`.
        folder: of the sweep.

    Raises:
        ConfigError: its URL is none, or needs a driver that is not installed.
        StorageError: it cannot be reached.
    """
    # What Optuna has to say of a trial, the run says better.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = sweep["storage"]
    refuse_password("sweep.storage", str(url))
    try:
        if url is not None:
            return _shared(str(url))
        return _own(folder.absolute() / DATABASE_NAME)
    except (ArgumentError, ImportError, ValueError) as error:
        hidden = "@" in str(url) and "://" not in str(url)  # no URL, and a password perhaps
        raise ConfigError(f"sweep.storage{'' if hidden else f'={url}'}: {line(error)}") from error
    except FAULTS as error:
        where = folder / DATABASE_NAME if url is None else "sweep.storage"
        raise StorageError(f"{where}: cannot be opened: {line(error)}") from error


@lru_cache
def _shared(url: str) -> RDBStorage:
    for left in reversed(range(_TRIES)):
        try:
            # The connection may have died since the last epoch, hours ago.
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except DBAPIError:
            # Another search may be making the tables just now, which Optuna does without a lock.
            if not left:
                raise
            time.sleep(random.uniform(0.2, 1.0))  # noqa: S311 - so that they do not meet again
    raise AssertionError


@lru_cache
def _own(path: Path) -> RDBStorage:
    # Not by a URL: a folder's name may hold what means something there.
    connect = partial(sqlite3.connect, path, timeout=_PATIENCE)
    return RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": NullPool})


def line(error: BaseException) -> str:
    """What a database says, in one line."""
    return one_line(str(error), 300) or type(error).__name__


def make_pruner(kind: str, *, epochs: int, trials: int) -> BasePruner:
    """What decides after each epoch but the last whether a run goes on.

    - `median`: it must not be worse than the median of those before it, after the same epoch; the
      first four trials go to their end.
    - `halving`: after a quarter of the epochs the best quarter goes on (asynchronous successive
      halving with the paper's rate; Li et al., "A System for Massively Parallel Hyperparameter
      Tuning", 2020). There are so many cuts that four trials or more may be expected to be left:
      of 64 trials the first is after a sixteenth, of 256 after a 64th. A quarter of the first three
      is none of them, as in the paper, but in a search so small that too few would be left. The
      last trial is not stopped where none has gone to its end, so that there is a best one.
    - `hyperband`: the same in brackets, some of which begin later, and of which the best third goes
      on (Li et al., "Hyperband", 2018).

    Args:
        kind: one of `fmbench.config.schema.PRUNERS`.
        epochs: of a run.
        trials: of the search.
    """
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0)
    if kind == "halving":
        return _Halving(epochs, trials)
    if kind == "hyperband":
        with warnings.catch_warnings(category=ExperimentalWarning, action="ignore"):
            return optuna.pruners.HyperbandPruner(
                min_resource=1, max_resource=epochs, reduction_factor=3
            )
    return optuna.pruners.NopPruner()


class _Halving(optuna.pruners.SuccessiveHalvingPruner):
    """Successive halving that leaves somebody: see `make_pruner`."""

    def __init__(self, epochs: int, trials: int) -> None:
        cuts = 1
        while _RATE ** (cuts + 2) <= trials:
            cuts += 1
        super().__init__(
            # Rounded up: a cut just before the end would spare nothing and stop the best.
            min_resource=-(-epochs // _RATE**cuts),
            reduction_factor=_RATE,
            bootstrap_count=_RATE - 1 if trials >= _RATE * (_RATE - 1) else 0,
        )
        self._trials = trials

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial is to be given up."""
        stopped = super().prune(study, trial)
        if stopped and trial.number >= self._trials - 1:
            complete = (TrialState.COMPLETE,)
            return bool(study.get_trials(deepcopy=False, states=complete))
        return stopped


def reached(record: Record, objective: str) -> float | None:
    """The value of an objective that a run has reached; None where it is unknown or not finite."""
    if objective == "train_seconds":
        found: float | None = record.seconds["train"]
    else:
        found = getattr(record, objective)
    return float(found) if found is not None and math.isfinite(found) else None


class Watch:
    """Tells the study after each epoch how a run does, and asks whether it is to go on.

    Args:
        trial: that the run is.
        objective: that is looked at, of `fmbench.config.objectives.OF_AN_EPOCH`.
    """

    def __init__(self, trial: Trial, objective: str) -> None:
        self.trial = trial
        self.objective = objective
        # Epochs that a run went through before it was stopped; they are the same again.
        frozen = trial.study._storage.get_trial(trial._trial_id)
        self.known = set(frozen.intermediate_values)

    def __call__(self, epoch: int, record: Record) -> bool:
        """Whether the run is to be given up.

        A database that cannot be reached ends no run: it goes on without.

        Args:
            epoch: that has ended, counted from 1.
            record: of the run.
        """
        value = reached(record, self.objective)
        if value is None:
            return False
        try:
            if epoch not in self.known:
                self.trial.report(value, epoch)
                self.known.add(epoch)
            return epoch < record.epochs and self.trial.should_prune()
        except FAULTS as error:
            log.warning("the search is not told of epoch %d: %s", epoch, line(error))
            return False


def watch(sweep: Mapping[str, Any], folder: Path, job: int, epochs: int) -> Watch | None:
    """What a run of a search is to call after each epoch; None where nothing is to be told.

    Args:
        sweep: the keys of `sweep`, resolved.
        folder: of the sweep.
        job: the run's number in it.
        epochs: of the run.
    """
    of_search = objectives.names(sweep["objective"])
    if len(of_search) > 1 or of_search[0] not in objectives.OF_AN_EPOCH:
        return None
    try:
        study = optuna.load_study(
            study_name=name(sweep, folder),
            storage=open_storage(sweep, folder),
            # Its values are drawn by now; the search's own sampler would draw once more.
            sampler=optuna.samplers.RandomSampler(),
            pruner=make_pruner(sweep["pruner"], epochs=epochs, trials=sweep["trials"]),
        )
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        found = next((trial for trial in running if is_of(trial, folder, job)), None)
        return None if found is None else Watch(Trial(study, found._trial_id), of_search[0])
    except (KeyError, StorageError, *FAULTS) as error:
        log.warning("the search is not told of this run: %s", line(error))
        return None


def is_of(trial: FrozenTrial, folder: Path, job: int | None = None) -> bool:
    """Whether a trial's run is in this sweep's folder, and has this number there."""
    told = trial.user_attrs
    here = told.get(FOLDER) in ("", str(folder.absolute()))
    return here and (job is None or told.get(JOB) == job)
