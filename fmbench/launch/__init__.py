"""Executors: where the runs of a sweep run, in this process, in others, on Slurm, on Ray."""

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fmbench.config import hydra_compat
from fmbench.launch.executor import Executor, ExecutorLauncher, InTurn, Sweep
from fmbench.launch.processes import Processes, fitting


def make_executor(
    *, config: DictConfig, hydra_context: HydraContext, task_function: TaskFunction, runs: int
) -> Executor:
    """The executor of a sweep of so many runs: that of its launcher, or processes for `sweep.jobs`.

    Raises:
        ConfigError: its launcher is not installed, or an option cannot be.
    """
    sweep = Sweep(hydra_context, task_function, config)
    if hydra_compat.runs_in_turn(config.hydra.launcher):
        jobs = min(runs, jobs_at_once(config))
        if jobs > 1:
            return Processes(sweep, jobs, n_jobs=jobs)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=hydra_context, task_function=task_function, config=config
    )
    if isinstance(launcher, ExecutorLauncher):
        return launcher.executor(runs)
    return InTurn(sweep, runs, launcher)


def jobs_at_once(config: DictConfig) -> int:
    """The number of `sweep.jobs`; of `auto` as many as this machine bears."""
    jobs = config.sweep.jobs
    return fitting(config) if jobs == "auto" else int(jobs)
