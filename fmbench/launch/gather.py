"""The runs of a sweep in other processes: start them, wait for all, however each one ends."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from typing import Any, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from fmbench.config import checks as configuration
from fmbench.config import hydra_compat
from fmbench.config.messages import Refusal, as_user_error, refusal
from fmbench.config.sweep import run_name
from fmbench.config.whitelist import TRUST_VARIABLE
from fmbench.core import machine
from fmbench.core.console import logger, show_traceback
from fmbench.core.errors import ConfigError, RunDiedError, installs
from fmbench.core.machine import RUNS_AT_ONCE
from fmbench.core.signals import StopRequested, listening
from fmbench.tracking import mlflow_defaults

log = logger("fmbench.launchers")

#: Seconds between two looks at the runs, and between two requests to stop: a run that is still
#: starting up does not hear the first.
LOOK, ASK = 0.1, 2.0


class Process(Protocol):
    """One run in another process."""

    def outcome(self) -> JobReturn | None:
        """The result of the run, or None while it has not ended.

        Raises:
            RunDiedError: it ended without a result; the line says what ended and how.
        """

    def ask_to_stop(self) -> None:
        """Ask the run to save itself and leave; may be called again."""


@dataclass
class Runs:
    """The runs of a sweep as they are sent to another process, which calls this once for each.

    Args:
        threads: of a run whose config names no number; 0: as the environment says; None: all that
            the machine has. With a number a run does not try which number is fastest.
        at_once: how many runs share the machine; None where that is not known.
        visible_gpus: what CUDA_VISIBLE_DEVICES is to be there, perhaps None, in a tuple; an empty
            one leaves it as it is.
    """

    context: HydraContext
    config: DictConfig
    function: TaskFunction
    threads: int | None
    at_once: int | None = None
    visible_gpus: tuple[str | None, ...] = ()
    # Where the process has another environment, the user's packages are trusted all the same.
    trusted: str = field(default_factory=lambda: os.environ.get(TRUST_VARIABLE, ""))
    state: Any = field(default_factory=Singleton.get_state)

    def __call__(self, number: int, overrides: Sequence[str], job_id: str = "") -> JobReturn:
        """Run one; an error is returned, since a traceback does not travel."""
        try:
            Singleton.set_state(self.state)
            setup_globals()
            configuration.register()
            mlflow_defaults()
            config = composed(self.context, self.config, number, overrides, job_id)
            HydraConfig.instance().set_config(config)
            return run_job(
                hydra_context=self.context,
                config=config,
                task_function=self.task,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except (Exception, Refusal, KeyboardInterrupt) as error:
            return failed(overrides, error)

    def task(self, config: DictConfig) -> Any:
        """The function of the run, with its share of the machine."""
        os.environ[TRUST_VARIABLE] = self.trusted
        if self.at_once is not None:
            os.environ[RUNS_AT_ONCE] = str(self.at_once)
        for devices in self.visible_gpus:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if devices is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = devices
        if config.threads is None and self.threads != 0:
            most = machine.threads()
            config.threads = min(self.threads or most, most)
        return self.function(config)


def composed(
    context: HydraContext,
    sweep: DictConfig,
    number: int,
    overrides: Sequence[str],
    job_id: str = "",
) -> DictConfig:
    """The config of a run of a sweep, by its number from 0, as Hydra's launchers compose it."""
    of_run = context.config_loader.load_sweep_config(sweep, list(overrides))
    with open_dict(of_run):
        of_run.hydra.job.num = number
        of_run.hydra.job.id = job_id or f"{of_run.hydra.job.name}_{number}"
    return of_run


class OtherProcesses(Launcher):
    """A launcher whose runs are other processes."""

    #: The packages that start them, and the extra that brings these.
    packages: tuple[str, ...] = ()
    extra = ""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives; ConfigError where a package is not installed."""
        if not all(map(find_spec, self.packages)):
            option = config.hydra.runtime.choices["hydra/launcher"]
            raise ConfigError(
                f"hydra/launcher={option}: is not installed; {installs(self.extra)} brings it"
            )
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config


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


def gather(
    start: Callable[[int], Process],
    job_overrides: Sequence[Sequence[str]],
    first: int,
    at_once: int | None = None,
    *,
    config: DictConfig,
    shown: bool = True,
    wait: Callable[[float], Any] = time.sleep,
) -> list[JobReturn]:
    """Start runs and wait for all of them.

    After a request to stop, a fault that all runs share, or a run that cannot be started, none is
    started any more, and those at work save themselves.

    Args:
        start: starts the run of this place, from 0.
        job_overrides: of each run.
        first: number of the first run in the sweep, from 0.
        at_once: how many may be at work; None: all.
        config: of the sweep, by which its runs are named.
        shown: log the result of each; False where the runs write to this terminal themselves.
        wait: for so many seconds, or until a run may have ended.

    Returns:
        The result of each run, in their order; of one that died its `RunDiedError`.

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
                free = (at_once or total) - len(running)
                try:
                    for place in islice(places, free):
                        running[place] = start(place)
                except Exception as error:
                    fault = Refusal(error)
            elif not running:
                break
            elif time.monotonic() > asked_at + ASK:
                asked_at = time.monotonic()
                for process in running.values():
                    process.ask_to_stop()
            at_work = len(running)
            for place, process in list(running.items()):
                name = run_name(config, first + place)
                ended = _outcome(process, job_overrides[place], name, quiet=stopping)
                if ended is not None:
                    returns[place] = ended
                    del running[place]
                    if ended.status == JobStatus.FAILED:
                        fault = fault or refusal(hydra_compat.value(ended))
                    elif shown:
                        log.info("%s has ended: %s", name, hydra_compat.value(ended))
            if running and len(running) == at_work:
                wait(LOOK)
        if listener.asked is not None:
            values = map(hydra_compat.value, returns.values())
            causes = [value.__cause__ for value in values if isinstance(value, RunDiedError)]
            saved = all(cause.saved for cause in causes if isinstance(cause, StopRequested))
            raise StopRequested(listener.asked, saved=saved)
    if fault is not None:
        raise fault
    return [returns[place] for place in range(total)]


def _outcome(
    process: Process, overrides: Sequence[str], name: str, *, quiet: bool
) -> JobReturn | None:
    """The result of a run that has ended, or None; one that ended by itself is logged."""
    try:
        ended = process.outcome()
    except RunDiedError as error:
        ended = hydra_compat.job_return(JobStatus.FAILED, error)
    if ended is None:
        return None
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
