"""How often a table of equally good rows has a false rank, and what difference a rank asks for.

    python scripts/ranks.py

Tables are drawn whose rows do not differ. The standard deviations over the seeds, in points, are
equal, of two sizes (0.05 and 1), of one noisy row, or all from 0.01 to 1; the images add nothing,
little or much. A table is false where any two of its rows have different ranks. Beside
`fmbench.stats.half_width` stand what it was chosen over: Welch's test, and the moderated t of Smyth
(2004, "Linear models and empirical Bayes methods for assessing differential expression"), all
corrected by Bonferroni, which is the first step of Holm.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
from scipy import special

from fmbench.stats import half_width

TABLES, LEVEL = 2_000, 0.05
ROWS, SEEDS, IMAGES = (2, 5, 10, 30), (2, 3, 5, 10), (0.0, 0.03, 0.3)
SPREADS: dict[str, Callable[[int], np.ndarray]] = {
    "equal": np.ones,
    "two sizes": lambda rows: np.where(np.arange(rows) < rows // 2, 0.05, 1.0),
    "one noisy": lambda rows: np.where(np.arange(rows) < rows - 1, 0.05, 1.0),
    "one fivefold": lambda rows: np.where(np.arange(rows) < rows - 1, 0.2, 1.0),
    "all sizes": lambda rows: np.geomspace(0.01, 1, rows),
}

# Each rule takes (tables, rows) variances over the seeds, n, the variance of a row over the images
# and the level of a pair, and gives (tables, pairs) half widths.


def banerjee(own: np.ndarray, n: int, images: float, level: float) -> np.ndarray:
    """As ranks are made."""
    first, second = np.triu_indices(own.shape[1], 1)
    over_images = np.full((len(own), len(first)), 2 * images)
    variances = np.stack([over_images, own[:, first] / n, own[:, second] / n])
    freedom = np.array([1e9, n - 1, n - 1])[:, None, None]
    return half_width(variances, freedom, level)


def welch(
    own: np.ndarray, n: int, images: float, level: float, freedom: np.ndarray | None = None
) -> np.ndarray:
    """By the degrees of freedom of Welch and Satterthwaite."""
    first, second = np.triu_indices(own.shape[1], 1)
    each = n - 1.0 if freedom is None else freedom
    variance = (own[:, first] + own[:, second]) / n + 2 * images
    parts = (own[:, first] ** 2 + own[:, second] ** 2) / n**2 / each
    return special.stdtrit(np.minimum(variance**2 / parts, 1e9), 1 - level / 2) * variance**0.5


def smyth(own: np.ndarray, n: int, images: float, level: float) -> np.ndarray:
    """By variances drawn towards a common one, whose weight is estimated from all rows."""
    k = n - 1
    logs = np.log(own) - special.digamma(k / 2) + np.log(k / 2)
    over = np.maximum(logs.var(axis=1, ddof=1) - special.polygamma(1, k / 2), 1e-6)
    half = 0.5 + 1 / over  # half the prior's degrees of freedom: trigamma(half) = over
    for _ in range(50):
        now = special.polygamma(1, half)
        half = half + now * (1 - now / over) / special.polygamma(2, half)
    prior = np.exp(logs.mean(axis=1) + special.digamma(half) - np.log(half))[:, None]
    weight = 2 * half[:, None]
    drawn = (weight * prior + k * own) / (weight + k)
    return welch(drawn, n, images, level, np.minimum(weight + k, own.shape[1] * k))


RULES = {"fmbench": banerjee, "Welch": welch, "Smyth": smyth}


def share(rule: Callable[..., np.ndarray], n: int, spreads: np.ndarray, noise: float) -> float:
    """Of tables whose rows have these spreads over the seeds, how many are false."""
    means, own = drawn_tables(0, n, spreads, noise)
    first, second = np.triu_indices(len(spreads), 1)
    half = rule(own, n, noise**2, LEVEL / len(first))
    return float(np.mean(np.any(np.abs(means[:, first] - means[:, second]) > half, axis=1)))


def asked(rows: int, n: int) -> float:
    """The median over tables of what lies between the best row and the next when it is told."""
    means, own = drawn_tables(1, n, np.full(rows, 0.2), 0.1)
    half = banerjee(own, n, 0.1**2, LEVEL / (rows * (rows - 1) / 2))
    return float(np.median((half + means[:, 1:2] - means[:, :1])[:, 0]))


def drawn_tables(
    seed: int, n: int, spreads: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """(tables, rows) means, and variances over the seeds."""
    rng, shape = np.random.default_rng(seed), (TABLES, len(spreads))
    means = spreads / n**0.5 * rng.normal(size=shape) + noise * rng.normal(size=shape)
    return means, spreads**2 * rng.chisquare(n - 1, shape) / (n - 1)


def main() -> None:
    """Print both tables."""
    settings = [*product(ROWS, IMAGES)]
    print(f"False tables (%), the most of {len(settings)} settings, {TABLES:,} tables each")
    worst = {
        (n, name): {
            rule: max(100 * share(half, n, SPREADS[name](rows), noise) for rows, noise in settings)
            for rule, half in RULES.items()
        }
        for n, name in product(SEEDS, SPREADS)
    }
    table = pd.DataFrame.from_dict(worst, "index").rename_axis(["seeds", "spreads"])
    print(table.to_string(float_format="{:.1f}".format))
    print(
        "\nPoints that a row must be ahead of all others by, to be told from one in half of all "
        "tables:\nspread over the seeds 0.2, of the images 0.1 a row"
    )
    asks = {f"{n} seeds": [asked(rows, n) for rows in ROWS] for n in SEEDS}
    print(pd.DataFrame(asks, pd.Index(ROWS, name="rows")).to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
