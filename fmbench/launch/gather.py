"""The runs of a sweep in processes elsewhere: waiting for all of them, however each one ends."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fmbench.config import checks as configuration
from fmbench.config import hydra_compat
from fmbench.config.messages import Refusal, refusal
from fmbench.config.sweep import run_name
from fmbench.config.whitelist import TRUST_VARIABLE
from fmbench.core import machine
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, RunDiedError
from fmbench.core.machine import RUNS_AT_ONCE
from fmbench.core.signals import StopRequested, listening

log = logger("fmbench.launchers")

#: Seconds between two looks at the runs, and between two requests to stop: one that is still
#: starting up does not hear the first.
LOOK, ASK = 0.1, 2.0


class Process(Protocol):
    """One run elsewhere."""

    def outcome(self) -> JobReturn | None:
        """What came of it, or None while it has not ended.

        Raises:
            RunDiedError: it has, without a result; one line says what ended and how.
        """

    def ask_to_stop(self) -> None:
        """Have the run save itself and leave; may be called again."""


class Task:
    """A run as it is called in a process that has seen nothing of fmbench yet.

    Args:
        function: of the run.
        threads: that it may use where there are as many, unless its config says how many; None:
            all it finds. It takes its share and does not try which number is fastest.
    """

    def __init__(self, function: TaskFunction, threads: int | None) -> None:
        self.function = function
        self.threads = threads
        self.trusted = os.environ.get(TRUST_VARIABLE, "")
        #: Where submitit hides GPUs: what CUDA_VISIBLE_DEVICES is to be, perhaps None, in a tuple.
        self.visible_gpus: tuple[str | None] | None = None
        #: How many runs of the sweep share a machine; None where that is not known.
        self.at_once: int | None = None

    def __call__(self, config: DictConfig) -> Any:
        """Run it."""
        configuration.register()
        if self.at_once is not None:
            os.environ[RUNS_AT_ONCE] = str(self.at_once)
        if self.visible_gpus is not None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.visible_gpus[0] is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.visible_gpus[0]
        # Where the process has another environment, the user's packages are trusted all the same.
        os.environ[TRUST_VARIABLE] = self.trusted
        if config.threads is None:
            most = machine.threads()
            config.threads = min(self.threads or most, most)
        return self.function(config)


class NotInstalled(Launcher):
    """Stands for a stock launcher that is not installed, so that choosing it ends in one line."""

    needs = ""

    def __init__(self, **options: Any) -> None:
        pass

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Refuse.

        Raises:
            ConfigError: always.
        """
        option = config.hydra.runtime.choices["hydra/launcher"]
        raise ConfigError(f"hydra/launcher={option}: is not installed; {self.needs} brings it")

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Never called."""
        raise NotImplementedError


@contextlib.contextmanager
def as_before(number: int) -> Iterator[None]:
    """Put the handler of a signal back; in a thread other than the main one there are none."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


def failed(overrides: Sequence[str], error: BaseException) -> JobReturn:
    """A run that ended in an error, as a sweeper wants to know it.

    To be called where the error was raised: whether all runs share it is seen by its traceback,
    which does not travel.
    """
    return hydra_compat.job_return(JobStatus.FAILED, refusal(error) or error, overrides)


def gather(
    start: Callable[[int], Process],
    job_overrides: Sequence[Sequence[str]],
    first: int,
    at_once: int | None = None,
    *,
    config: DictConfig | None = None,
) -> list[JobReturn]:
    """Start runs and wait for all of them; asked to stop, ask them to.

    A fault that all runs share does the same, and so does a run that cannot be started: none is
    started any more, those at work save themselves.

    Args:
        start: starts the run of this place, from 0.
        job_overrides: of each run.
        first: number of the first run in the sweep, from 0.
        at_once: how many may be at work; None: all.
        config: of the sweep, by which its runs are named; None: as those of a grid.

    Returns:
        What came of each run, in their order; of one that died its `RunDiedError`.

    Raises:
        StopRequested: the sweep was asked to stop, and its runs have left.
        Refusal: a run met a fault that all share, of the data or the storage, or could not be
            started, and the others have left.
    """
    total = len(job_overrides)
    returns: dict[int, JobReturn] = {}
    running: dict[int, Process] = {}
    fault: Refusal | None = None
    asked_at = float("-inf")
    with listening() as listener:
        places = iter(range(total))
        while len(returns) < total:
            stopping = listener.asked is not None or fault is not None
            if not stopping:
                while (
                    len(running) < (at_once or total) and (place := next(places, None)) is not None
                ):
                    try:
                        running[place] = start(place)
                    except Exception as error:
                        fault = Refusal(error)
                        break
            elif not running:
                break
            elif time.monotonic() > asked_at + ASK:
                asked_at = time.monotonic()
                for process in running.values():
                    process.ask_to_stop()
            for place, process in list(running.items()):
                number = first + place
                name = f"run {number + 1}" if config is None else run_name(config, number)
                ended = _outcome(process, job_overrides[place], name, quiet=stopping)
                if ended is not None:
                    returns[place] = ended
                    del running[place]
                    if isinstance(hydra_compat.value(ended), Refusal):
                        fault = fault or hydra_compat.value(ended)
            time.sleep(LOOK)
        if listener.asked is not None:
            raise StopRequested(listener.asked, saved=_all_saved(returns.values()))
    if fault is not None:
        raise fault
    return [returns[place] for place in range(total)]


def _outcome(
    process: Process, overrides: Sequence[str], name: str, *, quiet: bool
) -> JobReturn | None:
    try:
        ended = process.outcome()
    except RunDiedError as error:
        line = f"{name}: {error}"
        if not quiet:  # runs that are stopped before they have begun die
            log.error(line)  # noqa: TRY400 - where it was found out says nothing
        return failed(overrides, RunDiedError(line))
    if ended is None:
        return None
    value = hydra_compat.value(ended)
    if isinstance(value, StopRequested):
        # Nobody may take it for a request to stop the sweep.
        said = "saved" if value.saved else "could not be saved"
        died = RunDiedError(f"{name}: {value}, {said}")
        died.__cause__ = value
        log.error(died)
        return failed(overrides, died)
    if ended.status == JobStatus.COMPLETED:
        log.info("%s has ended: %s", name, value)
    return ended


def _all_saved(returns: Any) -> bool:
    stops = [getattr(hydra_compat.value(ended), "__cause__", None) for ended in returns]
    return all(stop.saved for stop in stops if isinstance(stop, StopRequested))


def exit_text(status: int) -> str:
    """`exit status 137 (SIGKILL)`: how a process ended."""
    if status > 128:
        try:
            return f"exit status {status} ({signal.Signals(status - 128).name})"
        except ValueError:
            pass
    return f"exit status {status}"
