"""`fmbench status`: how far the runs below some folders are, from the folders alone."""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmbench.core.console import Parser, printed, run_command, say, typed_path
from fmbench.core.errors import ConfigError, PartialResultsError
from fmbench.core.files import as_text
from fmbench.records.status import UNREADABLE, Reader, Run, Sweep, newest
from fmbench.records.status_text import Line, at_work, of_sweep

if TYPE_CHECKING:
    from rich.text import Text

PROGRAM = "fmbench status"

#: Where the newest sweep or run is looked for, in the current folder.
DEFAULT_FOLDERS = (Path("multirun"), Path("outputs"))

#: Of the document that `--json` prints.
SCHEMA = 1

#: What it says of the best trials of a search.
_OF_TRIALS = ("number", "folder", "values", "parameters")

#: Seconds between two looks, unless told; and runs that a terminal shows.
EVERY, MOST_ROWS = 2.0, 50

DESCRIPTION = """\
Show how far runs are: state, epoch, accuracy, images/s, time left. All of it is read from
their folders, here or on any machine that sees them, while they write."""

EXAMPLES = """\
examples:
  fmbench status                          the sweep, or the run, that was started last
  fmbench status multirun/mine outputs    all runs below some folders
  fmbench status --watch                  again every 2 s, until nothing is left at work
  fmbench status --json | jq '.sweeps[].counts'

states:
  running, starting    a process is at work in the run's folder; "on HOST" where that is another
                       machine, "wrote ... ago" where only its last write tells
  waiting              not begun yet
  dead                 killed: the same command goes on with it, as with "interrupted"
  unreadable           half-written, or damaged
  completed, pruned, infeasible, diverged, failed: as the record says

exit status:
  0  shown                            2  a DIR does not exist, or a wrong option
  4  something could not be read      5  it could not be printed
  130  --watch was left by Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Show how far runs are, then exit with the status that `--help` explains."""
    run_command(PROGRAM, lambda: _status(_parser().parse_intermixed_args(argv)), typed=argv is None)


def _status(arguments: argparse.Namespace) -> int:
    folders, every = _folders_and_seconds(arguments)
    if not folders:
        tops = " or ".join(map(str, DEFAULT_FOLDERS))
        return _nothing(tops, as_json=arguments.json)
    reader = Reader(folders)
    found = reader.read()
    if arguments.json:
        status = printed(PROGRAM, lambda: say(json.dumps(document(found))))
    elif not found:
        return _nothing(" or ".join(map(str, folders)), as_json=False)
    elif every is None:
        most = MOST_ROWS if sys.stdout is not None and sys.stdout.isatty() else None
        status = printed(PROGRAM, lambda: _print(_lines(found, most=most)))
    else:
        watched = _watched(reader, found, every)
        status = printed(PROGRAM, lambda: _show(watched))
        found = reader.last
    partial = any(UNREADABLE in sweep.counts or sweep.problem for sweep in found)
    return status or (PartialResultsError.exit_status if partial else 0)


def _nothing(where: str, *, as_json: bool) -> int:
    text = json.dumps(document([])) if as_json else f"No run below {where}."
    return printed(PROGRAM, lambda: say(text))


def _watched(reader: Reader, found: list[Sweep], every: float) -> Iterator[list[Sweep]]:
    """What is found, again and again until nothing is left at work."""
    yield found
    while any(sweep.at_work for sweep in found):
        time.sleep(every)
        yield (found := reader.read())


def _show(readings: Iterable[list[Sweep]]) -> None:
    """Show one reading after the other: on a terminal each in the place of the last one.

    Elsewhere the totals and the runs at work, where they have changed, and all at the end.
    """
    found: list[Sweep] = []
    if not sys.stdout.isatty():
        before: list[str] = []
        for found in readings:
            lines = [line.text for sweep in found for line in at_work(sweep)]
            if lines != before:
                say(*lines)
                sys.stdout.flush()
            before = lines
        _print(_lines(found))
        return
    from rich.console import Console, Group
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for found in readings:
            # Of each: its total, the best, headings, how many more, what is at work, a blank line.
            room = max(1, console.height // max(1, len(found)) - 6)
            live.update(Group(*_texts(_lines(found, most=room))), refresh=True)


def _print(lines: Iterable[Line]) -> None:
    """Print lines: in colours and cut to its width on a terminal, as they are elsewhere."""
    if not sys.stdout.isatty():
        say(*(line.text for line in lines))
        return
    from rich.console import Console

    console = Console()
    for text in _texts(lines):
        console.print(text, no_wrap=text.no_wrap, overflow=text.overflow)


def _texts(lines: Iterable[Line]) -> Iterator["Text"]:
    from rich.text import Text

    for text, style, cut in lines:
        yield Text(text, style, no_wrap=cut, overflow="ellipsis" if cut else "fold")


def _lines(found: Sequence[Sweep], *, most: int | None = None) -> Iterator[Line]:
    for place, sweep in enumerate(found):
        if place:
            yield Line("")
        yield from of_sweep(sweep, most=most)


def document(found: Sequence[Sweep]) -> dict[str, Any]:
    """What `--json` prints; what is not known is null."""
    return {"schema": SCHEMA, "sweeps": [_of_sweep(sweep) for sweep in found]}


def _of_sweep(sweep: Sweep) -> dict[str, Any]:
    search, trials = sweep.search, {}
    if search is not None:
        trials = {trial.number: trial for trial in search.trials}
    return {
        "folder": as_text(sweep.folder or "."),
        "at_work": sweep.at_work,
        "total": sweep.total,
        "counts": sweep.counts,
        "elsewhere": sweep.elsewhere,
        "problem": None if sweep.problem is None else as_text(sweep.problem),
        "search": None
        if search is None
        else {
            "study": search.study,
            "objectives": [asdict(objective) for objective in search.objectives],
            "best": [
                {key: getattr(trials[number], key) for key in _OF_TRIALS} for number in search.best
            ],
        },
        "runs": [_of_run(run, sweep.varying[run.folder]) for run in sweep.runs],
    }


def _of_run(run: Run, varying: Sequence[str]) -> dict[str, Any]:
    values = asdict(run)
    lock = values.pop("lock") or {}
    values |= {name: lock.get(name) for name in ("host", "process", "since")}
    return values | {
        "folder": as_text(run.folder),
        "overrides": list(run.overrides),
        "varying": list(varying),
    }


def _folders_and_seconds(arguments: argparse.Namespace) -> tuple[list[Path], float | None]:
    """The folders to read, none where there is nothing; and the seconds of `--watch`."""
    folders, every = list(arguments.folders), None
    if arguments.watch is not None:
        if arguments.json:
            raise ConfigError("--json prints one document: it does not go with --watch")
        try:
            every = float(arguments.watch)
        except ValueError:  # no number: it is the first folder
            folders.insert(0, typed_path(arguments.watch))
            every = EVERY
        if not (math.isfinite(every) and 0.1 <= every <= 86_400):
            raise ConfigError(f"--watch {arguments.watch}: seconds must be from 0.1 to 86400")
    if not folders and (last := newest(DEFAULT_FOLDERS)) is not None:
        folders = [last]
    return folders, every


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    what = (
        "run folders, sweep folders, or whatever holds them (default: what was started last below "
        "multirun or outputs)"
    )
    parser.add_argument("folders", nargs="*", type=typed_path, metavar="DIR", help=what)
    again = "show it again every so many seconds (2 unless told), until nothing is left at work"
    parser.add_argument("--watch", nargs="?", const=str(EVERY), metavar="SECONDS", help=again)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser
