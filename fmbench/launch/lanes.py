"""The processes of a sweep, seen from the one that gives them work.

A lane is one process at a time, so that one that dies takes a single run with it.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection, wait
from pathlib import Path

from hydra.core.utils import JobReturn
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.backend.process import LokyProcess

from fmbench.core import machine
from fmbench.core.errors import RunDiedError
from fmbench.core.signals import SIGNALS
from fmbench.launch.worker import STOP, work

#: Seconds that a process has to leave in when there is nothing left to do.
_PATIENCE = 10.0


class Lane:
    """One process, replaced by a fresh one where it has died.

    Args:
        environment: variables of the process that differ from those here.
        alone: whether it is the only lane.

    Attributes:
        busy: whether a run is at work.
    """

    def __init__(self, environment: dict[str, str], *, alone: bool) -> None:
        self.environment = environment
        self.alone = alone
        self.busy = False
        self.process: LokyProcess | None = None
        self.connection: Connection | None = None

    def start(self) -> None:
        """Have a process, unless there is one."""
        if self.process is not None and self.process.exitcode is None:
            return
        self.close()
        self.connection, theirs = multiprocessing.Pipe()
        with _signals_blocked(), contextlib.ExitStack() as stack:
            self.process = LokyProcess(
                target=work, args=(theirs,), kwargs={"alone": self.alone}, env=self.environment
            )
            # loky flushes both streams, also where they are closed and Python has none.
            null = stack.enter_context(Path(os.devnull).open("w", encoding="ascii"))
            if sys.stdout is None:
                stack.enter_context(contextlib.redirect_stdout(null))
            if sys.stderr is None:
                stack.enter_context(contextlib.redirect_stderr(null))
            self.process.start()
        theirs.close()

    def give(self, run: bytes) -> None:
        """Have a run done."""
        self.start()
        self.busy = True
        self._send(run)

    def ask_to_stop(self) -> None:
        """Have the run at work save itself and leave."""
        self._send(STOP)

    def result(self) -> JobReturn:
        """The result of the run at work; waits for it.

        Raises:
            RunDiedError: the process has died.
        """
        assert self.connection is not None
        self.busy = False
        try:
            returned = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise RunDiedError(f"its process {self._end()}") from None
        assert isinstance(returned, JobReturn)
        return returned

    def kill(self) -> None:
        """End the process, whatever it is at."""
        if self.process is not None:
            _kill(self.process)
            self.close()
        self.busy = False

    def close(self) -> None:
        """Have the process leave, which it does once its run, if any, is saved."""
        if self.connection is not None:
            self.connection.close()
        if self.process is not None:
            self._end()
        self.process = self.connection = None

    def _send(self, message: bytes) -> None:
        assert self.connection is not None
        with contextlib.suppress(OSError):  # it has died, as `result` will find
            self.connection.send_bytes(message)

    def _end(self) -> str:
        """Wait until the process is gone; says how it went."""
        assert self.process is not None
        self.process.join(_PATIENCE)
        if self.process.exitcode is None:
            _kill(self.process)
            self.process.join()
        status = self.process.exitcode or 0
        if status >= 0:
            return f"ended with exit status {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"


def make_lanes(count: int, threads: int | None, gpus: Sequence[str]) -> list[Lane]:
    """As many lanes as runs are wanted at once. They outlive a launch: torch is imported once each.

    Args:
        count: of runs at once, from 1.
        threads: of a run that says none; None: the cores, shared out.
        gpus: those to share out, as CUDA_VISIBLE_DEVICES names them.
    """
    environment = {}
    if threads is None and count > 1:
        threads = machine.share(count)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    lanes = []
    for number in range(count):
        own = dict(environment)
        if count > 1 and len(gpus) > 1:
            own["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        lanes.append(Lane(own, alone=count == 1))
    # Before multiprocessing waits for its children.
    util.Finalize(lanes[0], close, args=(lanes,), exitpriority=10)
    return lanes


def close(lanes: Sequence[Lane]) -> None:
    """Have all processes leave, side by side."""
    for lane in lanes:
        if lane.connection is not None:
            lane.connection.close()
    for lane in lanes:
        lane.close()


def _kill(process: LokyProcess) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def wait_for_any(lanes: Sequence[Lane], seconds: float) -> None:
    """Wait until a run at work has ended, or for so many seconds."""
    wait([lane.connection for lane in lanes if lane.busy and lane.connection], seconds)


def visible_gpus() -> list[str]:
    """The GPUs that a process started here would see, as CUDA_VISIBLE_DEVICES names them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip()]
    # Torch takes seconds to import, and nothing else here needs it.
    files = ("nvidia[0-9]*", "kfd", "dxg")
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in files):
        return []
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold back what asks to stop; a process started meanwhile is born with it blocked."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # They unblock some where they start.
    resource_tracker.ensure_running()
    loky_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
