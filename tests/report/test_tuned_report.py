"""A tuned comparison in the report: its table, its pairs, its curves."""

import dataclasses
import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import searches
from records import write

from fmbench.records.tuned import Tuned
from fmbench.records.validation import UnreadableError
from fmbench.report import benchmark
from fmbench.report.table.best_after import best_after

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


def test_a_comparison_can_be_sent_to_another_process(tmp_path):
    """Which draws it; not with what was worked out of it before."""
    put(tmp_path, {"optimizer=sgd": [BAD], "optimizer=adamw": [GOOD]})
    (part,) = benchmark.build([tmp_path]).comparisons
    assert part.tables
    sent = pickle.loads(pickle.dumps(dataclasses.replace(part)))
    assert [table.rows for table in sent.tables] == [table.rows for table in part.tables]


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
    cells = dict(zip(part.tables[0].headings, part.tables[0].rows[0], strict=True))
    # What won before what was searched, so that it is seen without scrolling.
    assert [*cells][-2:] == ["best setting", "space"]
    assert cells["best setting"] == "optimizer.lr=0.01"
    assert cells["space"] == rows[0]["space"]
    (pair,) = part.pairs
    assert (pair["a"], pair["a_beats_b"]) == ("optimizer=adamw", 1.0)
    assert 0 < pair["low"] < pair["difference"] < pair["high"]
    assert 0.5 < pair["a_beats_b_low"] < pair["a_beats_b_high"] <= 1.0
    assert "best settings found by one search each" in " ".join(part.sentences)


def test_a_contestant_that_lost_a_final_run_has_no_rank(tmp_path):
    """The run that diverged may be the worst, so that the mean of the others flatters it."""
    put(tmp_path, {"optimizer=sgd": [BAD], "optimizer=adamw": [GOOD], "optimizer=adam": [GOOD]})
    write(tmp_path / "8", seed=11, status="diverged", test_accuracy=None, test_loss=None,
          tuning=tuning("final", "optimizer=adamw"))  # fmt: skip
    (part,) = benchmark.build([tmp_path]).comparisons
    assert [(entry.label, entry.rank) for entry in part.entries] == [
        ("optimizer=adam", 1), ("optimizer=sgd", 2), ("optimizer=adamw", None),
    ]  # fmt: skip
    said = "optimizer=adamw: has no rank, for 1 of its 4 final runs are missing in its accuracy"
    assert f"{said} (1 diverged)" in " ".join(part.sentences)
    assert len(part.pairs) == 1


@pytest.mark.parametrize("changed", [4, 9])  # a trial, a final run
def test_a_contestant_whose_code_was_changed_has_no_rank(tmp_path, changed):
    """Its runs are of two methods under one name; a grid shows them as two rows."""
    names = ["optimizer=sgd", "optimizer=signum", "optimizer=adam"]
    put(tmp_path, dict(zip(names, [[BAD], [GOOD], [BAD]], strict=True)))
    for number in range(6, 12):
        path = tmp_path / str(number) / "result.json"
        record = json.loads(path.read_text()) | {"source": "ab" * 32}
        path.write_text(json.dumps(record))
    (part,) = benchmark.build([tmp_path]).comparisons
    assert [entry.rank for entry in part.entries] == [1, 2, 2]
    said = " ".join(part.sentences)
    assert "versions of" not in said
    assert "that is better beyond doubt" in said  # what it means to share a rank
    path = tmp_path / str(changed + 2) / "result.json"
    path.write_text(path.read_text().replace("ab" * 32, "cd" * 32))
    (part,) = benchmark.build([tmp_path]).comparisons
    assert [(entry.label, entry.rank) for entry in part.entries] == [
        ("optimizer=sgd", 1), ("optimizer=adam", 1), ("optimizer=signum", None),
    ]  # fmt: skip
    said = "optimizer=signum: has no rank, for its trials and final runs are of 2 versions of"
    assert said in " ".join(part.sentences)


def test_searches_of_unlike_spaces_are_said_to_be(tmp_path):
    put(tmp_path, {"optimizer=sgd": [BAD], "optimizer=adamw": [GOOD]})
    (part,) = benchmark.build([tmp_path]).comparisons
    assert "densely" not in " ".join(part.sentences)
    assert "better beyond doubt" not in " ".join(part.sentences)
    content = json.loads((tmp_path / "tuned.json").read_text())
    content["contestants"][1]["space"] = SPACE | {"optimizer.weight_decay": "interval(0, 1)"}
    (tmp_path / "tuned.json").write_text(json.dumps(content))
    (part,) = benchmark.build([tmp_path]).comparisons
    assert "The searches were of 1 to 2 keys, with as many" in " ".join(part.sentences)


@pytest.mark.parametrize(
    "change",
    [
        {"tuning": tuning("trial", "optimizer=adamw")},
        {"tuning": tuning("final", "optimizer=sgd")},
        {"tuning": tuning("final", "optimizer=adamw", 2)},
        {"tuning": None},
        {"seed": 99},
    ],
)
def test_a_run_that_is_another_is_no_final_run(tmp_path, change):
    put(tmp_path, {"optimizer=sgd": [BAD], "optimizer=adamw": [GOOD]})
    said = {"tuning": tuning("final", "optimizer=adamw"), "seed": 11} | change
    write(tmp_path / "8", test_accuracy=0.9, validation_accuracy=0.8, **said)
    (part,) = benchmark.build([tmp_path]).comparisons
    assert [entry.rank for entry in part.entries] == [None, None]
    assert "(1 not there)" in " ".join(part.sentences)


def test_accuracies_on_other_images_are_not_ranked(tmp_path):
    put(tmp_path, {"optimizer=sgd": [BAD], "optimizer=adamw": [GOOD]})
    for number in range(8, 12):
        write(tmp_path / str(number), seed=number + 3, test_accuracy=0.9, split__hash="77" * 32,
              validation_accuracy=0.8, tuning=tuning("final", "optimizer=adamw"))  # fmt: skip
    (part,) = benchmark.build([tmp_path]).comparisons
    assert [entry.rank for entry in part.entries] == [None, None]
    assert not part.pairs
    assert "not trained and evaluated on the same images" in " ".join(part.sentences)


def test_single_runs_have_no_ranks_and_no_p(tmp_path):
    put(tmp_path, {"optimizer=sgd": [[0.1]], "optimizer=adamw": [[0.9]]})
    (part,) = benchmark.build([tmp_path]).comparisons
    assert [entry.rank for entry in part.entries] == [None, None]
    (pair,) = part.pairs
    assert (pair["difference"], pair["low"], pair["p"]) == (pytest.approx(0.8), None, None)
    assert "one final run, which says nothing of the spread" in " ".join(part.sentences)


def test_one_concluded_search_of_several_is_not_ranked(tmp_path):
    put(tmp_path, {"optimizer=sgd": [BAD, []], "optimizer=adamw": [GOOD, []]})
    (part,) = benchmark.build([tmp_path]).comparisons
    assert [entry.rank for entry in part.entries] == [None, None]
    assert not part.pairs


def test_epochs_of_trials_of_several_runs_are_known_from_the_file(tmp_path):
    put(tmp_path, {"optimizer=sgd": [[]], "optimizer=adamw": [GOOD]}, failed=2)
    content = json.loads((tmp_path / "tuned.json").read_text())
    content["trials"], content["runs"] = 1, 2
    for epochs in (None, 7):
        content["blocks"][0]["epochs"] = epochs
        (tmp_path / "tuned.json").write_text(json.dumps(content))
        (part,) = benchmark.build([tmp_path]).comparisons
        assert part.entries[1].row()["epochs"] == epochs


def test_trials_are_no_rows_whatever_the_table_is_ordered_by(tmp_path):
    from fmbench.report.table.view import View

    put(tmp_path, {"optimizer=sgd": [BAD], "optimizer=adamw": [GOOD]})
    for view in (View(), View(metric="validation_accuracy")):
        report = benchmark.build([tmp_path], view=view)
        assert sum(row["n"] for row in report.rows) == 8
    assert "trials, see Tuned comparison: 4" in benchmark.build([tmp_path]).sections[0].summary


def test_a_row_says_what_chose_its_settings_in_one_short_line(tmp_path):
    said = {"trials": 1, "space": {"optimizer.lr": "choice(" + "0.1," * 500 + "0.2)"}}
    write(tmp_path / "0", tuning=said)
    (row,) = benchmark.build([tmp_path]).rows
    assert row["chosen"].startswith("tuned by 1 trial of optimizer.lr: choice(0.1,")
    assert len(row["chosen"]) < 250


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


def test_of_many_trials_the_curve_is_computed_at_some(monkeypatch):
    values = np.random.default_rng(0).random(90).tolist()
    trials = [searches.trial(place, values=[value]) for place, value in enumerate(values)]
    best = [int(np.argmax(values))]
    made = searches.search(trials=trials, best=best, sampler="RandomSampler")
    exact = best_after([made])
    monkeypatch.setattr("fmbench.report.table.best_after.MOST_COUNTS", 40)
    some = best_after([made])
    assert len(some.mean) == 90
    assert some.mean == pytest.approx(exact.mean, abs=0.003)
    assert some.mean[[0, -1]] == pytest.approx(exact.mean[[0, -1]])


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
        {"trials": 3},  # more runs than lie between two blocks
        {"final_seeds": 3},
        {"final_on": "test"},
        {"schema": 9},
    ],
)
def test_a_file_that_is_none_is_said_to_be(tmp_path, change):
    put(tmp_path, {"optimizer=sgd": [BAD], "optimizer=adamw": [BAD]})
    content = json.loads((tmp_path / "tuned.json").read_text()) | change
    with pytest.raises(UnreadableError):
        Tuned.from_json(json.dumps(content))
    (tmp_path / "tuned.json").write_text(json.dumps(content))
    report = benchmark.build([tmp_path])
    assert [problem.path.name for problem in report.problems] == ["tuned.json"]
