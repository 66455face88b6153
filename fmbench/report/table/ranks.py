"""The ranks of the table's rows, from the predictions of their runs."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fmbench.records.predictions import read_labels, read_predictions
from fmbench.report.table.formats import Row
from fmbench.stats import Sample, ranks

# Every row is tested against every other. Those behind the first 500 are far from the front.
MOST_RANKED = 500

# Test images of those rows: ranking more rows of more images takes minutes.
MOST_IMAGES = MOST_RANKED * 10_000

# Predictions that are read for one table.
MOST_PREDICTIONS = 2**28


def ranked(rows: Sequence[Row]) -> list[int | None]:
    """Rank the rows within each test set: 1, and one more for each row that is better beyond doubt.

    Rows of several seeds are ranked among themselves. Where a test set has not two of them, the
    rows of one seed are, as trained models. See `fmbench.stats.ranks`.

    Returns:
        A rank each; None for a row that no other is compared with, or whose test set is not known,
        and for those behind the first `MOST_RANKED` of a test set, or behind fewer where it has
        more than 10,000 images.
    """
    left = MOST_PREDICTIONS
    placed: list[int | None] = [None] * len(rows)
    groups: dict[Any, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row["split_test"] and row["data_sha256"]:
            groups[row["data"], row["data_sha256"], row["split_test"]].append(place)
    for (_, _, images), places in groups.items():
        several = [place for place in places if len(rows[place]["accuracies"]) > 1]
        compared = several if len(several) > 1 else sorted({*places} - {*several})
        if len(compared) < 2:
            continue
        first = sorted(compared, key=lambda place: -rows[place]["test_accuracy"])
        first = first[: max(2, min(MOST_RANKED, MOST_IMAGES // images))]
        samples = []
        for place in first:
            samples.append(found := sample(rows[place], evidence(rows[place], left)))
            left -= 0 if found.correct is None else len(found.accuracies) * images
        for place, rank in zip(first, ranks(samples), strict=True):
            placed[place] = rank
    return placed


@dataclass(frozen=True)
class Evidence:
    """What the runs of a row predicted, image by image.

    Attributes:
        labels: (N,) the right classes.
        predicted: (n, N) the classes that each run predicted, in the order of `seeds`.
        seeds: Of the runs.
        test_set: Names the test images and their order.
    """

    labels: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    seeds: tuple[int | None, ...]
    test_set: str

    @cached_property
    def correct(self) -> np.ndarray:
        """(n, N) whether each prediction is right."""
        right: np.ndarray = self.predicted == self.labels
        return right

    def of_class(self, number: int) -> Sample:
        """The test images of one class."""
        return _sample(self.correct[:, self.labels == number], f"{self.test_set} {number}")


def evidence(row: Row, most: int = MOST_PREDICTIONS) -> Evidence | None:
    """The predictions of a row's runs; None unless all kept them, and they are what they record.

    Of a row that has more than `most` predictions over all runs nothing is read.
    """
    images = row["split_test"] or 0
    if not 0 < len(row["folders"]) * images <= most:
        return None
    labels: np.ndarray | None = None
    all_predicted = np.empty((len(row["folders"]), images), dtype=np.uint8)
    runs = zip(row["folders"], row["accuracies"], strict=True)
    for place, (folder, accuracy) in enumerate(runs):
        right, predicted = read_labels(folder), read_predictions(folder)
        if right is None or predicted is None or not len(right) == len(predicted) == images:
            return None
        if labels is not None and not np.array_equal(labels, right):
            return None
        labels = right
        all_predicted[place] = predicted
        # Files of another run or evaluation are not used.
        if abs(np.mean(right == predicted) - accuracy) > 0.5 / images:
            return None
    assert labels is not None
    test_set = f"{row['data_sha256']} {hashlib.sha256(labels.tobytes()).hexdigest()}"
    return Evidence(labels, all_predicted, row["run_seeds"], test_set)


def sample(row: Row, found: Evidence | None) -> Sample:
    """A row's accuracies, with what is right image by image where that is known."""
    if found is None:
        return Sample(np.array(row["accuracies"], dtype=float), int(row["split_test"]))
    return _sample(found.correct, found.test_set)


def _sample(correct: np.ndarray, test_set: str) -> Sample:
    accuracies = correct.mean(axis=1)
    # As float32: 500 rows of 40,000 images are 80 MB.
    return Sample(accuracies, correct.shape[1], test_set, correct.mean(axis=0, dtype=np.float32))
