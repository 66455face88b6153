"""Tuned comparisons: a search for each contestant, then its best setting with other seeds."""

import json
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import TINY, UNREPORTED, in_one_go, records, started, wait_for

from fmbench.core.signals import StopRequested
from fmbench.records.record import Record
from fmbench.records.status import Reader
from fmbench.records.status_text import of_sweep
from fmbench.records.tuned import TUNED_NAME, Tuned, read_tuned
from fmbench.search import tuned
from fmbench.search.best import replayed

pytestmark = pytest.mark.usefixtures("no_pictures")

RATE = "optimizer.lr=tag(log,interval(1e-3,0.1))"

#: Two contestants, two trials and two final runs each, of one epoch.
COMPARE = [
    *("-m", "sweep=tuned", *TINY, "epochs=1", "device=cpu", "optimizer=sgd,adamw"),
    *("sweep.trials=2", "sweep.final_seeds=2", "hydra.sweep.dir=here"),
    "evaluation.corruptions=[contrast]",
]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A folder in which that comparison has run in one go in `here`, and what it said."""
    return in_one_go(tmp_path_factory.mktemp("straight"), *COMPARE)


@pytest.fixture
def begun(straight, tmp_path):
    """That comparison in a folder of the test's own."""
    shutil.copytree(straight.folder / "here", tmp_path / "here")
    return straight


def outcomes(folder: Path) -> list[tuple[object, ...]]:
    """What was computed in each run of a comparison."""
    names = ("key", "seed", "learning_rate", "train_loss", "validation_accuracy", "test_accuracy")
    return [(*(record[name] for name in names), record["tuning"]) for record in records(folder)]


def test_each_contestant_is_searched_and_its_best_run_with_other_seeds(straight):
    made = records(straight.folder / "here")
    assert len(made) == 8
    for number, name in enumerate(("sgd", "adamw")):
        block = made[4 * number : 4 * number + 4]
        trials, finals = block[:2], block[2:]
        assert {record["optimizer"] for record in block} == {name}
        assert {record["tuning"]["contestant"] for record in block} == {f"optimizer={name}"}
        assert [record["tuning"]["stage"] for record in block] == ["trial"] * 2 + ["final"] * 2
        assert [record["seed"] for record in block] == [0, 0, 1, 2]
        assert [record["test_accuracy"] is None for record in block] == [True, True, False, False]
        best = max(trials, key=lambda record: record["validation_accuracy"])
        for record in finals:
            assert record["learning_rate"] == best["learning_rate"]
            assert record["split"]["train"] == 200  # with the validation images
            assert [*record["corrupted"]["accuracies"]] == ["contrast"]
            said = record["tuning"]
            assert said["best"]["value"] == best["validation_accuracy"]
            assert said["best"]["parameters"]["optimizer.lr"] == best["learning_rate"]
            assert (said["trials"], said["epochs"]) == (2, 2)
            of_sgd = {"optimizer.momentum"} if name == "sgd" else set()
            assert {*said["space"]} == {"optimizer.lr", "optimizer.weight_decay", *of_sgd}
            assert {*said["best"]["parameters"]} == {*said["space"]}
            assert said["final_on"] == "train_and_validation"
            assert not [text for text in record["overrides"] if "tuning" in text]
    rates = {record["learning_rate"] for record in made}
    assert len(rates) == 4  # each search has a sampler's seed of its own
    assert not [*straight.folder.rglob("checkpoint*.pt")]
    assert "4 of 4 trials ended well, 4 of 4 final runs completed" in straight.err
    assert "search 2, final 2 of 2 (8 of 8): " in straight.err
    assert "tuning=" not in straight.err


def test_the_file_of_the_comparison_has_all_of_it(straight):
    made = read_tuned(straight.folder / "here")
    assert [one.label for one in made.contestants] == ["optimizer=sgd", "optimizer=adamw"]
    assert [(b.contestant, b.repeat, b.first, b.seeds, b.over) for b in made.blocks] == [
        (0, 1, 0, (1, 2), True), (1, 1, 4, (1, 2), True),
    ]  # fmt: skip
    for block in made.blocks:
        assert [trial.state for trial in block.search.trials] == ["complete"] * 2
        assert [trial.folder for trial in block.search.trials] == [
            str(block.first), str(block.first + 1),
        ]  # fmt: skip
    assert made.total == 8
    (sweep,) = Reader([straight.folder]).read()
    assert (sweep.total, sweep.counts) == (8, {"completed": 8})
    lines = [line.text for line in of_sweep(sweep)]
    assert "search 2, optimizer=adamw: best so far: validation_accuracy" in lines[2]
    assert "evaluation" not in " ".join(lines)
    assert Tuned.from_json(made.to_json()) == made


def test_the_best_setting_is_an_experiment_that_says_how_it_was_found(begun, command, tmp_path):
    status, _, err = command(
        "--config-dir", "here", "experiment=best_2", "seed=1", "hydra.run.dir=again",
    )  # fmt: skip
    assert status == 0, err
    again = Record.from_json((tmp_path / "again" / "result.json").read_text())
    final = Record.from_json((tmp_path / "here" / "6" / "result.json").read_text())
    assert again.key == final.key
    assert again.test_loss == final.test_loss
    assert again.tuning == {k: v for k, v in final.tuning.items() if k != "stage"}


@pytest.mark.slow
def test_a_comparison_that_is_over_runs_nothing_again(begun, command, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "here").rglob("result.json")}
    status, _, err = command(*COMPARE)
    assert status == 0, err
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize(
    "after", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)]
)
def test_one_that_was_killed_goes_on_to_the_same_end(
    straight, command, tmp_path, monkeypatch, after
):
    whole, count = tuned.Comparison.ended, []

    def dies(self, number, returned):
        count.append(number)
        if len(count) == after:
            raise StopRequested(signal.SIGINT, saved=True)  # before it is noted
        whole(self, number, returned)

    monkeypatch.setattr(tuned.Comparison, "ended", dies)
    status, _, _ = command(*COMPARE)
    assert status == 130
    monkeypatch.setattr(tuned.Comparison, "ended", whole)
    begun = {record["started"] for record in records(tmp_path)}
    status, _, err = command(*COMPARE)
    assert status == 0, err
    assert outcomes(tmp_path / "here") == outcomes(straight.folder / "here")
    assert begun <= {record["started"] for record in records(tmp_path)}
    assert not any(record["restarts"] for record in records(tmp_path))
    here, there = (read_tuned(folder / "here") for folder in (tmp_path, straight.folder))
    assert [b.search.best for b in here.blocks] == [b.search.best for b in there.blocks]


@pytest.mark.slow
def test_a_number_that_no_file_can_hold_costs_the_trials_of_one_search_alone(
    command, tmp_path, monkeypatch
):
    """The plan is written before any run; so the next start knows the folder."""
    whole = tuned._Contest.described

    def described(self):
        block = whole(self)
        if self.place or not block.search.trials:
            return block
        trials = [replace(one, parameters={"optimizer.lr": 1e999}) for one in block.search.trials]
        return replace(block, search=replace(block.search, trials=tuple(trials)))

    monkeypatch.setattr(tuned._Contest, "described", described)
    status, _, err = command(*COMPARE, "sweep.trials=1", "sweep.final_seeds=1")
    assert status == 0, err
    assert "tuned.json: without the trials of search 1: " in err
    first, second = read_tuned(tmp_path / "here").blocks
    assert (first.search, len(second.search.trials)) == (None, 1)
    status, _, err = command(*COMPARE, "sweep.trials=1", "sweep.final_seeds=1")
    assert status == 0, err


@pytest.mark.slow
def test_a_contestant_may_come_later_and_finds_what_it_would_have_found(begun, command, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "here").rglob("result.json")}
    wider = ["optimizer=adam,sgd,adamw" if "optimizer=" in text else text for text in COMPARE]
    status, _, err = command(*wider)
    assert status == 0, err
    assert before == {path: path.stat().st_mtime_ns for path in before}
    made = read_tuned(tmp_path / "here")
    assert [one.label for one in made.contestants][2] == "optimizer=adam"
    assert made.blocks[2].first == 8
    status, _, err = command(*COMPARE)
    assert (status, "holds a contestant that is not listed now, optimizer=adam" in err) == (5, True)


@pytest.mark.slow
def test_a_contestant_whose_trials_all_fail_leaves_the_others(command, tmp_path):
    status, out, err = command(*COMPARE, "optimizer=sgd", "optimizer.momentum=0.9,-1",
                               "optimizer.search.momentum=null")  # fmt: skip
    assert status == 4, err
    assert "search 2, optimizer.momentum=-1: no trial has completed" in err
    assert "optimizer.momentum=-1: 2 of its 2 trials failed" in out
    assert "2 of 4 trials ended well, 2 of 4 final runs completed" in err
    made = read_tuned(tmp_path / "here")
    assert [trial.state for trial in made.blocks[1].search.trials] == ["failed"] * 2
    assert made.blocks[1].over


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["optimizer=sgd", RATE], "there is nothing to compare"),
        (["optimizer=sgd,adamw", "optimizer.search=null"], "has nothing to search"),
        (["optimizer=sgd,torch", "batch_size=choice(8,16)"], "optimizer=torch: brings no range"),
        (["optimizer.lr=0.01,0.1"], "optimizer.search.lr=null leaves it out"),
        (["optimizer=sgd,adamw", RATE, "seed=1,2"], "draws its seeds itself"),
        (["optimizer=sgd,adamw", RATE, "evaluation.test=never"], "uses the test set once"),
        (["optimizer=sgd,adamw", RATE, "data=mnist,kmnist"], "cannot be searched"),
        (["data.train_size=100,200", RATE], "data.train_size=200, and data.train_size=100 has 100"),
        (["experiment=one,two"], "has data.split.seed=7, and experiment=one has 0"),
        (["optimizer=sgd,sgd", RATE], "optimizer=sgd: is listed twice"),
        (["optimizer=sgd,adamw", RATE, "sweep.study=mine"], "has one of its own"),
        (["optimizer=sgd,adamw", RATE, "sweep.objective=flops"], "chooses by one of"),
        (["optimizer=sgd,adamw", RATE, "sweep.final_seeds=0"], "must be 1 or more"),
        (["optimizer=sgd,adamw", RATE, "sweep.final_on=all"], "must be one of"),
        (["batch_size=16,32", RATE, "+hydra.sweeper.params.batch_size='8,9'"], "searched, and"),
        (["optimizer=sgd,adamw", RATE, "sweep.zip=[optimizer,model]"], "is not swept"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(command, tmp_path, arguments, said):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    for name, seed in (("one", 0), ("two", 7)):
        text = f"# @package _global_\ndata:\n  split:\n    seed: {seed}\n"
        (tmp_path / "own" / "experiment" / f"{name}.yaml").write_text(text)
    status, _, err = command("--config-dir", "own", "-m", "sweep=tuned", *TINY, *arguments)
    assert status == 2, err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not [*tmp_path.rglob("result.json")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sweep.trials=3", "sweep.trials=2, not 3"),
        ("sweep.final_on=train", "sweep.final_on=train_and_validation, not train"),
        ("optimizer.lr=tag(log,interval(1e-3,0.2))", "another search (optimizer.lr"),
    ],
)
def test_a_folder_of_another_comparison_is_refused(begun, command, change, said):
    status, _, err = command(*COMPARE, change)
    assert (status, said in err) == (5, True), err


def test_keys_of_comparisons_are_refused_elsewhere(command):
    status, _, err = command("-m", *TINY, "seed=0,1", "sweep.final_seeds=3")
    assert (status, "is for searches" in err) == (2, True)
    status, _, err = command("-m", "sweep=lr_batch", *TINY, "sweep.final_seeds=3")
    assert (status, "which sweep=tuned makes" in err) == (2, True)


@pytest.mark.slow
def test_code_that_was_changed_between_two_starts_is_said_in_one_line(
    command, tmp_path, monkeypatch
):
    counts = ("sweep.trials=1", "sweep.final_seeds=1", "evaluation.corruptions=null")
    options = ("--config-dir", "own", *COMPARE, "optimizer=sgd,changed", *counts)
    monkeypatch.setenv("FMBENCH_TRUST", "changed")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own" / "optimizer").mkdir(parents=True)
    option = "{_target_: changed.Mine, lr: 0.01, search: {lr: 'interval(0.01, 0.1)'}}"
    (tmp_path / "own" / "optimizer" / "changed.yaml").write_text(option)
    code = "import torch\n\n\nclass Mine(torch.optim.SGD):\n    factor = {}\n"
    for factor, searches in ((1, 1), (2, 2)):
        monkeypatch.delitem(sys.modules, "changed", raising=False)
        (tmp_path / "changed.py").write_text(code.format(factor) + "# x\n" * factor)
        status, out, err = command(*options, f"sweep.searches={searches}")
        assert status == 0, err
        said = "optimizer=changed: run 6 is of another version of your own code"
        assert err.count("another version") == err.count(said) == searches - 1
    assert "optimizer=changed: has no rank, for its trials" in out


@pytest.mark.slow
def test_repeated_searches_have_other_seeds_and_are_what_is_ranked(begun, command, tmp_path):
    before = outcomes(tmp_path / "here")
    status, out, err = command(*COMPARE, "sweep.searches=2")
    assert status == 0, err
    made = records(tmp_path / "here")  # by the order of their names: 0, 1, 10, 11, ...
    numbers = sorted(range(16), key=str)
    by_number = dict(zip(numbers, made, strict=True))
    assert [by_number[number]["seed"] for number in range(8, 16)] == [3, 3, 4, 5] * 2
    assert {by_number[number]["tuning"]["search"] for number in range(8, 16)} == {2}
    assert not {by_number[8]["learning_rate"]} & {one[2] for one in before}
    assert before == [outcomes(tmp_path / "here" / str(number))[0] for number in range(8)]
    assert "Of two the spread is known by one difference alone" in out


@pytest.mark.slow
def test_a_plan_says_what_would_run_and_runs_nothing(command, tmp_path):
    status, out, err = command(*COMPARE, "--plan", "optimizer.search.momentum=null")
    assert status == 0, err
    assert "8 runs, 8 epochs at most" in out
    assert "optimizer=sgd: searches optimizer.lr: tag(log, interval(1e-3, 0.3)); opt" in out
    assert "optimizer.momentum" not in out
    assert re.search(r"^optimizer=adamw +4 +4 +[0-9.e-]+ +\d+ ", out, re.M)
    assert "trials validate on 20 images" in out
    assert not [*tmp_path.rglob("*")]


@pytest.mark.slow
def test_grids_and_searches_have_plans_too(command, tmp_path):
    status, out, err = command(
        "-m", *TINY, "device=cpu", "seed=0,1,2", "batch_size=16,32", "--plan"
    )
    assert status == 0, err
    assert "6 runs, 12 epochs at most" in out
    assert re.search(r"^batch_size=32 +3 +6 ", out, re.M)
    status, out, err = command("-m", "sweep=lr_batch", *TINY, "device=cpu", "--plan")
    assert (status, "20 runs, 40 epochs at most" in out) == (0, True)
    assert not [*tmp_path.rglob("*")]
    status, _, err = command(*TINY, "--plan")
    assert (status, "does nothing in a single run" in err) == (2, True)


def test_without_validation_images_a_final_run_replays_what_was_decided_by_them():
    plateau = {"_target_": "fmbench.optim.schedules.plateau", "factor": 0.2}
    config = {"scheduler": plateau, "early_stop": {"patience": 3}, "epochs": 20}
    stops = [(7, [2, 5]), (None, [3]), (9, [4, 6, 8]), (6, [])]
    made = [
        SimpleNamespace(config=config, stopped_epoch=stopped, rate_drops=drops)
        for stopped, drops in stops
    ]
    given = ["optimizer.lr=0.1", "scheduler=plateau", "scheduler.factor=0.2", "epochs=20"]

    def replays(after, drops):
        after = [f"early_stop.after={after}"] if after else []
        return [*given, "early_stop.patience=null", *after, f"++scheduler.drops={drops}"]

    assert replayed(given, made[:1]) == replays(7, "[2,5]")
    assert replayed(given, made[1:2]) == replays(None, "[3]")
    assert replayed(given, made) == replays(7, "[3]")  # of 2, 3 and 4
    plain = SimpleNamespace(config={"scheduler": {"_target_": "constant"}})
    assert replayed(given, [plain]) == given
    for scheduler in ({**plateau, "drops": [4]}, {"_target_": "mine.plateau"}):
        other = SimpleNamespace(config={"scheduler": scheduler})
        assert replayed(given, [other]) == given


@pytest.mark.slow
def test_a_final_run_has_the_rates_and_epochs_that_validation_gave_its_trial(command, tmp_path):
    """An experiment chooses the plateau and sets keys of it, which stay where it is replayed."""
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [{override /scheduler: plateau}]\n"
    text += "scheduler: {patience: 1, factor: 0.5}\n"
    (tmp_path / "own" / "experiment" / "drops.yaml").write_text(text)
    still = "optimizer.lr=tag(log,interval(1e-9,2e-9))"  # no epoch is better than the first
    counts = ("epochs=9", "sweep.trials=1", "sweep.final_seeds=1", "early_stop.patience=4")
    others = ("experiment=drops", "evaluation.corruptions=null", "evaluation.flips=true")
    status, out, err = command("--config-dir", "own", *COMPARE, *counts, still, *others)
    assert status == 0, err
    assert "Each image was evaluated with its mirror (evaluation.flips=true)." in out
    made = read_tuned(tmp_path / "here")
    for block in made.blocks:
        assert block.epochs == 5
        trial, final = (tmp_path / "here" / str(block.first + one) for one in (0, 1))
        lines = [(run / "history.jsonl").read_text().splitlines() for run in (trial, final)]
        rates = [[json.loads(line)["learning_rate"] for line in of_run] for of_run in lines]
        assert rates[0] == rates[1]
        assert [rate / rates[0][0] for rate in rates[0]] == [1, 1, 0.5, 0.25, 0.125]
        record = Record.from_json((final / "result.json").read_text())
        assert (record.split["train"], record.split["validation"]) == (200, 0)
        assert (record.stopped_epoch, record.scheduler) == (5, "plateau")
        assert record.config["early_stop"]["patience"] is None
        assert record.config["evaluation"]["flips"] is True
    status, _, err = command(
        *("--config-dir", "own", "--config-dir", "here"),
        *("experiment=best_2", "seed=1", "hydra.run.dir=again"),
    )
    assert status == 0, err
    assert Record.from_json((tmp_path / "again" / "result.json").read_text()).key == record.key


@pytest.mark.slow
def test_processes_find_the_same_and_a_killed_command_goes_on(straight, tmp_path):
    arguments = [*COMPARE, "sweep.jobs=2", UNREPORTED]
    with started(*arguments, cwd=tmp_path) as child:
        wait_for(lambda: len(records(tmp_path)) > 2, 300)
        child.kill()
        child.wait()
    with started(*arguments, cwd=tmp_path) as child:
        _, err = child.communicate(timeout=600)
    assert child.returncode == 0, err
    assert outcomes(tmp_path / "here") == outcomes(straight.folder / "here")
    assert json.loads((tmp_path / "here" / TUNED_NAME).read_text())["blocks"][1]["over"]
