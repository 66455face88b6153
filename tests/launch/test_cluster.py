"""Sweeps under submitit, Slurm and Ray, whose runs are other processes, and with PostgreSQL.

Slurm and PostgreSQL are real ones of this machine, which `scripts/daemons.py` starts.
"""

import contextlib
import errno
import importlib
import importlib.util
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from commands import CHECKOUT, TINY, fmbench, records
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from fmbench.config import hydra_compat
from fmbench.config.messages import Refusal, as_user_error
from fmbench.core import machine
from fmbench.core.errors import ConfigError, DataError, PartialResultsError, StorageError, installs
from fmbench.core.signals import StopRequested
from fmbench.launch import executor as of_executor
from fmbench.launch import slurm_queue as of_slurm
from fmbench.launch import submitit as cluster
from fmbench.launch.executor import ASK, LOOK, Executor, RunDiedError, Sweep, drive, failed
from hydra_plugins.fmbench_launchers.cluster import SlurmLauncher
from hydra_plugins.fmbench_launchers.ray_tasks import RayLauncher

#: Seconds that a command may take on a machine that has much else to do.
PATIENCE = 400

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
    with started_at_once(environment) if name == "submitit_slurm" else contextlib.nullcontext():
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
def test_a_search_of_two_at_once(launcher, tmp_path):
    name, environment = launcher
    done = fmbench(
        "-m", *SEARCH, "sweep.trials=4", "sweep.jobs=2", f"hydra/launcher={name}",
        cwd=tmp_path, environment=environment, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert statuses(tmp_path / "here") == {"completed": 4}, done.stderr
    assert list((tmp_path / "here").rglob("best.yaml")), done.stderr


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


@pytest.mark.parametrize("launcher", [SlurmLauncher(), RayLauncher()])
def test_a_launcher_that_is_not_installed_is_named_with_what_brings_it(launcher, monkeypatch):
    monkeypatch.setattr(of_executor, "find_spec", lambda _: None)
    config = OmegaConf.create({"hydra": {"runtime": {"choices": {"hydra/launcher": "x"}}}})
    with pytest.raises(ConfigError) as raised:
        launcher.setup(hydra_context=None, task_function=None, config=config)
    brings = installs(launcher.executor_type.extra)
    assert str(raised.value) == f"hydra/launcher=x: is not installed; {brings} brings it"


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
    monkeypatch.setenv("FMBENCH_TRUST", "")
    runs = of_executor.Runs(Sweep(None, lambda config: config.threads, None), share)
    assert runs.task(OmegaConf.create({"threads": given})) == expected


@pytest.mark.skipif(not installed("submitit"), reason="extra slurm")
@pytest.mark.parametrize("error", [
    subprocess.CalledProcessError(-signal.SIGTERM, "scontrol"),
    subprocess.CalledProcessError(1, "scontrol"),
    subprocess.TimeoutExpired("scontrol", 60),
])  # fmt: skip
def test_a_job_whose_request_for_the_queue_has_no_answer_leaves_no_result(monkeypatch, error):
    """Slurm sends SIGTERM to all processes of such a job, `scontrol requeue` among them."""

    def requeue(*_):
        raise error

    def warned(*_):
        signal.raise_signal(signal.SIGUSR2)

    context = SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=warned))
    config = OmegaConf.create({"hydra": {"runtime": {"cwd": str(Path.cwd())}}})
    runs = cluster.SubmititRuns(Sweep(context, None, config), 1)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    with of_executor.as_before(signal.SIGUSR2), hydra_compat.separate_state():
        signal.signal(signal.SIGUSR2, requeue)
        with pytest.raises(SystemExit):
            runs(0, ["seed=1"])


#: The config of a grid.
GRID = OmegaConf.create({"hydra": {"sweeper": {}}})


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
    return hydra_compat.job_return(JobStatus.COMPLETED, value)


class Elsewhere(Executor):
    """Runs elsewhere, by their places."""

    def __init__(self, start, capacity=None):
        super().__init__(Sweep(None, None, GRID), 0)
        self.start, self.capacity = start, capacity

    def submit(self, jobs):
        return (self.start(number) for number, _ in jobs)


def run_all(start, overrides, at_once=None):
    """The results of runs that `start` starts by their places."""
    return of_executor.run_all(Elsewhere(start, at_once), list(enumerate(overrides)))


def test_what_dies_is_a_failed_run_and_order_is_kept():
    runs = [Run(3, well(0.1)), Run(1, RunDiedError("killed")), Run(2, well(0.3))]
    returns = run_all(runs.__getitem__, [["a"], ["b"], ["c"]])
    assert [each.status for each in returns] == [
        JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED
    ]  # fmt: skip
    assert str(hydra_compat.value(returns[1])) == "run 2: killed"
    assert returns[1].overrides == ["b"]
    assert returns[2].return_value == 0.3


def test_no_more_are_started_than_may_run_at_once():
    started, most = [], []

    def start(place):
        started.append(Run(2, well()))
        most.append(sum(run.looks > 0 for run in started))
        return started[-1]

    run_all(start, [[]] * 5, at_once=2)
    assert len(started) == 5
    assert max(most) == 2


class Simulated(Executor):
    """Runs that take so many ticks of a clock of the test's own."""

    def __init__(self, capacity, ticks):
        super().__init__(Sweep(None, None, GRID), 0)
        self.capacity, self.ticks, self.now = capacity, ticks, 0
        self.spans = []  # of each run: its beginning and its end

    def submit(self, jobs):
        for number, _ in jobs:
            end = self.now + self.ticks[number]
            self.spans.append((self.now, end))
            done = lambda end=end: well() if self.now >= end else None  # noqa: E731
            yield SimpleNamespace(outcome=done)

    def wait(self, seconds):
        self.now += 1


class Trials:
    """A search that asks for a trial whenever there is room."""

    def __init__(self, total):
        self.total, self.asked, self.results = total, 0, []

    def take(self, room):
        numbers = range(self.asked, min(self.total, self.asked + room))
        self.asked += len(numbers)
        return [(number, []) for number in numbers] or None

    def ended(self, number, returned):
        self.results.append(number)

    def rest(self):
        pass


@pytest.mark.parametrize("workers", [2, 8])
def test_a_worker_that_is_free_gets_the_next_trial_at_once(workers):
    """200 trials, some four times as long as others: nobody waits until the last is handed out."""
    ticks = [(100, 400, 150, 250)[number % 4] for number in range(200)]
    executor, trials = Simulated(workers, ticks), Trials(200)
    drive(executor, trials)
    assert sorted(trials.results) == list(range(200))
    last = max(start for start, _ in executor.spans)
    worked = sum(min(end, last) - start for start, end in executor.spans)
    assert 1 - worked / (workers * last) < 0.03


def test_a_run_that_was_stopped_alone_does_not_stop_the_sweep():
    stop = failed(["a"], StopRequested(signal.SIGTERM, saved=True))
    (returned,) = run_all(lambda _: Run(1, stop), [["a"]])
    assert str(hydra_compat.value(returned)) == "run 1: stopped by SIGTERM, saved"
    assert isinstance(hydra_compat.value(returned), RunDiedError)


@pytest.mark.parametrize("error", [
    DataError("train-images-idx3-ubyte.gz: is damaged"),
    StorageError("here: cannot be written: No space left on device"),
    OSError(errno.ENOSPC, "No space left on device", ".hydra/config.yaml"),  # as Hydra has it
])  # fmt: skip
def test_after_a_fault_that_all_runs_share_none_is_started(error):
    """Those at work save themselves, and those in a queue leave it."""
    at_work = Run(10**9, None, stop=failed(["b"], StopRequested(signal.SIGTERM, saved=True)))
    queued = Run(10**9, None, stop=RunDiedError("cancelled"))
    arrived = pickle.loads(pickle.dumps(failed(["a"], error)))
    runs = [Run(1, arrived), at_work, queued]
    with pytest.raises(Refusal) as raised:
        run_all(runs.__getitem__, [[]] * 4, at_once=3)
    assert as_user_error(raised.value).exit_status in (3, 5)
    assert (at_work.asked, queued.asked) == (1, 1)


def test_where_a_run_cannot_be_started_those_at_work_save_themselves():
    """The disk is full by then; nobody would look after them once the sweep has gone."""
    at_work = Run(10**9, None, stop=failed(["a"], StopRequested(signal.SIGTERM, saved=True)))

    def start(place):
        if place == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return at_work

    with pytest.raises(Refusal) as raised:
        run_all(start, [[]] * 3)
    assert as_user_error(raised.value).exit_status == 5
    assert at_work.asked == 1


@pytest.mark.parametrize("method", ["take", "ended"])
def test_where_the_study_is_gone_those_at_work_save_themselves(method):
    """The storage of a search fails when it asks for a trial, or reports one."""
    at_work = Run(10**9, None, stop=failed(["a"], StopRequested(signal.SIGTERM, saved=True)))
    runs, trials = [at_work, Run(2, well())], Trials(5)
    usual = getattr(trials, method)

    def gone(*arguments):
        if method == "ended" or trials.asked >= 2:
            raise StorageError("sweep.storage: cannot be reached")
        return usual(*arguments)

    setattr(trials, method, gone)
    with pytest.raises(Refusal) as raised:
        drive(Elsewhere(runs.__getitem__, 2), trials)
    assert as_user_error(raised.value).exit_status == 5
    assert at_work.asked == 1


@pytest.mark.parametrize("error", [ConfigError("no such net"), ValueError("no"), OSError("no")])
def test_a_fault_of_one_run_is_its_own(error):
    returns = run_all([Run(1, failed(["a"], error)), Run(2, well())].__getitem__, [[], []])
    assert hydra_compat.value(returns[0]) is error
    assert returns[1].return_value == 0.5


@pytest.mark.parametrize("saved", [True, False])
def test_asked_to_stop_the_runs_are_asked_and_none_is_begun(saved):
    stopped = failed([], StopRequested(signal.SIGTERM, saved=saved))
    runs = [Run(10**9, None, stop=stopped), Run(10**9, None, stop=stopped)]
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 3 * LOOK)
    with pytest.raises(StopRequested) as raised:
        run_all(runs.__getitem__, [[]] * 3, at_once=2)
    assert (raised.value.number, raised.value.saved) == (signal.SIGTERM, saved)
    assert [run.asked for run in runs] == [1, 1]


@pytest.fixture
def controller(monkeypatch):
    """Slurm's commands: what each answers by its name, and what was asked; and a clock of ours.

    An answer is its standard output, with a standard error and a status where there are some, or
    an exception.
    """
    told = SimpleNamespace(now=0.0, answers={}, asked=[], takes=0.0)

    def run(command, **options):
        assert options["timeout"] > 0
        told.asked.append((told.now, command))
        told.now += told.takes
        answer = told.answers.get(command[0], "")
        if isinstance(answer, Exception):
            raise answer
        out, err, status = (answer, "", 0) if isinstance(answer, str) else answer
        return subprocess.CompletedProcess(command, status, out, err)

    monkeypatch.setattr(of_slurm.subprocess, "run", run)
    monkeypatch.setattr(of_slurm.time, "monotonic", lambda: told.now)
    told.times = lambda name: [when for when, command in told.asked if command[0] == name]
    return told


def looked_at(queue, controller, seconds, jobs=("7_0",)):
    """How each of these jobs is said to have ended, looked at every tenth of a second."""
    until = controller.now + seconds
    found = {}
    while controller.now < until:
        for job in set(jobs) - set(found):
            if queue.has_result(job):
                found[job] = "result"
            elif (ending := queue.ending(job)) is not None:
                found[job] = ending
        controller.now += LOOK
    return found


@pytest.fixture
def queue(controller, tmp_path):
    """Fifty jobs of an array, all at work."""
    del controller
    made = of_slurm.Queue()
    made.add({f"7_{task}": tmp_path / f"7_{task}_0_result.pkl" for task in range(50)})
    return made


def test_a_cluster_and_a_shared_disk_are_asked_for_all_jobs_at_once_and_seldom(
    queue, controller, tmp_path, monkeypatch
):
    scans, scandir, jobs = [], os.scandir, [f"7_{task}" for task in range(50)]
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(path) or scandir(path))
    for name in ("chmod", "stat", "exists"):
        monkeypatch.setattr(Path, name, lambda *_: pytest.fail("looked at a single file"))
    controller.answers["squeue"] = "".join(f"{job} RUNNING 0\n" for job in jobs)
    assert looked_at(queue, controller, 90, jobs) == {}
    assert len(controller.asked) == len(controller.times("squeue")) == 3
    assert 30 <= len(scans) <= 33
    (tmp_path / "7_3_0_result.pkl").touch()
    assert looked_at(queue, controller, 2 * of_slurm.SCAN, jobs) == {"7_3": "result"}


@pytest.mark.parametrize("trouble", [
    ("", "slurm_load_jobs error: Unable to contact slurm controller", 1),
    subprocess.TimeoutExpired("squeue", 60),
    FileNotFoundError("squeue"),
    "slow",
])  # fmt: skip
def test_a_controller_in_trouble_is_asked_ever_more_seldom(queue, controller, trouble):
    fine = controller.answers["squeue"] = "7_0 RUNNING 0\n"
    assert looked_at(queue, controller, 25) == {}
    if trouble == "slow":
        controller.takes = of_slurm.SLOW
    else:
        controller.answers["squeue"] = trouble
    assert looked_at(queue, controller, 3600) == {}
    times = controller.times("squeue")
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert waits == sorted(waits)
    assert waits[-1] >= of_slurm.LONGEST
    controller.answers["squeue"], controller.takes = fine, 0
    assert looked_at(queue, controller, 3 * of_slurm.LONGEST) == {}
    times = controller.times("squeue")
    assert times[-1] - times[-2] == pytest.approx(of_slurm.INTERVAL, abs=2 * LOOK)


def test_a_job_has_ended_when_that_stands_for_a_while(queue, controller):
    def look(seconds, out, err="", status=0, jobs=("7_0", "7_1")):
        controller.answers["squeue"] = out, err, status
        return looked_at(queue, controller, seconds, jobs)

    look(10.5, "7_0 FAILED 0\n7_1 PENDING 0\n")
    assert look(60, "7_0 PENDING 0\n7_1 PENDING 0\n") == {}  # it went back into the queue
    said = "FAILED, exit status 137 (SIGKILL)"
    assert look(60, f"7_0 FAILED {137 << 8}\n7_1 RUNNING 0\n") == {"7_0": said}
    asked = len(controller.asked)
    assert look(90, f"7_0 FAILED {137 << 8}\n7_1 RUNNING 0\n", jobs=["7_1"]) == {}
    assert len(controller.asked) == asked + 3  # the other is asked about no more often for it
    # Slurm has forgotten the other, as it does after some minutes.
    unreachable = "", "slurm_load_jobs error: Unable to contact slurm controller", 1
    forgotten = "", "slurm_load_jobs error: Invalid job id specified", 1
    assert look(60, *unreachable, jobs=["7_1"]) == {}
    assert look(120, *forgotten, jobs=["7_1"]) == {"7_1": "unknown to Slurm by now"}


def test_a_result_that_a_network_disk_shows_late_is_found(queue, controller, tmp_path, monkeypatch):
    """Before a job is given up its folder is looked at anew."""
    monkeypatch.setattr(Path, "chmod", lambda folder, _: (folder / "7_0_0_result.pkl").touch())
    controller.answers["squeue"] = "7_0 COMPLETED 0\n"
    assert looked_at(queue, controller, 60) == {"7_0": "result"}


def test_jobs_are_asked_to_stop_all_at_once(queue, controller):
    controller.answers["squeue"] = "".join(f"7_{task} RUNNING 0\n" for task in range(50))
    for _ in range(40):  # as `drive` does while they save themselves
        for task in range(50):
            cluster.SlurmProcess(SimpleNamespace(job_id=f"7_{task}"), queue).ask_to_stop()
        looked_at(queue, controller, ASK)
    told = [command for _, command in controller.asked if command[0] == "scancel"]
    assert told[:2] == [
        ["scancel", "--quiet", "--state=PENDING", "7"],
        ["scancel", "--quiet", "--signal=TERM", "7"],
    ]
    assert len(told) <= 2 * 40 * ASK / of_slurm.AGAIN + 2
    controller.answers["squeue"] = "7_0 CANCELLED 0\n"
    assert looked_at(queue, controller, of_slurm.AGAIN) == {"7_0": "CANCELLED"}


@pytest.mark.parametrize(("told", "said"), [
    (f"7 FAILED {137 << 8}\n", "FAILED, exit status 137 (SIGKILL)"),
    ("7 CANCELLED 15\n", "CANCELLED, exit status 143 (SIGTERM)"),
    (f"7 FAILED {1 << 8}\n", "FAILED, exit status 1"),
    ("7 TIMEOUT 0\n", "TIMEOUT"),
    ("", "unknown to Slurm by now"),
])  # fmt: skip
def test_how_a_job_ended(controller, tmp_path, told, said):
    queue = of_slurm.Queue()
    queue.add({"7": tmp_path / "7_0_result.pkl"})
    controller.answers["squeue"] = told
    assert looked_at(queue, controller, 60, ["7"]) == {"7": said}
