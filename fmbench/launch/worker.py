"""A process of a sweep: computes the runs that it is given, one after the other.

It listens to the process that gave it work through a pipe. When that process is gone, however it
ended, the pipe ends, and the run at work is saved and left.
"""

import contextlib
import io
import pickle
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

from fmbench.core.signals import SIGNALS, Listener, StopRequested, heeded
from fmbench.launch.gather import failed

#: Sent in the place of a run.
STOP = b"stop"


def work(connection: Connection, *, alone: bool) -> None:
    """Compute runs from a connection until it closes; the caller blocks signals.

    Args:
        connection: brings a run, or `STOP`; takes the result of each run.
        alone: whether there are no others, with whom the terminal must be shared.
    """
    # Notes a stop that is asked for between runs. Ctrl-C reaches every process of the terminal; it
    # stays blocked here, since the sweep passes it on.
    listener = Listener()
    for number in {*heeded(), signal.SIGTERM}:  # `_receive` sends that, whoever ignores it
        signal.signal(number, listener)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS) - {signal.SIGINT})
    if not alone and sys.stderr is not None:  # closed
        sys.stderr = _Shared(
            sys.stderr.buffer, sys.stderr.encoding, sys.stderr.errors, write_through=True
        )
    runs: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, runs), daemon=True).start()
    while (run := runs.get()) is not None:
        with contextlib.suppress(OSError):  # nobody is left to hear it
            connection.send_bytes(outcome(run, listener))


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


def outcome(run: bytes, listener: Listener) -> bytes:
    """The JobReturn of a run, pickled."""
    import cloudpickle

    try:
        shared, number, overrides = pickle.loads(run)
        if listener.asked is not None:
            stop = StopRequested(listener.asked, saved=True)
            return cloudpickle.dumps(failed(overrides, stop))  # type: ignore[no-any-return]
        content: bytes = cloudpickle.dumps(pickle.loads(shared)(number, overrides))
        pickle.loads(content)
    except Exception as error:
        said = f"what a run gave cannot be passed on: {type(error).__name__}: {error}"
        return pickle.dumps(failed((), RuntimeError(said)))
    return content
