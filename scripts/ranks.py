"""How often a table of equally good rows has a false rank, and what difference a rank asks for.

    python scripts/ranks.py

Tables are drawn whose rows do not differ. The standard deviations over the seeds, in points, are
equal, of two sizes (0.05 and 1), of one noisy row, or all from 0.01 to 1; the images add nothing,
little or much. A table is false where any two of its rows have different ranks. Beside
`fmbench.stats.half_width` stand what it was chosen over: Welch's test, and the moderated t of Smyth
(2004, "Linear models and empirical Bayes methods for assessing differential expression"), all
corrected by Bonferroni, which is the first step of Holm.
"""

import sys
from collections.abc import Callable

import numpy as np
from scipy import special

from fmbench.report.render.terminal import aligned
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

# (tables, rows) variances over the seeds, their degrees of freedom, n, variance of a row over the
# images, level of a pair: (tables, pairs) half widths.
Rule = Callable[[np.ndarray, int, int, float, float], np.ndarray]


def main() -> None:
    """Print both tables."""
    rules: dict[str, Rule] = {"fmbench": banerjee, "Welch": welch, "Smyth": smyth}
    lines = [["seeds", "spreads", *rules]]
    for n in SEEDS:
        for name in SPREADS:
            worst = [max(_shares(rule, n, name)) for rule in rules.values()]
            lines.append([str(n), name, *(f"{100 * share:.1f}" for share in worst)])
    sys.stdout.write(
        f"False tables (%), the most of {len(ROWS) * len(IMAGES)} settings ({ROWS} rows), "
        f"{TABLES:,} tables each\n"
    )
    sys.stdout.writelines(f"{line}\n" for line in aligned(lines, [True, False, *[True] * 3]))
    lines = [["rows", *(f"{n} seeds" for n in SEEDS)]]
    lines += [[str(rows), *(f"{_asked(rows, n):.2f}" for n in SEEDS)] for rows in ROWS]
    sys.stdout.write(
        "\nDifference (points) that a row must be ahead of all others by, to be told from one in "
        "half of all tables:\nspread over the seeds 0.2, of the images 0.1 a row\n"
    )
    sys.stdout.writelines(f"{line}\n" for line in aligned(lines, [True] * 5))


def banerjee(own: np.ndarray, n: int, rows: int, images: float, level: float) -> np.ndarray:
    """As ranks are made."""
    first, second = np.triu_indices(rows, 1)
    over_images = np.full((len(own), len(first)), 2 * images)
    variances = np.stack([over_images, own[:, first] / n, own[:, second] / n])
    freedom = np.array([1e9, n - 1, n - 1])[:, None, None]
    return half_width(variances, freedom, level)


def welch(
    own: np.ndarray,
    n: int,
    rows: int,
    images: float,
    level: float,
    *,
    freedom: np.ndarray | None = None,
) -> np.ndarray:
    """By the degrees of freedom of Welch and Satterthwaite."""
    first, second = np.triu_indices(rows, 1)
    each = np.full((len(own), 1), n - 1.0) if freedom is None else freedom
    variance = (own[:, first] + own[:, second]) / n + 2 * images
    parts = (own[:, first] ** 2 + own[:, second] ** 2) / n**2 / each
    return special.stdtrit(np.minimum(variance**2 / parts, 1e9), 1 - level / 2) * variance**0.5


def smyth(own: np.ndarray, n: int, rows: int, images: float, level: float) -> np.ndarray:
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
    return welch(drawn, n, rows, images, level, freedom=np.minimum(weight + k, rows * k))


def _shares(rule: Rule, n: int, spread: str) -> list[float]:
    return [
        _share(rule, n, rows, SPREADS[spread](rows), noise) for rows in ROWS for noise in IMAGES
    ]


def _share(rule: Rule, n: int, rows: int, spreads: np.ndarray, noise: float) -> float:
    rng = np.random.default_rng(0)
    means, own = _drawn(rng, n, spreads, noise)
    first, second = np.triu_indices(rows, 1)
    half = rule(own, n, rows, noise**2, LEVEL / len(first))
    return float(np.mean(np.any(np.abs(means[:, first] - means[:, second]) > half, axis=1)))


def _asked(rows: int, n: int) -> float:
    """The median over tables of what lies between the best row and the next when it is told."""
    rng = np.random.default_rng(1)
    means, own = _drawn(rng, n, np.full(rows, 0.2), 0.1)
    half = banerjee(own, n, rows, 0.1**2, LEVEL / (rows * (rows - 1) / 2))
    return float(np.median((half + means[:, 1:2] - means[:, :1])[:, 0]))


def _drawn(
    rng: np.random.Generator, n: int, spreads: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """(tables, rows) means, and variances over the seeds."""
    shape = TABLES, len(spreads)
    means = spreads / n**0.5 * rng.normal(size=shape) + noise * rng.normal(size=shape)
    return means, spreads**2 * rng.chisquare(n - 1, shape) / (n - 1)


if __name__ == "__main__":
    main()
