"""Accuracy against cost and batch size, and published accuracies beside ours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawings import BLUE, INK, ORANGE, RED, drawn, marks, paths, texts
from records import PUBLISHED, write

from fmbench import report
from fmbench.report.figures import figures
from fmbench.report.figures.accuracy import accuracy_parameters, alike, front
from fmbench.report.figures.style import SERIES
from fmbench.stats import one_more


@pytest.fixture(autouse=True)
def all_that_is_tried_is_drawn(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert not [record for record in records if "could not be drawn" in record.getMessage()]


# --- accuracy against cost --------------------------------------------------------------------


def test_the_pareto_front_is_what_nothing_else_beats():
    points = [(1, 5.0), (2, 4.0), (2, 6.0), (3, 6.0), (4, 9.0), (4, 9.0), (5, 8.0), (0.5, 1.0)]
    costs, accuracies = zip(*points, strict=True)
    assert front(costs, accuracies) == [7, 0, 2, 4, 5]
    assert front([], []) == []


def test_the_front_is_drawn_and_named(tmp_path):
    models = [("small", 1_000, 0.8), ("good", 10_000, 0.9), ("worse", 20_000, 0.85)]
    for net, parameters, accuracy in models:
        write(tmp_path / net, model=net, parameters=parameters, test_accuracy=accuracy)
    figure = drawn(tmp_path)["accuracy_parameters"]
    assert {"small", "good", "worse", "parameters", "Test accuracy (%)", "10 k"} <= set(
        texts(figure)
    )
    # The models by their accuracy: good, worse, small.
    ((good, top),), ((worse, middle),), ((small, low),) = (
        marks(figure, colour) for colour in SERIES[:3]
    )
    assert small < good < worse
    # An accuracy of 0.85 is half way between.
    assert middle == pytest.approx((low + top) / 2, abs=0.05)
    # A logarithmic axis: from 10,000 to 20,000 as far as ln 2 of ln 10.
    assert (worse - good) / (good - small) == pytest.approx(np.log(2) / np.log(10), abs=0.01)
    # The front goes right, then up; beside its points stand the numbers of the table's rows.
    (path,) = (path for path in paths(figure, INK) if len(path) == 3)
    assert path == pytest.approx(np.array([[small, low], [good, low], [good, top]]), abs=0.05)
    assert {"1", "3"} <= set(texts(figure))
    assert "2" not in texts(figure)
    assert figure.alt.endswith(
        "Pareto front: small 80.00 % with 1,000 parameters; good 90.00 % with 10,000 parameters."
    )


def test_intervals_are_drawn_where_they_are_known(tmp_path):
    write(tmp_path / "0", test_accuracy=0.9)
    write(tmp_path / "1", model="other", parameters=10, test_accuracy=0.8)
    made = report.build([tmp_path])
    section = made.sections[0]
    section.rows[0] |= {"test_accuracy_low": 0.85, "test_accuracy_high": 0.95}
    section.rows[1] |= {"test_accuracy_low": None, "test_accuracy_high": None}
    figure = next(figures([section], []))
    (bar,) = [path for path in paths(figure, BLUE) if len(path) == 2]
    (right,), (left,) = marks(figure, BLUE), marks(figure, RED)
    half = (bar[:, 1].max() - bar[:, 1].min()) / 2
    assert bar[0, 0] == pytest.approx(right[0], abs=0.1)
    assert half == pytest.approx((right[1] - left[1]) / 2, abs=0.1)  # 5 points, as 10 are between


def test_times_are_compared_on_one_hardware(tmp_path):
    def runs(device: str, number: int) -> None:
        for n in range(number):
            seconds = {"train": 10.0 * (n + 1), "evaluate": 1.0, "total": 99.0}
            folder = tmp_path / device / str(n)
            write(folder, device=device, seconds=seconds, model=f"net{n}")

    for device, number in (("CPU", 2), ("GPU", 4), ("other", 3), ("fourth", 2)):
        runs(device, number)
    made = drawn(tmp_path)
    (figure,) = (figure for name, figure in made.items() if name.startswith("accuracy_time"))
    titles = [text for text in texts(figure) if text.startswith("Test accuracy (%)")]
    assert titles == [f"Test accuracy (%): {device}, fp32" for device in ("GPU", "other", "CPU")]
    assert "2 rows are left out" in figure.caption
    assert "training time (s)" in texts(figure)
    assert figure.alt.startswith(
        "Test accuracy against training time of 9 rows. Pareto front of GPU, fp32: net0 90.01 % "
        "with 10.0 s."
    )


def test_thousands_of_rows_stay_small_and_name_few(tmp_path):
    rng = np.random.default_rng(0)
    made = report.build([write(tmp_path / "0")])
    row = made.sections[0].rows[0]
    drawn_points = np.stack([10 ** rng.uniform(3, 8, 2000), rng.beta(9, 1, 2000)], 1).tolist()
    rows = [
        row | {"model": f"net{n % 20}", "parameters": int(p), "test_accuracy": float(a)}
        for n, (p, a) in enumerate(drawn_points)
    ]
    rows.sort(key=lambda one: -one["test_accuracy"])
    figure = accuracy_parameters(rows, "fashion_mnist", "accuracy_parameters")
    assert figure is not None
    assert len(figure.svg) < 300_000
    assert 3 < sum(text.startswith("net") for text in texts(figure)) < 15
    assert "1,000 rows are left out" in figure.caption


# --- batch size -------------------------------------------------------------------------------


def test_rows_that_differ_in_their_batch_size_alone_are_compared(tmp_path):
    for n, size in enumerate((512, 64, 256)):
        write(tmp_path / str(size), batch_size=size, config__batch_size=size,
              test_accuracy=0.9 - n / 100, images_per_second=1000.0)  # fmt: skip
    write(tmp_path / "a", batch_size=128, config__batch_size=128, learning_rate=0.1)
    write(tmp_path / "b", batch_size=32, config__optimizer__weight_decay=0.1)
    write(tmp_path / "c", batch_size=16, split__name="custom")
    (section,) = report.build([tmp_path]).sections
    assert [row["batch_size"] for row in alike(section.rows)] == [64, 256, 512]
    assert alike([]) == []
    figure = drawn(tmp_path)["batch_size_lenet"]
    said = texts(figure)
    assert {"Test accuracy (%)", "Training time (s)", "Training images/s"} <= set(said)
    assert [said.count(size) for size in ("64", "256", "512", "128")] == [3, 3, 3, 0]
    accuracy = next(path for path in paths(figure, BLUE) if len(path) == 3)
    # On a scale of doublings 64 to 256 is twice as far as 256 to 512.
    across = np.diff(accuracy[:, 0])
    assert across[0] == pytest.approx(2 * across[1], abs=0.1)
    assert "batch size 64: 89.00 %" in figure.alt


# --- published --------------------------------------------------------------------------------


def followed(folder: Path, experiment: str, accuracies: list[float], **changes: Any) -> None:
    """A row that followed a recipe published with 89.7 %, the best epoch on the test set."""
    for seed, accuracy in enumerate(accuracies):
        values = {**PUBLISHED, "experiment": experiment, "model": experiment, **changes}
        write(folder / f"{experiment}{seed}", seed=seed, test_accuracy=accuracy, **values)


def test_published_accuracies_stand_beside_ours(tmp_path):
    followed(tmp_path, "a", [0.91, 0.913, 0.912], best_test_accuracy=0.914)
    followed(tmp_path, "b", [0.88])
    followed(tmp_path, "c", [0.85], deviations=["epochs=3"])  # another recipe
    write(tmp_path / "d", model="d")  # nobody published it
    figure = drawn(tmp_path)["published"]
    said = texts(figure)
    assert [said[said.index(name) + 1] for name in "ab"] == [
        f"AMD EPYC, 2 threads, fp32, n = {n}" for n in (3, 1)
    ]
    assert "c" not in said
    assert "a: 89.70 % published, 91.17 % ours, 91.40 % our best epoch on test" in figure.alt
    # From below: b, a.
    (low, high), theirs = (
        [x for x, _ in sorted(marks(figure, colour), key=lambda mark: mark[1])]
        for colour in (BLUE, RED)
    )
    assert theirs[0] == pytest.approx(theirs[1])
    # 91.17 - 89.70 against 89.70 - 88.00
    ratio = (high - theirs[0]) / (theirs[0] - low)
    assert ratio == pytest.approx(1.467 / 1.7, rel=0.01)


@pytest.mark.parametrize(
    ("looks", "protocol", "colour"),
    [(1, "best epoch on test", ORANGE), (5, "last epoch", BLUE), (5, "best epoch on test", None)],
)
def test_the_band_is_where_one_more_run_would_land(tmp_path, looks, protocol, colour):
    values = [0.910, 0.913, 0.912, 0.9105]
    best = [0.9125, 0.9135, 0.914, 0.9131]
    for seed, (accuracy, looked) in enumerate(zip(values, best, strict=True)):
        reference = {**PUBLISHED["reference"], "protocol": protocol}
        changes = {
            **PUBLISHED, "reference": reference, "experiment": "a", "config__test_every": looks,
        }  # fmt: skip
        write(
            tmp_path / str(seed), seed=seed, test_accuracy=accuracy, best_test_accuracy=looked,
            **changes,
        )  # fmt: skip
    figure = drawn(tmp_path)["published"]
    if colour is None:
        # The best of fewer looks than one an epoch is no match for what was published.
        assert not [path for one in (BLUE, ORANGE) for path in paths(figure, one) if len(path) == 2]
        return
    (band,) = [path for path in paths(figure, colour) if len(path) == 2]
    low, high = one_more(best if looks == 1 else values)
    ours, theirs = marks(figure, BLUE)[-1][0], marks(figure, RED)[-1][0]
    scale = (ours - theirs) / (np.mean(values) - 0.897)
    assert sorted(band[:, 0]) == pytest.approx(
        [theirs + scale * (low - 0.897), theirs + scale * (high - 0.897)], abs=0.2
    )


def test_too_few_seeds_have_no_band(tmp_path):
    followed(tmp_path, "a", [0.91, 0.92])
    figure = drawn(tmp_path)["published"]
    assert not [path for path in paths(figure, BLUE) if len(path) == 2]
    assert "band" not in figure.caption
    assert "AMD EPYC, 2 threads, fp32, n = 2" in texts(figure)


def test_more_published_rows_than_lines_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr("fmbench.report.figures.accuracy.MOST_PUBLISHED", 2)
    for name in "abc":
        followed(tmp_path, name, [0.91])
    figure = drawn(tmp_path)["published"]
    assert len(marks(figure, RED)) == 2
    assert figure.caption.endswith("The first 2 of 3 rows.")


def test_one_recipe_on_two_machines_is_told_apart(tmp_path):
    followed(tmp_path / "0", "a", [0.91])
    device = {"device": "H100", "fingerprint__processor": "other"}
    followed(tmp_path / "1", "a", [0.90], **device)
    said = texts(drawn(tmp_path)["published"])
    assert {"AMD EPYC, 2 threads, fp32, n = 1", "H100, fp32, n = 1"} <= set(said)
