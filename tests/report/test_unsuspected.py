"""The column of accuracy on the test images that nobody suspects."""

import pytest
from records import answer, write
from reports import build, cell, column, printed, sheet_rows, table_cells

from fmbench.records.predictions import name_of_test_set, read_labels
from fmbench.records.suspects import SUSPECTS_NAME, SuspectedTest, SuspectedTests
from fmbench.report.table import suspects

SHA256 = "d1" * 32  # of `records.BASE`
HEADING = "unsuspected images"


def run(folder, right, *, swap=0, labels=0, **changes):
    """A run whose first `right` of 10,000 answers are right."""
    write(folder, test_accuracy=right / 10_000, **changes)
    return answer(folder, right, swap=swap, seed=labels)


def suspect(place, of, *images):
    """Leave suspects of the test set of a run in a folder."""
    name = name_of_test_set(SHA256, read_labels(of), None)
    place.mkdir(exist_ok=True)
    content = SuspectedTests((SuspectedTest(SHA256, name, 3, images),)).to_json()
    (place / SUSPECTS_NAME).write_text(content, "utf-8")


@pytest.mark.slow
def test_accuracy_on_unsuspected_images_is_a_column_where_suspects_are_known(tmp_path):
    first = run(tmp_path / "0", 9000)
    run(tmp_path / "1", 8000, model="other")
    run(tmp_path / "2", 7000, model="elsewhere", labels=1)  # on other test images
    write(tmp_path / "3", model="unkept", test_accuracy=0.5)
    before = build(tmp_path, tmp_path)
    assert HEADING not in table_cells(before.markdown)[0]
    assert HEADING not in printed(before)
    assert sheet_rows(tmp_path)[0]["unsuspected_accuracy"] == ""
    # Of 150 images the first row has 100 right, the second 50.
    suspect(tmp_path, first, *range(50), *range(8500, 8550), *range(9900, 9950))
    made = build(tmp_path, tmp_path)
    shares = [8900 / 9850, 7950 / 9850]
    assert [row["unsuspected_accuracy"] for row in made.rows] == [
        *map(pytest.approx, shares), None, None
    ]  # fmt: skip
    assert [row["suspected_images"] for row in made.rows] == [150, 150, None, None]
    assert column(made.markdown, HEADING) == [*(f"{100 * x:.2f}" for x in shares), "-", "-"]
    assert "unsuspected images (optimistic, %)" in printed(made)
    assert "> **Accuracy on unsuspected images leaves out 150 test images" in made.markdown
    assert float(sheet_rows(tmp_path)[1]["unsuspected_accuracy"]) == pytest.approx(shares[1])
    assert [row["rank"] for row in made.rows] == [row["rank"] for row in before.rows]
    assert 'data-key="unsuspected_accuracy"' in made.html
    assert made.html.count('unsorted" title="Chosen on the test set') == 1


def test_the_images_of_a_test_set_are_gone_through_once(tmp_path, monkeypatch):
    """A stranger's file may name millions of them, and there are 500 rows."""
    for number in range(3):
        first = run(tmp_path / str(number), 9000 - number, model=f"m{number}")
    suspect(tmp_path, first, 0, 1)
    seen, kept = [], suspects._kept
    monkeypatch.setattr(suspects, "_kept", lambda *given: seen.append(given) or kept(*given))
    assert [row["suspected_images"] for row in build(tmp_path).rows] == [2, 2, 2]
    assert len(seen) == 1


def test_what_one_of_several_files_suspects_is_suspected(tmp_path):
    first = run(tmp_path / "0", 9000)
    suspect(tmp_path, first, 0, 1, 2)
    suspect(tmp_path / "more", first, 2, 9999, 10_000, 2**40)  # two of these are not there
    (row,) = build(tmp_path).rows
    assert row["unsuspected_accuracy"] == pytest.approx(8997 / 9996)
    assert row["suspected_images"] == 4
    suspect(tmp_path, first, *range(10_000))
    (row,) = build(tmp_path).rows
    assert row["unsuspected_accuracy"] is None


def test_without_any_suspect_it_is_the_test_accuracy(tmp_path):
    suspect(tmp_path, run(tmp_path / "0", 9000))
    made = build(tmp_path)
    assert made.rows[0]["suspected_images"] == 0
    assert cell(made.markdown, HEADING) == cell(made.markdown, "test accuracy") == "90.00"


def test_the_seeds_of_a_fold_are_one_measurement(tmp_path):
    split = {"name": "kfold", "train": 30_000, "validation": 30_000, "test": 10_000, "folds": "f"}
    for number, (fold, seed, right) in enumerate([(0, 0, 9000), (1, 0, 8000), (1, 1, 8200)]):
        here = {**split, "hash": f"{fold}", "fold": fold}
        config = {"config__data": {"split": {"fold": fold}}, "configuration": "c"}
        last = run(
            tmp_path / str(number), right, key=f"{number}", seed=seed, split=here, **config,
            validation_accuracy=0.9,
        )  # fmt: skip
    suspect(tmp_path, last, 0, 9999)
    (row,) = build(tmp_path).rows
    assert row["folds"] == (0, 1)
    expected = (8999 + (7999 + 8199) / 2) / 2 / 9998
    assert row["unsuspected_accuracy"] == pytest.approx(expected)


def test_a_file_of_suspects_that_is_none_is_a_problem(tmp_path):
    first = run(tmp_path / "0", 9000)
    suspect(tmp_path, first, 0)
    path = tmp_path / SUSPECTS_NAME
    path.write_text(path.read_text().replace('"runs": 3', '"runs": -3'))
    made = build(tmp_path)
    assert [problem.path for problem in made.problems] == [path]
    assert "runs" in made.problems[0].reason
    assert made.exit_status == 4
    assert made.rows[0]["unsuspected_accuracy"] is None
