import io
import re

import pytest
import torch
from rich.console import Console

from fmbench.runs import progress
from fmbench.training.trainer import DivergedError, Epoch, Metrics

ENDED = Epoch(0, 0.1, Metrics(0.5, 0.8), Metrics(0.6, 0.7), Metrics(0.4, 0.75), 2.0, None)


def test_epoch_line_has_all_that_was_measured():
    line = progress.epoch_line(ENDED, epochs=3, images=1000)
    assert line.split("  ") == [
        "epoch 1/3",
        "loss 0.5000",
        "accuracy 80.00%",
        "validation 70.00%",
        "test 75.00%",
        "500 images/s",
    ]


def test_live_display_shows_epoch_loss_accuracy_speed_and_time_left():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110, color_system=None)
    with progress.LiveDisplay(epochs=2, images=100, console=console) as shown:
        shown.within(50, 1.25, 0.5)
        shown.progress.refresh()
        shown.ended(ENDED, "the line [bold]of an epoch[/bold]")
        shown.within(50, 1.0, 0.6)
        shown.progress.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "epoch 1/2" in text
    assert "25%" in text
    assert "loss 1.2500  accuracy 50.00%" in text
    assert "images/s" in text
    assert "left" in text
    assert "the line [bold]of an epoch[/bold]" in text
    assert "epoch 2/2" in text
    assert "75%" in text


def test_plain_display_prints_an_epoch_and_now_and_then_within(capsys):
    with progress.PlainDisplay(epochs=2, images=100, seconds_between=0.0) as shown:
        shown.within(50, 1.25, 0.5)
        shown.ended(ENDED, "the line")
        shown.seconds_between = 1e9
        shown.within(50, 1.25, 0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "epoch 1/2  50 of 100 images  loss 1.2500  accuracy 50.00%",
        "the line",
    ]


def test_plain_base_is_silent(capsys):
    with progress.Display() as shown:
        shown.within(50, 1.25, 0.5)
        shown.ended(ENDED, "the line")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("terminal", "kind"), [(True, progress.LiveDisplay), (False, progress.PlainDisplay)]
)
def test_display_depends_on_the_terminal(monkeypatch, terminal, kind):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert isinstance(progress.display_for(2, 100).shown, kind)


class Seen(progress.Display):
    def __init__(self):
        self.calls = []

    def within(self, images, loss, accuracy):
        self.calls.append((images, loss, accuracy))


def test_ticker_reads_the_sums_only_now_and_then(monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    seen = Seen()
    ticker = progress.Ticker(seen, seconds_between=1.0)
    for now in (0.1, 0.5, 1.2, 1.3, 2.5):  # noqa: B007 - the clock reads it
        ticker(10, torch.tensor(20.0), torch.tensor(5))
    assert seen.calls == [(10, 2.0, 0.5)] * 2


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_ticker_stops_a_run_that_diverged(loss):
    ticker = progress.Ticker(Seen(), seconds_between=0.0)
    with pytest.raises(DivergedError):
        ticker(10, torch.tensor(loss), torch.tensor(5))
