"""Executors: where the runs of a sweep run, in this process, in others, on Slurm, on Ray."""

from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fmbench.config import hydra_compat
from fmbench.core.errors import ConfigError
from fmbench.launch.drive import ExecutorLauncher
from fmbench.launch.executor import Executor, InTurn, Sweep
from fmbench.launch.processes import Processes, fitting
from fmbench.launch.slurm_queue import refuse_detached


def make_executor(
    *, config: DictConfig, hydra_context: HydraContext, task_function: TaskFunction, runs: int
) -> Executor:
    """The executor of a sweep of so many runs: that of its launcher, or processes for `sweep.jobs`.

    Raises:
        ConfigError: its launcher is not installed, an option cannot be, or it cannot be detached.
        StorageError: jobs of a detached sweep are still at work in its folder.
    """
    on_ray = str(config.hydra.launcher.get("_target_")).endswith(".RayLauncher")
    refuse_detached(Path(config.hydra.sweep.dir), asks_ray=on_ray)
    executor = _executor(Sweep(hydra_context, task_function, config), runs)
    if config.sweep.detach and not executor.detachable:
        raise ConfigError(
            "sweep.detach=true: these runs end with the command; those of Slurm go on, or of a "
            "Ray that is there already (hydra.launcher.ray.init.address)"
        )
    return executor


def _executor(sweep: Sweep, runs: int) -> Executor:
    if hydra_compat.runs_in_turn(sweep.config.hydra.launcher):
        jobs = min(runs, jobs_at_once(sweep.config))
        if jobs > 1:
            return Processes(sweep, jobs, n_jobs=jobs)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=sweep.context, task_function=sweep.function, config=sweep.config
    )
    if isinstance(launcher, ExecutorLauncher):
        return launcher.executor(runs)
    return InTurn(sweep, runs, launcher)


def jobs_at_once(config: DictConfig) -> int:
    """The number of `sweep.jobs`; of `auto` as many as this machine bears."""
    jobs = config.sweep.jobs
    return fitting(config) if jobs == "auto" else int(jobs)
