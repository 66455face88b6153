"""Our own results: the kept records are sound, and the pages say what they say."""

import importlib
import json
import re
import shutil

import numpy as np
import pytest
from commands import CHECKOUT
from records import PUBLISHED, write
from scipy import stats

from fmbench import report
from fmbench.data import OFFICIAL_FILES, _combine
from fmbench.results import read_results

KEPT = CHECKOUT / "docs" / "results"
OFFICIAL = _combine(file.content_sha256 for file in OFFICIAL_FILES)
RECORDS = sorted(KEPT.rglob("result.json"))


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    return importlib.import_module("results")


@pytest.fixture
def pages(results):
    return importlib.import_module("results_page")


def line(pages, folder, experiment="lenet"):
    """The only line of an experiment, of the records in a folder."""
    (found,) = pages.lines(report.build([folder]), [experiment], folder)
    return found


def published(folder, accuracies, best=None, **changes):
    """A row that was published with 89.7 %, a seed for each accuracy."""
    for seed, accuracy in enumerate(accuracies):
        looked = None if best is None else best[seed]
        values = {**PUBLISHED, "experiment": "lenet", **changes}
        write(
            folder / str(seed), seed=seed, test_accuracy=accuracy, best_test_accuracy=looked,
            **values,
        )  # fmt: skip


def test_the_pages_say_what_the_records_say(results):
    made = report.build([KEPT])
    drawn = results.pictures(made)
    for path, text in results.texts(made, drawn).items():
        assert path.read_text("utf-8") == text, "run python scripts/results.py"
    there = {path.stem for path in results.PICTURES.glob("*.png")}
    assert there == set(drawn)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.relative_to(KEPT).as_posix())
def test_each_kept_record_is_of_the_official_images_and_of_committed_code(path):
    record = json.loads(path.read_bytes())
    assert record["data"] == {"name": "fashion_mnist", "sha256": OFFICIAL}
    assert record["git"]["dirty"] is False
    assert record["status"] in ("completed", "pruned")
    assert not record["restarts"] or record["status"] == "completed"
    for file in path.parent.glob("*.json*"):
        # Nobody else has the folders of the machine it was made on.
        assert not re.search(r"\"[^\"]*(?<![\w.])/\w", file.read_text("utf-8"))


def test_all_that_is_kept_can_be_read_and_is_small():
    assert RECORDS
    found = read_results(KEPT)
    assert not found.problems
    assert len(found.frame) == len(RECORDS)
    files = [path for path in KEPT.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 200_000
    assert sum(path.stat().st_size for path in files) < 5_000_000


def test_where_ours_fall_short_the_page_says_why(pages):
    layout = pages._layout()
    made = report.build([KEPT])
    for table in layout["tables"]:
        for one in pages.lines(made, table["rows"]):
            assert not one.falls_short or one.experiment in layout["remarks"], one.name


def test_each_experiment_has_its_place(pages):
    rows = [name for table in pages._layout()["tables"] for name in table["rows"]]
    there = {path.stem for path in (CHECKOUT / "conf" / "experiment").glob("*.yaml")}
    assert sorted(rows) == sorted(there)


def test_one_run_is_the_prediction_interval(pages, tmp_path):
    published(tmp_path, [0.9, 0.903, 0.902, 0.9035])
    values = np.array([0.9, 0.903, 0.902, 0.9035])
    scale = values.std(ddof=1) * np.sqrt(1 + 1 / 4)
    expected = stats.t.interval(0.95, 3, loc=values.mean(), scale=scale)
    assert line(pages, tmp_path).one_run == pytest.approx(expected)


def test_the_best_on_test_is_compared_with_the_best_on_test(pages, tmp_path):
    published(tmp_path, [0.9, 0.902], [0.91, 0.914])
    found = line(pages, tmp_path)
    assert found.alike == (0.91, 0.914)
    assert found.cells["last epoch (%)"] == "90.10 ± 0.14"
    assert found.cells["best epoch on test (%)"] == "91.20 ± 0.28"
    assert found.cells["difference (points)"] == "+1.50"


@pytest.mark.parametrize(
    ("accuracies", "short", "said"),
    [
        ((0.88, 0.8801, 0.8802), True, "more than runs of ours give: between 87.96 and 88.06 %"),
        ((0.91, 0.9101, 0.9102), False, "less than runs of ours give: between 90.96 and 91.06 %"),
        ((0.88, 0.90, 0.91), False, "as a run of ours might give: between"),
        ((0.88,), False, "our one run is -1.70 points from it, and one seed says no more"),
    ],
)
def test_what_follows_for_the_published_figure(pages, tmp_path, accuracies, short, said):
    published(tmp_path, accuracies)
    found = line(pages, tmp_path)
    assert found.falls_short == short
    assert said in found.verdict


def test_a_shorter_form_says_so_and_is_compared_with_nothing(pages, tmp_path):
    published(tmp_path, [0.8, 0.801], deviations=["epochs=3"])
    found = line(pages, tmp_path)
    assert found.name == "lenet (epochs=3)"
    assert found.cells["difference (points)"] == found.cells["one run (%)"] == "-"
    assert found.verdict is None
    assert not found.falls_short


def test_what_was_not_run_says_so(pages, tmp_path):
    published(tmp_path, [0.9])
    (found,) = pages.lines(report.build([tmp_path]), ["wideresnet"], tmp_path)
    assert found.cells["last epoch (%)"] == "not run"
    assert found.cells["published (%)"] == "93.28, best epoch on test"
    assert found.verdict is None


def test_records_and_answers_alone_are_kept(results, tmp_path):
    published(tmp_path / "runs", [0.9, 0.91], git={"commit": "0" * 40, "dirty": False})
    for name in ("checkpoint.pt", "model.safetensors", "mistakes.npy", "fmbench.log"):
        (tmp_path / "runs" / "0" / name).write_text("x")
    (tmp_path / "runs" / "0" / "history.jsonl").write_text('{"epoch": 0}\n')
    (tmp_path / "kept" / "older").mkdir(parents=True)
    assert results.keep(tmp_path / "runs", tmp_path / "kept") == 2
    names = {path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert names <= set(results.FILES)
    assert {"result.json", "history.jsonl"} <= names
    assert not (tmp_path / "kept" / "older").exists()
    assert len(read_results(tmp_path / "kept").frame) == 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"git": {"commit": "0" * 40, "dirty": True}}, "uncommitted changes"),
        ({"git": None}, "uncommitted changes"),
        ({"status": "running"}, "running: only runs that ended"),
    ],
)
def test_what_cannot_be_stood_for_is_not_kept(results, tmp_path, changes, why):
    published(tmp_path / "runs", [0.9], **changes)
    with pytest.raises(SystemExit, match=why):
        results.keep(tmp_path / "runs", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_page_that_is_out_of_date_is_said(results, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "results.md"
    shutil.copy(results.PAGE, copy)
    monkeypatch.setattr(results, "PAGE", copy)
    with pytest.raises(SystemExit) as ended:
        results.main(["--check"])
    assert ended.value.code == 0
    copy.write_text("# Results\n")
    with pytest.raises(SystemExit) as ended:
        results.main(["--check"])
    assert ended.value.code == 1
    assert capsys.readouterr().out == "results.md is not up to date\n"
    assert copy.read_text() == "# Results\n"
