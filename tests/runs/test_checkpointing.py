"""A run that was stopped resumes to the bits of one that was not."""

import contextlib
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import records
from stops import NEVER, asked_to_stop, names, result, run, stopped

from fmbench.core.errors import StorageError
from fmbench.core.files import LOCK_NAME, FolderLock
from fmbench.core.signals import StopRequested
from fmbench.runs import checkpointing
from fmbench.runs import run as runs
from fmbench.training.checkpoint import Checkpoints, read_state, write_state

CASES = {
    "lenet": ["model=lenet"],
    "densenet, dropout": ["model=densenet", "model.depth=10", "model.growth=4",
                          "model.dropout=0.2"],
    "shakeshake": ["model=shakeshake", "model.depth=8", "model.base_channels=4"],
    "adamw, augmentation": ["optimizer=adamw", "augmentation=crop_flip_cutout",
                            "label_smoothing=0.1"],
    "adam, erasing": ["optimizer=adam", "augmentation=crop_flip_erasing"],
    "all of augmentation": [
        "augmentation=crop_altflip", "augmentation.affine={}", "augmentation.trivial_augment={}",
        "augmentation.own={_target_: tutorials.Speckle}", "augmentation.mixup={}",
        "augmentation.cutmix={}",
    ],
    "constant": ["scheduler=constant"],
    "step": ["scheduler=step", "scheduler.step_size=1"],
    "multistep": ["scheduler=multistep", "scheduler.milestones=[1,2]"],
    "cosine": ["scheduler=cosine"],
    "onecycle": ["scheduler=onecycle", "scheduler.cycle_momentum=true"],
    "lazy layers, contiguous": ["model._target_=tutorials.LazyResNet"],
    "a last batch that is joined": ["model._target_=tutorials.NormedMLP",
                                    "data.train_size=213"],
    "focal, balanced": ["loss=focal", "loss.class_weights=balanced"],
    "squared error": ["loss=mse"],
    "a loss that remembers": ["loss._target_=tutorials.Centered", "~loss.class_weights",
                              "~loss.label_smoothing"],
}  # fmt: skip


#: Of these, the ones that each run of the fast tests makes.
FEW = (
    "shakeshake",
    "all of augmentation",
    "onecycle",
    "a last batch that is joined",
    "a loss that remembers",
)


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_threads_may_change_and_the_record_says_so(stopped_run, tmp_path, caplog):
    stopped_run(7)
    run(tmp_path / "run", "threads=2")
    assert "threads changed since" in caplog.text
    assert records(tmp_path)[0]["restarts"][0]["changed"] == {"threads": [1, 2]}


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


@pytest.mark.slow
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
    (CLEAN, OTHER, CHANGED),
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
    "a time of many lines": lambda state: state.update(at="\n* * * * * evil\x1b[2J"),
    "no record": lambda state: state.update(record=[1]),
    "a deep record": lambda state: state.update(record="[" * 10**5),
    "a fingerprint as a list": of_record(fingerprint=[]),
    "a version that is no number": of_record(fingerprint={"threads": 1, "numpy": math.nan}),
    "a commit beyond all numbers": lambda state: state.update(
        record=state["record"].replace('"git": ', '"git": {"commit": "a", "x": 1e999}, "was": ')
    ),
    "threads below nought": of_record(fingerprint={"threads": -3}),
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
    blind = ["evaluation.every=null", "evaluation.test=never", "keep_checkpoint=true"]
    if not (made / "blind").exists():
        run(made / "blind", *blind)
    folder = Path(shutil.copytree(made / "blind", tmp_path / "run"))
    change(folder, tamper)
    with pytest.raises(StorageError, match=r"checkpoint.pt: ") as raised:
        run(folder, "evaluation.every=null", "keep_checkpoint=true")
    assert str(raised.value).isprintable()


def test_a_stop_is_heard_while_a_checkpoint_is_read(stopped_run):
    folder = stopped_run(7)

    def asked(self, most):
        os.kill(os.getpid(), signal.SIGTERM)
        return read(self, most)

    read = Checkpoints.read
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "read", asked)
        with pytest.raises(StopRequested) as raised:
            run(folder)
    assert raised.value.saved
    assert records(folder)[0]["status"] == "interrupted"
    assert run(folder).status == "completed"


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


def test_a_lock_that_is_let_go_twice_closes_no_other_file(tmp_path):
    lock = FolderLock(tmp_path)
    lock.release()
    with (tmp_path / "file").open("w") as file:  # takes the number that the lock had
        lock.release()
        file.write("whole")
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.slow
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


def test_a_restart_without_a_checkpoint_begins_with_an_empty_record(stopped_run, tmp_path):
    (stopped_run(7) / "checkpoint.pt").unlink()
    stopped(tmp_path / "run", 1)
    (record,) = records(tmp_path)
    assert [record[name] for name in ("test_accuracy", "images_per_second")] == [None, None]
    assert record["seconds"]["train"] == 0


def test_a_run_that_was_begun_when_keys_were_others_goes_on(stopped_run, whole, tmp_path):
    def older(record):
        record.update(schema=1, key="0" * 32, configuration="1" * 32)

    change_record(stopped_run(7), older)
    run(tmp_path / "run")
    assert result(tmp_path / "run") == result(whole)
