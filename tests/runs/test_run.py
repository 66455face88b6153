"""How a run begins and ends: signals, folders, what a second start finds."""

import io
import itertools
import json
import shutil
import signal
import sys
import time

import pytest
from commands import TINY, fmbench, records, started
from stops import RUN, asked_to_stop, names, run, stopped

from fmbench.cli.main import main
from fmbench.cli.summary import stopped_line
from fmbench.core import machine
from fmbench.core.errors import StorageError
from fmbench.core.files import LOCK_NAME
from fmbench.core.signals import StopRequested
from fmbench.records.folder import RunFolder, SweepFolder
from fmbench.runs import run as runs
from fmbench.runs.checkpointing import RunState
from fmbench.training.trainer import Trainer


def test_a_run_that_is_at_its_end_is_left_as_it_is(tmp_path):
    first = run(tmp_path / "run")
    (tmp_path / "run" / LOCK_NAME).unlink()  # as an older fmbench has left it
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(tmp_path)}
    again = run(tmp_path / "run")
    assert again == first
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(tmp_path)}
    assert after == before


def test_what_a_kill_at_the_very_end_leaves_is_tidied(tmp_path):
    run(tmp_path / "run")
    expected = names(tmp_path / "run")
    for name in ("checkpoint.pt", "checkpoint.older.pt", ".result.json.123.0123abcd"):
        (tmp_path / "run" / name).write_bytes(b"left")
    run(tmp_path / "run")
    assert names(tmp_path / "run") == expected


def files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.parametrize(("more", "ends"), [
    ([], 0),
    pytest.param(["optimizer.lr=1e30"], 1, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_run_at_its_end_says_so_with_the_status_that_it_had(more, ends, command, tmp_path):
    arguments = [*TINY, "hydra.run.dir=here", *more]
    status, said, err = command(*arguments)
    assert status == ends
    already = "fmbench: this run has ended already; nothing was changed in here\n"
    last = "" if not ends else err.splitlines(keepends=True)[-1]
    assert command(*arguments) == (ends, said, already + last)
    assert "checkpoint.pt" not in names(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "expected"), [(None, 1), ("2", 1), ("threads=2", 2)])
def test_a_run_keeps_the_threads_that_it_chose(asked, expected, monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(2, None))
    monkeypatch.setattr(Trainer, "faster_threads", lambda *_: 1)
    stop = stopped(tmp_path / "run", 3, "threads=null")
    for typed in (["seed=0"], ["threads=null", "seed=0"], ["seed=0", "threads=1"]):
        line = stopped_line(stop, typed)
        assert line.endswith(f"fmbench seed=0 threads=1 hydra.run.dir={tmp_path / 'run'}")
    monkeypatch.setattr(Trainer, "faster_threads", lambda *_: 2)
    if asked and asked.isdecimal():
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    last = run(tmp_path / "run", "threads=null" if asked in (None, "2") else asked)
    assert last.fingerprint["threads"] == expected
    assert last.overrides[-1] == f"threads={expected}"
    assert bool(last.restarts[0]["changed"]) == (expected == 2)


@pytest.mark.slow
def test_a_run_that_was_killed_keeps_the_threads_of_its_checkpoint(monkeypatch, tmp_path):
    """The record is written when a run starts, and has no threads until it ends."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(2, None))
    monkeypatch.setattr(Trainer, "faster_threads", lambda *_: 1)
    stopped(tmp_path / "run", 3, "threads=null")
    path = tmp_path / "run" / "result.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"status": "running", "fingerprint": {}}))
    monkeypatch.setattr(Trainer, "faster_threads", lambda *_: 2)
    last = run(tmp_path / "run", "threads=null")
    assert (last.fingerprint["threads"], last.restarts[0]["changed"]) == (1, {})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_heard_while_images_are_waited_for(number, monkeypatch, tmp_path):
    def slow(*_):
        signal.raise_signal(number)
        raise AssertionError("goes on")

    monkeypatch.setattr(runs, "read_inputs", slow)
    with pytest.raises(StopRequested) as raised:
        run(tmp_path / "run")
    assert not raised.value.saved
    assert records(tmp_path)[0]["status"] == "interrupted"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path / "run").status == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True])
def test_a_stop_wins_over_a_record_that_cannot_be_written(sweep, monkeypatch, tmp_path):
    """From the signal on, the disk takes checkpoints and no record."""
    write_record = RunFolder.write_record

    def full(self, record):
        if record.status == "interrupted":
            raise StorageError("result.json: cannot be written: No space left on device")
        write_record(self, record)

    monkeypatch.setattr(RunFolder, "write_record", full)
    arguments = ["-m", "seed=0,1", "hydra.sweep.dir=here"] if sweep else ["hydra.run.dir=here"]
    monkeypatch.setattr(sys, "argv", ["fmbench", *RUN, *arguments])
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with asked_to_stop(7), pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 143
    folder = tmp_path / ("here/0" if sweep else "here")
    line = said.getvalue().splitlines()[-1]
    assert line.startswith("fmbench: stopped by SIGTERM")
    assert "; resume with: " in line
    if not sweep:
        assert (
            "saved, its record is as it was (result.json: cannot be written: No space left on "
            "device); resume with: "
        ) in line
        assert line.endswith(f" hydra.run.dir={folder}")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    seed = ["seed=0"] if sweep else []
    assert run(folder, *seed).status == "completed"
    assert records(folder)[0]["restarts"][0]["images"] == 128


def test_a_record_that_cannot_be_written_after_the_second_ctrl_c(monkeypatch, tmp_path):
    def twice(_self):
        raise KeyboardInterrupt

    def full(_self):
        raise StorageError("result.json: cannot be written: No space left on device")

    monkeypatch.setattr(RunState, "after_batch", twice)
    monkeypatch.setattr(RunState, "end", full)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")


def test_a_stop_after_the_last_epoch_comes_too_late(monkeypatch, tmp_path):
    """All is computed; to stop now would have it begun again for nothing."""
    after_epoch = RunState.after_epoch

    def asked(self, line):
        if line["epoch"] == 2:
            self.listener.asked = signal.SIGTERM
        after_epoch(self, line)

    monkeypatch.setattr(RunState, "after_epoch", asked)
    try:
        record = run(tmp_path / "run")
    except StopRequested:  # would end pytest
        pytest.fail("stopped at its end")
    assert record.status == "completed"


@pytest.mark.slow
def test_two_processes_may_not_work_in_one_folder(tmp_path):
    with (
        RunFolder(tmp_path / "run"),
        pytest.raises(StorageError, match="this process is at work there already"),
    ):
        run(tmp_path / "run")
    assert run(tmp_path / "run").status == "completed"


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_two_sweeps_may_not_share_a_folder(command, tmp_path):
    lock = SweepFolder(tmp_path / "sweep")
    arguments = ["-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep"]
    done = fmbench(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert done.stderr.startswith("fmbench: sweep: another process is at work there")
    assert names(tmp_path / "sweep") == [LOCK_NAME]
    lock.release()
    assert command(*arguments)[0] == 0
    assert len(records(tmp_path)) == 2


@pytest.mark.slow
def test_two_starts_in_one_second(tmp_path):
    with started(*TINY, cwd=tmp_path) as one, started(*TINY, cwd=tmp_path) as other:
        assert [child.communicate(timeout=120) and child.returncode for child in (one, other)] == [
            0,
            0,
        ]
    assert [record["status"] for record in records(tmp_path)] == ["completed", "completed"]


def test_the_clock_is_set_back(monkeypatch, tmp_path):
    real = time.time
    calls = itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() - 3600 * (next(calls) > 5))
    run(tmp_path / "run", "checkpoint_every=1")
    (record,) = records(tmp_path)
    assert all(0 <= value < 60 for value in record["seconds"].values())
    assert record["seconds"]["total"] >= record["seconds"]["train"]


def test_a_folder_that_vanishes(monkeypatch, tmp_path):
    after_epoch = RunState.after_epoch

    def vanish(self, line):
        after_epoch(self, line)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)

    monkeypatch.setattr(RunState, "after_epoch", vanish)
    with pytest.raises(StorageError, match=r"cannot be written: No such file or directory"):
        run(tmp_path / "run")


@pytest.mark.slow
def test_a_restart_that_cannot_begin_leaves_what_the_record_knew(
    stopped_run, monkeypatch, tmp_path
):
    """The data were moved, say: only status and error are of the last start."""
    stopped_run(7)
    (before,), history = records(tmp_path), (tmp_path / "run" / "history.jsonl").read_bytes()
    assert before["test_accuracy"] is not None

    class GoneError(Exception):
        pass

    def gone(*_):
        written.extend(records(tmp_path))
        raise GoneError("no such folder")

    written = []
    for name in ("read_inputs", "make_trainer"):  # before and after it knows its model and device
        with monkeypatch.context() as patched:
            patched.setattr(runs, name, gone)
            with pytest.raises(GoneError):
                run(tmp_path / "run")
        (after,) = records(tmp_path)
        assert after == {**before, "status": "failed", "error": "GoneError: no such folder"}
        assert written[-1] == {**before, "status": "running", "error": None}
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == history
    assert run(tmp_path / "run").status == "completed"
    assert records(tmp_path)[0]["restarts"][0]["images"] == 128


@pytest.mark.slow
def test_a_later_look_at_the_test_set_that_fails_leaves_the_record(monkeypatch, tmp_path):
    run(tmp_path / "run", "evaluation.every=null", "evaluation.test=never", "keep_checkpoint=true")
    before = records(tmp_path)
    monkeypatch.setattr(runs, "evaluate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "run", "evaluation.every=null", "keep_checkpoint=true")
    assert records(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_each_signal_says_what_it_was(number, tmp_path):
    stop = stopped(tmp_path / "run", 3, number=number)
    assert stop.exit_status == 128 + number
    assert records(tmp_path)[0]["error"] == f"stopped by {signal.Signals(number).name}"


def test_a_run_with_another_config_may_not_go_on(stopped_run, tmp_path):
    stopped_run(7)
    with pytest.raises(StorageError, match=r"another one \(epochs is 3 there and 4 here"):
        run(tmp_path / "run", "epochs=4")
    with pytest.raises(StorageError, match=r"evaluation\.every is 1 there and null here"):
        run(tmp_path / "run", "evaluation.every=null")
