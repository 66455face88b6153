"""Labels that out-of-sample probabilities contradict: confident learning.

C. G. Northcutt, L. Jiang and I. L. Chuang 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels". Probabilities of an image come from runs that did not train on it: on validation
images and held-out folds, and on test images. Those of several runs are averaged.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from msgspec.json import Decoder

from fmbench.records.predictions import (
    name_of_test_set,
    read_held_out,
    read_labels,
    read_predictions,
    read_probabilities,
)
from fmbench.records.record import COMPLETED, Record
from fmbench.records.validation import Count, Text, decode, encode

SCHEMA = 1
SUSPECTS_NAME = "suspects.json"

#: Of such a file, which names each suspected test image.
MOST_BYTES = 2**24

#: How far below its threshold a probability still counts as at it: rounding of a mean.
_ROUNDING = 1e-6

#: Numbers of all images and classes of one data set, whose sums have 8 bytes each.
MOST_NUMBERS = 100_000_000

#: Runs whose files are read.
MOST_RUNS = 1_000


@dataclass
class Pool:
    """The out-of-sample probabilities of some images of one data set."""

    part: Literal["train", "test"]  # training images by their number, or test images by their place
    record: Record  # of the first run
    labels: np.ndarray  # (N,) int64; -1 of an image that no run has held out
    sums: np.ndarray = field(repr=False)  # (N, classes) float64, of the probabilities
    counts: np.ndarray = field(repr=False)  # (N,) runs that were added up
    test_set: str = ""  # names the images of a test part
    answers: list[tuple[Path, np.ndarray]] = field(default_factory=list)  # right, of the test part

    def found(self) -> "Suspects":
        """The images whose label is suspected, the least credible label first."""
        numbers = np.flatnonzero(self.counts)
        shares = self.sums[numbers] / self.counts[numbers, None]
        labels = self.labels[numbers]
        mask, guesses = confident(shares, labels)
        given = shares[np.arange(len(labels)), labels]
        order = np.flatnonzero(mask)
        order = order[np.argsort(given[order], kind="stable")]
        guessed = guesses[order]
        return Suspects(
            self, numbers[order], labels[order], guessed, given[order], shares[order, guessed]
        )


@dataclass(frozen=True)
class Suspects:
    """Suspected labels; the arrays are of one length."""

    pool: Pool
    numbers: np.ndarray  # of the images
    labels: np.ndarray  # that they have
    guesses: np.ndarray  # the classes that they seem to be of
    given: np.ndarray  # the probability of the label
    guessed: np.ndarray  # and of the other class

    def __len__(self) -> int:
        """How many."""
        return len(self.numbers)


@dataclass(frozen=True)
class SuspectedTest:
    """The suspected labels of one test set."""

    data_sha256: Text
    test_set: Text  # as `fmbench.records.predictions.name_of_test_set` names it
    runs: Count  # whose probabilities decided
    suspects: Annotated[tuple[Count, ...], Meta(max_length=10**6)]  # places of the test images


@dataclass(frozen=True)
class SuspectedTests:
    """`suspects.json`, schema 1: what a report reads of `fmbench suspects`."""

    tests: Annotated[tuple[SuspectedTest, ...], Meta(max_length=10**4)]

    def to_json(self) -> str:
        """The text of `suspects.json`.

        Raises:
            ValueError: `from_json` would refuse it.
        """
        return encode(self, _DECODER, schema=SCHEMA)

    @classmethod
    def from_json(cls, text: bytes | str) -> "SuspectedTests":
        """What `to_json` gave.

        Raises:
            UnreadableError: it is none, or of another schema, or a value is out of its bounds.
        """
        return decode(_DECODER, text, oldest=SCHEMA, newest=SCHEMA)


_DECODER = Decoder(SuspectedTests)


def suspected_tests(found: Iterable[Suspects]) -> SuspectedTests:
    """The test sets among what was found."""
    return SuspectedTests(
        tuple(
            SuspectedTest(
                one.pool.record.data["sha256"] or "",
                one.pool.test_set,
                int(one.pool.counts.max()),
                tuple(sorted(one.numbers.tolist())),
            )
            for one in found
            if one.pool.part == "test"
        )
    )


def confident(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which labels the probabilities contradict with confidence (section 3.1 of the paper).

    The threshold of a class is the mean probability of that class over the images labelled so. An
    image counts for the most probable of the classes at or above their thresholds; where that is
    another class than its label, the label is suspected, unless the label is the most probable
    class of all.

    Args:
        probabilities: (N, classes), out of sample.
        labels: (N,) from 0.

    Returns:
        (N,) bool, and (N,) the classes that the images count for, -1 where there is none.
    """
    classes = probabilities.shape[1]
    images = np.bincount(labels, minlength=classes)
    given = probabilities[np.arange(len(labels)), labels]
    with np.errstate(invalid="ignore"):
        thresholds = np.bincount(labels, weights=given, minlength=classes) / images
    # Nobody is confidently of a class that no image is labelled with.
    thresholds = np.where(images > 0, thresholds, np.inf)
    counts = np.where(probabilities >= thresholds - _ROUNDING, probabilities, -1.0)
    guesses = np.where(counts.max(axis=1) >= 0, counts.argmax(axis=1), -1)
    mask = (guesses >= 0) & (guesses != labels) & (probabilities.argmax(axis=1) != labels)
    return mask, guesses


def pools(runs: Iterable[tuple[Path, Record]]) -> list[Pool]:
    """The out-of-sample probabilities below some folders, by data set and part.

    Files that do not fit their record are left out, and so are runs behind the first `MOST_RUNS`.
    Of folds that test (`data.split.role=test`) the files do not say which images they are.
    """
    found: dict[tuple[object, ...], Pool] = {}
    left = MOST_RUNS
    for folder, record in runs:
        if record.status != COMPLETED or record.data["sha256"] is None or not left:
            continue
        left -= 1
        _add_held_out(found, folder, record)
        if record.split["validation"] or "folds" not in record.split:
            _add_test(found, folder, record)
    return list(found.values())


def _add_held_out(found: dict[tuple[object, ...], Pool], folder: Path, record: Record) -> None:
    answers, shares = read_held_out(folder), read_probabilities(folder, "validation")
    if answers is None or shares is None or len(answers) != len(shares) or not len(answers):
        return
    numbers, labels = (answers[name].astype(np.int64) for name in ("image", "label"))
    size, classes = int(numbers.max()) + 1, shares.shape[1]
    twice = len(np.unique(numbers)) != len(numbers)
    if twice or labels.max() >= classes or size * classes > MOST_NUMBERS:
        return
    pool = _pool(found, ("train", record.data["sha256"], "", classes), record, size)
    known = pool.labels[numbers]
    if ((known >= 0) & (known != labels)).any():  # of a file that somebody has changed
        return
    pool.labels[numbers] = labels
    pool.sums[numbers] += shares
    pool.counts[numbers] += 1


def _add_test(found: dict[tuple[object, ...], Pool], folder: Path, record: Record) -> None:
    labels, shares, predicted = (
        read(folder) for read in (read_labels, read_probabilities, read_predictions)
    )
    if labels is None or shares is None or predicted is None:
        return
    if not 0 < len(labels) == len(shares) == len(predicted) == record.split["test"]:
        return
    classes = shares.shape[1]
    if labels.max() >= classes:
        return
    sha256 = record.data["sha256"] or ""
    test_set = name_of_test_set(sha256, labels, record.data.get("tested"))
    key = ("test", sha256, test_set, classes)
    pool = _pool(found, key, record, len(labels))
    pool.labels[:] = labels
    pool.sums += shares
    pool.counts += 1
    pool.answers.append((folder, predicted == labels))


def _pool(
    found: dict[tuple[object, ...], Pool],
    key: tuple[Any, ...],
    record: Record,
    size: int,
) -> Pool:
    """The pool of part, data, test set and classes, made or made larger for so many images."""
    classes = key[-1]
    if key not in found:
        nothing = np.full(0, -1), np.zeros((0, classes)), np.zeros(0, np.int64)
        found[key] = Pool(key[0], record, *nothing, test_set=key[2])
    pool = found[key]
    more = max(0, size - len(pool.labels))
    if more:
        pool.labels = np.concatenate([pool.labels, np.full(more, -1)])
        pool.sums = np.concatenate([pool.sums, np.zeros((more, classes))])
        pool.counts = np.concatenate([pool.counts, np.zeros(more, np.int64)])
    return pool
