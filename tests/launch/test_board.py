"""The live display of several runs: on a terminal of the driver, from the runs' folders."""

import errno
import io
import json
import logging
import re
import sys

import pytest
from records import write

from fmbench.core.console import LogStream
from fmbench.core.files import FolderLock
from fmbench.launch import board
from fmbench.launch.board import Board


class Terminal(io.StringIO):
    """Standard error: a terminal or a file, which may be gone."""

    def __init__(self, *, terminal=True):
        super().__init__()
        self.terminal, self.there = terminal, True

    def isatty(self):
        return self.terminal

    def flush(self):
        if not self.there:
            raise OSError(errno.EIO, "Input/output error")

    @property
    def shown(self):
        """The lines that were written, without what acts."""
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())
        return [line.rstrip() for line in re.split(r"[\r\n]+", text)]


@pytest.fixture
def stderr(monkeypatch):
    def set_up(*, terminal=True, height=24):
        monkeypatch.setattr(sys, "stderr", stream := Terminal(terminal=terminal))
        monkeypatch.setenv("LINES", str(height))
        return stream

    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("TERM", "xterm")
    return set_up


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    monkeypatch.setattr(board, "time", made := Clock())
    return made


@pytest.fixture
def at_work(tmp_path):
    """Makes the folder of a run at work, with an epoch of three behind it; keeps its lock."""
    locks = []

    def begin(number, **changes):
        folder = write(tmp_path / str(number), status="running", **changes)
        line = {"epoch": 0, "validation_accuracy": 0.5, "seconds": 2.0}
        (folder / "history.jsonl").write_text(json.dumps(line) + "\n")
        locks.append(FolderLock(folder))
        return folder

    yield begin
    for lock in locks:
        lock.release()


def test_a_line_a_run_and_the_total(stderr, clock, at_work, tmp_path):
    stream = stderr()
    for number in (3, 10):
        at_work(number, overrides=["model=lenet", f"batch_size={number}"])
    with Board(20, lambda n: tmp_path / str(n), lambda n: f"run {n + 1}", completed=2) as shown:
        shown.show([10, 3, 11])
    lines = stream.shown
    at = lines.index("2 of 20 completed, 3 running")
    # What is left goes by the clock: 2 or 4 s.
    seen = [re.split(" {2,}", re.sub("[2-4] s", "4 s", line)) for line in lines[at - 4 : at]]
    numbers = ["running", "1/3", "50.00% validation", "30,000", "4 s"]
    assert seen == [
        ["run", "state", "epoch", "accuracy", "images/s", "left"],
        ["run 4", *numbers, "batch_size=3"],
        ["run 11", *numbers, "batch_size=10"],
        ["run 12", "starting", "-", "-", "-", "-"],
    ]
    assert stream.getvalue().count("\x1b[?25h") == 1  # the cursor is back


def test_runs_that_have_ended_are_counted_between_the_pictures_too(
    stderr, clock, at_work, tmp_path
):
    stream = stderr()
    for number in range(3):
        at_work(number)
    with Board(5, lambda n: tmp_path / str(n)) as shown:
        shown.show([0, 1, 2])
        before = stream.getvalue()
        write(tmp_path / "0")
        shown.show([1, 2])
        write(tmp_path / "1", status="pruned")
        shown.show([2])
        shown.show([])  # 2 has died: its record still says `running`
        assert stream.getvalue() == before  # within the second
        clock.now += 1
        shown.show([4])
        assert "1 of 5 completed, 1 running, 1 pruned, 1 dead" in stream.shown


def test_slow_disks_are_looked_at_less_often(stderr, clock, tmp_path, monkeypatch):
    stderr()
    reads = []

    def slow(folder):
        reads.append(clock.now)
        clock.now += 3

    monkeypatch.setattr(board, "read_run", slow)
    with Board(5, lambda n: tmp_path / str(n)) as shown:
        for _ in range(60):
            shown.show([0])
            clock.now += 1
    assert reads == [100, 133]


def test_a_low_terminal_shows_as_many_as_fit(stderr, clock, tmp_path):
    stream = stderr(height=9)
    with Board(None, lambda n: tmp_path / str(n)) as shown:
        shown.show(range(30))
    lines = stream.shown
    assert "and 25 more" in lines
    assert "0 completed, 30 running" in lines
    assert len({line for line in lines if "starting" in line}) == 5


def test_what_is_logged_stands_above(stderr, clock, tmp_path):
    stream = stderr()
    handler, log = LogStream(stream), logging.getLogger("fmbench.of_a_test")
    log.addHandler(handler)
    with Board(5, lambda n: tmp_path / str(n)) as shown:
        assert handler.stream is not stream
        shown.show([0])
        log.warning("[bold]failed[/bold]: run 7")
        clock.now += 1
        shown.show([0])
    log.removeHandler(handler)
    assert handler.stream is stream
    assert sys.stderr is stream
    assert "[bold]failed[/bold]: run 7" in stream.shown


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_shown_where_there_is_no_terminal(stderr, there, tmp_path, monkeypatch):
    stream = stderr(terminal=False)
    if not there:
        monkeypatch.setattr(sys, "stderr", None)
    with Board(5, lambda n: tmp_path / str(n)) as shown:
        shown.show([0])
    assert stream.getvalue() == ""


@pytest.mark.parametrize("before", [True, False])
def test_a_terminal_that_is_gone_ends_no_sweep(stderr, clock, caplog, tmp_path, before):
    stream = stderr()
    stream.there = not before
    handler = LogStream(stream)
    logging.getLogger("fmbench.of_a_test").addHandler(handler)
    with Board(5, lambda n: tmp_path / str(n)) as shown:
        stream.there = False
        for _ in range(2):
            shown.show([0])
            clock.now += 5
    logging.getLogger("fmbench.of_a_test").removeHandler(handler)
    assert (sys.stderr, handler.stream) == (stream, stream)
    (said,) = caplog.messages
    assert said == "standard error: cannot be written: Input/output error; the sweep goes on"


def test_standard_output_stays_a_file(stderr, clock, capsys, tmp_path):
    stream = stderr()
    with Board(5, lambda n: tmp_path / str(n)) as shown:
        shown.show([0])
        sys.stdout.write("a result\n")
    assert "a result" not in stream.getvalue()
    assert capsys.readouterr().out == "a result\n"
