"""Executors: where the runs of a sweep run, and the loop that hands them out.

An executor takes runs, says which have ended and how, and can ask them to stop. The loop keeps it
busy: a grid gives it its runs, a search asks for a trial whenever there is room for one.
"""

import contextlib
import os
import platform
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from fmbench.config import checks as configuration
from fmbench.config import hydra_compat
from fmbench.config.messages import Refusal, as_user_error, refusal
from fmbench.config.sweep import run_name
from fmbench.config.whitelist import TRUST_VARIABLE
from fmbench.core import machine
from fmbench.core.console import logger, show_traceback
from fmbench.core.errors import ConfigError, RunDiedError, StorageError, described, installs
from fmbench.core.machine import RUNS_AT_ONCE
from fmbench.core.signals import SAVING, Listener, StopRequested, listening
from fmbench.launch.board import Board, drawable
from fmbench.records.status import read_run
from fmbench.tracking import mlflow_defaults

log = logger("fmbench.launchers")

#: Seconds between two looks at the runs, and between two requests to stop: a run that is still
#: starting up does not hear the first.
LOOK, ASK = 0.1, 2.0

#: More runs than any queue is given at once.
_MANY = 1_000_000

#: A run: its number in the sweep, from 0, and its overrides.
Job = tuple[int, Sequence[str]]


class Process(Protocol):
    """One run in another process."""

    def outcome(self) -> JobReturn | None:
        """The result of the run, or None while it has not ended.

        Raises:
            RunDiedError: it ended without a result; the line says what ended and how.
        """

    def ask_to_stop(self) -> None:
        """Ask the run to save itself and leave; may be called again."""


class Sweep(NamedTuple):
    """What all runs of a sweep have in common, as Hydra gives it."""

    context: HydraContext
    function: TaskFunction
    config: DictConfig


@dataclass
class Runs:
    """The runs of a sweep as they are sent to another process, which calls this once for each.

    Args:
        sweep: of the runs.
        threads: of a run whose config names no number; 0: as the environment says; None: all that
            the machine has. With a number a run does not try which number is fastest.
        at_once: how many runs share the machine; None where that is not known.
    """

    sweep: Sweep
    threads: int | None
    at_once: int | None = None
    # Where the process has another environment, the user's packages are trusted all the same.
    trusted: str = field(default_factory=lambda: os.environ.get(TRUST_VARIABLE, ""))
    state: Any = field(default_factory=Singleton.get_state)

    def __call__(self, number: int, overrides: Sequence[str], job_id: str = "") -> JobReturn:
        """Run one; an error is returned, since a traceback does not travel."""
        try:
            self.begin()
            config = composed(self.sweep, number, overrides, job_id)
            HydraConfig.instance().set_config(config)
            return run_job(
                hydra_context=self.sweep.context,
                config=config,
                task_function=self.task,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except (Exception, Refusal, KeyboardInterrupt) as error:
            return failed(overrides, error)

    def begin(self) -> None:
        """Set up this process as the one was that handed the runs over: its folder, and Hydra.

        Raises:
            StorageError: this machine does not have that folder.
        """
        folder = str(self.sweep.config.hydra.runtime.cwd)
        try:
            os.chdir(folder)  # processes of Ray start elsewhere
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror} on {platform.node()}") from error
        os.environ[TRUST_VARIABLE] = self.trusted
        Singleton.set_state(self.state)
        setup_globals()
        configuration.register()
        mlflow_defaults()

    def task(self, config: DictConfig) -> Any:
        """The function of the run, with its share of the machine."""
        if self.at_once is not None:
            os.environ[RUNS_AT_ONCE] = str(self.at_once)
        if config.threads is None and self.threads != 0:
            most = machine.threads()
            config.threads = min(self.threads or most, most)
        return self.sweep.function(config)


def composed(sweep: Sweep, number: int, overrides: Sequence[str], job_id: str = "") -> DictConfig:
    """The config of a run of a sweep, by its number from 0, as Hydra's launchers compose it."""
    of_run = sweep.context.config_loader.load_sweep_config(sweep.config, list(overrides))
    with open_dict(of_run):
        of_run.hydra.job.num = number
        of_run.hydra.job.id = job_id or f"{of_run.hydra.job.name}_{number}"
    return of_run


def run_folder(sweep: Sweep, number: int, overrides: Sequence[str]) -> Path:
    """The folder of a run of a sweep, as Hydra makes it out where the run starts."""
    folders = OmegaConf.to_container(sweep.config.hydra.sweep, resolve=False)
    assert isinstance(folders, dict)
    if folders["subdir"] == "${hydra.job.num}":  # composing takes a while
        return Path(sweep.config.hydra.sweep.dir, str(number)).absolute()
    config = composed(sweep, number, overrides)
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(config)
    try:
        return Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
    finally:
        hydra.cfg = before


class Worker(Protocol):
    """What takes runs by itself in a process of its own."""

    def __call__(self, runs: Runs) -> None:
        """Take runs until there are no more; `runs` runs one in that process."""


class Executor:
    """Where the runs of a sweep run: this process, others of this machine, Slurm, Ray.

    Args:
        sweep: what all runs have in common.
        at_once: the most runs that the sweep can have at work.

    Attributes:
        capacity: how many runs may be at work; None: they queue elsewhere, as many as there are.
        apart: whether runs are other processes, which the driver asks to stop.
        shown: whether the driver says that a run has ended; not where runs say so themselves.
    """

    #: The packages that it needs, and the extra that brings these.
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""

    capacity: int | None = None
    apart = shown = True

    def __init__(self, sweep: Sweep, at_once: int) -> None:
        self.sweep, self.at_once = sweep, at_once

    def submit(self, jobs: Sequence[Job]) -> Iterable[Process]:
        """Hand runs over; gives the process of each, in their order, as soon as it has begun."""
        raise NotImplementedError

    @property
    def detachable(self) -> bool:
        """Whether runs may go on without this process."""
        return False

    def leave(self, jobs: Sequence[Job]) -> None:
        """Hand runs over that go on without this process, where it is `detachable`."""
        raise NotImplementedError

    def leave_workers(self, worker: Worker, count: int) -> None:
        """Start so many workers that go on without this process."""
        raise NotImplementedError

    def wait(self, seconds: float) -> None:
        """Wait for so many seconds, or until a run may have ended."""
        time.sleep(seconds)

    def abandon(self, said: str) -> None:
        """Let go of the runs at work: the sweep ends at once, for this reason."""


class InTurn(Executor):
    """Runs of a launcher that waits for them: Hydra's own, in this process, or somebody's."""

    apart = shown = False

    def __init__(self, sweep: Sweep, at_once: int, launcher: Launcher) -> None:
        super().__init__(sweep, at_once)
        self.launcher = launcher
        self.capacity = 1 if hydra_compat.runs_in_turn(sweep.config.hydra.launcher) else None

    def submit(self, jobs: Sequence[Job]) -> Iterable[Process]:
        """Run them, those of consecutive numbers together."""
        for _, stretch in groupby(enumerate(jobs), key=lambda pair: pair[1][0] - pair[0]):
            numbers, overrides = zip(*(job for _, job in stretch), strict=True)
            try:
                returns = self.launcher.launch(overrides, initial_job_idx=numbers[0])
            except HydraException as error:  # values that cannot be together end their own run
                returns = [failed(each, error) for each in overrides]
            yield from map(_Ended, returns)


@dataclass
class _Ended:
    """A run that has ended by now."""

    returned: JobReturn

    def outcome(self) -> JobReturn:
        return self.returned

    def ask_to_stop(self) -> None:
        pass


class ExecutorLauncher(Launcher):
    """An executor as Hydra's launcher; its arguments are the options of the executor.

    Raises:
        ConfigError: a package is not installed, or an option cannot be.
    """

    executor_type: ClassVar[type[Executor]]

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives."""
        if not all(map(find_spec, self.executor_type.packages)):
            option = config.hydra.runtime.choices["hydra/launcher"]
            raise ConfigError(
                f"hydra/launcher={option}: is not installed; "
                f"{installs(self.executor_type.extra)} brings it"
            )
        self.sweep = Sweep(hydra_context, task_function, config)
        try:
            self.executor(1)
        except TypeError as error:  # a key that it does not know
            raise ConfigError(f"hydra.launcher: {described(error)}") from error

    def executor(self, at_once: int) -> Executor:
        """The executor of a sweep that can have so many runs at work."""
        return self.executor_type(self.sweep, at_once, **self.options)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run them all; `drive` says what it raises."""
        executor = self.executor(len(job_overrides))
        return run_all(executor, list(enumerate(job_overrides, initial_job_idx)))


class Here(Executor):
    """Runs one after the other in this process, which is one that an executor has started."""

    apart = shown = False
    capacity = 1

    def __init__(self, runs: Runs) -> None:
        super().__init__(runs.sweep, 1)
        self.call = runs

    def submit(self, jobs: Sequence[Job]) -> Iterable[Process]:
        """Run them; StopRequested where this process is asked to stop."""
        for number, overrides in jobs:
            returned = self.call(number, overrides)
            if isinstance(stop := hydra_compat.value(returned), KeyboardInterrupt):
                raise stop
            yield _Ended(returned)


@contextlib.contextmanager
def as_before(number: int) -> Iterator[None]:
    """Put the handler of a signal back."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, before)


def failed(overrides: Sequence[str], error: BaseException) -> JobReturn:
    """The result of a run that ended in an error.

    To be called where the error was raised: its traceback, which does not travel, decides whether
    all runs share it. Such an error travels as the line that `refusal` takes for one again.
    """
    if not isinstance(error, KeyboardInterrupt) and as_user_error(error) is None:
        show_traceback(error)
    shared = refusal(error)
    value = error if shared is None else shared.error
    return hydra_compat.job_return(JobStatus.FAILED, value, overrides)


class Source(Protocol):
    """Where the runs of a sweep come from."""

    def take(self, room: int) -> Sequence[Job] | None:
        """The next runs, at most so many, perhaps none by now; None where there are no more."""

    def ended(self, number: int, returned: JobReturn) -> None:
        """Take the result of a run; of one that died its `RunDiedError`."""

    def rest(self) -> None:
        """Do what can wait until all workers are busy; called often."""

    def size(self) -> tuple[int | None, Mapping[str, int]]:
        """How many runs the sweep has, if that is known, and how many ended before, by state."""


class _Batch:
    """Runs that are known beforehand."""

    def __init__(self, jobs: Sequence[Job], total: int, over: Iterable[Path]) -> None:
        self.left, self.total, self.over = list(jobs), total, over
        self.returns: dict[int, JobReturn] = {}

    def take(self, room: int) -> Sequence[Job] | None:
        jobs, self.left = self.left[:room], self.left[room:]
        return jobs or None

    def ended(self, number: int, returned: JobReturn) -> None:
        self.returns[number] = returned

    def rest(self) -> None:
        pass

    def size(self) -> tuple[int, Mapping[str, int]]:
        return self.total, how_ended(self.over)


def how_ended(folders: Iterable[Path]) -> Mapping[str, int]:
    """How many runs in these folders have ended, by their states."""
    return Counter(run.state for run in map(read_run, folders) if run is not None)


def run_all(
    executor: Executor,
    jobs: Sequence[Job],
    *,
    total: int | None = None,
    over: Iterable[Path] = (),
) -> list[JobReturn]:
    """Run these.

    Args:
        executor: runs them.
        jobs: the runs.
        total: of the sweep, where it has others.
        over: the folders of those of its runs that have ended, looked at where a board is shown.

    Returns:
        The result of each, in their order. `drive` says what is raised.
    """
    batch = _Batch(jobs, len(jobs) if total is None else total, over)
    drive(executor, batch)
    return [batch.returns[number] for number, _ in jobs]


def drive(executor: Executor, source: Source) -> None:
    """Hand out runs as there is room for them, until there are no more and all have ended.

    Where several may be at work at once, a terminal shows them on a board.

    After a request to stop, a fault that all runs share, or a run that cannot be started, none is
    handed out any more, and those at work save themselves.

    Raises:
        StopRequested: the sweep was asked to stop, and its runs have left.
        Refusal: a run met a fault that all share, of the data or the storage, or could not be
            started, and the others have left.
    """
    driven, asked_at = _Driven(executor, source), float("-inf")
    # In this process each run listens itself.
    listen = listening() if executor.apart else contextlib.nullcontext(Listener())
    with listen as listener, driven.board() as board:
        listener.speaks = board.live is None
        try:
            while True:
                stopping = listener.asked is not None or driven.fault is not None
                if not stopping:
                    driven.hand_out()
                elif time.monotonic() > asked_at + ASK:
                    if not listener.speaks and listener.asked == signal.SIGINT:
                        log.info(SAVING)
                        listener.speaks = True
                    asked_at = time.monotonic()
                    driven.ask_to_stop()
                board.show(driven.running)
                if not driven.running and (stopping or not driven.more):
                    break
                ended = driven.collect(stopping=stopping)
                if not ended or not executor.apart:
                    driven.rest()
                if not ended:
                    executor.wait(LOOK)
            executor.wait(0)  # hears what the last ones have said
        except BaseException as error:
            executor.abandon(str(error) or "stopped from the keyboard")
            raise
        if listener.asked is not None:
            raise StopRequested(listener.asked, saved=driven.saved)
    if driven.fault is not None:
        raise driven.fault


@dataclass
class _Driven:
    """The runs at work."""

    executor: Executor
    source: Source
    running: dict[int, tuple[Sequence[str], Process]] = field(default_factory=dict)
    more: bool = True  # whether there may be more to come
    fault: Refusal | None = None  # that all runs share
    saved: bool = True  # whether all that were stopped were saved

    def board(self) -> Board:
        """The live display of those at work, where there may be several."""
        sweep, shown = self.executor.sweep, False
        if self.executor.apart and self.executor.capacity != 1:
            shown = drawable()
        total, before = self.source.size() if shown else (None, {})
        return Board(
            total,
            lambda number: run_folder(sweep, number, self.running[number][0]),
            lambda number: run_name(sweep.config, number),
            before=before,
            shown=shown,
        )

    def hand_out(self) -> None:
        """Hand out as many runs as there is room for."""
        room = (self.executor.capacity or _MANY) - len(self.running)
        if not self.more or room < 1:
            return
        try:
            jobs = self.source.take(room)
            self.more = jobs is not None
            if jobs:
                for job, process in zip(jobs, self.executor.submit(jobs), strict=True):
                    self.running[job[0]] = job[1], process
        except Exception as error:
            self.fault = Refusal(error)

    def rest(self) -> None:
        """Let the source do what can wait."""
        try:
            self.source.rest()
        except Exception as error:
            self.fault = self.fault or Refusal(error)

    def ask_to_stop(self) -> None:
        """Ask all to save themselves and leave."""
        for _, process in self.running.values():
            process.ask_to_stop()

    def collect(self, *, stopping: bool) -> bool:
        """Take the results of those that have ended; returns whether there were any."""
        before = len(self.running)
        for number, (overrides, process) in list(self.running.items()):
            try:
                returned = process.outcome()
            except RunDiedError as error:
                returned = hydra_compat.job_return(JobStatus.FAILED, error)
            if returned is None:
                continue
            name = run_name(self.executor.sweep.config, number)
            returned = _alone(returned, overrides, name, quiet=stopping)
            del self.running[number]
            well, value = returned.status == JobStatus.COMPLETED, hydra_compat.value(returned)
            if well and self.executor.shown:
                log.info("%s has ended: %s", name, value)
            if not well:
                self.fault = self.fault or refusal(value)
                stop = value.__cause__ if isinstance(value, RunDiedError) else None
                self.saved &= not isinstance(stop, StopRequested) or stop.saved
            # What was stopped together with the sweep has no result yet.
            if well or not (stopping or self.fault):
                try:
                    self.source.ended(number, returned)
                except Exception as error:
                    self.fault = self.fault or Refusal(error)
        return len(self.running) < before


def _alone(ended: JobReturn, overrides: Sequence[str], name: str, *, quiet: bool) -> JobReturn:
    """The result of a run; one that died, or was stopped alone, is logged and is its own."""
    value = hydra_compat.value(ended)
    said = str(value)
    if isinstance(value, StopRequested):
        said += ", saved" if value.saved else ", could not be saved"
    elif not isinstance(value, RunDiedError):
        return ended
    # That one run was stopped is no request to stop the sweep.
    died = RunDiedError(f"{name}: {said}")
    died.__cause__ = value
    if not quiet:  # runs that are stopped before they have begun die
        log.error(died)
    return hydra_compat.job_return(JobStatus.FAILED, died, overrides)
