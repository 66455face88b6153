"""Pruning: what a run reports after each epoch, and whether it is stopped."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from fmbench.config import objectives
from fmbench.config.schema import WILCOXON
from fmbench.core.console import logger
from fmbench.core.errors import StorageError, described
from fmbench.records.record import Record
from fmbench.search import optuna_compat, study

log = logger(__name__)

#: Of successive halving: one in so many goes on.
_RATE = 4


def make_pruner(kind: str, *, epochs: int, trials: int) -> BasePruner:
    """The pruner of a search, asked after each epoch but the last.

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
    - `wilcoxon`: of a trial of several runs, asked after each of them: those that are left are not
      begun where it is worse than the best trial on the same seeds or folds (Wilcoxon's signed-rank
      test, p below 0.1, so from four runs on).

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
    if kind == WILCOXON:
        with warnings.catch_warnings(category=ExperimentalWarning, action="ignore"):
            return optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    return optuna.pruners.NopPruner()


class _Halving(optuna.pruners.SuccessiveHalvingPruner):
    """Successive halving that leaves a best trial: see `make_pruner`."""

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
        """Whether a trial is to be stopped."""
        stopped = super().prune(study, trial)
        if stopped and trial.number >= self._trials - 1:
            complete = (TrialState.COMPLETE,)
            return bool(study.get_trials(deepcopy=False, states=complete))
        return stopped


class Watch:
    """Reports to the study after each epoch how a run does, and asks whether to prune it."""

    def __init__(self, of_study: optuna.Study, trial: FrozenTrial, objective: str) -> None:
        self.trial = optuna_compat.live(of_study, trial)
        self.objective = objective
        # Epochs of a run that was stopped before; they are computed to the same values again.
        self.known = set(trial.intermediate_values)

    def __call__(self, epoch: int, record: Record) -> bool:
        """Whether to stop the run after this epoch, from 1; not where the database is gone."""
        value = study.reached(record, self.objective)
        if value is None:
            return False
        try:
            if epoch not in self.known:
                self.trial.report(value, epoch)
                self.known.add(epoch)
            return epoch < record.epochs and self.trial.should_prune()
        except study.FAULTS as error:
            log.warning("search: epoch %d not reported: %s", epoch, described(error, 300))
            return False


def watch(sweep: Mapping[str, Any], folder: Path, job: int, epochs: int) -> Watch | None:
    """What a run of a search is to call after each epoch; None where nothing is to be reported.

    By the keys of `sweep`, the folder of the sweep, and the run's number in it.
    """
    of_search = objectives.names(sweep["objective"])
    if len(of_search) > 1 or of_search[0] not in objectives.OF_AN_EPOCH or sweep["seeds"] > 1:
        return None
    try:
        found = optuna.load_study(
            study_name=study.name(sweep, folder),
            storage=study.open_storage(sweep, folder),
            # The run's values are drawn by now; the search's own sampler would draw once more.
            sampler=optuna.samplers.RandomSampler(),
            pruner=make_pruner(sweep["pruner"], epochs=epochs, trials=sweep["trials"]),
        )
        for trial in found.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if study.is_of(trial, folder) and trial.user_attrs.get(study.JOB) == job:
                return Watch(found, trial, of_search[0])
    except (KeyError, StorageError, *study.FAULTS) as error:
        log.warning("search: this run is not reported: %s", described(error, 300))
    return None
