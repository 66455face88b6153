"""A tuned comparison in the report: its table, its pairs, its curves."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import searches
from records import write

from fmbench.records.tuned import Tuned
from fmbench.records.validation import UnreadableError
from fmbench.report import benchmark
from fmbench.report.table.tuned import best_after

SPACE = {"optimizer.lr": "tag(log, interval(1e-3, 0.3))"}


def tuning(stage: str, contestant: str, search: int = 1) -> dict[str, object]:
    """What the records of a comparison's runs say."""
    return {"stage": stage, "contestant": contestant, "search": search, "trials": 2, "epochs": 8}


def put(folder: Path, accuracies: dict[str, list[list[float]]], failed: int = 0) -> Path:
    """A comparison of these contestants: the test accuracies of the final runs by search."""
    blocks, number = [], 0
    finals = max(len(each) for every in accuracies.values() for each in every)
    for place, (name, every) in enumerate(accuracies.items()):
        for repeat, each in enumerate(every, 1):
            first = number
            broken = failed if place == 0 else 0
            trials = [
                searches.trial(0, folder=str(number), parameters={"optimizer.lr": 0.01}),
                searches.trial(1, folder=str(number + 1), values=[0.8], seconds=2.5),
            ]
            for one in trials[2 - broken :]:
                one |= {"state": "failed", "values": None, "error": "no such luck"}
            for trial in range(2):
                write(folder / str(number + trial), seed=0, test_accuracy=None, test_loss=None,
                      validation_accuracy=0.9, tuning=tuning("trial", name, repeat))  # fmt: skip
            number += 2
            for seed, accuracy in enumerate(each, 1):
                write(folder / str(number), seed=seed + 10 * repeat, test_accuracy=accuracy,
                      validation_accuracy=0.8,
                      configuration=f"{name}-{repeat}", key=f"{name}-{repeat}-{seed}",
                      tuning=tuning("final", name, repeat))  # fmt: skip
                number += 1
            number = first + 2 + finals
            best = [0] if broken < 2 else []
            search = searches.content(trials=trials, total=2, best=best, sampler="RandomSampler")
            search.pop("schema")
            seeds = [one + 10 * repeat for one in range(1, finals + 1)]
            blocks.append({"contestant": place, "repeat": repeat, "first": first, "seeds": seeds,
                           "search": search, "over": True})  # fmt: skip
    content = {
        "schema": 1, "trials": 2, "runs": 1, "final_seeds": finals, "final_on": "train",
        "contestants": [{"overrides": [name], "space": SPACE} for name in accuracies],
        "blocks": blocks,
    }  # fmt: skip
    (folder / "tuned.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


GOOD, BAD = [0.900, 0.902, 0.901, 0.899], [0.850, 0.852, 0.851, 0.849]


def test_contestants_are_ranked_with_what_each_spent(tmp_path):
    put(tmp_path, {"optimizer=sgd": [BAD], "optimizer=adamw": [GOOD]})
    (part,) = benchmark.build([tmp_path]).comparisons
    rows = [entry.row() for entry in part.entries]
    assert [row["contestant"] for row in rows] == ["optimizer=adamw", "optimizer=sgd"]
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0]["test_accuracy"] == pytest.approx(np.mean(GOOD))
    assert rows[0]["test_accuracy_sd"] == pytest.approx(np.std(GOOD, ddof=1))
    assert (rows[0]["trials"], rows[0]["epochs"], rows[0]["final_runs"]) == (2, 8, 4)
    assert rows[0]["best_setting"] == "optimizer.lr=0.01"
    (pair,) = part.pairs
    assert (pair["a"], pair["a_beats_b"]) == ("optimizer=adamw", 1.0)
    assert 0 < pair["low"] < pair["difference"] < pair["high"]
    assert 0.5 < pair["a_beats_b_low"] < pair["a_beats_b_high"] <= 1.0
    assert "best settings found by one search each" in " ".join(part.sentences)


def test_trials_are_no_rows_whatever_the_table_is_ordered_by(tmp_path):
    from fmbench.report.table.view import View

    put(tmp_path, {"optimizer=sgd": [BAD], "optimizer=adamw": [GOOD]})
    for view in (View(), View(metric="validation_accuracy")):
        report = benchmark.build([tmp_path], view=view)
        assert sum(row["n"] for row in report.rows) == 8
    assert "trials, see Search: 4" in benchmark.build([tmp_path]).sections[0].summary


def test_of_several_searches_the_search_is_the_unit(tmp_path):
    """Contestants far apart in each search, whose searches differ by more than that."""
    far = [[0.90, 0.901], [0.80, 0.801], [0.70, 0.701]]
    near = [[0.89, 0.891], [0.79, 0.791], [0.69, 0.691]]
    put(tmp_path, {"optimizer=sgd": near, "optimizer=adamw": far})
    (part,) = benchmark.build([tmp_path]).comparisons
    assert [entry.rank for entry in part.entries] == [1, 1]
    row = part.entries[0].row()
    assert row["test_accuracy_sd"] == pytest.approx(0.1)
    assert row["epochs"] == 24
    assert "the repeated search, the mean of its final runs" in " ".join(part.sentences)
    assert "one search of A beats one of B" in part.tables[1].headings


def test_a_contestant_that_failed_is_shown_as_such(tmp_path):
    put(tmp_path, {"optimizer=sgd": [[]], "optimizer=adamw": [GOOD]}, failed=2)
    report = benchmark.build([tmp_path], tmp_path / "out")
    (part,) = report.comparisons
    assert [(entry.label, entry.rank) for entry in part.entries] == [
        ("optimizer=adamw", None), ("optimizer=sgd", None),
    ]  # fmt: skip
    said = "optimizer=sgd: 2 of its 2 trials failed"
    for name in ("benchmark.md", "benchmark.html"):
        assert said.replace("=", "&#61;") in (text := (tmp_path / "out" / name).read_text()) or (
            said in text
        )
    loaded = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert loaded["comparisons"][str(tmp_path)]["rows"][1]["failed_trials"] == 2
    lines = (tmp_path / "out" / "contestants.csv").read_text().splitlines()
    assert len(lines) == 3
    assert (tmp_path / "out" / "figures" / "tuned.png").is_file()


def test_the_best_after_k_is_the_mean_over_all_orders():
    values = [0.3, 0.9, 0.5, None, 0.7]
    trials = [
        searches.trial(place, values=[value])
        if value
        else searches.trial(place, state="failed", values=None, error="no")
        for place, value in enumerate(values)
    ]
    made = searches.search(trials=trials, best=[1], sampler="RandomSampler")
    curve = best_after([made])
    known = [0.3 if value is None else value for value in values]
    for k in range(1, 6):
        expected = np.mean([max(order[:k]) for order in itertools.permutations(known)])
        assert curve.mean[k - 1] == pytest.approx(expected)
        assert curve.low[k - 1] <= curve.mean[k - 1] <= curve.high[k - 1] + 1e-12
    in_order = best_after([searches.search(trials=trials, best=[1])])
    assert in_order.mean.tolist() == [0.3, 0.9, 0.9, 0.9, 0.9]


def test_of_a_loss_less_is_better():
    trials = [searches.trial(place, values=[value]) for place, value in enumerate([0.5, 0.2, 0.4])]
    objective = [searches.objective("validation_loss", "minimize")]
    made = searches.search(trials=trials, best=[1], objectives=objective, sampler="QMCSampler")
    curve = best_after([made])
    assert curve.mean[0] == pytest.approx(np.mean([0.5, 0.2, 0.4]))
    assert curve.mean[-1] == pytest.approx(0.2)
    assert (curve.low <= curve.high).all()


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": [{"contestant": 7, "repeat": 1, "first": 0, "seeds": []}]},
        {"trials": 0},
        {"final_on": "test"},
        {"schema": 9},
    ],
)
def test_a_file_that_is_none_is_said_to_be(tmp_path, change):
    put(tmp_path, {"optimizer=sgd": [BAD]})
    content = json.loads((tmp_path / "tuned.json").read_text()) | change
    with pytest.raises(UnreadableError):
        Tuned.from_json(json.dumps(content))
    (tmp_path / "tuned.json").write_text(json.dumps(content))
    report = benchmark.build([tmp_path])
    assert [problem.path.name for problem in report.problems] == ["tuned.json"]
