"""A report of many records by two processes: the same as by one, also where the second dies."""

import multiprocessing
import sys

import pytest
from commands import wait_for
from records import write

from fmbench import report
from fmbench.core.errors import ConfigError
from fmbench.core.machine import Usable
from fmbench.report import aside
from fmbench.report.aside import Aside


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs of two rows, a record that is none, and a limit above which they are many."""
    monkeypatch.setattr(aside, "FEW", 3)
    monkeypatch.setattr(aside, "PART", 2)
    monkeypatch.setattr(aside, "usable", lambda: Usable(2, None))
    folder = tmp_path / "runs"
    for seed in range(6):
        model = ("lenet", "resnet18")[seed % 2]
        write(folder / str(seed), seed=seed, model=model, config__model__name=model,
              parameters=1000 * (1 + seed % 2), test_accuracy=0.9 + seed / 1000)  # fmt: skip
    (folder / "6").mkdir()
    (folder / "6" / "result.json").write_text("{")
    return folder


def reported(second, folder, *, before_drawing=lambda: None):
    """What a report says, made with the help of a second process, and its figures."""
    made = report.build((), results=second.results())
    before_drawing()
    made = report.write(made, folder, second.draw(made))
    problems = [problem.reason for problem in made.problems]
    drawn = {figure.name: (figure.caption, figure.png) for figure in made.figures}
    return made.csv, problems, drawn


def the_second():
    (process,) = multiprocessing.active_children()
    return process


def test_two_processes_report_what_one_does(runs, tmp_path):
    alone = Aside([runs], alone=True)
    assert multiprocessing.active_children() == []
    expected = reported(alone, tmp_path / "by_one")
    assert expected[2]
    second = Aside([runs], alone=False)
    process = the_second()
    assert reported(second, tmp_path / "by_two") == expected
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not tell a semaphore's value")
def test_the_second_process_reads_what_the_first_does_not_come_to(runs, tmp_path, monkeypatch):
    expected = reported(Aside([runs], alone=True), tmp_path / "by_one")
    second = Aside([runs], alone=False)
    wait_for(lambda: second.tickets.get_value() == 0)

    def read(batch, paths):
        raise AssertionError("nothing is left to read")

    monkeypatch.setattr(aside.Batch, "read", read)
    assert reported(second, tmp_path / "by_two") == expected


def test_what_a_second_process_had_begun_is_read_where_it_dies(runs, tmp_path):
    expected = reported(Aside([runs], alone=True), tmp_path / "by_one")
    second = Aside([runs], alone=False)
    killed()
    second.tickets.acquire(False)  # if it had no time to take one
    assert reported(second, tmp_path / "by_two") == expected


def test_the_first_process_draws_where_the_second_dies(runs, tmp_path):
    expected = reported(Aside([runs], alone=True), tmp_path / "by_one")
    second = Aside([runs], alone=False)
    assert reported(second, tmp_path / "by_two", before_drawing=killed) == expected


def killed():
    """Kill the second process."""
    process = the_second()
    process.kill()
    process.join(60)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        Aside([tmp_path / "none"], alone=False)
