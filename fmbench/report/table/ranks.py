"""The ranks of the table's rows, from the predictions of their runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fmbench.records.predictions import name_of_test_set, read_labels, read_predictions
from fmbench.report.table.formats import Row
from fmbench.report.table.rows import FOLDS, about_data
from fmbench.stats import (
    Folds,
    Sample,
    ranks_and_power,
    ranks_of_folds,
    split_spread,
)

# Every row is tested against every other. Those behind the first 500 are far from the front.
MOST_RANKED = 500

# Test images of those rows: ranking more rows of more images takes minutes.
MOST_IMAGES = MOST_RANKED * 10_000

# Predictions that are read for one table.
MOST_PREDICTIONS = 2**28


def ranked(rows: Sequence[dict[str, Any]]) -> list[int | None]:
    """Rank the rows within each test set: 1, and one more for each row that is better beyond doubt.

    Rows of several seeds are ranked among themselves. Where a test set has not two of them, the
    rows of one seed are, as trained models. See `fmbench.stats.ranks`. Rows over folds are ranked
    among those on the very same folds.

    Rows get, in place, what else their predictions say: `spread_runs` and `spread_images`, the two
    parts of the standard deviation over their seeds (`fmbench.stats.split_spread`), and
    `smallest_shown`, how far behind the best row the table could have shown them to be
    (`fmbench.stats.ranks_and_power`).

    None for a row that no other is compared with, or whose test set is not known, and for those
    behind the first `MOST_RANKED` of a test set, or behind fewer where it has many images.
    """
    left = MOST_PREDICTIONS
    placed: list[int | None] = [None] * len(rows)
    groups: dict[Any, list[int]] = defaultdict(list)
    of_folds: dict[Any, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row["split"] == FOLDS:
            if (same := same_folds(row)) is not None:
                of_folds[same].append(place)
        elif row["split_test"] and row["data_sha256"]:
            groups[row["data"], row["data_sha256"], row["split_test"]].append(place)
    for (_, _, images), places in groups.items():
        several = [place for place in places if len(rows[place]["accuracies"]) > 1]
        compared = several if len(several) > 1 else sorted({*places} - {*several})
        first = sorted(compared, key=lambda place: -rows[place]["test_accuracy"])
        first = first[: max(2, min(MOST_RANKED, MOST_IMAGES // images))]
        samples = []
        first = first if len(first) > 1 else []
        # A row of several seeds that is compared with none has the parts of its spread too.
        for place in [*first, *({*several} - {*compared})]:
            known = evidence(rows[place], left)
            samples.append(sample(rows[place], known))
            if known is not None:
                left -= known.correct.size
                if spread := split_spread(known.correct):
                    rows[place]["spread_runs"], rows[place]["spread_images"] = spread
        found = ranks_and_power(samples[: len(first)])
        for place, rank, least in zip(first, *found, strict=True):
            placed[place], rows[place]["smallest_shown"] = rank, least
    for places in of_folds.values():
        if len(places) > 1:
            first = sorted(places, key=lambda place: -rows[place][rows[place]["held_out"]])
            first = first[:MOST_RANKED]
            over = ranks_of_folds([folds(rows[place]) for place in first])
            for place, rank in zip(first, over, strict=True):
                placed[place] = rank
    return placed


def same_folds(row: Row) -> tuple[Any, ...] | None:
    """What rows over the very same folds share; None where a row has not two folds to compare."""
    if len(row["fold_accuracies"] or ()) < 2 or not row["data_sha256"]:
        return None
    return row["data"], row["data_sha256"], row["split_hash"], row["folds"]


def folds(row: Row) -> Folds:
    """The accuracies of a row on the images that each of its folds held out."""
    held_out = row["split_validation"] or row["split_test"]
    accuracies = np.array(row["fold_accuracies"], dtype=float)
    return Folds(accuracies, int(held_out), held_out / row["split_train"])


@dataclass(frozen=True)
class Evidence:
    """Which predictions of a row's runs are right, image by image."""

    labels: np.ndarray = field(repr=False)  # (N,) the right classes
    correct: np.ndarray = field(repr=False)  # (n, N) whether each is right, in the order of `seeds`
    seeds: tuple[int, ...]
    test_set: str  # names the test images and their order

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
    known = None
    correct = np.empty((len(row["folders"]), images), dtype=bool)
    for place, (folder, accuracy) in enumerate(zip(row["folders"], row["accuracies"], strict=True)):
        labels, predicted = read_labels(folder), read_predictions(folder)
        if labels is None or predicted is None or not len(labels) == len(predicted) == images:
            return None
        known = labels if known is None else known
        correct[place] = predicted == labels
        # Files of another run or evaluation are not used.
        if (
            not np.array_equal(known, labels)
            or abs(correct[place].mean() - accuracy) > 0.5 / images
        ):
            return None
    assert known is not None
    test_set = name_of_test_set(row["data_sha256"], known, about_data(row).get("tested"))
    return Evidence(known, correct, row["run_seeds"], test_set)


def sample(row: Row, found: Evidence | None) -> Sample:
    """A row's accuracies, with what is right image by image where that is known."""
    if found is None:
        return Sample(np.array(row["accuracies"], dtype=float), int(row["split_test"]))
    return _sample(found.correct, found.test_set)


def _sample(correct: np.ndarray, test_set: str) -> Sample:
    accuracies = correct.mean(axis=1)
    # As float32: 500 rows of 40,000 images are 80 MB.
    return Sample(accuracies, correct.shape[1], test_set, correct.mean(axis=0, dtype=np.float32))
