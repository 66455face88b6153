"""Sweeps whose runs are processes of this machine, several at once.

A lane is one process at a time, so that one that dies takes a single run with it. It computes one
run after the other: torch is imported once in each.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue

import cloudpickle
from hydra.core.utils import JobReturn, env_override
from omegaconf import DictConfig

from fmbench.config import hydra_compat
from fmbench.config.sweep import run_name
from fmbench.core import machine
from fmbench.core.console import SharedStream
from fmbench.core.errors import ConfigError, RunDiedError, StorageError
from fmbench.core.signals import SIGNALS, Listener, StopRequested, heeded
from fmbench.launch.board import drawable
from fmbench.launch.executor import Executor, Job, Runs, Sweep, failed, log, run_folder
from fmbench.records.record import FAILED, INTERRUPTED

#: Sent to a process in the place of a run.
STOP = b"stop"

#: Bytes of memory that a run is taken to need: Python, PyTorch, the images, a small model.
_MEMORY = 1_500_000_000

#: Seconds that a process has to leave in when there is nothing left to do.
_PATIENCE = 10.0


class Processes(Executor):
    """Several processes of this machine, and nothing is lost.

    A process that dies, killed or for want of memory, ends its own run, and another takes its
    place. Asked to stop, the sweep has its runs saved; where it is killed itself, they are too.
    Cores and GPUs are shared out, among as many as the sweep can use: its runs compare only with
    the same threads.

    Args:
        n_jobs: runs at once; -1 or None as many as there are cores, -2 one less.
        inner_max_num_threads: of a run that says none; None: the cores, shared out.
    """

    shown = False

    def __init__(
        self,
        sweep: Sweep,
        at_once: int,
        n_jobs: int | None = -1,
        inner_max_num_threads: int | None = None,
    ) -> None:
        super().__init__(sweep, at_once)
        n_jobs, self.threads = -1 if n_jobs is None else n_jobs, inner_max_num_threads
        if type(n_jobs) is not int or n_jobs == 0:
            raise ConfigError(
                f"hydra.launcher.n_jobs={n_jobs}: must be 1 or more, or -1 for all cores"
            )
        if self.threads is not None and (type(self.threads) is not int or self.threads < 1):
            raise ConfigError(
                f"hydra.launcher.inner_max_num_threads={self.threads}: must be 1 or more, or null"
            )
        most = n_jobs if n_jobs > 0 else max(1, machine.usable().cores + 1 + n_jobs)
        self.capacity: int = min(most, at_once)
        self.lanes: list[Lane] = []
        self.said: _Said | None = None  # where standard error is drawn upon

    def submit(self, jobs: Sequence[Job]) -> Iterator["Lane"]:
        """Hand runs over to processes that have none."""
        if not self.lanes:
            self._begin(jobs)
        free = [lane for lane in self.lanes if not lane.busy][: len(jobs)]
        for lane in free:
            lane.start()  # side by side
        for lane, (number, overrides) in zip(free, jobs, strict=True):
            lane.give(self.shared, number, overrides)
            yield lane

    def _begin(self, jobs: Sequence[Job]) -> None:
        self.shared = cloudpickle.dumps(Runs(self.sweep, 0, at_once=self.capacity))
        # A run that names its GPU could not have it, were they shared out.
        given = (text.lstrip("+") for _, overrides in jobs for text in overrides)
        named = [f"device={self.sweep.config.device}", *given]
        share = self.capacity > 1 and not any(text.startswith("device=cuda:") for text in named)
        shares = _shares(self.capacity, self.threads, visible_gpus() if share else [])
        if self.capacity > 1 and drawable():
            self.said = _Said()
        self.lanes = [Lane(each, self, alone=self.capacity == 1) for each in shares]
        # Before multiprocessing waits for its children.
        util.Finalize(self.lanes[0], _close, args=(self.lanes, self.said), exitpriority=10)

    def wait(self, seconds: float) -> None:
        """Wait until a run at work has ended or said something, or for so many seconds."""
        busy = [lane.connection for lane in self.lanes if lane.busy and lane.connection]
        if self.said is not None:
            busy.append(self.said.reader)
        wait(busy, seconds)
        if self.said is not None:
            self.said.pass_on()

    def abandon(self, said: str) -> None:
        """Kill the processes."""
        for lane in self.lanes:
            if lane.busy:
                lane.kill()
                self.mark(lane.number, lane.overrides, INTERRUPTED, said)
        if self.said is not None:
            self.said.pass_on()

    def mark(self, number: int, overrides: Sequence[str], status: str, said: str) -> None:
        """Write into the record of a run whose process is gone how it has ended."""
        from fmbench import tracking
        from fmbench.records.folder import mark_ended

        try:
            folder = run_folder(self.sweep, number, overrides)
            mark_ended(folder, status, said)
            tracking.settle(folder, Path(self.sweep.config.hydra.runtime.cwd))
        except (StorageError, ValueError, OSError) as error:
            name = run_name(self.sweep.config, number)
            log.warning("%s: its record stays as it is: %s", name, error)


class _Said:
    """A pipe in the place of the terminal of all processes of a sweep, where a board is drawn.

    What they write there would damage the picture: this process writes it above.
    """

    def __init__(self) -> None:
        self.reader, self.writer = multiprocessing.Pipe(duplex=False)
        os.set_blocking(self.reader.fileno(), False)

    def pass_on(self) -> None:
        """Write to standard error what has come by now."""
        parts = []
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.reader.fileno(), 65_536):
                parts.append(part)
        if parts and sys.stderr is not None:
            with contextlib.suppress(OSError):  # the terminal is gone
                sys.stderr.write(b"".join(parts).decode(errors="replace"))
                sys.stderr.flush()


class Lane:
    """One process, replaced by a fresh one where it has died; a `Process` of an executor.

    With an environment that differs in these variables. `alone`: it is the only lane.
    """

    def __init__(self, environment: dict[str, str], executor: Processes, *, alone: bool) -> None:
        self.environment, self.executor, self.alone = environment, executor, alone
        self.process: BaseProcess | None = None
        self.connection: Connection | None = None
        self.busy = self.asked = False  # whether a run is at work, and was asked to stop

    def start(self) -> None:
        """Have a process, unless there is one."""
        if self.process is not None and self.process.exitcode is None:
            return
        self.close()
        self.connection, theirs = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        given = {"alone": self.alone, "said": self.executor.said and self.executor.said.writer}
        self.process = spawn.Process(target=work, args=(theirs,), kwargs=given)
        with _signals_blocked(), env_override(self.environment):
            self.process.start()
        theirs.close()

    def give(self, runs: bytes, number: int, overrides: Sequence[str]) -> None:
        """Have one of the runs done."""
        self.number, self.overrides = number, list(overrides)
        self.run = pickle.dumps((runs, number, self.overrides))
        self.busy, self.asked = True, False
        self.start()
        self.send(self.run)

    def outcome(self) -> JobReturn | None:
        """As `executor.Process` has it."""
        assert self.connection is not None
        if not self.connection.poll():
            return None
        try:
            returned = self.received()
        except (EOFError, OSError):
            self.busy = False
            said = f"its process {self._end()}"
            self.executor.mark(self.number, self.overrides, FAILED, said)
            if self.asked:
                return failed(self.overrides, StopRequested(signal.SIGTERM, saved=False))
            raise RunDiedError(said) from None
        stop = hydra_compat.value(returned)
        if isinstance(stop, StopRequested) and not self.asked:
            # Asked of this process alone, as some do to whatever takes the most memory.
            self.close()
            if stop.folder is None:  # the run had not begun
                self.start()
                self.send(self.run)
                return None
        self.busy = False
        return returned

    def ask_to_stop(self) -> None:
        """Have the run save itself and leave."""
        if not self.asked:
            self.asked = True
            self.send(STOP)

    def kill(self) -> None:
        """End the process, whatever it is at."""
        if self.process is not None:
            self.process.kill()
        self.close()
        self.busy = False

    def close(self) -> None:
        """Have the process leave, which it does once its run, if any, is saved."""
        if self.connection is not None:
            self.connection.close()
        if self.process is not None:
            self._end()
        self.process = self.connection = None

    def send(self, message: bytes) -> None:
        """Send a run, or `STOP`."""
        assert self.connection is not None
        with contextlib.suppress(OSError):  # it has died, as `outcome` will find
            self.connection.send_bytes(message)

    def received(self) -> JobReturn:
        """The result of the run at work; EOFError or OSError where the process has died."""
        assert self.connection is not None
        returned = pickle.loads(self.connection.recv_bytes())
        assert isinstance(returned, JobReturn)
        return returned

    def _end(self) -> str:
        """Wait until the process is gone; says how it went."""
        assert self.process is not None
        self.process.join(_PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        status = self.process.exitcode or 0
        killed = {-each: f"was killed by {each.name}" for each in signal.Signals}
        return killed.get(status, f"ended with exit status {status}")


def _close(lanes: Sequence[Lane], said: _Said | None) -> None:
    """Have all processes leave, side by side."""
    for lane in lanes:
        if lane.connection is not None:
            lane.connection.close()
    for lane in lanes:
        lane.close()
    if said is not None:
        said.pass_on()


def _shares(count: int, threads: int | None, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The variables of each of so many processes: its share of the cores and of these GPUs."""
    if threads is None and count > 1:
        threads = machine.share(count)
    shares = [{} if threads is None else {"OMP_NUM_THREADS": str(threads)} for _ in range(count)]
    if count > 1 and len(gpus) > 1:
        for number, each in enumerate(shares):
            each["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return shares


def fitting(config: DictConfig) -> int:
    """How many runs this machine bears at once: `sweep.jobs=auto`.

    On GPUs `sweep.jobs_per_gpu` for each; else as many as there are cores, a thread each, and as
    there is memory for.
    """
    gpus = visible_gpus() if config.device in ("auto", "cuda") else []
    if gpus:
        return len(gpus) * int(config.sweep.jobs_per_gpu)
    cores, memory = machine.usable()
    return max(1, min(cores, (memory or sys.maxsize) // _MEMORY))


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
    resource_tracker.ensure_running()  # it unblocks some where it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the process of a lane


def work(connection: Connection, *, alone: bool, said: Connection | None = None) -> None:
    """Compute runs from a connection until it closes; the caller blocks signals.

    With `said`, what goes to a terminal goes there, without lines on how far runs are.

    The pipe ends with the process that gives the work, however that ended: then the run at work is
    saved and left.
    """
    # Notes a stop that is asked for between runs. Ctrl-C reaches every process of the terminal; it
    # stays blocked here, since the sweep passes it on.
    listener = Listener()
    for number in {*heeded(), signal.SIGTERM}:  # `_receive` sends that, whoever ignores it
        signal.signal(number, listener)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS) - {signal.SIGINT})
    if not alone and sys.stderr is not None:  # closed
        sys.stderr = SharedStream(
            sys.stderr.buffer, sys.stderr.encoding, sys.stderr.errors, write_through=True
        )
        if said is not None:
            os.dup2(said.fileno(), sys.stderr.fileno())
            if sys.stdout is not None and sys.stdout.isatty():
                os.dup2(said.fileno(), sys.stdout.fileno())
            said.close()
            sys.stderr.progress = False
    runs: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, runs), daemon=True).start()
    while (run := runs.get()) is not None:
        with contextlib.suppress(OSError):  # nobody is left to hear it
            connection.send_bytes(_result(run, listener))


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


def _result(run: bytes, listener: Listener) -> bytes:
    """The JobReturn of a run, pickled."""
    try:
        shared, number, overrides = pickle.loads(run)
        if listener.asked is not None:
            stop = StopRequested(listener.asked, saved=True)
            return pickle.dumps(failed(overrides, stop))
        content: bytes = cloudpickle.dumps(pickle.loads(shared)(number, overrides))
        pickle.loads(content)
    except Exception as error:
        said = f"what a run gave cannot be passed on: {type(error).__name__}: {error}"
        return pickle.dumps(failed((), RuntimeError(said)))
    return content
