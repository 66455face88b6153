"""The confusion matrix and the most confident errors."""

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
from drawings import (
    answer,
    drawn,
    elements,
    mistaken,
    put,
    texts,
)
from PIL import Image
from records import write

from fmbench import report
from fmbench.report import figures as package
from fmbench.report.figures.curves import histories
from fmbench.report.figures.predictions import confusion
from fmbench.report.figures.style import Budget


@pytest.fixture(autouse=True)
def all_that_is_tried_is_drawn(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert not [record for record in records if "could not be drawn" in record.getMessage()]


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
