"""Which images train, which validate, which test.

All splits are index sets over one long row of images: the training set, an official validation set
where there is one, and the test set.

- `standard` trains on the training set and tests on the test set, the official way;
- `holdout` does the same, and keeps a tenth of the training images for validation;
- `custom` trains on the first half of the training set and tests on the test set followed by the
  other half: 30,000 and 40,000 images of Fashion-MNIST;
- `kfold` divides the training set into folds, of which one validates, or tests.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fmbench.core.errors import ConfigError
from fmbench.data.dataset import Dataset

NAMES = ("standard", "holdout", "custom", "kfold")

#: Data sets of which a published protocol tests on half of the training set.
_WITH_CUSTOM = ("fashion_mnist", "mnist", "kmnist", "synthetic")

#: What a fold is for.
ROLES = ("validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Three disjoint sets of images, as read-only int64 indices into the row of all images."""

    name: str  # the protocol, one of `NAMES`
    train: np.ndarray = field(repr=False)
    validation: np.ndarray = field(repr=False)  # empty where nothing is held out
    test: np.ndarray = field(repr=False)
    #: Of `kfold`, a hash of which image is in which: those of a row share it.
    folds: str | None = None

    def __post_init__(self) -> None:
        for part in (self.train, self.validation, self.test):
            part.setflags(write=False)

    @property
    def hash(self) -> str:
        """SHA-256 in hex of which image plays which part, whatever the split is called."""
        return _hash(self.train, self.validation, self.test)

    @property
    def tested(self) -> str:
        """The same of which images test."""
        return _hash(self.test)


def _hash(*parts: np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in parts:
        # The length in front keeps an image at a border from counting for either side.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()


def make_split(dataset: Dataset, config: Mapping[str, Any]) -> Split:
    """Divide a data set as its config says.

    Args:
        dataset: The images to divide, by their labels alone.
        config: The `data` group: `limit` and `limit_test`, how many images of the training and of
            the test part are taken, None for all; and `split`: `name`, one of `NAMES`;
            `validation`, how many training images to hold out, where None means a tenth for
            `holdout` and none for the others; `seed` of the draws; of `kfold` the number of
            `folds`, the `fold` from 0, and its `role`.

    Returns:
        The split. Images are drawn class by class in proportion; those that stay keep their order.
        A smaller limit takes some of the images of a larger one.

    Raises:
        ConfigError: The name is unknown, a number does not leave images on both sides, the seed is
            negative, the data set has no such split, or a part would go without one of the classes.
    """
    split = config["split"]
    name, seed = split["name"], split["seed"]
    if name not in NAMES:
        raise ConfigError(f"data.split.name={name}: unknown; allowed are {', '.join(NAMES)}")
    if seed < 0:
        raise ConfigError(f"data.split.seed={seed}: negative; allowed are 0 and above")
    make = _folded if name == "kfold" else _published
    train, validation, test, folds = make(dataset, split)
    labels, classes = dataset.labels, len(dataset.classes)
    limited, limits = {"limit": train, "limit_test": test}, []
    for key, part in limited.items():
        limits.append(limit := config.get(key))
        if limit is not None and not classes <= limit <= len(part):
            raise ConfigError(
                f"data.{key}={limit}: allowed are {classes:,}, one a class, to {len(part):,}"
            )
        if limit is not None:
            limited[key] = np.sort(part[_order(labels[part], seed)[:limit]])
    if folds is not None and limits != [None, None]:  # other images: another row
        folds = hashlib.sha256(f"{folds} {limits}".encode()).hexdigest()
    made = Split(name, limited["limit"], validation, limited["limit_test"], folds)
    _check_classes(made, labels, dataset.classes)
    return made


_Parts = tuple[np.ndarray, np.ndarray, np.ndarray, str | None]


def _published(dataset: Dataset, config: Mapping[str, Any]) -> _Parts:
    name, size = config["name"], config["validation"]
    train, official, test = dataset.parts.values()
    if name == "custom":
        if dataset.name not in _WITH_CUSTOM:
            raise ConfigError(
                f"data.split=custom: is a protocol of {', '.join(_WITH_CUSTOM)} alone; "
                "data.split=standard and holdout fit every data set"
            )
        train, rest = np.split(train, [len(train) // 2])
        test = np.concatenate([test, rest])
    if len(official) and not size:
        return train, official, test, None
    if size is None:
        size = len(train) // 10 if name == "holdout" else 0
    if len(official):
        raise ConfigError(
            f"data.split.validation={size}: the data set has an official validation part; "
            "allowed are null and 0, which take it"
        )
    if not 0 <= size < len(train):
        raise ConfigError(
            f"data.split.validation={size}: allowed are 0 to {len(train) - 1:,}, "
            f"the {name} split has {len(train):,} images to train on"
        )
    held_out = drawn(dataset.labels[train], size, len(dataset.classes), config["seed"])
    return train[~held_out], train[held_out], test, None


def _folded(dataset: Dataset, config: Mapping[str, Any]) -> _Parts:
    folds, fold, role = (config[name] for name in ("folds", "fold", "role"))
    train, official, test = dataset.parts.values()
    if role not in ROLES:
        raise ConfigError(f"data.split.role={role}: must be one of {', '.join(ROLES)}")
    if role == "test":
        if not dataset.set_aside:
            raise ConfigError(
                "data.split.role=test: the data set has a test part of its own, which tests; "
                "allowed is validation"
            )
        train = np.concatenate([train, official, test])
    if len(official):
        raise ConfigError(
            "data.split=kfold: the data set has an official validation part; data.split=standard "
            "takes it"
        )
    least = int(np.bincount(dataset.labels[train], minlength=len(dataset.classes)).min())
    if not 2 <= folds <= least:
        raise ConfigError(
            f"data.split.folds={folds}: allowed are 2 to {least}, the images of the rarest class"
        )
    if not 0 <= fold < folds:
        raise ConfigError(f"data.split.fold={fold}: allowed are 0 to {folds - 1}")
    # Dealt out class by class: the folds and the classes in them differ by one image at most.
    dealt = np.empty(len(train), dtype=np.int64)
    dealt[_shuffled(dataset.labels[train], config["seed"])] = np.arange(len(train)) % folds
    row = _hash(*(train[dealt == each] for each in range(folds)), test)
    rest, held_out = train[dealt != fold], train[dealt == fold]
    if role == "test":
        return rest, held_out[:0], held_out, row
    return rest, held_out, test, row


def _order(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order of images whose every beginning has all classes in proportion.

    Within its class an image has a random place; classes take turns by the share that was taken.
    """
    counts = np.bincount(labels)
    places = np.empty(len(labels), dtype=np.int64)
    starts = np.cumsum(counts) - counts
    places[_shuffled(labels, seed)] = np.arange(len(labels)) - np.repeat(starts, counts)
    # The first of each class come first, so that no beginning goes without one.
    return np.lexsort((labels, (places + 0.5) / counts[labels], places > 0))


def _shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    """The places of the images sorted by class, and in a class by a random number each."""
    return np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))


def drawn(labels: np.ndarray, size: int, classes: int, seed: int) -> np.ndarray:
    """Draw `size` of the labels, each class by its share; bool (N,), True where drawn."""
    counts = np.bincount(labels, minlength=classes)
    # Whole numbers decide, so that no rounding of floats moves an image between machines.
    quotas, remainders = np.divmod(counts * size, max(len(labels), 1))
    largest = np.argsort(-remainders, kind="stable")[: size - quotas.sum()]
    quotas[largest] += 1

    ranking = _shuffled(labels, seed)
    starts = np.cumsum(counts) - counts
    chosen = np.zeros(len(labels), dtype=bool)
    for start, quota in zip(starts, quotas, strict=True):
        chosen[ranking[start : start + quota]] = True
    return chosen


def _check_classes(split: Split, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    parts = {"training": split.train, "validation": split.validation, "test": split.test}
    for part, indices in parts.items():
        missing = np.flatnonzero(np.bincount(labels[indices], minlength=len(classes)) == 0)
        if missing.size and (part != "validation" or indices.size):
            raise ConfigError(
                f"data.split={split.name}: the {part} part of {len(indices):,} images has none of "
                f"class {classes[missing[0]]}; every class must be in it at least once"
            )
