"""A second process beside a report of many records: it reads some, and draws the figures.

The first imports pandas meanwhile, reads the others, makes the table and writes the numbers. A
second one that dies costs time alone: the first does its work.
"""

import contextlib
import gc
import itertools
import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmbench.core.machine import usable
from fmbench.records.gather import Batch, Problem, Progress, bounded, find

if TYPE_CHECKING:
    from fmbench.records.reader import Results
    from fmbench.report.benchmark import Report
    from fmbench.report.figure import Figure

#: Files that a process reads before it looks whether more are left.
PART = 250

#: So many files are read before a process has started.
FEW = 2_000


class Aside:
    """The files below some folders; and where they are many, a second process of the report.

    Of the files it takes parts from the front, the first process from the back, as long as there
    are tickets. `alone` is for programs that import this: a second process would import theirs.

    Raises:
        ConfigError: A folder does not exist.
    """

    def __init__(self, folders: Sequence[Path], *, alone: bool) -> None:
        problems: list[Problem] = []
        found = find(folders, problems)
        first = list(itertools.islice(found, FEW))
        self.second: Connection | None = None
        self.tickets: Any = threading.Semaphore(0)
        if not alone and len(first) == FEW and usable().cores > 1:
            self.second, self.tickets = _started() or (None, self.tickets)
        paths = bounded(itertools.chain(first, found), problems)
        self.found = Batch(problems=problems)
        self.parts = [paths[start : start + PART] for start in range(0, len(paths), PART)]
        for _ in self.parts:
            self.tickets.release()
        # The second process takes them when it is there.
        self.telling = threading.Thread(target=self._send, args=(self.parts,), daemon=True)
        self.telling.start()

    def results(self, progress: Progress | None = None) -> "Results":
        """What the files say; `progress` is told now and then how many were read here."""
        from fmbench.records.reader import results  # imports pandas

        mine: list[Batch] = []
        for part in reversed(self.parts):
            if not self.tickets.acquire(False):
                break
            if progress is not None:
                progress(len(mine) * PART, len(self.parts) * PART)
            mine.insert(0, Batch())
            mine[0].read(part)
        others = self._received()
        if others is None:
            others = Batch()
            for part in self.parts[: len(self.parts) - len(mine)]:
                others.read(part)
        return results([self.found, others, *mine])

    def draw(self, report: "Report") -> "Iterator[Figure]":
        """The figures of a report; a second process begins to draw them at once."""
        self.telling.join()
        # Without what was worked out of them, which cannot be sent.
        parts = (report.sections, report.searches, report.comparisons)
        self._send([list(map(replace, of)) for of in parts])
        return self._drawn(report)

    def _drawn(self, report: "Report") -> "Iterator[Figure]":
        from fmbench.report.figures import figures

        drawn = self._received()
        if drawn is None:
            drawn = figures(report.sections, report.searches, report.comparisons)
        yield from drawn

    def _send(self, what: Any) -> None:
        if self.second is not None:
            with contextlib.suppress(OSError):  # it died
                self.second.send(what)

    def _received(self) -> Any:
        """What the second process has to say; None where there is none, or it died."""
        try:
            return None if self.second is None else self.second.recv()
        except (EOFError, OSError):
            self.second = None
            return None


def _started() -> tuple[Connection, Any] | None:
    """A second process, and its tickets; None where the system has no room for it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    # Ctrl-C is for the first, which ends it.
    heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        tickets = context.Semaphore(0)
        context.Process(target=_work, args=(there, tickets), daemon=True).start()
    except OSError:
        return None
    finally:
        signal.signal(signal.SIGINT, heeded)
        there.close()
    return here, tickets


def _work(first: Connection, tickets: Any) -> None:
    """What the second process does."""
    gc.disable()  # as the first does
    with contextlib.suppress(EOFError, OSError):  # the first has ended
        batch = Batch()
        for part in first.recv():
            if not tickets.acquire(False):
                break
            batch.read(part)
        first.send(batch)
        del batch
        # Imported while the first makes the table.
        from fmbench.report.figures import figures, style

        style.load()
        first.send(list(figures(*first.recv())))
