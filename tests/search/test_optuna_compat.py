"""Each private part of Optuna, with what no longer works where it has changed."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fmbench.search import optuna_compat


def a_trial_that_another_process_asked_for_can_be_told_things():
    study = optuna.create_study()
    asked = study.ask()
    live = optuna_compat.live(study, study.trials[0])
    live.report(0.5, 1)
    live.set_user_attr("x", 1)
    (found,) = study.trials
    return (live.number, found.intermediate_values, found.user_attrs) == (
        asked.number, {1: 0.5}, {"x": 1},
    )  # fmt: skip


def a_value_of_any_distribution_is_drawn():
    study = optuna.create_study()
    trial = study.ask()
    space = {
        "a": FloatDistribution(0.1, 1, log=True),
        "b": IntDistribution(2, 4),
        "c": CategoricalDistribution(["x", 1]),
    }
    drawn = {name: optuna_compat.suggest(trial, name, one) for name, one in space.items()}
    assert 0.1 <= drawn["a"] <= 1
    assert drawn["b"] in (2, 3, 4)
    return study.trials[0].params == trial.params == drawn and drawn["c"] in ("x", 1)


#: What is checked, and what no longer works where that has changed.
CASES = {
    a_trial_that_another_process_asked_for_can_be_told_things: (
        "runs report nothing to their search, and a search is not resumed"
    ),
    a_value_of_any_distribution_is_drawn: "searches start no trial",
}


@pytest.mark.parametrize("check", CASES, ids=lambda check: check.__name__)
def test_a_private_part_is_as_it_was(check):
    try:
        holds = check()
    except (AssertionError, AttributeError, TypeError) as error:
        pytest.fail(f"{CASES[check]}: {type(error).__name__}: {error}")
    assert holds, CASES[check]
