"""The predictions on the test images, as files of a run folder: written by the run, read again.

They lie in the order of the split's test images, so that two runs tested on the same images can be
compared image by image. The folder may come from a stranger: nothing in a file is run, and nothing
larger than the test set of any split is read.
"""

import io
from pathlib import Path

import numpy as np

from fmbench.core.files import read_regular
from fmbench.records.record import LABELS_NAME, MISTAKES_NAME, PREDICTIONS_NAME

#: One mistake: which test image, its right class, the class that was predicted, the probability
#: that the model gave it, and the image as stored, 0 black to 255 white.
MISTAKE = np.dtype([
    ("place", "<u4"), ("label", "u1"), ("predicted", "u1"), ("confidence", "<f4"),
    ("image", "u1", (28, 28)),
])  # fmt: skip
MOST_MISTAKES = 40

# Fashion-MNIST has 70,000 images in all; and as many mistakes as are kept.
_MOST_BYTES = 1_000_000
_MOST_OF_MISTAKES = 1_000 + MOST_MISTAKES * MISTAKE.itemsize


def mistakes(
    predicted: np.ndarray, labels: np.ndarray, confidences: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """The mistakes that a model was most confident about.

    Args:
        predicted: (N,) classes.
        labels: (N,) the right ones.
        confidences: (N,) the probability that the model gave to what it predicted.
        images: (N, 28, 28) uint8.

    Returns:
        At most `MOST_MISTAKES` of dtype `MISTAKE`, the most confident first.
    """
    wrong = np.flatnonzero(predicted != labels)
    # Equally confident ones in their order, so that the same run writes the same file.
    places = wrong[np.argsort(-confidences[wrong], kind="stable")][:MOST_MISTAKES]
    made = np.zeros(len(places), dtype=MISTAKE)
    made["place"], made["image"] = places, images[places]
    made["label"], made["predicted"] = labels[places], predicted[places]
    made["confidence"] = confidences[places]
    return made


def to_bytes(array: np.ndarray) -> bytes:
    """The content of a `.npy` file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def read_predictions(folder: str | Path) -> np.ndarray | None:
    """The predicted class of every test image, uint8 (N,); None where there is no such file."""
    return _read(Path(folder, PREDICTIONS_NAME), np.dtype("u1"), _MOST_BYTES)


def read_labels(folder: str | Path) -> np.ndarray | None:
    """The right class of every test image, uint8 (N,); None where there is no such file."""
    return _read(Path(folder, LABELS_NAME), np.dtype("u1"), _MOST_BYTES)


def read_mistakes(folder: str | Path) -> np.ndarray | None:
    """The most confident mistakes, of dtype `MISTAKE`; None where there is no such file.

    Only those that a picture can be made of: with confidences from 0 to 1.
    """
    found = _read(Path(folder, MISTAKES_NAME), MISTAKE, _MOST_OF_MISTAKES)
    if found is None:
        return None
    shares = (found["confidence"] >= 0) & (found["confidence"] <= 1)
    return found[shares][:MOST_MISTAKES]


def _read(path: Path, dtype: np.dtype, most: int) -> np.ndarray | None:
    """A one-dimensional array; None where the file is missing, damaged, or something else.

    Only what `to_bytes` writes is taken: NumPy's own reader understands more, and raises a dozen
    kinds of errors on what was made to be misunderstood.
    """
    try:
        content = read_regular(path, most)
    except OSError:
        return None
    body = content[10 + int.from_bytes(content[8:10], "little") :]
    if len(body) % dtype.itemsize:
        return None
    found = np.frombuffer(body, dtype=dtype)
    return found if to_bytes(found) == content else None
