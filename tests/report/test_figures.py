"""The pictures of a report: which there are, what they show, and that names in them do no harm."""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from records import PUBLISHED, write
from reports import contrast
from searches import sweep

from fmbench import report
from fmbench.records.predictions import mistake_type, read_mistakes
from fmbench.report import figures as package
from fmbench.report.figure import PAGE_COLOURS, Figure
from fmbench.report.figures import figures, unused
from fmbench.report.figures.accuracy import accuracy_parameters, alike, front
from fmbench.report.figures.curves import curve, histories
from fmbench.report.figures.predictions import confusion
from fmbench.report.figures.style import SERIES, Budget, apart
from fmbench.stats import one_more

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "a|b\n<script>x</script> $x$ ]]> --> & \" ' \x1b[31m{}% ../../c"

BLUE, RED, ORANGE, INK = "#0072b2", "#d55e00", "#c18500", "#1a1a1a"


@pytest.fixture(autouse=True)
def all_that_is_tried_is_drawn(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert not [record for record in records if "could not be drawn" in record.getMessage()]


def drawn(*folders: Path) -> dict[str, Figure]:
    made = report.build(folders)
    return {figure.name: figure for figure in figures(made.sections, made.searches)}


def texts(figure: Figure) -> list[str]:
    """What is written in it, read back from its SVG."""
    return [element.text or "" for element in ET.fromstring(figure.svg).iter(f"{SVG}text")]


def elements(figure: Figure, kind: str) -> Iterator[ET.Element]:
    """The elements of a kind in the panels; none of the legends."""
    root = ET.fromstring(figure.svg)
    for parent in list(root.iter()):
        for group in parent.findall(f"{SVG}g"):
            if group.get("id", "").startswith("legend"):
                parent.remove(group)
    return root.iter(f"{SVG}{kind}")


def paths(figure: Figure, colour: str, *, dashed: bool = False) -> list[np.ndarray]:
    """The lines of a colour: (points, 2) each, y counted upwards."""
    found = []
    for element in elements(figure, "path"):
        style = element.get("style", "")
        if f"stroke: {colour}" in style and ("dasharray" in style) == dashed:
            numbers = [float(text) for text in re.findall(r"-?[0-9.]+", element.get("d", ""))]
            found.append(np.array(numbers).reshape(-1, 2) * (1, -1))
    return found


def marks(figure: Figure, colour: str) -> list[tuple[float, float]]:
    """The middles of the marks of a colour, from the left; y counted upwards."""
    return sorted(
        (float(element.get("x", "")), -float(element.get("y", "")))
        for element in elements(figure, "use")
        if f"fill: {colour}" in element.get("style", "")
    )


def put(folder: Path, losses: list[float] | None = None, **changes: Any) -> Path:
    """A run with a history: of its losses, the accuracies are what is missing to 1."""
    write(folder, **changes)
    lines = [
        {"epoch": epoch, "train_loss": loss, "train_accuracy": 1 - loss,
         "validation_loss": loss + 0.1, "validation_accuracy": 0.9 - loss, "seconds": 1.0}
        for epoch, loss in enumerate(losses or [])
    ]  # fmt: skip
    if losses is not None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "history.jsonl").write_text(text, "utf-8")
    return folder


def answer(folder: Path, labels: list[int], predicted: list[int]) -> None:
    np.save(folder / "labels.npy", np.array(labels, np.uint8))
    np.save(folder / "predictions.npy", np.array(predicted, np.uint8))


def mistaken(folder: Path, *found: tuple[int, int, float]) -> np.ndarray:
    """Write mistakes: right class, predicted class, confidence; returns their images."""
    made = np.zeros(len(found), mistake_type("u1", (28, 28)))
    made["image"] = np.random.default_rng(0).integers(0, 256, (len(found), 28, 28), np.uint8)
    for place_, (label, predicted, confidence) in enumerate(found):
        made[place_]["label"], made[place_]["predicted"] = label, predicted
        made[place_]["confidence"] = confidence
    np.save(folder / "mistakes.npy", made)
    return made["image"]


# --- which there are --------------------------------------------------------------------------


def test_each_figure_is_there_when_its_data_are(tmp_path):
    write(tmp_path / "0")
    assert drawn(tmp_path) == {}
    put(tmp_path / "0", [0.5, 0.4])
    assert list(drawn(tmp_path)) == ["curves_lenet"]
    put(tmp_path / "0", [0.5])  # one epoch is no curve
    assert drawn(tmp_path) == {}
    answer(tmp_path / "0", [0, 1, 2], [0, 1, 1])
    assert list(drawn(tmp_path)) == ["confusion_lenet"]
    (tmp_path / "0" / "labels.npy").unlink()
    mistaken(tmp_path / "0", (6, 0, 0.99))
    assert list(drawn(tmp_path)) == ["mistakes_lenet"]
    (tmp_path / "0" / "mistakes.npy").unlink()
    write(tmp_path / "1", batch_size=256, seconds={"train": 5.0, "evaluate": 0.4, "total": 9.2})
    assert list(drawn(tmp_path)) == ["accuracy_time", "batch_size_lenet"]
    write(tmp_path / "2", model="lenet5", parameters=44_426)
    assert next(iter(drawn(tmp_path))) == "accuracy_parameters"


def test_a_report_of_searches_alone_has_theirs(tmp_path):
    sweep(tmp_path / "a")
    sweep(tmp_path / "b", study="other", trials=[], best=[])
    sweep(tmp_path / "c", study="third")
    named = [name for name in drawn(tmp_path) if name.startswith("search")]
    assert named == ["search", "search_3"]  # by the place of the search, whichever are drawn


def test_searches_keep_their_places_where_there_are_too_many_figures(tmp_path, monkeypatch):
    for place_, net in enumerate("abcd"):
        put(tmp_path / net, [0.5, 0.4], model=net, parameters=10**place_)
    sweep(tmp_path / "search")
    monkeypatch.setattr(package, "MOST_FIGURES", 3)
    assert list(drawn(tmp_path)) == ["accuracy_parameters", "curves_a", "search"]


@pytest.mark.parametrize(("name", "kind"), [
    ("history.jsonl", "curves"),
    ("predictions.npy", "confusion"),
    ("labels.npy", "confusion"),
    ("mistakes.npy", "mistakes"),
])  # fmt: skip
def test_a_broken_file_costs_its_figure_alone(tmp_path, name, kind):
    put(tmp_path, [0.5, 0.4, 0.3])
    answer(tmp_path, [0, 1, 2], [0, 1, 1])
    mistaken(tmp_path, (6, 0, 0.99))
    (row,) = report.build([tmp_path]).sections[0].rows

    def known() -> list[str]:
        found = {
            "curves": curve(histories(row, Budget()), "train_loss"),
            "confusion": confusion(row, Budget()),
            "mistakes": read_mistakes(tmp_path),
        }
        return [kind for kind, value in found.items() if value is not None]

    rest = [one for one in known() if one != kind]
    assert len(rest) == 2
    whole = (tmp_path / name).read_bytes()
    for content in (b"", b"\0" * 40, b"[1, {", b"\x93NUMPY\x01\0v\0{", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        if not (name == "history.jsonl" and content and whole.startswith(content)):
            assert known() == rest, content
    assert [figure.partition("_")[0] for figure in drawn(tmp_path)] == rest
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert known() == rest


def test_arrays_of_another_kind_are_no_answers(tmp_path):
    write(tmp_path)
    answer(tmp_path, [0, 1, 2], [0, 1])
    assert drawn(tmp_path) == {}
    answer(tmp_path, [], [])
    assert drawn(tmp_path) == {}
    answer(tmp_path, [0, 1], [0, 1])
    np.save(tmp_path / "labels.npy", np.array([0, 256], np.uint16))  # no table of 257 classes
    assert drawn(tmp_path) == {}
    np.save(tmp_path / "mistakes.npy", np.zeros(3))
    np.save(tmp_path / "predictions.npy", np.array([[0, 1]], np.uint8))
    assert drawn(tmp_path) == {}
    np.save(tmp_path / "mistakes.npy", np.zeros(0, mistake_type("u1", (28, 28))))
    assert drawn(tmp_path) == {}


def test_epochs_that_cannot_be_read_are_left_out(tmp_path):
    put(tmp_path, [0.5, 0.4, 0.3, 0.2])
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_loss": NaN}\n[]\n{"epoch": true}\n{"train_loss": 1}\n{"ep')
    (row,) = report.build([tmp_path]).sections[0].rows
    found = curve(histories(row, Budget()), "train_loss")
    assert found is not None
    assert found.epochs.tolist() == [1, 2, 3, 4]
    assert "curves_lenet" in drawn(tmp_path)


def test_whatever_a_record_holds_can_be_drawn(tmp_path):
    for n, (loss, seconds) in enumerate([(1e299, 1e290), (-1e299, 1e-290), (0.0, 8.0), (1.0, 0.0)]):
        clock = {"train": seconds, "evaluate": 0.0, "total": seconds}
        size = {"batch_size": 2**n, "config__batch_size": 2**n}
        put(tmp_path / f"{n}", [loss, -loss, 0.5], seconds=clock, images_per_second=seconds, **size)
        write(tmp_path / f"{n}b", model=f"m{n}", parameters=2 ** (17 * n), seconds=clock)
    made = drawn(tmp_path)
    assert {"accuracy_parameters", "curves_lenet", "batch_size_lenet"} <= set(made)
    for figure in made.values():
        assert "nan" not in figure.svg
        ET.fromstring(figure.svg)


def test_a_difference_that_is_rounding_is_not_drawn_large(tmp_path):
    write(tmp_path / "0", test_accuracy=0.9)
    write(tmp_path / "1", model="other", parameters=10, test_accuracy=0.9 - 1e-15)
    write(tmp_path / "2", batch_size=65, config__batch_size=65, test_accuracy=0.9 - 1e-15)
    (section,) = report.build([tmp_path]).sections
    for row in section.rows:
        row |= {"test_accuracy_low": 0.85, "test_accuracy_high": 0.95}
    made = {figure.name: figure for figure in figures([section], [])}
    for name in ("accuracy_parameters", "batch_size_lenet"):
        ticks = [float(text) for text in texts(made[name]) if re.fullmatch(r"[89]\d(\.\d+)?", text)]
        assert max(ticks) - min(ticks) >= 0.5, name


# --- curves -----------------------------------------------------------------------------------


def test_a_curve_is_the_mean_of_its_seeds_within_their_band():
    runs = [
        [{"epoch": epoch, "train_loss": loss} for epoch, loss in enumerate(losses)]
        for losses in ([0.6, 0.5, 0.1], [0.4, 0.1, 0.2], [0.5, 0.3])
    ]
    found = curve(runs, "train_loss")
    assert found is not None
    assert found.epochs.tolist() == [1, 2]  # the third epoch is not one of all three
    assert found.mean.tolist() == pytest.approx([0.5, 0.3])
    assert (found.low.tolist(), found.high.tolist()) == ([0.4, 0.1], [0.6, 0.5])
    assert found.seeds == 3
    runs[2] = runs[2][:1]  # looked at too seldom to cost the others their epochs
    found = curve(runs, "train_loss")
    assert found is not None
    assert (found.epochs.tolist(), found.seeds) == ([1, 2, 3], 2)
    assert curve(runs, "test_loss") is None
    assert curve([], "train_loss") is None


def test_the_curves_are_drawn_where_their_values_are(tmp_path):
    put(tmp_path / "0", [0.5, 0.3, 0.2], batch_size=64, test_accuracy=0.9)
    put(tmp_path / "1", [0.7, 0.5, 0.2], batch_size=64, seed=1, test_accuracy=0.9)
    put(tmp_path / "2", [0.7, 0.65, 0.6], batch_size=512, test_accuracy=0.8)
    figure = drawn(tmp_path)["curves_lenet"]
    said = texts(figure)
    assert {"Loss", "Accuracy (%)", "epoch", "validation", "training", "range of the seeds"} <= set(
        said
    )
    assert [text for text in said if "batch" in text] == [  # the better row first
        "batch size 64: 90.00 ± 0.00 % on test, n = 2",
        "batch size 512: 80.00 % on test, n = 1",
    ]
    loss, accuracy = (path for path in paths(figure, BLUE) if len(path) == 3)
    # Means 0.6, 0.4, 0.2 are equally far from each other, on either side.
    assert loss[1, 1] - loss[0, 1] == pytest.approx(loss[2, 1] - loss[1, 1], abs=0.05)
    assert loss[0, 1] > loss[1, 1] > loss[2, 1]
    assert accuracy[0, 1] < accuracy[1, 1] < accuracy[2, 1]
    # 30 % were recognised after the first epoch and 50 % after the second: 40 stands between.
    (tick,) = (
        float(element.get("y", ""))
        for element in ET.fromstring(figure.svg).iter(f"{SVG}text")
        if element.text == "40"
    )
    assert -accuracy[:2, 1].mean() == pytest.approx(tick, abs=8)
    other = next(path for path in paths(figure, RED) if len(path) == 3)
    # On the same axis: 0.6 + 0.1 of the one at its first epoch, of the other at its last.
    assert other[2, 1] == pytest.approx(loss[0, 1], abs=0.05)
    assert paths(figure, BLUE, dashed=True)
    assert figure.alt == (
        "Loss and accuracy by epoch of 2 rows of lenet. Validation accuracy at the end: "
        "batch size 64: 70.00 %; batch size 512: 30.00 %."
    )


def test_where_there_is_no_validation_the_test_set_is_drawn(tmp_path):
    write(tmp_path)
    lines = [
        {"epoch": n, "train_loss": 1.0, "train_accuracy": 0.5, "test_accuracy": 0.6 + n / 10}
        for n in range(2)
    ]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    figure = drawn(tmp_path)["curves_lenet"]
    assert "test" in texts(figure)
    assert "validation" not in texts(figure)
    assert "Solid: test." in figure.caption
    assert "Test accuracy at the end" in figure.alt
    # Of one row nothing sets it apart: it says what it is.
    assert any("batch size 64, sgd, learning rate 0.05, 3 epochs" in text for text in texts(figure))


def test_of_a_long_run_not_every_epoch_is_drawn(tmp_path):
    losses = [0.5 + 0.1 * (-1) ** epoch / (1 + epoch) for epoch in range(1801)]
    put(tmp_path / "0", losses)
    put(tmp_path / "1", losses, seed=1)
    figure = drawn(tmp_path)["curves_lenet"]
    assert "Of long runs 250 epochs are drawn." in figure.caption
    assert len(figure.svg) < 100_000


def test_more_rows_than_colours_are_said(tmp_path):
    for n in range(8):
        put(tmp_path / str(n), [0.5, 0.4], batch_size=2**n, test_accuracy=0.9 - n / 100)
    figure = drawn(tmp_path)["curves_lenet"]
    assert [text.partition(":")[0] for text in texts(figure) if text.startswith("batch")] == [
        f"batch size {2**n}" for n in range(6)
    ]
    assert "The 6 best of 8 rows" in figure.caption


def test_more_models_than_pictures_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "MOST_MODELS", 1)
    for n in range(2):
        put(tmp_path / str(n), [0.5, 0.4], model=f"net{n}", test_accuracy=0.8 + n / 100)
    made = drawn(tmp_path)
    assert [name for name in made if name.startswith("curves")] == ["curves_net1"]
    assert made["curves_net1"].caption.endswith("Shown for 1 of 2 models, the best.")


def test_rows_are_told_apart_by_what_differs(tmp_path):
    put(tmp_path / "0", test_accuracy=0.9)
    put(tmp_path / "1", learning_rate=0.1, optimizer="adam", test_accuracy=0.8)
    put(tmp_path / "2", config__optimizer__weight_decay=0.1, test_accuracy=0.7)
    assert apart(report.build([tmp_path]).sections[0].rows) == [
        "optimizer.weight_decay=0.0005, sgd, learning rate 0.05",
        "adam, learning rate 0.1",
        "optimizer.weight_decay=0.1, sgd, learning rate 0.05",
    ]


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


# --- answers ----------------------------------------------------------------------------------


def test_of_files_linked_into_many_runs_some_are_read(tmp_path):
    for seed in range(6):
        write(tmp_path / str(seed), seed=seed)
        for name in ("history.jsonl", "predictions.npy", "labels.npy"):
            (tmp_path / str(seed) / name).symlink_to(tmp_path / name)
    (tmp_path / "history.jsonl").write_text('{"epoch": 0, "train_loss": 1}\n{"epoch": 1}\n{\n')
    answer(tmp_path, [0, 1, 2], [0, 1, 1])
    (row,) = report.build([tmp_path]).sections[0].rows
    assert [len(run) for run in histories(row, Budget())] == [2] * 6
    budget = Budget(epochs=7, predictions=5)
    assert [len(run) for run in histories(row, budget)] == [2] * 3  # lines that are none count too
    assert histories(row, budget) == []
    assert confusion(row, Budget())[1] == 6
    assert confusion(row, budget)[1] == 2
    assert confusion(row, budget) is None
    (tmp_path / "history.jsonl").write_text("{\n" * 7)
    budget = Budget(epochs=7)
    assert histories(row, budget) == []
    assert budget.epochs == 0


def test_behind_the_last_picture_none_is_drawn(tmp_path, monkeypatch):
    for number in range(5):
        put(tmp_path / str(number), [0.5, 0.4], data__name=str(number))
    assert len(drawn(tmp_path)) == 5
    monkeypatch.setattr(package, "MOST_FIGURES", 2)
    draw, made = package._drawn, []
    monkeypatch.setattr(package, "_drawn", lambda *call: made.append(draw(*call)) or made[-1])
    assert len(drawn(tmp_path)) == len([figure for figure in made if figure is not None]) == 2


def test_the_confusion_is_summed_over_the_seeds(tmp_path):
    for seed in range(3):
        write(tmp_path / str(seed), seed=seed)
    answer(tmp_path / "0", [0, 0, 6, 6], [0, 6, 6, 0])
    answer(tmp_path / "1", [0, 0, 6, 6], [0, 0, 6, 9])
    (row,) = report.build([tmp_path]).sections[0].rows
    found = confusion(row, Budget())
    assert found is not None
    counts, seeds = found
    assert seeds == 2
    assert (counts[0, 0], counts[0, 6], counts[6, 6], counts[6, 0], counts[6, 9]) == (3, 1, 2, 1, 1)
    assert counts.sum() == 8
    figure = drawn(tmp_path)["confusion_lenet"]
    said = texts(figure)
    # In percent of the four T-shirts and the four shirts.
    assert [said.count(text) for text in ("75.0", "50.0", "25.0")] == [1, 1, 3]
    assert said.count("T-shirt/top") == said.count("Shirt") == said.count("Ankle boot") == 2
    assert "n = 2" in figure.caption
    assert figure.alt == (
        "Of 8 predictions 62.50 % are right. Most frequent mistakes: T-shirt/top as Shirt 25.0 %; "
        "Shirt as T-shirt/top 25.0 %; Shirt as Ankle boot 25.0 %."
    )


def test_classes_of_other_data_are_numbers(tmp_path):
    write(tmp_path, data__name="mine")
    answer(tmp_path, [0, 1, 11], [0, 1, 1])
    said = texts(drawn(tmp_path)["confusion_lenet"])
    assert "Coat" not in said
    assert [said.count(name) for name in ("0", "7", "11")] == [2, 2, 2]


def test_the_mistakes_are_shown_as_they_are(tmp_path):
    write(tmp_path)
    images = mistaken(tmp_path, (6, 0, 0.99996), (4, 2, 1.0), (9, 7, 0.5))
    figure = drawn(tmp_path)["mistakes_lenet"]
    assert texts(figure) == [
        *("Shirt", "\u2192 T-shirt/top", "99.9 %"),  # never rounded up to certain
        *("Coat", "\u2192 Pullover", "100 %"),
        *("Ankle boot", "\u2192 Sneaker", "50.0 %"),
    ]
    address = "{http://www.w3.org/1999/xlink}href"
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.get(address).partition(",")[2]))))
        for picture in elements(figure, "image")
    ]
    assert [picture[..., 0].tolist() for picture in shown] == images.tolist()


def test_at_most_24_mistakes_of_each_row(tmp_path):
    write(tmp_path / "0", test_accuracy=0.9)
    write(tmp_path / "1", model="other", test_accuracy=0.8)
    mistaken(tmp_path / "1", *[(1, 2, 0.9)] * 40)
    figure = drawn(tmp_path)["mistakes_other"]
    assert len(texts(figure)) == 3 * 24
    assert figure.title == "other: its most confident mistakes"
    assert "that row 2 (batch size 64" in figure.caption
    mistaken(tmp_path / "0", (1, 2, 0.9))
    made = drawn(tmp_path)
    assert [name for name in made if name.startswith("mistakes")] == [
        *("mistakes_lenet", "mistakes_other"),
    ]
    assert len(texts(made["mistakes_lenet"])) == 3


def test_each_of_the_best_rows_has_its_confusion(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "MOST_ROWS", 2)
    for n, (model, size) in enumerate((("lenet", 64), ("lenet", 256), ("other", 64))):
        write(tmp_path / str(n), model=model, batch_size=size, test_accuracy=0.9 - n / 100)
        answer(tmp_path / str(n), [0, 1, 2], [0, 1, 1])
    made = [figure for name, figure in drawn(tmp_path).items() if name.startswith("confusion")]
    assert [figure.name for figure in made] == ["confusion_lenet", "confusion_lenet_2"]
    titles = [figure.title.partition(":")[0] for figure in made]
    assert titles == ["lenet, batch size 64", "lenet, batch size 256"]
    assert made[1].caption.endswith("No more than 2 rows are shown so, the best.")


# --- names, colours, bytes --------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    """All kinds of pictures of runs whose names would do harm."""
    folder = tmp_path_factory.mktemp("hostile")
    for n, model in enumerate((HOSTILE, "B", "b", "x" * 500)):
        names = {"model": model, "parameters": 10 ** (n + 1), "device": HOSTILE}
        put(folder / f"{n}", [0.5, 0.4], **names, batch_size=64, augmentation=HOSTILE)
        put(folder / f"{n}b", [0.5, 0.4], **names, batch_size=128, optimizer="$y_{1}$")
        answer(folder / f"{n}", [0, 1], [1, 1])
    write(folder / "size", batch_size=8, **names, augmentation=HOSTILE)
    mistaken(folder / "0", (0, 1, 0.9))
    sweep(folder / "search", study=HOSTILE, sampler=HOSTILE)
    return drawn(folder)


def test_names_from_records_do_no_harm(hostile):
    kinds = {name.partition("_")[0] for name in hostile}
    assert kinds == {
        *("accuracy", "epochs", "curves", "batch", "confusion", "mistakes", "search"),
    }
    for figure in hostile.values():
        inline, whole = ET.fromstring(figure.inline), ET.fromstring(figure.svg)
        assert {element.tag.removeprefix(SVG) for element in inline.iter()} <= {
            *("svg", "g", "path", "text", "defs", "use", "clipPath", "rect", "image")
        }
        assert inline.get("aria-label") == figure.alt
        for one in (*inline.iter(), *whole.iter()):
            assert "script" not in one.tag
            assert not any(name.lower().startswith("on") for name in one.attrib)
        assert whole.findtext(f"{SVG}title") == figure.title
        assert "\x1b" not in figure.svg + figure.title + figure.caption + figure.alt
    written = [text for figure in hostile.values() for text in texts(figure)]
    assert any("<script>x</script> $x$" in text for text in written)
    assert any("$y_{1}$" in text for text in written)


def test_names_of_files_are_safe_and_none_is_there_twice(hostile):
    names = list(hostile)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name) for name in names)
    assert len({name.lower() for name in names}) == len(names)
    assert {"curves_B", "curves_b_2"} <= set(names)


def test_a_name_that_is_taken_gets_a_number():
    assert unused("../\n", {}, "x") == "figure"
    assert unused("a/b", {"a_b": "x", "A_B_2": "x"}, "x") == "a_b_3"


def test_an_inline_drawing_follows_the_page(hostile):
    for figure in hostile.values():
        assert figure.inline.startswith("<svg ")
        assert 'role="img"' in figure.inline
        assert 'width="100%"' in figure.inline
        assert not re.search(r"<\?xml|<!|<style|<metadata|<title", figure.inline)
        bare = re.sub(r"var\(--figure-\w+, #[0-9a-f]{6}\)", "", figure.inline)
        styles = " ".join(re.findall(r'style="([^"]*)"', bare))
        assert not any(colour in styles for colour in PAGE_COLOURS)
        assert "var(--figure-ink, #1a1a1a)" in figure.inline
        assert "var(--figure-paper, #ffffff)" in figure.inline
        assert "var(" not in figure.svg
        assert 'font-family: "' not in figure.svg
        assert "sans-serif" in figure.svg


def test_what_is_written_keeps_its_text_in_any_colour():
    text = '<text style="fill: #1a1a1a">fill: #1a1a1a</text>'
    svg = f'<svg viewBox="0 0 1 1"><title>t</title><g id="figure_1">{text}</g></svg>'
    inline = Figure("n", None, "t", "c", 'a "b" <c>', b"", svg).inline
    assert '<text style="fill: var(--figure-ink, #1a1a1a)">fill: #1a1a1a</text>' in inline
    assert "a &quot;b&quot; &lt;c&gt;" in inline


def test_ids_of_two_drawings_in_one_page_differ(hostile):
    seen: dict[str, str] = {}
    for figure in hostile.values():
        ids = set(re.findall(r'\bid="([^"]*)"', figure.inline))
        assert not [seen[one] for one in ids if one in seen]
        seen |= dict.fromkeys(ids, figure.name)
        used = set(re.findall(r'(?:url\(#|href="#)([^")]*)', figure.inline))
        assert used <= ids
    assert len(set(seen.values())) > 5


def test_the_same_runs_give_the_same_bytes(tmp_path, hostile):
    for folder in (tmp_path / "a", tmp_path / "b"):
        for n in range(2):
            put(folder / f"{n}", [0.5, 0.4], model=f"net{n}", parameters=10**n)
            mistaken(folder / f"{n}", (0, 1, 0.9))
    first, second = drawn(tmp_path / "a"), drawn(tmp_path / "b")
    assert len(first) == 4
    assert first == second


def test_colours_are_seen_on_white_and_on_a_dark_page():
    for colour in SERIES:
        assert contrast(colour, "#ffffff") >= 3
        assert contrast(colour, "#111111") >= 3


# --- in the report ----------------------------------------------------------------------------


def test_the_figures_stand_below_their_section(tmp_path):
    put(tmp_path / "in" / "0", [0.5, 0.4])
    put(tmp_path / "in" / "1", [0.5, 0.4], data__name="synthetic")
    made = report.build([tmp_path / "in"], tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert files == [
        *("curves_lenet.png", "curves_lenet.svg"),
        *("curves_lenet_synthetic.png", "curves_lenet_synthetic.svg"),
    ]
    figure = made.figures[0]
    assert (tmp_path / "out" / "figures" / "curves_lenet.png").read_bytes() == figure.png
    assert (tmp_path / "out" / "figures" / "curves_lenet.svg").read_text("utf-8") == figure.svg
    parts = made.markdown.split("\n\n")
    place_ = parts.index("### lenet: loss and accuracy by epoch")
    assert place_ < parts.index("## Synthetic data")
    assert parts[place_ + 1].startswith("![Loss and accuracy by epoch of 1 row of lenet")
    assert parts[place_ + 1].endswith("](figures/curves_lenet.png)")
    assert parts[place_ + 2].endswith("[SVG](figures/curves_lenet.svg)")
    assert "(figures/curves_lenet_synthetic.png)" in "".join(
        parts[parts.index("## Synthetic data") :]
    )
    assert report.build([tmp_path / "in"]).figures == ()  # nothing was written


# --- several rows -----------------------------------------------------------------------------


def test_the_best_row_of_each_model_is_in_one_picture_from_its_first_epoch_on(tmp_path):
    losses = [2.0, 0.5, *[0.3 - n / 100 for n in range(12)]]
    put(tmp_path / "0", losses, test_accuracy=0.9)
    put(tmp_path / "1", [1.5, 0.4, 0.35], model="resnet18", test_accuracy=0.92)
    put(tmp_path / "2", [1.6, 0.5, 0.45], model="resnet18", seed=1, test_accuracy=0.92)
    put(tmp_path / "3", losses, batch_size=512, test_accuracy=0.5)
    figure = drawn(tmp_path)["epochs"]
    said = texts(figure)
    assert {"Training loss", "Validation accuracy (%)", "resnet18, n = 2", "lenet, n = 1"} <= {
        *said
    }
    assert "range of the seeds" in said
    loss, _ = (path for path in paths(figure, RED) if len(path) == len(losses))
    # All of the axis is between the first epoch and the last: nothing was cut.
    ticks = {
        float(element.text or 0): -float(element.get("y", ""))
        for element in ET.fromstring(figure.svg).iter(f"{SVG}text")
        if element.text in {"0.5", "1.5"}
    }
    assert loss[1, 1] == pytest.approx(ticks[0.5], abs=8)
    assert loss[0, 1] > ticks[1.5] > loss[1, 1]
    assert "Validation accuracy at the end: resnet18 50.00 %; lenet 71.00 %" in figure.alt


@pytest.mark.parametrize("models", [["lenet"], ["lenet", "resnet18"]])
def test_where_only_training_is_known_the_page_says_how_to_get_more(tmp_path, models):
    for model in models:
        folder = write(tmp_path / model, model=model)
        lines = [{"epoch": n, "train_loss": 1 / (n + 1), "train_accuracy": 0.5} for n in range(3)]
        (folder / "history.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    made = drawn(tmp_path)
    for name in ("curves_lenet", *["epochs"] * (len(models) > 1)):
        assert "evaluation.every=1 one of test images" in made[name].caption
    # The legend has the line styles that are drawn: no solid line is.
    legend = ET.fromstring(made["curves_lenet"].svg).findall(f".//{SVG}g[@id]")
    lines = [
        path.get("style", "")
        for group in legend
        if group.get("id", "").startswith("legend")
        for path in group.iter(f"{SVG}path")
    ]
    assert lines
    assert all("dasharray" in style for style in lines)
