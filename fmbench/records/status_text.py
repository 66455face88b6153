"""How far runs are, as lines of text: for `fmbench status`, and while a sweep computes several."""

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fmbench.core.console import aligned
from fmbench.core.errors import one_line
from fmbench.records.record import (
    COMPLETED,
    DIVERGED,
    FAILED,
    INTERRUPTED,
    PRUNED,
    RUNNING,
)
from fmbench.records.status import AT_WORK, DEAD, STARTING, UNREADABLE, WAITING, Run, Sweep
from fmbench.records.trials import Search

#: How the lines of each state look in a terminal, as rich has it.
STYLES = {
    RUNNING: "bold",
    STARTING: "bold",
    COMPLETED: "green",
    PRUNED: "dim",
    **dict.fromkeys((DEAD, DIVERGED, FAILED, UNREADABLE), "red"),
    INTERRUPTED: "yellow",
}

_MISSING = "-"
_HEADINGS = ("run", "state", "epoch", "accuracy", "images/s", "left", "")
_RIGHT = (False, False, True, True, True, True, False)

#: Of what is behind the numbers of a run: what sets it apart, and why it failed.
_LONGEST = 200

#: Which runs are shown first where not all fit.
_URGENT = (*AT_WORK, DEAD, FAILED, DIVERGED, UNREADABLE, INTERRUPTED)

#: A drawn number at the end of an override, of more digits than tell runs apart.
_DIGITS = re.compile(r"(?<==)-?[0-9]+\.[0-9]{5,20}(e-?[0-9]{1,3})?\Z")


class Line(NamedTuple):
    """A line, how it looks in a terminal, and whether it is cut to its width."""

    text: str
    style: str = ""
    cut: bool = False


def duration(seconds: float) -> str:
    """A time as a person says it: 45 s, 12 min, 5.2 h, 3.1 d."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"


def cells(run: Run, name: str, varying: Sequence[str] = ()) -> list[str]:
    """The cells of a run's line; none of them acts on a terminal."""
    accuracy = _MISSING if run.accuracy is None else f"{run.accuracy:.2%} {run.accuracy_of}"
    epoch = _MISSING if run.epochs is None else f"{run.epoch:,}/{run.epochs:,}"
    speed = _MISSING if run.images_per_second is None else f"{run.images_per_second:,.0f}"
    left = _MISSING if run.seconds_left is None else duration(run.seconds_left)
    typed = " ".join(_DIGITS.sub(lambda found: f"{float(found[0]):.4g}", text) for text in varying)
    last = ": ".join(filter(None, (typed, run.error)))
    texts = (name, _state(run), epoch, accuracy, speed, left, last)
    return [one_line(text, _LONGEST) for text in texts]


def _state(run: Run) -> str:
    """The state, and on which machine where that is another one."""
    lock = run.lock
    if run.state not in AT_WORK or lock is None or lock.host in (None, socket.gethostname()):
        return run.state
    said = f"{run.state} on {lock.host}"
    if lock.held is None and run.seconds_idle is not None:
        said += f" (wrote {duration(run.seconds_idle)} ago)"
    return said


def rows(lines: Sequence[tuple[Run, Sequence[str]]], *, headings: bool = True) -> Iterator[Line]:
    """The lines of runs, given with their cells, below each other."""
    texts = [*([_HEADINGS] if headings else []), *(cells for _, cells in lines)]
    styles = [*(["bold"] if headings else []), *(STYLES.get(run.state, "") for run, _ in lines)]
    for text, style in zip(aligned(texts, _RIGHT), styles, strict=True):
        yield Line(text, style, cut=True)


def at_work(sweep: Sweep) -> Iterator[Line]:
    """The total of a sweep, and the lines of its runs at work."""
    yield heading(sweep)
    runs = [run for run in sweep.runs if run.state in AT_WORK]
    yield from rows([(run, _cells(sweep, run)) for run in runs], headings=False)


def of_sweep(sweep: Sweep, *, most: int | None = None) -> Iterator[Line]:
    """All lines of a sweep, with those of at most so many runs: of those at work first."""
    runs = list(sweep.runs)
    if most is not None and len(runs) > most:
        urgent = sorted(runs, key=lambda run: (run.state not in AT_WORK, run.state not in _URGENT))
        kept = {run.folder for run in urgent[:most]}
        runs = [run for run in runs if run.folder in kept]
    yield heading(sweep)
    if sweep.search is not None and (found := best(sweep.search)):
        yield Line(one_line(found))
    for place, block in enumerate(sweep.tuned.blocks if sweep.tuned else (), 1):
        said = best(block.search) if block.search else None
        if sweep.tuned and said:
            name = sweep.tuned.contestants[block.contestant].label
            yield Line(one_line(f"search {place}, {name}: {said}", _LONGEST))
    if sweep.problem:
        yield Line(one_line(sweep.problem), STYLES[UNREADABLE])
    if runs:
        yield from rows([(run, _cells(sweep, run)) for run in runs])
    if hidden := len(sweep.runs) - len(runs):
        yield Line(f"and {hidden:,} more", "dim")
    if sweep.queued and not sweep.driven and not sweep.counts.keys() & AT_WORK:
        yield Line(
            "its jobs may wait in the cluster's queue; where they are gone, the command that "
            "began it goes on with it",
            "yellow",
        )
    if not sweep.at_work and {DEAD, INTERRUPTED, WAITING} & sweep.counts.keys():
        yield Line("nothing is at work there; the command that began it goes on with it", "yellow")


def _cells(sweep: Sweep, run: Run) -> list[str]:
    name = os.path.relpath(run.folder, sweep.folder or ".")
    return cells(run, name, sweep.varying[run.folder])


def heading(sweep: Sweep) -> Line:
    """The folder of a sweep and its total."""
    return Line(one_line(f"{sweep.folder or '.'}: {total(sweep)}"), "bold")


def total(sweep: Sweep) -> str:
    """How many runs have completed, and what the others do: `3 of 8 completed, 2 running`."""
    said = counted(sweep.counts, sweep.total)
    return f"{said}, {sweep.elsewhere:,} in other folders" if sweep.elsewhere else said


def counted(counts: Mapping[str, int], of: int | None) -> str:
    """The same, of so many runs; None where that is not known."""
    left = dict(counts)
    done, among = left.pop(COMPLETED, 0), "" if of is None else f" of {of:,}"
    others = [f"{number:,} {state}" for state, number in left.items() if number]
    return ", ".join([f"{done:,}{among} completed", *others])


def best(search: Search) -> str | None:
    """The best trial of a search so far, or how many there are; None where none has completed."""
    if not search.best:
        return None
    if len(search.objectives) > 1:
        names = ", ".join(objective.name for objective in search.objectives)
        return f"best so far: {len(search.best):,} trials, none better in all of {names}"
    (trial,) = (one for one in search.trials if one.number == search.best[0])
    assert trial.values is not None
    where = f"trial {trial.number}"
    if trial.folder != str(trial.number):
        where += f" in {trial.folder}"
    if trial.runs > 1:
        where += f", the mean of {trial.runs}"
    tried = " ".join(f"{key}={_plain(value)}" for key, value in trial.parameters.items())
    return f"best so far: {search.objectives[0].name} {trial.values[0]:.4g} of {where} ({tried})"


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
