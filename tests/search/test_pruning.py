"""What a search stops, and when."""

import random

import optuna
import pytest
from commands import records
from optuna.trial import TrialState
from searches import REPEATED, SEARCH, sorted_records, trials

from fmbench.search import pruning

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.mark.slow
def test_a_search_prunes_and_never_in_the_last_epoch(command, tmp_path):
    status, _, err = command(*SEARCH, "sweep.trials=12", "sweep.pruner=median")
    assert status == 0, err
    found, left = trials(tmp_path / "here"), sorted_records(tmp_path / "here")
    kinds = {trial.state.name for trial in found}
    assert kinds == {"COMPLETE", "PRUNED"}
    for trial, record in zip(found, left, strict=True):
        pruned = trial.state == TrialState.PRUNED
        assert record["status"] == ("pruned" if pruned else "completed")
        reports = trial.intermediate_values
        assert len(reports) < 3 if pruned else len(reports) == 3
        assert record["test_accuracy"] is None or not pruned
        # As good as the median of what came before, after the same epoch, or better.
        before = found[: trial.number]
        for epoch in (1, 2):
            if epoch in reports and trial.number >= 4:
                complete = [t for t in before if t.state == TrialState.COMPLETE]
                values = sorted(t.intermediate_values[epoch] for t in complete)
                middle = len(values) // 2
                median = (values[middle] + values[~middle]) / 2
                best_so_far = max(reports[e] for e in reports if e <= epoch)
                ended_here = pruned and max(reports) == epoch
                assert ended_here == (best_so_far < median), (trial.number, epoch)
    assert f"{sum(t.state == TrialState.PRUNED for t in found)} pruned" in err


def halving(epochs, trials_in_all):
    pruner = pruning.make_pruner("halving", epochs=epochs, trials=trials_in_all)
    return optuna.create_study(direction="maximize", pruner=pruner)


@pytest.mark.parametrize(("trials_in_all", "first_goes_on"), [(11, True), (12, False)])
def test_halving_takes_a_quarter_of_those_there_are(trials_in_all, first_goes_on):
    searched = halving(4, trials_in_all)
    went_on = []
    for value in (0.5, 0.6, 0.4, 0.7, 0.65, 0.3, 0.2, 0.69):
        trial = searched.ask()
        trial.report(value, 1)
        went_on.append(not trial.should_prune())
        searched.tell(trial, state=TrialState.PRUNED)
    # Of eight two go on: the last is the second best.
    assert went_on == [first_goes_on, first_goes_on, False, True, False, False, False, True]


@pytest.mark.parametrize(
    ("epochs", "trials_in_all", "cuts"),
    [
        (1, 20, []), (2, 20, [1]), (4, 20, [1]), (5, 20, [2]), (12, 20, [3]), (30, 20, [8]),
        (30, 63, [8]), (30, 64, [2, 8]), (200, 100, [13, 52]), (200, 256, [4, 16, 64]),
    ],
)  # fmt: skip
def test_halving_cuts_so_often_that_some_are_left(epochs, trials_in_all, cuts):
    searched = halving(epochs, trials_in_all)
    stopped = set()
    for number in range(trials_in_all):
        trial = searched.ask()
        for epoch in range(1, epochs):
            # Each is better than all before it but for the first three of each cut.
            trial.report(number, epoch)
            if trial.should_prune():
                stopped.add(epoch)
                break
        searched.tell(trial, number)
    assert sorted(stopped) == cuts


@pytest.mark.parametrize("trials_in_all", [1, 5, 12, 70])
@pytest.mark.parametrize("epochs", [2, 12])
@pytest.mark.parametrize("seed", range(2))
def test_halving_leaves_a_best_one_and_spends_less(trials_in_all, epochs, seed):
    values = random.Random(seed).sample(range(1000), trials_in_all)
    if seed == 0:
        values.sort(reverse=True)  # the worst there is: the best come first, where none goes on
    searched = halving(epochs, trials_in_all)
    spent, ended = 0, 0
    for value in values:
        trial = searched.ask()
        for epoch in range(1, epochs + 1):
            spent += 1
            trial.report(value, epoch)
            if epoch < epochs and trial.should_prune():
                searched.tell(trial, state=TrialState.PRUNED)
                break
        else:
            searched.tell(trial, value)
            ended += 1
    assert ended >= 1
    if trials_in_all >= 12 and epochs > 2:
        assert spent <= 0.7 * epochs * trials_in_all


@pytest.mark.slow
def test_wilcoxon_gives_up_what_is_worse_on_the_same_seeds(command, tmp_path):
    given = [
        *("optimizer.lr=choice(0.1,1e-7)", "batch_size=16", "hydra/sweeper/sampler=grid"),
        *("sweep.pruner=wilcoxon", "seed=range(6)", "hydra.sweeper.sampler.seed=0"),
    ]
    status, _, err = command(*REPEATED, "epochs=2", *given)
    assert status == 0, err
    found = trials(tmp_path / "here")
    good, bad = (next(t for t in found if t.params["optimizer.lr"] == lr) for lr in (0.1, 1e-7))
    assert good.state == TrialState.COMPLETE
    runs = [r for r in records(tmp_path) if r["learning_rate"] == 1e-7]
    if bad.number > good.number:
        # Of four seeds all worse p is 1/16.
        assert (bad.state, len(runs), len(bad.intermediate_values)) == (TrialState.PRUNED, 4, 4)
        assert "1 complete, 1 pruned" in err
    else:
        assert (bad.state, len(runs)) == (TrialState.COMPLETE, 6)
