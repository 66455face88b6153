"""Repeated seeds to mean, interval and ties: what a difference of two accuracies is worth.

Two things are uncertain about a test accuracy: which images the test set happens to hold, and which
seed the model was trained from. Where both rows predicted the same images, their predictions are
compared image by image, which removes what is hard or easy for both (the paired comparison of
McNemar 1947; for classifiers, Dietterich 1998, section 3.1). Where there are several seeds, their
spread comes on top (Bouthillier et al. 2021, "Accounting for Variance in Machine Learning
Benchmarks", section 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    """The test accuracies of one row, a seed each.

    Attributes:
        accuracies: (n,) shares from 0 to 1.
        images: How many test images they are of.
        test_set: Names the test images and their order; None where that is not known.
        correct: (N,) for each image the share of the seeds that had it right; None where that is
            not known.
    """

    accuracies: np.ndarray = field(repr=False)
    images: int
    test_set: str | None = None
    correct: np.ndarray | None = field(default=None, repr=False)

    def is_paired(self, other: "Sample") -> bool:
        """Whether both have predictions for the same images."""
        known = self.correct is not None and other.correct is not None
        return known and self.test_set is not None and self.test_set == other.test_set


#: What a difference of two rows may be about. Recipes vary with their seeds, so that each needs
#: several. Of one seed each it is about two trained models. One against several is about neither.
RECIPES, MODELS, NEITHER = "recipes", "models", "neither"


@dataclass(frozen=True)
class Difference:
    """How much more accurate one row is than another.

    Attributes:
        mean: A's mean accuracy less B's.
        low: Lower end of its 95 % interval; NaN where it is about neither.
        high: Upper end; likewise.
        p: Of the hypothesis that there is no difference, two-sided; likewise.
        paired: Predictions were compared image by image.
        about: `RECIPES`, `MODELS` or `NEITHER`.
    """

    mean: float
    low: float
    high: float
    p: float
    paired: bool
    about: str


def t_half_width(deviation: np.ndarray | float, n: np.ndarray | float) -> np.ndarray:
    """Half the 95 % interval of a mean, by Student's t with n - 1 degrees of freedom.

    Args:
        deviation: Standard deviations, with n - 1 in the denominator.
        n: How many values each is of; of one there is no interval.

    Returns:
        NaN where n is 1.
    """
    n = np.asarray(n, dtype=float)
    quantile = special.stdtrit(np.maximum(n - 1, 1), (1 + CONFIDENCE) / 2)
    width = quantile * np.asarray(deviation, dtype=float) / np.sqrt(n)
    return np.where(n > 1, width, np.nan)


def one_more(values: Sequence[float]) -> tuple[float, float] | None:
    """Where one more run would land in 95 of 100 cases, by Student's t.

    What a figure of one run is held against: the interval of the mean says where the mean lies, and
    single runs fall beside it (Hahn and Meeker 1991, Statistical Intervals, chapter 4).

    Args:
        values: (n,) a figure of each run.

    Returns:
        The ends of the interval; None where there are fewer than two runs.
    """
    n = len(values)
    if n < 2:
        return None
    known = np.asarray(values, dtype=float)
    half = float(t_half_width(known.std(ddof=1), n)) * (n + 1) ** 0.5
    return float(known.mean() - half), float(known.mean() + half)


def mcnemar(only_a: np.ndarray | int, only_b: np.ndarray | int) -> np.ndarray:
    """The exact two-sided p of McNemar's test.

    Args:
        only_a: Images that A alone has right.
        only_b: Images that B alone has right.

    Returns:
        The probability, if both were equally good, of a split of these images at least as uneven.
    """
    only_a, only_b = np.asarray(only_a, dtype=float), np.asarray(only_b, dtype=float)
    tail = special.bdtr(np.minimum(only_a, only_b), (only_a + only_b).astype(np.int64), 0.5)
    return np.asarray(np.minimum(2 * tail, 1.0))


def holm(p: np.ndarray) -> np.ndarray:
    """The p of several tests, corrected for their number (Holm 1979).

    Args:
        p: (k,) of one test each.

    Returns:
        (k,) to be compared with the level itself.
    """
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
    mean = float(pair.mean[0])
    several = [len(sample.accuracies) > 1 for sample in (a, b)]
    about = (MODELS, NEITHER, RECIPES)[sum(several)]
    if about == NEITHER:
        return Difference(mean, np.nan, np.nan, np.nan, a.is_paired(b), about)
    half = float(half_width(pair.variances, pair.freedom, 1 - CONFIDENCE)[0])
    low, high = mean - half, mean + half
    if about == MODELS and a.is_paired(b) and a.correct is not None and b.correct is not None:
        only_a = int(np.sum(a.correct > b.correct))
        apart = only_a + int(np.sum(b.correct > a.correct))
        ends = [2 * share - 1 for share in _clopper_pearson(only_a, apart)]
        low, high = (apart / a.images * end for end in ends)
    p = float(pair.p[0])
    return Difference(mean, max(low, -1.0), min(high, 1.0), p, a.is_paired(b), about)


def _clopper_pearson(hits: int, count: int) -> tuple[float, float]:
    """The exact 95 % interval of a share."""
    tail = (1 - CONFIDENCE) / 2
    low = float(special.betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return low, high


def ranks(samples: Sequence[Sample], *, level: float = 1 - CONFIDENCE) -> list[int]:
    """The rank of each row: 1, and one more for each row that is better beyond doubt.

    That is by a test of each pair, all of them corrected by Holm's method. Two rows whose own test
    tells nothing may yet have different ranks: a third row can be better than one of them alone.
    Rows of several seeds are compared, as recipes; where there are not two of those, rows of one
    seed are, as trained models. The others have rank 1, for nothing is known against them.

    Args:
        samples: One a row.
        level: Of error, over all pairs together: the most that the chance may be that any two rows
            without a difference are told apart.
    """
    pairs = _pairs(samples)
    tested, rejected = int(pairs.tested.sum()), 0
    apart = np.zeros(len(pairs.mean), dtype=bool)
    # Holm's steps, all pairs that pass one at once: those that are left need less correction.
    while rejected < tested:
        apart = pairs.apart(level / (tested - rejected))
        if apart.sum() == rejected:
            break
        rejected = int(apart.sum())
    first, second = np.triu_indices(len(samples), 1)
    worse = np.where(pairs.mean > 0, second, first)[apart]
    return [1 + int(better) for better in np.bincount(worse, minlength=len(samples))]


def half_width(variances: np.ndarray, freedom: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    """Half the interval of a sum of independent estimates: their own half widths, as squares.

    It holds its level whatever the variances are (Banerjee 1960, Sankhya 22, 357-358): the chance
    to lie outside is, given the estimated variances, a convex function of their weighted mean, so
    that it is at most the weighted mean of what each part's own interval misses, which is `level`.
    That of Welch does not, where one part is known well and the other is small by luck.

    Args:
        variances: (m, ...) of the mean of each part.
        freedom: (m, ...) degrees of freedom of each variance.
        level: (...) what the interval misses, from 0 to 1.

    Returns:
        (...) half widths.
    """
    quantiles = special.stdtrit(freedom, np.asarray(level) / 2)
    return np.asarray(np.sqrt(np.sum(quantiles**2 * variances, axis=0)))


@dataclass(frozen=True)
class _Pairs:
    """All pairs of some rows, in the order of `numpy.triu_indices`.

    Attributes:
        mean: (k,) differences of the means.
        variances: (3, k) of them: over the images, over the seeds of either row.
        freedom: (3, k) degrees of freedom of these.
        least: (k,) by an exact test, what p is at least.
        exact: (k,) the exact test is all there is: two single models.
        tested: (k,) both rows have several seeds; or both have one, and no two have several.
    """

    mean: np.ndarray
    variances: np.ndarray
    freedom: np.ndarray
    least: np.ndarray
    exact: np.ndarray
    tested: np.ndarray

    def beyond(self, level: np.ndarray | float) -> np.ndarray:
        """(k,) whether the intervals at a level leave out 0."""
        return np.asarray(np.abs(self.mean) > half_width(self.variances, self.freedom, level))

    def apart(self, level: float) -> np.ndarray:
        """(k,) whether p is below a level."""
        return np.asarray(self.tested & (self.exact | self.beyond(level)) & (self.least < level))

    @property
    def p(self) -> np.ndarray:
        """(k,) the level from which on each pair is told apart; NaN where there is no test."""
        # Of their logarithms; 2^-50 of the range is the twelfth digit.
        low, high = np.full(len(self.mean), _LEAST_P), np.zeros(len(self.mean))
        for _ in range(50):
            middle = (low + high) / 2
            beyond = self.beyond(np.exp(middle))
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        p = np.where(self.exact | (low == _LEAST_P), 0.0, np.exp(high))
        return np.where(self.tested, np.maximum(p, self.least), np.nan)


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
    for members in _test_sets(samples):
        inside = np.isin(first, members) & np.isin(second, members)
        at = {member: place for place, member in enumerate(members)}
        row = np.array([at[member] for member in first[inside]], dtype=int)
        column = np.array([at[member] for member in second[inside]], dtype=int)
        products = _products([samples[member].correct for member in members])
        squares = np.diag(products)
        count = images[members[0]]
        sums = squares[row] + squares[column] - 2 * products[row, column]
        variance = np.maximum(sums - count * mean[inside] ** 2, 0) / max(count - 1, 1)
        over_images[inside] = variance / count
        exact[inside] = one_each[inside]
        least[inside] = np.where(
            one_each[inside],
            mcnemar(
                np.rint(squares[row] - products[row, column]),
                np.rint(squares[column] - products[row, column]),
            ),
            0.0,
        )
        for place in np.flatnonzero(inside)[(sums < _FEW) & ~one_each[inside]]:
            least[place] = _sign_test(samples[first[place]], samples[second[place]])

    own = [np.var(s.accuracies, ddof=1) if len(s.accuracies) > 1 else 0.0 for s in samples]
    over_seeds = np.array(own, dtype=float) / n
    freedom = np.maximum(n - 1, 1)
    return _Pairs(
        mean=mean,
        variances=np.stack([over_images, over_seeds[first], over_seeds[second]]),
        freedom=np.stack(
            [
                np.maximum(np.minimum(images[first], images[second]) - 1, 1),
                freedom[first],
                freedom[second],
            ]
        ),
        least=least,
        exact=exact,
        tested=several if several.any() else one_each,
    )


def _sign_test(a: Sample, b: Sample) -> float:
    """The exact p for few discordant images, where the normal approximation fails."""
    assert a.correct is not None
    assert b.correct is not None
    return float(mcnemar(int(np.sum(a.correct > b.correct)), int(np.sum(b.correct > a.correct))))


def _test_sets(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of the samples with predictions, by test set."""
    places: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        if sample.is_paired(sample) and sample.test_set is not None:
            places.setdefault(sample.test_set, []).append(place)
    return [members for members in places.values() if len(members) > 1]


def _products(correct: Sequence[np.ndarray | None]) -> np.ndarray:
    """(k, k) sums over the images of the products of each two rows' shares."""
    known = [shares for shares in correct if shares is not None]
    products = np.zeros((len(known), len(known)))
    for start in range(0, len(known[0]), _CHUNK):
        part = np.stack([shares[start : start + _CHUNK] for shares in known]).astype(float)
        products += part @ part.T
    return products
