"""The folder of a run: what is written there, and which run it holds."""

import fcntl
import json
import os
import pickle
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from datetime import datetime
from math import nan
from pathlib import Path

import pytest
from commands import CHECKOUT
from records import PUBLISHED, record

from fmbench.cli.summary import summary
from fmbench.core import files
from fmbench.core.errors import StorageError
from fmbench.core.files import LOCK_NAME, FolderLock
from fmbench.records.folder import RunFolder, SweepFolder, held, leftovers, mark_ended, read_record
from fmbench.records.record import Record
from fmbench.tracking import final, settings


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "run") as made:
        yield made


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)  # of the current folder: a longer name may not be bound


@pytest.mark.parametrize(("name", "make", "said"), [
    ("FIFO", os.mkfifo, "not a regular file"),
    ("FIFO through a link", lambda path: (os.mkfifo("pipe"), path.symlink_to("pipe")),
     "not a regular file"),
    ("device", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    ("terminal", lambda path: path.symlink_to("/dev/ptmx"), "not a regular file"),
    ("socket", _socket, "not a regular file"),
    ("folder", os.mkdir, "not a regular file"),
    ("large", lambda path: path.write_bytes(bytes(11)), "too large: 11 bytes, at most 10 are read"),
    ("nothing", lambda path: None, "No such file or directory"),
    ("loop", lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
], ids=lambda value: value if type(value) is str else "")  # fmt: skip
def test_only_a_regular_file_within_its_bound_is_opened(tmp_path, monkeypatch, name, make, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    make(path)
    before = list(Path("/proc/self/fd").iterdir())
    for read in (files.open_regular, files.read_regular):
        with pytest.raises(OSError, match=f"^\\[Errno \\d+\\] {said}"):
            read(path, 10)
    assert list(Path("/proc/self/fd").iterdir()) == before


def test_a_file_is_read_through_a_link(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(path)
    assert files.read_regular(tmp_path / "link", 10) == b"0123456789"
    # The system says of it that it is empty, and it never ends as long as somebody reads it.
    assert files.read_regular("/proc/self/status", 10) == b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit for the size of a file")
def test_a_line_of_history_that_does_not_fit_leaves_no_part(folder):
    import resource

    folder.append_history({"epoch": 0})
    path = folder.path / "history.jsonl"
    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 5, before[1]))
    try:
        with pytest.raises(StorageError, match=r"history.jsonl: cannot be written: the disk is"):
            folder.append_history({"epoch": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole
    folder.append_history({"epoch": 1})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize("kept", [True, False])
def test_the_checkpoints_of_a_run_at_its_end_stay_where_they_were_asked_for(kept, folder):
    for path in folder.checkpoints:
        path.write_bytes(b"a")
    folder.tidy(Record.from_json(json.dumps(record(config={"keep_checkpoint": kept}))))
    assert [path.exists() for path in folder.checkpoints] == [kept, kept]


def test_a_config_that_has_less_is_another(folder):
    evaluation = {"every": None, "test": "end"}
    config = {"epochs": 3, "model": {"width": 4, "depth": 2}, "evaluation": evaluation}
    (folder.path / "result.json").write_text(json.dumps(record(config=config)))
    assert held(folder.path, config).config == config
    assert held(folder.path, {**config, "threads": 2}).config == config
    less = {"epochs": 3, "model": {"width": 4}}
    with pytest.raises(StorageError, match=r"model.depth is 2 there and not set here"):
        held(folder.path, less)


def test_a_run_of_before_the_modules_moved_is_the_same_run(folder):
    """Its schedule has another path, and `test_every` stands where `evaluation` does today."""
    scheduler = {"_target_": "fmbench.schedule.onecycle", "warmup": 0.3}
    former = {"epochs": 3, "scheduler": scheduler, "test_every": 1}
    (folder.path / "result.json").write_text(json.dumps(record(config=former)))
    moved = {**scheduler, "_target_": "fmbench.optim.schedules.onecycle"}
    today = {"epochs": 3, "scheduler": moved, "evaluation": {"every": 1, "test": "end"}}
    assert held(folder.path, today).config == today


def test_a_history_alone_is_a_run_too(folder):
    assert held(folder.path, {}) is None
    folder.append_history({"epoch": 0})
    with pytest.raises(StorageError, match=r"it holds history.jsonl and no result.json"):
        held(folder.path, {})


def test_a_sweeps_folder_is_its_own_until_it_lets_go(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").touch()
    folder = SweepFolder(tmp_path)
    with pytest.raises(StorageError, match="this process is at work there already"):
        SweepFolder(tmp_path)
    folder.release()
    FolderLock(tmp_path).release()
    assert (tmp_path / "0").is_dir()  # what others have left stays


def test_a_sweeps_folder_that_was_made_for_nothing_goes_again(tmp_path):
    SweepFolder(tmp_path / "new" / "sweep").release()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    SweepFolder(tmp_path / "mine").release()  # refused: others' runs are there
    assert {path.name for path in tmp_path.rglob("*")} == {"mine", LOCK_NAME}
    folder = SweepFolder(tmp_path / "mine")
    (tmp_path / "mine" / "0").mkdir()
    folder.release()
    assert LOCK_NAME in {path.name for path in (tmp_path / "mine").iterdir()}


def test_files_that_no_run_has_left_are_not_written_over(folder):
    for name in ("predictions.npy", "model.safetensors", "checkpoint.pt", "notes.txt", "data/x"):
        path = folder.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"somebody's own")
        with pytest.raises(StorageError) as raised:
            held(folder.path, {})
        said = f"is no folder of a run, it holds {name.partition('/')[0]} and no result.json"
        assert str(raised.value) == f"{folder.path}: {said}; take another folder"
        path.unlink()


def test_what_an_editor_leaves_is_not_taken_for_half_of_a_record(folder):
    for name in (".result.json.swp", ".result.json.12.0123abcd", ".history.jsonl.orig"):
        (folder.path / name).touch()
    folder.clean()
    left = {path.name for path in folder.path.iterdir()}
    assert left == {LOCK_NAME, ".result.json.swp", ".history.jsonl.orig"}


# The lock


def test_the_lock_is_on_a_file_that_says_who_has_it_and_that_stays(tmp_path):
    lock = FolderLock(tmp_path)
    said = json.loads((tmp_path / LOCK_NAME).read_text())
    assert (said["process"], said["host"]) == (os.getpid(), socket.gethostname())
    assert datetime.fromisoformat(said["since"]).tzinfo is not None
    lock.release()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    FolderLock(tmp_path).release()


#: Takes a folder's lock, says so, and waits.
HOLDER = """
import sys
from pathlib import Path
from fmbench.core.files import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_who_holds_it_is_named_and_its_death_lets_go(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        text=True,
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(StorageError) as raised:
            FolderLock(tmp_path)
        said = f"another process is at work there (process {other.pid} on {socket.gethostname()}, "
        assert said in str(raised.value)
        other.send_signal(signal.SIGKILL)
    assert f'"process": {other.pid}' in (tmp_path / LOCK_NAME).read_text()  # stale, and no matter
    FolderLock(tmp_path).release()


@pytest.mark.parametrize("text", [b"", b"\xff" * 5000, b"[" * 900, b"[]", b'{"host": 1}', b"1"])
def test_a_lock_file_may_say_anything(text, tmp_path):
    with (tmp_path / LOCK_NAME).open("wb") as file:
        file.write(text)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process is at work there; take"):
            FolderLock(tmp_path)


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    for target in ("precious", "nothing"):
        (folder / LOCK_NAME).symlink_to(tmp_path / target)
        with pytest.raises(StorageError, match="cannot be written: it is a link"):
            FolderLock(folder)
        (folder / LOCK_NAME).unlink()
    (folder / LOCK_NAME).hardlink_to(tmp_path / "precious")
    (tmp_path / "precious").chmod(0o640)
    FolderLock(folder).release()
    assert (tmp_path / "precious").read_text() == "mine"
    assert stat.S_IMODE((tmp_path / "precious").stat().st_mode) == 0o640
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("folder", "file"), [(0o755, 0o600), (0o700, 0o600), (0o775, 0o660), (0o2775, 0o660),
                         (0o777, 0o666), (0o1777, 0o600)]
)  # fmt: skip
@pytest.mark.parametrize("there", [False, True], ids=["new", "of an older version"])
def test_who_may_only_read_a_folder_cannot_open_its_lock(folder, file, there, tmp_path):
    tmp_path.chmod(folder)
    if there:
        (tmp_path / LOCK_NAME).touch()
        (tmp_path / LOCK_NAME).chmod(0o644)
    FolderLock(tmp_path).release()
    assert stat.S_IMODE((tmp_path / LOCK_NAME).stat().st_mode) == file


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can be somebody else too")
def test_somebody_else_cannot_hold_the_lock_of_a_folder(tmp_path):
    """Of a file that one may read alone one may hold the lock, which keeps its owner out."""
    with RunFolder(Path(tempfile.mkdtemp()) / "run") as run_folder:
        folder = run_folder.path
    try:
        folder.parent.chmod(0o755)
        child = os.fork()
        if not child:
            os.setuid(65534)
            try:
                fcntl.flock(os.open(folder / LOCK_NAME, os.O_RDONLY), fcntl.LOCK_EX)
            except PermissionError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        shutil.rmtree(folder.parent)


def test_a_copy_in_another_process_holds_nothing(tmp_path):
    """Launchers pickle Hydra's callbacks, one of which has the folder of the sweep."""
    folder = SweepFolder(tmp_path / "sweep")
    pickle.loads(pickle.dumps(folder)).lock.release()
    with pytest.raises(StorageError, match="this process"):
        FolderLock(tmp_path / "sweep")
    folder.release()


def test_a_forked_child_does_not_hold_its_parents_lock(tmp_path):
    lock = FolderLock(tmp_path)
    end, other_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(other_end)
        os.read(end, 1)  # until the parent has closed its own
        os._exit(0)
    try:
        os.close(end)
        with pytest.raises(StorageError):
            FolderLock(tmp_path)
        lock.release()
        FolderLock(tmp_path).release()
    finally:
        os.close(other_end)
        os.waitpid(child, 0)


def test_where_there_are_no_locks_it_goes_on_and_says_so_once(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    files._warn_unlocked.cache_clear()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        FolderLock(tmp_path / name).release()
    assert caplog.text.count("its file system has no locks") == 1


def test_a_full_disk_does_not_take_the_lock_away(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        lock = FolderLock(tmp_path)
    with pytest.raises(StorageError, match="another process"):
        FolderLock(tmp_path)
    lock.release()


def test_a_run_at_its_end_with_nothing_to_remove_needs_no_lock(folder):
    done = Record.from_json(json.dumps(record()))
    assert leftovers(folder.path, done) == []
    (folder.path / "checkpoint.pt").touch()
    assert [path.name for path in leftovers(folder.path, done)] == ["checkpoint.pt"]


@pytest.mark.parametrize(("came", "here", "said"), [
    ("fp32", "fp32", None),
    ("bf16", "auto", None),
    (None, "fp32", None),  # nothing was computed yet
    ("bf16", "fp32", r'is "bf16" there and "fp32" here\); precision=auto goes on with it; else '),
])  # fmt: skip
def test_what_auto_came_to_is_what_there_is(folder, came, here, said):
    """Experiments left their number format to the hardware once."""
    config = {"epochs": 3, "precision": "auto"}
    fingerprint = {} if came is None else {"precision": came}
    there = record(config=config, fingerprint=fingerprint)
    (folder.path / "result.json").write_text(json.dumps(there))
    if said is None:
        assert held(folder.path, {**config, "precision": here}) is not None
    else:
        with pytest.raises(StorageError, match=said):
            held(folder.path, {**config, "precision": here})


def _changed(made):
    """A record with each of its values in turn, two levels deep, of each other type, or gone."""
    others = [None, True, -1, 10**30, "x", [], {"a": 1}, nan]
    for name, part in made.items():
        inner = part if isinstance(part, dict) else {}
        for value in others:
            yield {**made, name: value}
            yield from ({**made, name: {**inner, key: value}} for key in inner)
        yield {key: made[key] for key in made if key != name}
        yield from ({**made, name: {k: inner[k] for k in inner if k != key}} for key in inner)


@pytest.mark.parametrize("status", ["interrupted", "completed"])
def test_a_tampered_record_ends_in_one_line(tmp_path, status):
    made = record(**PUBLISHED, status=status, config__keep_checkpoint=True)
    path, read, refused = tmp_path / "result.json", 0, 0
    for changed in _changed(made):
        path.write_text(json.dumps(changed))
        try:
            there = held(tmp_path, made["config"])
        except StorageError as error:
            refused += re.match(f"{tmp_path}: (its|holds)", str(error)) is not None
            read -= "\n" in str(error)
            continue
        there.to_json()
        leftovers(tmp_path, there)
        if there.status == "completed":
            summary(there, tmp_path)
        settings(there), final(there)
        read += 1
    assert read > 100
    assert refused > 300


@pytest.mark.parametrize("content", [
    b"", b"{", b"\xff", b"[]", b"1", b"null", b"[" * 100_000, b'{"schema": 1}', b"9" * 10_000,
    json.dumps(record(config={"a": [[[]]] * 9})).replace("[[]]", "[" * 90 + "]" * 90).encode(),
    b'{"schema": 1, "a": 1e999}', bytes(2**20 + 1),
], ids=range(12))  # fmt: skip
def test_what_is_no_record_ends_in_one_line(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(StorageError, match=r": its result.json cannot be read \(") as said:
        held(tmp_path, {})
    assert len(str(said.value).splitlines()) == 1
    with pytest.raises((OSError, ValueError)):
        read_record(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_record_that_never_ends_is_not_waited_for(tmp_path, make):
    make(tmp_path / "result.json")
    with pytest.raises(StorageError, match=r"cannot be read|link|regular"):
        held(tmp_path, {})
    with pytest.raises(OSError, match="not a regular file"):
        read_record(tmp_path)
    mark_ended(tmp_path, "failed", "gone")  # there is nothing to be marked
