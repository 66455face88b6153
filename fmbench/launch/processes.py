"""Sweeps whose runs are processes of this machine, several at once."""

import pickle
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from fmbench.config import hydra_compat
from fmbench.config.sweep import run_name
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, RunDiedError, StorageError, installs
from fmbench.core.machine import usable
from fmbench.core.signals import Listener, StopRequested, listening
from fmbench.records.record import FAILED, INTERRUPTED

if TYPE_CHECKING:
    from fmbench.launch.lanes import Lane, Lanes

log = logger("fmbench.launchers")

#: Seconds between looks at whether a stop was asked for.
_LOOK = 0.2


class ProcessLauncher(Launcher):
    """The stock launcher of joblib, but that nothing is lost.

    A process that dies, killed or for want of memory, ends its own run, and another takes its
    place. Asked to stop, the sweep has its runs saved; where it is killed itself, they are too.
    Cores and GPUs are shared out.

    Args:
        n_jobs: runs at once; -1 or None as many as there are cores, -2 one less.
        inner_max_num_threads: of a run that says none; None: the cores, shared out.
    """

    def __init__(self, n_jobs: int | None = -1, inner_max_num_threads: int | None = None) -> None:
        self.n_jobs = n_jobs
        self.threads = inner_max_num_threads
        self.lanes: Lanes | None = None
        #: The most runs that a sweep has at once, over all that it launches; None: not known.
        self.at_once: int | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives.

        Raises:
            ConfigError: joblib is not installed, or one of its keys cannot be.
        """
        try:
            from hydra_plugins.hydra_joblib_launcher import _core  # noqa: F401
        except ImportError:
            raise ConfigError(
                f"hydra/launcher=joblib: is not installed; {installs('joblib')} brings it"
            ) from None
        if self.n_jobs is not None and type(self.n_jobs) is not int:
            raise ConfigError(f"hydra.launcher.n_jobs={self.n_jobs}: must be a whole number")
        if self.threads is not None and (type(self.threads) is not int or self.threads < 1):
            raise ConfigError(
                f"hydra.launcher.inner_max_num_threads={self.threads}: must be 1 or more, or null"
            )
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Start runs and wait for all of them.

        Returns:
            What came of each, in their order; of one whose process died a `RunDiedError`.

        Raises:
            StopRequested: a stop was asked for, and the runs have left.
            Refusal: a run met a fault that all share, of the data or the storage; the others were
                stopped.
            KeyboardInterrupt: asked to stop at once; the processes were killed.
        """
        setup_globals()
        configure_log(
            self.config.hydra.hydra_logging,
            self.config.hydra.verbose,
            execution_whitelist=self.hydra_context.execution_whitelist,
        )
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        with listening() as listener:
            launch = _Launch(self, self._lanes_for(job_overrides), job_overrides, initial_job_idx)
            try:
                return launch.run(listener)
            except BaseException as error:
                launch.kill(str(error) or "stopped from the keyboard")
                raise

    def _lanes_for(self, job_overrides: Sequence[Sequence[str]]) -> "Lanes":
        """As many lanes as the sweep can use, so that its runs share all of the machine.

        A launch may be smaller, the last one or what is left after a stop: the runs of a sweep
        compare only with the same threads.
        """
        from fmbench.launch.lanes import Lanes, visible_gpus

        most = -1 if self.n_jobs is None else self.n_jobs
        if most < 0:
            most = max(1, usable().cores + 1 + most)
        count = min(most, max(self.at_once or 0, len(job_overrides)))
        if self.lanes is None or len(self.lanes.lanes) < count:
            if self.lanes is not None:
                self.lanes.close()
            share = count > 1 and not self._names_a_gpu(job_overrides)
            self.lanes = Lanes(count, self.threads, visible_gpus() if share else [])
        return self.lanes

    def _names_a_gpu(self, job_overrides: Sequence[Sequence[str]]) -> bool:
        """Whether some run says which GPU it is to have: it could not, were they shared out."""
        given = (text.lstrip("+") for overrides in job_overrides for text in overrides)
        texts = [f"device={self.config.device}", *given]
        return any(text.startswith("device=cuda:") for text in texts)


class _Launch:
    """Runs that were handed over at once, and what has come of them.

    Args:
        launcher: that has them.
        lanes: that do them.
        job_overrides: of each run.
        first: number of the first run in the sweep, from 0.
    """

    def __init__(
        self,
        launcher: ProcessLauncher,
        lanes: "Lanes",
        job_overrides: Sequence[Sequence[str]],
        first: int,
    ) -> None:
        import cloudpickle

        self.launcher = launcher
        self.lanes = lanes
        self.job_overrides = job_overrides
        self.first = first
        self.waiting = deque(range(len(job_overrides)))
        self.returns: dict[int, JobReturn] = {}
        self.fault: BaseException | None = None  # that ends the sweep
        self.stopping = False
        self.saved = True
        self.shared = cloudpickle.dumps(
            (
                launcher.hydra_context,
                launcher.config,
                launcher.task_function,
                Singleton.get_state(),
            )
        )

    def run(self, listener: Listener) -> list[JobReturn]:
        """Do them all, unless the listener hears of a stop, or a run meets what ends the sweep."""
        self.lanes.start(len(self.job_overrides))
        while self.lanes.busy or (self.waiting and not self.stopping):
            if not self.stopping and (listener.asked is not None or self.fault is not None):
                self.stopping = True
                for lane in self.lanes.busy:
                    lane.ask_to_stop()
            for lane in self.lanes.idle:
                if self.waiting and not self.stopping:
                    self._give(lane)
            for lane in self.lanes.ended(_LOOK):
                self._take(lane, listener)
        if self.fault is not None:
            raise self.fault
        if listener.asked is not None:
            raise StopRequested(listener.asked, saved=self.saved)
        return [self.returns[place] for place in sorted(self.returns)]

    def kill(self, said: str) -> None:
        """End the processes at work at once; their records say what the sweep says."""
        busy = [(lane, lane.place) for lane in self.lanes.busy]
        for lane, place in busy:
            lane.kill()
            assert place is not None
            self._mark(place, INTERRUPTED, said)

    def _give(self, lane: "Lane") -> None:
        place = self.waiting.popleft()
        run = (self.shared, self.first + place, list(self.job_overrides[place]))
        lane.give(place, pickle.dumps(run))

    def _take(self, lane: "Lane", listener: Listener) -> None:
        place = lane.place
        assert place is not None
        try:
            outcome = lane.outcome()
        except RunDiedError as error:
            outcome = error
            self.saved = False
        if isinstance(outcome, JobReturn):
            self.returns[place] = outcome
        elif isinstance(outcome, Exception):
            self.returns[place] = self._failed(place, outcome)
        elif not isinstance(outcome, StopRequested):
            self.fault = self.fault or outcome
        elif self.stopping or listener.asked is not None:
            self.saved = self.saved and outcome.saved
        else:
            # Asked of this process alone, as some do to whatever takes the most memory.
            lane.close()
            if outcome.folder is None:  # the run had not begun
                self.waiting.appendleft(place)
            else:
                self.returns[place] = self._failed(place, RunDiedError(f"its process: {outcome}"))

    def _failed(self, place: int, error: Exception) -> JobReturn:
        """A run that gave nothing, as a sweeper wants to know it."""
        log.error("%s: %s", self._name(place), error)
        failed = hydra_compat.job_return(JobStatus.FAILED, error, self.job_overrides[place])
        if isinstance(error, RunDiedError):
            self._mark(place, FAILED, str(error))
        return failed

    def _mark(self, place: int, status: str, said: str) -> None:
        """Write into the record of a run whose process is gone how it has ended."""
        from fmbench import tracking
        from fmbench.records.folder import mark_ended

        try:
            folder = self._folder(place)
            mark_ended(folder, status, said)
            tracking.settle(folder, Path(self.launcher.config.hydra.runtime.cwd))
        except (StorageError, ValueError, OSError) as error:
            log.warning("%s: its record stays as it is: %s", self._name(place), error)

    def _name(self, place: int) -> str:
        return run_name(self.launcher.config, self.first + place)

    def _folder(self, place: int) -> Path:
        """The folder of a run, as Hydra makes it out where the run starts."""
        loader = self.launcher.hydra_context.config_loader
        config = loader.load_sweep_config(self.launcher.config, list(self.job_overrides[place]))
        with open_dict(config):
            config.hydra.job.num = self.first + place
            config.hydra.job.id = f"{config.hydra.job.name}_{config.hydra.job.num}"
        hydra = HydraConfig.instance()
        before = hydra.cfg
        hydra.set_config(config)
        try:
            return Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
        finally:
            hydra.cfg = before
