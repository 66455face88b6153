"""The reading of many records, and the drawing of their figures, by two processes.

The second one begins to read while the first imports pandas, and draws while the first writes the
numbers. One that dies costs time alone: the first does its work.
"""

import contextlib
import gc
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fmbench.core.console import show_as_text
from fmbench.core.machine import usable
from fmbench.records.gather import Batch, Problem, Progress, bounded, find

if TYPE_CHECKING:
    from fmbench.records.reader import Results
    from fmbench.report.benchmark import Report
    from fmbench.report.figure import Figure

#: Files that a process reads before it looks whether more are left.
PART = 250

#: Of fewer files there is no second process: they are read before it has started.
FEW = 2_000

#: The second process finds modules where the first does, and in no folder before these.
PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from fmbench.report.second import work
work(*map(int, sys.argv[2:]))
"""


class TwoProcesses:
    """The files below some folders; where they are many, a second process reads some of them.

    It takes parts from the front, the first process from the end. Each part costs a ticket, a byte
    of a pipe that both read, so that none is read twice.

    Args:
        folders: As `fmbench.records.gather.find` takes them.
        alone: Whether there is no second process, however many they are.

    Attributes:
        process: The second one, if there is one.
        tickets: The end of the pipe from which they are taken.

    Raises:
        ConfigError: A folder does not exist.
    """

    def __init__(self, folders: Sequence[Path], *, alone: bool = False) -> None:
        self.tickets, self._issue = os.pipe()
        self.process: subprocess.Popen[bytes] | None = None
        self._sending = threading.Thread()
        self._problems: list[Problem] = []
        self._parts: list[list[str]] = []
        with contextlib.ExitStack() as failed:
            failed.callback(self.close)
            found = find(folders, self._problems)
            first = list(itertools.islice(found, FEW))
            if not alone and len(first) == FEW and usable().cores > 1:
                self._start()
            paths = bounded(itertools.chain(first, found), self._problems)
            self._parts = [paths[start : start + PART] for start in range(0, len(paths), PART)]
            os.write(self._issue, bytes(len(self._parts)))  # a pipe holds 65,536
            os.close(self._issue)
            self._issue = -1
            self._send(self._parts)
            failed.pop_all()

    def _start(self) -> None:
        if sys.platform == "win32":  # which hands no pipe on by its number
            return
        arguments = [json.dumps(sys.path), str(self.tickets), str(os.getpid())]
        # Ctrl-C is for the first process, which ends the second.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process = subprocess.Popen(  # noqa: S603 - ours
                [sys.executable, "-P", "-c", PROGRAM, *arguments],
                pass_fds=[self.tickets],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError:  # for want of memory, of pipes, or of more processes
            pass
        finally:
            signal.signal(signal.SIGINT, before)

    def __enter__(self) -> Self:
        """See `close`."""
        return self

    def __exit__(self, *error: object) -> None:
        """See `close`."""
        self.close()

    def close(self) -> None:
        """End the second process, which may be at work on what nobody needs any more."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        for descriptor in {self.tickets, self._issue} - {-1}:
            os.close(descriptor)
        self.tickets = self._issue = -1

    def results(self, progress: Progress | None = None) -> "Results":
        """What the files say; `progress` is told now and then how many were read here."""
        from fmbench.records.reader import results  # imports pandas

        read: list[Batch] = []
        for part in reversed(self._parts):
            if not os.read(self.tickets, 1):
                break
            if progress is not None:
                progress(len(read) * PART, sum(map(len, self._parts)))
            read.insert(0, Batch())
            read[0].read(part)
        in_front = self._received()
        if in_front is None:
            in_front = Batch()
            for part in self._parts[: len(self._parts) - len(read)]:
                in_front.read(part)
        return results([Batch(problems=self._problems), in_front, *read])

    def draw(self, report: "Report") -> "Iterator[Figure]":
        """The figures of a report; a second process begins to draw them at once."""
        # Without what was worked out of the parts, which cannot be sent.
        parts = (report.sections, report.searches, report.comparisons)
        self._send([list(map(replace, part)) for part in parts])
        return self._drawn(report)

    def _drawn(self, report: "Report") -> "Iterator[Figure]":
        from fmbench.report.figures import figures

        drawn = self._received()
        if drawn is None:
            drawn = figures(report.sections, report.searches, report.comparisons)
        yield from drawn

    def _send(self, what: Any) -> None:
        """Send something to the second process, which may not be ready to take it."""
        if self.process is None:
            return
        pipe, content = self.process.stdin, pickle.dumps(what)
        assert pipe is not None

        def send() -> None:
            with contextlib.suppress(OSError, ValueError):  # it died
                pipe.write(content)
                pipe.flush()

        if self._sending.ident is not None:
            self._sending.join()
        self._sending = threading.Thread(target=send, daemon=True)
        try:
            self._sending.start()
        except RuntimeError:  # for want of more threads
            self._sending = threading.Thread()
            self.process.kill()

    def _received(self) -> Any:
        """What the second process gives; None where there is none, or it died."""
        if self.process is None:
            return None
        assert self.process.stdout is not None
        try:
            return pickle.load(self.process.stdout)  # noqa: S301 - of our own process
        except (EOFError, OSError, pickle.UnpicklingError):
            return None


def work(tickets: int, first: int) -> None:
    """What the second process does.

    Args:
        tickets: The file descriptor of their pipe.
        first: The number of the first process.
    """
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed is no answer
    show_as_text()
    gc.disable()  # as the first does
    # Of whatever goes wrong the first process has the same, and says it.
    with contextlib.suppress(Exception):
        batch = Batch()
        for part in pickle.load(given):  # noqa: S301 - of the first process
            if os.getppid() != first or not os.read(tickets, 1):
                break
            batch.read(part)
        pickle.dump(batch, answers)
        answers.flush()
        del batch
        # Imported while the first makes the table.
        from fmbench.report.figures import figures, style

        style.load()
        pickle.dump(list(figures(*pickle.load(given))), answers)  # noqa: S301
        answers.flush()
