"""What Slurm knows of jobs, asked from its controller: accounting (`sacct`) may be switched off.

One controller and one shared disk serve a whole cluster. So both are asked seldom, for all jobs of
a sweep at once, and a failing controller less often.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from fmbench.core.console import logger
from fmbench.core.errors import StorageError
from fmbench.core.files import read_regular, remove, write_whole
from fmbench.records.status import DETACHED_NAME

log = logger("fmbench.launchers")

#: Seconds between two looks into the folder of the results.
SCAN = 3.0

#: Seconds between two questions to the controller, unless told; and at most, if it is in trouble.
INTERVAL, LONGEST = 30.0, 600.0

#: Seconds after which an answer is slow, and the timeout of a command.
SLOW, TIMEOUT = 5.0, 60.0

#: Seconds for which it must stand that a job has ended without a result: one that goes back into
#: the queue has ended until its processes are gone, for which Slurm gives them 30 s, and a network
#: disk shows a file late.
GRACE = 30.0

#: Seconds until jobs are asked about for the first time, for they may die at once.
EARLY = 10.0

#: Seconds between two requests to stop, and after one until it is asked what came of it.
AGAIN, SOON = 10.0, 2.0

#: The states of `squeue`(1) in which nothing runs any more.
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}


def note(folder: Path, jobs: Iterable[str]) -> None:
    """Keep the names of more jobs that nobody waits for: numbers of Slurm, actors of Ray."""
    names = sorted({*noted(folder), *jobs})
    write_whole(folder / DETACHED_NAME, "".join(f"{name}\n" for name in names).encode())


def noted(folder: Path) -> list[str]:
    """The names that `note` kept."""
    try:
        text = read_regular(folder / DETACHED_NAME, 100_000).decode("ascii")
    except (OSError, ValueError):
        return []
    return [name for name in text.split() if re.fullmatch(r"\d{1,20}|fmbench-[0-9a-f]{8}", name)]


def refuse_detached(folder: Path, *, asks_ray: bool = False) -> None:
    """Refuse to start a sweep beside its jobs in Slurm's queue; where they are gone it is attached.

    `asks_ray` says whether whoever starts it looks for the actors of Ray itself.

    Raises:
        StorageError: they are there, or cannot be asked for.
    """
    names = noted(folder)
    jobs = [name for name in names if name.isdecimal()]
    shows = f"fmbench status {folder} shows how far they are"
    if len(jobs) < len(names) and not asks_ray:
        raise StorageError(
            f"{folder}: runs of this sweep were left to Ray, which hydra/launcher=ray asks about "
            f"them; {shows}; where that Ray is gone remove {folder / DETACHED_NAME}"
        )
    if not jobs:
        return
    told = _run("squeue", "--noheader", "--format=%A", f"--jobs={','.join(jobs)}")
    if told is None:
        raise StorageError(
            f"{folder}: jobs of this sweep may be in Slurm's queue, which does not answer: "
            f"squeue --jobs={','.join(jobs)}; {shows}"
        )
    if told.split():
        raise StorageError(
            f"{folder}: jobs of this sweep are in Slurm's queue; {shows}, and "
            f"scancel {' '.join(jobs)} ends them"
        )
    remove(folder / DETACHED_NAME)


class Queue:
    """The jobs of one sweep in the queue of Slurm.

    Args:
        interval: seconds between two questions to the controller.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self.results: dict[str, Path] = {}  # that are not there yet
        self.submitted: list[str] = []  # arrays and single jobs that may be at work
        self.interval = self.wait = interval
        self.ended: dict[str, float] = {}  # without a result, and since when
        self.endings: dict[str, str] = {}  # for good
        self.grace = GRACE
        self.scan_at = self.ask_at = self.stop_at = time.monotonic()

    def add(self, results: Mapping[str, Path]) -> None:
        """Watch jobs that were submitted together.

        Args:
            results: of each job, by its number, `12` or `12_0` of an array: the file that it
                leaves.
        """
        at_work = {job.partition("_")[0] for job in self.results.keys() - self.endings.keys()}
        self.submitted = sorted(at_work | {job.partition("_")[0] for job in results})
        if not at_work:
            self.ask_at = time.monotonic() + min(EARLY, self.interval)
        self.results |= results

    def has_result(self, job: str) -> bool:
        """Whether a job has left its result."""
        if time.monotonic() >= self.scan_at:
            self._scan()
        return job not in self.results

    def ending(self, job: str) -> str | None:
        """How a job has ended for good without a result, as far as Slurm remembers; or None."""
        if time.monotonic() >= self.ask_at:
            self._ask()
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
        fields = "JobArrayID:50,State:30,exit_code:20"
        asked = ",".join(self.submitted)
        told = _run("squeue", "-h", "--array", "--states=all", "-O", fields, "-j", asked)
        now = time.monotonic()
        self.wait = (
            self.interval
            if told is not None and now - began < SLOW
            else min(2 * self.wait, max(LONGEST, self.interval))
        )
        self.ask_at = now + self.wait
        if told is None:
            return
        lines = (line.split() for line in told.splitlines())
        states = {line[0]: (line[1], line[2]) for line in lines if len(line) == 3}
        self._scan()
        due = []
        for job in self.results.keys() - self.endings.keys():
            # After some minutes a job that has ended is forgotten.
            if states.get(job, ("COMPLETED",))[0] not in ENDED:
                self.ended.pop(job, None)
            elif now >= self.ended.setdefault(job, now) + self.grace:
                due.append(job)
            else:
                self.ask_at = min(self.ask_at, now + self.grace)
        for folder in {self.results[job].parent for job in due}:
            with contextlib.suppress(OSError):
                folder.chmod(folder.stat().st_mode)  # a network disk then looks again
            self._scan()
        for job in due:
            if job in self.results:
                said = _how(*states[job]) if job in states else "unknown to Slurm by now"
                self.endings[job] = said


def _how(state: str, status: str) -> str:
    """`FAILED, exit status 137 (SIGKILL)`: how a job ended, by its status of wait(2)."""
    number = int(status) if status.isdecimal() else 0
    code = 128 + (number & 127) if number & 127 else number >> 8
    names = {128 + each: f" ({each.name})" for each in signal.Signals}
    return f"{state}, exit status {code}{names.get(code, '')}" if code else state


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
