"""Sweeps whose runs are tasks of Ray."""

import signal
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from fmbench.core.errors import RunDiedError
from fmbench.core.machine import usable
from fmbench.launch.gather import OtherProcesses, Runs, as_before, gather


class RayLauncher(OtherProcesses):
    """Each run a task of Ray, by the arguments of `ray.init` and of `ray.remote`."""

    packages, extra = ("ray",), "ray"

    def __init__(self, ray: DictConfig) -> None:
        self.init, self.remote = _given(ray.init), _given(ray.remote)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run them all; `gather` says what it raises."""
        import ray

        if not ray.is_initialized():
            with as_before(signal.SIGTERM):  # Ray's own would end the sweep without a word
                try:  # it counts the machine's cores, with all quotas but those of nested groups
                    own = {} if self.init.get("address") else {"num_cpus": usable().cores}
                    ray.init(**(own | self.init))
                except ValueError:  # there is a Ray already, which knows its own
                    ray.init(**self.init)
        cores = self.remote.get("num_cpus")  # Ray takes 1 where nothing is said
        runs = Runs(self.hydra_context, self.config, self.task_function, max(1, int(cores or 1)))
        remote, shared = ray.remote(**self.remote)(Runs.__call__), ray.put(runs)
        tasks = [
            remote.remote(shared, number, list(overrides))
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        return gather(
            lambda place: RayProcess(tasks[place]),
            job_overrides,
            initial_job_idx,
            config=self.config,
        )


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
