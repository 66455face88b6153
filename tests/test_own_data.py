"""Runs on a user's own data: each command of docs/data.md, what its report says, predictions."""

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import CHECKOUT, records, write_option
from PIL import Image

import fmbench
from fmbench import report
from fmbench.core.errors import ConfigError, StorageError
from fmbench.data import load as module
from fmbench.data import synthetic
from fmbench.predict import photographs
from fmbench.records.predictions import read_held_out
from fmbench.report.table.compare import compare

pytestmark = pytest.mark.usefixtures("no_pictures")

SMALL = ["model=lenet5", "epochs=1", "batch_size=16", "threads=1", "data.cache=null"]
COMMANDS = [
    shlex.split(line)[3:]
    for line in (CHECKOUT / "docs" / "data.md").read_text("utf-8").splitlines()
    if line.startswith("python -m fmbench data=") and "data.root" in line
]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module._prepared.cache_clear()


@pytest.fixture
def data(tmp_path):
    """The files that the commands name: colour pictures of three classes, digits of two."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 9)):
        for number in range(count):
            place = tmp_path / "photos" / part / f"class {number % 3}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    images, labels = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 2
    both = {"train_images": images, "train_labels": labels[:, None]}
    np.savez(tmp_path / "pathmnist.npz", **both, test_images=images, test_labels=labels[:, None])
    np.savez(tmp_path / "mine.npz", a=images, b=labels)
    rows = pd.DataFrame(images.reshape(40, -1)).set_axis([f"pixel{n}" for n in range(784)], axis=1)
    rows.insert(0, "label", labels)
    for part in ("train", "test"):
        rows.to_csv(tmp_path / f"fashion-mnist_{part}.csv", index=False)
        pa = pytest.importorskip("pyarrow")
        pictures = []
        for image in images:
            Image.fromarray(image).save(tmp_path / "one.png")
            pictures.append({"bytes": (tmp_path / "one.png").read_bytes()})
        table = pa.table({"image": pictures, "label": labels})
        pytest.importorskip("pyarrow.parquet").write_table(table, f"{part}-00000.parquet")


@pytest.mark.parametrize("overrides", COMMANDS, ids=" ".join)
def test_every_command_of_the_page_runs(data, overrides):
    record = fmbench.run([*overrides, *SMALL, "hydra.run.dir=run"])
    kind = overrides[0].partition("=")[2]
    assert record.status == "completed"
    root = next(text for text in overrides if text.startswith("data.root")).partition("=")[2]
    assert record.data["name"] == f"{kind} {Path(root).stem}"
    # A record has the hash of the images, and never the path.
    assert len(record.data["sha256"]) == 64
    assert str(Path.cwd()) not in Path("run/result.json").read_text("utf-8")
    assert "root" not in record.config["data"]


def test_there_are_commands_of_each_kind():
    assert {text.partition("=")[2] for text, *_ in COMMANDS} == set(module.OWN)


@pytest.mark.slow
def test_the_same_images_give_the_same_predictions_whatever_they_lie_in(tmp_path):
    drawn = synthetic.load({"train_size": 200, "test_size": 50, "seed": 0})
    (train, labels), (test, test_labels) = map(drawn.part, ("train", "test"))
    np.savez("a.npz", x_train=train, y_train=labels, x_test=test, y_test=test_labels)
    usual = ["data=synthetic", "data.train_size=200", "data.test_size=50"]
    own = ["data=arrays", "data.root=a.npz", "data.mean=0.188", "data.std=0.281"]
    for name, given in (("usual", usual), ("own", own)):
        fmbench.run([*given, "model=lenet", "epochs=2", "threads=1", f"hydra.run.dir={name}"])
    usual, own = (Path(name, "predictions.npy").read_bytes() for name in ("usual", "own"))
    assert usual == own


def test_the_report_says_what_must_be_known_of_the_images(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 12, 12), dtype=np.uint8)
    images[1::2] = images[::2]  # half of them twice
    np.savez("rare.npz", images=images, labels=np.array(["common"] * 50 + ["rare"] * 10))
    given = ["data=arrays", "data.root=rare.npz", "model=lenet", *SMALL[1:]]
    record = fmbench.run([*given, "hydra.run.dir=run"])
    assert record.data["set_aside"]
    report.build(["run"], output=tmp_path / "report")
    said = (tmp_path / "report" / "benchmark.md").read_text("utf-8")
    assert "Data: arrays rare" in said
    assert "The data have no test part of their own" in said
    assert f"{record.data['duplicates']:,} test images are in the training part too" in said
    assert "The classes have 10 to 50 images" in said


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_images(data):
    given = ["data=folder", "data.root=photos", "data.size=32", *SMALL, "hydra.run.dir=run"]
    fmbench.run([*given, "evaluation.test=never", "keep_checkpoint=true"])
    Image.new("RGB", (40, 50)).save("photos/train/class 0/0.png")
    module._prepared.cache_clear()
    with pytest.raises(StorageError, match="is of a run with other data"):
        fmbench.run(given)


def test_pictures_are_prepared_as_in_training(data):
    record = fmbench.run(
        ["data=folder", "data.root=photos", "data.size=32", *SMALL, "keep_model=true",
         "hydra.run.dir=run"]
    )  # fmt: skip
    model = fmbench.load_model("run")
    assert model.shape == (3, 32, 32)
    assert model.classes == ("class 0", "class 1", "class 2")
    paths = sorted(
        Path("photos/test").rglob("*.png"), key=lambda path: (path.parent, int(path.stem))
    )
    seen = np.stack([photographs.prepared(p, model.config["data"], model.shape) for p in paths])
    found = model(torch.from_numpy(seen)).argmax(1).tolist()
    assert found == np.load("run/predictions.npy").tolist()
    assert record.data["classes"] == list(model.classes)
    assert photographs.sheet(list(seen)).startswith(b"\x89PNG")


@pytest.mark.parametrize(("model", "said"), [
    ("lenet", "cannot take images of 8 x 8; the smallest size that works is 12 x 12"),
    ("lenet5", "cannot take images of 8 x 8"),
])  # fmt: skip
def test_images_that_are_too_small_for_a_model(tmp_path, model, said):
    images = np.zeros((40, 8, 8), np.uint8)
    images[::2, :4] = 255
    np.savez("a.npz", x=images, y=np.arange(40) % 2)
    with pytest.raises(ConfigError, match=said):
        fmbench.run(["data=arrays", "data.root=a.npz", *SMALL, f"model={model}"])
    assert not records(tmp_path)


@pytest.mark.slow
def test_a_key_of_older_commands_does_no_harm(tmp_path):
    tiny = ["data=synthetic", "data.train_size=60", "data.test_size=20", *SMALL[:4]]
    one = fmbench.run([*tiny, "hydra.run.dir=a"])
    two = fmbench.run([*tiny, "~model.channels", "model.classes=10", "hydra.run.dir=b"])
    assert one.key == two.key
    assert json.loads(Path("b/result.json").read_text("utf-8"))["config"]["model"] == {
        "_target_": "fmbench.models.lenet5.LeNet5"
    }
    with pytest.raises(ConfigError, match=r"model\.classes=9: must be 10, as the images"):
        fmbench.run([*tiny, "model.classes=9"])


@pytest.mark.slow
def test_the_function_of_the_page_is_called_where_it_is_trusted(tmp_path, monkeypatch):
    page = (CHECKOUT / "docs" / "data.md").read_text("utf-8").partition("## Anything else")[2]
    code, option, line, *_ = (block.partition("\n")[2] for block in page.split("```")[1::2])
    Path("mine.py").write_text(code, "utf-8")
    write_option("data/moons.yaml", option, folder="options")
    monkeypatch.syspath_prepend(tmp_path)
    overrides = shlex.split(line)[6:]
    given = {"overrides": [*overrides, "threads=1", "hydra.run.dir=run"], "config_dir": "options"}
    with pytest.raises(ConfigError, match=r"data\._target_=mine\.moons: not allowed"):
        fmbench.run(**given)
    monkeypatch.setenv("FMBENCH_TRUST", "mine")
    record = fmbench.run(**given)
    assert record.data["name"] == "moons"
    assert record.data["classes"] == ["whole", "half"]
    assert (record.split["train"], record.split["test"]) == (400, 100)
    assert record.trust == "mine"
    assert record.test_accuracy > 0.9


def test_a_file_names_no_test_part_outside_the_current_folder(command, tmp_path):
    text = (CHECKOUT / "conf" / "data" / "csv.yaml").read_text("utf-8")
    write_option("data/evil.yaml", text.replace("test: null", "test: /etc/passwd"))
    status, _, err = command("--config-dir", "mine", "data=evil", "data.root=x.csv")
    assert status == 2
    assert "data.test=/etc/passwd: a config file may name a folder in the current one" in err


@pytest.mark.slow
def test_folds_are_one_row_with_an_interval_of_what_they_held_out(tmp_path):
    tiny = ["data=synthetic", "data.train_size=120", "data.test_size=50", *SMALL[:4]]
    folds, numbers = [*tiny, "data.split=kfold", "data.split.folds=3"], set()
    for fold in range(3):
        record = fmbench.run([*folds, f"data.split.fold={fold}", f"hydra.run.dir=folds/{fold}"])
        assert (record.split["train"], record.split["validation"]) == (80, 40)
        assert record.split["fold"] == fold
        kept = read_held_out(tmp_path / "folds" / str(fold))
        right = (kept["label"] == kept["predicted"]).mean()
        assert right == pytest.approx(record.validation_accuracy)
        numbers.update(kept["image"].tolist())
        other = [*folds, f"data.split.fold={fold}", "optimizer.lr=0.01"]
        fmbench.run([*other, f"hydra.run.dir=slow/{fold}"])
    assert numbers == set(range(120))  # every training image is in one of them
    for seed in range(3):
        fmbench.run([*tiny, "data.split=holdout", f"seed={seed}", f"hydra.run.dir=seeds/{seed}"])
    table = report.benchmark_table(fmbench.load_results("folds", "seeds")).set_index("split")
    assert table["n"].to_dict() == {"kfold": 3, "holdout": 3}
    assert table["test_accuracy_low"].notna().to_dict() == {"kfold": False, "holdout": True}
    assert table["validation_accuracy_low"].notna().all()
    assert table["rank"].isna().all()
    assert table.loc["kfold", "test_accuracy_sd"] >= 0
    both = report.benchmark_table(fmbench.load_results("folds", "slow"))
    assert both["rank"].notna().all()
    report.build(["folds", "seeds"], output=tmp_path / "report")
    said = (tmp_path / "report" / "benchmark.md").read_text("utf-8")
    assert "n counts folds, not seeds" in said
    assert "data.split.fold=0,1,2" in said
    assert len(compare("folds", "slow").folds) == 3
    with pytest.raises(ConfigError, match="are folds, which share training images"):
        compare("folds", "seeds")


@pytest.mark.slow
def test_a_fold_that_tests_gives_test_accuracy_an_interval(data):
    given = ["data=arrays", "data.root=mine.npz", "data.keys={train_images: a, train_labels: b}"]
    given += [*SMALL, "data.split=kfold", "data.split.folds=4", "data.split.role=test"]
    for fold in range(4):
        record = fmbench.run([*given, f"data.split.fold={fold}", f"hydra.run.dir=folds/{fold}"])
        assert (record.split["train"], record.split["test"]) == (30, 10)
    (row,) = report.benchmark_table(fmbench.load_results("folds")).to_dict("records")
    assert row["folds"] == (0, 1, 2, 3)
    assert row["held_out"] == "test_accuracy"
    assert row["test_accuracy_low"] <= row["test_accuracy"] <= row["test_accuracy_high"]
