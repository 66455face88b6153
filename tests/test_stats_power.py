"""P(A > B), power and the two parts of a spread: by hand, and against drawn runs of known truth."""

import numpy as np
import pytest
from scipy import stats as reference

from fmbench.stats import (
    Outperforming,
    Sample,
    difference,
    half_width,
    outperforms,
    power,
    ranks,
    ranks_and_power,
    split_spread,
)


def row(mean, spread, *, images=10_000):
    """A row of three seeds, without their answers."""
    return Sample(mean + spread * np.array([-1.0, 0.0, 1.0]), images)


# P(A > B)


def test_p_of_a_better_run_is_the_statistic_of_mann_and_whitney():
    a, b = [0.9, 0.92, 0.91, 0.92], [0.9, 0.91, 0.89]
    found = outperforms(a, b)
    statistic = reference.mannwhitneyu(a, b).statistic
    assert found.share == pytest.approx(statistic / 12)
    assert found.low < found.share < found.high
    other = outperforms(b, a)
    assert other == pytest.approx(Outperforming(*(1 - x for x in (found[0], found[2], found[1]))))
    assert outperforms(a, b[:1]) is None


def test_all_runs_ahead_is_not_certain_and_more_runs_say_more():
    lows = [outperforms([1.0] * n, [0.0] * n).low for n in (2, 3, 5, 10)]
    assert lows == sorted(lows)
    assert lows[0] < 0.5 < lows[2]
    assert outperforms([1.0] * 3, [0.0] * 3).high == pytest.approx(1)
    # The ends solve |seen - true| = 1.96 standard errors of the true one (Newcombe 2006, method 5).
    low = lows[1]
    variance = low * (1 - low) * (1 + 2 * ((1 - low) / (2 - low) + low / (1 + low))) / 9
    assert 1 - low == pytest.approx(1.959964 * variance**0.5, rel=1e-6)


@pytest.mark.parametrize("spreads", [(1, 1), (1, 5)])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_holds_p_of_a_better_run(n, spreads):
    rng, tables = np.random.default_rng(0), 300
    ahead = np.hypot(*spreads) * reference.norm.ppf(0.7)
    held = 0
    for _ in range(tables):
        found = outperforms(rng.normal(ahead, spreads[0], n), rng.normal(0, spreads[1], n))
        held += found.low <= 0.7 <= found.high
    assert held / tables > 0.9


# The two parts of a spread


def answers(rng, accuracies, images):
    """(n, N) independent answers of runs with these accuracies on endlessly many images."""
    return rng.random((len(accuracies), images)) < np.asarray(accuracies)[:, None]


def test_the_spread_of_equally_good_runs_is_the_test_sets():
    rng = np.random.default_rng(1)
    found = [split_spread(answers(rng, [0.9] * 5, 1000)) for _ in range(200)]
    runs, images = (np.mean(np.square(part)) for part in zip(*found, strict=True))
    assert images == pytest.approx(0.9 * 0.1 / 1000, rel=0.1)
    assert runs < 0.4 * images  # below 0 counts as 0, so that the mean is above 0


def test_the_spread_of_unequal_runs_is_found_beside_that_of_the_test_set():
    rng = np.random.default_rng(2)
    found = [split_spread(answers(rng, 0.9 + 0.02 * rng.normal(size=5), 1000)) for _ in range(300)]
    assert np.mean([one.runs**2 for one in found]) == pytest.approx(0.02**2, rel=0.15)


def test_the_parts_are_those_of_the_formula_and_add_up():
    correct = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
    found = split_spread(correct)
    total = correct.mean(axis=1).var(ddof=1)
    # The mean covariance of two different images over the runs.
    table = np.cov(correct.T.astype(float))
    assert found.runs**2 == pytest.approx((table.sum() - np.trace(table)) / 12)
    assert found.runs**2 + found.images**2 == pytest.approx(total)
    assert split_spread(correct[:1]) is None
    assert split_spread(np.ones((3, 5), dtype=bool)) == (0, 0)


# Power


@pytest.mark.parametrize(("n", "spreads"), [(2, (0.2, 0.2)), (3, (0.05, 1.0)), (5, (0.2, 0.2))])
def test_the_smallest_difference_is_shown_in_80_of_100_cases(n, spreads):
    rng, tables, images = np.random.default_rng(3), 4000, 10**9
    offsets = np.linspace(-1, 1, n) / np.linspace(-1, 1, n).std(ddof=1)
    a, b = (Sample(0.5 + s * offsets / 100, images) for s in spreads)
    ahead = power(a, b).smallest
    variances = [s**2 / 1e4 / n for s in spreads]
    seen = ahead + sum(variances) ** 0.5 * rng.normal(size=tables)
    own = [v * rng.chisquare(n - 1, tables) / (n - 1) for v in variances]
    half = half_width(np.stack([np.zeros(tables), *own]), np.full((3, 1), n - 1.0), 0.05)
    assert np.mean(seen > half) == pytest.approx(0.8, abs=0.02)


def test_more_seeds_settle_what_the_test_set_lets_them():
    clear = power(row(0.95, 0.001), row(0.90, 0.001))
    assert clear.more_seeds == 0
    seen = power(row(0.906, 0.002), row(0.902, 0.002, images=10**8))
    close = power(row(0.906, 0.002, images=10**8), row(0.902, 0.002, images=10**8))
    assert 1 <= close.more_seeds < 20
    assert seen.more_seeds is None  # two tests of 10,000 images each hardly tell 0.4 points
    # With so many more seeds a pair as far apart is told, and power is 80 %.
    n = 3 + close.more_seeds
    offsets = np.linspace(-1, 1, n)
    offsets *= 0.002 / offsets.std(ddof=1)
    later = power(*(Sample(mean + offsets, 10**8) for mean in (0.906, 0.902)))
    assert later.smallest == pytest.approx(0.004, abs=0.0004)
    assert power(row(0.9, 0.001), Sample(np.array([0.8]), 100)) is None


def test_seeds_shrink_what_they_add_to_the_images():
    """Of answers that are guesses nothing lasts: a difference of them is settled by more seeds."""
    rng = np.random.default_rng(4)
    rows = []
    for accuracy in (0.9, 0.91):
        correct = answers(rng, [accuracy] * 3, 2000)
        rows.append(Sample(correct.mean(axis=1), 2000, "same", correct.mean(axis=0)))
    assert difference(*rows).p > 0.05
    alone = [Sample(one.accuracies, one.images) for one in rows]
    paired, unpaired = power(*rows).more_seeds, power(*alone).more_seeds
    assert paired is not None
    assert unpaired is None


def test_a_table_of_more_rows_shows_less():
    rows = [row(0.92, 0.002), row(0.91, 0.001), row(0.905, 0.001)]
    two, three = ranks_and_power(rows[:2])[1], ranks_and_power(rows)[1]
    assert two[0] is None
    assert three[0] is None
    assert two[1] == pytest.approx(power(*rows[:2]).smallest)
    assert three[1] > two[1]
    assert ranks_and_power([rows[0]]) == ([1], [None])
    # As they are told where they lie so far apart and are not noisier than they were.
    far = [row(0.92, 0.002), row(0.92 - 1.5 * three[1], 0.001), rows[2]]
    assert ranks(far)[1] > 1
