import errno
import io
import re
import sys

import pytest
import torch

from fmbench.core.console import SharedStream
from fmbench.runs import progress
from fmbench.runs.progress import Display
from fmbench.training.trainer import DivergedError, Epoch, Metrics

ENDED = Epoch(
    epoch=0,
    learning_rate=0.1,
    last=False,
    train=Metrics(0.5, 0.8),
    validation=Metrics(0.6, 0.7),
    test=Metrics(0.4, 0.75),
    seconds=2.0,
    answers=None,
)


class Stream(io.StringIO):
    """Standard error: a terminal or a file, which may be gone."""

    def __init__(self, *, terminal):
        super().__init__()
        self.terminal = terminal
        self.there = True

    def isatty(self):
        return self.terminal

    def flush(self):
        if not self.there:
            raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def stderr(monkeypatch):
    def set_up(*, terminal):
        monkeypatch.setattr(sys, "stderr", stream := Stream(terminal=terminal))
        return stream

    monkeypatch.setenv("COLUMNS", "110")
    return set_up


def report(display, seen=50, loss=1.25, accuracy=0.5):
    display.report(seen, torch.tensor(loss * seen), torch.tensor(round(accuracy * seen)))


def test_the_line_of_an_epoch_has_all_that_was_measured():
    line = progress.epoch_line(ENDED, epochs=3, images=1000)
    assert line == (
        "epoch 1/3  loss 0.5000  accuracy 80.00%  validation 70.00%  test 75.00%  500 images/s"
    )


@pytest.mark.parametrize(("done", "shown"), [
    (0, ["epoch 1/2", "25%", "epoch 2/2", "75%", "loss 1.0000  accuracy 60.00%"]),
    (120, ["epoch 2/2", "75%", "loss 1.2500  accuracy 50.00%"]),  # resumed in the second epoch
])  # fmt: skip
def test_a_terminal_shows_a_bar(stderr, done, shown):
    stream = stderr(terminal=True)
    with Display(2, 100, done, tick=0.0) as display:
        report(display)
        display.bar.refresh()
        if not done:
            display.ended("the line [bold]of an epoch[/bold]")
            report(display, 40)
            report(display, 50, 1.0, 0.6)
        display.bar.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    for part in [*shown, "left"]:
        assert part in text
    assert done or ("the line [bold]of an epoch[/bold]" in text and "images/s" in text)


def test_elsewhere_there_is_a_line_an_epoch_and_now_and_then_within(stderr, monkeypatch):
    stream = stderr(terminal=False)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with Display(2, 100, tick=0.0) as display:
        report(display)
        monkeypatch.setattr(progress, "LINE_EVERY", 1e9)
        display.ended("the line")
        report(display)
    line = "epoch 1/2  50 of 100 images  loss 1.2500  accuracy 50.00%"
    assert stream.getvalue().splitlines() == [line, "the line"]


@pytest.mark.parametrize("closed", [False, True])
def test_nothing_is_shown_where_nobody_looks(capfd, monkeypatch, closed):
    if closed:
        monkeypatch.setattr(sys, "stderr", None)
    with Display(2, 100, shown=closed, tick=0.0) as display:
        report(display)
        display.ended("the line")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stream_that_is_gone_ends_no_run(stderr, caplog, terminal):
    stream = stderr(terminal=terminal)
    with Display(3, 100, tick=0.0) as display:
        report(display)
        stream.there = False
        for _ in range(2):
            display.ended("the line")
            report(display)
    (said,) = caplog.messages
    assert said.startswith("standard error: cannot be written: Input/output error")


def test_the_means_are_read_only_now_and_then(stderr, monkeypatch):
    now, reads = 0.0, []
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)

    class Sum:
        def item(self):
            reads.append(now)
            return 20.0

    display = Display(1, 100, shown=False, tick=1.0)
    for now in (0.1, 0.5, 1.2, 1.3, 2.5):  # noqa: B007 - the clock reads it
        display.report(10, Sum(), Sum())
    assert reads == [1.2, 2.5]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_run_that_diverged_is_stopped(loss):
    with pytest.raises(DivergedError, match=f"the loss is {loss}"):
        report(Display(1, 100, shown=False, tick=0.0), loss=loss)


@pytest.mark.parametrize("takes", [True, False])
def test_a_process_beside_others_draws_nothing_and_may_say_nothing(monkeypatch, takes):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", stream := SharedStream(written, "utf-8", write_through=True))
    stream.progress = takes
    with Display(2, 100, tick=0.0) as display:
        report(display)
        display.ended("epoch 1/2")
    assert written.getvalue() == (b"epoch 1/2\n" if takes else b"")
