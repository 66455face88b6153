"""The loop that hands out the runs of a sweep: what it asks of an executor, and what ends it."""

import errno
import pickle
import signal
import sys
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from fmbench.config import hydra_compat
from fmbench.config.messages import Refusal, as_user_error
from fmbench.core import machine
from fmbench.core.errors import (
    ConfigError,
    DataError,
    RunDiedError,
    StorageError,
    installs,
)
from fmbench.core.files import FolderLock, HeldError
from fmbench.core.signals import StopRequested
from fmbench.launch import drive as loop
from fmbench.launch.drive import LOOK, drive
from fmbench.launch.executor import Executor, Runs, Sweep, failed
from fmbench.launch.ray import Ray
from hydra_plugins.fmbench_launchers.cluster import SlurmLauncher
from hydra_plugins.fmbench_launchers.ray_tasks import RayLauncher

#: The config of a grid.
GRID = OmegaConf.create({"hydra": {"sweeper": {}}})


def test_housekeeping_is_done_when_needed_for_a_twentieth_of_the_time(monkeypatch):
    clock, done = [0.0], []

    def step():
        done.append(clock[0])
        clock[0] += 2

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    rest = loop.Housekeeping(step)
    rest()
    assert done == []
    rest.needed = True
    rest()
    rest()  # nothing is needed any more
    assert done == [0.0]
    for clock[0] in (41.0, 42.0):
        rest.needed = True
        rest()
    assert done == [0.0, 42.0]


@pytest.mark.parametrize("error", [ConnectionError("nobody"), Exception("node timed out")])
def test_a_ray_that_does_not_start_is_one_line(monkeypatch, error):
    def init(**_arguments):
        raise error

    absent = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setitem(sys.modules, "ray", absent)
    with pytest.raises(ConfigError, match=f"^hydra/launcher=ray: {type(error).__name__}: {error}"):
        Ray(None, 1, OmegaConf.create({"init": {}, "remote": {}}))._begin()


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
    return loop.run_all(Elsewhere(start, at_once), list(enumerate(overrides)))


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


class InFolders(Elsewhere):
    """Runs elsewhere, in numbered folders, that say how often each was handed out."""

    def __init__(self, start, folder):
        super().__init__(start)
        sweep = {"dir": str(folder), "subdir": "${hydra.job.num}"}
        config = OmegaConf.create({"hydra": {"sweeper": {}, "sweep": sweep}})
        self.sweep, self.handed_out = Sweep(None, None, config), []

    def submit(self, jobs):
        self.handed_out += [number for number, _ in jobs]
        return super().submit(jobs)


def met_another(folder):
    """The end of a run that met another process in its folder, as it arrives from elsewhere."""
    with pytest.raises(HeldError) as raised:
        FolderLock(folder)
    return pickle.loads(pickle.dumps(failed(["b"], raised.value)))


def test_a_run_that_another_process_is_at_is_handed_out_again_when_that_has_left(
    tmp_path, monkeypatch, caplog
):
    """A driver that was killed has left its job in a queue; it ran when ours began."""
    caplog.set_level("INFO", loop.log.name)
    monkeypatch.setattr(loop, "_LOOK_AGAIN", 0.0)
    (tmp_path / "1").mkdir()
    lock = FolderLock(tmp_path / "1")
    last = Run(8, well(0.3))
    runs = {0: [Run(1, well(0.1))], 1: [Run(1, met_another(tmp_path / "1"))], 2: [last]}

    def start(number):
        return runs[number].pop(0)

    executor, wait = InFolders(start, tmp_path), Executor.wait

    def leave(self, seconds):
        if last.looks == 3:  # the other process has ended well
            assert executor.handed_out == [0, 1, 2]
            lock.release()
            runs[1].append(Run(1, well(0.2)))
        wait(self, 0)

    monkeypatch.setattr(Executor, "wait", leave)
    returns = loop.run_all(executor, [(number, []) for number in range(3)])
    assert [each.return_value for each in returns] == [0.1, 0.2, 0.3]
    assert executor.handed_out == [0, 1, 2, 1]
    said = [message for message in caplog.messages if "waits" in message]
    assert said == [f"waits for {tmp_path / '1'}, where another process is at work"]


def test_a_sweep_that_waits_for_another_process_alone_can_be_stopped(tmp_path):
    (tmp_path / "0").mkdir()
    lock = FolderLock(tmp_path / "0")
    executor = InFolders(lambda _: Run(1, met_another(tmp_path / "0")), tmp_path)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 5 * LOOK)
    with pytest.raises(StopRequested):
        loop.run_all(executor, [(0, [])])
    assert executor.handed_out == [0]
    lock.release()


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
    runs = Runs(Sweep(None, lambda config: config.threads, None), share)
    assert runs.task(OmegaConf.create({"threads": given})) == expected


@pytest.mark.parametrize("launcher", [SlurmLauncher(), RayLauncher()])
def test_a_launcher_that_is_not_installed_is_named_with_what_brings_it(launcher, monkeypatch):
    monkeypatch.setattr(loop, "find_spec", lambda _: None)
    config = OmegaConf.create({"hydra": {"runtime": {"choices": {"hydra/launcher": "x"}}}})
    with pytest.raises(ConfigError) as raised:
        launcher.setup(hydra_context=None, task_function=None, config=config)
    brings = installs(launcher.executor_type.extra)
    assert str(raised.value) == f"hydra/launcher=x: is not installed; {brings} brings it"
