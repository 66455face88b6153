"""Sweeps whose runs are tasks of Ray."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from fmbench.core.errors import RunDiedError
from fmbench.core.machine import usable
from fmbench.launch.executor import Executor, Job, Runs, Sweep, as_before


class Ray(Executor):
    """Each run a task of Ray, by the arguments of `ray.init` and of `ray.remote`."""

    packages, extra = ("ray",), "ray"

    def __init__(self, sweep: Sweep, at_once: int, ray: DictConfig) -> None:
        super().__init__(sweep, at_once)
        self.init, self.remote = _given(ray.init), _given(ray.remote)
        self.call: Any = None  # what Ray is to call

    def submit(self, jobs: Sequence[Job]) -> Iterator["RayProcess"]:
        """Hand runs over to Ray."""
        if self.call is None:
            self._begin()
        for number, overrides in jobs:
            yield RayProcess(self.call.remote(self.shared, number, list(overrides)))

    def _begin(self) -> None:
        import ray

        if not ray.is_initialized():
            with as_before(signal.SIGTERM):  # Ray's own would end the sweep without a word
                try:  # it counts the machine's cores, with all quotas but those of nested groups
                    own = {} if self.init.get("address") else {"num_cpus": usable().cores}
                    ray.init(**(own | self.init))
                except ValueError:  # there is a Ray already, which knows its own
                    ray.init(**self.init)
        cores = self.remote.get("num_cpus")  # Ray takes 1 where nothing is said
        self.shared = ray.put(Runs(self.sweep, max(1, int(cores or 1))))
        self.call = ray.remote(**self.remote)(Runs.__call__)


def _given(options: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(options, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if value is not None}


class RayProcess:
    """A run that is a task of Ray."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def outcome(self) -> JobReturn | None:
        """As `executor.Process` has it."""
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
