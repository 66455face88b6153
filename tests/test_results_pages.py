"""Our own results: the kept records are sound, and the pages say what the records say."""

import importlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import CHECKOUT
from records import write
from searches import put as a_search
from searches import sweep

from fmbench.data import OFFICIAL_SHA256
from fmbench.identity import keys
from fmbench.results import read_results

KEPT = CHECKOUT / "docs" / "results"
RECORDS = sorted(KEPT.rglob("result.json"))
COMMITTED = {"commit": "0" * 40, "dirty": False}
GPU = {
    "device": "H100",
    "fingerprint__device": "cuda",
    "fingerprint__processor": "H100",
    "fingerprint__precision": "bf16",
}


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    return importlib.import_module("results")


@pytest.fixture
def pages(results, tmp_path):
    """Pages of records that a test has put into `tmp_path`, without a search."""
    shutil.copy(KEPT / "tables.yaml", tmp_path)
    made = results.Pages(tmp_path)
    del made.layout["search"]
    return made


@pytest.fixture(scope="module")
def own():
    """The pages of the records that are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CHECKOUT / "scripts")
        return importlib.import_module("results").Pages(KEPT)


def reference(experiment):
    return yaml.safe_load((CHECKOUT / "conf/experiment" / f"{experiment}.yaml").read_text("utf-8"))[
        "reference"
    ]


def put(folder: Path, experiment, accuracies, best=None, *, first=0, **changes):
    """Runs of a published row, a seed for each accuracy, that looked every epoch or at the end."""
    for seed, accuracy in enumerate(accuracies, first):
        values = {
            "experiment": experiment,
            "model": experiment,
            "config__test_every": 0 if best is None else 1,
            "reference": reference(experiment),
            "deviations": [],
            "overrides": [f"experiment={experiment}", f"seed={seed}"],
            "best_test_accuracy": None if best is None else best[seed - first],
            "data__sha256": OFFICIAL_SHA256,
            "git": COMMITTED,
            **changes,
        }
        write(folder / str(seed), seed=seed, test_accuracy=accuracy, **values)


def line(pages, experiment="lenet"):
    (found,) = [line for line in pages.lines if line.experiment == experiment]
    return found


# --- what is kept -----------------------------------------------------------------------------


def test_the_pages_say_what_the_records_say(results, own):
    for path, text in results.texts(own).items():
        assert path.read_text("utf-8") == text, "run python scripts/results.py"


def test_the_pictures_show_what_the_records_say(results, own):
    if not results.is_pinned("matplotlib"):
        pytest.skip("drawn with another matplotlib")
    pictures = {name: figure.png for name, figure in own.pictures.items()}
    assert not results.stale(pictures), "run python scripts/results.py"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.relative_to(KEPT).as_posix())
def test_each_kept_record_is_of_the_official_images_and_of_committed_code(results, path):
    record = json.loads(path.read_bytes())
    assert record["data"] == {"name": "fashion_mnist", "sha256": OFFICIAL_SHA256}
    assert record["git"]["dirty"] is False
    assert record["status"] in results.ENDED


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.relative_to(KEPT).as_posix())
def test_each_kept_record_agrees_with_what_lies_beside_it(path):
    """A figure that somebody typed into a record would stand alone."""
    record = json.loads(path.read_bytes())
    sha256, split = record["data"]["sha256"], record["split"]["hash"]
    if record["schema"] > 1:  # the keys of the others are in tests/keys.yaml
        assert keys(record["config"], sha256, split) == (record["key"], record["configuration"])
    text = (path.parent / "history.jsonl").read_text("utf-8")
    epochs = [json.loads(line) for line in text.splitlines()]
    assert [one["epoch"] for one in epochs] == list(range(len(epochs)))
    if record["status"] == "completed":
        assert len(epochs) == record["epochs"] == record["config"]["epochs"]
        for key in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            assert epochs[-1].get(key) == record[key]
    if record["test_accuracy"] is not None:
        predictions, labels = (
            np.load(path.parent / f"{name}.npy", allow_pickle=False)
            for name in ("predictions", "labels")
        )
        assert len(labels) == len(predictions) == record["split"]["test"]
        assert float(np.mean(predictions == labels)) == pytest.approx(record["test_accuracy"])
        assert np.bincount(labels).tolist() == [record["split"]["test"] // 10] * 10
    if record["config"]["test_every"] == 1:
        looks = [one["test_accuracy"] for one in epochs]
        assert max(looks) == record["best_test_accuracy"]
        assert looks[-1] == record["test_accuracy"]


def test_what_is_kept_can_be_read_is_small_and_names_no_folder_of_the_machine():
    assert RECORDS
    found = read_results(KEPT)
    assert not found.problems
    assert len(found.frame) == len(RECORDS)
    files = [path for path in KEPT.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 200_000
    assert sum(path.stat().st_size for path in files) < 5_000_000
    for file in KEPT.rglob("*.json*"):
        assert not re.search(r"\"[^\"]*(?<![\w.])/\w", file.read_text("utf-8")), file


def test_where_ours_fall_short_the_page_says_why(own):
    short = {line.experiment for line in own.lines if line.falls_short}
    assert short <= set(own.layout["remarks"])
    assert set(own.layout["remarks"]) <= {line.experiment for line in own.lines}


def test_each_folder_has_its_place(own):
    """None is left out of the pages because its runs are of no experiment."""
    said = own.layout["search"]
    shown = {said[key] for key in ("folder", "best", "unsearched") if key in said}
    for line in own.lines:
        folders = [
            *(line.row["folders"] if line.row else ()),
            *(run["folder"] for run in line.lost),
        ]
        shown |= {Path(folder).relative_to(KEPT).parts[0] for folder in folders}
    assert shown == {path.relative_to(KEPT).parts[0] for path in RECORDS}


def test_the_remark_about_cutout_is_true(own):
    without, cutout = (line(own, f"preact_resnet20{name}") for name in ("", "_cutout"))
    assert without.is_shortened
    assert cutout.is_shortened
    assert without.row["n"] == cutout.row["n"] == 1
    assert cutout.row["test_accuracy"] < without.row["test_accuracy"]


def test_each_experiment_has_its_place(own):
    names = [line.experiment for line in own.lines]
    there = {path.stem for path in (CHECKOUT / "conf" / "experiment").glob("*.yaml")}
    assert set(names) == there


# --- a line -----------------------------------------------------------------------------------


def test_the_best_on_test_is_compared_with_the_best_on_test(pages, tmp_path):
    put(tmp_path, "lenet", [0.9, 0.902, 0.901], [0.91, 0.914, 0.912])
    cells = line(pages).cells
    assert cells["last epoch (%)"] == "90.10 ± 0.10"
    assert cells["95 % interval (%)"] == "89.85 to 90.35"
    assert cells["best epoch on test (%)"] == "91.20 ± 0.20"
    assert cells["difference (points)"] == "+1.04"  # to 90.16
    assert cells["one run (%)"] == "90.21 to 92.19"  # of the best ones
    assert cells["n"] == "3"


@pytest.mark.parametrize("looks", [0, 5])
def test_with_fewer_looks_it_is_compared_with_nothing_like_it(pages, tmp_path, looks):
    best = [0.91, 0.914, 0.912] if looks else None
    put(tmp_path, "lenet", [0.9, 0.902, 0.901], best, config__test_every=looks)
    found = line(pages)
    assert found.cells["difference (points)"] == "-0.06, last epoch"
    assert found.cells["one run (%)"] == "-"
    assert found.verdict is None


def test_the_best_of_some_seeds_is_not_shown(pages, tmp_path):
    put(tmp_path, "lenet", [0.9], [0.91])
    put(tmp_path, "lenet", [0.902], [None], first=1)
    assert line(pages).cells["best epoch on test (%)"] == "-"


@pytest.mark.parametrize(
    ("accuracies", "short", "said"),
    [
        # Published are 88.30 %.
        ((0.87, 0.8701, 0.8702), True, "is more than one more run of ours would give, 86.96 to 87"),
        ((0.90, 0.9001, 0.9002), False, "is less than one more run of ours would give, 89.96 to 9"),
        ((0.87, 0.89, 0.90), False, "is within what one more run of ours would give, 81.08 to 96"),
        ((0.875, 0.885), False, "does not contradict it. Of two seeds that is a wide range."),
        ((0.87, 0.872), True, "does not contradict it. Of two seeds that is a wide range."),
        ((0.87,), True, "% and ours lie 1.30 points apart; one seed does not say how far another"),
        ((0.882,), False, "% and ours lie 0.10 points apart; one seed does not say how far"),
    ],
)
def test_what_follows_for_the_published_figure(pages, tmp_path, accuracies, short, said):
    put(tmp_path, "lenet5", accuracies)
    found = line(pages, "lenet5")
    assert found.falls_short == short
    assert found.verdict.startswith("**lenet5**: the published 88.30 %")
    assert said in found.verdict


def test_fewer_epochs_say_of_how_many_and_are_compared_with_nothing(pages, tmp_path):
    values = {"deviations": ["epochs=8"], "epochs": 8, "scheduler": "multistep"}
    put(tmp_path, "vgg_light", [0.8, 0.801, 0.8], [0.81] * 3, **values)
    found = line(pages, "vgg_light")
    assert found.name == "vgg_light (8 of 30 epochs)"
    assert found.cells["difference (points)"] == "recipe changed"
    assert found.cells["one run (%)"] == "-"
    assert found.cells["published time"] == "30 epochs: 30 min 35 s, GTX 1070"
    assert not found.falls_short
    page = pages.page
    assert "- shortened: vgg_light (8 of 30 epochs): 3 seeds\n" in page
    assert (
        "- **vgg_light (8 of 30 epochs)**: not comparable with the published 91.35 %, which is of "
        "30 epochs. The learning rate of each epoch run is the recipe's.\n"
    ) in page
    assert "published.png" not in page
    assert "| vgg_light" not in pages.short_form
    assert "/results.md): vgg_light (8 of 30 epochs).\n" in pages.short_form


def test_fewer_epochs_of_a_schedule_that_follows_them_are_another_recipe(pages, tmp_path):
    values = {"deviations": ["epochs=2"], "epochs": 2, "scheduler": "cosine"}
    put(tmp_path, "preact_resnet20", [0.9], **values)
    said = "is of 200 epochs. The recipe's whole schedule was compressed into the 2."
    assert line(pages, "preact_resnet20").verdict.endswith(said)


def test_more_epochs_are_another_recipe_not_a_shorter_one(pages, tmp_path):
    put(tmp_path, "lenet", [0.9], deviations=["epochs=60"], epochs=60)
    assert line(pages).name == "lenet (epochs=60)"
    assert "- with another recipe: lenet (epochs=60): 1 seed\n" in pages.page


def test_where_nothing_is_published_fewer_epochs_are_not_held_against_it(pages, tmp_path):
    values = {"deviations": ["epochs=2"], "epochs": 2, "scheduler": "constant"}
    put(tmp_path, "resnet18_batch64", [0.9], **values)
    found = line(pages, "resnet18_batch64")
    assert (found.name, found.verdict) == ("resnet18_batch64 (2 of 50 epochs)", None)


def test_another_recipe_says_so_and_is_compared_with_nothing(pages, tmp_path):
    put(tmp_path, "vgg_light", [0.8, 0.801, 0.8], deviations=["batch_size=16", "epochs=8"])
    found = line(pages, "vgg_light")
    assert found.name == "vgg_light (batch_size=16, epochs=8)"
    assert found.cells["difference (points)"] == "recipe changed"
    assert found.verdict is None
    assert "- with another recipe: vgg_light (batch_size=16, epochs=8): 3 seeds\n" in pages.page


def test_runs_that_did_not_complete_are_counted_and_shown(pages, tmp_path):
    put(tmp_path / "lenet", "lenet", [0.9, 0.902])
    put(tmp_path / "lenet", "lenet", [None], first=2, status="diverged")
    put(tmp_path / "lenet5", "lenet5", [None, None], status="failed")
    assert line(pages).cells["n"] == "2 of 3 (1 failed)"
    assert line(pages, "lenet5").cells["last epoch (%)"] == "none of 2 runs completed"
    page = pages.page
    assert "- with the published recipe: lenet: 2 of 3 seeds (1 failed)\n" in page
    assert "- runs of which none completed: lenet5: 2\n" in page
    assert "1/result.json), [seed 2 diverged](results/lenet/2/result.json)\n" in page
    assert "lenet5: none of 2 runs completed, [seed 0 failed](results/lenet5/0/result.json)" in page


def test_the_published_recipe_comes_first(pages, tmp_path):
    put(tmp_path / "a", "lenet", [0.95], deviations=["epochs=12"], epochs=12)
    put(tmp_path / "b", "lenet", [0.9])
    assert [one.name for one in pages.lines[:2]] == ["lenet", "lenet (12 of 30 epochs)"]


def test_what_was_not_run_says_so(pages, tmp_path):
    put(tmp_path, "lenet", [0.9])
    found = line(pages, "wideresnet")
    assert found.cells["last epoch (%)"] == "not run"
    assert found.cells["published (%)"] == "93.28, best epoch on test"
    assert found.verdict is None
    assert (
        "wideresnet: not run\n\n```sh\npython -m fmbench experiment=wideresnet\n```" in pages.page
    )
    assert "wideresnet" not in pages.short_form


# --- the page ---------------------------------------------------------------------------------


def test_one_row_on_two_machines_is_two_lines_that_say_so(pages, tmp_path):
    put(tmp_path / "lenet", "lenet", [0.9, 0.902, 0.901], [0.91, 0.914, 0.912])
    put(tmp_path / "lenet_h100", "lenet", [0.904], [0.905], **GPU)
    page = pages.page
    for name in ("lenet (AMD EPYC, 2 threads, fp32)", "lenet (H100, bf16)"):
        assert f"\n| {name} | 61,706 | 90.16, best" in page
        assert f"\n| {name} |" in pages.short_form
        assert f"- **{name}**: the published 90.16 %" in page
        assert f"\n\n{name}: [seed 0](results/lenet" in page
    said = "lenet (H100, bf16): 1 seed; lenet (AMD EPYC, 2 threads, fp32): 3 seeds"
    assert f"- with the published recipe: {said}\n" in page


def test_each_row_has_its_command_and_its_records(pages, tmp_path):
    put(tmp_path / "lenet5", "lenet5", [0.88, 0.89], first=7)
    assert (
        "lenet5: [seed 7](results/lenet5/7/result.json), [seed 8](results/lenet5/8/result.json)\n\n"
        "```sh\npython -m fmbench -m experiment=lenet5 seed=7,8\n```"
    ) in pages.page


def test_a_remark_stands_below_its_table_once(pages, tmp_path):
    put(tmp_path / "a", "lenet", [0.88], [0.885])
    put(tmp_path / "b", "lenet", [0.88], [0.885], **GPU)
    pages.layout["remarks"] = {"lenet": "The sea was rough."}
    assert pages.page.count("**lenet**: The sea was rough.") == 1


def test_the_words_take_their_numbers_from_the_recipes(pages, tmp_path):
    put(tmp_path, "lenet", [0.9])
    page = pages.page
    assert "## A. Five nets, 30 epochs\n" in page
    assert "SGD with batches of 8 and a learning rate of 0.001 that falls tenfold before" in page
    assert "6, 13, 20, 27 (counted from 0)" in page
    assert (
        "Adam with batches of 100 and a learning rate of 0.001, no augmentation, 15 epochs" in page
    )
    assert "0.01 for 50 epochs at batch sizes 64, 256, 512" in page


def test_curves_are_those_of_the_rows_of_a_table(pages, tmp_path):
    lines = ({"epoch": n, "train_loss": 0.5, "test_accuracy": 0.9} for n in range(2))
    histories = "".join(f"{json.dumps(one)}\n" for one in lines)
    put(tmp_path / "a", "shakeshake_96", [0.93], model="shakeshake")
    put(tmp_path / "b", "shakeshake_96_cutout14", [0.96], model="shakeshake", batch_size=128)
    for folder in ("a", "b"):
        (tmp_path / folder / "0" / "history.jsonl").write_text(histories)
    assert {"curves_c_shakeshake", "curves_e_shakeshake"} <= set(pages.pictures)
    assert "batch size 64" in pages.pictures["curves_c_shakeshake"].alt
    assert "batch size 128" in pages.pictures["curves_e_shakeshake"].alt
    assert "](images/results/curves_c_shakeshake.png)" in pages.page


def test_a_run_of_another_form_that_did_not_complete_is_shown_too(pages, tmp_path):
    put(tmp_path / "lenet", "lenet", [0.9, 0.902])
    values = {"deviations": ["epochs=12"], "epochs": 12, "config__epochs": 12}
    values["configuration"] = "another"
    put(tmp_path / "short", "lenet", [None], first=7, status="diverged", **values)
    first, second = (line for line in pages.lines if line.experiment == "lenet")
    assert (first.cells["n"], first.lost) == ("2", ())
    assert second.cells["last epoch (%)"] == "none of 1 runs completed"
    assert "[seed 7 diverged](results/short/7/result.json)" in pages.page


def test_a_record_that_cannot_be_read_is_not_passed_over(pages, tmp_path):
    put(tmp_path, "lenet", [0.9, 0.902])
    (tmp_path / "1" / "result.json").write_text('{"schema": 1,')
    with pytest.raises(ValueError, match=r"1/result\.json: "):
        _ = pages.page


OVERRIDES = ["model=lenet", "augmentation=flip", "epochs=30", "threads=1"]


def searched(pages, tmp_path, *, unsearched=None, **changes):
    """A search, its best, trained again, and the recipe; all else as the best, if asked for."""
    pages.layout["search"] = yaml.safe_load((KEPT / "tables.yaml").read_text("utf-8"))["search"]
    pages.layout["search"].pop("unsearched", None)
    sweep(tmp_path / "lenet_search")
    for path in (tmp_path / "lenet_search").glob("*/result.json"):
        record = json.loads(path.read_text())
        record["overrides"] = ["batch_size=64", *OVERRIDES, "optimizer.lr=0.01"]
        path.write_text(json.dumps(record))
    best = json.loads((tmp_path / "lenet_search" / "search.json").read_text())
    (number, *_) = best["best"]
    (trial,) = [trial for trial in best["trials"] if trial["number"] == number]
    size, rate = trial["parameters"]["batch_size"], trial["parameters"]["optimizer.lr"]
    values = {"batch_size": size, "learning_rate": rate, "model": "lenet", "epochs": 30, **changes}
    for seed, accuracy in enumerate([0.91, 0.911, 0.9105]):
        write(tmp_path / "lenet_best" / str(seed), seed=seed, test_accuracy=accuracy, **values)
    put(tmp_path / "lenet", "lenet", [0.9, 0.902, 0.901], data__sha256="d1" * 32, epochs=12)
    if unsearched is not None:
        pages.layout["search"]["unsearched"] = "lenet_unsearched"
        values |= {"batch_size": 64, "learning_rate": 0.05, **unsearched}
        for seed in range(2):
            folder = tmp_path / "lenet_unsearched" / str(seed)
            write(folder, seed=seed, test_accuracy=0.905, **values)


def test_a_search_stands_beside_the_recipe(pages, tmp_path):
    searched(pages, tmp_path)
    page = pages.page.partition("## lenet: a search against the recipe")[2]
    assert "| the search's best | 91.05 ± 0.05 | 90.93 to 91.17 | 3 |" in page
    assert "| the recipe | 90.10 ± 0.10 |" in page
    assert "### Its best, trained on 60,000 images, against the recipe" in page
    assert "\n- The search's best is more accurate than the recipe by 0.95 points (95 %" in page
    assert "The search tried batch sizes 64, 512 and learning rates from 0.0012 to 0.01." in page
    assert "the search's best: [seed 0](results/lenet_best/0/result.json)" in page
    assert "](images/results/search.png)" in page
    assert "The trials trained 6 epochs of 8." in page
    assert f"```sh\npython -m fmbench -m sweep=lr_batch {' '.join(OVERRIDES)}\n```" in page


def test_beside_it_stands_the_same_unsearched(pages, tmp_path):
    searched(pages, tmp_path, unsearched={})
    recipe = line(pages).row
    page = pages.page.partition("## lenet: a search against the recipe")[2]
    assert (
        f"| the unsearched row | 90.50 ± 0.00 | 90.50 to 90.50 | 2 | {recipe['batch_size']} |"
        in page
    )
    assert "\n- The search's best and the unsearched row cannot be told apart: 0.55 points" in page
    assert (
        "Of 0.95 points 0.40 come with the other settings; the searched batch size and learning "
        "rate add 0.55, and 5 runs do not settle whether that is more than chance."
    ) in page
    assert "the unsearched row: [seed 0](results/lenet_unsearched/0/result.json)" in page


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"learning_rate": 0.06}, "has not the recipe's values"),
        ({"config__optimizer__momentum": 0.5}, "differs from the best: optimizer.momentum"),
        ({"config__scheduler__pct_start": 0.1}, "differs from the best: scheduler.pct_start"),
    ],
)
def test_what_is_more_than_unsearched_is_not_called_so(pages, tmp_path, changes, why):
    searched(pages, tmp_path, unsearched=changes)
    with pytest.raises(ValueError, match=why):
        _ = pages.page


def test_what_is_not_the_searchs_command_is_not_called_so(pages, tmp_path):
    searched(pages, tmp_path)
    pages.layout["search"]["command"] += " optimizer.momentum=0.5"
    with pytest.raises(ValueError, match="trial 0 was run with augmentation=flip epochs=30 model"):
        _ = pages.page


@pytest.mark.parametrize("folder", ["lenet_search", "lenet_best", "lenet"])
def test_what_tables_name_must_be_there(pages, tmp_path, folder):
    searched(pages, tmp_path)
    shutil.rmtree(tmp_path / folder)
    with pytest.raises(ValueError, match=f"^{folder}: tables.yaml names th.+ not kept"):
        _ = pages.page


def test_a_folder_of_the_search_is_one_row_and_all_of_it(pages, tmp_path):
    searched(pages, tmp_path)
    write(tmp_path / "lenet_best" / "9", seed=9, test_accuracy=0.7, batch_size=8)
    with pytest.raises(ValueError, match=r"^lenet_best: holds 2 rows, and tables\.yaml means one"):
        _ = pages.page


def test_a_row_of_the_search_lies_in_one_folder(pages, tmp_path):
    searched(pages, tmp_path)
    shutil.move(tmp_path / "lenet_best" / "2", tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"^lenet_best: other folders hold runs of the same row"):
        _ = pages.page


@pytest.mark.parametrize("changes", [{"batch_size": 7}, {"learning_rate": 0.0102}])
def test_what_is_not_the_searchs_best_is_not_called_so(pages, tmp_path, changes):
    searched(pages, tmp_path, **changes)
    with pytest.raises(ValueError, match="the search's best has batch size"):
        _ = pages.page


def test_the_runs_of_a_search_are_no_rows_of_the_tables(pages, tmp_path):
    pages.layout["search"] = {"folder": "lenet_search", "best": "lenet_best"}
    put(tmp_path / "lenet", "lenet", [0.9])
    put(tmp_path / "lenet_best", "lenet", [0.95], deviations=["epochs=12"], epochs=12)
    assert line(pages).name == "lenet"


def test_the_readme_takes_the_short_form_between_its_marks(results):
    module = importlib.import_module("results_page")
    text = f"before\n{module.START}\nold\n\n{module.END}after\n"
    said = module.with_short_form(text, "new\n")
    assert said == f"before\n{module.START}\nnew\n\n{module.END}after\n"
    with pytest.raises(ValueError, match="lost the marks"):
        module.with_short_form("no marks", "new\n")


# --- keep and check ---------------------------------------------------------------------------


def test_records_epochs_and_answers_alone_are_kept(results, tmp_path):
    put(tmp_path / "runs", "lenet", [0.9, 0.91])
    write(tmp_path / "runs" / "2", status="pruned", git=COMMITTED, data__sha256=OFFICIAL_SHA256)
    for name in ("checkpoint.pt", "model.safetensors", "mistakes.npy", "fmbench.log"):
        (tmp_path / "runs" / "0" / name).write_text("x")
    for name in ("0/history.jsonl", "0/predictions.npy", "0/labels.npy"):
        (tmp_path / "runs" / name).write_text(name)
    a_search(tmp_path / "runs")
    (tmp_path / "kept" / "older").mkdir(parents=True)
    assert results.keep(tmp_path / "runs", tmp_path / "kept") == (3, 0)
    kept = {
        path.relative_to(tmp_path / "kept").as_posix()
        for path in (tmp_path / "kept").rglob("*")
        if path.is_file()
    }
    assert kept == {
        *("0/result.json", "1/result.json", "2/result.json", "search.json"),
        *("0/history.jsonl", "0/predictions.npy", "0/labels.npy"),
    }
    assert (tmp_path / "kept/0/labels.npy").read_text() == "0/labels.npy"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"git": {"commit": "0" * 40, "dirty": True}}, "uncommitted changes"),
        ({"git": None}, "uncommitted changes"),
        ({"status": "running"}, "running: only runs that ended"),
        ({"data__name": "synthetic", "data__sha256": "d1" * 32}, "made on synthetic, not on the"),
        ({"data__sha256": "d1" * 32}, "made on fashion_mnist, not on the official images"),
    ],
)
def test_what_cannot_be_stood_for_is_not_kept(results, tmp_path, changes, why):
    put(tmp_path / "runs", "lenet", [0.9, 0.91], **changes)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "older").touch()
    with pytest.raises(SystemExit, match=why):
        results.keep(tmp_path / "runs", tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["older"]


def test_what_is_kept_is_not_kept_again(results, tmp_path):
    put(tmp_path / "kept", "lenet", [0.9])
    for folder in (tmp_path / "kept", tmp_path / "kept" / "0"):
        with pytest.raises(SystemExit, match="is kept already"):
            results.keep(folder, tmp_path / "kept")
    assert (tmp_path / "kept" / "0" / "result.json").is_file()


@pytest.mark.parametrize(
    ("content", "why"), [("", "empty"), ("[]", "not a record"), ('{"schema": 1}', "lacks key")]
)
def test_what_cannot_be_read_is_not_kept(results, tmp_path, content, why):
    put(tmp_path / "runs", "lenet", [0.9])
    (tmp_path / "runs" / "0" / "result.json").write_text(content)
    with pytest.raises(SystemExit, match=why):
        results.keep(tmp_path / "runs", tmp_path / "kept")


def test_a_folder_that_is_not_there_is_said(results, tmp_path):
    with pytest.raises(SystemExit, match="nowhere: no such folder"):
        results.keep(tmp_path / "nowhere", tmp_path / "kept")


def test_what_is_replaced_is_said(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "KEPT", tmp_path / "kept")
    put(tmp_path / "two", "lenet", [0.9, 0.91])
    put(tmp_path / "one", "lenet", [0.9])
    results.main(["keep", "lenet", str(tmp_path / "two")])
    results.main(["keep", "lenet", str(tmp_path / "one")])
    assert capsys.readouterr().out == (
        "kept 2 runs in docs/results/lenet\nkept 1 runs in docs/results/lenet in place of 2\n"
    )


@pytest.mark.parametrize("name", [".", "..", "a/b", "/tmp"])
def test_a_name_is_no_path(results, tmp_path, name, capsys):
    put(tmp_path / "runs", "lenet", [0.9])
    with pytest.raises(SystemExit):
        results.main(["keep", name, str(tmp_path / "runs")])
    assert "letters, digits and _ alone make a name" in capsys.readouterr().err


@pytest.mark.slow
def test_a_page_or_picture_that_is_out_of_date_is_said(results, own, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "Pages", lambda _: own)  # made once for all tests
    copy, pictures = tmp_path / "results.md", tmp_path / "pictures"
    shutil.copy(results.PAGE, copy)
    shutil.copytree(results.PICTURES, pictures)
    monkeypatch.setattr(results, "PAGE", copy)
    monkeypatch.setattr(results, "PICTURES", pictures)
    results.main(["--check"])
    assert capsys.readouterr().out == ""
    copy.write_text("# Results\n")
    shutil.copy(pictures / "published.png", pictures / "search.png")
    (pictures / "published.png").unlink()
    shutil.copy(pictures / "search.png", pictures / "other.png")
    with pytest.raises(SystemExit, match=r"python scripts/results\.py writes them"):
        results.main(["--check"])
    said = set(capsys.readouterr().out.splitlines())
    assert said >= {
        f"{name} is not up to date"
        for name in ("results.md", "published.png", "search.png", "other.png")
    }
    assert copy.read_text() == "# Results\n"


def test_another_mark_makes_another_picture(results):
    """Even where it has moved by no more than its width."""
    from PIL import Image, ImageDraw

    def png(left):
        image = Image.new("RGB", (900, 400), "white")
        ImageDraw.Draw(image).ellipse((left, 200, left + 9, 209), fill="blue")
        content = io.BytesIO()
        image.save(content, "png")
        return content.getvalue()

    assert results._alike(png(300), png(300))
    assert not results._alike(png(300), png(303))


def test_what_is_wrong_is_one_line(results, tmp_path, monkeypatch):
    for name in ("PAGE", "README", "PICTURES"):  # should it write in spite of all
        monkeypatch.setattr(results, name, tmp_path / name)
    monkeypatch.setattr(results, "KEPT", tmp_path)
    shutil.copy(KEPT / "tables.yaml", tmp_path)
    put(tmp_path / "lenet", "lenet", [0.9])
    with pytest.raises(SystemExit, match=r"^results: lenet_search: tables\.yaml names this search"):
        results.main([])
