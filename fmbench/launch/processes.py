"""Sweeps whose runs are processes of this machine, several at once."""

import pickle
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from fmbench.config import hydra_compat
from fmbench.config.sweep import run_name
from fmbench.core.errors import ConfigError, RunDiedError, StorageError
from fmbench.core.machine import usable
from fmbench.core.signals import StopRequested
from fmbench.launch.gather import OtherProcesses, Runs, failed, gather, log
from fmbench.records.record import FAILED, INTERRUPTED

if TYPE_CHECKING:
    from fmbench.launch.lanes import Lane


class ProcessLauncher(OtherProcesses):
    """Several processes of this machine, and nothing is lost.

    A process that dies, killed or for want of memory, ends its own run, and another takes its
    place. Asked to stop, the sweep has its runs saved; where it is killed itself, they are too.
    Cores and GPUs are shared out.

    Args:
        n_jobs: runs at once; -1 or None as many as there are cores, -2 one less.
        inner_max_num_threads: of a run that says none; None: the cores, shared out.
    """

    packages, extra = ("joblib", "cloudpickle"), "joblib"

    def __init__(self, n_jobs: int | None = -1, inner_max_num_threads: int | None = None) -> None:
        self.n_jobs = n_jobs
        self.threads = inner_max_num_threads
        self.lanes: list[Lane] = []
        #: The most runs that a sweep has at once, over all that it launches; None: not known.
        self.at_once: int | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives.

        Raises:
            ConfigError: joblib is not installed, or one of its keys cannot be.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if self.n_jobs is not None and type(self.n_jobs) is not int:
            raise ConfigError(f"hydra.launcher.n_jobs={self.n_jobs}: must be a whole number")
        if self.threads is not None and (type(self.threads) is not int or self.threads < 1):
            raise ConfigError(
                f"hydra.launcher.inner_max_num_threads={self.threads}: must be 1 or more, or null"
            )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run them all; `gather` says what it raises.

        Raises:
            KeyboardInterrupt: asked to stop at once; the processes were killed.
        """
        import cloudpickle

        from fmbench.launch.lanes import wait_for_any

        setup_globals()
        configure_log(
            self.config.hydra.hydra_logging,
            self.config.hydra.verbose,
            execution_whitelist=self.hydra_context.execution_whitelist,
        )
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        lanes = self.lanes_for(job_overrides)
        shared = cloudpickle.dumps(
            Runs(self.hydra_context, self.config, self.task_function, 0, at_once=len(lanes))
        )
        latest: dict[Lane, LaneRun] = {}  # of each lane

        def start(place: int) -> LaneRun:
            overrides = list(job_overrides[place])
            run = pickle.dumps((shared, initial_job_idx + place, overrides))
            lane = next(lane for lane in lanes if not lane.busy)
            latest[lane] = LaneRun(self, lane, run, initial_job_idx + place, overrides)
            return latest[lane]

        for lane in lanes[: len(job_overrides)]:
            lane.start()  # side by side
        try:
            return gather(
                start,
                job_overrides,
                initial_job_idx,
                len(lanes),
                config=self.config,
                shown=False,
                wait=partial(wait_for_any, lanes),
            )
        except BaseException as error:
            for run in latest.values():
                run.kill(str(error) or "stopped from the keyboard")
            raise

    def lanes_for(self, job_overrides: Sequence[Sequence[str]]) -> "list[Lane]":
        """As many lanes as the sweep can use, so that its runs share all of the machine.

        A launch may be smaller, the last one or what is left after a stop: the runs of a sweep
        compare only with the same threads.
        """
        from fmbench.launch import lanes

        most = -1 if self.n_jobs is None else self.n_jobs
        if most < 0:
            most = max(1, usable().cores + 1 + most)
        count = min(most, max(self.at_once or 0, len(job_overrides)))
        if len(self.lanes) < count:
            lanes.close(self.lanes)
            # A run that names its GPU could not have it, were they shared out.
            given = (text.lstrip("+") for overrides in job_overrides for text in overrides)
            named = [f"device={self.config.device}", *given]
            share = count > 1 and not any(text.startswith("device=cuda:") for text in named)
            self.lanes = lanes.make_lanes(
                count, self.threads, lanes.visible_gpus() if share else []
            )
        return self.lanes

    def mark(self, number: int, overrides: Sequence[str], status: str, said: str) -> None:
        """Write into the record of a run whose process is gone how it has ended."""
        from fmbench import tracking
        from fmbench.records.folder import mark_ended

        try:
            folder = self._folder(number, overrides)
            mark_ended(folder, status, said)
            tracking.settle(folder, Path(self.config.hydra.runtime.cwd))
        except (StorageError, ValueError, OSError) as error:
            name = run_name(self.config, number)
            log.warning("%s: its record stays as it is: %s", name, error)

    def _folder(self, number: int, overrides: Sequence[str]) -> Path:
        """The folder of a run, as Hydra makes it out where the run starts."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.num = number
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
        hydra = HydraConfig.instance()
        before = hydra.cfg
        hydra.set_config(config)
        try:
            return Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
        finally:
            hydra.cfg = before


class LaneRun:
    """A run in a lane."""

    def __init__(
        self, launcher: ProcessLauncher, lane: "Lane", run: bytes, number: int, overrides: list[str]
    ) -> None:
        self.launcher, self.lane, self.run = launcher, lane, run
        self.number, self.overrides = number, overrides
        self.asked = False
        self.ended = False
        lane.give(run)

    def outcome(self) -> JobReturn | None:
        """As `gather.Process` has it."""
        assert self.lane.connection is not None
        if not self.lane.connection.poll():
            return None
        try:
            returned = self.lane.result()
        except RunDiedError as error:
            self.ended = True
            self.launcher.mark(self.number, self.overrides, FAILED, str(error))
            if self.asked:
                return failed(self.overrides, StopRequested(signal.SIGTERM, saved=False))
            raise
        stop = hydra_compat.value(returned)
        if isinstance(stop, StopRequested) and not self.asked:
            # Asked of this process alone, as some do to whatever takes the most memory.
            self.lane.close()
            if stop.folder is None:  # the run had not begun
                self.lane.give(self.run)
                return None
        self.ended = True
        return returned

    def ask_to_stop(self) -> None:
        """Have the run save itself and leave."""
        if not self.asked:
            self.asked = True
            self.lane.ask_to_stop()

    def kill(self, said: str) -> None:
        """End the process at once, unless the run has ended, and record why."""
        if not self.ended:
            self.lane.kill()
            self.launcher.mark(self.number, self.overrides, INTERRUPTED, said)
