"""The loop that hands out the runs of a sweep: it keeps an executor busy until all have ended.

A grid gives it its runs, a search asks for a trial whenever there is room for one.
"""

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fmbench.config import hydra_compat
from fmbench.config.messages import Refusal, refusal
from fmbench.config.sweep import run_name
from fmbench.core.errors import ConfigError, RunDiedError, described, installs
from fmbench.core.files import HeldError, lock_of
from fmbench.core.signals import SAVING, Listener, StopRequested, listening
from fmbench.launch.board import Board, drawable
from fmbench.launch.executor import Executor, Job, Process, Sweep, log, run_folder
from fmbench.records.status import read_run

#: Seconds between two looks at the runs, and between two requests to stop: a run that is still
#: starting up does not hear the first.
LOOK, ASK = 0.1, 2.0

#: Seconds between looks at the folders of runs that other processes are at.
_LOOK_AGAIN = 1.0

#: More runs than any queue is given at once.
_MANY = 1_000_000


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


class Housekeeping:
    """What can wait: done once it is `needed`, in a twentieth of the time at most."""

    def __init__(self, *steps: Callable[[], None], needed: bool = False) -> None:
        self.steps, self.needed, self.next_at = steps, needed, 0.0

    def __call__(self) -> None:
        """Do it, if it is due."""
        now = time.monotonic()
        if self.needed and now >= self.next_at:
            for step in self.steps:
                step()
            self.needed, end = False, time.monotonic()
            self.next_at = end + 20 * (end - now)


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

    A run whose folder another process has, such as a job that an earlier start has left in a queue,
    is handed out again when that process has left.

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
                if not driven.running and (stopping or not driven.left):
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
    held: dict[int, Sequence[str]] = field(default_factory=dict)  # that other processes are at
    look_at: float = 0.0  # at the folders of these
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
            lambda number: self._folder(number, self.running[number][0]),
            lambda number: run_name(sweep.config, number),
            before=before,
            shown=shown,
        )

    @property
    def left(self) -> bool:
        """Whether there are runs to hand out, by now or later."""
        return self.more or bool(self.held)

    def hand_out(self) -> None:
        """Hand out as many runs as there is room for."""
        room = (self.executor.capacity or _MANY) - len(self.running)
        if room < 1:
            return
        try:
            jobs: Sequence[Job] = self._free()[:room]
            if self.more and not jobs:
                taken = self.source.take(room)
                self.more, jobs = taken is not None, taken or ()
            if jobs:
                for job, process in zip(jobs, self.executor.submit(jobs), strict=True):
                    self.running[job[0]] = job[1], process
                    self.held.pop(job[0], None)
        except Exception as error:
            self.fault = Refusal(error)

    def _free(self) -> list[Job]:
        """Runs that another process was at, and has left."""
        now = time.monotonic()
        if now < self.look_at:
            return []
        self.look_at = now + _LOOK_AGAIN
        return [job for job in self.held.items() if not lock_of(self._folder(*job)).held]

    def _folder(self, number: int, overrides: Sequence[str]) -> Path:
        return run_folder(self.executor.sweep, number, overrides)

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
            if isinstance(value, HeldError):
                folder = self._folder(number, overrides)
                log.info("waits for %s, where another process is at work", folder)
                self.held[number] = overrides
                continue
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
