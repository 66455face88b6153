"""Which images train, which validate, which test.

All three published protocols are index sets over one long row of images: the training set followed
by the test set. On Fashion-MNIST that row has 70,000 images, of which

- `standard` trains on the first 60,000 and tests on the last 10,000, the official way;
- `holdout` does the same, and keeps a tenth of the training images for validation;
- `custom` trains on the first 30,000 and tests on the official test set followed by the other
  30,000, 40,000 in all.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fmbench.core.errors import ConfigError
from fmbench.data.fashion_mnist import Dataset

NAMES = ("standard", "holdout", "custom")


@dataclass(frozen=True, eq=False)
class Split:
    """Three disjoint sets of images, as indices into the training set followed by the test set.

    Attributes:
        name: The protocol, one of `NAMES`.
        train: int64 (N,), read-only.
        validation: int64 (N,), read-only; empty where nothing is held out.
        test: int64 (N,), read-only.
    """

    name: str
    train: np.ndarray = field(repr=False)
    validation: np.ndarray = field(repr=False)
    test: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        for part in (self.train, self.validation, self.test):
            part.setflags(write=False)

    @property
    def hash(self) -> str:
        """SHA-256 in hex of which image plays which part, whatever the split is called."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            # The length in front keeps an image at a border from counting for either side.
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()


def make_split(dataset: Dataset, config: Mapping[str, Any]) -> Split:
    """Divides a data set after one of the published protocols.

    Args:
        dataset: The images to divide, by their labels alone.
        config: `name`, one of `NAMES`; `validation`, how many training images to hold out, where
            None means a tenth for `holdout` and none for the others; `seed` of the draw.

    Returns:
        The split. Validation images are drawn class by class in proportion to the training part;
        the images that stay keep their order.

    Raises:
        ConfigError: The name is unknown, `validation` does not leave images on both sides, the seed
            is negative, or a part would go without one of the classes.
    """
    name, seed = config["name"], config["seed"]
    if name not in NAMES:
        raise ConfigError(f"data.split.name={name}: unknown; allowed are {', '.join(NAMES)}")
    if seed < 0:
        raise ConfigError(f"data.split.seed={seed}: negative; allowed are 0 and above")

    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    official_train, official_test = np.split(np.arange(len(labels)), [len(dataset.train_labels)])
    if name == "custom":
        train, rest = np.split(official_train, [len(official_train) // 2])
        test = np.concatenate([official_test, rest])
    else:
        train, test = official_train, official_test

    size = config["validation"]
    if size is None:
        size = len(train) // 10 if name == "holdout" else 0
    if not 0 <= size < len(train):
        raise ConfigError(
            f"data.split.validation={size}: allowed are 0 to {len(train) - 1:,}, "
            f"the {name} split has {len(train):,} images to train on"
        )
    held_out = _stratified(labels[train], size, len(dataset.classes), seed)
    split = Split(name, train[~held_out], train[held_out], test)
    _check_classes(split, labels, dataset.classes)
    return split


def _stratified(labels: np.ndarray, size: int, classes: int, seed: int) -> np.ndarray:
    """Draws `size` of the labels, each class by its share; returns bool (N,), True where drawn."""
    counts = np.bincount(labels, minlength=classes)
    # Whole numbers decide, so that no rounding of floats moves an image between machines.
    quotas, remainders = np.divmod(counts * size, max(len(labels), 1))
    largest = np.argsort(-remainders, kind="stable")[: size - quotas.sum()]
    quotas[largest] += 1

    # One number per image, the smallest of each class win.
    ranking = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    starts = np.cumsum(counts) - counts
    drawn = np.zeros(len(labels), dtype=bool)
    for start, quota in zip(starts, quotas, strict=True):
        drawn[ranking[start : start + quota]] = True
    return drawn


def _check_classes(split: Split, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    parts = {"training": split.train, "validation": split.validation, "test": split.test}
    for part, indices in parts.items():
        missing = np.flatnonzero(np.bincount(labels[indices], minlength=len(classes)) == 0)
        if missing.size and (part != "validation" or indices.size):
            raise ConfigError(
                f"data.split={split.name}: the {part} part of {len(indices):,} images has none of "
                f"class {classes[missing[0]]}; every class must be in it at least once"
            )
