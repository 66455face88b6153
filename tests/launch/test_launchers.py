"""The launchers in `hydra_plugins/`: sweeps in which something dies, or that are asked to stop."""

import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import CHECKOUT, TINY, fmbench, records
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from fmbench.cli import main as cli
from fmbench.config.messages import Refusal
from fmbench.core import machine
from fmbench.core.errors import RunDiedError
from fmbench.core.files import LOCK_NAME
from fmbench.core.machine import RUNS_AT_ONCE
from fmbench.core.signals import Listener, StopRequested
from fmbench.launch import worker
from fmbench.records.folder import RunFolder, mark_ended
from fmbench.records.record import FAILED, INTERRUPTED, Record

pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run `fmbench ARGUMENTS` in an empty folder; returns exit status and its own stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fmbench", *arguments])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().err

    return call


#: Two processes at once.
BY_TWO = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep", *TINY]


@contextlib.contextmanager
def sweep(folder, *overrides, **environment):
    """A sweep by two processes; none of it outlives the block."""
    with (folder / "err").open("w") as err:
        child = subprocess.Popen(
            [sys.executable, "-m", "fmbench", *BY_TWO, *overrides],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


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
    assert err.splitlines()[-1].startswith("fmbench: stopped by SIGTERM; this goes on: ")
    assert "Traceback" not in err
    assert statuses(tmp_path) == [("interrupted", "stopped by SIGTERM")] * 2
    for place in "01":
        assert (tmp_path / "sweep" / place / "checkpoint.pt").is_file()


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
    assert last.startswith("fmbench: stopped by SIGINT; this goes on: ")
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
    status, err = command(*BY_TWO, "epochs=300", "seed=0,1,2")
    assert status == 5
    assert "holds a run already" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert [record["status"] for record in records(tmp_path)] in ([], ["interrupted"])


@pytest.mark.slow
def test_one_process_gives_the_bits_of_none(command, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    grid = ["-m", *TINY, "threads=null", "epochs=1", "keep_model=true", "seed=0,1"]
    assert command(*grid, "hydra.sweep.dir=none")[0] == 0
    one = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "hydra.sweep.dir=one"]
    assert command(*grid, *one) == (0, "")
    for place in "01":
        for name in ("model.safetensors", "predictions.npy"):
            here, there = (tmp_path / kind / place / name for kind in ("none", "one"))
            assert here.read_bytes() == there.read_bytes()
    for here, there in zip(records(tmp_path / "none"), records(tmp_path / "one"), strict=True):
        assert here["fingerprint"] == there["fingerprint"]
        assert here["test_loss"] == there["test_loss"]


@pytest.mark.parametrize(("error", "kind"), [
    (OSError(errno.ENOSPC, "No space left on device", "config.yaml"), Refusal),
    (ValueError("no"), ValueError),
])  # fmt: skip
def test_a_process_tells_a_fault_that_all_runs_share_from_its_runs_own(monkeypatch, error, kind):
    """Also one that Hydra meets, before there is a run."""

    def fail(*_):
        raise error

    monkeypatch.setattr("hydra_plugins.hydra_joblib_launcher._core.execute_job", fail)
    run = pickle.dumps((pickle.dumps((None,) * 4), 0, []))
    assert type(pickle.loads(worker._outcome(run, Listener()))) is kind


class FakeLane:
    """A lane whose runs end as they are told to."""

    def __init__(self, outcomes):
        self.outcomes, self.place, self.closed, self.asked = outcomes, None, 0, 0

    def give(self, place, run):
        self.place = place

    def outcome(self):
        self.place = None
        return self.outcomes.pop(0)

    def close(self):
        self.closed += 1

    def ask_to_stop(self):
        self.asked += 1


class FakeLanes:
    def __init__(self, *lanes):
        self.lanes = lanes

    idle = property(lambda self: [lane for lane in self.lanes if lane.place is None])
    busy = property(lambda self: [lane for lane in self.lanes if lane.place is not None])

    def start(self, count):
        pass

    def ended(self, timeout):
        return self.busy


def launch(monkeypatch, runs, *lanes):
    from fmbench.launch import processes

    launcher = SimpleNamespace(
        hydra_context=None,
        task_function=None,
        config=OmegaConf.create({"hydra": {"job": {"name": "fmbench"}, "sweeper": {}}}),
    )
    monkeypatch.setattr(processes._Launch, "_mark", lambda *arguments: None)
    return processes._Launch(launcher, FakeLanes(*lanes), [["seed=1"]] * runs, 0)


def stopped(folder, *, saved=True):
    stop = StopRequested(signal.SIGTERM, saved=saved)
    stop.folder = folder
    return stop


def done(value):
    return JobReturn(status=JobStatus.COMPLETED, _return_value=value)


def test_a_process_that_is_asked_to_stop_alone_does_not_stop_the_sweep(monkeypatch):
    lane = FakeLane([done(1), stopped(Path("b")), stopped(None), done(3)])
    returns = launch(monkeypatch, 3, lane).run(Listener())
    assert lane.closed == 2  # a fresh one, which nobody has asked
    assert [returns[place]._return_value for place in (0, 2)] == [1, 3]
    assert isinstance(returns[1]._return_value, RunDiedError)
    assert returns[1].status == JobStatus.FAILED


def test_what_stops_the_sweep_and_its_processes_at_once_stops_the_sweep(monkeypatch):
    """As a lost connection does: a process may have left before it was asked to."""
    listener = Listener()

    def outcome():
        lane.place = None
        listener.asked = signal.SIGHUP
        return stopped(Path("a"))

    lane = FakeLane([])
    lane.outcome = outcome
    begun = launch(monkeypatch, 2, lane)
    with pytest.raises(StopRequested) as raised:
        begun.run(listener)
    assert (raised.value.number, raised.value.saved) == (signal.SIGHUP, True)
    assert begun.returns == {}


def test_a_sweep_says_whether_all_of_its_runs_were_saved(monkeypatch):
    for saved in (True, False):
        listener = Listener()
        lanes = [FakeLane([stopped(Path("a"))]), FakeLane([stopped(Path("b"), saved=saved)])]
        begun = launch(monkeypatch, 5, *lanes)
        for place, lane in enumerate(lanes):
            lane.place = place
        listener.asked = signal.SIGUSR2
        with pytest.raises(StopRequested) as raised:
            begun.run(listener)
        assert (raised.value.number, raised.value.saved) == (signal.SIGUSR2, saved)
        assert [lane.asked for lane in lanes] == [1, 1]


def test_an_error_of_one_run_is_its_own(monkeypatch):
    returns = launch(monkeypatch, 2, FakeLane([ValueError("no"), done(2)])).run(Listener())
    with pytest.raises(ValueError, match="no"):
        _ = returns[0].return_value
    assert returns[1].return_value == 2


def environments(monkeypatch, count, threads=None, gpus=()):
    from fmbench.launch import lanes

    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(8, None))
    found = [dict(lane.environment) for lane in lanes.Lanes(count, threads, gpus).lanes]
    assert {own.pop(RUNS_AT_ONCE) for own in found} == {str(count)}
    return found


def test_the_cores_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environments(monkeypatch, 3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert environments(monkeypatch, 12)[11] == {"OMP_NUM_THREADS": "1"}
    assert environments(monkeypatch, 2, threads=3)[0] == {"OMP_NUM_THREADS": "3"}
    assert environments(monkeypatch, 1) == [{}]
    # Fewer than a share is taken, more is not.
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert environments(monkeypatch, 2) == [{"OMP_NUM_THREADS": "2"}] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert environments(monkeypatch, 2) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert environments(monkeypatch, 1) == [{}]


@pytest.mark.parametrize(("asked", "cores", "expected"), [
    (-1, 8, 8), (-2, 8, 7), (None, 3, 3), (-1, 1, 1), (-5, 2, 1), (6, 2, 6)
])  # fmt: skip
def test_as_many_processes_as_the_process_may_use_cores(monkeypatch, asked, cores, expected):
    from fmbench.launch import processes

    monkeypatch.setattr(processes, "usable", lambda: machine.Usable(cores, None))
    launcher = processes.ProcessLauncher(n_jobs=asked)
    launcher.config = OmegaConf.create({"device": "auto"})
    assert len(launcher._lanes_for([["seed=1"]] * 9).lanes) == expected


def test_the_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = environments(monkeypatch, 3, gpus=["4", "GPU-b"])
    assert [own["CUDA_VISIBLE_DEVICES"] for own in found] == ["4", "GPU-b", "4"]
    assert environments(monkeypatch, 1, gpus=["4", "5"]) == [{}]
    assert environments(monkeypatch, 2, gpus=["4"]) == [{"OMP_NUM_THREADS": "1"}] * 2


@pytest.mark.parametrize(("listed", "expected"), [
    ("2, MIG-c", ["2", "MIG-c"]),
    ("", []),
    (None, ["0", "1"]),
])  # fmt: skip
def test_the_gpus_that_may_be_used(monkeypatch, listed, expected):
    import torch

    from fmbench.launch import lanes

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(["/dev/nvidia0"]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert lanes.visible_gpus() == expected


@pytest.mark.parametrize(("overrides", "shared"), [
    (["device=auto"], True),
    (["seed=1"], True),
    (["device=cuda:1"], False),
])  # fmt: skip
def test_gpus_that_runs_name_are_not_hidden_from_them(monkeypatch, overrides, shared):
    from fmbench.launch import lanes
    from fmbench.launch.processes import ProcessLauncher

    monkeypatch.setattr(lanes, "visible_gpus", lambda: ["0", "1"])
    launcher = ProcessLauncher(n_jobs=2)
    launcher.config = OmegaConf.create({"device": "auto"})
    first, second = launcher._lanes_for([overrides] * 5).lanes
    assert (first.environment.get("CUDA_VISIBLE_DEVICES") == "0") == shared
    assert (second.environment.get("CUDA_VISIBLE_DEVICES") == "1") == shared


def test_the_lanes_outlive_a_launch_and_grow_with_the_next():
    from fmbench.launch.processes import ProcessLauncher

    launcher = ProcessLauncher(n_jobs=3)
    launcher.config = OmegaConf.create({"device": "auto"})
    lanes = launcher._lanes_for([["seed=1"]] * 2)
    assert len(lanes.lanes) == 2
    assert launcher._lanes_for([["seed=1"]]) is lanes
    assert len(launcher._lanes_for([["seed=1"]] * 9).lanes) == 3


def test_the_option_is_ours_and_keeps_its_keys(tmp_path):
    done = fmbench(
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "--cfg", "hydra", "-p",
        "hydra.launcher", cwd=tmp_path,
    )  # fmt: skip
    assert OmegaConf.create(done.stdout) == {
        "_target_": "hydra_plugins.fmbench_launchers.processes.ProcessLauncher",
        "n_jobs": 2,
        "inner_max_num_threads": None,
    }


@pytest.mark.parametrize(("value", "said"), [
    ("0", "0"), ("two", "two"), ("1.5", "1.5"), ("true", "True")
])  # fmt: skip
def test_a_number_of_processes_that_cannot_be(command, tmp_path, value, said):
    status, err = command("-m", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={value}", *TINY)
    assert status == 2
    assert err.startswith(f"fmbench: hydra.launcher.n_jobs={said}: must be 1 or more")
    assert not list(tmp_path.iterdir())


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
