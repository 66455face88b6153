"""Searches with limits on the size of a model, which is known before it is trained."""

import json

import optuna
import pytest
from commands import TINY, records
from optuna.trial import TrialState
from reports import build
from searches import sweep, trial

from fmbench.core.errors import ConfigError
from fmbench.records.record import INFEASIBLE, Record
from fmbench.runs import run
from fmbench.search import study

pytestmark = pytest.mark.usefixtures("no_pictures")

#: LeNet-5 has 44,426 parameters, LeNet 61,706.
SEARCH = [
    *("-m", "sweep=lr_batch", *(word for word in TINY if word != "model=lenet5"), "epochs=1"),
    *("device=cpu", "sweep.trials=6", "sweep.pruner=none", "batch_size=32", "model=lenet,lenet5"),
    "hydra.sweep.dir=here",
]
LIMIT = "sweep.at_most={parameters: 50000}"


def trials(folder):
    storage = study.open_storage({"storage": None, "detach": False}, folder)
    return optuna.load_study(study_name=study.OWN_STUDY, storage=storage).get_trials()


@pytest.mark.slow
def test_a_model_above_the_limit_is_not_trained_and_is_no_failure(command, tmp_path):
    status, out, err = command(*SEARCH, LIMIT)
    assert status == 0, err
    found = trials(tmp_path / "here")
    large = {one.number for one in found if one.params["model"] == "lenet"}
    assert 0 < len(large) < 6
    assert f"6 of 6 trials ended well: {6 - len(large)} complete, {len(large)} infeasible" in err
    said = "61,706 parameters, more than sweep.at_most.parameters=50,000"
    assert f"infeasible: {said}" in err
    for one in found:
        folder = tmp_path / "here" / str(one.number)
        record = json.loads((folder / "result.json").read_text())
        above = one.number in large
        assert one.constraints == {"parameters": 11_706 if above else -5_574}
        assert one.state == (TrialState.PRUNED if above else TrialState.COMPLETE)
        assert record["status"] == ("infeasible" if above else "completed")
        assert (folder / "history.jsonl").exists() is not above
        assert not [*folder.glob("checkpoint*.pt")]
        if above:
            assert (record["error"], record["seconds"]["train"]) == (said, 0)
    searched = json.loads((tmp_path / "here" / "search.json").read_text())
    assert [one["state"] == "infeasible" for one in searched["trials"]] == [
        number in large for number in range(6)
    ]
    assert large.isdisjoint(searched["best"])
    looked = [record for record in records(tmp_path) if record["test_accuracy"] is not None]
    assert [record["model"] for record in looked] == ["lenet5"]
    assert f"{len(large)} infeasible" in out
    # Nothing is run again, and other limits make another search.
    assert command(*SEARCH, LIMIT)[0] == 0
    status, _, err = command(*SEARCH, "sweep.at_most={parameters: 70000}")
    assert status == 5
    assert "sweep.at_most.parameters is 50000 there and 70000 here" in err
    assert command(*SEARCH)[0] == 5


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_where_no_model_is_small_enough_the_search_has_found_nothing(seeds, command, tmp_path):
    few = ["sweep.trials=2", f"sweep.seeds={seeds}", "sweep.at_most={flops: 1}"]
    status, _, err = command(*SEARCH, *few)
    assert status == 4
    assert "2 of 2 trials ended well: 2 infeasible" in err
    # The other run of a trial is not begun.
    assert [record["status"] for record in records(tmp_path)] == ["infeasible"] * 2


@pytest.mark.slow
def test_a_front_has_no_model_above_the_limit(command, tmp_path):
    several = "sweep.objective=[validation_accuracy,flops]"
    status, _, err = command(*SEARCH, several, "sweep.trials=4", LIMIT)
    assert status == 0, err
    assert {one.state for one in trials(tmp_path / "here")} == {
        TrialState.COMPLETE, TrialState.PRUNED
    }  # fmt: skip
    looked = [record for record in records(tmp_path) if record["test_accuracy"] is not None]
    assert {record["model"] for record in looked} == {"lenet5"}


def test_a_size_that_cannot_be_counted_is_no_size_within_the_limit():
    record = Record.__new__(Record)
    record.parameters, record.flops, record.model = 10, None, "mine"
    run._refuse_larger(record, {"parameters": 10})
    with pytest.raises(run.InfeasibleError, match=r"10 parameters, more than .*=9\.5"):
        run._refuse_larger(record, {"parameters": 9.5})
    with pytest.raises(ConfigError, match=r"sweep\.at_most\.flops: cannot be counted of mine"):
        run._refuse_larger(record, {"flops": 10})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{parameters: 0}", "sweep.at_most.parameters=0: must be a number above 0"),
        ("{flops: many}", "sweep.at_most.flops=many: must be a number above 0"),
        ("{flops: inf}", "sweep.at_most.flops=inf: must be a number above 0"),
        ("{flops: true}", "sweep.at_most.flops=True: must be a number above 0"),
        ("5", "sweep.at_most=5: must be {parameters: N, flops: N}"),
        ("{seconds: 5}", "sweep.at_most.seconds: must be parameters or flops"),
    ],
)
def test_limits_are_positive_numbers_of_what_is_known_of_a_model(command, given, said):
    status, _, err = command(*SEARCH, f"sweep.at_most={given}")
    assert status == 2
    assert said in err


@pytest.mark.parametrize("around", [["-m", "batch_size=8,16"], []])
def test_limits_are_for_searches_alone(command, around):
    status, _, err = command(*around, *TINY, LIMIT)
    assert status == 2
    assert LIMIT in err


def test_the_report_counts_what_was_infeasible(tmp_path):
    said = {"values": None, "reports": {}, "seconds": None}
    large = trial(2, state="infeasible", **said)
    sweep(tmp_path, trials=[trial(0), trial(1, state="pruned", **said), large, trial(3)])
    path = tmp_path / "2" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": INFEASIBLE}))
    made = build(tmp_path)
    (section,) = made.sections
    assert section.summary.endswith("1 pruned, 1 infeasible.")
    assert section.unfinished == []
    assert (made.completed, made.pruned, made.infeasible, made.failed) == (2, 1, 1, 0)
    assert "2 of 5 trials completed, 1 pruned, 1 infeasible, 1 not begun" in made.markdown
