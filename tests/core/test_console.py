"""Standard streams that are closed, full, or gone: nothing is lost, and a line says which."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import CHECKOUT, TINY, python, records

from fmbench.core.console import import_from_here, printed
from fmbench.preview.__main__ import main as preview

FULL = "standard output: cannot be written: No space left on device"
CLOSED = "standard output is closed: nothing was printed"

linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")


@pytest.fixture
def full():
    with Path("/dev/full").open("w", encoding="utf-8") as file:
        yield file
        # As the interpreter at its end; what it could not get rid of is gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def done(folder):
    found = records(folder)
    assert {record["status"] for record in found} == {"completed"}
    assert all((path.parent / "predictions.npy").exists() for path in folder.rglob("result.json"))
    return len(found)


@pytest.fixture(params=[pytest.param("full", marks=linux), "closed"])
def lost(request):
    """A standard stream that is full, or closed, and what is said of it as standard output."""
    if request.param == "closed":
        return None, CLOSED
    return request.getfixturevalue("full"), FULL


def test_a_run_whose_standard_output_is_lost(command, monkeypatch, lost, tmp_path):
    stream, said = lost
    monkeypatch.setattr(sys, "stdout", stream)
    status, _, err = command(*TINY, "hydra.run.dir=here")
    ended = status, err.splitlines()[-1], done(tmp_path)
    assert ended == (0 if stream is None else 5, f"fmbench: {said}", 1)


@linux
@pytest.mark.parametrize("arguments", [
    ["hydra.run.dir=here"], pytest.param(["-m", "seed=0,1"], marks=pytest.mark.slow)
])  # fmt: skip
def test_runs_whose_standard_error_is_full(arguments, command, monkeypatch, full, tmp_path):
    monkeypatch.setattr(sys, "stderr", full)
    status, out, _ = command(*TINY, "epochs=1", *arguments)
    assert (status, done(tmp_path)) == (0, 1 if len(arguments) == 1 else 2)
    assert "test accuracy" in out
    said = next(tmp_path.rglob("fmbench.log")).read_text("utf-8")
    assert said.count("standard error: cannot be written: No space left on device") == 1


def test_a_run_whose_standard_error_is_closed(command, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", None)
    status, out, _ = command(*TINY, "hydra.run.dir=here")
    assert (status, done(tmp_path)) == (0, 1)
    assert "test accuracy" in out


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_sweep_whose_standard_output_is_lost(command, monkeypatch, lost, tmp_path):
    stream, said = lost
    monkeypatch.setattr(sys, "stdout", stream)
    status, _, err = command("-m", *TINY, "epochs=1", "seed=0,1", "hydra.sweep.dir=here")
    assert (status, err.count(said), done(tmp_path)) == (0 if stream is None else 5, 1, 2)
    assert "Traceback" not in err
    assert (tmp_path / "here" / "benchmark.md").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["--info"], ["--version"]])
def test_what_is_only_printed_is_lost_with_status_5(arguments, command, monkeypatch, lost):
    monkeypatch.setattr(sys, "stdout", lost[0])
    assert command(*arguments)[::2] == (5, f"fmbench: {lost[1]}\n")


def test_a_picture_is_written_all_the_same(command, monkeypatch, lost, tmp_path):
    monkeypatch.setattr(sys, "stdout", lost[0])
    arguments = ["data=synthetic", "--images=1", "--draws=1", "--output=a.png"]
    status, _, err = command(*arguments, main=preview)
    assert (status, err) == (0 if lost[0] is None else 5, f"fmbench.preview: {lost[1]}\n")
    assert (tmp_path / "a.png").exists()


def test_a_reader_that_has_gone_has_seen_enough(monkeypatch, tmp_path):
    def gone():
        raise BrokenPipeError

    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert printed("fmbench", gone) == 0


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    code = (
        "import os; from fmbench.core.console import open_all; open_all()\n"
        "with open('found', 'w') as file: print(file.fileno(), file=file)\n"
        "os.write(2, b'a line of PyTorch')\n"
    )
    line = f'{sys.executable} -c "{code}" <&- >&- 2>&-'
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, check=True)
    assert int((tmp_path / "found").read_text("ascii")) > 2


@pytest.mark.slow
@linux
@pytest.mark.parametrize(("more", "redirected", "status"), [
    ("", ">&- 2>&-", 0),
    ("", "2>&1 | head -1", 0),
    ("-m seed=0,1", "<&- >&- 2>&-", 0),
    ("-m seed=0,1", "2>&1 | head -1", 0),
    ("-m seed=0,1 hydra/launcher=joblib", "<&- >&- 2>&-", 0),
    ("-m seed=0,1 hydra/launcher=joblib", ">/dev/full 2>/dev/full", 5),
])  # fmt: skip
def test_the_commands_themselves(more, redirected, status, tmp_path):
    line = f"set -o pipefail; {sys.executable} -m fmbench {' '.join(TINY)} {more} {redirected}"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    ended = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, check=False)
    assert (ended.returncode, done(tmp_path)) == (status, 2 if more else 1)
    assert not more or len(list(tmp_path.rglob("benchmark.md"))) == 1


# The folder that a command is started in


@pytest.mark.slow
@pytest.mark.parametrize("start", ["script", "module", "report", "predict", "preview", "joblib"])
def test_the_current_folder_holds_no_code_where_none_is_trusted(tmp_path, start, kept_run):
    """Somebody changes into a folder that was received, and looks at it or starts a run there."""
    evil = f"open({str(tmp_path / 'run')!r}, 'a').write(__name__)"
    here = tmp_path / "received"
    (here / "hydra_plugins" / "evil").mkdir(parents=True)
    for name in ("hydra_plugins/evil/__init__", "numpy", "pickle", "signal", "typing", "backend"):
        (here / f"{name}.py").write_text(evil)
    # PyTorch imports what an installed package says to be a backend of it.
    (here / "evil-1.0.dist-info").mkdir()
    (here / "evil-1.0.dist-info" / "METADATA").write_text("Name: evil\nVersion: 1.0\n")
    said = "[torch.backends]\nevil = backend:x\n"
    (here / "evil-1.0.dist-info" / "entry_points.txt").write_text(said)
    script = "import sys; sys.path[0] = '/usr/bin'; from fmbench.__main__ import main; main()"
    arguments = {
        "script": ["-c", script, *TINY, "epochs=1"],
        "module": ["-m", "fmbench", *TINY, "epochs=1"],
        "report": ["-m", "fmbench.report", str(kept_run), "--output", str(tmp_path / "made")],
        "predict": ["-m", "fmbench.predict", str(kept_run), "missing.png"],
        "preview": ["-m", "fmbench.preview", *TINY[:3]],
        "joblib": ["-m", "fmbench", "-m", *TINY, "epochs=1", "hydra/launcher=joblib"],
    }
    done = python(*arguments[start], cwd=here)
    assert not (tmp_path / "run").exists(), (tmp_path / "run").read_text()
    assert "Traceback" not in done.stderr
    assert done.returncode == (3 if start == "predict" else 0), done.stderr


def test_code_in_the_current_folder_is_found_where_it_is_asked_for(monkeypatch, tmp_path):
    here = str(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    for trust, argument, found in (
        ("", "epochs=3", False),
        ("mynets", "epochs=3", True),
        ("", "hydra.sweeper.custom_search_space=mine.space", True),
    ):
        monkeypatch.setenv("FMBENCH_TRUST", trust)
        monkeypatch.setattr(sys, "argv", ["fmbench", argument])
        monkeypatch.setattr(sys, "path", [here, *sys.path])
        import_from_here()
        assert sys.path.count(here) == found
        assert not found or sys.path[-1] == here
        assert os.environ["PYTHONSAFEPATH"] == ("" if found else "1")
        monkeypatch.setenv("PYTHONSAFEPATH", "")
