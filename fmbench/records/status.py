"""How far runs are, from what lies in their folders: no server, no database, no torch.

It is read while runs write, or while somebody copies their folders: what is half there makes its
run `unreadable`, and costs nothing else. A folder may come from a stranger.
"""

import json
import os
import re
import statistics
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fmbench.config import schema
from fmbench.core.errors import ConfigError
from fmbench.core.files import LOCK_NAME, Lock, entries_below, lock_of, open_regular, read_regular
from fmbench.records import trials
from fmbench.records.record import (
    COMPLETED,
    DIVERGED,
    FAILED,
    HISTORY_NAME,
    INFEASIBLE,
    INTERRUPTED,
    MOST_BYTES,
    MOST_CHARACTERS,
    OLDEST,
    PRUNED,
    RESULT_NAME,
    RUNNING,
    SCHEMA,
    STATUSES,
    Texts,
    recorded_overrides,
)
from fmbench.records.trials import CLAIMS_NAME, SEARCH_NAME, Search
from fmbench.records.tuned import TUNED_NAME, Tuned, read_tuned
from fmbench.records.validation import (
    Amount,
    Count,
    Share,
    Text,
    UnreadableError,
    decode,
    one_of,
)

#: What a record does not say: the run has no record yet, its process is gone, its record is no
#: record; and in no folder at all, that a run has not begun.
STARTING, DEAD, UNREADABLE, WAITING = "starting", "dead", "unreadable", "waiting"

#: In the order in which they are counted.
STATES = (
    *(COMPLETED, RUNNING, STARTING, WAITING, PRUNED, INFEASIBLE),
    *(DIVERGED, FAILED, INTERRUPTED, DEAD, UNREADABLE),
)
AT_WORK = (RUNNING, STARTING)

#: What Hydra writes into the folder of a grid, as the last command to start it was.
PLAN_NAME = "multirun.yaml"

#: What a sweep leaves that goes on without its command: what its jobs are called, a line each.
DETACHED_NAME = ".detached"

#: A plan has 7 kilobytes; and what its overrides, parsed one by one, may have of characters.
_MOST_OF_PLAN, _MOST_TYPED = 2**17, 20_000

#: The end of a history that is read, and how many of its epochs say how long the next ones take.
_TAIL, _LAST = 4096, 5

_LONGEST_ERROR = 1_000


_NUMBER = re.compile("[0-9]{1,15}")


class _Split(msgspec.Struct):
    train: Count = 0


class _Seen(msgspec.Struct):
    """What is read of a record: decoding all of it takes ten times as long."""

    status: Annotated[str, one_of(*STATUSES)]
    model: Text
    epochs: Count
    overrides: Texts
    split: _Split
    error: str | None = None
    train_accuracy: Share | None = None
    validation_accuracy: Share | None = None
    test_accuracy: Share | None = None
    images_per_second: Amount | None = None
    stopped_epoch: Count | None = None  # where it stopped early


class _Epoch(msgspec.Struct):
    """What is read of a line of a history."""

    epoch: Annotated[int, Meta(ge=0, lt=10**9)]
    seconds: Amount | None = None
    train_accuracy: Share | None = None
    validation_accuracy: Share | None = None
    test_accuracy: Share | None = None


_DECODER = msgspec.json.Decoder(_Seen)


@dataclass(frozen=True)
class Run:
    """One run as it stands; what is not known is None."""

    folder: str
    state: str  # one of `STATES`, but for `waiting`
    model: str | None = None
    epoch: int | None = None  # epochs that ended
    epochs: int | None = None
    # After the last of them: on the validation images, or the test images where there are none.
    accuracy: float | None = None
    accuracy_of: str | None = None  # validation, test or train
    images_per_second: float | None = None
    seconds_left: float | None = None  # of training: evaluation is not counted
    seconds_idle: float | None = None  # since it last wrote, where that is all that tells
    lock: Lock | None = None  # of a run that is, or was, at work
    overrides: tuple[str, ...] = ()
    error: str | None = None  # why it failed, or cannot be read


def read_run(folder: str | Path) -> Run | None:
    """One run; None where the folder holds no record, and no process is about to write one.

    A run is at work where its record says so and its folder's lock is held. A free lock that a
    process of another machine took says nothing: the run counts as at work, and `lock.held` is
    None.
    """
    found = _looked_at(os.fspath(folder))
    if found is not None and found.state == DEAD:
        # It may have ended after its record was read, and before its lock was looked at.
        found = _looked_at(found.folder)
    return found


def _looked_at(folder: str) -> Run | None:
    lock: Lock | None = None
    try:
        seen = _seen(folder)
    except FileNotFoundError:
        lock = lock_of(folder)
        return Run(folder, STARTING, lock=lock) if lock.held else None
    except (OSError, UnreadableError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        return Run(folder, UNREADABLE, error=f"{RESULT_NAME}: {why}"[:_LONGEST_ERROR])
    last: list[_Epoch] = []
    idle = None
    if seen.status != COMPLETED:
        last, idle = _last_epochs(folder, _LAST if seen.status == RUNNING else 1)
    state, left, speed = seen.status, None, seen.images_per_second
    if state == RUNNING:
        lock = lock_of(folder)
        state = DEAD if lock.held is False else RUNNING
    known: _Seen | _Epoch = last[-1] if last and seen.status == RUNNING else seen
    seconds = [one.seconds for one in last if one.seconds]
    done = last[-1].epoch + 1 if last else 0
    if seen.status == RUNNING and seconds:
        epoch = statistics.median(seconds)
        speed = seen.split.train / epoch if seen.split.train else None
        left = max(0.0, (seen.epochs - done) * epoch - min(idle or 0.0, epoch))
    accuracy, of = _accuracy(known)
    return Run(
        folder,
        state,
        model=seen.model,
        epoch=(seen.stopped_epoch or seen.epochs) if state == COMPLETED else done,
        epochs=seen.epochs,
        accuracy=accuracy,
        accuracy_of=of,
        images_per_second=speed,
        seconds_left=left if state == RUNNING else None,
        seconds_idle=idle if lock is not None and lock.held is None else None,
        lock=lock,
        overrides=tuple(map(sys.intern, seen.overrides)),
        error=None if seen.error is None else seen.error[:_LONGEST_ERROR],
    )


def _seen(folder: str) -> _Seen:
    content = read_regular(f"{folder}/{RESULT_NAME}", MOST_BYTES[RESULT_NAME])
    seen = decode(_DECODER, content, oldest=OLDEST, newest=SCHEMA)
    if sum(map(len, seen.overrides)) > MOST_CHARACTERS:
        raise UnreadableError(f"overrides: more than {MOST_CHARACTERS:,} characters")
    seen.overrides = recorded_overrides(seen.overrides)
    return seen


def _accuracy(known: _Seen | _Epoch) -> tuple[float | None, str | None]:
    for part in ("validation", "test", "train"):
        accuracy = getattr(known, f"{part}_accuracy")
        if accuracy is not None:
            return accuracy, part
    return None, None


def _last_epochs(folder: str, most: int) -> tuple[list[_Epoch], float | None]:
    """The last epochs of a history, and the seconds since its last line was written."""
    try:
        with open_regular(f"{folder}/{HISTORY_NAME}", MOST_BYTES[HISTORY_NAME]) as file:
            status = os.fstat(file.fileno())
            start = max(0, status.st_size - _TAIL)
            file.seek(start)
            lines = file.read(_TAIL).split(b"\n")
    except OSError:
        return [], None
    epochs: list[_Epoch] = []
    for line in reversed(lines[1 if start else 0 :]):
        try:
            # Not by msgspec at once, which refuses the NaN that a loss may be.
            epochs.insert(0, msgspec.convert(json.loads(line), _Epoch))
        except (ValueError, RecursionError):  # the half of a line
            continue
        if len(epochs) == most:
            break
    return epochs, max(0.0, time.time() - status.st_mtime)


@dataclass(frozen=True)
class Sweep:
    """The runs of one sweep, or those that stand side by side in a folder."""

    folder: str
    runs: tuple[Run, ...]
    total: int | None  # of runs; None where it is not known
    driven: bool  # whether a process that starts its runs is at work
    search: Search | None = None
    elsewhere: int = 0  # runs of its study in folders of other drivers
    problem: str | None = None  # why what it says of its search cannot be read
    detached: bool = False  # whether it was left to a cluster
    tuned: Tuned | None = None  # where it compares contestants

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many runs there are of each state that any has."""
        counts = Counter(run.state for run in self.runs)
        if self.total is not None:
            counts[WAITING] = max(0, self.total - self.elsewhere - len(self.runs))
        return {state: counts[state] for state in STATES if counts[state]}

    @cached_property
    def varying(self) -> dict[str, tuple[str, ...]]:
        """For the folder of each run the overrides that the other runs do not all share."""
        # A search looks at its best run alone on the test set; threads are a run's own choice.
        left_out = {"threads", *(schema.IN_TRIALS if self.search or self.tuned else ())}
        typed = [
            {text for text in run.overrides if text.partition("=")[0] not in left_out}
            for run in self.runs
            if run.overrides
        ]
        shared = set.intersection(*typed) if len(typed) > 1 else set()
        return {
            run.folder: tuple(
                text
                for text in run.overrides
                if text not in shared and text.partition("=")[0] not in left_out
            )
            for run in self.runs
        }

    @property
    def at_work(self) -> bool:
        """Whether anything may still change by itself."""
        return self.driven or any(run.state in AT_WORK for run in self.runs) or self.queued

    @property
    def queued(self) -> bool:
        """Whether a cluster may have jobs in its queue that begin runs, or go on with them.

        Those that it starts again, after preemption or a time limit, are interrupted. What is dead
        was mostly killed for good: it keeps nobody waiting.
        """
        return self.detached and not self.counts.keys().isdisjoint((WAITING, INTERRUPTED))


@dataclass
class Reader:
    """Reads folders again and again; runs that have ended are read once.

    Args:
        folders: run folders, sweep folders, or whatever holds them.
    """

    folders: Iterable[Path]
    last: list[Sweep] = field(default_factory=list)  # what was found last
    _ended: dict[str, tuple[Any, Run]] = field(default_factory=dict)
    _plans: dict[str, tuple[Any, int | None]] = field(default_factory=dict)

    def read(self) -> list[Sweep]:
        """All sweeps, by their folders; a folder that cannot be listed counts as empty.

        Raises:
            ConfigError: a folder does not exist.
        """
        found: dict[str, set[str]] = {}  # names of files by folder
        for folder in self.folders:
            top = os.fspath(folder)
            if not os.path.isdir(top):  # noqa: PTH112 - Path.is_dir raises on too long a name
                raise ConfigError(f"{folder} is not a folder: give one that holds runs")
            for path, name in _files(top):
                found.setdefault(path, set()).add(name)
        sweeps: dict[str, list[Run]] = {
            path: [] for path, names in found.items() if _is_sweep(path, names)
        }
        of_sweeps = frozenset(sweeps)
        for path in found.keys() - of_sweeps:
            if (run := self._run(path)) is not None:
                sweeps.setdefault(_sweep_of(path, of_sweeps), []).append(run)
        made = (
            self._sweep(path, sweeps[path], found.get(path, set()))
            for path in sorted(sweeps, key=_natural)
        )
        self.last = [one for one in made if one.runs or one.driven or one.search or one.problem]
        return self.last

    def _run(self, path: str) -> Run | None:
        """A run, or what it was when it ended."""
        try:
            status = os.stat(f"{path}/{RESULT_NAME}")  # noqa: PTH116
            mark = status.st_mtime_ns, status.st_size, status.st_ino
        except OSError:
            mark = None
        known = self._ended.get(path)
        if known is not None and mark is not None and known[0] == mark:
            return known[1]
        run = read_run(path)
        if run is not None and run.state not in (*AT_WORK, DEAD, UNREADABLE):
            self._ended[path] = mark, run
        return run

    def _sweep(self, path: str, runs: list[Run], names: set[str]) -> Sweep:
        runs.sort(key=lambda run: _natural(run.folder))
        search, problem, total, elsewhere = None, None, None, 0
        tuned: Tuned | None = None
        driven = bool(names) and lock_of(path).held is True
        if SEARCH_NAME in names:
            try:
                search = Search.from_json(read_regular(f"{path}/{SEARCH_NAME}", trials.MOST_BYTES))
            except FileNotFoundError:
                pass
            except (OSError, UnreadableError) as error:
                problem = f"{SEARCH_NAME}: {getattr(error, 'strerror', None) or error}"
            else:
                total, elsewhere = _runs_of(search, runs)
        elif TUNED_NAME in names:
            try:
                tuned = read_tuned(Path(path))
                total = None if tuned is None else max(tuned.total, len(runs))
            except (OSError, UnreadableError) as error:
                problem = f"{TUNED_NAME}: {getattr(error, 'strerror', None) or error}"
        elif PLAN_NAME in names:
            total = self._planned(path)
            total = None if total is None else max(total, len(runs))
        elif not names:
            total = len(runs)
        detached = DETACHED_NAME in names
        return Sweep(path, tuple(runs), total, driven, search, elsewhere, problem, detached, tuned)

    def _planned(self, path: str) -> int | None:
        """How many runs a grid is of, by what was typed for it."""
        name = f"{path}/{PLAN_NAME}"
        try:
            status = os.stat(name)  # noqa: PTH116
            mark = status.st_mtime_ns, status.st_size
            if self._plans.get(path, (None,))[0] != mark:
                self._plans[path] = mark, _size_of_plan(read_regular(name, _MOST_OF_PLAN))
        except OSError:
            return None
        return self._plans[path][1]


def _files(top: str) -> Iterator[tuple[str, str]]:
    """The folder and the name of each file below `top`, and in it, that tells of runs."""
    names = {RESULT_NAME, LOCK_NAME, SEARCH_NAME, TUNED_NAME, PLAN_NAME, DETACHED_NAME}
    for entry in entries_below(top, lambda _error: None, without=".hydra"):
        if entry.name in names and CLAIMS_NAME not in Path(entry.path).parts:
            yield os.path.dirname(entry.path), entry.name  # noqa: PTH120


def _is_sweep(path: str, names: set[str]) -> bool:
    """Whether a folder is that of a sweep: before anything else both have a lock."""
    if RESULT_NAME in names:
        return False
    return names != {LOCK_NAME} or not os.path.isdir(f"{path}/.hydra")  # noqa: PTH112


def _sweep_of(path: str, sweeps: Set[str]) -> str:
    """The nearest folder of a sweep above a run, or else the folder that the run stands in."""
    above = parent = os.path.dirname(path)  # noqa: PTH120
    while above not in sweeps:
        above, before = os.path.dirname(above), above  # noqa: PTH120
        if above == before:
            return parent
    return above


def _runs_of(search: Search, runs: Iterable[Run]) -> tuple[int, int]:
    """How many runs a search has in all, and how many of those in folders of other drivers.

    A trial may have several, and a trial that has ended has no more than it had by then.
    """
    each = max([search.runs, *(trial.runs for trial in search.trials)])
    names = (os.path.basename(run.folder) for run in runs)  # noqa: PTH119
    there = sorted(int(name) for name in names if _NUMBER.fullmatch(name))
    left, ended, elsewhere = search.total, 0, 0
    for trial in search.trials:
        folder = trial.folder or ""
        if Path(folder).is_absolute():
            elsewhere += trial.runs
        elif trial.state == trials.RUNNING:
            continue
        elif trial.runs == 1:
            ended += 1
        elif _NUMBER.fullmatch(folder):
            first = int(folder)
            ended += bisect_left(there, first + trial.runs) - bisect_left(there, first)
        left -= 1
    return max(0, left) * each + ended + elsewhere, elsewhere


def _size_of_plan(content: bytes) -> int | None:
    import yaml

    from fmbench.config.sweep import grid_size  # imports Hydra

    try:
        # Not libyaml's, which a deeply nested text crashes.
        whole = yaml.load(content.decode(), yaml.SafeLoader)
        plan, zips = whole["hydra"], whole.get("sweep", {}).get("zip")
        typed, params = plan["overrides"]["task"], plan["sweeper"].get("params") or {}
        texts = [*(f"{key}={value}" for key, value in params.items()), *typed]
        if not all(type(text) is str for text in texts) or sum(map(len, texts)) > _MOST_TYPED:
            return None
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError, yaml.YAMLError):
        return None
    size = grid_size(texts, zips)
    return size if size is not None and size <= 2**53 else None


def _natural(path: str) -> list[tuple[int, str]]:
    """A key that sorts numbered folders by their numbers."""
    parts = Path(path).parts
    return [(int(part), "") if _NUMBER.fullmatch(part) else (-1, part) for part in parts]


def newest(tops: Iterable[Path]) -> Path | None:
    """The sweep or the single run below some folders that was started last."""
    found: list[tuple[float, str]] = []
    marks = {RESULT_NAME, LOCK_NAME, SEARCH_NAME, TUNED_NAME, PLAN_NAME, ".hydra"}
    left = [os.fspath(top) for top in tops]
    while left:
        path = left.pop()
        try:
            with os.scandir(path) as listed:
                entries = list(listed)
        except OSError:
            continue
        if any(entry.name in marks for entry in entries):
            # Whoever starts something there writes its lock file anew.
            when = [entry for entry in entries if entry.name == LOCK_NAME]
            try:
                status = when[0].stat(follow_symlinks=False) if when else os.stat(path)  # noqa: PTH116
            except OSError:
                continue
            found.append((status.st_mtime, path))
        else:
            left += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return Path(max(found)[1]) if found else None
