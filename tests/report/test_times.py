"""Accuracy by training time, and performance profiles over data sets."""

import json

import numpy as np
import pytest
from records import write

from fmbench import report
from fmbench.report.figures import figures
from fmbench.report.figures.curves import Curve, Line
from fmbench.report.figures.times import _times
from fmbench.report.table.view import View


def put(folder, accuracies, seconds, **changes):
    write(folder, **changes)
    lines = [
        {
            "epoch": n,
            "train_loss": 1.0,
            "train_accuracy": 0.5,
            "test_accuracy": a,
            "seconds": seconds,
        }
        for n, a in enumerate(accuracies)
    ]
    (folder / "history.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")


def drawn(folder, **view):
    made = report.build([folder], view=View(**view))
    return {figure.name: figure for figure in figures(made.sections, made.searches)}


@pytest.mark.slow
def test_accuracy_by_time_is_of_one_device(tmp_path):
    put(tmp_path / "0", [0.5, 0.8], 3.0, model="a", test_accuracy=0.8)
    assert "accuracy_seconds" not in drawn(tmp_path)
    put(tmp_path / "1", [0.5, 0.7], 1.0, model="b", test_accuracy=0.7)
    put(tmp_path / "2", [0.9, 0.9], 1.0, model="c", device="other", test_accuracy=0.9)
    found = drawn(tmp_path)["accuracy_seconds"]
    assert found.alt.endswith("a 80.00 % after 6.0 s; b 70.00 % after 2.0 s.")
    assert "On AMD EPYC, 2 threads, fp32" in found.caption


def test_times_are_those_at_the_ends_of_the_drawn_epochs():
    curve = Curve(np.array([1, 3]), *[np.zeros(2)] * 3, (0, 1))
    runs = [[{"epoch": n, "seconds": s} for n in range(3)] for s in (1.0, 3.0)]
    assert _times(Line({}, {}, runs, {"k": curve}), "k") == pytest.approx([2.0, 6.0])
    del runs[0][1]["seconds"]
    assert _times(Line({}, {}, runs, {"k": curve}), "k") is None


@pytest.mark.slow
def test_profiles_are_over_several_data_sets(tmp_path):
    fast, slow = {"model": "fast"}, {"model": "slow"}
    put(tmp_path / "0", [0.5, 0.9], 1.0, **fast)
    put(tmp_path / "1", [0.5, 0.9], 2.0, **slow)
    assert "profiles" not in drawn(tmp_path, targets=(0.4, 0.9))
    put(tmp_path / "2", [0.5, 0.6], 1.0, data__name="mnist", **fast)
    put(tmp_path / "3", [0.5, 0.9], 2.0, data__name="mnist", **slow)
    assert "profiles" not in drawn(tmp_path)
    found = drawn(tmp_path, targets=(0.4, 0.9, 0.99))["profiles"]
    # Four problems: nobody reaches 0.99, and 0.9 on MNIST the slow one alone.
    assert "Of 4 problems" in found.caption
    assert found.alt.endswith(
        "slow fastest in 1, reached 4 of 4; fast fastest in 3, reached 3 of 4."
    )


@pytest.mark.slow
def test_a_model_is_timed_by_its_best_row_and_by_one_kind_of_accuracy(tmp_path):
    for data in ("mnist", "fashion_mnist"):
        where = {"data__name": data}
        put(tmp_path / data / "0", [0.5, 0.9], 1.0, model="one", test_accuracy=0.9, **where)
        put(tmp_path / data / "1", [0.5, 0.9], 2.0, model="two", test_accuracy=0.9, **where)
        # Faster, and not the best row of its model.
        hasty = {"model": "two", "learning_rate": 0.5, "test_accuracy": 0.8}
        put(tmp_path / data / "2", [0.9, 0.8], 0.1, **hasty, **where)
    put(tmp_path / "3", [0.9, 0.9], 0.1, model="three", split__validation=6000)
    lines = (tmp_path / "3" / "history.jsonl").read_text("utf-8")
    renamed = lines.replace("test_accuracy", "validation_accuracy")
    (tmp_path / "3" / "history.jsonl").write_text(renamed, "utf-8")
    found = drawn(tmp_path, targets=(0.9,))["profiles"]
    assert "Of 2 problems, a test accuracy on one of 2 data sets each" in found.caption
    assert found.alt.endswith("one fastest in 2, reached 2 of 2; two fastest in 0, reached 2 of 2.")


@pytest.mark.slow
def test_the_clock_is_of_the_runs_that_the_accuracy_is_of(tmp_path):
    for seed in range(3):
        seconds = 3.0 if seed < 2 else 90.0
        put(tmp_path / f"a{seed}", [0.5, 0.7, 0.8, 0.9], seconds, model="a", seed=seed)
        put(tmp_path / f"b{seed}", [0.5, 0.7, 0.8, 0.9], 1.0, model="b", seed=seed)
    # Evaluated less than half as often as the others: no part of the curve.
    lines = (tmp_path / "a2" / "history.jsonl").read_text("utf-8").splitlines()
    seldom = [json.loads(line) for line in lines]
    for line in seldom[:3]:
        del line["test_accuracy"]
    (tmp_path / "a2" / "history.jsonl").write_text("\n".join(map(json.dumps, seldom)), "utf-8")
    found = drawn(tmp_path)["accuracy_seconds"]
    assert "a 90.00 % after 12.0 s" in found.alt
    assert "Seeds are left out that have no history or were evaluated less often." in found.caption
