"""The launchers in `hydra_plugins/`: sweeps in which something dies, or that are asked to stop."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import TINY, records, started, wait_for
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from fmbench.config import hydra_compat
from fmbench.core import machine
from fmbench.core.errors import RunDiedError
from fmbench.core.files import LOCK_NAME
from fmbench.core.signals import StopRequested
from fmbench.launch import processes
from fmbench.launch.drive import run_all
from fmbench.launch.executor import Sweep, failed
from fmbench.launch.processes import Lane, Processes
from fmbench.records.folder import RunFolder, mark_ended
from fmbench.records.record import FAILED, INTERRUPTED, Record

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


#: Two processes at once.
BY_TWO = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep", *TINY]


@contextlib.contextmanager
def sweep(folder, *overrides, **environment):
    """A sweep by two processes; none of it outlives the block."""
    with (folder / "err").open("w") as err:
        pipes = {"stdout": subprocess.PIPE, "stderr": err, "start_new_session": True}
        options = {"cwd": folder, "environment": environment, **pipes}
        with started(*BY_TWO, *overrides, **options) as child:
            try:
                yield child
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


def members(child):
    """The processes of a sweep beside the first."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == child.pid and int(entry.name) != child.pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def owner(child, folder):
    """The process that is at work in a folder."""
    for process in members(child):
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{process}/fd").iterdir():
                # A process at work opens and closes files meanwhile: one that is gone
                # says nothing of the others.
                with contextlib.suppress(OSError):
                    if link.readlink() == folder / LOCK_NAME:
                        return process
    return None


def training(folder, *numbers):
    """Whether these runs are beyond their first epoch."""
    return all((folder / "sweep" / str(number) / "history.jsonl").exists() for number in numbers)


def statuses(folder):
    return [(record["status"], record["error"]) for record in records(folder)]


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.slow
@on_linux
def test_a_process_that_is_killed_takes_its_own_run_alone(tmp_path):
    options = [
        *("threads=null", "hydra.launcher.inner_max_num_threads=1"),
        "hydra.sweeper.max_batch_size=2",
    ]
    with sweep(tmp_path, *options, "epochs=2,1000000,3,1", OMP_NUM_THREADS="2") as child:
        wait_for(lambda: training(tmp_path, 1))
        os.kill(owner(child, tmp_path / "sweep" / "1"), signal.SIGKILL)
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 4
    err = (tmp_path / "err").read_text()
    assert err.splitlines()[-1] == "3 of 4 runs completed"
    assert "run 2: its process was killed by SIGKILL" in err.splitlines()
    assert "Traceback" not in err
    assert all(f"run {number} of 4: " in err for number in (1, 2, 3, 4))
    ended = [record for record in records(tmp_path) if record["status"] == "completed"]
    assert [record["fingerprint"]["threads"] for record in ended] == [1, 1, 1]
    assert statuses(tmp_path) == [
        ("completed", None),
        ("failed", "its process was killed by SIGKILL"),
        ("completed", None),
        ("completed", None),
    ]
    assert "failed: lenet5 in sweep/1: its process was killed by SIGKILL" in out


@pytest.mark.slow
@on_linux
def test_a_stop_saves_the_runs_of_all_processes(tmp_path):
    with sweep(tmp_path, "epochs=1000000", "seed=0,1,2") as child:
        wait_for(lambda: training(tmp_path, 0, 1))
        child.terminate()
        child.communicate(timeout=60)
        wait_for(lambda: not members(child))
    assert child.returncode == 143
    err = (tmp_path / "err").read_text()
    assert err.splitlines()[-1].startswith("fmbench: stopped by SIGTERM; resume with: ")
    assert "Traceback" not in err
    assert statuses(tmp_path) == [("interrupted", "stopped by SIGTERM")] * 2
    for place in "01":
        assert (tmp_path / "sweep" / place / "checkpoint.pt").is_file()


@pytest.mark.slow
def test_a_run_that_another_process_is_at_ends_no_sweep(tmp_path):
    """A job that an earlier start has left in a queue began just before ours."""
    folder = RunFolder(tmp_path / "sweep" / "1")
    (tmp_path / "sweep" / LOCK_NAME).touch()  # of that start
    with sweep(tmp_path, "seed=0,1,2", "epochs=1", "hydra.launcher.n_jobs=1") as child:
        wait_for(lambda: child.poll() or "waits for" in (tmp_path / "err").read_text(), 100)
        folder.lock.release()
        assert child.wait(100) == 0, (tmp_path / "err").read_text()
    assert [record["status"] for record in records(tmp_path)] == ["completed"] * 3


@pytest.mark.slow
@on_linux
def test_ctrl_c_twice_kills_what_does_not_leave(tmp_path):
    with sweep(tmp_path, "epochs=1000000", "seed=0,1,2") as child:
        wait_for(lambda: training(tmp_path, 0, 1))
        # One that is held up cannot save itself.
        held_up = owner(child, tmp_path / "sweep" / "1")
        os.kill(held_up, signal.SIGSTOP)
        # In a terminal it reaches every process of the command.
        os.killpg(child.pid, signal.SIGINT)
        wait_for(lambda: ("interrupted", "stopped by SIGTERM") in statuses(tmp_path))
        os.killpg(child.pid, signal.SIGINT)
        child.communicate(timeout=60)
        wait_for(lambda: not members(child))
    assert child.returncode == 130
    last = (tmp_path / "err").read_text().splitlines()[-1]
    assert last.startswith("fmbench: stopped by SIGINT; resume with: ")
    assert statuses(tmp_path)[1] == ("interrupted", "stopped from the keyboard")


@pytest.mark.slow
@on_linux
def test_where_the_sweep_is_killed_its_runs_are_saved_and_leave(tmp_path):
    with sweep(tmp_path, "epochs=1000000", "seed=0,1,2") as child:
        wait_for(lambda: training(tmp_path, 0, 1))
        child.kill()
        wait_for(lambda: not members(child))
    assert statuses(tmp_path) == [("interrupted", "stopped by SIGTERM")] * 2
    # And each goes on from where it was.
    epochs = len((tmp_path / "sweep" / "0" / "history.jsonl").read_text().splitlines())
    record = records(tmp_path)[0]
    assert record["seconds"]["train"] > 0
    assert epochs > 0
    assert (tmp_path / "sweep" / "0" / "checkpoint.pt").is_file()


@pytest.mark.slow
def test_a_fault_that_all_runs_share_ends_the_sweep(command, tmp_path):
    (tmp_path / "sweep" / "1").mkdir(parents=True)
    (tmp_path / "sweep" / "1" / "history.jsonl").write_text("{}\n")
    (tmp_path / "sweep" / LOCK_NAME).touch()  # a sweep was at work there
    status, _, err = command(*BY_TWO, "epochs=300", "seed=0,1,2")
    assert status == 5
    assert "sweep/1: is no folder of a run" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert [record["status"] for record in records(tmp_path)] in ([], ["interrupted"])


@pytest.mark.slow
def test_one_process_gives_the_bits_of_none(command, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    grid = ["-m", *TINY, "threads=null", "epochs=1", "keep_model=true", "seed=0,1"]
    assert command(*grid, "hydra.sweep.dir=none")[0] == 0
    one = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "hydra.sweep.dir=one"]
    assert command(*grid, *one)[::2] == (0, "")
    for place in "01":
        for name in ("model.safetensors", "predictions.npy"):
            here, there = (tmp_path / kind / place / name for kind in ("none", "one"))
            assert here.read_bytes() == there.read_bytes()
    for here, there in zip(records(tmp_path / "none"), records(tmp_path / "one"), strict=True):
        assert here["fingerprint"] == there["fingerprint"]
        assert here["test_loss"] == there["test_loss"]


class FakeLane(Lane):
    """A lane whose runs end as they are told to: in a result, or by its death."""

    def __init__(self, *ends):
        super().__init__({}, None, alone=False)
        self.ends, self.closed, self.killed, self.sent = list(ends), 0, 0, []
        self.connection = SimpleNamespace(poll=lambda: True)

    def start(self):
        pass

    def send(self, message):
        self.sent.append(message)

    def received(self):
        end = self.ends.pop(0)
        end = end() if callable(end) else end
        if isinstance(end, OSError):
            raise end
        return end

    def close(self):
        self.closed += 1

    def kill(self):
        self.killed += 1

    def _end(self):
        return "was killed by SIGKILL"


@pytest.fixture
def computed():
    """Compute as many runs in lanes; what became of them, and what was written into records."""
    marks = []

    def compute(number, *lanes):
        sweep = Sweep(None, None, OmegaConf.create({"hydra": {"sweeper": {}}}))
        executor = Processes(sweep, len(lanes), n_jobs=len(lanes))
        for lane in lanes:
            lane.executor = executor
        executor.lanes, executor.shared = list(lanes), b""
        executor.mark = lambda number, overrides, *said: marks.append((number, *said))
        executor.wait = lambda _: None
        return run_all(executor, [(place, ["seed=1"]) for place in range(number)])

    compute.marks = marks
    return compute


def stopped(folder, *, saved=True):
    stop = StopRequested(signal.SIGTERM, saved=saved)
    stop.folder = folder
    return failed([], stop)


def done(value):
    return hydra_compat.job_return(JobStatus.COMPLETED, value)


def test_a_process_that_is_asked_to_stop_alone_does_not_stop_the_sweep(computed):
    lane = FakeLane(done(1), stopped(Path("b")), stopped(None), done(3))
    returns = computed(3, lane)
    assert lane.closed == 2  # a fresh one, which nobody has asked
    assert [returns[place].return_value for place in (0, 2)] == [1, 3]
    assert isinstance(hydra_compat.value(returns[1]), RunDiedError)
    assert returns[1].status == JobStatus.FAILED


def test_what_stops_the_sweep_and_its_processes_at_once_stops_the_sweep(computed):
    """As a lost connection does: a process may have left before it was asked to."""

    def lost():
        signal.raise_signal(signal.SIGHUP)
        return stopped(Path("a"))

    with pytest.raises(StopRequested) as raised:
        computed(2, FakeLane(lost))
    assert (raised.value.number, raised.value.saved) == (signal.SIGHUP, True)


@pytest.mark.parametrize(("end", "saved"), [
    (stopped(Path("b")), True),
    (stopped(Path("b"), saved=False), False),
    (ConnectionResetError(), False),
])  # fmt: skip
def test_a_sweep_says_whether_all_of_its_runs_were_saved(computed, end, saved):
    lanes = FakeLane(stopped(Path("a"))), FakeLane(end)
    polls = iter([False, False, False])
    for lane in lanes:
        lane.connection.poll = lambda: next(polls, True)
    send = lanes[1].send
    lanes[1].send = lambda message: (send(message), signal.raise_signal(signal.SIGUSR2))
    with pytest.raises(StopRequested) as raised:
        computed(5, *lanes)
    assert (raised.value.number, raised.value.saved) == (signal.SIGUSR2, saved)
    assert [lane.sent.count(processes.STOP) for lane in lanes] == [1, 1]
    assert len(computed.marks) == isinstance(end, OSError)


def test_stopped_at_once_the_processes_are_killed_and_their_records_say_so(computed):
    lane = FakeLane(
        lambda: signal.raise_signal(signal.SIGINT) or signal.raise_signal(signal.SIGINT)
    )
    at_work = FakeLane()
    at_work.connection.poll = lambda: False
    with pytest.raises(KeyboardInterrupt):
        computed(2, at_work, lane)
    assert at_work.killed == 1
    assert (0, INTERRUPTED, "stopped from the keyboard") in computed.marks


#: Number of processes, threads given, GPUs, OMP_NUM_THREADS here; variables of the last process.
SHARES = [
    (3, None, (), None, {"OMP_NUM_THREADS": "2"}),
    (12, None, (), None, {"OMP_NUM_THREADS": "1"}),
    (2, 3, (), None, {"OMP_NUM_THREADS": "3"}),
    (1, None, (), None, {}),
    # Fewer than a share is taken, more is not.
    (2, None, (), "2", {"OMP_NUM_THREADS": "2"}),
    (2, None, (), "64", {"OMP_NUM_THREADS": "4"}),
    (1, None, (), "64", {}),
    (3, 1, ("4", "GPU-b"), None, {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "4"}),
    (2, 1, ("4", "GPU-b"), None, {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "GPU-b"}),
    (1, None, ("4", "5"), None, {}),
    (2, 1, ("4",), None, {"OMP_NUM_THREADS": "1"}),
]


@pytest.mark.parametrize("share", SHARES)
def test_cores_and_gpus_are_shared_out(monkeypatch, share):
    count, threads, gpus, asked, expected = share
    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(8, None))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    shares = processes._shares(count, threads, gpus)
    assert (len(shares), shares[-1]) == (count, expected)


@pytest.mark.parametrize(("asked", "cores", "expected"), [
    (-1, 8, 8), (-2, 8, 7), (None, 3, 3), (-1, 1, 1), (-5, 2, 1), (6, 2, 6)
])  # fmt: skip
def test_as_many_processes_as_the_process_may_use_cores(monkeypatch, asked, cores, expected):
    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(cores, None))
    assert Processes(None, 9, n_jobs=asked).capacity == expected


@pytest.mark.parametrize(("listed", "expected"), [
    ("2, MIG-c", ["2", "MIG-c"]),
    ("", []),
    (None, ["0", "1"]),
])  # fmt: skip
def test_the_gpus_that_may_be_used(monkeypatch, listed, expected):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(["/dev/nvidia0"]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert processes.visible_gpus() == expected


@pytest.mark.parametrize(("overrides", "shared"), [
    (["device=auto"], True),
    (["seed=1"], True),
    (["device=cuda:1"], False),
])  # fmt: skip
def test_gpus_that_runs_name_are_not_hidden_from_them(monkeypatch, overrides, shared):
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["0", "1"])
    sweep = Sweep(None, None, OmegaConf.create({"device": "auto"}))
    executor = Processes(sweep, 5, n_jobs=2)
    executor._begin([(0, overrides)])
    first, second = executor.lanes
    assert (first.environment.get("CUDA_VISIBLE_DEVICES") == "0") == shared
    assert (second.environment.get("CUDA_VISIBLE_DEVICES") == "1") == shared


@pytest.mark.parametrize(("cores", "memory", "gpus", "expected"), [
    (8, None, [], 8), (8, 4_500_000_000, [], 3), (2, 10**9, [], 1), (64, None, ["0", "1"], 6),
])  # fmt: skip
def test_auto_is_as_many_as_the_machine_bears(monkeypatch, cores, memory, gpus, expected):
    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(cores, memory))
    monkeypatch.setattr(processes, "visible_gpus", lambda: gpus)
    config = OmegaConf.create({"device": "auto", "sweep": {"jobs_per_gpu": 3}})
    assert processes.fitting(config) == expected
    if gpus:
        assert processes.fitting(OmegaConf.merge(config, {"device": "cpu"})) == cores


def test_the_option_is_ours_and_keeps_its_keys(command):
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "--cfg", "hydra", "-p"]
    _, out, _ = command(*words, "hydra.launcher")
    assert OmegaConf.create(out) == {
        "_target_": "hydra_plugins.fmbench_launchers.processes.ProcessLauncher",
        "n_jobs": 2,
        "inner_max_num_threads": None,
    }


@pytest.mark.parametrize(("value", "said"), [
    ("0", "0"), ("true", "True")
])  # fmt: skip
def test_a_number_of_processes_that_cannot_be(command, tmp_path, value, said):
    given = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={value}"]
    status, _, err = command("-m", *given, *TINY)
    assert status == 2
    assert err.startswith(f"fmbench: hydra.launcher.n_jobs={said}: must be 1 or more")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_only_a_running_record_is_mended(tmp_path, kept_run):
    record = Record.from_json((kept_run / "result.json").read_text())
    for status in ("running", "completed"):
        with RunFolder(tmp_path / status) as folder:
            record.status = status
            folder.write_record(record)
        mark_ended(tmp_path / status, FAILED, "killed")
    mark_ended(tmp_path / "none", INTERRUPTED, "killed")
    found = {
        path.parent.name: Record.from_json(path.read_text())
        for path in tmp_path.rglob("result.json")
    }
    assert (found["running"].status, found["running"].error) == ("failed", "killed")
    assert (found["completed"].status, found["completed"].error) == ("completed", None)
    assert set(found) == {"running", "completed"}
    assert not (tmp_path / "none").exists()


#: Runs of which each chooses its threads: as many as OMP_NUM_THREADS says.
ANY_THREADS = ["-m", *(text for text in TINY if not text.startswith("threads=")), "epochs=1"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("usable", "given", "times"), [
    ((2, None), ["seed=0,1,2"], 1),
    ((2, None), ["sweep=lr_batch", "sweep.trials=3", "batch_size=16,32"], 1),
    ((1, None), ["seed=0,1"], 0),
    ((2, 2 * 10**9), ["seed=0,1"], 0),  # there is memory for one
    ((2, None), ["seed=0"], 0),
    ((2, None), ["seed=0,1", "threads=1"], 0),
    ((2, None), ["seed=0,1", "sweep.jobs=1"], 0),
])  # fmt: skip
def test_a_sweep_that_leaves_cores_idle_says_so_once(command, monkeypatch, usable, given, times):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(*usable))
    status, _, err = command(*ANY_THREADS, "device=cpu", *given)
    assert status == 0, err
    said = (
        "2 cores, of which a run uses one: sweep.jobs=auto runs several at once; their times are "
        "then of a shared machine\n"
    )
    assert err.count(said) == err.count("sweep.jobs=auto") == times
