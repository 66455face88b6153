"""A user's own data, small, and what is said of them where they are bad."""

import numpy as np
import pytest
from PIL import Image

from fmbench.core.errors import DataError
from fmbench.data.load import load

CLASSES = ["cat", "dog", "mouse 2", "mouse 10"]


def config(kind, root, **changes):
    usual = {
        "name": kind, "root": str(root), "test": None, "size": None, "fit": "crop",
        "channels": None, "classes": None, "test_fraction": 0.25, "seed": 0, "keys": None,
        "label": None, "image": None, "cache": "auto", "cache_gb": 1,
    }  # fmt: skip
    return usual | changes


def images(count=40, shape=(8, 8), seed=0):
    """Images, and labels of four classes."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 4


def npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def pictures(folder, count=12, shape=(8, 8), suffix="png", names=CLASSES):
    """A picture of each class in turn, in folders of the classes; returns its arrays."""
    some, labels = images(count, shape)
    for number, (image, label) in enumerate(zip(some, labels, strict=True)):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.{suffix}")
    return some, labels


def refused(given, *parts, error=DataError):
    with pytest.raises(error) as raised:
        load(given)
    said = str(raised.value)
    assert "\n" not in said
    for part in parts:
        assert part in said, said


def as_set(dataset, part):
    """The images of a part with the names of their classes, whatever their order."""
    some, labels = dataset.part(part)
    return sorted((image.tobytes(), dataset.classes[label])
                  for image, label in zip(some, labels, strict=True))  # fmt: skip
