"""Searches whose study is a journal: a file that several may write to, on any shared disk."""

import json
from pathlib import Path

import optuna
import pytest
from commands import TINY, UNREPORTED, records, started, wait_for
from omegaconf import OmegaConf
from optuna.trial import TrialState

from fmbench.config.schema import Search
from fmbench.config.sweep import search_keys
from fmbench.core.errors import ConfigError
from fmbench.core.files import LOCK_NAME
from fmbench.records.trials import DATABASE_NAME
from fmbench.search import pruning, study

pytestmark = pytest.mark.usefixtures("no_pictures")

SEARCH = [
    *("-m", "sweep=lr_batch", *TINY, "epochs=3", "sweep.trials=6", "device=cpu"),
    *("batch_size=choice(16,32)", "sweep.pruner=none", "sweep.study=both"),
]


def trials(path: Path) -> list[optuna.trial.FrozenTrial]:
    storage = study.open_storage({"storage": f"journal:{path}"}, path.parent)
    return optuna.load_study(study_name="both", storage=storage).get_trials()


def keys(storage: str, base: Path | None = None) -> dict:
    return search_keys(
        OmegaConf.create({"sweep": OmegaConf.structured(Search(storage=storage))}), base
    )


@pytest.mark.slow
def test_searches_that_share_a_journal_end_at_its_total(tmp_path):
    search = [*SEARCH, "sweep.storage=journal:both.journal", UNREPORTED]
    with (
        started(*search, "hydra.sweep.dir=a", cwd=tmp_path, stderr=None) as one,
        started(*search, "hydra.sweep.dir=b", cwd=tmp_path, stderr=None) as other,
    ):
        assert [process.wait(timeout=200) for process in (one, other)] == [0, 0]
    complete = [t for t in trials(tmp_path / "both.journal") if t.state == TrialState.COMPLETE]
    assert len(complete) == len(records(tmp_path)) == 6
    assert len({trial.params["optimizer.lr"] for trial in complete}) == 6
    assert all([*trial.intermediate_values] == [1, 2, 3] for trial in complete)
    value = max(trial.value for trial in complete)
    looked = [record for record in records(tmp_path) if record["test_accuracy"] is not None]
    assert value in [record["validation_accuracy"] for record in looked]
    assert not [*tmp_path.rglob(DATABASE_NAME)]


@pytest.mark.slow
def test_a_search_in_a_journal_that_is_killed_ends_with_its_total(command, tmp_path):
    search = [*SEARCH, "sweep.storage=journal:both.journal", "hydra.sweep.dir=here"]
    for done in (1, 3):  # trials at whose end, or soon after, it is killed
        with started(*search, cwd=tmp_path):
            wait_for(lambda n=done: len([*tmp_path.glob("here/*/history.jsonl")]) > n)
    status, _, err = command(*search)
    assert status == 0, err
    assert "resumes the search: " in err
    found = trials(tmp_path / "both.journal")
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 6
    assert sorted(trial.user_attrs[study.JOB] for trial in found) == list(range(6))
    for trial in found:
        file = tmp_path / "here" / str(trial.user_attrs[study.JOB]) / "result.json"
        assert json.loads(file.read_text())["validation_accuracy"] == trial.value
        assert [*trial.intermediate_values] == [1, 2, 3]


@pytest.mark.slow
def test_processes_report_to_a_journal_and_its_search_is_pruned(command, tmp_path):
    search = [*SEARCH, "sweep.storage=journal:both.journal", "hydra.sweep.dir=here"]
    status, _, err = command(*search, "sweep.jobs=2", "sweep.pruner=median", "sweep.trials=8")
    assert status == 0, err
    found = trials(tmp_path / "both.journal")
    assert {trial.state for trial in found} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(1 in trial.intermediate_values for trial in found)


def test_a_journal_is_known_by_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for storage, path in {
        "journal:a.journal": f"{tmp_path}/a.journal",
        "journal:/disk/a.journal": "/disk/a.journal",
        "journal:///disk/a.journal": "/disk/a.journal",
        "journal:~/a.journal": "/home/me/a.journal",
    }.items():
        assert keys(storage)["storage"] == f"journal:{path}"
    # A run may be computed in another folder than that of the search.
    assert keys("journal:a.journal", Path("/there"))["storage"] == "journal:/there/a.journal"
    assert keys("sqlite:///a.db")["storage"] == "sqlite:///a.db"


@pytest.mark.parametrize("given", ["journal:", "journal:///", "journal://host/a", "journal:a/"])
def test_a_journal_has_a_path(given):
    with pytest.raises(ConfigError, match=r"sweep\.storage=journal:.*: must be journal:FILE"):
        keys(given)


@pytest.mark.slow
def test_what_is_no_journal_is_left_as_it_is(command, tmp_path):
    """Exit status 5: it is the storage."""
    (tmp_path / "notes").write_text("[1]\n[2]\n")
    status, _, err = command(*SEARCH, "sweep.storage=journal:notes", "hydra.sweep.dir=here")
    assert status == 5
    assert f"{tmp_path / 'notes'}: is no journal of Optuna's: " in err
    status, _, err = command(*SEARCH, "sweep.storage=journal:no/such", "hydra.sweep.dir=here")
    assert status == 5
    assert "sweep.storage: cannot be opened: " in err
    assert (tmp_path / "notes").read_text() == "[1]\n[2]\n"
    assert not (tmp_path / f"notes{LOCK_NAME}").exists()


def test_a_run_finds_its_trial_in_the_journal_of_its_search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = keys("journal:a.journal") | {"study": "both"}
    found = study.SearchStudy(
        here, tmp_path / "sweep", pruning.make_pruner("none", epochs=3, trials=2)
    )
    trial = found.ask(2)
    elsewhere = keys("journal:a.journal", tmp_path) | {"study": "both"}
    monkeypatch.chdir("/")
    watch = pruning.watch(elsewhere, tmp_path / "sweep", 0, 3)
    assert watch.trial.number == trial.number


def test_a_trial_that_another_search_is_asking_for_is_waited_for(tmp_path, monkeypatch):
    """It is theirs once they say so; it is free where they were killed before."""
    monkeypatch.chdir(tmp_path)
    both = keys("journal:a.journal") | {"study": "both"}
    pruner = pruning.make_pruner("none", epochs=3, trials=2)
    ours, theirs = (study.SearchStudy(both, tmp_path / name, pruner) for name in "ab")
    asked = theirs.study.ask()
    monkeypatch.setattr(study.time, "sleep", lambda seconds: theirs._adopt(asked))
    assert ours.ask(1) is None
    (trial,) = ours.trials(TrialState.RUNNING)
    assert trial.number == asked.number
    assert trial.user_attrs[study.FOLDER] == str(tmp_path / "b")
    theirs.study.ask()
    monkeypatch.setattr(
        study.time, "sleep", lambda _: monkeypatch.setattr(study, "_FRESH", 0 * study._FRESH)
    )
    assert ours.ask(2) is not None


def test_a_trial_of_a_clock_that_is_ahead_is_not_waited_for_longer(tmp_path, monkeypatch):
    """Where it was left by a process that was killed: for hours, if its time zone is another."""
    both = keys(f"journal:{tmp_path / 'a.journal'}") | {"study": "both"}
    pruner = pruning.make_pruner("none", epochs=3, trials=1)
    ours, theirs = (study.SearchStudy(both, tmp_path / name, pruner) for name in "ab")
    theirs.study.ask()
    monkeypatch.setattr(study, "_is_fresh", lambda trial: trial.state == TrialState.RUNNING)
    slept, clock = [], study.time.monotonic

    def sleep(seconds):
        slept.append(seconds)
        assert len(slept) < 20

    monkeypatch.setattr(study.time, "sleep", sleep)
    monkeypatch.setattr(study.time, "monotonic", lambda: clock() + 10 * len(slept))
    assert ours.ask(1) is not None
    assert len(slept) in (6, 7)
