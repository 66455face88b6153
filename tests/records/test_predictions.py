import io
import os

import numpy as np
import pytest

from fmbench.records import predictions
from fmbench.records.folder import RunFolder
from fmbench.records.predictions import (
    MOST_MISTAKES,
    mistake_type,
    mistakes,
    read_held_out,
    read_labels,
    read_mistakes,
    read_predictions,
    read_probabilities,
    to_bytes,
)


def some(wrong=100):
    """Predictions of which the first `wrong` are wrong, labels, confidences, images."""
    count, rng = 200, np.random.default_rng(0)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    predicted = labels.copy()
    predicted[:wrong] = (labels[:wrong] + 1) % 10
    confidences = rng.permutation(count).astype(np.float32) / count
    images = rng.integers(0, 256, (count, 1, 28, 28)).astype(np.uint8)
    return predicted, labels, confidences, images


def test_what_is_written_is_read_again(tmp_path):
    predicted, labels, confidences, images = some()
    worst = mistakes(predicted, labels, confidences, images)
    RunFolder(tmp_path).write_predictions(predicted, labels, worst)
    assert np.load(tmp_path / "predictions.npy", allow_pickle=False).dtype == np.uint8
    assert np.array_equal(read_predictions(tmp_path), predicted)
    assert np.array_equal(read_labels(tmp_path), labels)
    assert read_mistakes(tmp_path).tobytes() == worst.tobytes()


def test_mistakes_are_the_most_confident_ones_and_no_others():
    predicted, labels, confidences, images = some()
    worst = mistakes(predicted, labels, confidences, images)
    assert len(worst) == MOST_MISTAKES
    order = sorted(range(100), key=lambda place: -confidences[place])[:MOST_MISTAKES]
    assert worst["place"].tolist() == order
    assert (worst["label"] == labels[order]).all()
    assert (worst["predicted"] == predicted[order]).all()
    assert (worst["image"] == images[order, 0]).all()
    assert worst["confidence"].tolist() == confidences[order].tolist()


def test_equally_confident_mistakes_stay_in_their_order():
    predicted, labels, _, images = some()
    worst = mistakes(predicted, labels, np.ones(200, dtype=np.float32), images)
    assert worst["place"].tolist() == list(range(MOST_MISTAKES))


def test_no_mistake_is_an_empty_file_that_can_be_read(tmp_path):
    predicted, labels, confidences, images = some(wrong=0)
    none = mistakes(predicted, labels, confidences, images)
    RunFolder(tmp_path).write_predictions(predicted, labels, none)
    assert len(read_mistakes(tmp_path)) == 0


def _claims(shape: str) -> bytes:
    """A file whose header says what its content is not."""
    return _headed(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}")


def _headed(text: str) -> bytes:
    head = text.encode()
    head += b" " * (117 - len(head)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + b"\0" * 8


def _pickled() -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([{}], dtype=object), allow_pickle=True)
    return content.getvalue()


@pytest.mark.parametrize("content", [
    b"",
    b"\x93NUMPY",
    b"not an array",
    to_bytes(np.zeros(5, dtype=np.uint8))[:-1],
    to_bytes(np.zeros((5, 2), dtype=np.uint8)),
    to_bytes(np.zeros(5)),
    _claims("(1000000000000,)"),
    _claims("(-8,)"),
    _claims("8"),
    _pickled(),
    # What NumPy's own reader raises a TokenError, TypeError, MemoryError on, or warns of.
    _headed("{'descr': '|u1', 'fortran_order': False, 'shape': (8,"),
    _headed("{'descr': '|u1', \0"),
    _headed("{'descr': '|u1', 'fortran_order': False, 'shape': (8,), 1: 2}"),
    _headed("{[]: 1}"),
    _headed("-" * 90 + "1"),
    _headed("{'descr': '|u1', 'fortran_order': False, 'shape': (8L,), }"),
    b"\0" * 1_000_001,
])  # fmt: skip
def test_what_is_no_such_array_is_none(tmp_path, content):
    for name in (
        "predictions.npy",
        "labels.npy",
        "mistakes.npy",
        "held_out.npy",
        "probabilities.npy",
    ):
        (tmp_path / name).write_bytes(content)
    assert read_held_out(tmp_path) is None
    assert read_probabilities(tmp_path) is None
    assert read_predictions(tmp_path) is None
    assert read_labels(tmp_path) is None
    assert read_mistakes(tmp_path) is None


def test_a_well_made_file_of_the_same_form_is_read(tmp_path):
    (tmp_path / "labels.npy").write_bytes(_claims("(8,)"))
    assert read_labels(tmp_path).tolist() == [0] * 8


def test_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "predictions.npy")
    assert read_predictions(tmp_path) is None
    assert read_labels(tmp_path) is None


def test_a_confidence_that_is_none_is_left_out(tmp_path):
    made = np.zeros(3, dtype=mistake_type("u1", (28, 28)))
    made["confidence"] = [np.nan, 0.5, np.inf]
    (tmp_path / "mistakes.npy").write_bytes(to_bytes(made))
    assert read_mistakes(tmp_path)["confidence"].tolist() == [0.5]


def shares(images: int, classes: int) -> np.ndarray:
    """Probabilities from nearly all to nearly nothing."""
    logits = np.random.default_rng(0).normal(size=(images, classes)) * 8
    found = np.exp(logits - logits.max(1, keepdims=True))
    return (found / found.sum(1, keepdims=True)).astype(np.float32)


def test_few_probabilities_are_kept_as_they_are_and_many_within_what_is_said(tmp_path, monkeypatch):
    folder, given = RunFolder(tmp_path), shares(200, 10)
    folder.write_probabilities("test", given)
    assert read_probabilities(tmp_path).tobytes() == given.tobytes()
    assert read_probabilities(tmp_path, "validation") is None
    monkeypatch.setattr(predictions, "MOST_FLOAT32", 1999)
    given[0], given[1] = np.eye(10, dtype=np.float32)[:2]
    folder.write_probabilities("validation", given)
    assert np.load(tmp_path / "held_out_probabilities.npy").dtype == np.float16
    assert np.load(tmp_path / "held_out_probabilities.npy").min() == -40
    found = read_probabilities(tmp_path, "validation")
    assert found.dtype == np.float32
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.nan_to_num(-given * np.log(given)) / 2048
    assert (abs(found - given) <= off + 1e-7).all()
    assert np.array_equal(read_probabilities(tmp_path), read_probabilities(tmp_path))


@pytest.mark.parametrize("made", [
    np.full((2, 4), 0.5, np.float32),
    np.full((2, 4), np.nan, np.float32),
    np.full((2, 4), np.inf, np.float32),
    np.array([[1.5, -0.5]], np.float32),
    np.array([[np.nan, 0.5]], np.float16),
    np.array([[60000, -40]], np.float16),
    np.array([[-1, -1]], np.float16),
    np.full((2, 4), 0.25),
    np.full((2, 4), 0.25, np.float32).T,
    np.full((2, 4), 0.25, ">f4"),
    np.full((2, 2, 2), 0.5, np.float32),
    np.zeros((0, 4), np.float32),
])  # fmt: skip
def test_what_are_no_probabilities_is_none(tmp_path, made):
    (tmp_path / "probabilities.npy").write_bytes(to_bytes(made))
    assert read_probabilities(tmp_path) is None


@pytest.mark.parametrize("shape", ["(999999999, 99999)", "(2, 0)", "(0, 0)", "(2, 1), 'shape': ()"])
def test_a_header_that_says_what_is_not_there_is_none(tmp_path, shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    (tmp_path / "probabilities.npy").write_bytes(_headed(text))
    assert read_probabilities(tmp_path) is None
