"""Executors: where the runs of a sweep run.

An executor takes runs, says which have ended and how, and can ask them to stop;
`fmbench.launch.drive` keeps it busy.
"""

import contextlib
import os
import platform
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
from fmbench.config.whitelist import TRUST_VARIABLE
from fmbench.core import machine
from fmbench.core.console import logger, show_traceback
from fmbench.core.errors import StorageError
from fmbench.core.machine import RUNS_AT_ONCE
from fmbench.tracking import mlflow_defaults

log = logger("fmbench.launchers")

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
            return run_job(
                hydra_context=self.sweep.context,
                config=composed(self.sweep, number, overrides, job_id),
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
