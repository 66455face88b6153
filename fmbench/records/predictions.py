"""The predictions on the test images, as files of a run folder: written by the run, read again.

They lie in the order of the split's test images, so that two runs tested on the same images can be
compared image by image. The folder may come from a stranger: nothing in a file is run, and nothing
larger than the test set of any split is read. Probabilities of many images and classes are kept in
fewer bits: what is predicted never comes from them.
"""

import functools
import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fmbench.core.files import read_regular
from fmbench.records.record import (
    HELD_OUT_NAME,
    HELD_OUT_PROBABILITIES_NAME,
    LABELS_NAME,
    MISTAKES_NAME,
    PREDICTIONS_NAME,
    PROBABILITIES_NAME,
)
from fmbench.records.scores import FLOOR

MOST_MISTAKES = 40

#: A part of the split that predictions are kept of, and the file of its probabilities.
Part = Literal["test", "validation"]
PROBABILITIES_OF: Mapping[Part, str] = {
    "test": PROBABILITIES_NAME,
    "validation": HELD_OUT_PROBABILITIES_NAME,
}

#: Probabilities that are kept as float32; more are kept as float16 logarithms.
MOST_FLOAT32 = 1_000_000

#: Probabilities that are kept at all: 200 MB.
MOST_PROBABILITIES = 100_000_000

#: How far the sum of an image's probabilities may be from 1, as kept in 4 bytes or in 2: a float16
#: logarithm is off by a 2,048th, and their sum by as much of the entropy, 14 at most.
_OFF = {4: 1e-3, 2: 1e-2}

# A million test images, and as many mistakes as are kept, of 512 x 512 pixels in colour.
_MOST_BYTES = 2_000_000
_MOST_OF_MISTAKES = MOST_MISTAKES * 800_000

#: The types of a class, by NumPy's names: a byte, or two for more than 256 classes.
_CLASSES = ("|u1", "<u2")

#: The shape of an image in the header of a file, which has a few hundred bytes.
_TABLE = re.compile(rb"'shape': \((\d{1,9}), (\d{1,5})\)")
_IMAGE, _HEADER = re.compile(rb"\((?:([13]), )?(\d{1,4}), (\d{1,4})\)"), 1000


def mistake_type(kind: Any, shape: tuple[int, ...]) -> np.dtype:
    """The type of one mistake.

    Its fields: `place`, which test image; `label`, its right class; `predicted`; `confidence`, the
    probability that the model gave to what it predicted; `image` as stored, 0 black to 255 white.

    Args:
        kind: Of a class.
        shape: Of an image: (H, W), or (C, H, W) where it has a colour.
    """
    numbers = [("place", "<u4"), ("label", kind), ("predicted", kind), ("confidence", "<f4")]
    return np.dtype([*numbers, ("image", "u1", shape)])


def mistakes(
    predicted: np.ndarray, labels: np.ndarray, confidences: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """The mistakes that a model was most confident about.

    Args:
        predicted: (N,) classes.
        labels: (N,) the right ones, uint8 or uint16.
        confidences: (N,) the probability that the model gave to what it predicted.
        images: (N, C, H, W) uint8.

    Returns:
        At most `MOST_MISTAKES` of `mistake_type`, the most confident first.
    """
    wrong = np.flatnonzero(predicted != labels)
    # Equally confident ones in their order, so that the same run writes the same file.
    places = wrong[np.argsort(-confidences[wrong], kind="stable")][:MOST_MISTAKES]
    grey = images.shape[1] == 1
    kept = images[places, 0] if grey else images[places]
    made = np.zeros(len(places), dtype=mistake_type(labels.dtype, kept.shape[1:]))
    made["place"], made["image"] = places, kept
    made["label"], made["predicted"] = labels[places], predicted[places]
    made["confidence"] = confidences[places]
    return made


def packed(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities as a file holds them, by float32 (N, classes).

    Up to `MOST_FLOAT32` they are as they are. More are natural logarithms in float16, none below
    `FLOOR`: relative to the logarithm they are off by a 2,048th at most.
    """
    if probabilities.size <= MOST_FLOAT32:
        return probabilities.astype("<f4", copy=False)
    with np.errstate(divide="ignore"):
        logarithms: np.ndarray = np.maximum(np.log(probabilities), FLOOR).astype("<f2")
    return logarithms


def held_out(numbers: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The predictions on the validation images.

    Args:
        numbers: (N,) of the images in the row of all, the training set first.
        predicted: (N,) classes.
        labels: (N,) the right ones, uint8 or uint16.

    Returns:
        (N,) of the fields `image`, `label` and `predicted`.
    """
    made = np.zeros(len(numbers), dtype=_held_out_type(labels.dtype))
    made["image"], made["label"], made["predicted"] = numbers, labels, predicted
    return made


def _held_out_type(kind: Any) -> np.dtype:
    return np.dtype([("image", "<u4"), ("label", kind), ("predicted", kind)])


def to_bytes(array: np.ndarray) -> bytes:
    """The content of a `.npy` file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def read_predictions(folder: str | Path) -> np.ndarray | None:
    """The predicted class of every test image, (N,); None where there is no such file."""
    return _read_classes(Path(folder, PREDICTIONS_NAME))


def read_labels(folder: str | Path) -> np.ndarray | None:
    """The right class of every test image, (N,); None where there is no such file."""
    return _read_classes(Path(folder, LABELS_NAME))


def name_of_test_set(sha256: str, labels: np.ndarray, tested: str | None) -> str:
    """A name that runs share whose test images are the same in the same order.

    Args:
        sha256: Of the data set.
        labels: As `read_labels` gives them.
        tested: Hash of which images test, where the record has one.
    """
    said = f"{sha256} {hashlib.sha256(labels.tobytes()).hexdigest()} {tested or ''}"
    return hashlib.sha256(said.encode()).hexdigest()


def read_mistakes(folder: str | Path) -> np.ndarray | None:
    """The most confident mistakes, of `mistake_type`; None where there is no such file.

    Only those that a picture can be made of: with confidences from 0 to 1.
    """
    content = _read(Path(folder, MISTAKES_NAME), _MOST_OF_MISTAKES)
    shape = _IMAGE.search(content[:_HEADER])
    if shape is None:
        return None
    sides = tuple(int(side) for side in shape.groups() if side is not None)
    types = (mistake_type(kind, sides) for kind in _CLASSES)
    found = _array(content, types)
    if found is None:
        return None
    shares = (found["confidence"] >= 0) & (found["confidence"] <= 1)
    return found[shares][:MOST_MISTAKES]


def read_held_out(folder: str | Path) -> np.ndarray | None:
    """What `held_out` made, of a run that validates; None where there is no such file."""
    content = _read(Path(folder, HELD_OUT_NAME), 4 * _MOST_BYTES)
    return _array(content, map(_held_out_type, _CLASSES))


def read_probabilities(folder: str | Path, part: Part = "test") -> np.ndarray | None:
    """The probabilities of each image, float32 (N, classes); None where there is no such file.

    They are in the order of `read_labels`, or, of the part `validation`, of `read_held_out`. Each
    is from 0 to 1, and those of an image sum to 1, but for rounding: of more than `MOST_FLOAT32`
    numbers the file has float16 logarithms, and a probability p is off by p * -ln p / 2,048.
    """
    content = _read(Path(folder, PROBABILITIES_OF[part]), 2 * MOST_PROBABILITIES + _HEADER)
    shape = _TABLE.search(content[:_HEADER])
    if shape is None:
        return None
    images, classes = map(int, shape.groups())
    for dtype in map(np.dtype, ("<f4", "<f2")):
        head = _head(dtype, (images, classes))
        if (
            content.startswith(head)
            and images * classes > 0
            and len(content) == len(head) + images * classes * dtype.itemsize
        ):
            return _checked(np.frombuffer(content, dtype, offset=len(head)).reshape(-1, classes))
    return None


@functools.lru_cache
def _head(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What a `.npy` file of an array begins with."""
    head = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    about = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, about)
    return head.getvalue()


def _checked(found: np.ndarray) -> np.ndarray | None:
    """What `packed` gave, as float32 probabilities; None where it is nothing of the kind."""
    size = found.dtype.itemsize
    probabilities = found.astype(np.float32, copy=False)
    if size == 2:
        with np.errstate(over="ignore"):
            probabilities = np.exp(probabilities)
    with np.errstate(invalid="ignore", over="ignore"):  # they may be anything
        sums = probabilities.sum(axis=1, dtype=np.float64)
        valid = probabilities.min() >= 0 and bool((abs(sums - 1) <= _OFF[size]).all())
    return probabilities if valid else None


def _read_classes(path: Path) -> np.ndarray | None:
    return _array(_read(path, _MOST_BYTES), map(np.dtype, _CLASSES))


def _read(path: Path, most: int) -> bytes:
    """All of a file; nothing where it is missing, too large, or none."""
    try:
        return read_regular(path, most)
    except OSError:
        return b""


def _array(content: bytes, types: Iterable[np.dtype]) -> np.ndarray | None:
    """A one-dimensional array of one of the types; None where the file holds something else.

    Only what `to_bytes` writes is taken: NumPy's own reader understands more, and raises a dozen
    kinds of errors on what was made to be misunderstood.
    """
    body = content[10 + int.from_bytes(content[8:10], "little") :]
    for dtype in types:
        if dtype.itemsize and len(body) % dtype.itemsize == 0:
            head = _head(dtype, (len(body) // dtype.itemsize,))
            if len(head) + len(body) == len(content) and content.startswith(head):
                return np.frombuffer(body, dtype=dtype)
    return None
