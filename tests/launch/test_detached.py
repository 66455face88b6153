"""Sweeps that go on without their command: runs and workers that nobody waits for."""

import contextlib
import os
import pickle
import signal
import statistics
import subprocess
import sys
import threading
import time
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import optuna
import pytest
import yaml
from clusters import PATIENCE, installed
from commands import TINY, fmbench, in_one_go, records, started, wait_for
from optuna.trial import TrialState
from searches import trials

from fmbench.core.errors import StorageError
from fmbench.core.files import FolderLock
from fmbench.launch import Executor, make_executor, slurm_queue
from fmbench.launch.executor import Runs, Sweep
from fmbench.records.record import PREDICTIONS_NAME, recorded_overrides
from fmbench.records.status import Reader
from fmbench.records.trials import SEARCH_NAME, Search
from fmbench.search import loop, study
from fmbench.search.claims import Claims

#: A search whose trials take about a second.
SEARCH = [
    *("-m", "sweep=lr_batch", *TINY, "epochs=8", "sweep.trials=6", "device=cpu"),
    *("batch_size=choice(16,32)", "sweep.pruner=none"),
]


class Left(Executor):
    """Keeps what is left to go on, as a file that another process reads."""

    detachable = True

    def leave_workers(self, worker, count):
        call = cloudpickle.dumps((worker, Runs(self.sweep, 1), count))
        Path("workers.pkl").write_bytes(call)


@pytest.fixture
def workers(tmp_path, command, monkeypatch):
    """Starts a worker of a detached search, as a job of a cluster would."""

    def make(*, config, hydra_context, task_function, runs):
        return Left(Sweep(hydra_context, task_function, config), runs)

    monkeypatch.setattr(loop, "make_executor", make)
    begun = [*SEARCH, "sweep.jobs=3", "sweep.detach=true", "hydra.sweep.dir=here"]
    status, out, err = command(*begun)
    assert status == 0, err
    assert out == "fmbench status here\nfmbench report here\n"
    assert pickle.loads((tmp_path / "workers.pkl").read_bytes())[2] == 3
    code = (
        "import pathlib, pickle, sys; sys.argv = ['fmbench']\n"
        "worker, runs, _ = pickle.loads(pathlib.Path('workers.pkl').read_bytes())\n"
        "runs.begin(); worker(runs)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with contextlib.ExitStack() as stack:

        def start():
            err = stack.enter_context((tmp_path / "workers.log").open("a"))
            given = [sys.executable, "-c", code]
            process = subprocess.Popen(given, cwd=tmp_path, env=environment, stderr=err)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


@pytest.mark.slow
def test_workers_take_trials_and_what_a_dead_one_had_is_taken_over(workers, tmp_path, command):
    folder = tmp_path / "here"
    first, second = workers(), workers()
    # Beyond its first epoch, so that the other goes on from there or begins anew.
    wait_for(lambda: len([*folder.glob("*/history.jsonl")]) >= 2, 100)
    first.kill()
    first.wait()
    assert second.wait(PATIENCE) == 0, (tmp_path / "workers.log").read_text()
    found = trials(folder)
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 6
    assert len({trial.params["optimizer.lr"] for trial in found}) == 6
    made = records(folder)
    assert sorted(record["validation_accuracy"] for record in made) == sorted(
        trial.value for trial in found
    )
    assert sum(record["test_accuracy"] is not None for record in made) == 1
    assert (folder / "experiment" / "best.yaml").exists()
    (sweep,) = Reader([folder]).read()  # the claims are no sweeps
    assert (sweep.total, len(sweep.runs)) == (6, 6)
    # The command goes on with it, attached now.
    assert workers().wait(PATIENCE) == 0
    assert len(records(folder)) == 6


@pytest.mark.slow
def test_workers_draw_other_trials_and_an_attached_search_waits_for_theirs(workers, tmp_path):
    """All of them ask at the same moment, and one was killed right as it asked, long ago."""
    folder = tmp_path / "here"
    storage = study.open_storage({"storage": None, "detach": True}, folder)
    optuna.load_study(study_name=study.OWN_STUDY, storage=storage).ask()
    three = [workers() for _ in range(3)]
    wait_for(lambda: [*folder.glob("*/history.jsonl")], 100)
    attached = fmbench(*SEARCH, "hydra.sweep.dir=here", cwd=tmp_path, timeout=PATIENCE)
    assert attached.returncode == 0, attached.stderr
    assert "6 of 6 trials ended well: 6 complete" in attached.stderr
    assert [process.wait(PATIENCE) for process in three] == [0, 0, 0]
    found = trials(folder)
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 6
    assert len({trial.params["optimizer.lr"] for trial in found}) == 6
    assert all(record["restarts"] == [] for record in records(folder))
    assert sum(record["test_accuracy"] is not None for record in records(folder)) == 1


@pytest.mark.slow
def test_a_search_in_a_database_is_not_detached(workers, command, tmp_path, monkeypatch):
    del workers  # whose executor can be left
    small = [*SEARCH, "epochs=1", "sweep.trials=1", "hydra.sweep.dir=there"]
    monkeypatch.setattr(loop, "make_executor", make_executor)
    assert command(*small)[0] == 0
    left = {"hydra/launcher=submitit_slurm", "sweep.detach=true"}
    monkeypatch.setattr(loop, "make_executor", lambda **_: None)
    status, _, err = command(*small, "sweep.trials=2", *left)
    assert (status, "there: holds a search that was begun without sweep.detach" in err) == (5, True)
    monkeypatch.setattr(loop, "make_executor", make_executor)
    assert command(*small, "sweep.trials=2")[0] == 0


def test_a_claim_that_cannot_be_written_is_an_error_and_no_reason_to_wait(tmp_path):
    claims = Claims(tmp_path)
    (tmp_path / ".workers" / "ask").mkdir(parents=True)
    (tmp_path / ".workers" / "ask" / ".fmbench.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="cannot be written: it is a link"), claims.turn("ask"):
        pass


def test_a_trial_that_another_has_claimed_is_not_ours(tmp_path):
    """Nobody adopts a trial while somebody else asks for it."""
    keys = {"storage": None, "study": None, "objective": "validation_accuracy", "at_most": None}
    pruner = optuna.pruners.NopPruner()
    first = study.SearchStudy({**keys, "detach": True}, tmp_path, pruner)
    assert not first.agree({}, {})
    assert first.ask(5, lambda _: False) is None
    second = study.SearchStudy({**keys, "detach": True}, tmp_path, pruner)
    assert second.agree({}, {})
    assert second.mine() == []
    second.adopt()
    assert [trial.number for trial in second.mine()] == [0]


def test_without_locks_no_trial_is_claimed(tmp_path, monkeypatch):
    claims = Claims(tmp_path)
    assert claims.take(3)
    assert not Claims(tmp_path).take(3)
    claims.release_all()
    assert claims.take(3)
    monkeypatch.setattr(FolderLock, "is_held", False)
    with pytest.raises(StorageError, match="has no locks, without which workers"):
        claims.take(4)


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=processes"], ["sweep.jobs=2"]])
def test_runs_that_end_with_the_command_cannot_be_left(command, tmp_path, launcher):
    status, _, err = command("-m", *TINY, "seed=0,1", "sweep.detach=true", *launcher)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("fmbench: sweep.detach=true: these runs end with the command; those of")
    assert not [*tmp_path.rglob("result.json")]


@pytest.mark.parametrize(("told", "refusal"), [
    ("12\n", r"are in Slurm's queue.*scancel 12 9 ends them"),
    (None, r"may be in Slurm's queue, which does not answer"),
    ("", None),
])  # fmt: skip
def test_a_sweep_is_not_started_beside_its_jobs(monkeypatch, tmp_path, told, refusal):
    monkeypatch.setattr(slurm_queue, "_run", lambda *_: told)
    slurm_queue.refuse_detached(tmp_path)  # nothing was left there
    slurm_queue.note(tmp_path, {"12"})
    slurm_queue.note(tmp_path, {"9"})  # a sweep may be submitted in parts
    if refusal:
        with pytest.raises(slurm_queue.StorageError, match=refusal):
            slurm_queue.refuse_detached(tmp_path)
    else:
        slurm_queue.refuse_detached(tmp_path)
    # Only where Slurm says that they are gone is the sweep no longer left to it.
    assert (tmp_path / slurm_queue.DETACHED_NAME).exists() == (told != "")


def test_a_sweep_that_was_left_to_ray_is_started_by_ray_alone(tmp_path):
    slurm_queue.note(tmp_path, ["fmbench-0123abcd"])
    slurm_queue.refuse_detached(tmp_path, asks_ray=True)
    with pytest.raises(StorageError, match="were left to Ray, which hydra/launcher=ray asks"):
        slurm_queue.refuse_detached(tmp_path)


def test_what_was_noted_is_read_as_a_strangers(tmp_path):
    slurm_queue.note(tmp_path, ["12"])
    path = tmp_path / slurm_queue.DETACHED_NAME
    path.write_text("12\n--all\n;rm\nfmbench-0123abcd\n../x\n")
    assert slurm_queue.noted(tmp_path) == ["12", "fmbench-0123abcd"]
    path.unlink()
    path.symlink_to("elsewhere")
    assert slurm_queue.noted(tmp_path) == []


def writes(folder, read):
    """What a worker writes `search.json` with; `read` gives its text."""
    search = loop.Search.__new__(loop.Search)
    search.folder, search.claims = folder, Claims(folder)
    search.described = lambda: SimpleNamespace(to_json=partial(str, read()))
    return search._write


def test_what_a_worker_has_read_earlier_is_not_written_later(tmp_path):
    """Both write `search.json`; one is held up between reading and writing."""
    known, has_read, other_writes = ["one trial"], threading.Event(), threading.Event()

    def read_and_wait():
        text = known[-1]
        has_read.set()
        other_writes.wait(0.5)  # where they take turns it waits for this one
        return text

    def write_newer():
        has_read.wait()
        known.append("two trials")
        writes(tmp_path, lambda: known[-1])()
        other_writes.set()

    other = threading.Thread(target=write_newer)
    other.start()
    writes(tmp_path, read_and_wait)()
    other.join()
    assert (tmp_path / SEARCH_NAME).read_text() == "two trials"


def in_queue(environment):
    told = subprocess.run(
        ["squeue", "-h"], env={**os.environ, **environment}, capture_output=True, check=True
    )
    return told.stdout.strip()


def are_eight_of_two(folder):
    """A search by several workers has eight trials of two seeds, each with its own result."""
    found = Search.from_json((folder / SEARCH_NAME).read_text())
    assert [trial.state for trial in found.trials] == ["complete"] * found.total
    assert len({trial.parameters["optimizer.lr"] for trial in found.trials}) == found.total == 8
    jobs = {trial.number: range(int(trial.folder), int(trial.folder) + 2) for trial in found.trials}
    assert sorted(chain(*jobs.values())) == list(range(16))
    assert len(records(folder)) == 16
    for trial in found.trials:
        values = []
        for job in jobs[trial.number]:
            (there,) = records(folder / str(job))
            again = folder.parent / "again" / str(job)
            in_one_go(
                folder.parent, *recorded_overrides(there["overrides"]), f"hydra.run.dir={again}"
            )
            (here,) = records(again)
            for name in ("key", "status", "train_loss", "validation_accuracy", "test_accuracy"):
                assert here[name] == there[name], (job, name)
            if trial.number in found.best:  # the others are not evaluated on the test set
                ours = (again / PREDICTIONS_NAME).read_bytes()
                assert ours == (folder / str(job) / PREDICTIONS_NAME).read_bytes()
            values.append(there["validation_accuracy"])
        assert trial.values == (statistics.fmean(values),)
    assert sum(record["test_accuracy"] is not None for record in records(folder)) == 2


@pytest.mark.slow
@pytest.mark.submitit
@pytest.mark.slurm
@pytest.mark.skipif(not installed("submitit"), reason="extra slurm")
def test_what_is_left_to_slurm_is_what_would_have_been_waited_for(slurm, tmp_path):
    """The process group of the command is killed as soon as it has answered."""
    grid = ["-m", *TINY, "epochs=2", "seed=range(3)"]
    eight = [*SEARCH, "epochs=1", "sweep.trials=8", "sweep.seeds=2", "sweep.jobs=8"]
    left = {"grid": grid, "search": [*SEARCH, "epochs=1"], "eight": eight}
    for folder, arguments in left.items():
        given = [*arguments, "hydra/launcher=submitit_slurm", f"hydra.sweep.dir={folder}"]
        options = {"cwd": tmp_path, "environment": slurm, "start_new_session": True, "stdout": -1}
        with started(*given, "sweep.detach=true", **options) as process:
            out, err = process.communicate(timeout=PATIENCE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, err
        assert out == f"fmbench status {folder}\nfmbench report {folder}\n"
    end = time.monotonic() + PATIENCE
    while in_queue(slurm) and time.monotonic() < end:
        time.sleep(1)
    in_one_go(tmp_path, *SEARCH, "epochs=1", "hydra.sweep.dir=attached")
    in_one_go(tmp_path, *grid, "hydra.sweep.dir=there")
    for here, there in (("grid", "there"), ("search", "attached")):
        ours, theirs = records(tmp_path / here), records(tmp_path / there)
        assert [record["status"] for record in ours] == ["completed"] * len(theirs)
        for name in ("key", "train_loss", "validation_accuracy", "test_accuracy"):
            assert [one[name] for one in ours] == [one[name] for one in theirs], name
    best = [(tmp_path / name / "experiment" / "best.yaml") for name in ("search", "attached")]
    ours, theirs = (yaml.safe_load(path.read_text()) for path in best)
    assert ours == theirs
    are_eight_of_two(tmp_path / "eight")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(not installed("ray"), reason="extra ray")
def test_what_is_left_to_a_ray_that_stays_goes_on_alone(ray, tmp_path):
    """Beside grids that are waited for on the same Ray, of which one is stopped."""
    environment = {name: value for name, value in ray.items() if name != "RAY_ADDRESS"}
    of_ray = ["hydra/launcher=ray", f"hydra.launcher.ray.init.address={ray['RAY_ADDRESS']}"]
    given = {"cwd": tmp_path, "environment": environment}
    grid = ["-m", *TINY, *of_ray]
    # Takes no core from the others.
    endless = [*grid, "epochs=100000", "hydra.launcher.ray.remote.num_cpus=0.1"]
    with started(*endless, "hydra.sweep.dir=stopped", **given) as process:
        wait_for((tmp_path / "stopped" / "0" / "history.jsonl").exists, PATIENCE)
        for folder, arguments in (
            ("grid", [*grid, "epochs=30", "seed=range(6)"]),
            ("search", [*SEARCH, *of_ray, "epochs=1", "sweep.jobs=2"]),
        ):
            words = [*arguments, "sweep.detach=true", f"hydra.sweep.dir={folder}"]
            done = fmbench(*words, **given, timeout=PATIENCE)
            assert done.returncode == 0, done.stderr
            assert done.stdout == f"fmbench status {folder}\nfmbench report {folder}\n"
            noted = (tmp_path / folder / slurm_queue.DETACHED_NAME).read_text()
            assert noted.startswith("fmbench-")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert "stopped by SIGINT; resume with: " in err
    attached = fmbench(*grid, "seed=range(3)", "hydra.sweep.dir=attached", **given)
    assert attached.returncode == 0, attached.stderr
    wait_for(lambda: len([*tmp_path.glob("grid/*/predictions.npy")]) == 6, PATIENCE)
    wait_for((tmp_path / "search" / "experiment" / "best.yaml").exists, PATIENCE)
    assert [trial.state for trial in trials(tmp_path / "search")] == [TrialState.COMPLETE] * 6
    for folder, runs in (("grid", 6), ("search", 6), ("attached", 3)):
        found = records(tmp_path / folder)
        assert [(one["status"], one["restarts"]) for one in found] == [("completed", [])] * runs
