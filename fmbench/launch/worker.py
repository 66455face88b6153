"""A process of a sweep: does the runs that it is given, one after the other.

It listens to the process that gave it work through a pipe. Where that one is gone, however it went,
the pipe ends, and the run at work is saved and left.
"""

import contextlib
import io
import pickle
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from fmbench.config.messages import as_user_error, refusal
from fmbench.core.console import show_traceback
from fmbench.core.signals import SIGNALS, Listener, StopRequested, heeded

#: Sent in the place of a run.
STOP = b"stop"


def work(connection: Connection, *, alone: bool) -> None:
    """Do what comes through a connection until it ends; signals are to be blocked beforehand.

    Args:
        connection: brings a run, or `STOP`; takes what came of each run.
        alone: whether there are no others, with whom the terminal must be shared.
    """
    listener = _listen()
    if not alone and sys.stderr is not None:  # closed
        sys.stderr = _Shared(
            sys.stderr.buffer, sys.stderr.encoding, sys.stderr.errors, write_through=True
        )
    runs: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, runs), daemon=True).start()
    while (run := runs.get()) is not None:
        with contextlib.suppress(OSError):  # nobody is left to hear it
            connection.send_bytes(_outcome(run, listener))


def _listen() -> Listener:
    """Note a stop that is asked for between runs.

    Ctrl-C reaches every process of the terminal; it stays blocked here, since the sweep passes it
    on.
    """
    listener = Listener()
    for number in {*heeded(), signal.SIGTERM}:  # `_receive` sends that, whoever ignores it
        signal.signal(number, listener)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS) - {signal.SIGINT})
    return listener


class _Shared(io.TextIOWrapper):
    """A terminal on which others write too, so that no line may be drawn anew."""

    def isatty(self) -> bool:
        return False


def _receive(connection: Connection, runs: "SimpleQueue[bytes | None]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            message = connection.recv_bytes()
            if message == STOP:
                signal.raise_signal(signal.SIGTERM)
            else:
                runs.put(message)
    runs.put(None)
    signal.raise_signal(signal.SIGTERM)


def _outcome(run: bytes, listener: Listener) -> bytes:
    """What came of a run, pickled: its JobReturn, or what it raised."""
    import cloudpickle

    outcome = _done(run) if listener.asked is None else StopRequested(listener.asked, saved=True)
    try:
        content: bytes = cloudpickle.dumps(outcome)
        pickle.loads(content)
    except Exception as error:
        said = f"what a run gave cannot be passed on: {type(error).__name__}: {error}"
        return pickle.dumps(RuntimeError(said))
    return content


def _done(run: bytes) -> Any:
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    try:
        shared, number, overrides = pickle.loads(run)
        context, config, function, singletons = pickle.loads(shared)
        return execute_job(number, overrides, context, config, function, 0, singletons, False)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) and as_user_error(error) is None:
            show_traceback(error)  # it does not travel
        return refusal(error) or error
