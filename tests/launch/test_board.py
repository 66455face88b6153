"""The live display of several runs: on a terminal of the driver, from the runs' folders."""

import contextlib
import errno
import fcntl
import io
import json
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from types import SimpleNamespace

import pytest
from commands import CHECKOUT, TINY, records
from omegaconf import OmegaConf
from records import write

from fmbench.config import hydra_compat
from fmbench.core.console import LogStream
from fmbench.core.files import FolderLock
from fmbench.core.signals import SAVING, StopRequested
from fmbench.launch import board
from fmbench.launch.board import Board
from fmbench.launch.drive import run_all
from fmbench.launch.executor import Executor, JobStatus, Sweep
from fmbench.launch.processes import _Said


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
    with Board(
        20, lambda n: tmp_path / str(n), lambda n: f"run {n + 1}", before={"completed": 2}
    ) as shown:
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


def test_what_one_run_is_called_by_is_known_from_those_before(stderr, clock, at_work, tmp_path):
    stream = stderr()
    for number in range(2):
        at_work(number, overrides=["model=lenet", f"seed={number}"])
    with Board(2, lambda n: tmp_path / str(n)) as shown:
        shown.show([0])
        clock.now += 1
        shown.show([1])
    assert not any("model=lenet" in line for line in stream.shown if line.startswith("1 "))
    assert any(line.startswith("1 ") and line.endswith("  seed=1") for line in stream.shown)


class Elsewhere(Executor):
    """Runs elsewhere that end after so many looks, or when they are asked to."""

    def __init__(self, folder, capacity, looks):
        sweep = {"dir": str(folder), "subdir": "${hydra.job.num}"}
        config = {"hydra": {"sweep": sweep, "sweeper": {}}, "sweep": {}}
        super().__init__(Sweep(None, None, OmegaConf.create(config)), 0)
        self.capacity, self.looks, self.asked = capacity, looks, False

    def submit(self, jobs):
        for number, _ in jobs:
            left = iter(range(self.looks(number)))
            yield SimpleNamespace(
                outcome=lambda left=left: self.outcome(left), ask_to_stop=self.ask
            )

    def outcome(self, left):
        stop = StopRequested(signal.SIGINT, saved=True)
        if self.asked:
            return hydra_compat.job_return(JobStatus.FAILED, stop)
        return (
            hydra_compat.job_return(JobStatus.COMPLETED, 0.5) if next(left, None) is None else None
        )

    def ask(self):
        self.asked = True

    def wait(self, seconds):
        pass


@pytest.mark.parametrize(("capacity", "apart", "seen"), [
    (2, True, True), (None, True, True), (1, True, False), (2, False, False),
])  # fmt: skip
def test_a_sweep_shows_those_at_work_where_there_may_be_several(
    stderr, capacity, apart, seen, tmp_path
):
    stream = stderr()
    for number in range(3):  # a part of a grid, of which the first run was there
        write(tmp_path / str(number))
    executor = Elsewhere(tmp_path, capacity, lambda number: 2 * number)
    executor.apart = apart
    run_all(executor, [(1, []), (2, [])], total=3, over=[tmp_path / "0"])
    assert any(re.match("run 3 +completed", line) for line in stream.shown) == seen
    assert any(line.startswith("1 of 3 completed, ") for line in stream.shown) == seen


def test_ctrl_c_is_answered_above_the_board(stderr, capfd, tmp_path):
    stream = stderr()
    executor = Elsewhere(tmp_path, 2, lambda _: 10**9)
    handler, log = LogStream(stream), logging.getLogger("fmbench.launchers")
    log.addHandler(handler)
    log.setLevel("INFO")
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(StopRequested):
            run_all(executor, [(0, []), (1, [])])
    finally:
        log.removeHandler(handler)
        log.setLevel("NOTSET")
    assert SAVING in stream.shown
    assert SAVING not in capfd.readouterr().err  # where it would damage the picture


def test_what_processes_say_is_passed_on_as_it_comes(stderr):
    stream, said = stderr(), _Said()
    said.pass_on()
    for text in ("a line\n", "größer\n"):
        os.write(said.writer.fileno(), text.encode())
    said.pass_on()
    assert stream.getvalue() == "a line\ngrößer\n"
    stream.there = False
    os.write(said.writer.fileno(), b"nobody hears it\n")
    said.pass_on()


@contextlib.contextmanager
def on_a_terminal(folder, *arguments, results=True):
    """`fmbench -m ARGUMENTS` below a terminal of 24 lines: the process, and the terminal's end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 110, 0, 0))
    left_out = ("COLUMNS", "LINES", "FMBENCH_DATA")
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    with subprocess.Popen(
        [sys.executable, "-m", "fmbench", "-m", *TINY, *arguments, "hydra.sweep.dir=here"],
        cwd=folder, stdin=theirs, stdout=theirs if results else subprocess.DEVNULL, stderr=theirs,
        env={**inherited, "PYTHONPATH": str(CHECKOUT), "TERM": "xterm"},
    ) as child:  # fmt: skip
        os.close(theirs)
        try:
            yield child, ours
        finally:
            child.kill()


def heard(terminal, until=None):
    """What is written to a terminal until this is, or all of it."""
    said = b""
    while until is None or not re.search(until, said):
        try:
            said += os.read(terminal, 65536)
        except OSError:  # all have closed it
            break
    return said.decode()


def screen(said):
    """What stands on a terminal in the end, of lines of rich's."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", said):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part != "\r" and not part.startswith("\x1b"):
            lines[row] += part
    return [line for line in lines if line]


@pytest.mark.slow
def test_a_sweep_on_a_terminal(tmp_path):
    with on_a_terminal(tmp_path, "epochs=80", "seed=0,1,2", "sweep.jobs=2") as (child, terminal):
        said = heard(terminal)
        assert child.wait(60) == 0, said
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1
    assert re.search(r"run 1 +(starting|running) .*\n.*run 2 +(starting|running) ", said)
    # One of two that begin together may be over before the other is seen at work.
    assert re.search(r"run [123] +running +[0-9]+/80 +[0-9.]+% train +[0-9,]+ .* seed=", said)
    assert re.search(r"of 3 completed, [12] running", said)
    left = screen(said)
    # In the end there are messages alone, and no line on the progress of a run.
    assert sorted(line[:10] for line in left if line.startswith("run ")) == [
        f"run {n} of 3" for n in (1, 2, 3)
    ]
    assert sum(line.startswith("test accuracy ") for line in left) == 3
    assert not [line for line in left if line.startswith("epoch ") or "running" in line]
    assert "3 of 3 runs completed." in left


@pytest.mark.slow
def test_a_sweep_that_is_stopped_leaves_its_terminal_in_order(tmp_path):
    endless = ["epochs=1000000", "seed=0,1,2", "sweep.jobs=2"]
    with on_a_terminal(tmp_path, *endless) as (child, terminal):
        said = heard(terminal, rb"run 2 +running +[1-9]")
        child.terminate()
        said += heard(terminal)
        assert child.wait(60) == 143, said
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1
    left = screen(said)
    assert left[-1].startswith("fmbench: stopped by SIGTERM; resume with: ")
    assert not [line for line in left if re.search("of 3 completed|run [0-9] +running", line)]
    assert [record["status"] for record in records(tmp_path)] == ["interrupted"] * 2


@pytest.mark.slow
def test_a_terminal_that_goes_ends_no_sweep(tmp_path):
    given = ["epochs=200", "seed=0,1,2", "sweep.jobs=2"]
    with on_a_terminal(tmp_path, *given, results=False) as (child, terminal):
        heard(terminal, rb"run 2 +running +[1-9]")
        os.close(terminal)
        assert child.wait(100) == 0
    assert [record["status"] for record in records(tmp_path)] == ["completed"] * 3
