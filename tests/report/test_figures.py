"""The pictures of a report: which there are, what they show, and that names in them do no harm."""

import json
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from drawings import BLUE, HOSTILE, RED, SVG, answer, drawn, mistaken, paths, put, texts
from records import write
from reports import contrast
from searches import sweep

from fmbench import report
from fmbench.records.predictions import mistake_type, read_mistakes
from fmbench.report import figures as package
from fmbench.report.figure import PAGE_COLOURS, Figure
from fmbench.report.figures import figures, unused
from fmbench.report.figures.curves import curve, histories
from fmbench.report.figures.predictions import confusion
from fmbench.report.figures.style import SERIES, Budget, apart


@pytest.fixture(autouse=True)
def all_that_is_tried_is_drawn(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert not [record for record in records if "could not be drawn" in record.getMessage()]


# --- which there are --------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_report_of_searches_alone_has_theirs(tmp_path):
    sweep(tmp_path / "a")
    sweep(tmp_path / "b", study="other", trials=[], best=[])
    sweep(tmp_path / "c", study="third")
    named = [name for name in drawn(tmp_path) if name.startswith("search")]
    assert named == ["search", "search_3"]  # by the place of the search, whichever are drawn


@pytest.mark.slow
def test_searches_keep_their_places_where_there_are_too_many_figures(tmp_path, monkeypatch):
    for place_, net in enumerate("abcd"):
        put(tmp_path / net, [0.5, 0.4], model=net, parameters=10**place_)
    sweep(tmp_path / "search")
    monkeypatch.setattr(package, "MOST_FIGURES", 3)
    assert list(drawn(tmp_path)) == ["accuracy_parameters", "epochs", "search"]


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert found.runs == (0, 1, 2)
    runs[2] = runs[2][:1]  # looked at too seldom to cost the others their epochs
    found = curve(runs, "train_loss")
    assert found is not None
    assert (found.epochs.tolist(), found.runs) == ([1, 2, 3], (0, 1))
    assert curve(runs, "test_loss") is None
    assert curve([], "train_loss") is None


def test_a_run_that_stopped_early_stays_in_the_mean_of_its_row(tmp_path):
    same = {"configuration": "ab" * 32, "epochs": 6}
    put(tmp_path / "0", [0.9, 0.9], seed=0, stopped_epoch=2, **same)
    put(tmp_path / "1", [0.9, 0.5, 0.4, 0.3, 0.2, 0.1], seed=1, **same)
    (row,) = report.build([tmp_path]).sections[0].rows
    found = curve(histories(row, Budget()), "train_loss")
    assert found is not None
    assert found.mean.tolist() == pytest.approx([0.9, 0.7, 0.65, 0.6, 0.55, 0.5])
    caption = drawn(tmp_path)["curves_lenet"].caption
    assert "A run that stopped early stays at its last values." in caption
    # One that is short for want of lines is no such run.
    put(tmp_path / "2", [0.9, 0.8, 0.7, 0.6], seed=2, **same)
    (row,) = report.build([tmp_path]).sections[0].rows
    assert sorted(map(len, histories(row, Budget()))) == [4, 6, 6]


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


@pytest.mark.slow
def test_training_losses_of_different_kinds_are_said_to_be(tmp_path):
    for name, batch_size in (("0", 64), ("1", 512)):
        put(tmp_path / name, [0.5, 0.4], batch_size=batch_size)
    assert "differ in kind" not in drawn(tmp_path)["curves_lenet"].caption
    put(tmp_path / "1", [0.5, 0.4], batch_size=512, loss="mse")
    assert "they differ in kind" in drawn(tmp_path)["curves_lenet"].caption


def test_of_a_long_run_not_every_epoch_is_drawn(tmp_path):
    losses = [0.5 + 0.1 * (-1) ** epoch / (1 + epoch) for epoch in range(1801)]
    put(tmp_path / "0", losses)
    put(tmp_path / "1", losses, seed=1)
    figure = drawn(tmp_path)["curves_lenet"]
    assert "Of long runs 250 epochs are drawn." in figure.caption
    assert len(figure.svg) < 100_000


@pytest.mark.slow
def test_more_rows_than_colours_are_said(tmp_path):
    for n in range(8):
        put(tmp_path / str(n), [0.5, 0.4], batch_size=2**n, test_accuracy=0.9 - n / 100)
    figure = drawn(tmp_path)["curves_lenet"]
    assert [text.partition(":")[0] for text in texts(figure) if text.startswith("batch")] == [
        f"batch size {2**n}" for n in range(6)
    ]
    assert "The 6 best of 8 rows" in figure.caption


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes(tmp_path, hostile):
    for folder in (tmp_path / "a", tmp_path / "b"):
        for n in range(2):
            put(folder / f"{n}", [0.5, 0.4], model=f"net{n}", parameters=10**n)
            mistaken(folder / f"{n}", (0, 1, 0.9))
    first, second = drawn(tmp_path / "a"), drawn(tmp_path / "b")
    assert len(first) == 7
    assert first == second


def test_colours_are_seen_on_white_and_on_a_dark_page():
    for colour in SERIES:
        assert contrast(colour, "#ffffff") >= 3
        assert contrast(colour, "#111111") >= 3


# --- in the report ----------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
