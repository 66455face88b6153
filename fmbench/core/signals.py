"""Requests to stop: Ctrl-C, preemption by a scheduler, a time limit.

A run continues to a point where it can be saved, is saved and ends. Asked from the keyboard a
second time, it ends at once.
"""

import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

#: What asks: Ctrl-C, SIGTERM (an end that is announced), SIGHUP (the terminal or the connection is
#: gone), SIGUSR1 and SIGUSR2 (batch scripts, Slurm and submitit: time is running out). Not every
#: system has all of them.
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)

#: What is said after the first Ctrl-C.
SAVING = "saving; Ctrl-C again stops at once"


def said_of(number: int) -> str:
    """How a program ended by a signal has stopped, in words."""
    if number == signal.SIGINT:
        return "stopped from the keyboard"
    return f"stopped by {signal.Signals(number).name}"


class StopRequested(KeyboardInterrupt):
    """A run has stopped on request, by a signal; handlers of errors must not catch it.

    Where it is `saved` the run can resume where it stopped.
    """

    folder: Path | None = None  # of the run, once it is known
    again: tuple[str, ...] = ()  # overrides that the resuming command needs, typed or not
    unrecorded: str | None = None  # why the record could not be written

    def __init__(self, number: int, *, saved: bool) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.saved = saved

    def __reduce__(self) -> tuple[Any, ...]:
        """Without what others hang on it: Hydra does, a `JobReturn` that holds it, without end."""
        own = {"folder": self.folder, "unrecorded": self.unrecorded, "again": self.again}
        return partial(StopRequested, saved=self.saved), (self.number,), own

    @property
    def exit_status(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + self.number


class Listener:
    """Notes that a stop was asked for."""

    def __init__(self) -> None:
        self.asked: int | None = None  # by this signal
        self.waits = True
        self.speaks = True  # not where a line would damage what is drawn

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal raise StopRequested in the block: there is nothing yet to be saved."""
        self.waits = False
        try:
            yield
        finally:
            self.waits = True

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: note it; the second Ctrl-C stops at once."""
        if not self.waits:
            self.asked = number
            raise StopRequested(number, saved=False)
        if number == signal.SIGINT and self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT and self.asked is None and self.speaks:
            with contextlib.suppress(OSError):
                os.write(2, f"\n{SAVING}\n".encode())
        self.asked = number


@contextlib.contextmanager
def listening(*, pass_on: bool = False) -> Iterator[Listener]:
    """Note signals rather than obey them, and hand the last one on when the block ends in a stop.

    With `pass_on` also a signal that came too late to stop the block: the sweep around it stops.
    What a listener around this one has heard by now is heard here too.

    A signal that is ignored stays so, as below `nohup`. Handlers of another package (submitit puts
    a job back into the queue) are called once the run is saved. In a thread other than the main one
    nothing is changed, since signals arrive in the main one.
    """
    listener = Listener()
    if threading.current_thread() is not threading.main_thread():
        yield listener
        return
    before: dict[int, Any] = {number: signal.signal(number, listener) for number in heeded()}
    for outer in before.values():
        if isinstance(outer, Listener) and listener.asked is None:
            listener.asked = outer.asked
    try:
        yield listener
    except StopRequested as stop:
        _restore(before)
        handler = before.get(stop.number)
        if callable(handler) and handler not in (signal.default_int_handler, _stop):
            handler(stop.number, None)
        raise
    finally:
        _restore(before)
    if pass_on and listener.asked is not None:
        signal.raise_signal(listener.asked)


def heeded() -> list[int]:
    """Those of `SIGNALS` that this process does not ignore."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def stop_in_order() -> None:
    """Let every signal that asks for a stop end the command as Ctrl-C does: by an exception.

    A signal that the program was started to ignore, or that somebody else handles, stays theirs.
    """
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    frames = (each for each, _ in traceback.walk_stack(frame))
    if any(each.f_code.co_filename.startswith("<frozen importlib") for each in frames):
        # An exception in the middle of PyTorch's import aborts the process. Nothing is open there.
        with contextlib.suppress(OSError):
            os.write(2, f"fmbench: {said_of(number)}\n".encode())
        os._exit(128 + number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise StopRequested(number, saved=False)


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        if handler is not None:  # None: set by something that is not Python
            signal.signal(number, handler)
