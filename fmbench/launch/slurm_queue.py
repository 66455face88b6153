"""What Slurm knows of jobs, asked from its controller: accounting (`sacct`) may be switched off.

One controller and one shared disk serve a whole cluster. So both are asked seldom, for all jobs of
a sweep at once, and a failing controller less often.
"""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from fmbench.core.console import logger
from fmbench.launch.gather import exit_text

log = logger("fmbench.launchers")

#: Seconds between two looks into the folder of the results.
SCAN = 3.0

#: Seconds between two questions to the controller, unless told; and at most, if it is in trouble.
INTERVAL, LONGEST = 30.0, 600.0

#: Seconds after which an answer is slow, and the timeout of a command.
SLOW, TIMEOUT = 5.0, 60.0

#: Seconds for which it must stand that a job has ended without a result: one that goes back into
#: the queue has ended for a moment, and a network disk shows a file late.
GRACE = 10.0

#: Seconds between two requests to stop, and after one until it is asked what came of it.
AGAIN, SOON = 10.0, 2.0

#: The states of `squeue`(1) in which nothing runs any more.
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}


class Queue:
    """The jobs of one sweep in the queue of Slurm.

    Args:
        results: of each job, by its number, `12` or `12_0` of an array: the file that it leaves.
        interval: seconds between two questions to the controller.
    """

    def __init__(self, results: Mapping[str, Path], interval: float = INTERVAL) -> None:
        self.results = dict(results)  # that are not there yet
        self.submitted = list(dict.fromkeys(job.partition("_")[0] for job in results))
        self.interval = self.wait = interval
        self.ended: dict[str, float] = {}  # without a result, and since when
        self.endings: dict[str, str] = {}  # for good
        self.grace = GRACE
        now = time.monotonic()
        # Asked early at first: jobs may die at once.
        self.scan_at, self.ask_at, self.stop_at = now, now + min(GRACE, interval), now

    def has_result(self, job: str) -> bool:
        """Whether a job has left its result."""
        if time.monotonic() >= self.scan_at:
            self._scan()
        return job not in self.results

    def ending(self, job: str) -> str | None:
        """How a job has ended for good without a result, as far as Slurm remembers; or None."""
        if time.monotonic() >= self.ask_at:
            self._ask()
        if self._is_due(job) and job not in self.endings:
            self._give_up()
        return self.endings.get(job)

    def stop(self) -> None:
        """Send SIGTERM to jobs that run, with no time limit, and take the others out of the queue.

        May be called often; the cluster is asked now and then.
        """
        self.grace = 0  # nothing goes back into the queue now
        self.interval = self.wait = min(self.interval, AGAIN)
        if time.monotonic() >= self.stop_at:
            _run("scancel", "--quiet", "--state=PENDING", *self.submitted)
            _run("scancel", "--quiet", "--signal=TERM", *self.submitted)
            now = time.monotonic()
            self.stop_at, self.ask_at = now + AGAIN, min(self.ask_at, now + SOON)

    def _scan(self) -> None:
        for folder in {path.parent for path in self.results.values()}:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                names = {entry.name for entry in entries}
                self.results = {
                    job: path
                    for job, path in self.results.items()
                    if path.parent != folder or path.name not in names
                }
        self.scan_at = time.monotonic() + SCAN

    def _ask(self) -> None:
        began = time.monotonic()
        asked = ",".join(self.submitted)
        told = _run("squeue", "-h", "--array", "--states=all", "-o", "%i %T", "-j", asked)
        now = time.monotonic()
        self.wait = (
            self.interval
            if told is not None and now - began < SLOW
            else min(2 * self.wait, max(LONGEST, self.interval))
        )
        self.ask_at = now + self.wait
        if told is None:
            return
        lines = (line.split(maxsplit=1) for line in told.splitlines())
        states = {line[0]: line[1].strip() for line in lines if len(line) == 2}
        for job in self.results:
            # After some minutes a job that has ended is forgotten.
            if states.get(job, "COMPLETED") in ENDED:
                self.ended.setdefault(job, now)
            else:
                self.ended.pop(job, None)

    def _is_due(self, job: str) -> bool:
        return time.monotonic() >= self.ended.get(job, float("inf")) + self.grace

    def _give_up(self) -> None:
        """Settle how the jobs have ended of which that stands for long enough."""
        due = [job for job in self.ended if self._is_due(job)]
        for folder in {self.results[job].parent for job in due if job in self.results}:
            with contextlib.suppress(OSError):
                folder.chmod(folder.stat().st_mode)  # a network disk then looks again
        self._scan()
        told = [_run("scontrol", "show", "job", number, "--oneliner") for number in self.submitted]
        shown = _shown("\n".join(text for text in told if text))
        for job in due:
            state, said = shown.get(job, ("COMPLETED", "unknown to Slurm by now"))
            if job not in self.results or None in told or state not in ENDED:
                del self.ended[job]  # it has a result, it went back into the queue, or who knows
            else:
                self.endings[job] = said


def _shown(text: str) -> dict[str, tuple[str, str]]:
    """The state of each job that `scontrol show job --oneliner` shows, and how it ended."""
    found = {}
    for line in text.splitlines():
        fields = dict(reversed(re.findall(r"(?<!\S)(\w+)=(\S*)", line)))  # the first counts
        job = fields.get("JobId", "")
        if "ArrayTaskId" in fields:
            job = f"{fields.get('ArrayJobId')}_{fields['ArrayTaskId']}"
        state, status = fields.get("JobState", ""), fields.get("ExitCode", "")
        code, number = map(int, status.split(":")) if re.fullmatch(r"\d+:\d+", status) else (0, 0)
        status_text = exit_text(128 + number if number else code)
        found[job] = state, f"{state}, {status_text}" if code or number else state
    return found


def _run(*command: str) -> str | None:
    """What a command of Slurm's answers; None where it gives no answer."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("%s", error)
        return None
    if done.returncode and "Invalid job id" not in done.stderr:
        log.debug("%s: %s", command[0], done.stderr.strip())
        return None
    return done.stdout
