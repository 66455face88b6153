"""Sweeps whose runs are tasks of Ray."""

import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from fmbench.core.errors import ConfigError, RunDiedError, StorageError, described
from fmbench.core.files import remove
from fmbench.core.machine import usable
from fmbench.launch import slurm_queue
from fmbench.launch.executor import Executor, Job, Runs, Sweep, Worker, as_before, log
from fmbench.records.status import DETACHED_NAME


class Ray(Executor):
    """Each run a task of Ray, by the arguments of `ray.init` and of `ray.remote`."""

    packages, extra = ("ray",), "ray"

    def __init__(self, sweep: Sweep, at_once: int, ray: DictConfig) -> None:
        super().__init__(sweep, at_once)
        self.init, self.remote = _given(ray.init), _given(ray.remote)
        self.call: Any = None  # what Ray is to call
        self.tasks: list[Any] = []  # at work
        self.ready: set[Any] = set()  # ended since

    @property
    def detachable(self) -> bool:
        """Whether the Ray was there before, and stays."""
        return (self.init.get("address") or os.environ.get("RAY_ADDRESS") or "local") != "local"

    def leave(self, jobs: Sequence[Job]) -> None:
        """Hand runs over that nobody waits for."""
        self._leave(Runs.__call__, [(number, list(overrides)) for number, overrides in jobs])

    def leave_workers(self, worker: Worker, count: int) -> None:
        """Start workers that nobody waits for."""
        self._leave(partial(_work, worker), [()] * count)

    def _leave(self, call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> None:
        """Have an actor that outlives this process start and look after tasks."""
        import ray

        if self.call is None:
            self._begin()
        name = f"fmbench-{secrets.token_hex(4)}"
        lives = {"name": name, "namespace": "fmbench", "lifetime": "detached"}
        actor = ray.remote(num_cpus=0)(_Detached).options(**lives).remote()
        ray.get(actor.begin.remote(name, call, self.runs, arguments, self.remote))
        slurm_queue.note(Path(self.sweep.config.hydra.sweep.dir), [name])
        log.info("handed over to Ray: %d tasks, by the actor %s", len(arguments), name)

    def submit(self, jobs: Sequence[Job]) -> Iterator["RayProcess"]:
        """Hand runs over to Ray."""
        if self.call is None:
            self._begin()
        for number, overrides in jobs:
            task = self.call.remote(self.shared, number, list(overrides))
            self.tasks.append(task)
            yield RayProcess(task, self)

    def wait(self, seconds: float) -> None:
        """Wait until a task has ended, or for so many seconds."""
        import ray

        if self.tasks:
            ray.wait(self.tasks, timeout=seconds)
            ready, self.tasks = ray.wait(self.tasks, num_returns=len(self.tasks), timeout=0)
            self.ready.update(ready)

    def _begin(self) -> None:
        import ray

        if not ray.is_initialized():
            with as_before(signal.SIGTERM):  # Ray's own would end the sweep without a word
                try:  # it counts the machine's cores, with all quotas but those of nested groups
                    own = {} if self.init.get("address") else {"num_cpus": usable().cores}
                    ray.init(**(own | self.init))
                except ValueError:  # there is a Ray already, which knows its own
                    ray.init(**self.init)
                except Exception as error:  # a node that does not start in time raises no less
                    raise ConfigError(f"hydra/launcher=ray: {described(error, 300)}") from error
        folder = Path(self.sweep.config.hydra.sweep.dir)
        for left in slurm_queue.noted(folder):
            with contextlib.suppress(ValueError):  # gone
                ray.get_actor(left, "fmbench")
                raise StorageError(
                    f"{folder}: runs of this sweep are at work on Ray, or wait there; "
                    f"fmbench status {folder} shows how far they are"
                )
        remove(folder / DETACHED_NAME)
        cores = self.remote.get("num_cpus")  # Ray takes 1 where nothing is said
        self.runs = Runs(self.sweep, max(1, int(cores or 1)))
        self.shared = ray.put(self.runs)
        self.call = ray.remote(**self.remote)(Runs.__call__)


def _called(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call: Ray makes tasks of functions alone."""
    return call(*arguments)


def _work(worker: Worker, runs: Runs) -> None:
    """Have a worker work, in a task."""
    runs.begin()
    worker(runs)


class _Detached:
    """An actor that owns the tasks of a detached sweep: Ray ends tasks whose owner is gone."""

    def begin(
        self,
        name: str,
        call: Callable[..., Any],
        runs: Runs,
        arguments: Sequence[tuple[Any, ...]],
        options: dict[str, Any],
    ) -> None:
        """Start the tasks, and end once all have."""
        import ray

        shared, task = ray.put(runs), ray.remote(**options)(_called)
        tasks = [task.remote(call, shared, *each) for each in arguments]
        config = runs.sweep.config.hydra
        path = Path(config.runtime.cwd, config.sweep.dir, "detached.log")

        def watch() -> None:
            for each in tasks:
                try:
                    ray.get(each)
                except Exception as error:
                    with path.open("a", encoding="utf-8") as file:
                        file.write(f"{datetime.now(UTC).isoformat()} {error}\n")
            ray.kill(ray.get_actor(name, "fmbench"))

        threading.Thread(target=watch, daemon=True).start()


def _given(options: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(options, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if value is not None}


class RayProcess:
    """A run that is a task of Ray."""

    def __init__(self, task: Any, executor: Ray) -> None:
        self.task, self.executor = task, executor

    def outcome(self) -> JobReturn | None:
        """As `executor.Process` has it."""
        import ray

        if self.task not in self.executor.ready:
            return None
        self.executor.ready.discard(self.task)
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
