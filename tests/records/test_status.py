"""How far runs are, by what lies in their folders while others write, die or copy."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import CHECKOUT
from records import record, write
from searches import put, trial

from fmbench.core.errors import ConfigError
from fmbench.core.files import LOCK_NAME, FolderLock, lock_of
from fmbench.records.status import DETACHED_NAME, Reader, newest, read_run
from fmbench.records.status_text import duration, of_sweep, total


def run_of(folder, lines=(), *, text="", **changes):
    """A run's folder with these epochs, each of 2 s, and perhaps more text behind them."""
    write(folder, **changes)
    history = [json.dumps(line | {"seconds": 2.0}) + "\n" for line in lines]
    (folder / "history.jsonl").write_text("".join(history) + text, "utf-8")
    return folder


def epochs(*accuracies, part="validation"):
    return [
        {"epoch": n, f"{part}_accuracy": x, "train_loss": 1.0} for n, x in enumerate(accuracies)
    ]


def held_by(folder, host, process=1):
    """A lock file that nobody holds, as a process of this host left it."""
    said = {"host": host, "process": process, "since": "2026-11-20T23:00:00+00:00"}
    (folder / LOCK_NAME).write_text(json.dumps(said))


def only(*folders):
    (sweep,) = Reader(folders).read()
    return sweep


def text_of(sweep):
    return "\n".join(line.text for line in of_sweep(sweep))


def test_a_run_at_work_says_epoch_accuracy_speed_and_time_left(tmp_path):
    folder = run_of(tmp_path / "0", epochs(0.5, 0.6, 0.7), status="running", epochs=10)
    lock = FolderLock(folder)
    run = read_run(folder)
    assert (run.state, run.epoch, run.epochs) == ("running", 3, 10)
    assert (run.accuracy, run.accuracy_of) == (0.7, "validation")
    assert run.images_per_second == 30_000  # 60,000 images in 2 s
    assert 12 <= run.seconds_left <= 14
    assert (run.lock.held, run.lock.host, run.lock.process) == (
        True, socket.gethostname(), os.getpid(),
    )  # fmt: skip
    lock.release()
    died = read_run(folder)
    assert (died.state, died.epoch, died.seconds_left) == ("dead", 3, None)
    # Longer in its epoch than the ones before took: no time is left of that one, and never less.
    os.utime(folder / "history.jsonl", (0, 0))
    with_lock = FolderLock(folder)
    assert read_run(folder).seconds_left == 12
    with_lock.release()


@pytest.mark.parametrize("status", [
    "completed", "pruned", "infeasible", "diverged", "failed", "interrupted"
])  # fmt: skip
def test_a_run_that_has_ended_is_what_its_record_says(tmp_path, status):
    lines = epochs(0.1, 0.2, part="test")
    folder = run_of(
        tmp_path / "0", lines, status=status, error=None if status == "completed" else "why"
    )
    run = read_run(folder)
    assert (run.state, run.accuracy, run.accuracy_of) == (status, 0.9001, "test")
    assert run.epoch == (3 if status == "completed" else 2)
    assert run.images_per_second == 22_000
    assert (run.seconds_left, run.lock) == (None, None)


def test_a_run_before_its_first_record(tmp_path):
    folder = tmp_path / "0"
    (folder / ".hydra").mkdir(parents=True)
    assert read_run(folder) is None
    lock = FolderLock(folder)
    assert read_run(folder).state == "starting"
    sweep = only(tmp_path)
    assert (sweep.counts, sweep.at_work) == ({"starting": 1}, True)
    lock.release()
    assert Reader([tmp_path]).read() == []


def test_a_run_of_another_machine_counts_as_at_work(tmp_path):
    """Not every disk passes locks on: a free one says nothing then, its last write does."""
    folder = run_of(tmp_path / "0", epochs(0.5), status="running")
    held_by(folder, "node7")
    os.utime(folder / "history.jsonl", (time.time() - 7200,) * 2)
    run = read_run(folder)
    assert (run.state, run.lock.held, run.lock.host) == ("running", None, "node7")
    assert "running on node7 (wrote 2.0 h ago)" in text_of(only(tmp_path))
    held_by(folder, socket.gethostname())
    assert read_run(folder).state == "dead"


def test_a_run_that_ends_while_it_is_looked_at_is_not_dead(tmp_path, monkeypatch):
    from fmbench.records import status

    folder = run_of(tmp_path / "0", status="running")

    def ended(path):
        write(folder)
        return lock_of(path)

    monkeypatch.setattr(status, "lock_of", ended)
    assert read_run(folder).state == "completed"


def test_a_look_at_a_lock_keeps_nobody_out(tmp_path):
    """A run that starts in the instant of the look waits for it."""
    import fcntl

    FolderLock(tmp_path).release()
    with (tmp_path / LOCK_NAME).open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        code = (
            "import fcntl, sys, time; from pathlib import Path\n"
            "from fmbench.core.files import FolderLock\n"
            "print('ready', flush=True); FolderLock(Path(sys.argv[1]))\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        ) as starting:  # fmt: skip
            assert starting.stdout.readline() == "ready\n"
            time.sleep(0.05)
            fcntl.flock(looking, fcntl.LOCK_UN)
            assert starting.wait(30) == 0
    before = (tmp_path / LOCK_NAME).read_bytes()
    assert lock_of(tmp_path).held is False
    assert (tmp_path / LOCK_NAME).read_bytes() == before


@pytest.mark.parametrize(("text", "epoch"), [
    ("", None), ('{"epoch": 1, "validation_acc', 1), ('{"epoch": 1, "train_loss": NaN}\n', 2),
    ("[" * 2000 + "\n", 1), ('{"epoch": -5}\n{"epoch": 1e9}\nnull\n', 1), ("x" * 9000, 0),
])  # fmt: skip
def test_what_is_half_there_of_a_history_costs_an_epoch(tmp_path, text, epoch):
    folder = run_of(tmp_path / "0", epochs(0.5), text=text, status="running")
    if epoch is None:
        (folder / "history.jsonl").unlink()
    assert read_run(folder).epoch == (epoch or 0)


@pytest.mark.parametrize("content", [
    b"", json.dumps(record())[:500].encode(), b"{}", b"[" * 5000, b"\xff" * 10, b"x" * (2**20 + 1),
    json.dumps(record(overrides=["x" * 60_000] * 2)).encode(),
    json.dumps(record(status="excellent")).encode(),
    json.dumps(record(epochs=-1)).encode(),
    json.dumps(record(schema=99)).encode(),
])  # fmt: skip
def test_what_is_no_record_is_a_run_that_cannot_be_read(tmp_path, content):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_bytes(content)
    write(tmp_path / "1")
    sweep = only(tmp_path)
    assert sweep.counts == {"completed": 1, "unreadable": 1}
    assert sweep.runs[0].error.startswith("result.json: ")
    assert "unreadable" in text_of(sweep)


def test_links_and_pipes_are_not_read(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / "runs" / name, status="running")
    os.mkfifo(tmp_path / "runs" / "a" / "history.jsonl")
    (tmp_path / "runs" / "b" / "result.json").unlink()
    os.mkfifo(tmp_path / "runs" / "b" / "result.json")
    elsewhere = tmp_path / "lock"
    with elsewhere.open("w"):
        (tmp_path / "runs" / "c" / LOCK_NAME).symlink_to(elsewhere)
        sweep = only(tmp_path / "runs")
    assert [run.state for run in sweep.runs] == ["dead", "unreadable", "running"]
    assert sweep.runs[2].lock.held is None  # nobody's lock file is opened through a link


def test_what_a_stranger_says_is_shown_and_does_not_act(tmp_path):
    bad = "\x1b[2J\u202e"
    write(tmp_path / f"a{bad}", overrides=[f"model={bad}"], status="failed", error=f"{bad}\nx")
    held_by(run_of(tmp_path / "b", status="running"), bad)
    text = text_of(only(tmp_path))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 4


# Sweeps


def planned(folder, *overrides, params=None, zips=None):
    plan = {"hydra": {"overrides": {"task": list(overrides)}, "sweeper": {"params": params}}}
    plan["sweep"] = {"zip": zips}
    (folder / "multirun.yaml").write_text(json.dumps(plan))


@pytest.mark.parametrize(("overrides", "runs"), [
    (["model=lenet,resnet18", "seed=range(0,3)", "epochs=2"], 6),
    (["seed=0,1", "seed=0,1,2"], 3), (["batch_size=choice(1,2)", "~scheduler"], 2),
    (["model=glob(*)"], None), (["seed=range(0,1e18)"], None), (["seed=" + "(" * 500], None),
    (["x" * 30_000], None), ([3], None),
])  # fmt: skip
def test_how_many_runs_a_grid_has_is_what_was_typed(tmp_path, overrides, runs):
    write(tmp_path / "0")
    planned(tmp_path, *overrides)
    sweep = only(tmp_path)
    assert sweep.total == runs
    assert sweep.counts == {"completed": 1} | ({"waiting": runs - 1} if runs else {})


def test_params_of_a_grid_count_too_and_a_shorter_command_takes_no_runs_away(tmp_path):
    for name in "012":
        write(tmp_path / name)
    planned(tmp_path, "seed=0,1", params={"batch_size": "1,2"})
    assert total(only(tmp_path)) == "3 of 4 completed, 1 waiting"
    planned(tmp_path, "seed=0,1")
    assert total(only(tmp_path)) == "3 of 3 completed"
    paired = ["model=lenet,resnet18,vgg_light", "batch_size=1,2,3", "seed=0,1"]
    planned(tmp_path, *paired, zips=["model", "batch_size"])
    assert total(only(tmp_path)) == "3 of 6 completed, 3 waiting"
    planned(tmp_path, *paired, zips=["model", "seed"])
    assert only(tmp_path).total is None


@pytest.mark.parametrize("content", [
    "", "hydra: [", "[" * 3000, "hydra: {}", "hydra: 3", "&a [*a]", "x" * 2**18, "\xff",
    "hydra: {overrides: {task: seed}, sweeper: {}}",
])  # fmt: skip
def test_a_plan_that_is_none_gives_no_total(tmp_path, content):
    write(tmp_path / "0")
    (tmp_path / "multirun.yaml").write_bytes(content.encode("latin-1"))
    assert only(tmp_path).total is None


def test_a_search_says_how_many_trials_and_the_best_so_far(tmp_path):
    for name in ("0", "1"):
        write(tmp_path / name, overrides=["model=lenet", f"batch_size={name}", "threads=1"])
    trials = [trial(0), trial(1, values=[0.95]), trial(2, folder="/others/0")]
    put(tmp_path, trials=trials, total=8, best=[1])
    sweep = only(tmp_path)
    assert total(sweep) == "2 of 8 completed, 5 waiting, 1 in other folders"
    assert "best so far: validation_accuracy 0.95 of trial 1 (" in text_of(sweep)
    assert sweep.varying[str(tmp_path / "1")] == ("batch_size=1",)
    with (tmp_path / "search.json").open("r+") as file:
        file.truncate(99)
    sweep = only(tmp_path)
    assert (sweep.total, sweep.search) == (None, None)
    assert sweep.problem.startswith("search.json: half-written or not JSON")
    assert "search.json: half-written" in text_of(sweep)


def test_a_trial_of_several_runs_counts_as_many(tmp_path):
    """Of the first three runs two were needed: the others of a trial that failed are not begun."""
    several = [trial(0, state="failed", values=None, runs=3), trial(1, folder="3", runs=3)]
    running = [trial(2, state="running", values=None, folder="6", runs=3)]
    for number, state in enumerate(["completed", "failed", None, *["completed"] * 3, "running"]):
        if state:
            write(tmp_path / str(number), status=state)
    put(tmp_path, trials=[*several, *running], total=5, best=[1])
    sweep = only(tmp_path)
    assert sweep.total == 2 + 3 + 3 + 2 * 3
    assert sweep.counts["waiting"] == 8  # of a trial that is at work two, and of two others all
    assert "of trial 1 in 3, the mean of 3 (" in text_of(sweep)


def test_a_search_that_has_just_begun_says_how_many_runs_there_will_be(tmp_path):
    put(tmp_path, trials=[], total=5, best=[], runs=3)
    assert only(tmp_path).counts == {"waiting": 15}


@pytest.mark.parametrize(("states", "at_work"), [
    (["completed"], True),  # the other waits
    (["completed", "interrupted"], True),
    (["completed", "failed"], False),
    (["completed", "running"], False),  # dead
])  # fmt: skip
def test_a_detached_sweep_is_at_work_while_jobs_may_be_in_the_queue(tmp_path, states, at_work):
    planned(tmp_path, "seed=0,1")
    for number, state in enumerate(states):
        write(tmp_path / str(number), status=state)
    assert not only(tmp_path).at_work
    (tmp_path / DETACHED_NAME).write_text("12\n")
    sweep = only(tmp_path)
    assert sweep.at_work == at_work
    assert ("may wait in the cluster's queue" in text_of(sweep)) == at_work


def test_runs_belong_to_the_nearest_sweep_above_them(tmp_path):
    write(tmp_path / "sweep" / "model=lenet" / "0", status="failed")
    write(tmp_path / "sweep" / "10")
    write(tmp_path / "sweep" / "9")
    planned(tmp_path / "sweep", "seed=0,1,2")
    write(tmp_path / "alone")
    lock = FolderLock(tmp_path / "sweep")
    alone, sweep = Reader([tmp_path]).read()
    assert (Path(alone.folder), alone.total, alone.at_work) == (tmp_path, 1, False)
    assert [Path(run.folder).name for run in sweep.runs] == ["0", "9", "10"]
    assert (sweep.counts, sweep.at_work) == ({"completed": 2, "failed": 1}, True)
    lock.release()


def test_a_sweep_that_has_just_begun_has_no_runs_and_no_total(tmp_path):
    lock = FolderLock(tmp_path)
    sweep = only(tmp_path)
    assert (sweep.runs, sweep.total, sweep.at_work) == ((), None, True)
    lock.release()
    assert Reader([tmp_path]).read() == []


def test_runs_that_have_ended_are_read_once(tmp_path, monkeypatch):
    from fmbench.records import status

    write(tmp_path / "0")
    run_of(tmp_path / "1", epochs(0.5), status="running")
    reader, looked = Reader([tmp_path]), []
    first = reader.read()
    real = status._looked_at
    monkeypatch.setattr(status, "_looked_at", lambda path: looked.append(path) or real(path))
    assert reader.read() == first
    assert {Path(path).name for path in looked} == {"1"}
    write(tmp_path / "0", status="pruned")
    assert reader.read()[0].counts == {"pruned": 1, "dead": 1}


def test_the_newest_is_what_was_started_last(tmp_path):
    assert newest([tmp_path / "multirun", tmp_path / "outputs"]) is None
    old, new = tmp_path / "multirun" / "day" / "a", tmp_path / "outputs" / "day" / "b"
    for folder, when in ((old, 100), (new, 200)):
        write(folder)
        held_by(folder, "here")
        os.utime(folder / LOCK_NAME, (when, when))
    assert newest([tmp_path / "multirun", tmp_path / "outputs"]) == new
    os.utime(old / LOCK_NAME, (300, 300))
    assert newest([tmp_path / "multirun", tmp_path / "outputs"]) == old


def test_no_such_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        Reader([tmp_path / "nowhere"]).read()


@pytest.mark.parametrize(("seconds", "said"), [
    (0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h"), (200_000, "2.3 d"),
])  # fmt: skip
def test_times_are_said_in_one_unit(seconds, said):
    assert duration(seconds) == said


def test_a_folder_is_read_at_every_point_of_its_copy(tmp_path):
    """File by file, and each in two halves: what is not there yet makes no run but its own fail."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    for number in range(2):
        run_of(source / str(number), epochs(0.5, 0.6), overrides=[f"seed={number}"])
    planned(source, "seed=0,1")
    put(source, total=4)
    copy.mkdir()
    seen = set()
    for path in sorted(source.rglob("*")):
        there = copy / path.relative_to(source)
        if path.is_dir():
            there.mkdir()
            continue
        content = path.read_bytes()
        for part in (b"", content[: len(content) // 2], content):
            there.write_bytes(part)
            for sweep in Reader([copy]).read():
                seen.update(sweep.counts)
                assert text_of(sweep)
    assert seen == {"completed", "unreadable", "waiting"}
    shutil.rmtree(copy)
