"""The best of a search after 1, 2, ... of its trials."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from fmbench.records.trials import COMPLETE, Search

#: Numbers of trials after which the expected best is computed: each takes time by all trials.
MOST_COUNTS = 500

#: Samplers that draw each trial without looking at the others.
_BLIND = ("RandomSampler", "QMCSampler")


class Curve(NamedTuple):
    """The best after 1, 2, ... trials, (n,) each: what is expected, and the ends of a band."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def is_drawn_blindly(sampler: str) -> bool:
    """Whether a sampler draws each trial without looking at the others."""
    return sampler in _BLIND


def best_after(searches: Sequence[Search]) -> Curve:
    """The best after k trials of some searches for one contestant.

    Where trials are drawn blindly their order means nothing: the mean is over all orders of a
    search's trials, the band has 80 of 100 orders, and both are means over the searches. That is
    after Dodge et al. (2019, "Show Your Work: Improved Reporting of Experimental Results"), who
    draw with replacement, so that their curve ends below the best that was found. Of other samplers
    it is the best of the first k trials in the order run; the band has all searches.

    Args:
        searches: at least one, with a complete trial each.
    """
    curves = [
        _over_orders(search) if is_drawn_blindly(search.sampler) else _in_order(search)
        for search in searches
        if search.best
    ]
    length = min(len(curve.mean) for curve in curves)
    mean, low, high = (
        np.stack([getattr(curve, name)[:length] for curve in curves]) for name in Curve._fields
    )
    if is_drawn_blindly(searches[0].sampler):
        return Curve(mean.mean(axis=0), low.mean(axis=0), high.mean(axis=0))
    return Curve(mean.mean(axis=0), mean.min(axis=0), mean.max(axis=0))


def _values(search: Search) -> np.ndarray:
    """What the trials reached, in the order run; the worst where one has no value."""
    sign = search.objectives[0].sign
    trials = sorted(search.trials, key=lambda trial: trial.number)
    known = [sign * t.values[0] for t in trials if t.state == COMPLETE and t.values]
    return np.array([
        sign * t.values[0] if t.state == COMPLETE and t.values else min(known) for t in trials
    ])  # fmt: skip


def _in_order(search: Search) -> Curve:
    best = search.objectives[0].sign * np.maximum.accumulate(_values(search))
    return Curve(best, best, best)


def _over_orders(search: Search) -> Curve:
    """By the chance that the i-th smallest of n is the best of k: C(i - 1, k - 1) / C(n, k).

    Of many trials that is for some k, and in between on straight lines.
    """
    values = np.sort(_values(search))
    n = len(values)
    places, rows = np.arange(1, n + 1), []
    some = places if n <= MOST_COUNTS else np.unique(np.geomspace(1, n, MOST_COUNTS).round())
    for k in some:
        # Logarithms: of 1,000 trials the numbers themselves are beyond a double.
        below = special.gammaln(places + 1) - special.gammaln(np.maximum(places - k, 0) + 1)
        chance = np.where(places >= k, np.exp(below - below[-1]), 0.0)  # that it is no better
        low, high = (values[np.searchsorted(chance, share)] for share in (0.1, 0.9))
        rows.append((float(np.diff(chance, prepend=0.0) @ values), low, high))
    sign = search.objectives[0].sign
    mean, low, high = (sign * np.interp(places, some, column) for column in zip(*rows, strict=True))
    return Curve(mean, np.minimum(low, high), np.maximum(low, high))
