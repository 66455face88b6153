"""What the runs of a row left behind, as far as it can be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmbench.records.predictions import read_labels, read_predictions
from fmbench.records.reader import counted_history
from fmbench.report.table.columns import Row

# More cannot be read in a table as wide as a page.
MOST_CLASSES = 50

#: As many of a model's rows, the best first, are asked for their files: of thousands that have none
#: the others have none either.
MOST_ASKED = 50

#: Of a curve: more make a large SVG, and look the same.
MOST_POINTS = 250

History = Sequence[Mapping[str, float]]


@dataclass
class Budget:
    """How much is read for all figures of a report together.

    Runs of one row are added up, so that files of a megabyte that a stranger has linked into
    thousands of run folders would take hours and all memory.

    Attributes:
        epochs: Of histories.
        predictions: Of test images, one for each run that predicted it.
    """

    epochs: int = 300_000
    predictions: int = 2**28


@dataclass(frozen=True)
class Curve:
    """A value by epoch, over the seeds of a row.

    Attributes:
        epochs: Counted from 1; at most `MOST_POINTS`, spread evenly over the run.
        mean: Over the seeds.
        low: The least of the seeds.
        high: The greatest.
        seeds: How many.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def histories(row: Row, budget: Budget) -> list[History]:
    """The histories of a row's runs that have one, as far as the budget goes."""
    found: list[History] = []
    for folder in row["folders"]:
        if budget.epochs > 0:
            history, lines = counted_history(folder)
            budget.epochs -= lines
            found += [history] if history else []
    return found


def curve(runs: Sequence[History], key: str) -> Curve | None:
    """The curve of one of a history's values; None where fewer than two epochs have it.

    A seed that was evaluated less than half as often as another is left out; what is drawn are the
    epochs that all others have, so that a mean is one of the same seeds everywhere.

    Args:
        runs: Histories of the seeds.
        key: Of the value: `train_loss`, say.
    """
    known = [
        {int(line["epoch"]): line[key] for line in run if key in line and _sane(line.get("epoch"))}
        for run in runs
    ]
    most = max(map(len, known), default=0)
    known = [values for values in known if 2 * len(values) > most]
    shared = sorted(set.intersection(*map(set, known))) if known else []
    if len(shared) < 2:
        return None
    chosen = np.linspace(0, len(shared) - 1, min(len(shared), MOST_POINTS)).astype(int)
    table = np.array([[values[shared[place]] for place in chosen] for values in known])
    epochs = np.array(shared)[chosen] + 1
    return Curve(epochs, table.mean(0), table.min(0), table.max(0), len(known))


def confusion(row: Row, budget: Budget) -> tuple[np.ndarray, int] | None:
    """The confusion matrix of a row, summed over its seeds, and how many those are.

    Returns:
        Counts (classes, classes) by true and predicted class; None where no seed has both its
        predictions and their labels, or the budget is spent.
    """
    total: np.ndarray | None = None
    seeds = 0
    for folder in row["folders"]:
        if budget.predictions <= 0:
            break
        predicted, labels = read_predictions(folder), read_labels(folder)
        budget.predictions -= max(len(one) for one in (predicted, labels, ()) if one is not None)
        if predicted is None or labels is None or len(predicted) != len(labels) or not len(labels):
            continue
        classes = max(int(predicted.max()), int(labels.max())) + 1
        if classes > MOST_CLASSES:
            continue
        size = max(classes, 2, 0 if total is None else len(total))
        places = labels.astype(np.int64) * size + predicted
        counts = np.bincount(places, minlength=size * size).reshape(size, size)
        if total is not None:
            counts[: len(total), : len(total)] += total
        total, seeds = counts, seeds + 1
    return None if total is None else (total, seeds)


def interval(row: Row) -> tuple[float, float] | None:
    """The 95 % interval of a row's test accuracy, in percent; None where it has one seed."""
    low, high = row.get("test_accuracy_low"), row.get("test_accuracy_high")
    return None if low is None or high is None else (100 * low, 100 * high)


def _sane(epoch: float | None) -> bool:
    return epoch is not None and 0 <= epoch < 1e9
