"""Ensembles of a row's seeds, and what is drawn of their probabilities."""

import json

import numpy as np
import pytest
from records import write

from fmbench import report
from fmbench.records.predictions import packed, to_bytes
from fmbench.report.figures import figures
from fmbench.report.figures.calibration import Answers, reliability, risk_coverage
from fmbench.report.table import ensembles

LABELS = np.array([0, 1, 1, 0] * 10, np.uint8)


def put(folder, probabilities, seed=0, **changes):
    """A run with its probabilities, (N, 2), on `LABELS`."""
    predicted = probabilities.argmax(axis=1).astype(np.uint8)
    accuracy = float(np.mean(predicted == LABELS))
    write(folder, seed=seed, test_accuracy=accuracy, split__test=len(LABELS), **changes)
    for name, array in (("labels", LABELS), ("predictions", predicted)):
        (folder / f"{name}.npy").write_bytes(to_bytes(array))
    (folder / "probabilities.npy").write_bytes(to_bytes(packed(probabilities)))


def table(share):
    """The probability of class 1 of each image, in turns of four."""
    ones = np.tile(np.array(share, np.float32), 10)
    return np.stack([1 - ones, ones], axis=1)


FIRST, SECOND = table([0.9, 0.8, 0.7, 0.1]), table([0.2, 0.4, 0.9, 0.3])


def test_the_mean_of_the_probabilities_is_a_line_of_its_own(tmp_path):
    put(tmp_path / "0", FIRST)
    put(tmp_path / "1", SECOND, seed=1)
    put(tmp_path / "alone", FIRST, model="alone")
    made = report.build([tmp_path])
    rows = {row["model"]: row for row in made.sections[0].rows}
    found = rows["lenet"]["ensemble"]
    # Of the means 0.55, 0.6, 0.8 and 0.2 the first is wrong: class 1, where the label is 0.
    assert found["accuracy"] == 0.75
    assert found["mean_accuracy"] == 0.75
    assert found["nll"] == pytest.approx(-np.log([0.45, 0.6, 0.8, 0.8]).mean(), rel=1e-5)
    alone = [-np.log([0.1, 0.8, 0.7, 0.9]).mean(), -np.log([0.8, 0.4, 0.9, 0.7]).mean()]
    assert found["mean_nll"] == pytest.approx(np.mean(alone), rel=1e-5)
    assert "ensemble" not in rows["alone"]
    assert "### Ensembles: the mean of the probabilities of a row's seeds" in made.markdown
    assert "never ranked" in made.html
    assert f"| 2 | 75.00 | 75.00 | {np.mean(alone):.4f} |" in made.markdown
    assert json.loads(made.json)["rows"][0].get("rank") is None


def test_other_test_images_make_no_ensemble(tmp_path):
    put(tmp_path / "0", FIRST)
    put(tmp_path / "1", SECOND, seed=1)
    (tmp_path / "1" / "labels.npy").write_bytes(to_bytes(1 - LABELS))
    assert "ensemble" not in report.build([tmp_path]).sections[0].rows[0]
    (tmp_path / "1" / "probabilities.npy").unlink()
    assert report.build([tmp_path]).sections[0].tables == []


def test_probabilities_that_are_not_of_the_record_make_no_ensemble(tmp_path):
    put(tmp_path / "0", FIRST)
    put(tmp_path / "1", SECOND, seed=1)
    (tmp_path / "1" / "probabilities.npy").write_bytes(to_bytes(packed(FIRST[:, ::-1].copy())))
    assert "ensemble" not in report.build([tmp_path]).sections[0].rows[0]


def test_the_mean_of_the_seeds_is_that_of_their_records(tmp_path):
    # Rounding made the probabilities of the first image equal: argmax alone would call it right.
    tied = table([0.5, 0.8, 0.7, 0.1])
    for seed in range(2):
        folder = tmp_path / str(seed)
        put(folder, np.where(tied == 0.5, [0.4, 0.6], tied).astype(np.float32), seed=seed)
        (folder / "probabilities.npy").write_bytes(to_bytes(packed(tied)))
    found = report.build([tmp_path]).sections[0].rows[0]["ensemble"]
    assert (found["mean_accuracy"], found["accuracy"]) == (0.75, 1.0)


def test_the_numbers_that_are_read_are_counted_by_their_shape(tmp_path, monkeypatch):
    for seed in range(2):
        put(tmp_path / str(seed), FIRST, seed=seed)
    for most, known in ((160, True), (159, False)):  # two runs of 40 images and 2 classes
        monkeypatch.setattr(ensembles, "MOST_NUMBERS", most)
        assert ("ensemble" in report.build([tmp_path]).sections[0].rows[0]) == known


def test_the_reliability_diagram_and_the_risk_by_coverage():
    sure = np.repeat([0.95, 0.65], [60, 40]).astype(np.float32)
    right = np.arange(100) % 10 < np.repeat([9, 5], [60, 40])
    found = Answers({}, [sure], [right])
    confidence, accuracy = reliability(found)
    assert confidence == pytest.approx([0.65, 0.95], rel=1e-5)
    assert accuracy == pytest.approx([0.5, 0.9])
    shares, risks = risk_coverage(found)
    assert risks[shares <= 0.6] == pytest.approx(0.1)  # equally sure ones are answered together
    assert risks[-1] == pytest.approx(0.26)


@pytest.mark.slow
def test_they_are_drawn_of_each_model(tmp_path):
    put(tmp_path / "0", FIRST)
    put(tmp_path / "1", SECOND, model="other")
    made = report.build([tmp_path])
    found = {figure.name: figure for figure in figures(made.sections, made.searches)}
    assert "lenet errs on 25.00 % of all images" in found["calibration"].alt
    assert "other errs on 25.00 % of all images" in found["calibration"].alt
