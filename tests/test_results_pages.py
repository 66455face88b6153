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
from searches import sweep

from fmbench.data.known import OFFICIAL_SHA256
from fmbench.records.reader import read_results
from fmbench.records.record import keys

KEPT = CHECKOUT / "docs" / "results"
RECORDS = sorted(KEPT.rglob("result.json"))
FILES = {"result.json", "history.jsonl", "predictions.npy", "labels.npy", "search.json"}
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
    """Pages of records that a test has put into `tmp_path`, without a search and pictures."""
    shutil.copy(KEPT / "tables.yaml", tmp_path)
    made = results.Pages(tmp_path)
    del made.layout["search"]
    vars(made)["pictures"] = {}
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
    (found,) = [line for line in pages.lines if line["experiment"] == experiment]
    return found


# --- what is kept -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_pages_and_pictures_show_what_the_records_say(results, own):
    for path, content in results.contents(own).items():
        assert not results.is_old(path, content), f"{path.name}: run python scripts/results.py"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.relative_to(KEPT).as_posix())
def test_each_kept_record_agrees_with_what_lies_beside_it(path):
    """A figure that somebody typed into a record would stand alone."""
    record = json.loads(path.read_bytes())
    assert record["data"] == {"name": "fashion_mnist", "sha256": OFFICIAL_SHA256}
    assert record["git"]["dirty"] is False
    assert record["status"] in ("completed", "pruned", "diverged", "failed")
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
    files = [path for path in KEPT.rglob("*") if path.is_file() and path.name != "tables.yaml"]
    assert {path.name for path in files} <= FILES
    assert max(path.stat().st_size for path in files) < 200_000
    assert sum(path.stat().st_size for path in files) < 5_000_000
    for file in KEPT.rglob("*.json*"):
        assert not re.search(r"\"[^\"]*(?<![\w.])/\w", file.read_text("utf-8")), file


def test_where_ours_fall_short_the_page_says_why(own):
    """Where the published figure is higher than one more run of ours would be, or one of ours."""
    remarks = set(own.layout["remarks"])
    for line in own.lines:
        if line["verdict"] and line["kind"] == "with the published recipe":
            share = line["test_accuracy"]
            wide = 1.96 * (share * (1 - share) / line["split_test"]) ** 0.5
            most = line["one_run"][1] if line["n"] > 2 else share + wide
            theirs = line["recipe"]["reference"]["accuracy"]
            assert theirs <= most or line["experiment"] in remarks, line["name"]
    assert remarks <= {line["experiment"] for line in own.lines}


def test_each_folder_has_its_place(own):
    """None is left out of the pages because its runs are of no experiment."""
    shown = {own.layout["search"][key] for key in ("folder", "best", "unsearched")}
    folders = (folder for line in own.lines for folder in line["folders"])
    shown |= {Path(folder).relative_to(KEPT).parts[0] for folder in folders}
    assert shown == {path.relative_to(KEPT).parts[0] for path in RECORDS}


def test_the_rows_beside_the_search_are_what_they_are_called(results, own):
    rows, said = own.search["rows"], own.layout["search"]
    assert own.search["part"].search.best[0] == 19
    assert (rows["best"]["batch_size"], rows["best"]["learning_rate"]) == (64, 0.0169)  # of 0.01694
    for key in ("batch_size", "learning_rate"):
        assert rows["unsearched"][key] == rows["recipe"][key]
    searched = ("batch_size", "optimizer.lr")
    assert not results.differences(rows["unsearched"], rows["best"], searched)
    typed = {word for word in said["command"].split() if "=" in word} - {"sweep=lr_batch"}
    of_search = {"data.split", "test_every", *searched, *results.NO_SETTING}
    for path in (KEPT / said["folder"]).glob("*/result.json"):
        words = json.loads(path.read_bytes())["overrides"]
        assert {word for word in words if word.partition("=")[0] not in of_search} == typed


def test_the_remark_about_cutout_is_true(own):
    without, cutout = (line(own, f"preact_resnet20{name}") for name in ("", "_cutout"))
    assert without["kind"] == cutout["kind"] == "shortened"
    assert without["n"] == cutout["n"] == 1
    assert cutout["test_accuracy"] < without["test_accuracy"]


def test_each_experiment_has_its_place(own):
    names = [line["experiment"] for line in own.lines]
    there = {path.stem for path in (CHECKOUT / "conf" / "experiment").glob("*.yaml")}
    assert set(names) == there


# --- a line -----------------------------------------------------------------------------------


def test_the_best_on_test_is_compared_with_the_best_on_test(pages, tmp_path):
    put(tmp_path, "lenet", [0.9, 0.902, 0.901], [0.91, 0.914, 0.912])
    cells = line(pages)["cells"]
    assert cells["test_accuracy"] == "90.10 ± 0.10"
    assert cells["test_accuracy_low"] == "89.85 to 90.35"
    assert cells["best_test_accuracy"] == "91.20 ± 0.20"
    assert cells["difference"] == "+1.04"  # to 90.16
    assert cells["one_run"] == "90.21 to 92.19"  # of the best ones
    assert cells["n"] == "3"


@pytest.mark.parametrize("looks", [0, 5])
def test_with_fewer_looks_it_is_compared_with_nothing_like_it(pages, tmp_path, looks):
    best = [0.91, 0.914, 0.912] if looks else None
    put(tmp_path, "lenet", [0.9, 0.902, 0.901], best, config__test_every=looks)
    found = line(pages)
    assert found["cells"]["difference"] == "-0.06, last epoch"
    assert found["cells"]["one_run"] == "-"
    assert not found["verdict"]


def test_the_best_of_some_seeds_is_not_shown(pages, tmp_path):
    put(tmp_path, "lenet", [0.9], [0.91])
    put(tmp_path, "lenet", [0.902], [None], first=1)
    assert line(pages)["cells"]["best_test_accuracy"] == "-"


@pytest.mark.parametrize(("accuracies", "said"), [
    # Published are 88.30 %.
    ((0.87, 0.8701, 0.8702), "is more than one more run of ours would give, 86.96 to 87"),
    ((0.90, 0.9001, 0.9002), "is less than one more run of ours would give, 89.96 to 9"),
    ((0.87, 0.89, 0.90), "is within what one more run of ours would give, 81.08 to 96"),
    ((0.875, 0.885), "does not contradict it. Of two seeds that is a wide range."),
    ((0.87,), "and ours lie 1.30 points apart; one seed does not say how far another would."),
])  # fmt: skip
def test_what_follows_for_the_published_figure(pages, tmp_path, accuracies, said):
    put(tmp_path, "lenet5", accuracies)
    (found,) = re.findall(
        r"^- \*\*lenet5\*\*: the published 88.30 % (.*)", pages.text(), re.MULTILINE
    )
    assert said in found


def test_another_number_format_is_not_like_with_like(pages, tmp_path):
    put(tmp_path, "lenet5", [0.88], fingerprint__precision="bf16")
    said = "**lenet5 (bf16)**: the published 88.30 % and ours lie 0.30 points apart, but ours was"
    assert f"{said} computed in bf16: not like with like.\n" in pages.text()


def test_fewer_epochs_say_of_how_many_and_are_compared_with_nothing(pages, tmp_path):
    values = {"deviations": ["epochs=8"], "epochs": 8, "scheduler": "multistep"}
    put(tmp_path, "vgg_light", [0.8, 0.801, 0.8], [0.81] * 3, **values)
    found = line(pages, "vgg_light")
    assert found["name"] == "vgg_light (8 of 30 epochs)"
    assert found["cells"]["difference"] == "recipe changed"
    assert found["cells"]["one_run"] == "-"
    assert found["cells"]["published_seconds"] == "30 epochs: 30 min 35 s, GTX 1070"
    page = pages.text()
    assert "- shortened: vgg_light (8 of 30 epochs): n = 3\n" in page
    assert (
        "- **vgg_light (8 of 30 epochs)**: not comparable with the published 91.35 %, which is of "
        "30 epochs. The learning rate of each epoch run is the recipe's.\n"
    ) in page
    short = pages.text(short=True)
    assert "| vgg_light" not in short
    assert "/results.md): vgg_light (8 of 30 epochs).\n" in short


def test_fewer_epochs_of_a_schedule_that_follows_them_are_another_recipe(pages, tmp_path):
    values = {"deviations": ["epochs=2"], "epochs": 2, "scheduler": "cosine"}
    put(tmp_path, "preact_resnet20", [0.9], **values)
    said = "is of 200 epochs. The recipe's whole schedule was compressed into the 2.\n"
    assert said in pages.text()


def test_where_nothing_is_published_fewer_epochs_are_not_held_against_it(pages, tmp_path):
    values = {"deviations": ["epochs=2"], "epochs": 2, "scheduler": "constant"}
    put(tmp_path, "resnet18_batch64", [0.9], **values)
    found = line(pages, "resnet18_batch64")
    assert (found["name"], found["verdict"]) == ("resnet18_batch64 (2 of 50 epochs)", False)


@pytest.mark.parametrize("changed", [["batch_size=16", "epochs=8"], ["epochs=60"]])
def test_another_recipe_says_so_and_is_compared_with_nothing(pages, tmp_path, changed):
    """More epochs are another recipe, not a shorter one."""
    put(tmp_path, "vgg_light", [0.8, 0.801, 0.8], deviations=changed, epochs=60)
    found = line(pages, "vgg_light")
    assert found["name"] == f"vgg_light ({', '.join(changed)})"
    assert found["cells"]["difference"] == "recipe changed"
    assert not found["verdict"]
    assert f"- with another recipe: {found['name']}: n = 3\n" in pages.text()


def test_runs_that_did_not_complete_are_counted_and_shown(pages, tmp_path):
    put(tmp_path / "lenet", "lenet", [0.9, 0.902])
    put(tmp_path / "lenet", "lenet", [None], first=2, status="diverged")
    put(tmp_path / "lenet5", "lenet5", [None, None], status="failed")
    assert line(pages)["cells"]["n"] == "2 of 3 (1 failed)"
    assert line(pages, "lenet5")["cells"]["n"] == "0 of 2 (2 failed)"
    page = pages.text()
    assert "- with the published recipe: lenet: n = 2 of 3 (1 failed)\n" in page
    assert "- not completed: lenet5: n = 0 of 2 (2 failed)\n" in page
    assert "lenet5: [seed 0](results/lenet5/0/result.json), [seed 1](" in page


def test_the_published_recipe_comes_first(pages, tmp_path):
    put(tmp_path / "a", "lenet", [0.95], deviations=["epochs=12"], epochs=12)
    put(tmp_path / "b", "lenet", [0.9])
    assert [one["name"] for one in pages.lines[:2]] == ["lenet", "lenet (12 of 30 epochs)"]


def test_what_was_not_run_says_so(pages, tmp_path):
    put(tmp_path, "lenet", [0.9])
    found = line(pages, "wideresnet")
    assert found["cells"]["test_accuracy"] == found["kind"] == "not run"
    assert found["cells"]["published_accuracy"] == "93.28, best epoch on test"
    assert not found["verdict"]
    assert (
        "wideresnet: not run\n\n```sh\npython -m fmbench experiment=wideresnet\n```" in pages.text()
    )
    assert "wideresnet" not in pages.text(short=True)


# --- the page ---------------------------------------------------------------------------------


def test_one_row_on_two_machines_is_two_lines_that_say_so(pages, tmp_path):
    put(tmp_path / "lenet", "lenet", [0.9, 0.902, 0.901], [0.91, 0.914, 0.912])
    put(tmp_path / "lenet_h100", "lenet", [0.904], [0.905], **GPU)
    page = pages.text()
    for name, device in (("lenet", "AMD EPYC, 2 threads, fp32"), ("lenet (bf16)", "H100, bf16")):
        row = rf"\n\| {re.escape(name)} \| 61,706 \| 90\.16, best .* \| {device} \|"
        assert re.search(row, page)
        assert f"\n| {name} |" in pages.text(short=True)
        assert f"- **{name}**: the published 90.16 %" in page
        assert f"\n\n{name}: [seed 0](results/lenet" in page
    assert "- with the published recipe: lenet (bf16): n = 1; lenet: n = 3\n" in page


def test_each_row_has_its_command_and_its_records(pages, tmp_path):
    put(tmp_path / "lenet5", "lenet5", [0.88, 0.89], first=7)
    assert (
        "lenet5: [seed 7](results/lenet5/7/result.json), [seed 8](results/lenet5/8/result.json)\n\n"
        "```sh\npython -m fmbench -m experiment=lenet5 seed=7,8\n```"
    ) in pages.text()


def test_a_remark_stands_below_its_table_once(pages, tmp_path):
    put(tmp_path / "a", "lenet", [0.88], [0.885])
    put(tmp_path / "b", "lenet", [0.88], [0.885], **GPU)
    pages.layout["remarks"] = {"lenet": "The sea was rough."}
    assert pages.text().count("**lenet**: The sea was rough.") == 1


def test_the_words_take_their_numbers_from_the_recipes(pages, tmp_path):
    put(tmp_path, "lenet", [0.9])
    page = pages.text()
    assert "## A. Five models, 30 epochs\n" in page
    assert "SGD with batches of 8 and a learning rate of 0.001 that falls tenfold before" in page
    assert "6, 13, 20, 27 (counted from 0)" in page
    assert (
        "Adam with batches of 100 and a learning rate of 0.001, no augmentation, 15 epochs" in page
    )
    assert "0.01 for 50 epochs at batch sizes 64, 256, 512" in page


@pytest.mark.slow
def test_curves_are_those_of_the_rows_of_a_table(pages, tmp_path):
    lines = ({"epoch": n, "train_loss": 0.5, "test_accuracy": 0.9} for n in range(2))
    histories = "".join(f"{json.dumps(one)}\n" for one in lines)
    put(tmp_path / "a", "shakeshake_96", [0.93], model="shakeshake")
    put(tmp_path / "b", "shakeshake_96_cutout14", [0.96], model="shakeshake", batch_size=128)
    for folder in ("a", "b"):
        (tmp_path / folder / "0" / "history.jsonl").write_text(histories)
    del vars(pages)["pictures"]
    assert {"curves_c_shakeshake", "curves_e_shakeshake"} <= set(pages.pictures)
    assert "batch size 64" in pages.pictures["curves_c_shakeshake"].alt
    assert "batch size 128" in pages.pictures["curves_e_shakeshake"].alt
    assert "](images/results/curves_c_shakeshake.png)" in pages.text()


def test_a_record_that_cannot_be_read_is_not_passed_over(pages, tmp_path):
    put(tmp_path, "lenet", [0.9, 0.902])
    (tmp_path / "1" / "result.json").write_text('{"schema": 1,')
    with pytest.raises(ValueError, match=r"1/result\.json: "):
        pages.text()


@pytest.mark.slow
def test_a_search_stands_beside_the_recipe(pages, tmp_path):
    pages.layout["search"] = yaml.safe_load((KEPT / "tables.yaml").read_text("utf-8"))["search"]
    sweep(tmp_path / "lenet_search")
    put(tmp_path / "lenet", "lenet", [0.9, 0.902, 0.901], data__sha256="d1" * 32, epochs=12)
    changes = {"model": "lenet", "epochs": 30}
    for name, accuracies, size in (
        ("lenet_best", (0.91, 0.911, 0.9105), 512),
        ("lenet_unsearched", (0.905, 0.905), 8),
    ):
        for seed, accuracy in enumerate(accuracies):
            folder = tmp_path / name / str(seed)
            write(folder, seed=seed, test_accuracy=accuracy, batch_size=size, **changes)
    page = pages.text().partition("## lenet: a search against the recipe")[2]
    assert "| the search's best | 91.05 ± 0.05 | 90.93 to 91.17 | 3 |" in page
    assert "| the recipe | 90.10 ± 0.10 |" in page
    assert "| the unsearched row | 90.50 ± 0.00 | 90.50 to 90.50 | 2 | 8 |" in page
    assert "### Its best, trained on 60,000 images, against the recipe" in page
    assert "\n- The search's best is more accurate than the recipe by 0.95 points (95 %" in page
    assert "\n- The search's best and the unsearched row cannot be told apart: 0.55 points" in page
    assert "The search tried batch sizes 64, 512 and learning rates from 0.0012 to 0.01." in page
    assert (
        "Of 0.95 points 0.40 come with the other settings; the searched batch size and learning "
        "rate add 0.55, and 5 runs do not settle whether that is more than chance."
    ) in page
    assert "the search's best: [seed 0](results/lenet_best/0/result.json)" in page
    assert "The trials trained 6 epochs of 8." in page
    assert f"```sh\n{pages.layout['search']['command']}\n```" in page

    shutil.rmtree(tmp_path / "lenet_search")
    vars(pages).pop("report")
    vars(pages).pop("search")
    with pytest.raises(ValueError, match=r"^lenet_search: tables\.yaml names this search, and"):
        pages.text()


def test_rows_that_differ_are_told_by_their_settings_and_not_by_their_seeds(results, tmp_path):
    changes = {"config__optimizer__momentum": 0.5, "config__test_every": 1, "seed": 7}
    for name, said in (("a", {}), ("b", {"scheduler": "constant", **changes})):
        write(tmp_path / name, test_accuracy=0.9, **said)
    rows = {row["scheduler"]: row for row in results.report.build([tmp_path]).rows}
    assert results.differences(rows["constant"], rows["onecycle"], ["batch_size"]) == [
        "optimizer.momentum 0.5, not null",
        "scheduler constant, not onecycle",
    ]


def test_the_readme_takes_the_short_form_between_its_marks(results, pages, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "README", readme := tmp_path / "README.md")
    put(tmp_path, "lenet", [0.9])
    readme.write_text(f"before\n{results.START}\nold\n\n{results.END}after\n")
    text = results.contents(pages)[readme].decode()
    assert text == f"before\n{results.START}\n{pages.text(short=True)}\n{results.END}after\n"
    assert "| lenet | 90.16, best" in text
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="lost the marks"):
        results.contents(pages)


# --- check --------------------------------------------------------------------------------------


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


def test_another_mark_makes_another_picture(results, tmp_path, monkeypatch):
    """Even where it has moved by no more than its width."""
    from PIL import Image, ImageDraw

    def png(left):
        image = Image.new("RGB", (900, 400), "white")
        ImageDraw.Draw(image).ellipse((left, 200, left + 9, 209), fill="blue")
        content = io.BytesIO()
        image.save(content, "png")
        return content.getvalue()

    (tmp_path / "a.png").write_bytes(png(300))
    assert not results.is_old(tmp_path / "a.png", png(300))
    assert results.is_old(tmp_path / "a.png", png(303))
    assert results.is_old(tmp_path / "a.png", None)
    monkeypatch.setattr(results, "version", lambda _: "0.1")  # which may draw letters otherwise
    assert not results.is_old(tmp_path / "a.png", png(303))


def test_what_is_wrong_is_one_line(results, tmp_path, monkeypatch):
    for name in ("PAGE", "README", "PICTURES"):  # should it write in spite of all
        monkeypatch.setattr(results, name, tmp_path / name)
    monkeypatch.setattr(results, "KEPT", tmp_path)
    shutil.copy(KEPT / "tables.yaml", tmp_path)
    put(tmp_path / "lenet", "lenet", [0.9])
    with pytest.raises(SystemExit, match=r"^results: lenet_search: tables\.yaml names this search"):
        results.main([])
