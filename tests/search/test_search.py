"""Searches by Optuna: what they choose by, and how they go on."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from commands import (
    TINY,
    UNREPORTED,
    compose,
    fmbench,
    in_one_go,
    records,
    started,
    wait_for,
    write_option,
)
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState
from searches import SEARCH, sorted_records, trials

from fmbench.config.hydra_compat import search_space
from fmbench.core.errors import ConfigError
from fmbench.core.files import LOCK_NAME
from fmbench.records.reader import read_history
from fmbench.records.record import Record
from fmbench.records.trials import DATABASE_NAME, Search
from fmbench.search import best, loop, pruning, study

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A folder in which that search has run in one go in `here`, and what it said."""
    return in_one_go(tmp_path_factory.mktemp("straight"), *SEARCH)


@pytest.fixture
def begun(straight, tmp_path):
    """That search in a folder of the test's own."""
    shutil.copytree(straight.folder / "here", tmp_path / "here")
    return straight


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in trials(folder)]


def test_a_search_chooses_by_validation_and_looks_at_the_test_set_once(straight):
    tmp_path, out, err = straight.folder, straight.out, straight.err
    found = trials(tmp_path / "here")
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 6
    for trial, record in zip(found, records(tmp_path), strict=True):
        assert trial.value == record["validation_accuracy"]
        assert trial.params["optimizer.lr"] == record["learning_rate"]
        assert [*trial.intermediate_values] == [1, 2, 3]
    chosen = max(found, key=lambda trial: trial.value)
    looked = [record["test_accuracy"] is not None for record in records(tmp_path)]
    assert looked == [trial.number == chosen.number for trial in found]
    assert looked == [record["corrupted"] is not None for record in records(tmp_path)]
    predicted = [path.parent.name for path in tmp_path.rglob("predictions.npy")]
    assert predicted == [str(chosen.number)]
    assert not [*tmp_path.rglob("checkpoint*.pt")]
    # One number in the lines, the folders and the report.
    assert "trial 5 (6 of 6): " in err
    best = f"trial {chosen.number}"
    assert [line.partition(",")[0] for line in err.splitlines() if "best so far" in line][-1] == (
        f"best so far: {best}"
    )
    assert f"{best} is among the best: evaluated on the test set" in err
    assert f"Best is {best} (" in out


def test_the_best_run_is_an_experiment(begun, command, tmp_path):
    (chosen,) = [r for r in records(tmp_path) if r["test_accuracy"] is not None]
    status, _, err = command("--config-dir", "here", "experiment=best", "hydra.run.dir=again")
    assert status == 0, err
    again = Record.from_json((tmp_path / "again" / "result.json").read_text())
    assert again.key == chosen["key"]
    assert chosen["tuning"] is None
    assert (again.tuning["trials"], again.tuning["epochs"]) == (6, 18)
    assert again.tuning["space"]["batch_size"] == "choice(16,32)"
    assert again.tuning["best"]["parameters"]["optimizer.lr"] == chosen["learning_rate"]
    for name in ("train_loss", "validation_loss", "test_loss", "test_accuracy"):
        assert getattr(again, name) == chosen[name], name
    written = [(tmp_path / f / "predictions.npy").read_bytes() for f in ("again", "here/" + str(
        records(tmp_path / "here").index(chosen)))]  # fmt: skip
    assert written[0] == written[1]


def test_the_best_of_a_search_that_began_with_the_best_of_another(tmp_path):
    first = ["experiment=lenet", "model=lenet5", "optimizer.lr=0.1", "model.classes=10", "seed=1"]
    path = tmp_path / best.BEST_NAME
    path.parent.mkdir()
    path.write_text(best.text(first, number=3, accuracy=0.5))
    second = ["experiment=best", "model=1e3", "optimizer.lr=0.2", "data=synthetic"]
    base = yaml.safe_load(path.read_text())
    loaded = yaml.safe_load(best.text(second, number=1, accuracy=0.5, base=base))
    assert loaded["defaults"] == [
        "/experiment/lenet", {"override /model": "1e3"}, {"override /data": "synthetic"}, "_self_",
    ]  # fmt: skip
    assert loaded["optimizer"] == {"lr": 0.2}
    assert (loaded["model"], loaded["seed"]) == ({"classes": 10}, 1)


def test_overrides_of_every_kind_reach_the_file_of_the_best_run():
    given = [
        "experiment=lenet", "model=lenet5", "+model.width=4", "batch_size=7", "optimizer.lr=1e-05",
        "augmentation.crop={padding: 2}", "evaluation.test=never", "keep_checkpoint=true",
        "data=synthetic", "~optimizer.momentum",
    ]  # fmt: skip
    text = best.text(given, number=3, accuracy=0.5)
    assert "~optimizer.momentum" in text
    loaded = yaml.safe_load(text)
    assert loaded["defaults"] == [
        "/experiment/lenet", {"override /model": "lenet5"}, {"override /data": "synthetic"},
        "_self_",
    ]  # fmt: skip
    assert loaded["batch_size"] == 7
    assert loaded["optimizer"] == {"lr": 1e-05}
    assert loaded["augmentation"] == {"crop": {"padding": 2}}
    assert "evaluation" not in loaded
    assert "keep_checkpoint" not in loaded


#: Calls an image light from a threshold on, and learns nothing.
THRESHOLD = """
import torch

class Threshold(torch.nn.Module):
    def __init__(self, *, threshold):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, images):
        light = 10 * (images.mean((1, 2, 3)) - self.threshold)
        return torch.stack([-light, light], 1)
"""


@pytest.mark.slow
def test_a_search_by_balanced_accuracy_chooses_otherwise_than_one_by_accuracy(
    command, tmp_path, monkeypatch
):
    """Nine images in ten are of one class, and a tenth of these as light as all of the other.

    The threshold 0.5 has the recalls 0.9 and 1, of few images about so; 0.9 has 1 and 0.
    """
    monkeypatch.setenv("FMBENCH_TRUST", "unfair")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "unfair.py").write_text(THRESHOLD)
    write_option("model/threshold.yaml", "_target_: unfair.Threshold\nthreshold: 0.5\n")
    labels = np.arange(400) % 10 == 0
    light = labels | (np.arange(400) // 10 % 10 == 1)  # a tenth of the others, and the class
    images = np.repeat(light * np.uint8(200), 64).reshape(-1, 8, 8)
    np.savez("unfair.npz", images=images, labels=labels.astype(np.uint8))
    chosen = {}
    for objective in ("validation_accuracy", "balanced_accuracy"):
        status, _, err = command(
            *("--config-dir", "mine", "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid"),
            *("data=arrays", "data.root=unfair.npz", "data.cache=null", "data.split=holdout"),
            *("data.mean=0", "data.std=1", "model=threshold", "optimizer.lr=1e-9", "epochs=2"),
            *("batch_size=16", "threads=1", "device=cpu", "model.threshold=choice(0.5,0.9)"),
            *(f"sweep.objective={objective}", "sweep.pruner=median", "sweep.trials=2"),
            f"hydra.sweep.dir={objective}",
        )
        assert status == 0, err
        left = sorted_records(tmp_path / objective)
        by = {record["config"]["model"]["threshold"]: record for record in left}
        assert by[0.9]["balanced_accuracy"] == 0.5
        assert by[0.5]["balanced_accuracy"] > 0.9
        assert by[0.9]["validation_accuracy"] == pytest.approx(0.9, abs=0.02)
        for trial, record in zip(trials(tmp_path / objective), left, strict=True):
            assert trial.value == trial.intermediate_values[1] == record[objective]
        (chosen[objective],) = (t for t, r in by.items() if r["test_accuracy"] is not None)
    assert chosen == {"validation_accuracy": 0.9, "balanced_accuracy": 0.5}
    history = read_history(tmp_path / "balanced_accuracy" / "0")
    assert [line["balanced_accuracy"] for line in history] == [left[0]["balanced_accuracy"]] * 2


@pytest.mark.slow
def test_a_search_goes_on_to_its_total_with_the_trials_of_one_in_one_go(
    straight, command, tmp_path
):
    assert command(*SEARCH, "sweep.trials=2")[0] == 0
    assert states(tmp_path / "here") == ["COMPLETE"] * 2
    status, _, err = command(*SEARCH, "sweep.trials=3")
    assert status == 0, err
    assert "resumes the search: 2 of 3 trials are done" in err
    ours, theirs = trials(tmp_path / "here"), trials(straight.folder / "here")[:3]
    assert [t.params for t in ours] == [t.params for t in theirs]
    assert [t.values for t in ours] == [t.values for t in theirs]
    assert len({t.params["optimizer.lr"] for t in ours}) == 3


def test_a_finished_search_changes_nothing(begun, command, tmp_path):
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("result.json"))]
    status, _, err = command(*SEARCH)
    assert status == 0
    assert "6 of 6 trials are done" in err
    assert "trial 0" not in err
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("result.json"))] == before


@pytest.mark.slow
def test_a_search_without_validation_carves_some(command, tmp_path):
    status, _, err = command(*SEARCH, "sweep.trials=2", "data.split=custom")
    assert status == 0, err
    assert "data.split=custom holds out no images: every run validates on 10 of its" in err
    assert [r["split"]["validation"] for r in records(tmp_path)] == [10, 10]


@pytest.mark.parametrize(("changed", "said"), [
    (["epochs=2"], "epochs is 3 there and 2 here"),
    (["sweep.objective=validation_loss"], "objective is validation_accuracy there"),
    (["+model.width=8"], "model.width is not set there and 8 here"),
])  # fmt: skip
def test_another_search_is_refused_the_folder(begun, command, tmp_path, changed, said):
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("result.json"))]
    status, _, err = command(*SEARCH, *changed)
    assert status == 5
    assert err.startswith(f"fmbench: here: holds another search ({said}")
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("result.json"))] == before


@pytest.mark.parametrize("override", [
    "optimizer.lr=tag(log,interval(0.001,0.3))", "a=interval(0.0,1.0)", "batch_size=choice(64,256)",
])  # fmt: skip
def test_the_range_of_an_older_search_is_said_as_an_override(override):
    """As of Adam before it had a range of its own."""
    ((key, distribution),) = search_space([override])[0].items()
    assert study._as_override(key, distribution_to_json(distribution)) == override
    assert study._as_override("epochs", "3") is None
    assert study._as_override("epochs", "not set") is None


@pytest.mark.slow
def test_grids_and_searches_keep_out_of_each_others_folders(begun, command, tmp_path):
    grid = ["-m", *TINY, "epochs=1", "seed=0"]
    status, _, err = command(*grid, "hydra.sweep.dir=here")
    assert (status, "here: holds a search; take another folder" in err) == (5, True)
    assert command(*grid, "hydra.sweep.dir=grid")[0] == 0
    status, _, err = command(*SEARCH, "hydra.sweep.dir=grid")
    assert (status, "grid: holds the runs of another sweep" in err) == (5, True)
    assert not (tmp_path / "grid" / DATABASE_NAME).exists()


def test_how_many_trials_there_will_be_is_written_before_the_first(command, tmp_path, monkeypatch):
    found = []

    def ends(*_):
        found.append(Search.from_json((tmp_path / "here" / "search.json").read_text()))
        raise ConfigError("here")

    monkeypatch.setattr(loop, "drive", ends)
    assert command(*SEARCH, "sweep.seeds=3")[0] == 2
    assert [(one.total, one.runs, one.trials) for one in found] == [(6, 3, ())]


@pytest.mark.slow
def test_trials_that_fail_end_themselves_alone(command, tmp_path):
    """One whose loss is NaN, one that raises, and those that do well."""
    given = ["optimizer.lr=choice(1e30,0.1)", "batch_size=choice(16,100000)"]
    sampler = ["hydra/sweeper/sampler=grid", "sweep.trials=9", "hydra.sweep.dir=here"]
    status, _, err = command(*SEARCH[:-3], "sweep.pruner=none", *given, *sampler)
    assert status == 4, err
    found = trials(tmp_path / "here")
    # Optuna's samplers learn nothing from a failure, but that a place is bad where one is pruned.
    assert sorted(t.state.name for t in found) == ["COMPLETE", "FAIL", "FAIL", "PRUNED"]
    failed = [t.user_attrs["fmbench.error"] for t in found if t.state != TrialState.COMPLETE]
    written = Search.from_json((tmp_path / "here" / "search.json").read_text())
    assert sorted(trial.state for trial in written.trials) == ["complete", *["failed"] * 3]
    diverged = [r for r in records(tmp_path) if r["status"] == "diverged"]
    assert all(r["seconds"]["train"] > 0 for r in diverged)
    assert len(diverged) == 1
    assert sum("batch_size=100000: larger than" in text for text in failed) == 2
    assert sum("the loss is" in text for text in failed) == 1
    assert "1 of 4 trials ended well" in err


@pytest.mark.slow
def test_a_search_whose_trials_all_fail_says_so(command):
    status, _, err = command(*SEARCH[:-3], "batch_size=choice(5000,6000)", "sweep.trials=2")
    assert status == 4
    assert "batch_size=5000: larger than the training part, 180 images" in err
    assert "0 of 2 trials ended well" in err


@pytest.mark.slow
def test_several_objectives_end_in_a_front(command, tmp_path):
    status, _, err = command(
        *("-m", "sweep=pareto", *TINY[:3], "model=lenet5,lenet", "epochs=1", "threads=1"),
        *("sweep.trials=5", "batch_size=choice(16,32)", "hydra.sweep.dir=here"),
    )
    assert status == 0, err
    found, left = trials(tmp_path / "here"), sorted_records(tmp_path / "here")
    points = [(t.values[0], -t.values[1]) for t in found]
    assert [p[1] for p in points] == [-record["parameters"] for record in left]
    front = [not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points) for p in points]
    assert [record["test_accuracy"] is not None for record in left] == front
    assert sum(front) >= 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a run's most memory")
def test_every_trial_of_a_process_says_how_much_memory_it_took(tmp_path):
    """From the eighth on, what importances are computed with is in memory too."""
    done = fmbench(*SEARCH, "epochs=1", "sweep.trials=10", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Search.from_json((tmp_path / "here" / "search.json").read_text()).importances
    assert all(record["peak_memory"] for record in sorted_records(tmp_path / "here"))


@pytest.mark.slow
def test_a_search_killed_three_times_ends_with_its_total(straight, command, tmp_path):
    folder = tmp_path / "here"
    for done in (1, 2, 4):  # trials at whose end, or soon after, it is killed
        with started(*SEARCH, cwd=tmp_path):
            wait_for(lambda n=done: len([*folder.glob("*/history.jsonl")]) > n)
    status, _, err = command(*SEARCH)
    assert status == 0, err
    found, left = trials(folder), sorted_records(folder)
    assert len(found) == len(left) == 6
    assert {t.state.name for t in found} <= {"COMPLETE", "PRUNED"}
    assert sorted(t.user_attrs[study.JOB] for t in found) == list(range(6))
    for trial, other in zip(found, trials(straight.folder / "here"), strict=True):
        assert trial.params == other.params
        assert trial.values == other.values
        assert trial.intermediate_values == other.intermediate_values
    assert not [*tmp_path.rglob("checkpoint*.pt")]


@pytest.mark.slow
def test_a_stopped_search_prints_the_command_that_goes_on(tmp_path, command):
    search = [*SEARCH[:-1], "epochs=40", "hydra.sweep.dir=here"]
    with started(*search, cwd=tmp_path) as process:
        wait_for(lambda: [*tmp_path.glob("here/1/history.jsonl")])
        process.terminate()
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, err
    line = err.splitlines()[-1]
    assert "-m fmbench -m sweep=lr_batch" in line
    assert line.endswith(f"hydra.sweep.dir={tmp_path / 'here'}")
    (running,) = [t for t in trials(tmp_path / "here") if t.state == TrialState.RUNNING]
    assert sorted_records(tmp_path / "here")[running.number]["status"] == "interrupted"


@pytest.mark.slow
def test_a_grid_goes_on_where_it_was_and_may_get_longer(command, tmp_path):
    grid = ["-m", *TINY, "hydra.sweep.dir=here"]
    assert command(*grid, "seed=0,1")[0] == 0
    first, second = (tmp_path / "here" / n / "result.json" for n in "01")
    record = json.loads(second.read_text())
    second.write_text(json.dumps(record | {"status": "interrupted", "test_accuracy": None}))
    kept = first.read_bytes()
    status, _, err = command(*grid, "seed=5,0,1")
    assert status == 0, err
    assert "resumes the sweep: 1 of 3 runs are done" in err
    assert first.read_bytes() == kept
    found = sorted_records(tmp_path / "here")
    assert [(r["seed"], r["status"]) for r in found] == [(s, "completed") for s in (0, 1, 5)]
    status, _out, err = command(*grid, "seed=5,0,1")
    assert (status, "3 of 3 runs are done" in err) == (0, True)
    # As an experiment says it that left this to the hardware when the grid was begun.
    status, _out, err = command(*grid, "seed=5,0,1", "precision=fp32")
    assert (status, "3 of 3 runs are done" in err) == (0, True)
    record["fingerprint"]["precision"] = "bf16"
    second.write_text(json.dumps(record))
    status, _out, err = command(*grid, "seed=5,0,1", "precision=fp32")
    assert (status, "holds runs that are not of this sweep, such as 1 " in err) == (5, True)


def test_importances_are_of_the_first_objective_also_beside_others():
    def shares(*directions):
        searched = study.SearchStudy.__new__(study.SearchStudy)
        sampler = optuna.samplers.RandomSampler(seed=0)
        searched.study = optuna.create_study(directions=directions, sampler=sampler)
        for number in range(40):
            trial = searched.study.ask()
            x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
            searched.study.tell(trial, [x**8 + y / 10, number][: len(directions)])
        return searched._importances()

    assert shares("maximize", "minimize") == shares("maximize")
    assert shares("maximize") != shares("minimize")


def test_a_database_that_is_gone_ends_no_run(monkeypatch, caplog):
    from sqlalchemy.exc import OperationalError

    class Gone:
        _trial_id = 0

        def report(self, value, step):
            raise OperationalError("report", {}, Exception("server closed the connection"))

    watch = pruning.Watch.__new__(pruning.Watch)
    watch.trial, watch.objective, watch.known = Gone(), "validation_accuracy", set()
    record = Record.__new__(Record)
    record.validation_accuracy, record.epochs = 0.5, 3
    assert watch(1, record) is False
    assert "search: epoch 1 not reported" in caplog.text


def test_a_searchs_own_keys_are_no_part_of_its_runs(straight):
    (record,) = (r for r in records(straight.folder) if r["test_accuracy"] is not None)
    assert "sweep" not in record["config"]
    assert not [text for text in record["overrides"] if text.startswith("sweep")]
    again = compose(*record["overrides"])
    assert again["data"]["split"]["name"] == "holdout"
    usual = {"every": None, "test": "end", "flips": False}
    assert again["evaluation"] == usual | {"corruptions": ["rotate"]}  # as the search was told
    assert not again["keep_checkpoint"]


def owner(folder: Path) -> int | None:
    """The process that is at work in a run's folder."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == folder / LOCK_NAME:
                return int(link.parts[2])
        except OSError:
            continue
    return None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_process_fails_its_own_trial(tmp_path):
    with started(*SEARCH, "sweep.jobs=2", "sweep.trials=4", "epochs=30", cwd=tmp_path) as process:
        wait_for((tmp_path / "here" / "1" / "history.jsonl").exists, 100)
        os.kill(wait_for(lambda: owner(tmp_path / "here" / "1")), signal.SIGKILL)
        err = process.communicate(timeout=100)[1]
    assert process.returncode == 4, err
    assert "3 of 4 trials ended well: 3 complete, 1 failed" in err
    assert sorted(states(tmp_path / "here")) == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    (failed,) = [t for t in trials(tmp_path / "here") if t.state == TrialState.FAIL]
    assert failed.user_attrs[study.ERROR] == "its process was killed by SIGKILL"
    assert [r["status"] for r in sorted_records(tmp_path / "here")].count("failed") == 1


@pytest.mark.slow
def test_one_process_draws_the_trials_of_none(straight, command, tmp_path):
    one = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    assert command(*SEARCH, *one)[0] == 0
    ours, theirs = trials(tmp_path / "here"), trials(straight.folder / "here")
    for here, there in zip(ours, theirs, strict=True):
        assert (here.params, here.values, here.state) == (there.params, there.values, there.state)
        assert here.intermediate_values == there.intermediate_values


@pytest.mark.slow
def test_searches_that_share_a_study_end_at_its_total(tmp_path):
    """Two at once, that draw from one study until all is drawn."""
    url = f"sqlite:///{tmp_path / 'both.db'}"
    shared = ["sweep.trials=6", f"sweep.storage={url}", "sweep.study=both"]
    search = [*SEARCH, *shared, UNREPORTED]
    with (
        started(*search, "hydra.sweep.dir=a", cwd=tmp_path, stderr=None) as one,
        started(*search, "hydra.sweep.dir=b", cwd=tmp_path, stderr=None) as other,
    ):
        assert [process.wait(timeout=200) for process in (one, other)] == [0, 0]
    found = optuna.load_study(study_name="both", storage=url).get_trials()
    complete = [trial for trial in found if trial.state == TrialState.COMPLETE]
    assert len(complete) == 6
    assert len(records(tmp_path)) == 6
    assert len({trial.params["optimizer.lr"] for trial in complete}) == 6
    value = max(trial.value for trial in complete)
    looked = [record for record in records(tmp_path) if record["test_accuracy"] is not None]
    assert value in [record["validation_accuracy"] for record in looked]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_trial_that_was_asked_for_and_not_drawn_is_drawn_as_it_would_have_been(
    sampler, command, tmp_path, monkeypatch
):
    """Its search was killed in between."""
    from fmbench.search.draw import Draws

    given = ["optimizer.lr=choice(0.01,0.02,0.03)", "batch_size=16", "epochs=1", "sweep.trials=3"]
    search = [*SEARCH, *given, f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.sampler.seed=0"]
    assert command(*search, "hydra.sweep.dir=straight")[0] == 0
    draw, drawn = Draws._draw, []

    def killed_at_the_second(self, trial):
        drawn.append(trial)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(self, trial)

    monkeypatch.setattr(Draws, "_draw", killed_at_the_second)
    assert command(*search)[0] == 130
    monkeypatch.setattr(Draws, "_draw", draw)
    assert command(*search)[0] == 0
    ours, straight = trials(tmp_path / "here"), trials(tmp_path / "straight")
    assert [t.params for t in ours] == [t.params for t in straight]


@pytest.mark.slow
def test_a_full_disk_leaves_no_trial_that_can_never_be_looked_at(command, tmp_path, monkeypatch):
    from fmbench.runs.checkpointing import RunState

    save = RunState.save
    monkeypatch.setattr(RunState, "save", lambda self: False)
    status, _, err = command(*SEARCH, "sweep.trials=1")
    assert status == 5
    assert (
        "here/0: the checkpoint that a later evaluation on the test set needs cannot be written"
        in err
    )
    monkeypatch.setattr(RunState, "save", save)
    status, _, err = command(*SEARCH, "sweep.trials=1")
    assert status == 0, err
    (record,) = records(tmp_path)
    assert record["test_accuracy"] is not None


@pytest.mark.slow
def test_a_foreign_search_hides_no_failures_of_a_grid(begun, command, tmp_path):
    (tmp_path / "grid").mkdir()
    (tmp_path / "here" / "search.json").rename(tmp_path / "grid" / "search.json")
    status, _, err = command("-m", *TINY, "optimizer.lr=0.1,1e30", "hydra.sweep.dir=grid")
    assert status == 4
    assert "1 of 2 runs completed" in err


@pytest.mark.parametrize(("objective", "best_one"), [
    ("validation_accuracy", 1), ("validation_loss", 0),
])  # fmt: skip
def test_of_equals_the_first_is_the_best(tmp_path, objective, best_one):
    keys = {"storage": None, "study": None, "objective": objective, "at_most": None}
    ours = study.SearchStudy(keys, tmp_path, optuna.pruners.NopPruner())
    assert ours.best() == []
    for value in (0.5, 0.7, 0.7, 0.5):
        ours.study.tell(ours.ask(4), value)
    assert [trial.number for trial in ours.best_here()] == [best_one]


@pytest.mark.parametrize(
    "objective", ["validation_accuracy", ["validation_accuracy", "parameters"]]
)
def test_a_trial_beyond_its_constraints_is_not_the_best(tmp_path, objective):
    """`sweep.at_most` sets constraints, and so may a function of the user's that draws trials."""
    keys = {"storage": None, "study": None, "objective": objective, "at_most": None}
    ours = study.SearchStudy(keys, tmp_path, optuna.pruners.NopPruner())
    for place, (value, above) in enumerate([(0.9, 1.0), (0.5, -1.0), (0.4, 0.0)]):
        trial = ours.ask(3)
        trial.set_constraint("time", above)
        ours.study.tell(trial, value if isinstance(objective, str) else [value, place])
        assert [one.number for one in ours.best_here()] == ([1] if place else [])


def test_what_a_study_holds_has_the_names_that_it_always_had():
    """Searches begun by an earlier fmbench are resumed, and several versions may share a study."""
    names = (study.FOLDER, study.JOB, study.OVERRIDES, study.SECONDS, study.ERROR)
    assert names == tuple(
        f"fmbench.{name}" for name in ("folder", "job", "overrides", "seconds", "error")
    )
