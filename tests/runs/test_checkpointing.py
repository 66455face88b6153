"""A run that was stopped goes on to the bits of one that was not."""

import contextlib
import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import CHECKOUT, TINY, fmbench, records

import fmbench as package
from fmbench.cli.main import main
from fmbench.cli.summary import stopped_line
from fmbench.core import machine
from fmbench.core.errors import StorageError
from fmbench.core.files import LOCK_NAME, FolderLock
from fmbench.core.signals import SIGNALS, StopRequested
from fmbench.records.folder import RunFolder
from fmbench.runs import checkpointing
from fmbench.runs import run as runs
from fmbench.runs.checkpointing import RunState
from fmbench.training.checkpoint import Checkpoints, read_state, write_state
from fmbench.training.trainer import Trainer

#: 200 images in batches of 64: four steps an epoch; 20 of them for validation, so that an epoch has
#: a moment of evaluation in it.
RUN = [*TINY, "epochs=3", "data.split.validation=20", "evaluation.every=1", "keep_model=true"]

#: Where a look into the folder would tell a run that was stopped from one that was not.
CLOCKS = ("seconds", "images_per_second", "started", "peak_memory", "restarts")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", logger="fmbench")
    with pytest.MonkeyPatch.context() as trust:  # which tests do not undo
        trust.setenv("FMBENCH_TRUST", "tutorials")
        yield


@contextlib.contextmanager
def asked_to_stop(moment, number=signal.SIGTERM):
    """Ask the run to stop at the n-th moment at which it may be, counted from 1."""
    count = 0
    between = RunState.after_batch

    def counted(self):
        nonlocal count
        count += 1
        if count == moment:
            self.listener.asked = number
        between(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunState, "after_batch", counted)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the runs that several tests begin with."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def whole(made):
    """The folder of a run in one go; nobody may write there."""
    if not (made / "whole").exists():
        run(made / "whole")
    return made / "whole"


@pytest.fixture
def stopped_run(made, tmp_path):
    """A copy of a run that was stopped at the n-th moment, in the folder `run`."""

    def copy(moment, *overrides):
        folder = made / "_".join([str(moment), *overrides]).replace("=", "_")
        if not folder.exists():
            stopped(folder, moment, *overrides)
        return Path(shutil.copytree(folder, tmp_path / "run"))

    return copy


def run(folder, *overrides):
    return package.run([*RUN, f"hydra.run.dir={folder}", *overrides])


def result(folder):
    """All that a run left, but for its clocks and its log."""
    record = json.loads((folder / "result.json").read_text("utf-8"))
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for line in history:
        del line["seconds"]
    return (
        {name: value for name, value in record.items() if name not in CLOCKS},
        history,
        (folder / "predictions.npy").read_bytes(),
        (folder / "model.safetensors").read_bytes(),
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".hydra")


def stopped(folder, moment, *overrides, number=signal.SIGTERM):
    with asked_to_stop(moment, number), pytest.raises(StopRequested) as raised:
        run(folder, *overrides)
    assert raised.value.saved
    return raised.value


#: A moment that no run reaches.
NEVER = -1

OWN = ["~model.channels", "~model.classes"]

CASES = {
    "lenet": ["model=lenet"],
    "densenet, dropout": ["model=densenet", "model.depth=10", "model.growth=4",
                          "model.dropout=0.2"],
    "shakeshake": ["model=shakeshake", "model.depth=8", "model.base_channels=4"],
    "adamw, augmentation": ["optimizer=adamw", "augmentation=crop_flip_cutout",
                            "label_smoothing=0.1"],
    "adam, erasing": ["optimizer=adam", "augmentation=crop_flip_erasing"],
    "constant": ["scheduler=constant"],
    "step": ["scheduler=step", "scheduler.step_size=1"],
    "multistep": ["scheduler=multistep", "scheduler.milestones=[1,2]"],
    "cosine": ["scheduler=cosine"],
    "onecycle": ["scheduler=onecycle", "scheduler.cycle_momentum=true"],
    "lazy layers, contiguous": ["model._target_=tutorials.LazyResNet", *OWN],
    "a last batch that is joined": ["model._target_=tutorials.NormedMLP", *OWN,
                                    "data.train_size=213"],
}  # fmt: skip

#: Of these, the ones that each run of the fast tests makes.
FEW = ("shakeshake", "adamw, augmentation", "onecycle", "a last batch that is joined")


@pytest.mark.parametrize("overrides", [
    pytest.param(overrides, id=name, marks=[] if name in FEW else pytest.mark.slow)
    for name, overrides in CASES.items()
])  # fmt: skip
def test_a_stopped_run_goes_on_to_the_same_bits(overrides, tmp_path):
    run(tmp_path / "whole", *overrides)
    # An epoch: three steps, one batch of validation, one of test. In the middle of the second.
    stopped(tmp_path / "again", 7, *overrides)
    record = records(tmp_path / "again")[0]
    assert record["status"] == "interrupted"
    assert "checkpoint.pt" in names(tmp_path / "again")
    torch.manual_seed(99)  # another process has other random numbers
    run(tmp_path / "again", *overrides)
    assert result(tmp_path / "again") == result(tmp_path / "whole")
    assert names(tmp_path / "again") == names(tmp_path / "whole")
    restarts = records(tmp_path / "again")[0]["restarts"]
    assert [(entry["epoch"], entry["images"], entry["changed"]) for entry in restarts] == [
        (1, 128, {})
    ]


@pytest.mark.slow
def test_every_moment_of_a_run_is_one_to_go_on_from(whole, tmp_path):
    """Of training, validation and test: each start gets three batches further than the last."""
    starts = 0
    while True:
        starts += 1
        with contextlib.suppress(StopRequested), asked_to_stop(3):
            run(tmp_path / "again")
            break
    assert starts > 4
    assert result(tmp_path / "again") == result(whole)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_says_what_it_was(number, tmp_path):
    stop = stopped(tmp_path / "run", 3, number=number)
    assert stop.exit_status == 128 + number
    assert records(tmp_path)[0]["error"] == f"stopped by {signal.Signals(number).name}"


def test_a_run_that_is_at_its_end_is_left_as_it_is(tmp_path):
    first = run(tmp_path / "run")
    (tmp_path / "run" / LOCK_NAME).unlink()  # as an older fmbench has left it
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(tmp_path)}
    again = run(tmp_path / "run")
    assert again == first
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(tmp_path)}
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize("again", ["command", "api"])
def test_what_a_kill_at_the_very_end_leaves_is_tidied(again, tmp_path):
    run(tmp_path / "run")
    expected = names(tmp_path / "run")
    for name in ("checkpoint.pt", "checkpoint.older.pt", ".result.json.123.0123abcd"):
        (tmp_path / "run" / name).write_bytes(b"left")
    if again == "api":
        run(tmp_path / "run")
    else:
        assert fmbench(*RUN, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path).returncode == 0
    assert names(tmp_path / "run") == expected


def files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_a_completed_run_says_so_and_exits_with_0(command):
    arguments = [*TINY, "hydra.run.dir=here"]
    status, said, _ = command(*arguments)
    assert status == 0
    already = "fmbench: this run is at its end already; nothing was changed in here\n"
    assert command(*arguments) == (0, said, already)


@pytest.mark.slow
def test_a_run_that_diverged_is_at_its_end_too(tmp_path):
    arguments = [*TINY, "hydra.run.dir=here", "optimizer.lr=1e30"]
    first, again = (fmbench(*arguments, cwd=tmp_path) for _ in range(2))
    assert (first.returncode, again.returncode) == (1, 1)
    assert "diverged in epoch 1" in again.stderr.splitlines()[-1]
    assert "nothing was changed" in again.stderr
    assert "checkpoint.pt" not in names(tmp_path / "here")


def test_elapsed_times_add_up(stopped_run, monkeypatch, tmp_path):
    stopped_run(12)
    before = records(tmp_path)[0]["seconds"]
    real = checkpointing.time.perf_counter
    monkeypatch.setattr(checkpointing.time, "perf_counter", lambda: real() + 1000)  # another boot
    run(tmp_path / "run")
    after = records(tmp_path)[0]["seconds"]
    assert after["train"] > before["train"] > 0
    assert before["total"] < after["total"] < before["total"] + 60
    assert after["total"] >= after["train"] + after["evaluate"]


@pytest.mark.parametrize("stops", [False, True])
def test_no_clock_of_training_or_evaluation_counts_what_saving_takes(stops, monkeypatch, tmp_path):
    saved = 0
    real, write = time.perf_counter, Checkpoints.write

    def slow(self, state):
        nonlocal saved
        write(self, state)
        saved += 1

    with monkeypatch.context() as patched:
        clock = SimpleNamespace(perf_counter=lambda: real() + 1000 * saved)
        patched.setattr("fmbench.training.trainer.time", clock)
        patched.setattr(Checkpoints, "write", slow)
        patched.setattr(Checkpoints, "due_within", lambda _: True)
        if stops:
            stopped(tmp_path / "run", 12)
        record = run(tmp_path / "run")
    assert saved > 10
    assert 0 < record.seconds["train"] < 1000
    assert 0 < record.seconds["evaluate"] < 1000
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["seconds"] for line in lines) < 1000


@pytest.mark.parametrize(("kept", "there"), [("true", True), ("false", False)])
def test_the_checkpoint_of_a_completed_run_goes_unless_it_is_asked_for(kept, there, tmp_path):
    run(tmp_path / "run", "checkpoint_every=1", f"keep_checkpoint={kept}")
    assert ("checkpoint.pt" in names(tmp_path / "run")) is there
    assert ("checkpoint.older.pt" in names(tmp_path / "run")) is there


def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole, stopped_run, tmp_path, caplog):
    # In the third epoch: one checkpoint after each of the first two, one at the stop.
    path = stopped_run(12, "checkpoint_every=1") / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    run(tmp_path / "run", "checkpoint_every=1")
    assert "checkpoint.pt is damaged and not used" in caplog.text
    assert "resumes in epoch 3 of 3, after 0 of its 180 images" in caplog.text
    one, other = result(tmp_path / "run"), result(whole)
    assert one[1:3] == other[1:3]


@pytest.mark.parametrize("names", [["checkpoint.pt"], ["checkpoint.pt", "checkpoint.older.pt"]])
def test_what_was_saved_is_said_to_be_damaged(names, whole, stopped_run, tmp_path, caplog):
    for path in stopped_run(12, "checkpoint_every=1").glob("checkpoint*"):
        path.unlink()
    for name in names:
        (tmp_path / "run" / name).write_bytes(b"half")
    run(tmp_path / "run")
    said = f"what its last start saved is damaged ({', '.join(names)})"
    assert f"starts again from the beginning: {said}" in caplog.text
    assert all(f"{name} is damaged and not used" in caplog.text for name in names)
    assert "nothing was saved" not in caplog.text
    assert result(tmp_path / "run")[1:] == result(whole)[1:]


def test_without_a_checkpoint_a_killed_run_starts_again(whole, stopped_run, tmp_path, caplog):
    folder = stopped_run(12)
    (folder / "checkpoint.pt").unlink()
    (folder / LOCK_NAME).unlink()  # as an older fmbench has left it
    run(folder)
    assert "from the beginning: nothing was saved of its last start" in caplog.text
    assert result(folder) == result(whole)


def test_a_run_with_another_config_may_not_go_on(stopped_run, tmp_path):
    stopped_run(7)
    with pytest.raises(StorageError, match=r"another one \(epochs is 3 there and 4 here"):
        run(tmp_path / "run", "epochs=4")
    with pytest.raises(StorageError, match=r"evaluation\.every is 1 there and null here"):
        run(tmp_path / "run", "evaluation.every=null")


def test_threads_may_change_and_the_record_says_so(stopped_run, tmp_path, caplog):
    stopped_run(7)
    run(tmp_path / "run", "threads=2")
    assert "threads changed since" in caplog.text
    assert records(tmp_path)[0]["restarts"][0]["changed"] == {"threads": [1, 2]}


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


def change_record(folder, change):
    """Change the record of a stopped run, and the one in its checkpoint."""

    def changed(text):
        record = json.loads(text)
        change(record)
        return json.dumps(record)

    path = folder / "result.json"
    path.write_text(changed(path.read_text()))
    saved = folder / "checkpoint.pt"
    with saved.open("rb") as file:
        state = read_state(file)
    with saved.open("wb") as file:
        write_state(state | {"record": changed(state["record"])}, file)


def test_a_run_of_an_older_version_may_go_on(tmp_path, caplog):
    """It had no `memory_format`, and ran in channels_last what is contiguous now."""
    narrow = ["model=resnet18", "model.width=4", "model.depths=[1,1]", "epochs=1"]
    stopped(tmp_path / "run", 2, *narrow)

    def older(record):
        del record["config"]["memory_format"]
        record["fingerprint"]["memory_format"] = "channels_last"

    change_record(tmp_path / "run", older)
    with pytest.raises(StorageError, match='memory_format is "auto" there and "contiguous" here'):
        run(tmp_path / "run", *narrow, "memory_format=contiguous")
    run(tmp_path / "run", *narrow)
    assert "memory_format changed since" in caplog.text
    (restart,) = records(tmp_path)[0]["restarts"]
    assert restart["changed"] == {"memory_format": ["channels_last", "contiguous"]}


CLEAN, EDITED = ({"commit": "a" * 40, "dirty": dirty} for dirty in (False, True))
OTHER = {"commit": "b" * 40, "dirty": False}
MAY_DIFFER = ": the bits may be others than those of a run in one go"
CHANGED = "git changed since"
UNKNOWN = "the checkout has uncommitted changes, as it had then"


@pytest.mark.parametrize(("then", "here", "said"), [
    (CLEAN, CLEAN, None),
    (None, None, None),
    (CLEAN, OTHER, CHANGED),
    (CLEAN, EDITED, CHANGED),
    (EDITED, CLEAN, CHANGED),
    (CLEAN, None, CHANGED),
    (EDITED, EDITED, UNKNOWN),
])  # fmt: skip
def test_code_may_change_and_it_is_said(then, here, said, stopped_run, caplog):
    change_record(stopped_run(13), lambda record: record.update(git=then))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "git_state", lambda: here)
        run(Path("run"))
    assert caplog.text.count(MAY_DIFFER) == (said is not None)
    assert said is None or f"{said}{MAY_DIFFER}" in caplog.text
    changed = {"git": [then, here]} if said == CHANGED else {}
    assert records(Path())[0]["restarts"][0]["changed"] == changed


def test_a_checkpoint_of_another_run_is_refused(stopped_run, tmp_path):
    stopped(tmp_path / "two", 3, "seed=5")
    shutil.copy(stopped_run(7) / "checkpoint.pt", tmp_path / "two")
    with pytest.raises(StorageError, match="is of a run with other data or another config"):
        run(tmp_path / "two", "seed=5")


def change(folder, change):
    """Change what the checkpoint of a run says, its SHA-256 too."""
    path = folder / "checkpoint.pt"
    with path.open("rb") as file:
        state = read_state(file)
    change(state)
    with path.open("wb") as file:
        write_state(state, file)


def of_record(**fields):
    return lambda state: state.update(record=json.dumps(json.loads(state["record"]) | fields))


def of_optimizer(state):
    for entries in state["trainer"]["optimizer"]["state"].values():
        entries["momentum_buffer"] = torch.zeros(1)


TAMPERED = {
    "tensors that a fused step would leave": of_optimizer,
    "another key": of_record(key="x"),
    "no key": of_record(key=None),
    "a time of many lines": lambda state: state.update(at="\n* * * * * evil\x1b[2J"),
    "no time": lambda state: state.update(at=None),
    "no record": lambda state: state.update(record=[1]),
    "a deep record": lambda state: state.update(record="[" * 10**5),
    "clocks that are none": of_record(seconds={}),
    "an accuracy as a text": of_record(best_test_accuracy="high"),
    "a fingerprint as a list": of_record(fingerprint=[]),
    "a version that is no number": of_record(fingerprint={"threads": 1, "numpy": math.nan}),
    "a commit beyond all numbers": lambda state: state.update(
        record=state["record"].replace('"git": ', '"git": {"commit": "a", "x": 1e999}, "was": ')
    ),
    "threads below nought": of_record(fingerprint={"threads": -3}),
    "threads as a text": of_record(fingerprint={"threads": "all"}),
    "a history of numbers": lambda state: state.update(history="[5]"),
    "a history of texts": lambda state: state.update(history='[{"epoch": "\x1b[2J"}]'),
    "more history than epochs": lambda state: state.update(history=json.dumps([{}] * 9)),
    "no trainer": lambda state: state.update(trainer=7),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_checkpoint_is_one_line(tamper, stopped_run):
    folder = stopped_run(7)
    history = (folder / "history.jsonl").read_bytes()
    change(folder, tamper)
    with pytest.raises(StorageError) as raised:
        run(folder, "threads=null")
    assert str(raised.value).startswith(f"{folder / 'checkpoint.pt'}: ")
    assert str(raised.value).isprintable()
    assert (folder / "history.jsonl").read_bytes() == history


@pytest.mark.parametrize("tamper", [of_optimizer, of_record(key="x")])
def test_a_later_look_at_the_test_set_reads_no_tampered_checkpoint(tamper, made, tmp_path):
    blind = [*RUN, "evaluation.every=null", "evaluation.test=never", "keep_checkpoint=true"]
    if not (made / "blind").exists():
        package.run([*blind, f"hydra.run.dir={made / 'blind'}"])
    folder = Path(shutil.copytree(made / "blind", tmp_path / "run"))
    change(folder, tamper)
    with pytest.raises(StorageError, match=r"checkpoint.pt: ") as raised:
        run(folder, "evaluation.every=null", "keep_checkpoint=true")
    assert str(raised.value).isprintable()


def test_a_stop_is_heard_while_a_checkpoint_is_read(stopped_run):
    folder = stopped_run(7)

    def asked(self, most, between):
        os.kill(os.getpid(), signal.SIGTERM)
        return read(self, most, between)

    read = Checkpoints.read
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "read", asked)
        with pytest.raises(StopRequested) as raised:
            run(folder)
    assert raised.value.saved
    assert records(folder)[0]["status"] == "interrupted"
    assert run(folder).status == "completed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_heard_while_images_are_waited_for(number, monkeypatch, tmp_path):
    def slow(_config):
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


def test_a_checkpoint_larger_than_one_of_the_run_is_not_read(stopped_run):
    folder = stopped_run(7)
    os.truncate(folder / "checkpoint.pt", 10**13)
    with pytest.raises(StorageError, match="cannot be read: too large"):
        run(folder)


def test_a_disk_that_is_full_for_checkpoints_ends_no_run(monkeypatch, tmp_path, caplog):
    def full(*_arguments):
        raise StorageError("checkpoint.pt: cannot be written: No space left on device")

    monkeypatch.setattr(Checkpoints, "write", full)
    record = run(tmp_path / "run", "checkpoint_every=1")
    assert record.status == "completed"
    assert caplog.text.count("no checkpoint: checkpoint.pt: cannot be written") == 2


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
    assert "; this goes on: " in line
    if not sweep:
        assert (
            "saved, its record is as it was (result.json: cannot be written: No space left on "
            "device); this goes on: "
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


def test_a_lock_that_is_let_go_twice_closes_no_other_file(tmp_path):
    lock = FolderLock(tmp_path)
    lock.release()
    with (tmp_path / "file").open("w") as file:  # takes the number that the lock had
        lock.release()
        file.write("whole")
    assert (tmp_path / "file").read_text() == "whole"


def test_two_processes_may_not_work_in_one_folder(tmp_path):
    with (
        RunFolder(tmp_path / "run"),
        pytest.raises(StorageError, match="this process is at work there already"),
    ):
        run(tmp_path / "run")
    assert run(tmp_path / "run").status == "completed"


@pytest.mark.slow
def test_two_sweeps_may_not_share_a_folder(tmp_path):
    from fmbench.records.folder import SweepFolder

    lock = SweepFolder(tmp_path / "sweep")
    arguments = ["-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep"]
    done = fmbench(*arguments, cwd=tmp_path)
    assert done.returncode == 5
    assert done.stderr.startswith("fmbench: sweep: another process is at work there")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == [LOCK_NAME]
    lock.release()
    assert fmbench(*arguments, cwd=tmp_path).returncode == 0
    assert len(records(tmp_path)) == 2


@pytest.mark.slow
def test_two_starts_in_one_second(tmp_path):
    children = [start(tmp_path) for _ in range(2)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    assert [record["status"] for record in records(tmp_path)] == ["completed", "completed"]


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "fmbench", *TINY],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


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


def test_a_signal_while_saving(whole, tmp_path):
    fsync = os.fsync
    sent = []

    def interrupted(handle):
        if "checkpoint" in str(Path(f"/proc/self/fd/{handle}").readlink()) and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        fsync(handle)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", interrupted)
        stopped(tmp_path / "run", NEVER, "checkpoint_every=1")
    assert sent
    run(tmp_path / "run", "checkpoint_every=1")
    assert result(tmp_path / "run")[1:3] == result(whole)[1:3]


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
    for name in ("read_inputs", "make_trainer"):  # before and after it knows its net and device
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


def test_a_restart_without_a_checkpoint_begins_with_an_empty_record(stopped_run, tmp_path):
    (stopped_run(7) / "checkpoint.pt").unlink()
    stopped(tmp_path / "run", 1)
    (record,) = records(tmp_path)
    assert [record[name] for name in ("test_accuracy", "images_per_second")] == [None, None]
    assert record["seconds"]["train"] == 0


def test_a_later_look_at_the_test_set_that_fails_leaves_the_record(monkeypatch, tmp_path):
    blind = [
        *RUN,
        "evaluation.every=null",
        "evaluation.test=never",
        "keep_checkpoint=true",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    package.run(blind)
    before = records(tmp_path)
    monkeypatch.setattr(runs, "evaluate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "run", "evaluation.every=null", "keep_checkpoint=true")
    assert records(tmp_path) == before


def test_a_run_that_was_begun_when_keys_were_others_goes_on(stopped_run, whole, tmp_path):
    def older(record):
        record.update(schema=1, key="0" * 32, configuration="1" * 32)

    change_record(stopped_run(7), older)
    run(tmp_path / "run")
    assert result(tmp_path / "run") == result(whole)
