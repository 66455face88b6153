"""Ranks of the benchmark's rows: shared where no test tells them apart."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from records import answer, write

import fmbench.report.table.ranks as of_rows
from fmbench import report
from fmbench.records.reader import load_results
from fmbench.report.table.compare import compare
from fmbench.report.table.ranks import MOST_RANKED, evidence, ranked, sample


def run(folder: Path, model: str, right: int, *, seed: int = 0, swap: int = 0, **changes) -> None:
    write(folder, model=model, seed=seed, test_accuracy=right / 10_000, **changes)
    answer(folder, right, swap=swap)


def ranks(folder: Path) -> dict[str, int | None]:
    made = report.build([folder])
    return {row["model"]: row["rank"] for section in made.sections for row in section.rows}


def test_a_tenth_of_a_point_on_one_seed_wins_no_rank(tmp_path):
    run(tmp_path / "0", "ahead", 9010, swap=150)
    run(tmp_path / "1", "behind", 9000)
    run(tmp_path / "2", "far", 8000)
    assert ranks(tmp_path) == {"ahead": 1, "behind": 1, "far": 3}


@pytest.mark.parametrize("change", [
    lambda folder: (folder / "labels.npy").unlink(),
    lambda folder: answer(folder, 9001),  # not those of the record
    lambda folder: answer(folder, 9000, seed=1),  # of other images
])  # fmt: skip
def test_predictions_decide_what_accuracies_alone_cannot(tmp_path, change):
    # The same ninety images lie between them; with whose predictions are known, no others do.
    run(tmp_path / "0", "ahead", 9045)
    run(tmp_path / "1", "behind", 9000)
    assert ranks(tmp_path) == {"ahead": 1, "behind": 2}
    change(tmp_path / "1")
    assert ranks(tmp_path) == {"ahead": 1, "behind": 1}


def test_a_rank_of_rows_of_one_seed_is_marked_as_one_of_models(tmp_path):
    run(tmp_path / "0", "ahead", 9045)
    run(tmp_path / "1", "behind", 9000)
    made = report.build([tmp_path])
    (section,) = made.sections
    assert [row["rank_of"] for row in section.rows] == ["models", "models"]
    (column,) = [column for column in section.columns if column.key == "rank"]
    assert [column.cell(row) for row in section.rows] == ["1*", "2*"]
    assert section.footnote.startswith("* One seed: a rank of these trained models on these images")
    assert "| 1\\* |" in made.markdown
    assert "\n\n\\* One seed: a rank of these trained models" in made.markdown
    assert "<p>* One seed: a rank of these trained models" in made.html
    rows = json.loads(made.json)["rows"]
    assert [row["rank_of"] for row in rows] == ["models", "models"]
    assert [*rows[0]].index("rank_of") != [*rows[0]].index("rank") + 1  # each at its own place
    assert ",models," in made.csv


@pytest.mark.slow
def test_rows_of_one_seed_have_no_rank_beside_rows_of_several(tmp_path):
    for seed, right in enumerate((9000, 9001, 8999)):
        run(tmp_path / f"a{seed}", "steady", right, seed=seed)
        run(tmp_path / f"b{seed}", "behind", right - 900, seed=seed)
    run(tmp_path / "c", "lucky", 9900)
    run(tmp_path / "d", "unlucky", 5000)
    assert ranks(tmp_path) == {"steady": 1, "behind": 2, "lucky": None, "unlucky": None}
    (section,) = report.build([tmp_path]).sections
    assert section.footnote.startswith("Rows of one seed have no rank beside rows of several")
    assert [row["rank_of"] for row in section.rows] == [None, "recipes", "recipes", None]
    # One row of each kind: nothing is ranked, and that is said too.
    for folder in [*tmp_path.glob("b*"), tmp_path / "d"]:
        shutil.rmtree(folder)
    assert ranks(tmp_path) == {"steady": None, "lucky": None}
    assert report.build([tmp_path]).sections[0].footnote == section.footnote


def test_the_spread_of_seeds_counts(tmp_path):
    for seed, right in enumerate((9000, 9120, 8940)):
        run(tmp_path / f"a{seed}", "shaky", right, seed=seed)
        run(tmp_path / f"b{seed}", "steady", 8900 + 10 * seed, seed=seed)
    assert ranks(tmp_path) == {"shaky": 1, "steady": 1}
    for seed, right in enumerate((9100, 9101, 9099)):
        run(tmp_path / f"a{seed}", "shaky", right, seed=seed)
    assert ranks(tmp_path) == {"shaky": 1, "steady": 2}
    assert report.build([tmp_path]).sections[0].footnote == ""


@pytest.mark.slow
def test_compare_and_the_rank_column_are_of_one_test(tmp_path):
    for seed, (a, b) in enumerate(((9045, 9000), (9050, 8990), (9040, 9010))):
        run(tmp_path / f"a{seed}", "a", a, seed=seed)
        run(tmp_path / f"b{seed}", "b", b, seed=seed)
    # Two rows are one pair, so that nothing is corrected.
    for change in (0, 5, 10, 20, 60):
        for seed, right in enumerate((9000, 8990, 9010)):
            run(tmp_path / f"b{seed}", "b", right - change, seed=seed)
        apart = compare("1", "2", [tmp_path]).difference.p < 0.05
        assert (ranks(tmp_path) == {"a": 1, "b": 2}) == apart


def test_ranks_count_within_a_test_set(tmp_path):
    run(tmp_path / "0", "a", 9500)
    run(tmp_path / "1", "b", 9000)
    for number, model in enumerate("cd"):
        changes = {"split__name": "custom", "split__test": 40_000, "split__hash": "77" * 32}
        write(tmp_path / f"x{number}", model=model, test_accuracy=0.93 - 0.1 * number, **changes)
    write(tmp_path / "s", model="s", data__name="synthetic", data__sha256="aa" * 32)
    made = report.build([tmp_path])
    assert ranks(tmp_path) == {"a": 1, "c": 1, "b": 2, "d": 2, "s": None}
    assert "Ranks count within one test set." in made.sections[0].notes
    assert "Ranks count within one test set." not in made.sections[1].notes


def test_a_row_alone_has_no_rank_and_the_column_is_not_shown(tmp_path):
    write(tmp_path / "0")
    made = report.build([tmp_path])
    assert [row["rank"] for row in made.sections[0].rows] == [None]
    assert "rank" not in [column.heading for column in made.sections[0].columns]
    write(tmp_path / "1", model="other")
    assert "rank" in [column.heading for column in report.build([tmp_path]).sections[0].columns]


def test_rows_far_behind_are_not_tested():
    row = {"data": "x", "data_sha256": "y", "split": "standard", "split_test": 10_000}
    row["folders"] = ("nowhere",)
    rows = [
        {**row, "test_accuracy": 0.9 - 0.001 * place, "accuracies": (0.9 - 0.001 * place,)}
        for place in range(MOST_RANKED + 2)
    ]
    found = ranked(rows[::-1])
    assert found[:2] == [None, None]
    assert found[-1] == 1
    assert None not in found[2:]


def test_predictions_of_too_many_images_are_not_read(tmp_path, monkeypatch):
    for place, right in enumerate((9045, 9000, 8000, 7000)):
        run(tmp_path / str(place), f"net {place}", right)
    rows = report.build([tmp_path]).sections[0].rows
    assert ranked(rows) == [1, 2, 3, 4]
    monkeypatch.setattr(of_rows, "MOST_IMAGES", 30_000)
    assert ranked(rows) == [1, 2, 3, None]
    # What is left goes to the best: two rows of 10,000 images, and one of none.
    monkeypatch.setattr(of_rows, "MOST_PREDICTIONS", 20_000)
    read, asked = of_rows.read_labels, []
    monkeypatch.setattr(of_rows, "read_labels", lambda folder: asked.append(folder) or read(folder))
    assert ranked(rows) == [1, 2, 3, None]
    assert [Path(folder).name for folder in asked] == ["0", "1"]
    assert evidence(rows[0], 9_999) is None


def test_evidence_is_in_the_order_of_the_seeds(tmp_path):
    for seed, right in ((2, 9020), (0, 9000), (1, 9010)):
        run(tmp_path / str(seed), "net", right, seed=seed)
    (row,) = report.benchmark_table(load_results(tmp_path)).to_dict("records")
    found = evidence(row)
    assert found.seeds == (0, 1, 2)
    assert found.correct.mean(axis=1) == pytest.approx([0.9, 0.901, 0.902])
    assert row["accuracies"] == pytest.approx((0.9, 0.901, 0.902))
    assert sample(row, found).correct[9005] == pytest.approx(2 / 3)
    of_class = found.of_class(3)
    assert of_class.images == np.sum(found.labels == 3)


def test_the_parts_of_a_spread_and_the_power_of_a_table_are_said(tmp_path):
    for seed, right in enumerate((9000, 9010, 8990)):
        run(tmp_path / f"a{seed}", "first", right + 500, seed=seed)
        run(tmp_path / f"b{seed}", "second", right, seed=seed)
    made = report.build([tmp_path])
    (section,) = made.sections
    for row in section.rows:
        parts = row["spread_runs"] ** 2 + row["spread_images"] ** 2
        assert parts == pytest.approx(row["test_accuracy_sd"] ** 2, rel=0.01)
    first, second = section.rows
    assert first["smallest_shown"] is None
    gap = f"{100 * second['smallest_shown']:.2f} points to the best row"
    assert section.power.startswith(f"Power: this table shows a gap of {gap} in 80 of 100 cases.")
    assert section.power in made.html
    assert "± of runs, of test set (points)" in made.markdown
    # A row that no other is compared with has its parts all the same.
    for path in tmp_path.glob("b*"):
        shutil.rmtree(path)
    (section,) = report.build([tmp_path]).sections
    assert section.rows[0]["spread_images"] > 0
    assert section.power == ""


def test_one_row_of_several_seeds_beside_rows_of_one_has_its_parts(tmp_path):
    for seed, right in enumerate((9000, 9100, 8900)):
        run(tmp_path / f"a{seed}", "several", right, seed=seed)
    run(tmp_path / "b", "ahead", 9500)
    run(tmp_path / "c", "behind", 8000)
    rows = {row["model"]: row for row in report.build([tmp_path]).sections[0].rows}
    assert [rows[name]["rank"] for name in ("ahead", "several", "behind")] == [1, None, 2]
    assert rows["several"]["spread_runs"] == pytest.approx(0.01, rel=0.1)
