"""`fmbench status`: what it prints, its JSON, its watch, its exit statuses."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import CHECKOUT, TINY, started, wait_for
from records import write
from searches import put, trial

from fmbench.cli import status
from fmbench.core.files import FolderLock


@pytest.fixture
def folder(tmp_path):
    """A search of four trials, two of which have ended."""
    sweep = tmp_path / "multirun" / "day" / "a"
    write(sweep / "0", overrides=["model=lenet", "optimizer.lr=0.0123456789"])
    write(sweep / "1", overrides=["model=lenet", "optimizer.lr=0.1"], status="failed", error="why")
    put(sweep, trials=[trial(0), trial(1, state="failed", values=None)], total=4, best=[0])
    return sweep


def test_the_newest_folder_is_shown(ended, folder, monkeypatch):
    monkeypatch.chdir(folder.parents[2])
    write(Path("outputs") / "b")
    os.utime("outputs/b", (0, 0))
    code, out, err = ended(status.main)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "multirun/day/a: 1 of 4 completed, 2 waiting, 1 failed",
        "best so far: validation_accuracy 0.9 of trial 0 (batch_size=64 optimizer.lr=0.01)",
        "run  state      epoch     accuracy  images/s  left",
        "0    completed    3/3  90.01% test    22,000     -  optimizer.lr=0.01235",
        "1    failed       0/3  90.01% test    22,000     -  optimizer.lr=0.1: why",
        "nothing is at work there; the command that began it goes on with it",
    ]


def test_the_json_is_one_document_with_all_that_is_known(ended, folder):
    code, out, _ = ended(status.main, folder, "--json")
    assert (code, out.count("\n")) == (0, 1)
    made = json.loads(out)
    assert made["schema"] == 1
    (sweep,) = made["sweeps"]
    runs, best = sweep.pop("runs"), sweep["search"].pop("best")
    assert sweep == {
        "folder": str(folder), "at_work": False, "total": 4, "elsewhere": 0, "problem": None,
        "counts": {"completed": 1, "waiting": 2, "failed": 1},
        "search": {
            "study": "lr_batch",
            "objectives": [{"name": "validation_accuracy", "direction": "maximize"}],
        },
    }  # fmt: skip
    assert best == [{
        "number": 0, "folder": "0", "values": [0.9],
        "parameters": {"batch_size": 64, "optimizer.lr": 0.01},
    }]  # fmt: skip
    assert runs[0] == {
        "folder": str(folder / "0"), "state": "completed", "model": "lenet", "epoch": 3,
        "epochs": 3, "accuracy": 0.9001, "accuracy_of": "test", "images_per_second": 22000.0,
        "seconds_left": None, "seconds_idle": None, "error": None, "host": None, "process": None,
        "since": None, "overrides": ["model=lenet", "optimizer.lr=0.0123456789"],
        "varying": ["optimizer.lr=0.0123456789"],
    }  # fmt: skip
    assert json.loads(ended(status.main, folder / "0", "--json")[1])["sweeps"][0]["total"] == 1


def test_names_that_are_no_text_are_in_the_json_all_the_same(ended, tmp_path):
    write(tmp_path / os.fsdecode(b"a\xff"))
    code, out, _ = ended(status.main, tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["sweeps"][0]["runs"][0]["folder"].endswith("a\\xff")
    assert ended(status.main, tmp_path)[0] == 0


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["nowhere"], 2, "fmbench status: nowhere is not a folder"),
    (["--watch", "nowhere"], 2, "fmbench status: nowhere is not a folder"),
    (["--watch", "0"], 2, "fmbench status: --watch 0: seconds must be from 0.1 to 86400"),
    (["--watch", "nan"], 2, "fmbench status: --watch nan: seconds must be"),
    (["--watch", "--json"], 2, "fmbench status: --json prints one document"),
    (["--wacht"], 2, "fmbench status: unrecognized arguments: --wacht; --help explains"),
    ([], 0, "No run below multirun or outputs."),
    (["empty"], 0, "No run below empty."),
    (["--json"], 0, '{"schema": 1, "sweeps": []}'),
    (["--json", "empty"], 0, '{"schema": 1, "sweeps": []}'),
    (["half"], 4, "1 unreadable"),
    (["half", "--json"], 4, '"unreadable": 1'),
])  # fmt: skip
@pytest.mark.usefixtures("here")
def test_exit_statuses(ended, arguments, code, said):
    Path("empty").mkdir()
    Path("half/0").mkdir(parents=True)
    Path("half/0/result.json").write_text('{"schema": 2, "sta')
    found = ended(status.main, *arguments)
    assert found[0] == code
    assert said in found[1] + found[2]
    assert (found[1] + found[2]).count("\n") == 1 or code == 4


def test_a_watch_repeats_lines_and_ends_when_nothing_is_left(ended, folder, monkeypatch):
    write(folder / "2", status="running", overrides=["model=lenet", "optimizer.lr=1"])
    lock, slept = FolderLock(folder / "2"), []

    def goes_on(seconds):
        slept.append(seconds)
        if len(slept) == 3:  # the second look finds nothing new
            lock.release()
            write(folder / "2", overrides=["model=lenet", "optimizer.lr=1"])

    monkeypatch.setattr(status.time, "sleep", goes_on)
    code, out, _ = ended(status.main, folder, "--watch", "7")
    assert (code, slept) == (0, [7, 7, 7])
    lines = out.splitlines()
    assert lines[0].endswith(": 1 of 4 completed, 1 running, 1 waiting, 1 failed")
    assert lines[1].split() == [
        "2",
        "running",
        "0/3",
        "90.01%",
        "test",
        "22,000",
        "-",
        "optimizer.lr=1",
    ]
    assert lines[2] == lines[3]
    assert lines[2].endswith(": 2 of 4 completed, 1 waiting, 1 failed")
    assert len(lines) == 10


def on_a_terminal(*arguments, until):
    """`fmbench ARGUMENTS` on a terminal, stopped by Ctrl-C once it has said this; what it said."""
    ours, theirs = pty.openpty()
    said = b""
    with subprocess.Popen(
        [sys.executable, "-m", "fmbench", *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "TERM": "xterm", "COLUMNS": "60"},
    ) as child:  # fmt: skip
        os.close(theirs)
        while until not in said:
            said += os.read(ours, 65536)
        child.send_signal(signal.SIGINT)
        while True:
            try:
                said += os.read(ours, 65536)
            except OSError:  # the child has closed it
                break
        code = child.wait(60)
    os.close(ours)
    return code, said.decode()


def test_a_watch_on_a_terminal_is_left_by_ctrl_c(folder):
    write(folder / "2", status="running", overrides=["model=lenet", "optimizer.lr=1" + "0" * 99])
    lock = FolderLock(folder / "2")
    code, said = on_a_terminal("status", "--watch", "0.2", str(folder), until=b"running")
    lock.release()
    assert code == 130
    assert "Traceback" not in said
    assert said.index("\x1b[?25l") < said.rindex("\x1b[?25h")  # the cursor is back
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)
    lines = {line.rstrip() for line in shown.splitlines() if line.startswith("2    running")}
    assert lines
    assert all("optimiz…" in line and "10000" not in line for line in lines), lines


def test_a_terminal_shows_those_at_work_first(folder, capsys, monkeypatch):
    for number in range(2, 80):
        write(folder / str(number))
    write(folder / "70", status="running")
    lock = FolderLock(folder / "70")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(SystemExit):
        status.main([str(folder)])
    lock.release()
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.endswith("epochs=3\x1b[0m")]
    assert len(shown) == 48  # and the two with a learning rate
    assert "70   running" in shown[-1]
    assert "\x1b[2mand 30 more\x1b[0m" in lines


@pytest.mark.slow
def test_a_folder_that_is_copied_while_a_sweep_writes_there(tmp_path):
    """The issue's own wish: each file by itself, over and over, and never a traceback."""
    source, copy = tmp_path / "sweep", tmp_path / "copy"
    seen = set()
    arguments = ["-m", *TINY, "epochs=30", "data.train_size=2000", "seed=0,1,2"]
    with started(*arguments, f"hydra.sweep.dir={source}", cwd=tmp_path) as sweep:
        wait_for((source / "0" / "result.json").exists)
        while sweep.poll() is None:
            for path in sorted(source.rglob("*")):
                there = copy / path.relative_to(source)
                if path.is_dir():
                    there.mkdir(parents=True, exist_ok=True)
                    continue
                try:
                    content = path.read_bytes()
                except FileNotFoundError:
                    continue
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(content[: len(content) // 2])
                if path.name in ("result.json", "history.jsonl", "multirun.yaml"):
                    seen |= _shown(copy)
                there.write_bytes(content)
            seen |= _shown(copy) | _shown(source)
            time.sleep(0.1)
        assert sweep.returncode == 0
    assert seen >= {"running", "dead", "unreadable", "completed", "waiting"}
    assert seen <= {*seen, "starting"}
    shutil.rmtree(copy)
    made = status.document(status.Reader([source]).read())["sweeps"][0]
    assert (made["counts"], made["total"], made["at_work"]) == ({"completed": 3}, 3, False)


def _shown(folder):
    found = status.Reader([folder]).read()
    assert list(status._lines(found)) or not found
    return {
        state
        for sweep in json.loads(json.dumps(status.document(found)))["sweeps"]
        for state in sweep["counts"]
    }
