"""Sweeps whose runs are processes of submitit, on this machine or on Slurm."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from fmbench.config import hydra_compat
from fmbench.core.errors import ConfigError, RunDiedError
from fmbench.core.machine import usable
from fmbench.core.signals import StopRequested
from fmbench.launch import slurm_queue
from fmbench.launch.gather import OtherProcesses, Process, Runs, as_before, gather, log


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

    if callable(handler):
        signal.signal(signal.SIGUSR2, guarded)


class SubmititLauncher(OtherProcesses):
    """What runs on this machine and on Slurm have in common."""

    packages, extra = ("submitit",), "slurm"
    cluster: str  # of submitit's executors
    own: tuple[str, ...]  # options that submitit does not know
    cores: int | None = None  # of a run for which nothing is asked; None: as Slurm has it

    def __init__(self, **params: Any) -> None:
        plain = OmegaConf.to_container(OmegaConf.create(params), resolve=True)
        assert isinstance(plain, dict)
        self.params = {str(key): value for key, value in plain.items()}

    def executor(self) -> Any:
        """Of submitit, as the options have it."""
        import submitit

        options = {
            f"{self.cluster}_{key}": value
            for key, value in self.params.items()
            if key not in self.own
        }
        at_first = (f"{self.cluster}_max_num_timeout", f"{self.cluster}_python")
        first = {key: options.pop(key) for key in at_first if key in options}
        executor = submitit.AutoExecutor(self.params["submitit_folder"], self.cluster, **first)
        executor.update_parameters(**options)
        return executor

    def runs(self, **options: Any) -> SubmititRuns:
        """What submitit is to call for each run."""
        threads = self.params.get("cpus_per_task") or self.cores
        return SubmititRuns(self.hydra_context, self.config, self.task_function, threads, **options)


class LocalLauncher(SubmititLauncher):
    """Each run a process on this machine, as many at once as there are cores for them."""

    cluster = "local"
    own = ("submitit_folder", "array_parallelism")
    cores = 1

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run them all; `gather` says what it raises."""
        each = self.params.get("cpus_per_task") or self.cores
        at_once = int(self.params.get("array_parallelism") or max(1, usable().cores // each))
        # submitit hides all GPUs from a run that asks for none; here it sees what a run without a
        # launcher would.
        asked = self.params.get("gpus_per_node") is not None
        visible = () if asked else (os.environ.get("CUDA_VISIBLE_DEVICES"),)
        executor = self.executor()
        runs = self.runs(at_once=min(at_once, len(job_overrides)), visible_gpus=visible)

        def start(place: int) -> Process:
            with as_before(signal.SIGINT):
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes by way of the sweep
                job = executor.submit(runs, initial_job_idx + place, list(job_overrides[place]))
            return LocalProcess(job)

        return gather(start, job_overrides, initial_job_idx, at_once, config=self.config)


class LocalProcess:
    """A run in a process of submitit on this machine."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def outcome(self) -> JobReturn | None:
        """As `gather.Process` has it."""
        if not self.job.done():
            return None
        if self.job.paths.result_pickle.exists():
            return _result(self.job)
        raise RunDiedError(
            f"process {self.job.job_id} ended without a result: killed, out of time or memory, or "
            f"the disk is full; its log is {self.job.paths.stderr}"
        )

    def ask_to_stop(self) -> None:
        """Have the run save itself and leave."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self.job.job_id), signal.SIGTERM)


class SlurmLauncher(SubmititLauncher):
    """Each run a job of Slurm; those of one launch are an array."""

    cluster = "slurm"
    own = ("submitit_folder", "squeue_every")

    def setup(self, **given: Any) -> None:
        """Keep what Hydra gives; ConfigError where submitit or Slurm is not here."""
        super().setup(**given)
        if None in map(shutil.which, ("sbatch", "srun", "squeue")):
            raise ConfigError(
                "hydra/launcher=submitit_slurm: Slurm is not here (sbatch, srun, squeue); "
                "hydra/launcher=submitit_local starts the same runs on this machine"
            )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run them all; `gather` says what it raises. ConfigError: Slurm does not take the jobs."""
        import submitit

        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        try:
            squeue_every = max(1.0, float(self.params["squeue_every"] or slurm_queue.INTERVAL))
            jobs = self.executor().map_array(self.runs(), numbers, map(list, job_overrides))
        except (RuntimeError, ValueError, submitit.core.utils.FailedJobError) as error:
            words = " ".join(str(error).split())
            raise ConfigError(f"hydra/launcher=submitit_slurm: {words}") from error
        log.info("submitted to Slurm: %s", ", ".join(job.job_id for job in jobs))
        results = {job.job_id: job.paths.result_pickle for job in jobs}
        queue = slurm_queue.Queue(results, squeue_every)
        return gather(
            lambda place: SlurmProcess(jobs[place], queue),
            job_overrides,
            initial_job_idx,
            config=self.config,
        )


class SlurmProcess:
    """A run that is a job of Slurm."""

    def __init__(self, job: Any, queue: slurm_queue.Queue) -> None:
        self.job = job
        self.queue = queue

    def outcome(self) -> JobReturn | None:
        """As `gather.Process` has it."""
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
