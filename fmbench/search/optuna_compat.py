"""All that fmbench uses of Optuna's private parts.

A release may change any of it without notice; each has one test in
tests/search/test_optuna_compat.py that says what no longer works.
"""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial


def live(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """A trial of a study that can be written to, whichever process asked for it."""
    return Trial(study, trial._trial_id)


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """A value of any distribution; Optuna's public methods have one for each kind."""
    return trial._suggest(name, distribution)
