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


def test_accuracy_by_time_is_of_one_device(tmp_path):
    put(tmp_path / "0", [0.5, 0.8], 3.0, model="a", test_accuracy=0.8)
    assert "accuracy_seconds" not in drawn(tmp_path)
    put(tmp_path / "1", [0.5, 0.7], 1.0, model="b", test_accuracy=0.7)
    put(tmp_path / "2", [0.9, 0.9], 1.0, model="c", device="other", test_accuracy=0.9)
    found = drawn(tmp_path)["accuracy_seconds"]
    assert found.alt.endswith("a 80.00 % after 6.0 s; b 70.00 % after 2.0 s.")
    assert "On AMD EPYC, 2 threads, fp32" in found.caption


def test_times_are_those_at_the_ends_of_the_drawn_epochs():
    curve = Curve(np.array([1, 3]), *[np.zeros(2)] * 3, 2)
    runs = [[{"epoch": n, "seconds": s} for n in range(3)] for s in (1.0, 3.0)]
    assert _times(Line({}, {}, runs, {"k": curve}), "k") == pytest.approx([2.0, 6.0])
    del runs[0][1]["seconds"]
    assert _times(Line({}, {}, runs, {"k": curve}), "k") is None


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
