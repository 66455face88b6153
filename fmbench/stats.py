"""Repeated seeds to mean, interval and ties: what a difference of two accuracies is worth.

Two things are uncertain about a test accuracy: which images the test set happens to hold, and which
seed the model was trained from. Where both rows predicted the same images, their predictions are
compared image by image, which removes what is hard or easy for both (the paired comparison of
McNemar 1947; for classifiers, Dietterich 1998, section 3.1). Where there are several seeds, their
spread comes on top (Bouthillier et al. 2021, "Accounting for Variance in Machine Learning
Benchmarks", section 2).

Runs over the folds of one data set share training images and are no independent measurements: rows
of them are compared by the corrected resampled t-test of Nadeau and Bengio (2003, "Inference for
the Generalization Error", Machine Learning 52, 239-281).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import special

CONFIDENCE = 0.95

# Images of the Gram matrix at a time: 500 rows of so many doubles are 16 MB.
_CHUNK = 4096

# Discordant images; for fewer the normal approximation does not hold.
_FEW = 30

# The logarithm of the smallest p that is told from 0.
_LEAST_P = -300.0


@dataclass(frozen=True)
class Sample:
    """The test accuracies of one row, a seed each; predictions too where they are known."""

    accuracies: np.ndarray = field(repr=False)  # (n,) shares from 0 to 1
    images: int  # how many test images they are of
    test_set: str | None = None  # names the test images and their order
    correct: np.ndarray | None = field(
        default=None, repr=False
    )  # (N,) share of the seeds, an image

    def is_paired(self, other: "Sample") -> bool:
        """Whether both have predictions for the same images."""
        return self.test_set is not None and self.test_set == other.test_set


@dataclass(frozen=True)
class Folds:
    """The accuracies of one row over folds, each on the images that the fold held out.

    Rows that are compared have the same folds, in one order.
    """

    accuracies: np.ndarray = field(repr=False)  # (J,) shares from 0 to 1, mean over a fold's seeds
    images: int  # that a fold holds out
    ratio: float  # how many that is for each training image


#: What a difference of two rows may be about. Recipes vary with their seeds, so that each needs
#: several, or the same folds. Of one seed each it is about two trained models. One against several
#: is about neither.
RECIPES, MODELS, NEITHER, OVER_FOLDS = "recipes", "models", "neither", "folds"


@dataclass(frozen=True)
class Difference:
    """How much more accurate one row is than another; NaN where it is about neither."""

    mean: float  # A's mean accuracy less B's
    low: float  # ends of its 95 % interval
    high: float
    p: float  # of the hypothesis that there is no difference, two-sided
    paired: bool  # predictions were compared image by image
    about: str  # RECIPES, MODELS, NEITHER or OVER_FOLDS


def t_half_width(
    deviation: np.ndarray | float, n: np.ndarray | float, ratio: np.ndarray | float = 0.0
) -> np.ndarray:
    """Half the 95 % interval of a mean of n values, by Student's t with n - 1 degrees of freedom.

    The standard deviation has n - 1 in the denominator. NaN where n is 1. Of folds `ratio` is how
    many images they hold out for each training image: the variance of the mean is 1/n + ratio of
    that of one (Nadeau and Bengio 2003), not 1/n.
    """
    n = np.asarray(n, dtype=float)
    quantile = special.stdtrit(np.maximum(n - 1, 1), (1 + CONFIDENCE) / 2)
    width = quantile * np.asarray(deviation, dtype=float) * np.sqrt(1 / n + ratio)
    return np.where(n > 1, width, np.nan)


def one_more(values: Sequence[float]) -> tuple[float, float] | None:
    """Where one more run would land in 95 of 100 cases, by Student's t.

    What a figure of one run is held against: the interval of the mean says where the mean lies, and
    single runs fall beside it (Hahn and Meeker 1991, Statistical Intervals, chapter 4). None where
    there are fewer than two runs.
    """
    n, known = len(values), np.asarray(values, dtype=float)
    if n < 2:
        return None
    half = float(t_half_width(known.std(ddof=1), n)) * (n + 1) ** 0.5
    return float(known.mean() - half), float(known.mean() + half)


class Outperforming(NamedTuple):
    """P(A > B): how probable it is that one run of A beats one run of B; with its 95 % interval."""

    share: float
    low: float
    high: float


def outperforms(a: Sequence[float], b: Sequence[float]) -> Outperforming | None:
    """P(A > B) of two rows, by the values of their runs, of which more is better.

    Bouthillier et al. (2021, section 4) ask for it beside a difference of means: above 0.5 A is
    better, and they call it meaningful from 0.75 on. It is estimated by all pairs of a run of A
    and a run of B, a tie counting half, which is the statistic of Mann and Whitney (1947). The
    interval is Newcombe's fifth (2006, "Confidence intervals for an effect size measure based on
    the Mann-Whitney statistic. Part 2", Statistics in Medicine 25, 559-573): a score interval. It
    reaches below 1 where every run of A beat every run of B, as that of a bootstrap does not.

    Returns:
        None unless each has two runs.
    """
    one, two = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n = min(len(one), len(two))
    if n < 2:
        return None
    beats = (one[:, None] > two) + 0.5 * (one[:, None] == two)
    share, more = float(beats.mean()), (len(one) + len(two)) / 2 - 1
    quantile = float(special.ndtri((1 + CONFIDENCE) / 2))

    def inside(value: float) -> bool:
        spread = 1 + more * ((1 - value) / (2 - value) + value / (1 + value))
        variance = value * (1 - value) * spread / beats.size
        return bool(abs(share - value) < quantile * variance**0.5)

    return Outperforming(share, *(_edge(inside, share, end) for end in (0.0, 1.0)))


def _edge(inside: Callable[[float], bool], within: float, beyond: float) -> float:
    """Where an interval ends, between a value within it and one that is the most it can reach."""
    middle = within
    for _ in range(50):
        middle = (within + beyond) / 2
        within, beyond = (middle, beyond) if inside(middle) else (within, middle)
    return middle


class Spread(NamedTuple):
    """The standard deviation over seeds in two parts: the sum of their squares is its own square.

    Unless there is less spread than the test set alone is expected to cause: then `runs` is 0, and
    `images` is larger than the standard deviation that was seen.
    """

    runs: float  # of the accuracies that the runs would have on endlessly many test images
    images: float  # what the test set adds because it is finite


def split_spread(correct: np.ndarray) -> Spread | None:
    """How much of the spread over seeds is the runs' own, and how much the finite test set's.

    Two runs of one quality err on other images, so that their accuracies differ on any finite test
    set. The variance over the runs of their quality is the mean covariance of two images' answers,

        N / (N - 1) * (variance of the accuracies - sum over images of their variance / N^2)

    without bias (Jordan 2024, "On the Variance of Neural Network Training with respect to Test
    Sets and Distributions", section 3). Of few runs the estimate is rough; below 0 it counts as 0.

    Args:
        correct: (n, N) whether each of n runs is right about each of N images.

    Returns:
        None unless there are two runs and two images.
    """
    n, images = correct.shape
    if n < 2 or images < 2:
        return None
    total = float(np.var(correct.mean(axis=1), ddof=1))
    shares = correct.mean(axis=0)
    each = float(np.sum(shares * (1 - shares))) * n / (n - 1)
    runs = images / (images - 1) * (total - each / images**2)
    return Spread(max(runs, 0.0) ** 0.5, max(total - runs, 0.0) ** 0.5)


def mcnemar(only_a: np.ndarray | int, only_b: np.ndarray | int) -> np.ndarray:
    """The exact two-sided p of McNemar's test, of the images that A alone and B alone have right.

    That is the probability, if both were equally good, of a split of them at least as uneven.
    """
    only_a, only_b = np.asarray(only_a, dtype=float), np.asarray(only_b, dtype=float)
    tail = special.bdtr(np.minimum(only_a, only_b), (only_a + only_b).astype(np.int64), 0.5)
    return np.asarray(np.minimum(2 * tail, 1.0))


def holm(p: np.ndarray) -> np.ndarray:
    """The p of (k,) tests, corrected for their number (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def difference(a: Sample, b: Sample) -> Difference:
    """Compare two rows.

    With one seed each the interval is of those images that one of the two alone has right, by the
    same exact test as p (Clopper and Pearson 1934).
    """
    pair = _pairs([a, b])
    mean, paired = float(pair.mean[0]), a.is_paired(b)
    about = (MODELS, NEITHER, RECIPES)[sum(len(sample.accuracies) > 1 for sample in (a, b))]
    if about == NEITHER:
        return Difference(mean, np.nan, np.nan, np.nan, paired, about)
    half = float(half_width(pair.variances, pair.freedom, 1 - CONFIDENCE)[0])
    low, high = mean - half, mean + half
    if about == MODELS and paired:
        only_a, only_b = _discordant(a, b)
        tail, share = (1 - CONFIDENCE) / 2, (only_a + only_b) / a.images
        least = special.betaincinv(only_a, only_b + 1, tail) if only_a else 0.0
        most = special.betaincinv(only_a + 1, only_b, 1 - tail) if only_b else 1.0
        low, high = (share * (2 * float(end) - 1) for end in (least, most))
    return Difference(mean, max(low, -1.0), min(high, 1.0), pair.p(), paired, about)


def difference_of_folds(a: Folds, b: Folds) -> Difference:
    """Compare two rows over the same folds, by the corrected resampled t-test."""
    pair = _pairs_of_folds([a, b])
    mean = float(pair.mean[0])
    half = float(half_width(pair.variances, pair.freedom, 1 - CONFIDENCE)[0])
    low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    return Difference(mean, low, high, pair.p(), paired=True, about=OVER_FOLDS)


def ranks(samples: Sequence[Sample]) -> list[int]:
    """The rank of each row: 1, and one more for each row that is better beyond doubt.

    That is by a test of each pair, all of them corrected by Holm's method. Two rows whose own test
    tells nothing may yet have different ranks: a third row can be better than one of them alone.
    Rows of several seeds are compared, as recipes; where there are not two of those, rows of one
    seed are, as trained models. The others have rank 1, for nothing is known against them. The
    chance that any two rows without a difference are told apart is at most 5 %.
    """
    return _ranked(_pairs(samples), len(samples))


def ranks_of_folds(rows: Sequence[Folds]) -> list[int]:
    """The same of rows over the same folds, each pair by the corrected resampled t-test."""
    return _ranked(_pairs_of_folds(rows), len(rows))


def _ranked(pairs: "_Pairs", rows: int) -> list[int]:
    tested, rejected = int(pairs.tested.sum()), 0
    apart = np.zeros(len(pairs.mean), dtype=bool)
    # Holm's steps, all pairs that pass one at once: those that are left need less correction.
    while rejected < tested:
        apart = pairs.apart((1 - CONFIDENCE) / (tested - rejected))
        if apart.sum() == rejected:
            break
        rejected = int(apart.sum())
    first, second = np.triu_indices(rows, 1)
    worse = np.where(pairs.mean > 0, second, first)[apart]
    return [1 + int(better) for better in np.bincount(worse, minlength=rows)]


#: The share of tables, or of pairs, in which a difference that can be shown is shown.
POWER = 0.8

#: More seeds of each row than this are not asked for.
MOST_SEEDS = 1000

# Quantiles of an estimated variance that stand for its distribution.
_QUANTILES = 16


class Power(NamedTuple):
    """What the test of two rows of several seeds can show."""

    smallest: float  # difference that it shows in 80 of 100 cases
    # Of each row, until a difference as large as the one that was seen is shown in 80 of 100 cases:
    # 0 where it is shown already, None where no number up to `MOST_SEEDS` does it.
    more_seeds: int | None


def power(a: Sample, b: Sample) -> Power | None:
    """What the test of two rows can show, if the spreads that were seen are the true ones.

    More seeds shrink what the seeds add to the variance of the difference: their own, and their
    part of that over the images. What differs between the images for good stays.

    Returns:
        None unless both rows have several seeds.
    """
    pair = _pairs([a, b])
    n = [len(sample.accuracies) for sample in (a, b)]
    if min(n) < 2:
        return None
    smallest = float(_smallest(pair.variances, pair.freedom, 1 - CONFIDENCE)[0])
    if pair.apart(1 - CONFIDENCE)[0]:
        return Power(smallest, 0)
    over_images, *over_seeds = pair.variances[:, 0].tolist()
    # Of the variance over the images, what one more seed of either row shrinks.
    noise = [0.0, 0.0]
    if a.is_paired(b):
        for place, sample in enumerate((a, b)):
            assert sample.correct is not None
            shares = sample.correct.astype(float)
            each = float(np.mean(shares * (1 - shares))) * n[place] / (n[place] - 1)
            noise[place] = each / sample.images
    lasting = max(over_images - sum(each / m for each, m in zip(noise, n, strict=True)), 0.0)

    def shown(more: int) -> bool:
        sizes = [m + more for m in n]
        images = lasting + sum(each / m for each, m in zip(noise, sizes, strict=True))
        seeds = [v * m / size for v, m, size in zip(over_seeds, n, sizes, strict=True)]
        variances = np.array([[images], *([value] for value in seeds)])
        freedom = np.array([pair.freedom[0], *([size - 1] for size in sizes)])
        return bool(_smallest(variances, freedom, 1 - CONFIDENCE)[0] <= abs(pair.mean[0]))

    # By bisection: what can be shown shrinks with each seed.
    none, enough = 0, MOST_SEEDS
    if not shown(enough):
        return Power(smallest, None)
    while enough - none > 1:
        middle = (none + enough) // 2
        none, enough = (none, middle) if shown(middle) else (middle, enough)
    return Power(smallest, enough)


def ranks_and_power(samples: Sequence[Sample]) -> tuple[list[int], list[float | None]]:
    """The rank of each row, and how far below the best mean its rank shows it to be in 80 %.

    The second is with all pairs corrected as in the first step of Holm's method, and the spreads
    that were seen taken as the true ones. None for the best row, and for all where one has one
    seed.
    """
    pairs = _pairs(samples)
    placed = _ranked(pairs, len(samples))
    if len(samples) < 2 or any(len(sample.accuracies) < 2 for sample in samples):
        return placed, [None] * len(samples)
    first, second = np.triu_indices(len(samples), 1)
    best = int(np.argmax([np.mean(sample.accuracies) for sample in samples]))
    beside = np.flatnonzero((first == best) | (second == best))
    level = (1 - CONFIDENCE) / len(first)
    found = _smallest(pairs.variances[:, beside], pairs.freedom[:, beside], level).tolist()
    return placed, [*found[:best], None, *found[best:]]


def _smallest(variances: np.ndarray, freedom: np.ndarray, level: float) -> np.ndarray:
    """(k,) the smallest differences that intervals at a level leave 0 out of in 80 of 100 cases.

    The estimate of the difference is normal, that of each row's variance over its seeds is chi
    squared; that of the images, which are many, counts as known.

    Args:
        variances: (3, k), over the images and over the seeds of either row.
        freedom: (3, k) of them.
        level: What an interval misses.
    """
    points = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    of_seeds = freedom[1:, :, None]
    seen = 2 * special.gammaincinv(of_seeds / 2, points) / of_seeds  # chi squared over freedom
    quantiles = special.stdtrit(freedom, level / 2) ** 2 * variances
    one, two = quantiles[1:, :, None] * seen  # (k, points) each
    halves = np.sqrt(quantiles[0][:, None, None] + one[:, :, None] + two[:, None, :])
    deviation = np.sqrt(variances.sum(axis=0))
    low, high = np.zeros(len(deviation)), halves.max(axis=(1, 2)) + 4 * deviation
    known = np.maximum(deviation, 1e-12)[:, None, None]
    for _ in range(25):
        middle = (low + high) / 2
        shown = special.ndtr((middle[:, None, None] - halves) / known).mean(axis=(1, 2)) >= POWER
        low, high = np.where(shown, low, middle), np.where(shown, middle, high)
    return np.asarray(high)


def half_width(variances: np.ndarray, freedom: np.ndarray, level: float) -> np.ndarray:
    """Half the interval of a sum of independent estimates: their own half widths, as squares.

    It holds its level whatever the variances are (Banerjee 1960, Sankhya 22, 357-358): the chance
    to lie outside is, given the estimated variances, a convex function of their weighted mean, so
    that it is at most the weighted mean of what each part's own interval misses, which is `level`.
    That of Welch does not, where one part is known well and the other is small by luck.

    Args:
        variances: (m, ...) of the mean of each part.
        freedom: (m, ...) degrees of freedom of each variance.
        level: What the interval misses, from 0 to 1.
    """
    # Of many pairs few differ in their numbers of seeds and images.
    distinct, places = np.unique(freedom, return_inverse=True)
    quantiles = special.stdtrit(distinct, level / 2)[places].reshape(freedom.shape)
    return np.asarray(np.sqrt(np.sum(quantiles**2 * variances, axis=0)))


@dataclass(frozen=True)
class _Pairs:
    """All k pairs of some rows, in the order of `numpy.triu_indices`."""

    mean: np.ndarray  # (k,) differences of the means
    # (3, k) of them: over the images, over the seeds of either row; of folds (1, k), over these
    variances: np.ndarray
    freedom: np.ndarray  # of the same shape, degrees of freedom of these
    least: np.ndarray  # (k,) by an exact test, what p is at least
    exact: np.ndarray  # (k,) the exact test is all there is: two single models
    tested: np.ndarray  # (k,) both have several seeds; or both have one, and no two have several

    def beyond(self, level: float) -> np.ndarray:
        """(k,) whether the intervals at a level leave out 0."""
        return np.asarray(np.abs(self.mean) > half_width(self.variances, self.freedom, level))

    def apart(self, level: float) -> np.ndarray:
        """(k,) whether p is below a level."""
        return np.asarray(self.tested & (self.exact | self.beyond(level)) & (self.least < level))

    def p(self) -> float:
        """The level from which on the first pair is told apart."""
        low, high = _LEAST_P, 0.0  # logarithms; 2^-50 of the range is the twelfth digit
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if self.beyond(np.exp(middle))[0] else (middle, high)
        p = 0.0 if self.exact[0] or low == _LEAST_P else float(np.exp(high))
        return max(p, float(self.least[0]))


def _pairs(samples: Sequence[Sample]) -> _Pairs:
    """What is known of the difference of each pair.

    Its variance is that over the images plus that over the seeds of either row. The first holds a
    little of the second already, so the tests err on the careful side. Of two single models there
    is McNemar's test, where the test images are the same.
    """
    first, second = np.triu_indices(len(samples), 1)
    n = np.array([len(sample.accuracies) for sample in samples], dtype=int)
    means = np.array([float(np.mean(sample.accuracies)) for sample in samples])
    images = np.array([sample.images for sample in samples], dtype=float)
    mean = means[first] - means[second]

    # Unpaired, as if the images were drawn anew for either; none right does not mean none ever.
    right, wrong = means * images + 1, (1 - means) * images + 1
    alone = right * wrong / (images + 2) ** 2 / images
    over_images = alone[first] + alone[second]
    one_each = (n[first] == 1) & (n[second] == 1)
    several = (n[first] > 1) & (n[second] > 1)
    least, exact = np.zeros(len(first)), np.zeros(len(first), dtype=bool)
    test_sets = np.array([sample.test_set or "" for sample in samples])
    for test_set in {*test_sets} - {""}:
        members = np.flatnonzero(test_sets == test_set)
        inside = np.flatnonzero(np.isin(first, members) & np.isin(second, members))
        a, b = (np.searchsorted(members, rows[inside]) for rows in (first, second))
        products = _products([samples[member].correct for member in members.tolist()])
        squares = np.diag(products)
        only_a, only_b = squares[a] - products[a, b], squares[b] - products[a, b]
        count = images[members[0]]
        variance = np.maximum(only_a + only_b - count * mean[inside] ** 2, 0) / max(count - 1, 1)
        over_images[inside] = variance / count
        single = one_each[inside]
        exact[inside] = single
        least[inside[single]] = mcnemar(np.rint(only_a[single]), np.rint(only_b[single]))
        for place in inside[(only_a + only_b < _FEW) & ~single]:
            least[place] = mcnemar(*_discordant(samples[first[place]], samples[second[place]]))

    own = [np.var(s.accuracies, ddof=1) if len(s.accuracies) > 1 else 0.0 for s in samples]
    over_seeds = np.array(own, dtype=float) / n
    of_images = np.maximum(np.minimum(images[first], images[second]) - 1, 1)
    of_seeds = np.maximum(n - 1, 1)
    return _Pairs(
        mean=mean,
        variances=np.stack([over_images, over_seeds[first], over_seeds[second]]),
        freedom=np.stack([of_images, of_seeds[first], of_seeds[second]]),
        least=least,
        exact=exact,
        tested=several if several.any() else one_each,
    )


def _pairs_of_folds(rows: Sequence[Folds]) -> _Pairs:
    """What is known of the difference of each pair of rows over the same J folds.

    The variance of its mean is that over the folds times 1/J + ratio (Nadeau and Bengio 2003): with
    1/J alone, folds that share training images would count as independent. Differences are whole
    images, so that a few folds can agree by chance: they are never known better than to one image.
    """
    first, second = np.triu_indices(len(rows), 1)
    accuracies = np.stack([row.accuracies for row in rows])
    folds = accuracies.shape[1]
    ratios = np.array([row.ratio for row in rows])
    images = np.array([row.images for row in rows], dtype=float)
    apart = accuracies[first] - accuracies[second]
    least = 1 / np.minimum(images[first], images[second]) ** 2
    spread = np.maximum(np.var(apart, axis=1, ddof=1), least)
    factor = 1 / folds + np.maximum(ratios[first], ratios[second])
    pairs = len(first)
    return _Pairs(
        mean=apart.mean(axis=1),
        variances=(factor * spread)[None],
        freedom=np.full((1, pairs), folds - 1.0),
        least=np.zeros(pairs),
        exact=np.zeros(pairs, dtype=bool),
        tested=np.ones(pairs, dtype=bool),
    )


def _discordant(a: Sample, b: Sample) -> tuple[int, int]:
    """On how many images more seeds of A were right than of B, and the other way round."""
    assert a.correct is not None
    assert b.correct is not None
    return int(np.sum(a.correct > b.correct)), int(np.sum(b.correct > a.correct))


def _products(correct: Sequence[np.ndarray | None]) -> np.ndarray:
    """(k, k) sums over the images of the products of each two rows' shares."""
    known = [shares for shares in correct if shares is not None]
    products = np.zeros((len(known), len(known)))
    for start in range(0, len(known[0]), _CHUNK):
        part = np.stack([shares[start : start + _CHUNK] for shares in known], dtype=float)
        products += part @ part.T
    return products
