"""Sweeps whose runs are jobs of Slurm, submitted by submitit."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from fmbench.config import hydra_compat
from fmbench.config.messages import as_user_error, raised_by
from fmbench.core.console import complain
from fmbench.core.errors import ConfigError, RunDiedError
from fmbench.core.signals import StopRequested
from fmbench.launch import slurm_queue
from fmbench.launch.executor import Executor, Job, Process, Runs, Sweep, Worker, log


class SubmititRuns(Runs):
    """The runs of a launch as submitit calls them; asks it to requeue those that may resume."""

    def __call__(self, number: int, overrides: Sequence[str], job_id: str = "") -> JobReturn:
        """As `Runs` has it, with the job's id of submitit."""
        import submitit

        job = submitit.JobEnvironment()
        _guard_requeue(signal.getsignal(signal.SIGUSR2))
        returned = super().__call__(number, overrides, job.job_id)
        stop = hydra_compat.value(returned)
        cancelled = isinstance(stop, StopRequested) and stop.number == signal.SIGTERM
        if cancelled and job.cluster == "slurm":
            # Or preempted and soon to be started again: Slurm knows which.
            sys.exit(stop.exit_status)
        return returned

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit starts when a job that is out of time goes back into the queue."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)


@dataclass
class SubmititWorker:
    """A worker as submitit calls it; a job that is out of time goes back into the queue."""

    worker: Worker
    runs: SubmititRuns

    def __call__(self, place: int) -> None:
        """Work; SystemExit where Slurm cancels the job, or soon starts it again."""
        del place  # of the array
        self.runs.begin()
        _guard_requeue(signal.getsignal(signal.SIGUSR2))
        error = raised_by(lambda: self.worker(self.runs))
        if isinstance(error, StopRequested):
            sys.exit(error.exit_status)
        if error is not None:
            known = as_user_error(error)
            if known is None:
                raise error
            complain("fmbench", str(known))
            sys.exit(known.exit_status)

    checkpoint = SubmititRuns.checkpoint


def _guard_requeue(handler: Any) -> None:
    """Let submitit's handler of SIGUSR2, which requeues a job, fail without harm."""
    import submitit

    def guarded(number: int, frame: Any) -> None:
        try:
            handler(number, frame)
        except submitit.core.utils.UncompletedJobError:
            pass  # out of time for good; the run says that it was saved
        except subprocess.SubprocessError:
            # `scontrol` was ended together with the job that it put back into the queue, or got no
            # answer in time. Slurm knows what became of the job.
            sys.exit(128 + number)

    guarded.is_guarded = True  # type: ignore[attr-defined]
    if callable(handler) and not hasattr(handler, "is_guarded"):
        signal.signal(signal.SIGUSR2, guarded)


class Slurm(Executor):
    """Each run a job of Slurm; those that are submitted together are an array.

    Args:
        params: of submitit's executor, `submitit_folder` and `squeue_every`.
    """

    packages, extra = ("submitit",), "slurm"

    def __init__(self, sweep: Sweep, at_once: int, **params: Any) -> None:
        super().__init__(sweep, at_once)
        plain = OmegaConf.to_container(OmegaConf.create(params), resolve=True)
        assert isinstance(plain, dict)
        self.params = {str(key): value for key, value in plain.items()}
        if None in map(shutil.which, ("sbatch", "srun", "squeue")):
            raise ConfigError(
                "hydra/launcher=submitit_slurm: Slurm is not here (sbatch, srun, squeue); "
                "hydra/launcher=processes starts the same runs on this machine"
            )
        self.queue = slurm_queue.Queue(
            max(1.0, float(self.params.get("squeue_every") or slurm_queue.INTERVAL))
        )
        threads = self.params.get("cpus_per_task")
        self.call = SubmititRuns(sweep, threads)

    @cached_property
    def executor(self) -> Any:
        """Of submitit, as the options have it."""
        import submitit

        own = ("submitit_folder", "squeue_every")
        options = {f"slurm_{key}": value for key, value in self.params.items() if key not in own}
        at_first = ("slurm_max_num_timeout", "slurm_python")
        first = {key: options.pop(key) for key in at_first if key in options}
        executor = submitit.AutoExecutor(self.params["submitit_folder"], "slurm", **first)
        executor.update_parameters(**options)
        return executor

    def submit(self, jobs: Sequence[Job]) -> Sequence[Process]:
        """Submit runs; ConfigError where Slurm does not take them."""
        numbers, overrides = zip(*jobs, strict=True)
        submitted = self._submitted(self.call, numbers, map(list, overrides))
        self.queue.add({job.job_id: job.paths.result_pickle for job in submitted})
        return [SlurmProcess(job, self.queue) for job in submitted]

    @property
    def detachable(self) -> bool:
        """Slurm needs no driver."""
        return True

    def leave(self, jobs: Sequence[Job]) -> None:
        """Submit runs that nobody waits for."""
        numbers, overrides = zip(*jobs, strict=True)
        self._note(self._submitted(self.call, numbers, map(list, overrides)))

    def leave_workers(self, worker: Worker, count: int) -> None:
        """Submit workers that nobody waits for."""
        self._note(self._submitted(SubmititWorker(worker, self.call), range(count)))

    def _note(self, jobs: Sequence[Any]) -> None:
        """Keep their numbers, so that the sweep is not started again beside them."""
        numbers = {job.job_id.partition("_")[0] for job in jobs}
        slurm_queue.note(Path(self.sweep.config.hydra.sweep.dir), numbers)

    def _submitted(self, call: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        """Jobs of one array."""
        import submitit

        try:
            jobs: list[Any] = self.executor.map_array(call, *arguments)
        except (RuntimeError, ValueError, submitit.core.utils.FailedJobError) as error:
            words = " ".join(str(error).split())
            raise ConfigError(f"hydra/launcher=submitit_slurm: {words}") from error
        log.info("submitted to Slurm: %s", ", ".join(job.job_id for job in jobs))
        return jobs


class SlurmProcess:
    """A run that is a job of Slurm."""

    def __init__(self, job: Any, queue: slurm_queue.Queue) -> None:
        self.job = job
        self.queue = queue

    def outcome(self) -> JobReturn | None:
        """As `executor.Process` has it."""
        if self.queue.has_result(self.job.job_id):
            return _result(self.job)
        ending = self.queue.ending(self.job.job_id)
        if ending is None:
            return None
        raise RunDiedError(
            f"Slurm job {self.job.job_id} ended without a result: {ending}; its log is "
            f"{self.job.paths.stderr}"
        )

    def ask_to_stop(self) -> None:
        """Have the run save itself and leave, and with it all runs of the launch."""
        self.queue.stop()


def _result(job: Any) -> JobReturn:
    """What a job of submitit left; RunDiedError where that is an error, or cannot be read."""
    try:
        (result,) = job.results()
    except Exception as error:
        raise RunDiedError(f"its result cannot be read; its log is {job.paths.stderr}") from error
    assert isinstance(result, JobReturn)
    return result
