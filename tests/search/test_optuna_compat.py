"""Each private part of Optuna, and what no longer works where it has changed."""

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fmbench.search import optuna_compat


def test_a_trial_that_another_process_asked_for_can_be_told_things():
    """Else runs report nothing to their search, and a search is not resumed."""
    study = optuna.create_study()
    asked = study.ask()
    live = optuna_compat.live(study, study.trials[0])
    live.report(0.5, 1)
    live.set_user_attr("x", 1)
    (found,) = study.trials
    assert (live.number, found.intermediate_values, found.user_attrs) == (
        asked.number, {1: 0.5}, {"x": 1},
    )  # fmt: skip


def test_a_journal_goes_on_behind_its_last_whole_line(tmp_path):
    """Else one full disk makes a journal unreadable for ever."""
    path = tmp_path / "journal"
    for number in range(2):
        name = f"study {number}"
        storage = optuna.storages.JournalStorage(optuna_compat.Journal(str(path)))
        optuna.create_study(study_name=name, storage=storage)
        with path.open("ab") as file:
            file.write(b'{"op_code": 5, "wor')
    storage.set_study_user_attr(storage.get_study_id_from_name(name), "x", 1)
    again = optuna.storages.JournalStorage(optuna_compat.Journal(str(path)))
    assert [study.study_name for study in again.get_all_studies()] == ["study 0", "study 1"]
    assert again.get_study_user_attrs(again.get_study_id_from_name(name)) == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["journal"]


def test_a_value_of_any_distribution_is_drawn():
    """Else searches start no trial."""
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
    assert study.trials[0].params == trial.params == drawn
    assert drawn["c"] in ("x", 1)
