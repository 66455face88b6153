"""Against scipy and statsmodels on fixed data, and against drawn nets whose truth is known."""

import numpy as np
import pytest
from scipy import stats as reference

from fmbench.stats import Sample, difference, holm, mcnemar, one_more, ranks, t_half_width

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


def nets(rng, accuracy, seeds, *, images=IMAGES, hard=None, spread=0.002):
    """(n, N) answers of `seeds` nets: images differ in how hard they are, seeds in how good."""
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
    a, b = nets(rng, 0.9, 1)[0], nets(rng, 0.91, 1)[0]
    found = difference(sample(a), sample(b))
    assert found.paired
    assert not found.seeds
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


def test_where_seeds_vary_alone_it_is_the_test_of_student():
    # Of so many images the images hardly count. Both rows have the same spread.
    a, b = [0.901, 0.903, 0.899, 0.9025], [0.906, 0.908, 0.904, 0.9075]
    one, two = (Sample(np.array(values), images=10**12) for values in (a, b))
    expected = reference.ttest_ind(a, b)
    found = difference(one, two)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-4)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-3)


def test_a_spread_that_is_small_by_chance_counts_as_that_of_all():
    steady = Sample(np.array([0.9, 0.9]), images=10**12)
    shaky = Sample(np.array([0.91, 0.93]), images=10**12)
    pooled = np.var([0.91, 0.93], ddof=1) / 2
    error = np.sqrt(pooled / 2 + np.var([0.91, 0.93], ddof=1) / 2)
    expected = 2 * reference.t.sf(0.02 / error, 2)
    assert difference(steady, shaky).p == pytest.approx(expected, rel=1e-3)


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
    a, b = nets(rng, 0.9, 3, hard=hard, spread=0), nets(rng, 0.909, 3, hard=hard, spread=0)
    paired = difference(sample(a), sample(b))
    unpaired = difference(sample(a), sample(b, test_set="b"))
    assert paired.paired
    assert not unpaired.paired
    assert paired.p < unpaired.p
    assert paired.high - paired.low < unpaired.high - unpaired.low


def test_a_row_of_one_seed_borrows_the_spread_of_the_other():
    many = Sample(np.array([0.90, 0.91, 0.89, 0.905, 0.895]), images=10**12)
    one = Sample(np.array([0.92]), images=10**12)
    # One more value of the same spread lies further out than this with probability p.
    error = np.std(many.accuracies, ddof=1) * np.sqrt(1 + 1 / 5)
    expected = 2 * reference.t.sf(0.02 / error, 4)
    for found in (difference(many, one), difference(one, many)):
        assert found.p == pytest.approx(expected, rel=1e-3)
        assert found.seeds


@pytest.mark.parametrize("seeds", [(1, 1), (2, 2), (5, 5), (3, 1)])
def test_equally_good_rows_differ_in_one_of_twenty_cases_at_most(seeds):
    rng = np.random.default_rng(4)
    # One seed each is a test of two nets, so there the nets are equally good themselves.
    spread = 0.0 if seeds == (1, 1) else 0.01
    wrong = covered = 0
    for _ in range(400):
        hard = rng.normal(size=500)
        a, b = (sample(nets(rng, 0.9, n, images=500, hard=hard, spread=spread)) for n in seeds)
        found = difference(a, b)
        wrong += found.p < 0.05
        covered += found.low <= 0 <= found.high
    assert wrong <= 0.05 * 400 + 2 * np.sqrt(400 * 0.05 * 0.95)
    assert covered >= 0.95 * 400 - 2 * np.sqrt(400 * 0.05 * 0.95)


def test_a_tenth_of_a_point_on_one_seed_wins_no_rank():
    rng = np.random.default_rng(5)
    a = nets(rng, 0.9, 1)[0]
    b = a.copy()
    # Ten images better in all, as two nets of such accuracy differ: 400 images apart.
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
    rows = [sample(nets(rng, share, 3, hard=hard, spread=0.0005)) for share in shares]
    assert ranks(rows) == [1, 1, 3, 4]
    assert ranks(rows[::-1]) == [4, 3, 1, 1]


def test_more_pairs_ask_for_more():
    rng = np.random.default_rng(7)
    a = nets(rng, 0.9, 1)[0]
    b = a.copy()
    b[np.flatnonzero(~a)[:7]] = True  # McNemar: p = 2 / 2^7
    assert ranks([sample(b), sample(a)]) == [1, 2]
    assert ranks([sample(b), sample(a), sample(a.copy())]) == [1, 2, 2]
    assert set(ranks([sample(b), *(sample(a.copy()) for _ in range(5))])) == {1}


def test_mixed_evidence_is_compared_as_far_as_it_goes():
    rng = np.random.default_rng(8)
    known = sample(nets(rng, 0.95, 3))
    unknown = Sample(np.array([0.90, 0.901]), IMAGES)
    other = sample(nets(rng, 0.85, 2), test_set="b")
    assert ranks([known, unknown, other]) == [1, 2, 3]
    assert ranks([unknown]) == [1]
    assert ranks([]) == []


def test_nothing_varies():
    same = Sample(np.array([1.0, 1.0]), IMAGES, "a", np.ones(IMAGES))
    assert difference(same, same).p == 1.0
    assert ranks([same, same, Sample(np.array([0.0]), IMAGES, "a", np.zeros(IMAGES))]) == [1, 1, 3]


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
        # Seeds that move a net's accuracy about as much as the images do.
        rows = [sample(nets(rng, 0.9, n, images=400, hard=hard, spread=0.013)) for n in seeds]
        false += max(ranks(rows)) > 1
    assert false <= 0.05 * 150 + 2 * np.sqrt(150 * 0.05 * 0.95)
