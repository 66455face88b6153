"""Suspected labels: those of cleanlab, and of files that may be anybody's."""

import csv
import json
import re
from statistics import mean

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from commands import TINY
from records import record

import fmbench
from fmbench import report
from fmbench.cli import suspects as command_line
from fmbench.core.files import write_whole
from fmbench.records.predictions import held_out, to_bytes
from fmbench.records.reader import read_records
from fmbench.records.suspects import confident, pools

CLASSES = 6


def drawn(images=1200, wrong=60, seed=0):
    """Probabilities that know the true classes, and labels of which the first are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, images)
    logits = rng.normal(size=(images, CLASSES))
    logits[np.arange(images), truth] += 4
    shares = np.exp(logits)
    labels = truth.copy()
    labels[:wrong] = (labels[:wrong] + rng.integers(1, CLASSES, wrong)) % CLASSES
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_cleanlab_suspects_the_same_labels(seed):
    probabilities, labels = drawn(seed=seed)
    mask, guesses = confident(probabilities, labels)
    theirs = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    assert np.array_equal(mask, theirs)
    assert mask[:60].mean() > 0.5
    assert mask[60:].mean() < 0.03
    assert (guesses[mask] != labels[mask]).all()


def test_a_class_without_labels_is_nobodys():
    probabilities = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.3, 0.6, 0.1]])
    mask, guesses = confident(probabilities, np.array([0, 0, 1]))
    assert mask.tolist() == [False, False, False]
    assert guesses.tolist() == [-1, 0, 1]


def folds(folder, *, changed=()):
    """Two folds of a run each, as files of run folders."""
    probabilities, labels = drawn()
    for fold in range(2):
        here = folder / str(fold)
        here.mkdir()
        numbers = np.arange(fold, len(labels), 2)
        half = {"name": "kfold", "train": 600, "validation": 600, "test": 10, "hash": f"{fold}"}
        made = record(seed=fold, split=half | {"folds": "f", "fold": fold})
        (here / "result.json").write_text(json.dumps(made))
        kept = held_out(numbers, labels[numbers].astype("u1"), labels[numbers].astype("u1"))
        write_whole(here / "held_out.npy", to_bytes(kept))
        of_fold = probabilities[numbers]
        write_whole(here / "held_out_probabilities.npy", to_bytes(of_fold))
    return probabilities, labels


def test_folds_together_are_out_of_sample_for_every_image(tmp_path):
    probabilities, labels = folds(tmp_path)
    (pool,) = pools(read_records(tmp_path, problems=[]))
    assert (pool.part, pool.counts.tolist()) == ("train", [1] * len(labels))
    found = pool.found()
    mask, guesses = confident(probabilities.astype(float), labels)
    assert sorted(found.numbers) == np.flatnonzero(mask).tolist()
    assert (np.diff(found.given) >= 0).all()
    assert found.guesses.tolist() == guesses[found.numbers].tolist()
    assert found.given[0] == pytest.approx(probabilities[found.numbers[0], found.labels[0]])


@pytest.mark.parametrize("change", [
    lambda kept: kept[:-1],
    lambda kept: np.concatenate([kept[:1], kept[:-1]]),  # an image twice
    lambda kept: np.array([(2**32 - 1, 0, 0), *kept[1:].tolist()], kept.dtype),
    lambda kept: np.array([(1, 200, 0), *kept[1:].tolist()], kept.dtype),
])  # fmt: skip
def test_files_that_do_not_fit_are_left_out(tmp_path, change):
    folds(tmp_path)
    path = tmp_path / "1" / "held_out.npy"
    path.write_bytes(to_bytes(change(np.load(path))))
    (pool,) = pools(read_records(tmp_path, problems=[]))
    assert pool.counts.sum() == 600


@pytest.mark.slow
def test_the_command_lists_draws_and_says_what_is_right_without_them(ended, tmp_path):
    folder = tmp_path / "runs"
    for fold in range(2):
        split = ["data.split=kfold", "data.split.folds=2", f"data.split.fold={fold}"]
        fmbench.run([*TINY, "epochs=3", *split, f"hydra.run.dir={folder / str(fold)}"])
    status, out, err = ended(command_line.main, folder, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    assert "200 training images of synthetic, by up to 1 runs each: " in out
    assert "50 test images of synthetic, by up to 2 runs each: " in out
    text = (tmp_path / "out" / "suspects.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["part"] for row in rows} <= {"train", "test"}
    (row,) = report.build([folder, tmp_path / "out"]).rows
    said = re.findall(r"^    ([\d.]+)%  ([\d.]+)%  ", out, re.MULTILINE)
    assert row["test_accuracy"] == pytest.approx(mean(float(all_) / 100 for all_, _ in said))
    unsuspected = mean(float(kept) / 100 for _, kept in said)
    assert row["unsuspected_accuracy"] == pytest.approx(unsuspected, abs=1e-4)
    assert row["suspected_images"] == sum(row["part"] == "test" for row in rows)
    drawn_parts = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert drawn_parts == {f"suspects_{row['part']}" for row in rows}
    made = json.loads((folder / "0" / "result.json").read_text())
    made["data"]["sha256"] = "0" * 64
    for fold in range(2):
        (folder / str(fold) / "result.json").write_text(json.dumps(made))
    out = ended(command_line.main, folder, "--output", tmp_path / "other")[1]
    assert "the images that are found are others than those of the runs" in out
    assert not [*(tmp_path / "other").glob("*.png")]


def test_without_probabilities_there_is_a_line(ended, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(json.dumps(record()))
    status, _, err = ended(command_line.main, tmp_path)
    assert status == 2
    assert "no completed run below has kept probabilities" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
