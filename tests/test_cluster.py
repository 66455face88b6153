"""Sweeps under submitit, Slurm and Ray, whose runs are other processes, and with PostgreSQL.

Slurm and PostgreSQL are real ones of this machine, which `scripts/daemons.py` starts.
"""

import contextlib
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import fields

import pytest
import yaml
from commands import CHECKOUT, TINY, fmbench, records
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from fmbench import config as configuration
from fmbench import machine
from fmbench.errors import ConfigError, PartialResultsError, installs
from fmbench.explain import Refusal
from fmbench.stop import StopRequested
from hydra_plugins.fmbench_launchers import _gather, _slurm, cluster, ray_tasks
from hydra_plugins.fmbench_launchers._gather import LOOK, RunDiedError, failed, gather

#: Seconds that a command may take on a machine that has much else to do.
PATIENCE = 400

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

#: A net of somebody's, whose runs end as their seed says.
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

#: The launchers, with the stock module that each stands on.
LAUNCHERS = {
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}

#: How runs 1 and 2 end under each: one is killed whenever it starts; one is told to make room, or
#: killed, but goes on when it is started again.
ENDS = {
    "submitit_local": "{1: always SIGKILL, 2: once SIGUSR2}",
    "submitit_slurm": "{1: always SIGKILL, 2: once SIGUSR2}",
    "ray": "{1: always SIGKILL, 2: once SIGKILL}",
}


def installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def daemons_for(kind):
    """The environment in which commands find daemons, as a context manager.

    Skips the test where they are not installed.
    """
    sys.path.insert(0, str(CHECKOUT / "scripts"))
    try:
        module = importlib.import_module("daemons")
    finally:
        sys.path.pop(0)

    def started():
        try:
            with module.DAEMONS[kind]() as environment:
                yield environment
        except module.MissingError as missing:
            pytest.skip(f"{kind}: {missing}")

    return started()


@pytest.fixture(scope="module")
def slurm():
    yield from daemons_for("slurm")


@pytest.fixture(scope="module")
def postgresql():
    if not installed("psycopg"):
        pytest.skip("psycopg is not installed, of the extra postgresql")
    yield from daemons_for("postgresql")


@pytest.fixture(
    params=[
        pytest.param("submitit_local", marks=pytest.mark.submitit),
        pytest.param("submitit_slurm", marks=[pytest.mark.submitit, pytest.mark.slurm]),
        pytest.param("ray", marks=pytest.mark.ray),
    ]
)
def launcher(request, tmp_path):
    """A launcher's name, and the environment variables that it needs."""
    name = request.param
    if not installed(LAUNCHERS[name]):
        extra = "ray" if name == "ray" else "slurm"
        pytest.skip(f"{LAUNCHERS[name]} is not installed, of the extra {extra}")
    if name == "submitit_slurm":
        return name, request.getfixturevalue("slurm")
    return name, {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


def search_keys(trials, jobs, storage=None):
    """How a search is told how much to try, and where to keep it."""
    keys = [f"sweep.trials={trials}", f"sweep.jobs={jobs}"]
    return keys if storage is None else [*keys, f"sweep.storage={storage}"]


#: A search in which every trial can be run: no batch is larger than the training part.
SEARCH = [*TINY, "data.train_size=600", "epochs=1", "sweep=lr_batch", "hydra.sweep.dir=here"]


def statuses(folder):
    return Counter(record["status"] for record in records(folder))


@contextlib.contextmanager
def started_at_once(environment):
    """Slurm keeps a job that goes back into the queue there for two minutes: not while this is."""
    over = threading.Event()

    def look():
        environ = {**os.environ, **environment}
        while not over.wait(0.5):
            asked = subprocess.run(
                ["squeue", "-h", "--array", "-t", "PENDING", "-o", "%i %r"],
                env=environ, capture_output=True, text=True, check=False,
            )  # fmt: skip
            for line in asked.stdout.splitlines():
                job, reason = line.split(maxsplit=1)
                if reason == "BeginTime":
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
    mine = {"FMBENCH_TRUST": "mortal", "PYTHONPATH": f"{CHECKOUT}:{tmp_path}"}
    with started_at_once(environment) if name == "submitit_slurm" else contextlib.nullcontext():
        done = fmbench(
            "-m", "--config-dir=mine", *arguments, "model=mortal", "seed=range(4)",
            f"model.ends={ENDS[name]}", f"model.marks={marks}", f"hydra/launcher={name}",
            "hydra.sweep.dir=here",
            cwd=tmp_path, environment={**environment, **mine}, timeout=PATIENCE,
        )  # fmt: skip
    assert done.returncode == PartialResultsError.exit_status, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()
    (dead,) = [line for line in said if line.startswith("run 2: ")]
    assert "ended without a result" in dead
    assert said[-1] == "3 of 4 runs completed"
    assert [record["status"] for record in records(tmp_path / "here")] == [
        "completed", "running", "completed", "completed"
    ]  # fmt: skip
    assert [len(record["restarts"]) for record in records(tmp_path / "here")][::2] == [0, 1]
    threads = {record["fingerprint"]["threads"] for record in records(tmp_path / "here")[2:]}
    assert threads == {1}


@needs_linux
def test_a_search_of_eight(launcher, tmp_path):
    name, environment = launcher
    done = fmbench(
        "-m", *SEARCH, *search_keys(8, 2), f"hydra/launcher={name}",
        cwd=tmp_path, environment=environment, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert statuses(tmp_path / "here") == {"completed": 8}, done.stderr
    assert list((tmp_path / "here").rglob("best.yaml")), done.stderr


@needs_linux
@pytest.mark.postgresql
def test_a_search_of_eight_in_postgresql(postgresql, tmp_path):
    url = postgresql["PGURL"]
    done = fmbench(
        "-m", *SEARCH, *search_keys(8, 1, url), "sweep.study=eight",
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


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_options_have_all_keys_of_the_stock_ones(name):
    if not installed(LAUNCHERS[name]):
        pytest.skip(f"{LAUNCHERS[name]} is not installed")
    ours = OmegaConf.load(CHECKOUT / "conf" / "hydra" / "launcher" / f"{name}.yaml")
    if name == "ray":
        stock = importlib.import_module("hydra_plugins.hydra_ray_launcher._config").RayConf
        ours = ours.ray
    else:
        stock = importlib.import_module("hydra_plugins.hydra_submitit_launcher.config")
        stock = stock.LocalQueueConf if name == "submitit_local" else stock.SlurmQueueConf
    assert {field.name for field in fields(stock)} - {"_target_"} <= set(ours)


def test_a_launcher_that_is_not_installed_is_named_with_what_brings_it():
    class Missing(cluster.NotInstalled):
        needs = installs("ray")

    config = OmegaConf.create({"hydra": {"runtime": {"choices": {"hydra/launcher": "x"}}}})
    with pytest.raises(ConfigError, match=r"hydra/launcher=x: .* pip install .* 'ray>=2\.60' "):
        Missing(n=1).setup(hydra_context=None, task_function=None, config=config)
    assert ray_tasks.RayLauncher is not None


@pytest.mark.parametrize(("given", "share", "asked", "expected"), [
    (3, 1, None, 3),
    (None, 2, None, 2),
    (None, 64, None, 4),
    (None, None, None, 4),
    (None, 3, "2", 2),
    (None, None, "64", 4),
])  # fmt: skip
def test_a_run_elsewhere_takes_its_share_of_the_cores(monkeypatch, given, share, asked, expected):
    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(4, None))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(configuration, "TRUSTED", configuration.TRUSTED)
    task = _gather.Task(lambda config: config.threads, share)
    assert task(OmegaConf.create({"threads": given})) == expected


class Run:
    """A run elsewhere that ends after so many looks, in what it is given."""

    def __init__(self, looks, end, stop=None):
        self.looks, self.end, self.stop = looks, end, stop
        self.asked = 0

    def outcome(self):
        self.looks -= 1
        if self.looks > 0:
            return None
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end

    def ask_to_stop(self):
        self.asked += 1
        self.looks, self.end = 1, self.stop


def well(value=0.5):
    return JobReturn(status=JobStatus.COMPLETED, _return_value=value)


def test_what_dies_is_a_failed_run_and_order_is_kept():
    runs = [Run(3, well(0.1)), Run(1, RunDiedError("killed")), Run(2, well(0.3))]
    returns = gather(runs.__getitem__, [["a"], ["b"], ["c"]], first=4)
    assert [each.status for each in returns] == [
        JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED
    ]  # fmt: skip
    assert str(returns[1]._return_value) == "run 6: killed"
    assert returns[1].overrides == ["b"]
    assert returns[2].return_value == 0.3


def test_no_more_are_started_than_may_run_at_once():
    started, most = [], []

    def start(place):
        started.append(Run(2, well()))
        most.append(sum(run.looks > 0 for run in started))
        return started[-1]

    gather(start, [[]] * 5, first=0, at_once=2)
    assert len(started) == 5
    assert max(most) == 2


def test_a_run_that_was_stopped_alone_does_not_stop_the_sweep():
    stop = failed(["a"], StopRequested(signal.SIGTERM, saved=True))
    (returned,) = gather(lambda _: Run(1, stop), [["a"]], first=0)
    assert str(returned._return_value) == "run 1: stopped by SIGTERM, saved"
    assert isinstance(returned._return_value, RunDiedError)


def test_a_fault_that_all_runs_share_ends_the_sweep_when_all_have_ended():
    fault = failed(["a"], Refusal(ConfigError("no data")))
    other = Run(3, well())
    runs = [Run(1, fault), other]
    with pytest.raises(Refusal):
        gather(runs.__getitem__, [["a"], ["b"]], first=0)
    assert other.looks == 0


@pytest.mark.parametrize("saved", [True, False])
def test_asked_to_stop_the_runs_are_asked_and_none_is_begun(saved):
    stopped = failed([], StopRequested(signal.SIGTERM, saved=saved))
    runs = [Run(10**9, None, stop=stopped), Run(10**9, None, stop=stopped)]
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 3 * LOOK)
    with pytest.raises(StopRequested) as raised:
        gather(runs.__getitem__, [[]] * 3, first=0, at_once=2)
    assert (raised.value.number, raised.value.saved) == (signal.SIGTERM, saved)
    assert [run.asked for run in runs] == [1, 1]


@pytest.fixture
def answers(monkeypatch):
    """What Slurm's commands answer, by the command's name; the clock stands at `answers["now"]`."""
    told = {"now": 0.0}

    def run(command, *_):
        out, err, status = told[command]
        return _slurm.subprocess.CompletedProcess([], status, out, err)

    monkeypatch.setattr(_slurm, "_run", run)
    monkeypatch.setattr(_slurm.time, "monotonic", lambda: told["now"])
    return told


def test_a_job_has_ended_when_that_stands_for_a_while(answers):
    queue = _slurm.Queue(["7_0", "7_1"])

    def has_ended(now, out, err="", status=0):
        answers["now"], answers["squeue"] = now, (out, err, status)
        return queue.has_ended("7_0")

    assert not has_ended(0, "7_0 RUNNING\n7_1 PENDING\n")
    assert not has_ended(10, "7_0 COMPLETED\n7_1 PENDING\n")
    assert not has_ended(19, "7_0 PENDING\n7_1 PENDING\n")  # it went back into the queue
    assert not has_ended(30, "7_0 NODE_FAIL\n7_1 PENDING\n")
    assert not has_ended(35, "", "slurm_load_jobs error: Unable to contact slurm controller", 1)
    assert has_ended(41, "7_0 NODE_FAIL\n7_1 PENDING\n")
    assert not queue.has_ended("7_1")
    assert not has_ended(50, "7_0 RUNNING\n7_1 PENDING\n")
    assert not has_ended(60, "", "slurm_load_jobs error: Invalid job id specified", 1)
    assert has_ended(71, "", "slurm_load_jobs error: Invalid job id specified", 1)


@pytest.mark.parametrize(("told", "said"), [
    ("JobId=7 JobState=FAILED Reason=x ExitCode=137:0", "FAILED, exit status 137 (SIGKILL)"),
    ("JobId=7 JobState=CANCELLED Reason=x ExitCode=0:15", "CANCELLED, exit status 143 (SIGTERM)"),
    ("JobId=7 JobState=FAILED ExitCode=1:0", "FAILED, exit status 1"),
    ("JobId=7 JobState=TIMEOUT ExitCode=0:0", "TIMEOUT"),
    ("", "unknown to Slurm by now"),
])  # fmt: skip
def test_how_a_job_ended(answers, told, said):
    answers["scontrol"] = (told, "", 0)
    assert _slurm.ending("7") == said
