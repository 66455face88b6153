"""Rows over folds: means and intervals over folds, ranks among rows on the very same folds."""

import json
import shlex

import numpy as np
import pytest
from records import answer, write
from reports import printed
from scipy import stats as reference

from fmbench import report
from fmbench.config import sweep
from fmbench.core.errors import ConfigError
from fmbench.records.reader import load_results
from fmbench.report.__main__ import main
from fmbench.report.table.compare import compare
from fmbench.report.table.view import View

#: Held-out accuracies of five folds, in units of an image of 12,000.
GOOD = (10_800, 10_860, 10_740, 10_830, 10_770)
FAIR = (10_440, 10_530, 10_320, 10_470, 10_380)


def row(folder, model, right, *, folds=range(5), seed=0, named="f0" * 32, role="validation", **of):
    """Write the runs of a row, one for each of its folds, each with a hash of its split."""
    for fold, count in zip(folds, right, strict=True):
        name = f"{model}-{fold}-{seed}"
        split = {"name": "kfold", "train": 48_000, "validation": 12_000, "test": 10_000}
        accuracies = {"validation_accuracy": count / 12_000, "test_accuracy": 0.9 - fold / 1000}
        if role == "test":
            split |= {"validation": 0, "test": 12_000}
            accuracies = {"test_accuracy": count / 12_000}
        split |= {"hash": f"{fold}a" * 32, "folds": named, "fold": fold}
        # As real records: the fold is in the config, and not in the hash of the configuration.
        config = {"data": {"split": {"fold": fold}}, "seed": seed}
        word = f"data.split.fold={fold}"
        write(
            folder / name, model=model, split=split, seed=seed, key=name + named,
            configuration=model + named + role, config=config,
            overrides=[f"model={model}", "data.split=kfold", word, f"seed={seed}"],
            **accuracies, **of,
        )  # fmt: skip
        answer(folder / name, round(accuracies["test_accuracy"] * 10_000))


def table(folder, **view):
    return report.benchmark_table(load_results(folder), View(**view)).set_index("model")


def test_rows_on_the_same_folds_are_ranked_by_what_the_folds_held_out(tmp_path):
    row(tmp_path, "good", GOOD)
    row(tmp_path, "fair", FAIR)
    found = table(tmp_path)
    assert found["rank"].to_dict() == {"good": 1, "fair": 2}
    assert set(found["rank_of"]) == {"folds"}
    assert found["folds"].tolist() == [(0, 1, 2, 3, 4)] * 2
    good = found.loc["good"]
    values = np.array(GOOD) / 12_000
    assert good["validation_accuracy"] == pytest.approx(values.mean())
    error = values.std(ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    ends = reference.t.interval(0.95, 4, values.mean(), error)
    assert (good["validation_accuracy_low"], good["validation_accuracy_high"]) == pytest.approx(
        ends
    )
    # The same test images in each fold: no interval is known. Nor is one of times over folds.
    assert found[["test_accuracy_low", "seconds_train_low"]].isna().all(axis=None)
    assert good["split_hash"] == "f0" * 32


def test_a_fold_that_tests_gives_test_accuracy_its_interval(tmp_path):
    row(tmp_path, "good", GOOD, role="test")
    row(tmp_path, "fair", FAIR, role="test")
    found = table(tmp_path)
    assert found["rank"].to_dict() == {"good": 1, "fair": 2}
    values = np.array(GOOD) / 12_000
    half = reference.t.ppf(0.975, 4) * values.std(ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    assert found.loc["good", "test_accuracy_high"] == pytest.approx(values.mean() + half)
    assert found.loc["good", "held_out"] == "test_accuracy"
    assert "validation accuracy" not in printed(report.build([tmp_path]))


@pytest.mark.slow
@pytest.mark.parametrize("other", [
    {"named": "f1" * 32},
    {"folds": range(4)},  # one is missing
    {"folds": (0, 1, 2, 3, 5)},
    {"data__sha256": "aa" * 32},
    {"split": {"name": "holdout", "train": 48_000, "validation": 12_000, "test": 10_000,
               "hash": "5a" * 32}},
])  # fmt: skip
def test_other_folds_are_neither_ranked_nor_compared(tmp_path, other):
    row(tmp_path, "good", GOOD)
    if "split" in other:
        for seed in range(3):
            changes = {"validation_accuracy": 0.8, "split": other["split"]}
            write(tmp_path / f"{seed}", model="fair", seed=seed, **changes)
    else:
        row(tmp_path, "fair", FAIR[: len(other.get("folds", FAIR))], **other)
    assert table(tmp_path)["rank"].isna().all()
    with pytest.raises(ConfigError, match=r"of other content|only with a row over the very same"):
        compare("1", "2", [tmp_path])
    row(tmp_path, "like", GOOD)
    assert table(tmp_path)["rank"].isna().to_dict() == {"good": False, "like": False, "fair": True}


def test_rows_of_seeds_are_ranked_beside_rows_of_folds_as_without_them(tmp_path):
    row(tmp_path, "good", GOOD)
    row(tmp_path, "fair", FAIR)
    for seed in range(3):
        for model, right in (("a", 9000 + seed), ("b", 8000 + seed)):
            write(tmp_path / f"{model}{seed}", model=model, seed=seed, test_accuracy=right / 10_000)
            answer(tmp_path / f"{model}{seed}", right)
    assert table(tmp_path)["rank"].to_dict() == {"good": 1, "fair": 2, "a": 1, "b": 2}
    made = report.build([tmp_path])
    assert "Ranks count within one test set." not in made.sections[0].notes
    assert "among rows on the very same folds" in made.markdown


def test_seeds_within_a_fold_are_one_measurement_of_it(tmp_path):
    row(tmp_path, "good", GOOD)
    # One fold twice more, far off: as runs they would weigh as much as two other folds.
    row(tmp_path, "good", GOOD[:1], folds=[0], seed=1)
    row(tmp_path, "good", [GOOD[0] - 600], folds=[0], seed=2)
    row(tmp_path, "fair", FAIR)
    found = table(tmp_path)
    assert found["rank"].notna().all()
    good = found.loc["good"]
    values = np.array([GOOD[0] - 200, *GOOD[1:]]) / 12_000
    assert good["n"] == 7
    assert good["fold_accuracies"] == pytest.approx(tuple(values))
    assert good["validation_accuracy"] == pytest.approx(values.mean())
    assert good["validation_accuracy_sd"] == pytest.approx(values.std(ddof=1))
    assert good["run_seeds"] == (0, 1, 2, 0, 0, 0, 0) or good["run_folds"] == (0, 0, 0, 1, 2, 3, 4)
    assert good["test_accuracy"] == pytest.approx(0.898)  # the mean of the folds, not of the runs
    assert "| 7 in 5 folds |" in report.build([tmp_path]).markdown


def test_the_command_of_a_row_makes_its_runs_and_no_others(tmp_path):
    row(tmp_path / "all", "good", GOOD[:2], folds=range(2))
    row(tmp_path / "all", "good", GOOD[:2], folds=range(2), seed=1)
    (found,) = report.build([tmp_path / "all"]).rows
    assert found["command"].endswith("data.split.fold=0,1 seed=0,1")
    # One seed is missing on one fold.
    row(tmp_path / "some", "good", GOOD[:2], folds=range(2))
    row(tmp_path / "some", "good", GOOD[:1], folds=[0], seed=1)
    (found,) = report.build([tmp_path / "some"]).rows
    words = shlex.split(found["command"])
    assert words[-3:] == [
        "data.split.fold=0,0,1", "seed=0,1,0", "sweep.zip=[data.split.fold,seed]"
    ]  # fmt: skip
    assert sweep.grid_size(words[-3:-1], [["data.split.fold", "seed"]]) == 3


def test_one_fold_is_no_row_of_folds_to_rank(tmp_path):
    row(tmp_path, "good", GOOD[:1], folds=[0])
    row(tmp_path, "fair", FAIR[:1], folds=[0])
    assert table(tmp_path)["rank"].isna().all()
    with pytest.raises(ConfigError, match="at least two"):
        compare("1", "2", [tmp_path])


def test_records_that_name_no_fold_have_no_interval_and_no_rank(tmp_path):
    for model, right in (("good", GOOD), ("fair", FAIR)):
        row(tmp_path, model, right)
    for path in tmp_path.glob("good-*/result.json"):
        record = json.loads(path.read_text())
        del record["split"]["fold"]
        path.write_text(json.dumps(record))
    found = table(tmp_path)
    assert found["rank"].isna().all()
    assert found.loc["good", "folds"] == ()
    assert np.isnan(found.loc["good", "validation_accuracy_low"])


def test_numbers_that_no_run_records_are_no_fault(tmp_path):
    row(tmp_path, "good", GOOD)
    row(tmp_path, "fair", FAIR)
    for path in tmp_path.glob("*/result.json"):
        record = json.loads(path.read_text())
        record["split"] |= {"train": 0}
        path.write_text(json.dumps(record))
    assert table(tmp_path)["rank"].isna().all()


@pytest.mark.slow
def test_compare_and_the_rank_column_are_of_one_test(tmp_path):
    row(tmp_path, "good", GOOD)
    seen = set()
    for less in (0, 50, 70, 90, 110, 150, 300):
        row(tmp_path, "fair", [count - less - 30 * fold for fold, count in enumerate(GOOD)])
        found = compare("model=good", "model=fair", [tmp_path])
        apart = found.difference.p < 0.05
        assert table(tmp_path)["rank"].to_dict() == {"good": 1, "fair": 2 if apart else 1}
        assert apart == (found.difference.low > 0)
        seen.add(apart)
    assert seen == {True, False}


def test_compare_says_that_it_is_over_folds(tmp_path, ended):
    row(tmp_path, "good", GOOD)
    row(tmp_path, "fair", FAIR)
    found = compare("1", "2", [tmp_path])
    assert found.sentence.startswith("good is more accurate than fair by 3.10 points (95 % interv")
    assert found.sentence.endswith(
        "; this is validation accuracy over 5 folds, by the corrected resampled t-test."
    )
    assert (found.seeds, found.classes) == ([], [])
    assert [pair.fold for pair in found.folds] == [0, 1, 2, 3, 4]
    assert found.folds[1] == (1, 10_860 / 12_000, 10_530 / 12_000)
    status, out, _ = ended(main, "compare", "1", "2", tmp_path)
    assert status == 0
    assert "5 folds" in out
    assert "\n   1  90.50  87.75                +2.75\n" in out


def test_the_report_marks_folds_and_shows_what_they_are_ranked_by(tmp_path):
    row(tmp_path, "fair", FAIR)
    row(tmp_path, "good", GOOD)
    # Of test accuracy the other is ahead: the order is that of the ranks.
    for path in tmp_path.glob("fair-*/result.json"):
        path.write_text(path.read_text().replace('"test_accuracy": 0.', '"test_accuracy": 0.9'))
    made = report.build([tmp_path])
    (section,) = made.sections
    assert [one["model"] for one in section.rows] == ["good", "fair"]
    headings = [column.heading for column in section.columns]
    assert headings[1:6] == [
        *("rank", "model", "validation accuracy", "95 % interval", "test accuracy"),
    ]
    assert section.cells[0][1:4] == ("1", "good", "90.00 ± 0.40")
    assert section.cells[0][headings.index("n")] == "5 folds"
    assert any("n counts folds, not seeds" in note for note in section.notes)
    assert "fold 3, seed 0" in made.html
    assert not any("drawn in" in note for note in section.notes)
    assert section.rows[0]["command"] == (
        "python -m fmbench -m model=good data.split=kfold data.split.fold=0,1,2,3,4 seed=0"
    )
    assert section.rows[0]["differs"] == ""
    row(tmp_path, "other", GOOD, named="f1" * 32)
    notes = report.build([tmp_path]).sections[0].notes
    assert "Rows on the very same folds: 1, 3; 2." in notes


@pytest.mark.slow
def test_other_views_have_no_ranks_over_folds(tmp_path):
    row(tmp_path, "good", GOOD)
    row(tmp_path, "fair", FAIR)
    for view in (
        {"group_by": ("model",)},
        {"metric": "validation_accuracy"},
        {"condition": "test_accuracy>0.1"},
    ):
        assert table(tmp_path, **view)["rank"].isna().all()
    grouped = table(tmp_path, group_by=("model",))
    assert grouped["validation_accuracy_low"].isna().all()
    assert report.build([tmp_path], view=View(group_by=("model",))).sections[0].cells
    lucky = table(tmp_path, condition="test_accuracy>0.1")
    assert lucky["validation_accuracy_low"].isna().all()
