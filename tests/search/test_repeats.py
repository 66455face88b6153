"""Trials of several runs, of seeds or of folds."""

import pytest
import yaml
from commands import records, started, wait_for
from optuna.trial import TrialState
from searches import REPEATED, sorted_records, trials

from fmbench.records.trials import Search
from fmbench.search import best as best_file
from fmbench.search import study

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["seed=4,5,6", "seed=4 sweep.seeds=3 sweep.jobs=2"])
def test_a_trial_of_several_seeds_is_worth_their_mean(command, tmp_path, how):
    status, out, err = command(*REPEATED, *how.split())
    assert status == 0, err
    found, runs = trials(tmp_path / "here"), sorted_records(tmp_path / "here")
    assert [record["seed"] for record in runs] == [4, 5, 6] * 2
    for trial, part in zip(found, (runs[:3], runs[3:]), strict=True):
        accuracies = [record["validation_accuracy"] for record in part]
        assert trial.value == pytest.approx(sum(accuracies) / 3)
        assert trial.user_attrs[study.SECONDS] == pytest.approx(
            sum(record["seconds"]["train"] for record in part), rel=0.5
        )
        assert {record["learning_rate"] for record in part} == {trial.params["optimizer.lr"]}
        # All runs of the best, and of no other, were evaluated on the test set.
        best = trial.value == max(other.value for other in found)
        assert [record["test_accuracy"] is not None for record in part] == [best] * 3
    # Other processes say it themselves.
    assert ("trial 1, run 3 of 3 (6 of 6): " in err) == ("jobs" not in how)
    assert "each the mean of 3 runs" in out
    assert not [*tmp_path.rglob("checkpoint*.pt")]
    text = (tmp_path / "here" / best_file.BEST_NAME).read_text()
    assert "the mean of 3 runs" in text
    assert "seed" not in yaml.safe_load(text)
    written = Search.from_json((tmp_path / "here" / "search.json").read_text())
    assert [(trial.runs, trial.folder) for trial in written.trials] == [(3, "0"), (3, "3")]
    # It goes on to a larger total, and is another search with other seeds.
    status, _, err = command(*REPEATED, *how.split(), "sweep.trials=3")
    assert status == 0, err
    assert len(records(tmp_path)) == 9
    status, _, err = command(*REPEATED, "seed=0,1,2")
    assert (status, "runs of a trial is seed=4; seed=5; seed=6 there" in err) == (5, True)


@pytest.mark.slow
def test_a_trial_of_several_seeds_goes_on_after_kills(command, tmp_path):
    search = [*REPEATED, "epochs=3", "seed=0,1,2"]
    folder = tmp_path / "here"
    for done in (1, 4):  # runs at whose end, or soon after, it is killed
        with started(*search, cwd=tmp_path):
            wait_for(lambda n=done: len([*folder.glob("*/history.jsonl")]) > n)
    assert command(*search)[0] == 0
    assert command(*search[:-1], "seed=0,1,2", "hydra.sweep.dir=straight")[0] == 0
    for here, there in zip(trials(folder), trials(tmp_path / "straight"), strict=True):
        assert (here.params, here.values) == (there.params, there.values)
    assert len(sorted_records(folder)) == 6


@pytest.mark.slow
def test_a_trial_may_be_of_folds_and_one_that_fails_gives_up_the_rest(command, tmp_path):
    folds = ["data.split=kfold", "data.split.folds=3", "data.split.fold=0,1,2"]
    lrs = ["optimizer.lr=choice(0.1,1e30)", "batch_size=16", "hydra/sweeper/sampler=grid"]
    status, _, err = command(*REPEATED, *folds, *lrs)
    assert status == 4, err
    runs = {lr: [r for r in records(tmp_path) if r["learning_rate"] == lr] for lr in (0.1, 1e30)}
    assert [r["config"]["data"]["split"]["fold"] for r in runs[0.1]] == [0, 1, 2]
    assert [r["status"] for r in runs[1e30]] == ["diverged"]
    (complete,) = [t for t in trials(tmp_path / "here") if t.state == TrialState.COMPLETE]
    accuracies = [record["validation_accuracy"] for record in runs[0.1]]
    assert complete.value == pytest.approx(sum(accuracies) / 3)
