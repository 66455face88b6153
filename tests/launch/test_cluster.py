"""Sweeps under submitit, Slurm and Ray, whose runs are other processes, and with PostgreSQL.

Slurm and PostgreSQL are real ones of this machine, which `scripts/daemons.py` starts.
"""

import contextlib
import importlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import yaml
from clusters import PATIENCE, installed
from commands import CHECKOUT, TINY, fmbench, in_one_go, records, started, wait_for

from fmbench.core.errors import PartialResultsError
from fmbench.records.reader import read_history
from fmbench.records.trials import Search
from fmbench.records.tuned import read_tuned

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

#: A model of somebody's, whose runs end as their seed says.
MORTAL = """
import os, pathlib, signal
from fmbench.models.lenet5 import LeNet5

def net(seed, ends, marks, **options):
    end = ends.get(seed)
    mark = pathlib.Path(marks, str(seed))
    if end is not None and (end.startswith("always") or not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), getattr(signal, end.split()[-1]))
    return LeNet5(**options)
"""

#: The launchers, with the package that each stands on.
LAUNCHERS = {"submitit_slurm": "submitit", "ray": "ray"}


CLUSTERS = [
    pytest.param("submitit_slurm", marks=[pytest.mark.submitit, pytest.mark.slurm]),
    pytest.param("ray", marks=pytest.mark.ray),
]


@pytest.fixture(params=CLUSTERS)
def launcher(request, tmp_path):
    """A launcher's name, and the environment variables that it needs."""
    name = request.param
    if name == "processes":
        return name, {}
    if not installed(LAUNCHERS[name]):
        extra = "ray" if name == "ray" else "slurm"
        pytest.skip(f"{LAUNCHERS[name]} is not installed, of the extra {extra}")
    if name == "submitit_slurm":
        return name, request.getfixturevalue("slurm")
    # A Ray of the command's own.
    return name, {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


#: A search in which every trial can be run: no batch is larger than the training part.
SEARCH = [*TINY, "data.train_size=600", "epochs=1", "sweep=lr_batch", "hydra.sweep.dir=here"]


def statuses(folder):
    return Counter(record["status"] for record in records(folder))


@contextlib.contextmanager
def started_soon(environment):
    """Slurm keeps a job that goes back into the queue there for two minutes: here for some seconds.

    A node takes no job that starts in the very second in which it was ended there ("already
    killed"), and Slurm calls it failed then.
    """
    over, seen = threading.Event(), {}

    def look():
        environ = {**os.environ, **environment}
        while not over.wait(0.5):
            asked = subprocess.run(
                ["squeue", "-h", "--array", "-t", "PENDING", "-o", "%i %r"],
                env=environ, capture_output=True, text=True, check=False,
            )  # fmt: skip
            for line in asked.stdout.splitlines():
                job, reason = line.split(maxsplit=1)
                now = time.monotonic()
                if reason == "BeginTime" and now > seen.setdefault(job, now) + 3:
                    told = f"JobId={job}", "StartTime=now"
                    subprocess.run(["scontrol", "update", *told], env=environ, check=False)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@needs_linux
@pytest.mark.slow
def test_one_run_dies_one_makes_room_and_the_others_finish(launcher, tmp_path):
    name, environment = launcher
    package = tmp_path / "mortal.py"
    package.write_text(MORTAL, "utf-8")
    option = tmp_path / "mine" / "model" / "mortal.yaml"
    option.parent.mkdir(parents=True)
    keys = {"seed": "${seed}", "ends": "???", "marks": "???", "channels": 1, "classes": 10}
    option.write_text(yaml.safe_dump({"_target_": "mortal.net", **keys}), "utf-8")
    marks = tmp_path / "marks"
    marks.mkdir()
    arguments = [text for text in TINY if not text.startswith("model=")]
    # One is killed whenever it starts; one is told to make room, or killed, but goes on.
    ends = f"{{1: always SIGKILL, 2: once {'SIGKILL' if name == 'ray' else 'SIGUSR2'}}}"
    options = [f"hydra/launcher={name}"]
    if name == "submitit_slurm":  # of one machine, which may be asked often
        options.append("hydra.launcher.squeue_every=2")
    mine = {"FMBENCH_TRUST": "mortal", "PYTHONPATH": f"{CHECKOUT}:{tmp_path}"}
    with started_soon(environment) if name == "submitit_slurm" else contextlib.nullcontext():
        done = fmbench(
            "-m", "--config-dir=mine", *arguments, "model=mortal", "seed=range(4)",
            f"model.ends={ends}", f"model.marks={marks}", *options,
            "hydra.sweep.dir=here",
            cwd=tmp_path, environment={**environment, **mine}, timeout=PATIENCE,
        )  # fmt: skip
    assert done.returncode == PartialResultsError.exit_status, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()
    (dead,) = [line for line in said if line.startswith("run 2: ")]
    assert "ended without a result" in dead
    assert said[-1] == "3 of 4 runs completed", done.stderr
    assert [record["status"] for record in records(tmp_path / "here")] == [
        "completed", "running", "completed", "completed"
    ]  # fmt: skip
    assert [len(record["restarts"]) for record in records(tmp_path / "here")][::2] == [0, 1]
    threads = {record["fingerprint"]["threads"] for record in records(tmp_path / "here")[2:]}
    assert threads == {1}


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["processes", *CLUSTERS], indirect=True)
def test_a_driver_killed_three_times_ends_with_its_total(launcher, tmp_path):
    """Jobs that it leaves in Slurm's queue go on, other runs end with it."""
    name, environment = launcher
    search = [
        *("-m", *SEARCH, "epochs=4", "sweep.trials=6", "sweep.jobs=2", f"hydra/launcher={name}"),
        *("sweep.pruner=none", "batch_size=choice(16,32)"),
    ]
    folder, options = tmp_path / "here", {"cwd": tmp_path, "environment": environment}
    for done in (0, 2, 4):  # runs that have begun beside those in which it is killed, or more
        with started(*search, **options) as child:
            wait_for(
                lambda n=done, c=child: c.poll() or len([*folder.glob("*/history.jsonl")]) > n,
                PATIENCE,
            )
            assert child.poll() is None
    ended = fmbench(*search, **options, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr
    assert "6 of 6 trials ended well: 6 complete" in ended.stderr
    assert (folder / "experiment" / "best.yaml").exists()
    found = Search.from_json((folder / "search.json").read_text())
    assert [trial.state for trial in found.trials] == ["complete"] * found.total
    assert len({trial.parameters["optimizer.lr"] for trial in found.trials}) == found.total == 6
    made = {trial.folder: records(folder / trial.folder) for trial in found.trials}
    assert [len(each) for each in made.values()] == [1] * len([*folder.rglob("result.json")])
    for trial in found.trials:
        (record,) = made[trial.folder]
        assert (record["status"], record["validation_accuracy"]) == ("completed", *trial.values)
        assert [line["epoch"] for line in read_history(folder / trial.folder)] == [0, 1, 2, 3]
    assert sum(each["test_accuracy"] is not None for (each,) in made.values()) == 1


#: A comparison of two contestants, two trials and two final runs each.
COMPARISON = [
    *("-m", "sweep=tuned", *TINY, "device=cpu", "optimizer=sgd,adamw", "sweep.trials=2"),
    *("sweep.final_seeds=2", "hydra.sweep.dir=here"),
]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What that comparison gives in one process: runs, searches, and the table that is printed."""
    done = in_one_go(tmp_path_factory.mktemp("compared"), *COMPARISON)
    return computed(done.folder / "here"), searched(done.folder / "here"), ranked(done.out)


def computed(folder):
    """What each run of a comparison is and computed, by its number; nothing of its times."""
    names = (
        *("key", "status", "seed", "learning_rate", "train_loss", "validation_accuracy"),
        *("test_accuracy", "test_loss", "tuning"),
    )
    runs = [*folder.glob("*/result.json")]
    assert len(runs) == len([*folder.rglob("result.json")])
    made = {int(run.parent.name): records(run.parent) for run in runs}
    return {number: [record[name] for name in names] for number, (record,) in made.items()}


def searched(folder):
    """The trials and the end of each search of a comparison."""
    return [
        (
            *(block.contestant, block.first, block.seeds, block.over, block.epochs),
            block.search.best,
            [(t.state, t.parameters, t.values, t.folder) for t in block.search.trials],
        )
        for block in read_tuned(folder).blocks
    ]


def ranked(printed):
    """The lines of the contestants in a printed table: rank, name and accuracies."""
    return [line.split()[:4] for line in printed.splitlines() if "optimizer=" in line]


@needs_linux
@pytest.mark.slow
def test_a_tuned_comparison_is_that_of_one_process(launcher, compared, tmp_path):
    """The driver is killed once while trials, and once while final runs are at work."""
    name, environment = launcher
    command = [*COMPARISON, "sweep.jobs=2", f"hydra/launcher={name}"]
    folder, options = tmp_path / "here", {"cwd": tmp_path, "environment": environment}
    for done in (1, 4):  # runs that have begun beside that in which it is killed
        with started(*command, **options) as child:
            wait_for(
                lambda n=done, c=child: c.poll() or len([*folder.glob("*/history.jsonl")]) > n,
                PATIENCE,
            )
            assert child.poll() is None
    ended = fmbench(*command, **options, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr
    assert "4 of 4 trials ended well, 4 of 4 final runs completed" in ended.stderr
    assert sorted(computed(folder)) == list(range(8))
    assert (computed(folder), searched(folder), ranked(ended.stdout)) == compared
    for number in range(8):
        assert [line["epoch"] for line in read_history(folder / str(number))] == [0, 1]


@needs_linux
@pytest.mark.slow
@pytest.mark.postgresql
def test_a_search_of_eight_in_postgresql(postgresql, tmp_path):
    url = postgresql["PGURL"]
    done = fmbench(
        "-m", *SEARCH, "sweep.trials=8", "sweep.jobs=1", f"sweep.storage={url}",
        "sweep.study=eight",
        cwd=tmp_path, environment=postgresql, timeout=PATIENCE,
    )  # fmt: skip
    assert statuses(tmp_path / "here") == {"completed": 8}, done.stderr
    where = {key: postgresql[f"PG{key.upper()}"] for key in ("host", "port", "user", "password")}
    psycopg = importlib.import_module("psycopg")
    with psycopg.connect(dbname=postgresql["PGDATABASE"], **where) as connection:
        found = connection.execute("select state, count(*) from trials group by state").fetchall()
    assert found == [("COMPLETE", 8)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(postgresql["PGPASSWORD"].encode() in path.read_bytes() for path in files)
