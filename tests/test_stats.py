"""Against scipy and statsmodels on fixed data, and against drawn models whose truth is known."""

import importlib

import numpy as np
import pytest
from commands import CHECKOUT
from scipy import stats as reference

from fmbench.stats import (
    MODELS,
    NEITHER,
    OVER_FOLDS,
    RECIPES,
    Folds,
    Sample,
    difference,
    difference_of_folds,
    half_width,
    holm,
    mcnemar,
    one_more,
    ranks,
    ranks_of_folds,
    t_half_width,
)

IMAGES = 10_000


def sample(correct, *, test_set="a"):
    """A row from (n, N) answers, right or wrong."""
    correct = np.atleast_2d(correct)
    return Sample(correct.mean(axis=1), correct.shape[1], test_set, correct.mean(axis=0))


def test_where_one_more_run_would_land():
    values = np.array([0.9, 0.903, 0.902, 0.9035])
    scale = values.std(ddof=1) * np.sqrt(1 + 1 / 4)
    expected = reference.t.interval(0.95, 3, loc=values.mean(), scale=scale)
    assert one_more(values) == pytest.approx(expected)
    assert one_more(values[:1]) is None


def test_one_more_run_lands_there_in_95_of_100_cases():
    drawn = np.random.default_rng(0).normal(0.9, 0.002, size=(4000, 6))
    ends = np.array([one_more(some[:5]) for some in drawn])
    inside = (ends[:, 0] <= drawn[:, 5]) & (drawn[:, 5] <= ends[:, 1])
    assert inside.mean() == pytest.approx(0.95, abs=0.01)


def models(rng, accuracy, seeds, *, images=IMAGES, hard=None, spread=0.002):
    """(n, N) answers of `seeds` models: images differ in how hard they are, seeds in how good."""
    hard = rng.normal(size=images) if hard is None else hard
    levels = reference.norm.ppf(accuracy + spread * rng.normal(size=seeds))
    noise = rng.normal(size=(seeds, images))
    return (0.8 * hard + 0.6 * noise) < levels[:, None]


@pytest.mark.parametrize("values", [[0.9, 0.91], [0.902, 0.899, 0.905, 0.9], [0.5] * 3])
def test_interval_is_that_of_scipy(values):
    half = t_half_width(np.std(values, ddof=1), len(values))
    error = reference.sem(values)
    if error > 0:
        low, high = reference.t.interval(0.95, len(values) - 1, np.mean(values), error)
        assert half == pytest.approx((high - low) / 2, rel=1e-12)
    else:
        assert half == 0


def test_one_seed_has_no_interval():
    assert np.isnan(t_half_width(0.0, 1))
    assert np.isnan(t_half_width(np.nan, 1))
    assert np.isfinite(t_half_width([np.nan, 0.1], [1, 3])).tolist() == [False, True]


@pytest.mark.parametrize(("b", "c"), [(10, 25), (25, 10), (0, 0), (7, 7), (0, 6), (431, 512)])
def test_mcnemar_is_that_of_statsmodels(b, c):
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    assert mcnemar(b, c) == pytest.approx(theirs([[100, b], [c, 50]], exact=True).pvalue, rel=1e-10)


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5, 0.03, 0.9999])
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)
    assert holm(np.array([])).tolist() == []


def test_one_seed_each_is_mcnemar_with_the_interval_of_the_same_test():
    rng = np.random.default_rng(1)
    a, b = models(rng, 0.9, 1)[0], models(rng, 0.91, 1)[0]
    found = difference(sample(a), sample(b))
    assert found.paired
    assert found.about == MODELS
    assert found.p == pytest.approx(float(mcnemar(np.sum(a & ~b), np.sum(b & ~a))), rel=1e-10)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    only_a, apart = int(np.sum(a & ~b)), int(np.sum(a != b))
    exact = reference.binomtest(only_a, apart).proportion_ci(0.95, "exact")
    ends = [(2 * end - 1) * apart / IMAGES for end in (exact.low, exact.high)]
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-9)


def test_where_images_vary_alone_it_is_the_paired_t_test_of_scipy():
    rng = np.random.default_rng(2)
    # Both seeds of a row have the same accuracy, so that their spread adds nothing.
    a, b = np.zeros((2, 400)), np.zeros((2, 400))
    for rows, right in ((a, 300), (b, 270)):
        for row in rows:
            row[rng.permutation(400)[:right]] = 1
    expected = reference.ttest_rel(a.mean(axis=0), b.mean(axis=0))
    assert difference(sample(a), sample(b)).p == pytest.approx(expected.pvalue, rel=1e-9)


def test_where_seeds_vary_alone_it_is_the_statistic_of_welch_with_the_fewer_degrees():
    # Of so many images the images hardly count.
    a, b = [0.901, 0.903, 0.899, 0.9025], [0.906, 0.9085, 0.904, 0.9075]
    one, two = (Sample(np.array(values), images=10**12) for values in (a, b))
    statistic = reference.ttest_ind(a, b, equal_var=False).statistic
    found = difference(one, two)
    assert found.about == RECIPES
    assert found.p == pytest.approx(2 * reference.t.sf(abs(statistic), 3), rel=1e-4)


def test_the_interval_adds_those_of_the_means_and_of_the_images_as_squares():
    rng = np.random.default_rng(12)
    a, b = models(rng, 0.9, 3), models(rng, 0.92, 5)
    parts = [
        reference.t.ppf(0.975, len(row) - 1) * reference.sem(row.mean(axis=1)) for row in (a, b)
    ]
    of_images = a.mean(axis=0) - b.mean(axis=0)
    parts.append(reference.t.ppf(0.975, IMAGES - 1) * reference.sem(of_images))
    found = difference(sample(a), sample(b))
    half = np.sqrt(np.sum(np.square(parts)))
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    # At the level p the interval just leaves out 0.
    assert (found.p < 0.05) == (found.high < 0)


def test_rows_that_are_not_in_a_comparison_have_no_part_in_it():
    """The spread of the others once counted for a row's own."""
    a, b = Sample(np.array([0.9, 0.901, 0.9005]), IMAGES), Sample(np.array([0.95, 0.951]), IMAGES)
    noisy = Sample(np.array([0.5, 0.9, 0.7]), IMAGES)
    assert ranks([a, b]) == [2, 1]
    assert ranks([a, b, noisy])[:2] == [2, 1]


def test_unpaired_it_is_the_test_of_two_shares():
    from statsmodels.stats.proportion import test_proportions_2indep as theirs

    one, two = (Sample(np.array([share]), images=IMAGES) for share in (0.9, 0.908))
    found = difference(one, two)
    assert not found.paired
    assert found.p == pytest.approx(
        theirs(9000, 10000, 9080, 10000, method="wald").pvalue, rel=5e-3
    )


def test_pairing_finds_what_unpaired_answers_hide():
    rng = np.random.default_rng(3)
    hard = rng.normal(size=IMAGES)
    a, b = models(rng, 0.9, 3, hard=hard, spread=0), models(rng, 0.909, 3, hard=hard, spread=0)
    paired = difference(sample(a), sample(b))
    unpaired = difference(sample(a), sample(b, test_set="b"))
    assert paired.paired
    assert not unpaired.paired
    assert paired.p < unpaired.p
    assert paired.high - paired.low < unpaired.high - unpaired.low


def test_one_seed_against_several_is_no_comparison():
    many = Sample(np.array([0.90, 0.91, 0.89, 0.905, 0.895]), images=10**12)
    one = Sample(np.array([0.42]), images=10**12)
    for found in (difference(many, one), difference(one, many)):
        assert found.about == NEITHER
        assert np.isnan([found.p, found.low, found.high]).all()
    better = Sample(many.accuracies + 0.09, images=10**12)
    # Neither told from the others, nor counted against one another beside rows of several.
    assert ranks([many, one, better, Sample(np.array([0.5]), 10**12)]) == [2, 1, 1, 1]
    # One row of several seeds has nobody to be held against.
    assert ranks([many, one, Sample(np.array([0.5]), 10**12)]) == [1, 2, 1]


@pytest.mark.parametrize("seeds", [(1, 1), (2, 2), (5, 5), (5, 2)])
def test_equally_good_rows_differ_in_one_of_twenty_cases_at_most(seeds):
    rng = np.random.default_rng(4)
    # One seed each is a test of two models, so there the models are equally good themselves.
    spread = 0.0 if seeds == (1, 1) else 0.01
    wrong = covered = 0
    for _ in range(400):
        hard = rng.normal(size=500)
        a, b = (sample(models(rng, 0.9, n, images=500, hard=hard, spread=spread)) for n in seeds)
        found = difference(a, b)
        wrong += found.p < 0.05
        covered += found.low <= 0 <= found.high
    assert wrong <= 0.05 * 400 + 2 * np.sqrt(400 * 0.05 * 0.95)
    assert covered >= 0.95 * 400 - 2 * np.sqrt(400 * 0.05 * 0.95)


def test_a_tenth_of_a_point_on_one_seed_wins_no_rank():
    rng = np.random.default_rng(5)
    a = models(rng, 0.9, 1)[0]
    b = a.copy()
    # Ten images better in all, as two models of such accuracy differ: 400 images apart.
    b[np.flatnonzero(a)[:195]] = False
    b[np.flatnonzero(~a)[:205]] = True
    assert b.mean() - a.mean() == pytest.approx(0.001)
    assert ranks([sample(b), sample(a)]) == [1, 1]
    # Ten images better and none worse would be one that is sure.
    c = a.copy()
    c[np.flatnonzero(~a)[:10]] = True
    assert ranks([sample(c), sample(a)]) == [1, 2]


def test_a_rank_says_how_many_rows_are_better():
    rng = np.random.default_rng(6)
    hard = rng.normal(size=IMAGES)
    shares = [0.93, 0.9295, 0.90, 0.8]
    rows = [sample(models(rng, share, 3, hard=hard, spread=0.0005)) for share in shares]
    assert ranks(rows) == [1, 1, 3, 4]
    assert ranks(rows[::-1]) == [4, 3, 1, 1]


def test_more_pairs_ask_for_more():
    rng = np.random.default_rng(7)
    a = models(rng, 0.9, 1)[0]
    b = a.copy()
    b[np.flatnonzero(~a)[:7]] = True  # McNemar: p = 2 / 2^7
    assert ranks([sample(b), sample(a)]) == [1, 2]
    assert ranks([sample(b), sample(a), sample(a.copy())]) == [1, 2, 2]
    assert set(ranks([sample(b), *(sample(a.copy()) for _ in range(5))])) == {1}


def test_what_is_left_to_tell_asks_for_less_once_other_pairs_are_told():
    around = np.array([-0.002, -0.001, 0.0, 0.001, 0.002])
    best, last, second = (Sample(mean + around, 10**7) for mean in (0.9, 0.5, 0.8963))
    p = difference(best, second).p
    assert 0.05 / 3 < p < 0.05  # not by Bonferroni's method
    assert ranks([best, last, second]) == [1, 3, 2]


def test_mixed_evidence_is_compared_as_far_as_it_goes():
    rng = np.random.default_rng(8)
    known = sample(models(rng, 0.95, 3))
    unknown = Sample(np.array([0.90, 0.901]), IMAGES)
    other = sample(models(rng, 0.5, 3), test_set="b")
    assert ranks([known, unknown, other]) == [1, 2, 3]
    assert ranks([unknown]) == [1]
    assert ranks([]) == []


def test_nothing_varies():
    same = Sample(np.array([1.0, 1.0]), IMAGES, "a", np.ones(IMAGES))
    assert difference(same, same).p == 1.0
    none = Sample(np.array([0.0, 0.0]), IMAGES, "a", np.zeros(IMAGES))
    assert ranks([same, same, none]) == [1, 1, 3]


@pytest.mark.parametrize("apart", range(9))
def test_interval_and_p_agree_on_few_images(apart):
    a = np.zeros(IMAGES, dtype=bool)
    a[:9000] = True
    b = a.copy()
    b[:apart] = False
    found = difference(sample(a), sample(b))
    assert (found.p < 0.05) == (found.low > 0)
    assert found.high > found.mean - 1e-12
    # Two seeds that answer alike know no more than one.
    twice = difference(sample([a, a]), sample([b, b]))
    assert twice.p >= float(mcnemar(apart, 0)) * (1 - 1e-9)


def test_all_and_none_right_is_not_beyond_doubt_on_one_image():
    one, none = (Sample(np.array([share]), images=1) for share in (1.0, 0.0))
    found = difference(one, none)
    assert found.p > 0.05
    assert -1 <= found.low < found.high <= 1


@pytest.mark.parametrize("seeds", [[2] * 10, [3] * 10, [3] * 4 + [1] * 4])
def test_of_equally_good_rows_one_table_in_twenty_has_a_false_rank(seeds):
    rng = np.random.default_rng(9)
    false = 0
    for _ in range(150):
        hard = rng.normal(size=400)
        # Seeds that move a model's accuracy about as much as the images do.
        rows = [sample(models(rng, 0.9, n, images=400, hard=hard, spread=0.013)) for n in seeds]
        false += max(ranks(rows)) > 1
    assert false <= 0.05 * 150 + 2 * np.sqrt(150 * 0.05 * 0.95)


# Standard deviations over the seeds, in points, of a table's rows.
SPREADS = {
    "equal": np.ones,
    "half": lambda rows: np.where(np.arange(rows) < rows // 2, 0.05, 1.0),
    "one noisy": lambda rows: np.where(np.arange(rows) < rows - 1, 0.05, 1.0),
    "one quiet": lambda rows: np.where(np.arange(rows) < rows - 1, 1.0, 0.05),
    "one fivefold": lambda rows: np.where(np.arange(rows) < rows - 1, 0.2, 1.0),
    "all sizes": lambda rows: np.geomspace(0.01, 1, rows),
}


def told_apart(rng, spreads, seeds, images, *, tables):
    """The share of tables of equally good rows in which any pair passes Holm's first step.

    Args:
        rng: Draws them.
        spreads: (rows,) standard deviations over the seeds.
        seeds: (rows,) how many there are, from 2.
        images: Standard deviation of each row's mean over the images.
        tables: How many are drawn.
    """
    first, second = np.triu_indices(len(spreads), 1)
    drawn = rng.normal(size=(2, tables, len(spreads)))
    means = spreads / np.sqrt(seeds) * drawn[0] + images * drawn[1]
    own = spreads**2 * rng.chisquare(seeds - 1, means.shape) / (seeds - 1) / seeds
    variances = [np.full((tables, len(first)), 2 * images**2), own[:, first], own[:, second]]
    freedom = np.array([np.full(len(first), 1e9), seeds[first] - 1.0, seeds[second] - 1.0])
    half = half_width(np.stack(variances), freedom[:, None], 0.05 / len(first))
    return np.mean(np.any(np.abs(means[:, first] - means[:, second]) > half, axis=1))


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize(("rows", "tables"), [(2, 10_000), (3, 6_000), (7, 2_000), (30, 400)])
def test_no_more_than_one_table_in_twenty_has_a_false_rank_whatever_the_spreads(
    rows, tables, spread
):
    rng = np.random.default_rng(10)
    noise = np.sqrt(0.05 * 0.95 / tables)
    mixed = rng.integers(2, 11, rows)
    for seeds in (*(np.full(rows, n) for n in (2, 3, 5, 10)), mixed):
        for images in (0.0, 0.03, 0.3):
            share = told_apart(rng, SPREADS[spread](rows), seeds, images, tables=tables)
            assert share <= 0.05 + 3 * noise, (seeds, images)


@pytest.mark.parametrize("spread", ["equal", "half", "one noisy"])
@pytest.mark.parametrize("seeds", [[2] * 5, [3] * 5, [2, 3, 1, 10, 1]])
def test_ranks_of_records_without_answers_hold_the_level(seeds, spread):
    rng = np.random.default_rng(11)
    spreads = SPREADS[spread](5) / 100
    false = 0
    for _ in range(400):
        drawn = (0.9 + s * rng.normal(size=n) for s, n in zip(spreads, seeds, strict=True))
        false += max(ranks([Sample(values, 10**12) for values in drawn])) > 1
    assert false <= 0.05 * 400 + 2 * np.sqrt(400 * 0.05 * 0.95)


@pytest.mark.parametrize("noisy", [0, 4])
def test_a_noisy_row_of_one_seed_among_quiet_rows_wins_no_rank(noisy):
    rng = np.random.default_rng(13)
    for _ in range(50):
        rows = [Sample(0.9 + 0.0005 * rng.normal(size=3), 10**12) for _ in range(4)]
        rows.insert(noisy, Sample(0.9 + 0.01 * rng.normal(size=1), 10**12))
        assert ranks(rows)[noisy] == 1


@pytest.mark.parametrize(("rows", "paired"), [(2, True), (2, False), (10, True), (30, False)])
def test_models_of_one_seed_that_are_equally_good_share_a_rank(rows, paired):
    rng = np.random.default_rng(14)
    false, tables = 0, 200
    for _ in range(tables):
        hard = rng.normal(size=500)
        made = (models(rng, 0.9, 1, images=500, hard=hard, spread=0) for _ in range(rows))
        samples = [sample(one) for one in made]
        if not paired:
            samples = [Sample(one.accuracies, one.images) for one in samples]
        false += max(ranks(samples)) > 1
    assert false <= 0.05 * tables + 2 * np.sqrt(tables * 0.05 * 0.95)


def test_rows_differ_in_rank_and_are_not_told_apart():
    spread = np.array([-1.0, 0.0, 1.0]) / 1000
    first, second, third = (
        Sample(mean + width * spread, 10**12) for mean, width in ((0.92, 1), (0.91, 15), (0.9, 1))
    )
    assert ranks([first, second, third]) == [1, 1, 2]
    assert difference(second, third).p > 0.05


# Rows over the same folds


@pytest.fixture
def simulation(monkeypatch):
    """`scripts/folds.py`: cross-validation of classifiers that do not differ."""
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    return importlib.import_module("folds")


def test_the_corrected_t_test_is_that_of_the_paper():
    a, b = np.array([0.91, 0.92, 0.9, 0.93, 0.915]), np.array([0.9, 0.905, 0.902, 0.91, 0.901])
    found = difference_of_folds(Folds(a, 10**9, 0.25), Folds(b, 10**9, 0.25))
    apart = a - b
    error = np.sqrt((1 / 5 + 1 / 4) * apart.var(ddof=1))
    assert found.p == pytest.approx(2 * reference.t.sf(apart.mean() / error, 4), rel=1e-9)
    ends = reference.t.interval(0.95, 4, apart.mean(), error)
    assert (found.low, found.high) == pytest.approx(ends)
    assert found.about == OVER_FOLDS
    # Without the correction it is the paired t-test.
    naive = difference_of_folds(Folds(a, 10**9, 0.0), Folds(b, 10**9, 0.0))
    assert naive.p == pytest.approx(reference.ttest_rel(a, b).pvalue, rel=1e-9)
    assert naive.p < 0.05 < found.p
    half = t_half_width(a.std(ddof=1), 5, 0.25)
    assert half == pytest.approx(reference.t.ppf(0.975, 4) * a.std(ddof=1) * np.sqrt(0.45))


def test_folds_that_agree_by_chance_are_known_to_one_image():
    # Three images of 100 in both folds: their spread is nothing, and so it would be certain.
    a, b = (Folds(np.array(values), 100, 1.0) for values in ([0.9, 0.85], [0.87, 0.82]))
    assert difference_of_folds(a, b).p > 0.2
    assert ranks_of_folds([a, b]) == [1, 1]
    far = Folds(np.array([0.5, 0.45]), 100, 1.0)
    assert ranks_of_folds([far, a]) == [2, 1]


def test_ranks_over_folds_are_corrected_for_the_number_of_rows():
    noise = np.array([-0.002, -0.001, 0.0, 0.001, 0.002])
    best, next_ = Folds(0.9 + noise, 10**6, 0.25), Folds(0.893 + noise[::-1], 10**6, 0.25)
    assert 0.05 / 4 < difference_of_folds(best, next_).p < 0.05
    assert ranks_of_folds([next_, best]) == [2, 1]
    same = [next_] * 4
    assert set(ranks_of_folds([best, *same])) == {1}
    assert ranks_of_folds([best]) == [1]


@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("folds", [5, 10])
def test_over_folds_one_table_in_twenty_has_a_false_rank_at_most(simulation, rows, folds):
    """And as if the folds were independent, many more have one: the correction is what holds it."""
    tables = 600
    corrected, naive = simulation.false(rows, folds, 200, tables=tables)
    noise = np.sqrt(0.05 * 0.95 / tables)
    assert corrected <= 0.05 + 2 * noise
    assert naive > 0.05 + 2 * noise


@pytest.mark.parametrize(("rows", "folds", "images"), [(2, 2, 60), (5, 2, 200), (5, 3, 60)])
def test_few_folds_of_few_images_have_no_more_false_ranks(simulation, rows, folds, images):
    """Where the spread over the folds is nothing by chance, two tables in five would have one."""
    assert simulation.false(rows, folds, images, tables=300)[0] <= 0.05


@pytest.mark.slow
def test_a_row_that_is_better_over_folds_is_found(simulation):
    points, corrected, naive, at_its_level = simulation.found(0.6, 5, 200, tables=300)
    assert points == pytest.approx(20, abs=1)
    assert 50 < corrected < at_its_level < naive
