"""A data set in memory: images of one size, their labels, and the part that each belongs to."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

#: Classes whose names a record keeps; of more it has none.
MOST_NAMED = 1000


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels. The arrays are read-only: the runs of a process share them.

    The training images come first, then those of an official validation part, then the test images.
    """

    name: str  # what tables call it
    classes: tuple[str, ...]  # the name of each label
    images: np.ndarray = field(repr=False)  # uint8 (N, C, H, W), 0 black to 255 white
    labels: np.ndarray = field(repr=False)  # (N,), from 0: uint8, uint16 of more than 256 classes
    train: int  # how many are training images
    validation: int  # how many are in the official validation part; 0 where there is none
    sha256: str  # hex digest of the content, so that a record tells which images were used
    set_aside: bool = False  # whether the test images were drawn from the only part there was

    def __post_init__(self) -> None:
        self.images.setflags(write=False)
        self.labels.setflags(write=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """The indices of the parts `train`, `validation` and `test`."""
        every = np.arange(len(self.labels))
        parts = np.split(every, [self.train, self.train + self.validation])
        return dict(zip(("train", "validation", "test"), parts, strict=True))

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The images and the labels of a part: `train`, `validation` or `test`."""
        indices = self.parts[name]
        some = slice(indices[0], indices[-1] + 1) if len(indices) else slice(0)
        return self.images[some], self.labels[some]

    def described(self) -> dict[str, Any]:
        """What a record says of it, see `fmbench.records.record.Data`."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return {
            "name": self.name,
            "sha256": self.sha256,
            "shape": list(self.shape),
            # A record is no place for a dictionary of words.
            "classes": list(self.classes) if len(self.classes) <= MOST_NAMED else [],
            "duplicates": self.duplicates,
            "set_aside": self.set_aside,
            "rarest": int(counts.min()),
            "commonest": int(counts.max()),
        }

    @cached_property
    def duplicates(self) -> int:
        """How many test images are in the training part too, byte for byte."""

        def digest(place: int) -> bytes:
            return hashlib.blake2b(self.images[place].data, digest_size=16).digest()

        seen = set(map(digest, self.parts["train"].tolist()))
        return sum(digest(place) in seen for place in self.parts["test"].tolist())


def joined(
    name: str,
    classes: Iterable[str],
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    sha256: str | None = None,
) -> Dataset:
    """A data set of its parts, `train`, `test` and perhaps `validation`.

    Each has images, uint8 (N, H, W) or (N, C, H, W), and labels, (N,) whole numbers from 0. The
    SHA-256 of the content is computed where it is not known.
    """
    classes = tuple(classes)
    order = [part for part in ("train", "validation", "test") if part in parts]
    images = np.ascontiguousarray(np.concatenate([parts[part][0] for part in order]))
    labels = np.concatenate([parts[part][1] for part in order])
    if images.ndim == 3:
        images = images[:, None]
    counts = {part: len(parts[part][1]) for part in order}
    if sha256 is None:
        head = f"{order} {[*counts.values()]} {images.shape[1:]} {classes}"
        texts = hashlib.sha256(images.data), hashlib.sha256(labels.astype("<u2").data)
        sha256 = combined([head, *(text.hexdigest() for text in texts)])
    return Dataset(
        name=name,
        classes=classes,
        images=images,
        labels=labels.astype(np.uint8 if len(classes) <= 256 else np.uint16),
        train=counts["train"],
        validation=counts.get("validation", 0),
        sha256=sha256,
    )


def combined(digests: Iterable[str]) -> str:
    """One digest of several."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def statistics(images: np.ndarray, indices: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the pixels of some images by channel, on a scale of 0 to 1.

    Of uint8 (N, C, H, W) images those at the indices count. By sums of whole numbers, so that the
    order of the images and the machine change nothing.
    """
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, dtype=np.int64)
        for some in np.array_split(indices, len(indices) // 4096 + 1):
            counts += np.bincount(images[some, channel].ravel(), minlength=256)
        total, values = int(counts.sum()), np.arange(256)
        first, second = int(counts @ values), int(counts @ values**2)
        means.append(first / total / 255)
        variance = (total * second - first * first) / total**2
        stds.append(max(variance**0.5, 1) / 255)  # of images that are all alike: a grey level
    return means, stds
