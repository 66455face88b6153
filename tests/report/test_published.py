"""Published figures beside ours."""

from pathlib import Path

import pytest
from records import PUBLISHED, write
from reports import build, sheet_rows, table_cells


def published_row(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The published columns of a table of one row: as people read them, and as CSV has them."""
    heading, _, *rows = table_cells(build(folder, folder).markdown)
    (row,), (raw,) = rows, sheet_rows(folder)
    return dict(zip(heading, (cell.replace("\\", "") for cell in row), strict=True)), raw


def test_published_figures_stand_beside_ours_with_the_difference(tmp_path):
    write(tmp_path / "0", best_test_accuracy=0.9035, test_accuracy=0.9, **PUBLISHED)
    write(tmp_path / "1", seed=1, best_test_accuracy=0.9045, test_accuracy=0.9, **PUBLISHED)
    shown, raw = published_row(tmp_path)
    assert shown["published (%)"] == "89.70, best epoch on test"
    assert shown["difference (points)"] == "+0.70"  # the best epochs', 90.40 in the mean
    assert shown["published time"] == "18 min 29 s, GTX 1070"
    assert float(raw["difference"]) == pytest.approx(0.007)
    assert raw["difference_of"] == "best epoch on test"
    assert raw["published_parameters"] == "61706"
    assert "Published in a project (best epoch on test)." in build(tmp_path).markdown


BF16 = {"config__precision": "bf16", "fingerprint__precision": "bf16"}


@pytest.mark.parametrize(("runs", "shown"), [
    ([{"best_test_accuracy": 0.95}, {"seed": 1}], "+0.30, last epoch"),  # the second did not look
    ([{"best_test_accuracy": 0.95, "config__test_every": 10}], "+0.30, last epoch"),
    ([{"deviations": ["epochs=3"]}], "recipe changed"),
    ([{"best_test_accuracy": 0.9003, **BF16}], "+0.33"),  # of a recipe that is bf16
])  # fmt: skip
def test_a_difference_says_of_what_it_is(tmp_path, runs, shown):
    for number, changes in enumerate(runs):
        write(tmp_path / str(number), **{**PUBLISHED, "test_accuracy": 0.9, **changes})
    assert published_row(tmp_path)[0]["difference (points)"] == shown


@pytest.mark.parametrize(
    ("protocol", "accuracy"),
    [("last epoch", "89.70, last epoch"), ("not stated", "89.70, protocol not stated")],
)
def test_other_protocols_are_compared_with_the_last_epoch(tmp_path, protocol, accuracy):
    reference = {**PUBLISHED["reference"], "protocol": protocol}
    changes = {**PUBLISHED, "reference": reference}
    write(tmp_path, test_accuracy=0.89, best_test_accuracy=0.95, **changes)
    shown, raw = published_row(tmp_path)
    assert shown["published (%)"] == accuracy
    assert shown["difference (points)"] == "-0.70"
    assert raw["difference_of"] == "last epoch"
    said = accuracy.partition(", ")[2]
    assert f"Published in a project ({said})." in build(tmp_path).markdown


def test_of_two_experiments_with_one_recipe_the_one_it_is_published_under_counts(tmp_path):
    write(tmp_path / "0", started="2026-11-20T10:00:00Z", **PUBLISHED)
    other = {**PUBLISHED, "experiment": "other", "deviations": ["model=lenet"]}
    write(tmp_path / "1", seed=1, started="2026-11-20T11:00:00Z", **other)
    shown, raw = published_row(tmp_path)
    assert raw["experiment"] == "lenet"
    assert shown["difference (points)"] == "+0.31, last epoch"


def test_where_nothing_was_published_no_recipe_was_changed(tmp_path):
    reference = {**PUBLISHED["reference"], "accuracy": None}
    write(tmp_path, **{**PUBLISHED, "reference": reference, "deviations": ["epochs=3"]})
    heading = table_cells(build(tmp_path, tmp_path).markdown)[0]
    assert "difference (points)" not in heading
    (raw,) = sheet_rows(tmp_path)
    assert (raw["experiment"], raw["deviations"]) == ("lenet", "epochs=3")


def test_a_row_with_options_of_the_users_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("FMBENCH_TRUST", "mine,torch.nn")
    write(tmp_path / "0", config_dirs=["/a/mine", "/b/a search"], trust="mine,torch.nn")
    assert (
        "FMBENCH_TRUST=mine,torch.nn python -m fmbench --config-dir /a/mine "
        "--config-dir '/b/a search' model=lenet epochs=3 seed=0" in build(tmp_path).markdown
    )
    # A record of an older version does not know where.
    write(tmp_path / "0", config_dir=True)
    said = "python -m fmbench --config-dir DIR model=lenet epochs=3 seed=0"
    assert said in build(tmp_path).markdown


def test_a_reference_without_an_accuracy_has_no_difference(tmp_path):
    reference = {**PUBLISHED["reference"], "accuracy": None, "seconds": None}
    write(tmp_path / "0", **{**PUBLISHED, "reference": reference})
    write(tmp_path / "1", model="other", **PUBLISHED)
    heading, _, *rows = table_cells(build(tmp_path).markdown)
    (row,) = (row for row in rows if "lenet" in row)
    assert {row[heading.index(name)] for name in ("published (%)", "published time")} == {"-"}
    assert row[heading.index("difference (points)")] == "-"


def test_published_figures_are_about_the_real_data(tmp_path):
    write(tmp_path, data__name="synthetic", **PUBLISHED)
    assert "published" not in table_cells(build(tmp_path).markdown)[0]


def test_a_repeat_typed_without_its_experiment_keeps_the_published_figures(tmp_path):
    write(tmp_path / "0", started="2026-11-20T10:00:00Z", **PUBLISHED)
    write(tmp_path / "1", started="2026-11-20T11:00:00Z")
    assert published_row(tmp_path)[0]["published (%)"] == "89.70, best epoch on test"


@pytest.mark.parametrize(("overrides", "said", "typed"), [
    (["experiment=lenet"], "+0.33, in bf16", " precision=bf16"),
    (["experiment=lenet", "precision=auto"], "+0.33, in bf16", ""),
    (["experiment=lenet", "precision=bf16"], "+0.33, in bf16", ""),
])  # fmt: skip
def test_a_difference_in_another_number_format_says_so(tmp_path, overrides, said, typed):
    """Of a record from when the hardware chose it, and of users who left it so, or typed it."""
    config = "bf16" if "precision=bf16" in overrides else "auto"
    made = {**PUBLISHED, "config__precision": config, "fingerprint__precision": "bf16"}
    write(tmp_path, best_test_accuracy=0.9003, overrides=overrides, **made)
    shown, raw = published_row(tmp_path)
    assert shown["difference (points)"] == said
    assert raw["difference_in"] == "bf16"
    assert raw["command"] == f"python -m fmbench {' '.join(overrides)}{typed} seed=0"


def test_the_number_format_of_what_was_not_published_is_no_difference(tmp_path):
    write(tmp_path, fingerprint__precision="bf16")
    build(tmp_path, tmp_path)
    (raw,) = sheet_rows(tmp_path)
    assert (raw["precision"], raw["difference_in"]) == ("bf16", "")
    assert "precision" not in raw["command"]
