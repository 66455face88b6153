"""Rows as points: accuracy against what it costs, the Pareto front among them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fmbench.grid import SOFT
from fmbench.report.figures.axis import Axis, plain_axis, span_of
from fmbench.report.figures.evidence import interval
from fmbench.report.figures.names import apart, net
from fmbench.report.figures.placing import place
from fmbench.report.figures.sheet import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    TICK,
    Box,
    Entry,
    Sheet,
    fitted,
    width_of,
)  # fmt: skip
from fmbench.report.table.columns import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMES = 14
WIDEST_NAME = 320
# Of more than these on the front, each net is named once.
MOST_TOLD_APART = 8

# Rows far worse than most would leave no room for what tells the others apart: so many times the
# distance from the best to the worst but a quarter is drawn, and whatever has a name.
REACH = 2

# More make an SVG that a page is slow with, and look the same.
MOST_POINTS = 2_000

# Of more rows the bars of their intervals would hide all else.
MOST_BARS = 100


def front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """The Pareto front: points to which no other is at least as good in both and better in one.

    Args:
        costs: The less the better.
        accuracies: The more the better.

    Returns:
        Their places, the cheapest first.
    """
    points = list(zip(costs, accuracies, strict=True))
    found: list[int] = []
    for n in sorted(range(len(points)), key=lambda n: (costs[n], -accuracies[n])):
        last = points[found[-1]] if found else None
        if last is None or accuracies[n] > last[1] or points[n] == last:
            found.append(n)
    return found


@dataclass(frozen=True)
class Points:
    """What is drawn: rows, the best first, each with what it costs."""

    rows: Sequence[Row]
    costs: Sequence[float]

    @cached_property
    def accuracies(self) -> list[float]:
        """In percent."""
        return [100 * row["test_accuracy"] for row in self.rows]

    @cached_property
    def front(self) -> list[int]:
        """The places of the rows on the Pareto front, the cheapest first."""
        return front(self.costs, self.accuracies)

    @cached_property
    def names(self) -> dict[int, str]:
        """What is written at which row: those of the front, then the best row of each net.

        Rows of one net are told apart as long as there is room for that.
        """
        first: dict[str, int] = {}
        for number in (*reversed(self.front), *range(len(self.rows))):
            first.setdefault(net(self.rows[number]), number)
        once = {number: name for name, number in list(first.items())[:MOST_NAMES]}
        alike: dict[str, list[int]] = {}
        for number in (*self.front, *(n for n in once if n not in self.front)):
            alike.setdefault(net(self.rows[number]), []).append(number)
        said = {}
        for name, numbers in alike.items():
            # From all of the net, with a name or without.
            members = [n for n, row in enumerate(self.rows) if net(row) == name]
            texts = dict(zip(members, apart([self.rows[n] for n in members]), strict=True))
            for number in numbers:
                said[number] = f"{name}, {texts[number]}" if texts[number] else name
        wide = any(width_of(text, TICK) > WIDEST_NAME for text in said.values())
        if wide or len(self.front) > MOST_TOLD_APART:
            return once
        # The best accuracy matters most where there is no room for all.
        chosen = sorted(said, key=lambda n: (n not in self.front, -self.accuracies[n]))
        return {number: said[number] for number in chosen[:MOST_NAMES]}

    @cached_property
    def intervals(self) -> dict[int, tuple[float, float]]:
        """The 95 % intervals that are drawn, in percent."""
        shown = range(len(self.rows)) if len(self.rows) <= MOST_BARS else self.front
        return {n: found for n in shown if (found := interval(self.rows[n])) is not None}


def accuracy_axis(points: Points) -> Axis:
    """The axis of accuracies: all that have a name, and of the others most."""
    low, high = min(points.accuracies), max(points.accuracies)
    reach = REACH * (high - float(np.quantile(points.accuracies, 0.25)))
    if reach > 0:
        seen = [points.accuracies[n] for n in (*points.front, *points.names)]
        low = min(max(low, high - reach), *seen)
    span = span_of([low, high])
    # Of an interval of two seeds, which may reach anywhere, no more than the means do.
    ends = [ends for n, ends in points.intervals.items() if points.accuracies[n] >= low]
    low = min([low, *(max(end, low - span) for end, _ in ends)])
    high = max([high, *(min(end, high + span, 100.0) for _, end in ends)])
    edge = 0.08 * span_of([low, high])
    return plain_axis(low - edge, high + edge)


def draw_points(axes: "Axes", y: Axis, points: Points) -> list[Entry]:
    """Draw them, and say what the marks mean."""
    on = set(points.front)
    path = [(points.costs[n], points.accuracies[n]) for n in points.front]
    axes.plot(*zip(*path, strict=True), drawstyle="steps-post", color=ORANGE, lw=1.4, alpha=0.75)
    for n, ends in points.intervals.items():
        colour = RED if n in on else BLUE
        axes.plot([points.costs[n]] * 2, ends, color=colour, lw=2.4, alpha=0.6)
    others = [
        (cost, accuracy)
        for n, (cost, accuracy) in enumerate(zip(points.costs, points.accuracies, strict=True))
        if n not in on
    ]
    inside = [point for point in others if point[1] >= y.low]
    foot = y.low + 0.015 * (y.high - y.low)
    beyond = [(cost, foot) for cost, accuracy in others if accuracy < y.low]
    style: dict[str, Any] = {"ls": "none", "mew": 0}
    alpha = 0.85 if len(points.rows) <= MOST_BARS else 0.4
    axes.plot(*_thinned(axes, inside), marker="o", color=BLUE, ms=6.5, alpha=alpha, **style)
    axes.plot(*_thinned(axes, beyond), marker="v", color=GREY, ms=7, **style)
    axes.plot(*zip(*path, strict=True), marker="o", color=RED, ms=8.5, **style)
    entries = [("Pareto front", RED, "o")]
    entries += [("other rows", BLUE, "o")] if inside else []
    entries += [("95 % interval over the seeds", SOFT, "|")] if points.intervals else []
    entries += [("below the axis", GREY, "v")] if beyond else []
    return entries


def write_names(sheet: Sheet, box: Box, x: Axis, y: Axis, points: Points) -> None:
    """Write the names beside their points, none on another and few on other points."""
    left, top, width, height = box
    across = np.log(np.array(points.costs) / x.low) / np.log(x.high / x.low)
    down = (y.high - np.array(points.accuracies)) / (y.high - y.low)
    places = np.stack([left + width * across, top + height * np.clip(down, 0, 1)], axis=1)
    others = [np.delete(places, list(points.names), axis=0)]
    for n, ends in points.intervals.items():
        # An interval of two seeds may reach as far beyond the box as it likes.
        inside = (min(max((y.high - end) / (y.high - y.low), 0), 1) for end in reversed(ends))
        high, low = (top + height * share for share in inside)
        others.append(
            np.array([(places[n][0], at) for at in np.arange(high, low, 6)]).reshape(-1, 2)
        )
    for a, b in itertools.pairwise(points.front):  # the front's line: on, then up
        (x0, y0), (x1, y1) = places[a], places[b]
        others.append(np.array([(at, y0) for at in np.arange(x0, x1, 6)]).reshape(-1, 2))
        others.append(np.array([(x1, at) for at in np.arange(y1, y0, 6)]).reshape(-1, 2))
    texts = [fitted(text, WIDEST_NAME, TICK) for text in points.names.values()]
    spots = [(float(places[n][0]), float(places[n][1])) for n in points.names]
    widths = [width_of(text, TICK) for text in texts]
    found = place(spots, widths, np.concatenate(others), box)
    for text, spot, wide, at in zip(texts, spots, widths, found, strict=True):
        if at is None:
            continue
        if at.line:
            sheet.line(spot, (min(max(spot[0], at.left), at.left + wide), at.middle), GREY)
        sheet.write(at.left, at.middle, text, TICK)


def _thinned(
    axes: "Axes", points: Sequence[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """Points less those that would lie on another, or of thousands as good as that."""
    if not points:
        return [], []
    pixels = axes.transData.transform(points)
    kept: dict[tuple[int, ...], tuple[float, float]] = {}
    for grain in (3, 5, 8, 12):
        cells = map(tuple, np.round(pixels / grain).astype(int).tolist())
        kept = dict(zip(cells, points, strict=True))
        if len(kept) <= MOST_POINTS:
            break
    return [x for x, _ in kept.values()], [y for _, y in kept.values()]
