"""What Slurm knows of jobs, asked from its controller: accounting (`sacct`) may be switched off."""

import re
import subprocess
import time
from collections.abc import Sequence

from hydra_plugins.fmbench_launchers._gather import exit_text

#: Seconds between two questions to the controller, and for which the answer that a job has ended
#: must stand: one that goes back into the queue has ended for a moment, and a network disk shows a
#: file late.
INTERVAL, GRACE = 2.0, 10.0

#: The states of `squeue`(1) in which nothing runs any more.
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}


class Queue:
    """The jobs of one sweep in the queue of Slurm.

    Args:
        jobs: their numbers, `12` or `12_0` of an array.
    """

    def __init__(self, jobs: Sequence[str]) -> None:
        self.asked_for = ",".join(dict.fromkeys(job.partition("_")[0] for job in jobs))
        self.ended: dict[str, float] = {}
        self.jobs = list(jobs)
        self.asked_at = float("-inf")
        self.grace = GRACE

    def has_ended(self, job: str) -> bool:
        """Whether a job has ended for good."""
        if time.monotonic() > self.asked_at + INTERVAL:
            self._ask()
            self.asked_at = time.monotonic()
        return time.monotonic() > self.ended.get(job, float("inf")) + self.grace

    def _ask(self) -> None:
        done = _run("squeue", "-h", "--array", "--states=all", "-o", "%i %T", "-j", self.asked_for)
        if done.returncode and "Invalid job id" not in done.stderr:
            return  # the controller does not answer; nothing is known
        states = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
        for job in self.jobs:
            # After some minutes a job that has ended is forgotten.
            if states.get(job, "COMPLETED").strip() in ENDED:
                self.ended.setdefault(job, time.monotonic())
            else:
                self.ended.pop(job, None)


def ending(job: str) -> str:
    """How a job ended, as far as Slurm remembers."""
    told = _run("scontrol", "show", "job", job, "--oneliner").stdout
    state = re.search(r"\bJobState=(\w+)", told)
    if state is None:
        return "unknown to Slurm by now"
    status = re.search(r"\bExitCode=(\d+):(\d+)", told)
    code, number = map(int, status.groups()) if status else (0, 0)
    if number:
        return f"{state[1]}, {exit_text(128 + number)}"
    return f"{state[1]}, {exit_text(code)}" if code else state[1]


def stop(jobs: Sequence[str]) -> None:
    """Send SIGTERM to jobs that run, with no time limit, and take the others out of the queue."""
    _run("scancel", "--quiet", "--state=PENDING", *jobs)
    _run("scancel", "--quiet", "--signal=TERM", *jobs)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
