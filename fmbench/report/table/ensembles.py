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
        if left > 0 and not row["mixes"]:
            found, numbers = ensemble(row, left)
            left -= numbers
            if found is not None:
                row["ensemble"] = found


def ensemble(row: Row, most: int = MOST_NUMBERS) -> tuple[dict[str, float] | None, int]:
    """The test accuracy and NLL of the mean of the probabilities of a row's runs.

    This is a deep ensemble (Lakshminarayanan, Pritzel and Blundell 2017, "Simple and Scalable
    Predictive Uncertainty Estimation using Deep Ensembles", section 2.4): one model of n times the
    size. Runs that share their training images but for their seed, and test images; not folds.

    Args:
        row: Of the table.
        most: Numbers of probabilities that may be read over all runs.

    Returns:
        `seeds`, `accuracy`, `nll`, and `mean_accuracy` and `mean_nll` of the runs alone; None
        unless all runs kept the probabilities of the same test images, and they are what they
        record. And how many numbers were read.
    """
    total, known, read = None, None, 0
    losses = []
    if row["folds"]:
        return None, read
    for folder, accuracy in zip(row["folders"], row["accuracies"], strict=True):
        labels, probabilities = read_labels(folder), read_probabilities(folder)
        read += 0 if probabilities is None else probabilities.size
        if labels is None or probabilities is None or len(labels) != len(probabilities):
            return None, read
        known = labels if known is None else known
        if not np.array_equal(known, labels) or labels.max() >= probabilities.shape[1]:
            return None, read
        if total is not None and total.shape != probabilities.shape:
            return None, read
        if probabilities.size * len(row["folders"]) > most:
            return None, read
        if not _fits(probabilities, labels, accuracy):
            return None, read
        losses.append(of_probabilities(probabilities, labels)["nll"])
        total = probabilities.astype(np.float64) if total is None else total + probabilities
    if total is None or known is None:
        return None, read
    mean = total / len(losses)
    found = {
        "seeds": len(losses),
        "mean_accuracy": float(np.mean(row["accuracies"])),
        "accuracy": float(np.mean(mean.argmax(axis=1) == known)),
        "mean_nll": float(np.mean(losses)),
        "nll": of_probabilities(mean, known)["nll"],
    }
    return found, read


def _fits(probabilities: np.ndarray, labels: np.ndarray, accuracy: float) -> bool:
    """Whether stored probabilities can be those of a run with a recorded accuracy.

    Rounding keeps their order but makes ties, which the prediction may have broken either way.
    """
    images = np.arange(len(labels))
    of_label = probabilities[images, labels]
    reached = of_label == probabilities.max(axis=1)
    alone = reached & ((probabilities == of_label[:, None]).sum(axis=1) == 1)
    half = 0.5 / len(labels)
    return bool(alone.mean() - half <= accuracy <= reached.mean() + half)


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
