"""`search.json`: what a search has tried so far, for the report."""

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from fmbench.config import objectives
from fmbench.core.files import write_whole
from fmbench.records import trials
from fmbench.search import study
from fmbench.search.ledger import Ledger

_STATES = {
    TrialState.COMPLETE: trials.COMPLETE,
    TrialState.PRUNED: trials.PRUNED,
    TrialState.FAIL: trials.FAILED,
}

#: Below these nothing can be said of what matters.
_LEAST_TRIALS = 8


def write(ledger: Ledger, *, total: int, pruner: str, sampler: str) -> None:
    """Write the file.

    Args:
        ledger: of the search.
        total: trials that were asked for.
        pruner: one of `fmbench.config.schema.PRUNERS`.
        sampler: the name of its class.

    Raises:
        StorageError: it cannot be written.
    """
    names = ledger.objectives
    found = [trial for trial in ledger.trials() if study.FOLDER in trial.user_attrs]
    # Another search may have ended a trial since.
    complete = {trial.number for trial in found if trial.state == TrialState.COMPLETE}
    search = trials.Search(
        study=ledger.study.study_name,
        sampler=sampler,
        pruner=pruner,
        total=max(total, len(found)),
        objectives=tuple(trials.Objective(name, objectives.DIRECTIONS[name]) for name in names),
        trials=tuple(_trial(trial, ledger.folder) for trial in found),
        importances=_importances(ledger.study, several=len(names) > 1),
        best=tuple(trial.number for trial in ledger.best() if trial.number in complete),
    )
    write_whole(ledger.folder / trials.SEARCH_NAME, search.to_json().encode())


def _trial(trial: FrozenTrial, folder: Path) -> trials.Trial:
    there, job = trial.user_attrs[study.FOLDER], trial.user_attrs[study.JOB]
    here = study.is_of(trial, folder)
    # One that diverged is pruned to Optuna.
    failed = study.ERROR in trial.user_attrs
    return trials.Trial(
        number=trial.number,
        state=trials.FAILED if failed else _STATES.get(trial.state, trials.RUNNING),
        parameters={key: _plain(value) for key, value in trial.params.items()},
        values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
        reports=dict(trial.intermediate_values.items()),
        folder=str(job) if here else str(Path(there) / str(job)),
        seconds=trial.user_attrs.get(study.SECONDS),
        error=trial.user_attrs.get(study.ERROR),
    )


def _plain(value: Any) -> Any:
    """A value as a person writes it: texts come with the quotes that the command line needs."""
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _importances(found: optuna.Study, *, several: bool) -> dict[str, float] | None:
    """The share of each parameter in what moves the first objective, by PED-ANOVA.

    Watanabe, Bansal and Hutter, "PED-ANOVA", 2023. None where there are too few trials.
    """
    complete = found.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _LEAST_TRIALS:
        return None
    try:
        with warnings.catch_warnings(category=ExperimentalWarning, action="ignore"):
            shares = optuna.importance.get_param_importances(
                found, target=(lambda trial: trial.values[0]) if several else None
            )
    except (RuntimeError, ValueError):  # a parameter that never moved, or was not in all trials
        return None
    return {key: float(value) for key, value in shares.items()} or None
