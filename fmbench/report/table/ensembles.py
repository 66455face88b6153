"""Ensembles: what the seeds of a row reach together, from the probabilities that they kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fmbench.records.predictions import read_labels, read_probabilities
from fmbench.records.scores import of_probabilities
from fmbench.report.table.columns import MODEL
from fmbench.report.table.formats import Row, count, loss, percent

#: Rows of a table that are looked at, the best first, and numbers that are read for all of them.
MOST_ROWS, MOST_NUMBERS = 20, 100_000_000

HEADING = "Ensembles: the mean of the probabilities of a row's seeds (one prediction, never ranked)"
HEADINGS = (
    *("#", "model", "seeds", "mean of the seeds (%)", "ensemble (%)"),
    *("mean NLL of the seeds", "NLL of the ensemble"),
)
RIGHT = (True, False, *[True] * 5)


def note(rows: Sequence[dict[str, Any]]) -> None:
    """Give the best rows, in place, what `ensemble` says."""
    left = MOST_NUMBERS
    several = [row for row in rows if row["n"] > 1 and row["test_accuracy"] is not None]
    several.sort(key=lambda row: -row["test_accuracy"])
    for row in several[:MOST_ROWS]:
        # Ten numbers an image at least: of most sets that is all.
        left -= 10 * row["n"] * (row["split_test"] or 0)
        if left >= 0 and not row["mixes"] and (found := ensemble(row)) is not None:
            row["ensemble"] = found


def ensemble(row: Row) -> dict[str, float] | None:
    """The test accuracy and NLL of the mean of the probabilities of a row's runs.

    This is a deep ensemble (Lakshminarayanan, Pritzel and Blundell 2017, "Simple and Scalable
    Predictive Uncertainty Estimation using Deep Ensembles", section 2.4): one model of n times the
    size. Runs that share their training images but for their seed, and test images; not folds.

    Returns:
        `seeds`, `accuracy`, `nll`, and `mean_accuracy` and `mean_nll` of the runs alone; None
        unless all runs kept the probabilities of the same test images.
    """
    total, known = None, None
    accuracies, losses = [], []
    for folder in row["folders"]:
        labels, probabilities = read_labels(folder), read_probabilities(folder)
        if labels is None or probabilities is None or len(labels) != len(probabilities):
            return None
        known = labels if known is None else known
        if not np.array_equal(known, labels) or labels.max() >= probabilities.shape[1]:
            return None
        if total is not None and total.shape != probabilities.shape:
            return None
        accuracies.append(float(np.mean(probabilities.argmax(axis=1) == labels)))
        losses.append(of_probabilities(probabilities, labels)["nll"])
        total = probabilities.astype(np.float64) if total is None else total + probabilities
    if total is None or known is None or row["folds"]:
        return None
    mean = total / len(accuracies)
    return {
        "seeds": len(accuracies),
        "mean_accuracy": float(np.mean(accuracies)),
        "accuracy": float(np.mean(mean.argmax(axis=1) == known)),
        "mean_nll": float(np.mean(losses)),
        "nll": of_probabilities(mean, known)["nll"],
    }


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The cells below `HEADINGS` of the rows that have an ensemble."""
    return [
        (
            *(count(row["number"]), MODEL.cell(row), count(found["seeds"])),
            *(percent(found["mean_accuracy"]), percent(found["accuracy"])),
            *(loss(found["mean_nll"]), loss(found["nll"])),
        )
        for row in rows
        if (found := row.get("ensemble"))
    ]
