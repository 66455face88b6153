"""What a run answered on its test images: reading the files of a run folder."""

from pathlib import Path

import numpy as np

from fmbench.record import PREDICTIONS_NAME

LABELS_NAME = "labels.npy"
MISTAKES_NAME = "mistakes.npy"

#: Larger files than this are no answers to 100,000 images.
MAX_BYTES = 16 * 2**20

#: One mistake: its place among the test images, the right class, the predicted one, how sure the
#: net was of it (0 to 1), and the image.
MISTAKE = np.dtype(
    [("place", "<u4"), ("label", "u1"), ("predicted", "u1"), ("confidence", "<f4"),
     ("image", "u1", (28, 28))]
)  # fmt: skip


def read_predictions(folder: str | Path) -> np.ndarray | None:
    """The predicted classes of the test images, uint8 (N,); None where they cannot be read."""
    return _classes(folder, PREDICTIONS_NAME)


def read_labels(folder: str | Path) -> np.ndarray | None:
    """The right classes of the same images, uint8 (N,); None where they cannot be read."""
    return _classes(folder, LABELS_NAME)


def read_mistakes(folder: str | Path) -> np.ndarray | None:
    """The mistakes, most confident first, `MISTAKE` (M,); None where they cannot be read."""
    found = _load(folder, MISTAKES_NAME)
    return found if found is not None and found.dtype == MISTAKE and found.ndim == 1 else None


def _classes(folder: str | Path, name: str) -> np.ndarray | None:
    found = _load(folder, name)
    return found if found is not None and found.dtype == np.uint8 and found.ndim == 1 else None


def _load(folder: str | Path, name: str) -> np.ndarray | None:
    path = Path(folder) / name
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return loaded if isinstance(loaded, np.ndarray) else None
