"""How often a table over folds has a false rank, and what power its test gives up.

    python scripts/folds.py

Each table is cross-validation as it is done: images of two classes are drawn, divided into folds,
and each row's classifier is trained on all folds but one and tested on that one. A row is the
nearest class mean on pixels of its own, normal around -1 or 1 times a signal. Rows with the same
signal do not differ over the draw of the images; a table is false where any two of them have
different ranks. Beside `fmbench.stats.ranks_of_folds` stands the t-test that takes folds for
independent (ratio 0).
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from fmbench.stats import Folds, difference_of_folds, ranks_of_folds

TABLES, PIXELS, SIGNAL = 2_000, 30, 0.5
ROWS, FOLDS, IMAGES = (2, 5), (2, 3, 5, 10), (60, 200, 1_000)

#: What the better of two rows adds to the signal.
AHEAD = (0.1, 0.2, 0.3, 0.4)


def held_out(
    rng: np.random.Generator,
    signals: Sequence[float],
    folds: int,
    images: int,
    pixels: int = PIXELS,
) -> np.ndarray:
    """(rows, folds) accuracies on the images held out, of one draw of the images.

    Args:
        rng: Draws them.
        signals: Of each row, how far its classes lie from 0, in standard deviations of a pixel
            times the root of `pixels`.
        folds: How many.
        images: In all folds, half of either class; a multiple of twice the folds.
        pixels: Of each row.
    """
    sides = np.tile([-1.0, 1.0], images // 2)
    of = np.arange(images) // 2 % folds  # each fold has as many of either class
    signal = np.array(signals)[:, None, None] / pixels**0.5
    seen = rng.normal(size=(len(signals), images, pixels)) + sides[:, None] * signal
    sums = np.stack(
        [np.einsum("rip,i->rp", seen[:, of == f], sides[of == f]) for f in range(folds)]
    )
    means = sums.sum(axis=0) - sums  # of the folds that train, (folds, rows, pixels)
    right = np.einsum("rip,irp->ri", seen, means[of]) * sides > 0
    return np.stack([right[:, of == f].mean(axis=1) for f in range(folds)], axis=1)


def table(accuracies: np.ndarray, images: int, *, corrected: bool = True) -> list[Folds]:
    """The rows of a table of (rows, folds) accuracies, over that many images in all."""
    folds = accuracies.shape[1]
    ratio = 1 / (folds - 1) if corrected else 0.0
    return [Folds(row, images // folds, ratio) for row in accuracies]


def false(rows: int, folds: int, images: int, *, tables: int = TABLES) -> tuple[float, float]:
    """The share of tables of rows that do not differ with a false rank, corrected and not."""
    rng, found = np.random.default_rng(0), np.zeros(2)
    for _ in range(tables):
        drawn = held_out(rng, [SIGNAL] * rows, folds, images)
        both = (table(drawn, images, corrected=corrected) for corrected in (True, False))
        found += [max(ranks_of_folds(one)) > 1 for one in both]
    return float(found[0] / tables), float(found[1] / tables)


def found(ahead: float, folds: int, images: int, *, tables: int = TABLES) -> tuple[float, ...]:
    """How often the better of two rows is told from the other; and by how many points it is ahead.

    By the corrected test; by the other; by that with the level at which it is false as seldom as it
    promises, which only a simulation knows: what remains then is what the correction costs.
    """
    rng, p = np.random.default_rng(1), []
    for signals in ([SIGNAL] * 2, [SIGNAL + ahead, SIGNAL]):
        drawn = [held_out(rng, signals, folds, images) for _ in range(tables)]
        p.append(
            [
                [difference_of_folds(*table(one, images, corrected=c)).p for c in (True, False)]
                for one in drawn
            ]
        )
    points = float(np.mean([one[0].mean() - one[1].mean() for one in drawn]))
    (_, none), (corrected, naive) = (np.transpose(each) for each in p)
    level = np.quantile(none, 0.05)
    shares = (np.mean(each) for each in (corrected < 0.05, naive < 0.05, naive < level))
    return 100 * points, *(100 * float(share) for share in shares)


def main() -> None:
    """Print both tables."""
    print(f"Tables with a false rank (%), {TABLES:,} tables each, corrected and not")
    settings = [*product(ROWS, FOLDS)]
    columns = {}
    for images in IMAGES:
        pairs = [false(rows, folds, images // (2 * folds) * 2 * folds) for rows, folds in settings]
        columns[f"{images:,} images"] = [f"{100 * a:.1f}, {100 * b:.1f}" for a, b in pairs]
    print(pd.DataFrame(columns, pd.MultiIndex.from_tuples(settings, names=["rows", "folds"])))
    print("\nThe better of two rows is told (%), 1,000 images")
    keys = [*product(FOLDS[2:], AHEAD)]
    power = pd.DataFrame(
        [found(ahead, folds, 1_000) for folds, ahead in keys],
        pd.MultiIndex.from_tuples(keys, names=["folds", "signal"]),
        ["points ahead", "corrected", "not", "not, at its true level"],
    )
    print(power.to_string(float_format="{:.1f}".format))


if __name__ == "__main__":
    main()
