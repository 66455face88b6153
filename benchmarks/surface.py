"""Validation accuracies of LeNet over learning rate, batch size and weight decay, as a file.

    python -m benchmarks.surface benchmarks/surface_lenet.csv

Each point of a grid is a run of fmbench's own, of 3 epochs on 5,000 images of Fashion-MNIST, one
thread, with 6,000 images held out: `overrides` has all of it. The file has a line for each, in
which a run that diverged has no accuracy; `seconds` is its training clock. Points are taken in a
random order, so that a part of the file is spread over all of the grid, and those that the file has
are not computed again. A search on what lies between the points (`Surface`) costs no training.
"""

import argparse
import csv
import math
import random
import tempfile
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import fmbench

#: Geometric in learning rate and weight decay, so that it interpolates in their logarithms.
LEARNING_RATES = tuple(float(f"{value:.4g}") for value in np.geomspace(1e-3, 0.5, 12))
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
WEIGHT_DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

COLUMNS = ("lr", "batch_size", "weight_decay", "validation_accuracy", "seed", "seconds")


class Point(NamedTuple):
    """What is known of a place: no accuracy where a run diverges; seconds of training."""

    accuracy: float | None
    seconds: float


def overrides(lr: float, batch_size: int, weight_decay: float, seed: int) -> list[str]:
    """The run of a point, as it is typed."""
    return [
        *("model=lenet", "data.split=holdout", "data.limit=5000", "epochs=3", "threads=1"),
        *("precision=fp32", "evaluation.test=never", f"batch_size={batch_size}", f"seed={seed}"),
        *(f"optimizer.lr={lr}", f"optimizer.weight_decay={weight_decay}"),
    ]


def compute(path: Path, seed: int) -> None:
    """Run what the file does not have yet, and add a line for each."""
    grid = list(product(LEARNING_RATES, BATCH_SIZES, WEIGHT_DECAYS))
    random.Random(0).shuffle(grid)
    there = path.is_file()
    frame = pd.read_csv(path) if there else pd.DataFrame(columns=COLUMNS)
    done = set(frame[frame["seed"] == seed][list(COLUMNS[:3])].itertuples(index=False, name=None))
    with path.open("a", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        if not there:
            lines.writerow(COLUMNS)
        for number, point in enumerate(grid, 1):
            if point in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                record = fmbench.run([*overrides(*point, seed), f"hydra.run.dir={folder}/run"])
            reached = record.validation_accuracy if record.status == "completed" else None
            accuracy = "" if reached is None else f"{reached:.6f}"
            lines.writerow([*point, accuracy, seed, f"{record.seconds['train']:.3f}"])
            file.flush()
            print(f"{number} of {len(grid)}: {point} {accuracy or 'diverged'}", flush=True)


class Surface:
    """What a file of points says of any place within their grid.

    Linear in the logarithms of learning rate and weight decay; batch sizes are those of the grid.
    A place beside a point that diverged has diverged. The seconds of a place are the median of its
    batch size: those of one run tell what else the machine was doing then.

    Raises:
        ValueError: a point of the grid is missing.
    """

    def __init__(self, path: Path) -> None:
        frame = pd.read_csv(path)
        mean = frame.groupby(list(COLUMNS[:3]))["validation_accuracy"].mean(skipna=False)
        self.rates, self.sizes, self.decays = axes = [sorted(level) for level in mean.index.levels]
        if len(mean) != math.prod(map(len, axes)):
            raise ValueError(f"{path}: {len(mean)} points are no whole grid")
        self.accuracy = mean.to_numpy().reshape(*map(len, axes))
        ended = frame[frame["validation_accuracy"].notna()]
        self.seconds = dict(ended.groupby("batch_size")["seconds"].median())

    @property
    def best(self) -> float:
        """The highest accuracy of all points, which no place between them exceeds."""
        return float(np.nanmax(self.accuracy))

    def at(self, lr: float, batch_size: int, weight_decay: float) -> Point:
        """A place, by a learning rate and a weight decay within the grid's."""
        size = self.sizes.index(batch_size)
        weights = np.outer(_weights(self.rates, lr), _weights(self.decays, weight_decay))
        used = weights > 0
        found = (weights[used] * self.accuracy[:, size][used]).sum()
        accuracy = None if math.isnan(found) else float(found)
        return Point(accuracy, float(self.seconds[batch_size]))


def _weights(values: list[float], place: float) -> np.ndarray:
    """How much each of some rising values counts at a place between two of them."""
    one = np.eye(len(values))
    return np.array([np.interp(np.log(place), np.log(values), row) for row in one])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the runs; default: %(default)s")
    options = parser.parse_args()
    compute(options.file, options.seed)
