"""A user's own data, whatever they lie in: from arrays of any kind to a `Dataset`.

What is accepted is documented in docs/data.md. Everything else is refused in one line, before a
model is built.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, DataError
from fmbench.data.dataset import Dataset, combined, joined
from fmbench.data.pictures import fitted
from fmbench.data.splits import drawn

log = logger(__name__)

PARTS = ("train", "validation", "test")

#: Classes that a prediction of two bytes can tell apart.
MOST_CLASSES = 65_535

#: Letters of the name of one.
LONGEST_NAME = 200


class Part(NamedTuple):
    """Images and labels as they were found."""

    images: np.ndarray  # (N, H, W), (N, H, W, C) or (N, C, H, W), of numbers
    labels: np.ndarray  # (N,) or (N, 1): whole numbers or texts
    where: str  # what an error calls it


def assemble(
    name: str,
    parts: Mapping[str, Part],
    config: Mapping[str, Any],
    names: Sequence[str] | None = None,
) -> Dataset:
    """The data set of some parts.

    Args:
        name: What tables call it.
        parts: By their names in `PARTS`; without `test` one is drawn from the training part.
        config: The `data` group: `size`, `fit`, `channels`, `classes`, `test_fraction`, `seed`.
        names: Of the labels that are numbers from 0, where the data say them.

    Raises:
        ConfigError: A value of the group is not allowed, or does not fit the data.
        DataError: The data are no images with labels.
    """
    if "train" not in parts:
        raise DataError(f"{name}: has no training part, only {', '.join(parts) or 'nothing'}")
    pixels = _alike(name, {part: _pixels(*found) for part, found in parts.items()}, config)
    classes, labels = _classes(name, parts, config["classes"] or names)
    whole = joined(name, classes, {part: (pixels[part], labels[part]) for part in parts})
    if "test" in parts:
        return whole
    return _set_aside(whole, config)


def _set_aside(dataset: Dataset, config: Mapping[str, Any]) -> Dataset:
    """Draw a test part from the training part, class by class."""
    share, train = config["test_fraction"], dataset.parts["train"]
    size = round(share * len(train))
    if not 0 < size < len(train):
        raise ConfigError(
            f"data.test_fraction={share}: {size:,} of {len(train):,} images; must leave images on "
            "both sides"
        )
    labels = dataset.labels[train]
    test = drawn(labels, size, len(dataset.classes), config["seed"])
    order = np.concatenate([train[~test], dataset.parts["validation"], train[test]])
    return replace(
        dataset,
        images=dataset.images[order],
        labels=dataset.labels[order],
        train=int((~test).sum()),
        # Another draw is another test set, of the same images.
        sha256=combined([dataset.sha256, hashlib.sha256(order.astype("<i8").data).hexdigest()]),
        set_aside=True,
    )


def _pixels(images: np.ndarray, labels: np.ndarray, where: str) -> np.ndarray:
    """Images as (N, C, H, W) of their own type; checks that they go with their labels."""
    if images.dtype == object or images.dtype.kind not in "buif":
        raise DataError(f"{where}: images must be numbers, are {images.dtype}")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(
            f"{where}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W), are {images.shape}"
        )
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    elif images.shape[1] not in (1, 3):
        raise DataError(f"{where}: images of {images.shape} have neither 1 nor 3 channels")
    if len(labels) != len(images):
        raise DataError(f"{where}: {len(images):,} images and {len(labels):,} labels")
    return images


def _alike(
    name: str, parts: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The parts as uint8 (N, C, H, W) of one size and one number of channels."""
    size, fit, wanted = config["size"], config["fit"], config["channels"]
    floats = [images for images in parts.values() if images.dtype.kind == "f"]
    if any(not np.isfinite(images).all() for images in floats):
        raise DataError(f"{name}: a pixel is NaN or infinite")
    scale = 1.0
    high = max(float(images.max()) for images in parts.values())
    low = min(float(images.min()) for images in parts.values())
    if low < 0:
        raise DataError(f"{name}: a pixel is negative ({low:g}); must be 0 to 255, or 0 to 1")
    deep = all(images.dtype == np.uint16 for images in parts.values())
    if floats and high <= 1:
        scale = 255.0
        log.info("%s: pixels are 0 to 1, taken as 0 to 255", name)
    elif any((images != np.rint(images)).any() for images in floats):
        raise DataError(f"{name}: pixels are fractions up to {high:g}; must be 0 to 1, or 0 to 255")
    elif deep and high > 4095:  # of 12 bits nobody could tell
        scale = 255 / 65_535
        log.info("%s: pixels have 16 bits, taken as 8", name)
    elif high > 255:
        raise DataError(
            f"{name}: a pixel is {high:g}; must be 0 to 255, 0 to 1, or 16 bits of unsigned numbers"
        )

    def alike(images: np.ndarray) -> np.ndarray:
        if images.dtype == bool:
            images = images * np.uint8(255)
        elif images.dtype != np.uint8:
            images = np.rint(images * scale).astype(np.uint8)
        if wanted == 1 and images.shape[1] == 3:
            images = np.stack([_grey(image) for image in images])
        elif wanted == 3 and images.shape[1] == 1:
            images = images.repeat(3, axis=1)
        if size is not None and images.shape[2:] != (size, size):
            images = np.stack([_resized(image, size, fit) for image in images])
        return images

    found = {part: alike(images) for part, images in parts.items()}
    shapes = {images.shape[1:] for images in found.values()}
    if len(shapes) > 1:
        raise DataError(
            f"{name}: the parts have images of {' and '.join(map(str, sorted(shapes)))}; data.size "
            "and data.channels make them one"
        )
    return found


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))[None]


def _resized(image: np.ndarray, size: int, fit: str) -> np.ndarray:
    """One image, (C, H, W) to (C, size, size)."""
    grey = len(image) == 1
    made = fitted(
        Image.fromarray(image[0] if grey else image.transpose(1, 2, 0)), (size, size), fit
    )
    return made[None] if grey else made.transpose(2, 0, 1)


def _classes(
    name: str, parts: Mapping[str, Part], names: Sequence[Any] | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The names of the classes, and the labels of each part as numbers from 0.

    Without names the labels are sorted, numbers as numbers. With names a number is a place among
    them, and a text one of them.
    """
    found = {part: _labels(one) for part, one in parts.items()}
    values = sorted(set().union(*(labels.tolist() for labels in found.values())), key=natural)
    texts = isinstance(values[0], str)
    if names is None:
        classes = tuple(map(str, values))
        places = {value: place for place, value in enumerate(values)}
    else:
        classes = tuple(map(str, names))
        places = {one if texts else place: place for place, one in enumerate(classes)}
        if len(set(classes)) < len(classes):
            raise ConfigError("data.classes: a name is there twice")
    strange = next((value for value in values if value not in places), None)
    if strange is not None:
        raise DataError(f"{name}: label {strange!r} is none of the {len(classes)} in data.classes")
    if long := next((one for one in classes if len(one) > LONGEST_NAME), None):
        raise DataError(f"{name}: a class is called {long[:40]}...; at most {LONGEST_NAME} letters")
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise DataError(f"{name}: {len(classes):,} classes; there must be 2 to {MOST_CLASSES:,}")
    numbers = {}
    for part, labels in found.items():
        numbers[part] = np.array([places[value] for value in labels.tolist()])
        empty = np.bincount(numbers[part], minlength=len(classes)) == 0
        if empty.any():
            raise DataError(f"{parts[part].where}: has no image of class {classes[empty.argmax()]}")
    return classes, numbers


def _labels(part: Part) -> np.ndarray:
    """Labels as (N,) whole numbers of 0 or more, or texts."""
    labels, where = part.labels, part.where
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{where}: labels must be (N,), one a image, are {labels.shape}")
    if labels.dtype.kind in "US":
        labels = labels.astype(str)
        if (labels == "").any():
            raise DataError(f"{where}: image {int(np.argmax(labels == ''))} has no label")
        return labels
    if labels.dtype.kind not in "buif":
        raise DataError(f"{where}: labels must be whole numbers or texts, are {labels.dtype}")
    whole = labels.dtype.kind != "f" or (np.isfinite(labels) & (labels == np.rint(labels))).all()
    if not whole:
        raise DataError(f"{where}: a label is missing, or no whole number")
    labels = labels.astype(np.int64)
    if labels.min() < 0:
        raise DataError(f"{where}: image {int(labels.argmin())} has the label {labels.min()}")
    return labels


def natural(value: str | int) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts numbers in texts as numbers: `image2` before `image10`."""
    pieces = re.split(r"(\d+)", str(value))
    return tuple(
        (0, len(text.lstrip("0")), text.lstrip("0")) if text.isdecimal() else (1, 0, text)
        for text in pieces
        if text
    )
