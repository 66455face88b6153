"""A live display of the runs of a sweep that are at work at once, on the terminal of its driver."""

import contextlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fmbench.core.console import logger
from fmbench.records.record import RUNNING
from fmbench.records.status import AT_WORK, DEAD, STARTING, STATES, Run, Sweep, read_run
from fmbench.records.status_text import Line, cells, counted, rows

log = logger(__name__)

#: Seconds from one picture to the next; and the least share of the time that reading may not take.
EVERY, _REST = 1.0, 10

#: Lines that are no run's: the headings, the total, and how many more runs there are.
_OTHERS = 4


def drawable() -> bool:
    """Whether standard error is a terminal on which lines can be drawn anew."""
    # Elsewhere what other processes write there cannot be led above the board.
    if os.name != "posix" or sys.stderr is None or not sys.stderr.isatty():
        return False
    return Console(stderr=True).is_interactive


class Board:
    """Shows a line a run at work, and the total; a context manager around a sweep.

    It reads the folders of the runs, whatever process or machine computes them. Where it cannot be
    drawn nothing is shown: the runs write lines of their own. A terminal that is gone ends no run.
    While it is shown, what is logged stands above it, and what is written to standard error.

    Args:
        total: runs of the sweep; None where it is not known.
        folder: of the run of this number, asked for once, when the run is seen at work.
        name: what the run of this number is called.
        before: how many runs had ended before this sweep began, by their states.
        shown: False: nothing is.
    """

    def __init__(
        self,
        total: int | None,
        folder: Callable[[int], Path],
        name: Callable[[int], str] = str,
        *,
        before: Mapping[str, int] | None = None,
        shown: bool = True,
    ) -> None:
        self.total, self.folder, self.name = total, folder, name
        self.ended = Counter(before)
        self.at_work: dict[int, Path] = {}
        self.seen: Run | None = None  # what one run has that all have is told by another
        self.next_look = 0.0
        self.handlers: list[tuple[logging.StreamHandler[Any], Any]] = []
        self.live: Live | None = None
        if shown and drawable():
            self.live = Live(
                console=Console(stderr=True),
                auto_refresh=False,
                transient=True,
                # Standard output holds results: where it is a file it stays one.
                redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            )

    def __enter__(self) -> Self:
        """Begin to show."""
        if self.live is not None:
            before = sys.stderr
            with self._tolerant():
                self.live.start()
                self._lead_logs(before, sys.stderr)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was: the lines of the board go."""
        self._stop()

    def show(self, numbers: Collection[int]) -> None:
        """Show the runs of these numbers, which are at work, if the last look is long enough ago.

        To be called whenever one may have begun or ended: those that are left out since are counted
        by how their records say they ended.
        """
        if self.live is None:
            return
        for number in sorted(self.at_work.keys() - {*numbers}):
            run = read_run(self.at_work[number])
            self.seen = run or self.seen
            self.ended[DEAD if run is None or run.state in AT_WORK else run.state] += 1
        self.at_work = {one: self.at_work.get(one) or self.folder(one) for one in numbers}
        start = time.monotonic()
        if start < self.next_look:
            return
        with self._tolerant():
            self.live.update(Group(*self._texts(self.live.console.height)), refresh=True)
        now = time.monotonic()
        self.next_look = now + max(EVERY, _REST * (now - start))  # a network disk may be slow

    def _texts(self, height: int) -> Iterator[Text]:
        shown = sorted(self.at_work)[: max(1, height - _OTHERS)]
        runs = [self._run(number) for number in shown]
        known = [*runs, self.seen] if self.seen else runs
        varying = Sweep("", tuple(known), self.total, driven=True).varying
        named = [
            (run, cells(run, self.name(number), varying[run.folder]))
            for number, run in zip(shown, runs, strict=True)
        ]
        lines = [*rows(named)]
        if hidden := len(self.at_work) - len(shown):
            lines.append(Line(f"and {hidden:,} more", "dim"))
        counts = self.ended + Counter({RUNNING: len(self.at_work)})
        ordered = {state: counts[state] for state in STATES}
        lines.append(Line(counted(ordered, self.total), "bold"))
        for text, style, _ in lines:
            yield Text(text, style, no_wrap=True, overflow="ellipsis")

    def _run(self, number: int) -> Run:
        folder = self.at_work[number]
        return read_run(folder) or Run(str(folder), STARTING)

    def _lead_logs(self, old: Any, new: Any) -> None:
        """Have what is logged to the terminal written above the board."""
        names = (None, *logging.root.manager.loggerDict)
        for handler in {one for name in names for one in logging.getLogger(name).handlers}:
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)
                self.handlers.append((handler, old))

    def _stop(self) -> None:
        live, self.live = self.live, None
        if live is not None:
            with contextlib.suppress(OSError):
                live.stop()
        for handler, stream in self.handlers:
            handler.setStream(stream)
        self.handlers = []

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Stop showing anything once the terminal cannot be written."""
        try:
            yield
        except OSError as error:
            self._stop()
            reason = error.strerror or error
            log.warning("standard error: cannot be written: %s; the sweep goes on", reason)
