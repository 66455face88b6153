"""Epochs, images and time to a target, by hand and through the command."""

import json

import pytest
from records import write

from fmbench import report
from fmbench.report.__main__ import main
from fmbench.report.table.targets import HEADINGS, reached
from fmbench.report.table.view import View

ROW = {"split_validation": 6000, "split_train": 54_000}


def history(accuracies, key="validation_accuracy", seconds=2.0):
    return [{"epoch": n, key: a, "seconds": seconds} for n, a in enumerate(accuracies)]


def put(folder, accuracies, key="validation_accuracy", **changes):
    write(folder, split__validation=6000 * (key == "validation_accuracy"), **changes)
    lines = map(json.dumps, history(accuracies, key))
    (folder / "history.jsonl").write_text("\n".join(lines), "utf-8")


def test_the_end_of_the_first_epoch_that_reached_it_and_nothing_between():
    (found,) = reached(ROW, [history([0.5, 0.91, 0.89, 0.93])], [0.9])
    assert (found.epochs, found.images, found.seconds) == (2, 108_000, 4.0)
    assert (found.by, found.reached, found.runs) == ("validation", 1, 1)


@pytest.mark.parametrize(("runs", "epochs"), [
    ([[0.9], [0.1, 0.9], [0.1, 0.1, 0.9]], 2),
    ([[0.9], [0.1, 0.9], [0.1, 0.1, 0.1]], 2),  # a run that did not reach it is the latest
    ([[0.9], [0.1], [0.1]], None),
    ([[0.9], [0.1, 0.9]], 2),  # of two the later: no run has 1.5 epochs
    ([[0.9], [0.1]], None),
])  # fmt: skip
def test_not_reached_counts_in_the_median(runs, epochs):
    (found,) = reached(ROW, [history(run) for run in runs], [0.9])
    assert found.epochs == epochs
    assert found.reached == sum(0.9 in run for run in runs)
    assert found.said[2] == ("not reached" if epochs is None else str(epochs))


def test_without_validation_the_test_accuracy_of_each_epoch_counts():
    row = {**ROW, "split_validation": 0}
    whole = history([0.5, 0.9], "test_accuracy")
    seldom = [{**whole[0]}, {"epoch": 1, "seconds": 2.0}]
    seldom[0].pop("test_accuracy")
    (found,) = reached(row, [whole, seldom], [0.9])
    assert (found.by, found.runs) == ("test", 1)
    assert reached(row, [seldom], [0.9]) == []
    assert reached(row, [history([0.9])[1:]], [0.9]) == []


def test_a_time_that_is_not_known_is_not_made_up():
    lines = history([0.5, 0.9])
    del lines[0]["seconds"]
    (found,) = reached(ROW, [lines], [0.9])
    assert (found.epochs, found.seconds) == (2, None)
    assert found.said == ("90.00", "1 of 1", "2", "108,000", "-")


@pytest.mark.parametrize("place", range(3))
def test_a_median_of_times_needs_all_of_them(place):
    runs = [history([0.9], seconds=seconds) for seconds in (1.0, 2.0, 3.0)]
    del runs[place][0]["seconds"]
    (found,) = reached(ROW, runs, [0.9])
    assert (found.epochs, found.seconds) == (1, None)


def test_the_table_stands_below_that_of_the_rows(tmp_path, ended):
    for seed, accuracies in enumerate(([0.5, 0.8, 0.92], [0.5, 0.91, 0.9], [0.1, 0.2, 0.3])):
        put(tmp_path / str(seed), accuracies, seed=seed)
    put(tmp_path / "t", [0.7, 0.95], "test_accuracy", model="other")
    status, said, _ = ended(main, tmp_path, "--target", "0.9,0.99", "--output", tmp_path / "out")
    assert status == 0
    assert "Time to a target, by validation accuracy" in said
    text = (tmp_path / "out" / "benchmark.md").read_text("utf-8")
    assert f"| {' | '.join(HEADINGS).replace('#', '#')} |" in text
    assert "| lenet | 90.00 | 2 of 3 | 3 | 180,000 | 6.0 s |" in text
    assert "| lenet | 99.00 | 0 of 3 | not reached | not reached | not reached |" in text
    by_test = text.partition("### Time to a target, by test accuracy (of runs")[2]
    assert "| other | 90.00 | 1 of 1 | 2 |" in by_test
    assert "by validation accuracy" in (tmp_path / "out" / "benchmark.html").read_text("utf-8")
    rows = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))["rows"]
    (lenet,) = (row for row in rows if row["model"] == "lenet")
    assert lenet["targets"][0]["epochs"] == 3
    assert report.build([tmp_path], view=View()).sections[0].tables == []


@pytest.mark.parametrize("said", ["90", "0", "x", ",".join(["0.9"] * 11)])
def test_what_is_no_target_is_said(ended, said):
    status, _, error = ended(main, "--target", said)
    assert (status, error.count("\n")) == (2, 1)
    assert "target: " in error
