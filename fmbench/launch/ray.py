"""Sweeps whose runs are tasks of Ray, under the rules of `cluster`."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from fmbench.config.messages import Refusal
from fmbench.core.errors import RunDiedError, installs
from fmbench.core.machine import usable
from fmbench.launch.gather import (
    NotInstalled,
    Task,
    as_before,
    failed,
    gather,
)

try:
    from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher as StockRayLauncher
except ImportError:

    class StockRayLauncher(NotInstalled):  # type: ignore[no-redef]
        """In its place."""

        needs = installs("ray")


class RayLauncher(StockRayLauncher):  # type: ignore[misc]
    """Each run a task of Ray."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Have the runs use no more threads than they have cores."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        cores = self.ray_cfg.remote.get("num_cpus")  # Ray takes 1 where nothing is said
        self.task_function = Task(task_function, max(1, int(cores or 1)))

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run them all; `gather` says what it raises."""
        import ray
        from hydra_plugins.hydra_ray_launcher import _launcher_util as stock

        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        given = _given(self.ray_cfg.init)
        with as_before(signal.SIGTERM):  # Ray's own would end the sweep without a word
            try:  # it counts the cores of the machine, with all quotas but those of nested groups
                own = {} if given.get("address") else {"num_cpus": usable().cores}
                stock.start_ray(OmegaConf.create({**own, **given}))
            except ValueError:  # there is a Ray already, which knows its own
                stock.start_ray(OmegaConf.create(given))
        remote = ray.remote(**_given(self.ray_cfg.remote))(ray_task)
        tasks = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(
                self.config, list(overrides)
            )
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = f"job_id_for_{number}", number
            tasks.append(
                remote.remote(self.hydra_context, config, self.task_function, Singleton.get_state())
            )
        return gather(
            lambda place: RayProcess(tasks[place]),
            job_overrides,
            initial_job_idx,
            config=self.config,
        )


def ray_task(context: HydraContext, config: DictConfig, function: Task, state: Any) -> JobReturn:
    """One run, in a process of Ray; what it raises gets back to the sweep."""
    from hydra_plugins.hydra_ray_launcher import _launcher_util as stock

    try:
        return stock._run_job(context, config, function, state)  # type: ignore[no-any-return]
    except (Exception, Refusal, KeyboardInterrupt) as error:
        return failed(OmegaConf.to_container(config.hydra.overrides.task), error)  # type: ignore[arg-type]


def _given(options: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(options, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if value is not None}


class RayProcess:
    """A run that is a task of Ray."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def outcome(self) -> JobReturn | None:
        """As `gather.Process` has it."""
        import ray

        ready, _ = ray.wait([self.task], timeout=0)
        if not ready:
            return None
        try:
            return ray.get(self.task)  # type: ignore[no-any-return]
        except ray.exceptions.RayError as error:
            words = " ".join(str(error).split())
            said = f"{type(error).__name__}: {words.partition('. ')[0]}"
            raise RunDiedError(f"its task of Ray ended without a result: {said}") from error

    def ask_to_stop(self) -> None:
        """Have the run save itself and leave; it does not begin if it has not."""
        import ray

        ray.cancel(self.task, force=False)
