"""A report of many records by two processes: the same as by one, also where the second dies."""

import fcntl
import os
import re
import subprocess
import sys
import termios

import pytest
import searches
from commands import CHECKOUT, wait_for
from records import write

from fmbench import report
from fmbench.core.errors import ConfigError
from fmbench.core.machine import Usable
from fmbench.report import second
from fmbench.report.benchmark import report_of
from fmbench.report.second import TwoProcesses

#: A time of day, to the minute or to the second.
TIME = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs of two rows, a search, a record that is none, and a limit above which they are many."""
    monkeypatch.setattr(second, "FEW", 3)
    monkeypatch.setattr(second, "PART", 2)
    monkeypatch.setattr(second, "usable", lambda: Usable(2, None))
    folder = tmp_path / "runs"
    for seed in range(6):
        model = ("lenet", "resnet18")[seed % 2]
        write(folder / str(seed), seed=seed, model=model, config__model__name=model,
              parameters=1000 * (1 + seed % 2), test_accuracy=0.9 + seed / 1000)  # fmt: skip
    searches.sweep(folder / "search")
    (folder / "6").mkdir()
    (folder / "6" / "result.json").write_text("{")
    return folder


def written(reading, folder, *, before_drawing=lambda: None):
    """The files that a report writes, apart from the time, and the figures' captions."""
    with reading:
        made = report_of(reading.results())
        before_drawing()
        made = report.write(made, folder, reading.draw(made))
    files = {
        str(path.relative_to(folder)): TIME.sub(b"", path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert len(made.problems) == 1
    return files, [figure.caption for figure in made.figures]


@pytest.fixture
def by_one(runs, tmp_path):
    """What one process writes."""
    reading = TwoProcesses([runs], alone=True)
    assert reading.process is None
    files, captions = written(reading, tmp_path / "one" / "made")
    assert {"benchmark.html", "figures/search.png"} <= files.keys()
    return files, captions


def test_two_processes_report_what_one_does(runs, by_one, tmp_path, capfd):
    reading = TwoProcesses([runs])
    assert reading.process.poll() is None
    assert written(reading, tmp_path / "two" / "made") == by_one
    assert reading.process.poll() is not None
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="asks a pipe how much it holds")
def test_the_second_process_reads_what_the_first_does_not_come_to(
    runs, by_one, tmp_path, monkeypatch
):
    reading = TwoProcesses([runs])
    wait_for(lambda: fcntl.ioctl(reading.tickets, termios.FIONREAD, bytes(4)) == bytes(4))

    def read(batch, paths):
        raise AssertionError("nothing is left to read")

    monkeypatch.setattr(second.Batch, "read", read)
    assert written(reading, tmp_path / "two" / "made") == by_one


def test_what_a_second_process_had_begun_is_read_where_it_dies(runs, by_one, tmp_path):
    reading = TwoProcesses([runs])
    reading.process.kill()
    reading.process.wait()
    os.read(reading.tickets, 1)  # if it had no time to take one
    assert written(reading, tmp_path / "two" / "made") == by_one


def test_the_first_process_draws_where_the_second_dies(runs, by_one, tmp_path):
    reading = TwoProcesses([runs])
    made = written(reading, tmp_path / "two" / "made", before_drawing=reading.process.kill)
    assert made == by_one


@pytest.mark.parametrize("missing", ["process", "thread"])
def test_the_first_process_does_all_where_there_is_no_room(
    runs, by_one, tmp_path, monkeypatch, missing
):
    def fail(*arguments, **options):
        raise OSError("no more processes") if missing == "process" else RuntimeError("no thread")

    if missing == "process":
        monkeypatch.setattr(second.subprocess, "Popen", fail)
    else:
        monkeypatch.setattr(second.threading.Thread, "start", fail)
    assert written(TwoProcesses([runs]), tmp_path / "two" / "made") == by_one


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        TwoProcesses([tmp_path / "none"])


def test_the_second_process_imports_nothing_from_the_current_folder(runs, tmp_path):
    """As the first, which has it behind all that is installed where a package is trusted."""
    for name in ("json", "pickle", "socket", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    script = (
        "import sys; from fmbench.report import second, __main__ as command; second.FEW = 3; "
        f"sys.argv = ['report', {str(runs)!r}, '--output', 'made']; command.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "FMBENCH_TRUST": "mine"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (4, "")
    assert (tmp_path / "made" / "benchmark.md").exists()
    assert not (tmp_path / "run").exists()
