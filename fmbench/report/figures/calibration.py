"""How sure models were and how right: the reliability diagram and the risk-coverage curve."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fmbench.records.predictions import read_labels, read_predictions, read_probabilities
from fmbench.records.scores import BINS, selective_risks
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.figures.curves import best_of_each
from fmbench.report.table.columns import Row

MOST_ROWS = 6
#: Points of a risk-coverage curve.
POINTS = 200
#: Images of a bin; of fewer the accuracy is chance.
LEAST_IMAGES = 10


class Answers(NamedTuple):
    """How sure the runs of a row were, and whether they were right."""

    row: Row
    confidences: list[np.ndarray]  # (N,) of each run
    right: list[np.ndarray]  # (N,) likewise


def answers(row: Row, budget: style.Budget) -> Answers | None:
    """The confidences of a row's runs that kept them; None where there are none."""
    found = Answers(row, [], [])
    for folder in row["folders"]:
        if budget.predictions <= 0:
            break
        labels, predicted = read_labels(folder), read_predictions(folder)
        probabilities = read_probabilities(folder)
        if labels is None or predicted is None or probabilities is None:
            continue
        budget.predictions -= probabilities.size
        if not len(labels) == len(predicted) == len(probabilities):
            continue
        if predicted.max() < probabilities.shape[1]:
            found.confidences.append(probabilities[np.arange(len(predicted)), predicted])
            found.right.append(predicted == labels)
    return found if found.right else None


def reliability(found: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Mean confidence and accuracy, of 15 bins of equal width, of those with enough images.

    All runs count together (Guo et al. 2017, "On Calibration of Modern Neural Networks", section
    2); a bin holds its upper edge, as in the ECE.
    """
    confidences, right = np.concatenate(found.confidences), np.concatenate(found.right)
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    enough = counts >= LEAST_IMAGES
    sums = (np.bincount(bins, weights=of, minlength=BINS) for of in (confidences, right))
    sure, correct = (total[enough] / counts[enough] for total in sums)
    return sure, correct


def risk_coverage(found: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the images, the most confident first, and the error rate on each; mean of the runs.

    Geifman, Uziel and El-Yaniv (2019), as in the AURC.
    """
    shares = np.arange(1, POINTS + 1) / POINTS
    curves = []
    for confidences, right in zip(found.confidences, found.right, strict=True):
        risks = selective_risks(confidences, right)
        curves.append(risks[np.maximum(np.ceil(shares * len(right)).astype(int), 1) - 1])
    return shares, np.mean(curves, axis=0)


def calibration(rows: Sequence[Row], data: str, name: str, budget: style.Budget) -> Figure | None:
    """Both for the best row of each model that kept its probabilities; None where none did."""
    kept: list[Answers] = []
    for row in best_of_each(rows)[: style.MOST_ASKED]:
        if (one := answers(row, budget)) is not None:
            kept.append(one)
        if len(kept) == MOST_ROWS:
            break
    if not kept:
        return None
    title = "Calibration on the test images, and risk by coverage"
    caption = (
        f"The best row of each model. Left: accuracy by confidence, in {BINS} bins of equal width,"
        f" of all seeds together, bins of less than {LEAST_IMAGES} answers left out; below the grey"
        " line a model is surer than it is right. Right: the error rate where only so many images,"
        " the most confident, are answered, mean of the seeds."
    )
    said = []
    with style.drawing(name, 3.9 + 0.25 * math.ceil(len(kept) / 2)) as figure:
        one, two = figure.subplots(1, 2)
        one.plot([0, 100], [0, 100], color=style.GREY, lw=1)
        for found, look in zip(kept, style.LOOKS, strict=False):
            sure, right = reliability(found)
            one.plot(
                100 * sure, 100 * right, lw=1.6, ms=5, color=look["color"], marker=look["marker"]
            )
            shares, risks = risk_coverage(found)
            two.plot(100 * shares, 100 * risks, lw=1.8, color=look["color"])
            at = round(0.9 * POINTS) - 1
            said.append(
                f"{style.model_of(found.row)} errs on {100 * risks[-1]:.2f} % of all images, on"
                f" {100 * risks[at]:.2f} % of the 90 % that it is surest of"
            )
        one.set(title="Accuracy by confidence (%)", xlabel="confidence (%)")
        two.set(title="Error rate by coverage (%)", xlabel="images answered (%)", ylim=(0, None))
        entries = [
            style.entry(
                f"{style.model_of(found.row)}, n = {len(found.right)}",
                ls="-", color=look["color"], marker=look["marker"],
            )
            for found, look in zip(kept, style.LOOKS, strict=False)
        ]  # fmt: skip
        style.legend(figure, entries)
        alt = f"{title}. {'; '.join(said)}."
        return style.saved(figure, name, data, title, caption, alt)
