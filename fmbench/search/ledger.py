"""The trials of a search, as Optuna keeps them: which there are, and what became of each.

A study may be shared by several searches, each with a folder of its own; a trial says in whose
folder its run is, and which number it has there.
"""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from fmbench.config import objectives
from fmbench.core.errors import StorageError
from fmbench.records.folder import read_record
from fmbench.records.record import COMPLETED, DIVERGED, PRUNED, RESULT_NAME, Record
from fmbench.records.trials import DATABASE_NAME
from fmbench.search import study

#: What a trial says of the overrides that it is made of.
_OVERRIDES = "fmbench.config.overrides"

#: Where a study says what search it is of.
_SAID = "fmbench"

#: For so long another search may take to say that a trial is its own.
_FRESH = timedelta(minutes=1)


def job_of(trial: FrozenTrial) -> int:
    """The number of a trial's run in its folder."""
    return int(trial.user_attrs[study.JOB])


class Ledger:
    """The study of a search.

    Args:
        keys: of `sweep`.
        folder: of the sweep.
        pruner: of the study.

    Raises:
        ConfigError: the storage's URL is none.
        StorageError: the storage cannot be reached, or the folder holds another sweep.
    """

    def __init__(self, keys: Mapping[str, Any], folder: Path, pruner: BasePruner) -> None:
        self.folder = folder
        self.objectives = objectives.names(keys["objective"])
        #: Where this search's runs are; its own database may be moved together with them.
        self.label = str(folder.absolute()) if keys["storage"] else ""
        used = any(folder.glob(f"*/{RESULT_NAME}"))
        foreign = StorageError(f"{folder}: holds the runs of another sweep; take another folder")
        # Before a database is made there, by which it would be taken for a search.
        if used and not self.label and not (folder / DATABASE_NAME).exists():
            raise foreign
        self.study = self._open(keys, pruner)
        if used and not self.mine():
            raise foreign

    def _open(self, keys: Mapping[str, Any], pruner: BasePruner) -> optuna.Study:
        storage = study.open_storage(keys, self.folder)
        directions = [objectives.DIRECTIONS[name] for name in self.objectives]
        try:
            return optuna.create_study(
                study_name=study.name(keys, self.folder),
                storage=storage,
                pruner=pruner,
                directions=[StudyDirection[direction.upper()] for direction in directions],
                load_if_exists=True,
            )
        except study.FAULTS as error:
            raise StorageError(f"sweep.storage: {study.line(error)}") from error

    def agree(self, said: Mapping[str, str]) -> bool:
        """See that the study is of this search, or make it so.

        Args:
            said: of the search: all that must be the same when it goes on.

        Returns:
            Whether it goes on.

        Raises:
            StorageError: the study is of another search.
        """
        before = self.study.user_attrs.get(_SAID)
        if before is None:
            self.study.set_user_attr(_SAID, dict(said))
            return False
        for key in [*before, *said]:
            if before.get(key) != said.get(key):
                there, here = (each.get(key, "not set") for each in (before, said))
                raise StorageError(
                    f"{self.folder}: holds another search ({key} is {there} there and {here} "
                    "here); take another folder, or another sweep.study"
                )
        if not self.label:
            # Asked for when the process was killed, before it could say whose the trial is.
            for trial in self.trials(TrialState.RUNNING):
                if study.FOLDER not in trial.user_attrs:
                    self._adopt(self.live(trial), self.next_job())
        return True

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, of all searches that share the study; of some states, if given."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def mine(self, *states: TrialState) -> list[FrozenTrial]:
        """Those whose runs are in this folder, by their numbers there."""
        found = [trial for trial in self.trials(*states) if study.is_of(trial, self.folder)]
        return sorted(found, key=job_of)

    def live(self, trial: FrozenTrial) -> Trial:
        """A trial that can be told things."""
        return Trial(self.study, trial._trial_id)

    def drawn(self) -> int:
        """How many trials there are, but for those whose search was killed as it asked for them."""
        return sum(study.FOLDER in trial.user_attrs for trial in self.trials())

    def next_job(self) -> int:
        """The number of the next run in this folder."""
        mine = self.mine()
        return job_of(mine[-1]) + 1 if mine else 0

    def ask(self, job: int, total: int) -> Trial | None:
        """A new trial; None where other searches have just drawn the last ones."""
        trial = self.study.ask()
        if self.label and sum(self._counts(other, trial) for other in self.trials()) >= total:
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        self._adopt(trial, job)
        return trial

    def _counts(self, other: FrozenTrial, trial: Trial) -> bool:
        """Whether a trial was drawn before this one, and is or will be somebody's."""
        if other.number >= trial.number:
            return False
        started = other.datetime_start
        fresh = (
            other.state == TrialState.RUNNING
            and started is not None
            and datetime.now() - started < _FRESH  # noqa: DTZ005 - as Optuna has it
        )
        return fresh or study.FOLDER in other.user_attrs

    def _adopt(self, trial: Trial, job: int) -> None:
        trial.set_user_attr(study.JOB, job)
        trial.set_user_attr(study.FOLDER, self.label)

    def note(self, trial: Trial, overrides: Sequence[str]) -> None:
        """Keep the overrides that a trial is made of."""
        trial.set_user_attr(_OVERRIDES, list(overrides))

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """What `note` was given; empty where it was not."""
        return list(trial.user_attrs.get(_OVERRIDES, ()))

    def record(self, job: int) -> Record | None:
        """What a run says of itself; None where it says nothing."""
        try:
            return read_record(self.folder / str(job))
        except (OSError, ValueError):
            return None

    def tell(self, trial: Trial, job: int, returned: object) -> str | None:
        """Tell the study what became of a trial, by the record of its run.

        A run that diverged is pruned to Optuna: its samplers forget trials that fail, and would
        look where the loss is no number again and again.

        Args:
            trial: that has ended.
            job: the number of its run.
            returned: what its launcher gave for it.

        Returns:
            Why it failed; None where it did not.
        """
        record, failure = self.record(job), None
        state, values = TrialState.FAIL, None
        if record is not None and record.status == COMPLETED:
            found = [study.reached(record, name) for name in self.objectives]
            known = [each for each in found if each is not None]
            if len(known) == len(found):
                state, values = TrialState.COMPLETE, known
        elif record is not None and record.status == PRUNED:
            state = TrialState.PRUNED
        if record is not None:
            trial.set_user_attr(study.SECONDS, record.seconds["train"])
        if state == TrialState.FAIL:
            said = record.error if record is not None else None
            failure = said or " ".join(str(returned or "it left no record").split())
            trial.set_user_attr(study.ERROR, failure)
            if record is not None and record.status == DIVERGED and len(self.objectives) == 1:
                state = TrialState.PRUNED
        # Optuna's sampler of a grid stops the study when all is drawn, which it may not do here.
        with contextlib.suppress(RuntimeError):
            self.study.tell(trial, values=values, state=state)
        return failure

    def best(self) -> list[FrozenTrial]:
        """The best trial, or the Pareto front; empty where none has completed."""
        if not self.trials(TrialState.COMPLETE):
            return []
        return [self.study.best_trial] if len(self.objectives) == 1 else self.study.best_trials

    def best_here(self) -> list[FrozenTrial]:
        """Those of the best whose runs are in this folder."""
        return [trial for trial in self.best() if study.is_of(trial, self.folder)]
