"""Accuracy against what it costs: parameters, or training time on one hardware."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fmbench.grid import MARGIN, SOFT
from fmbench.report import formats
from fmbench.report.columns import Row
from fmbench.report.escape import one_line
from fmbench.report.figure import Figure
from fmbench.report.figures.axis import Axis, log_axis, plain_axis
from fmbench.report.figures.names import apart, net
from fmbench.report.figures.placing import place
from fmbench.report.figures.sheet import (
    BLUE, GREY, HEADING, LABELS, LEFT, LINE, ORANGE, RED, RIGHT, TICK, WIDTH, Sheet, drawing,
    fitted, width_of,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 380
MOST_NAMES = 14
WIDEST_NAME = 230

# Rows far worse than most would leave no room for what tells the others apart: so many times the
# distance from the best to the worst but a quarter is drawn.
REACH = 3

MOST_HARDWARE = 3
LONGEST_HARDWARE = 60

MINUTE, HOUR, DAY = 60, 3600, 86_400
_TIMES = (
    *(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, MINUTE, 3 * MINUTE, 10 * MINUTE, 30 * MINUTE),
    *(HOUR, 3 * HOUR, 10 * HOUR, DAY, 3 * DAY, 10 * DAY, 30 * DAY, 100 * DAY),
)


@dataclass(frozen=True)
class _Cost:
    """What accuracy is drawn against.

    Attributes:
        key: Of the rows.
        label: Of its axis.
        words: In a sentence.
        show: Makes the text of a value.
        places: Of ticks.
    """

    key: str
    label: str
    words: str
    show: Callable[[float], str]
    places: Sequence[float] | None = None


def _size(value: float) -> str:
    """Parameters with a metric prefix: 61.7 k."""
    for prefix, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{value / unit:.3g} {prefix}"
    return f"{value:g}"


def _time(seconds: float) -> str:
    """A round time: 30 s, 10 min, 3 h."""
    for name, unit in (("d", DAY), ("h", HOUR), ("min", MINUTE)):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"


PARAMETERS = _Cost("parameters", "parameters", "parameters", _size)
TIME = _Cost("seconds_train", "training time", "training time", _time, _TIMES)


def accuracy_parameters(rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """Test accuracy against parameters; None where there is only one size of net."""
    return _figure(PARAMETERS, rows, data, name)


def accuracy_time(rows: Sequence[Row], data: str) -> Iterator[Callable[[str], Figure | None]]:
    """Test accuracy against training time, a figure for each hardware: those with most rows.

    Yields:
        What draws one, given its name.
    """
    hardware = [formats.hardware(row["device"], row["precision"]) for row in rows]
    most = [name for name, _ in Counter(hardware).most_common(MOST_HARDWARE)]
    for where in most:
        part = [row for row, name in zip(rows, hardware, strict=True) if name == where]
        others = len(rows) - len(part)

        def draw(name: str, part: list[Row] = part, where: str = where, others: int = others) -> (
            Figure | None
        ):
            return _figure(TIME, part, data, name, where, others)

        yield draw


def front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """The Pareto front: points to which no other is at least as good in both and better in one.

    Args:
        costs: The less the better.
        accuracies: The more the better.

    Returns:
        Their places, the cheapest first.
    """
    order = sorted(range(len(costs)), key=lambda n: (costs[n], -accuracies[n]))
    found: list[int] = []
    for n in order:
        if not found or accuracies[n] > accuracies[found[-1]]:
            found.append(n)
        elif (costs[n], accuracies[n]) == (costs[found[-1]], accuracies[found[-1]]):
            found.append(n)
    return found


def _figure(
    cost: _Cost, rows: Sequence[Row], data: str, name: str, where: str = "", others: int = 0
) -> Figure | None:
    rows = [row for row in rows if row[cost.key] is not None and row[cost.key] > 0]
    costs = [float(row[cost.key]) for row in rows]
    if len(set(costs)) < 2:
        return None
    accuracies = [100 * row["test_accuracy"] for row in rows]
    best = front(costs, accuracies)
    named = _named(rows, best)
    x = log_axis(costs, cost.label, show=cost.show, places=cost.places)
    y = _accuracy_axis(accuracies, [_interval(row) for row in rows])
    height = MARGIN + HEADING + HEIGHT + LABELS + LINE + MARGIN
    box = (LEFT, MARGIN + HEADING, WIDTH - LEFT - RIGHT, HEIGHT)
    title = f"Test accuracy against {cost.words}"
    title += f": {one_line(where, LONGEST_HARDWARE)}" if where else ""
    with drawing(name, height) as sheet:
        sheet.heading(MARGIN, "Test accuracy (%)")
        axes = sheet.axes(box, x, y)
        entries = _points(axes, y, rows, costs, accuracies, best)
        _write_names(sheet, box, x, y, costs, accuracies, named)
        sheet.entries(height - MARGIN - LINE, *entries)
        png, svg = sheet.saved(title)
    caption = (
        f"One point a row: its mean over the seeds, with a 95 % interval where it has several. "
        f"On the Pareto front no other row has both a higher accuracy and less {cost.words}."
    )
    if where:
        caption += f" Rows of {one_line(where, LONGEST_HARDWARE)} alone"
        caption += f"; {others:,} of other hardware are not compared." if others else "."
    if len(named) < len(rows):
        caption += f" {len(rows):,} rows; named are those on the front and the best of each net."
    ends = "; ".join(
        f"{net(rows[n])} {accuracies[n]:.2f} % with {_said(cost, costs[n])}" for n in best[:8]
    )
    alt = f"Test accuracy against {cost.words} of {len(rows):,} rows. Pareto front: {ends}."
    return Figure(name, data, title, caption, alt, png, svg)


def _said(cost: _Cost, value: float) -> str:
    return formats.duration(value) if cost is TIME else f"{_size(value)} parameters"


def _named(rows: Sequence[Row], best: Sequence[int]) -> dict[int, str]:
    """What is written at which points: the front, then the best row of each net."""
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(net(row), number)
    # The best accuracy matters most where there is no room for all.
    chosen = list(dict.fromkeys([*reversed(best), *first.values()]))[:MOST_NAMES]
    alike: dict[str, list[int]] = {}
    for number in chosen:
        alike.setdefault(net(rows[number]), []).append(number)
    said = {}
    for name, numbers in alike.items():
        if len(numbers) == 1:
            said[numbers[0]] = name
            continue
        for number, text in zip(numbers, apart([rows[n] for n in numbers]), strict=True):
            said[number] = f"{name}, {text}" if text else name
    return {number: said[number] for number in chosen}


def _interval(row: Row) -> tuple[float, float] | None:
    low, high = row.get("test_accuracy_low"), row.get("test_accuracy_high")
    return None if low is None or high is None else (100 * low, 100 * high)


def _accuracy_axis(
    accuracies: Sequence[float], intervals: Sequence[tuple[float, float] | None]
) -> Axis:
    known = [value for interval in intervals if interval for value in interval]
    low, high = min(accuracies), max(accuracies)
    reach = REACH * (high - float(np.quantile(accuracies, 0.25)))
    if reach > 0:
        low = max(low, high - reach)
    span = high - low or 1.0
    # Of an interval of two seeds, which may reach anywhere, no more than twice what the means do.
    low = min([low, *(max(value, low - span) for value in known)])
    high = max([high, *(min(value, high + span, 100.0) for value in known)])
    return plain_axis(low - 0.08 * (high - low or 1), high + 0.08 * (high - low or 1))


def _points(
    axes: "Axes",
    y: Axis,
    rows: Sequence[Row],
    costs: Sequence[float],
    accuracies: Sequence[float],
    best: Sequence[int],
) -> list[tuple[str, str, str]]:
    on = set(best)
    intervals = [(n, interval) for n, row in enumerate(rows) if (interval := _interval(row))]
    # Of thousands of rows the bars would hide all else.
    shown = [pair for pair in intervals if len(rows) <= 100 or pair[0] in on]
    for n, (low, high) in shown:
        colour = RED if n in on else BLUE
        axes.plot([costs[n]] * 2, [low, high], color=colour, lw=1.4, alpha=0.55)
    path = [(costs[n], accuracies[n]) for n in best]
    axes.plot(*zip(*path, strict=True), drawstyle="steps-post", color=ORANGE, lw=1.6)
    rest = [n for n in range(len(rows)) if n not in on]
    low = [n for n in rest if accuracies[n] < y.low]
    rest = [n for n in rest if accuracies[n] >= y.low]
    alpha = 0.85 if len(rows) <= 100 else 0.4
    thin = _thinned(axes, [(costs[n], accuracies[n]) for n in rest])
    style = {"ls": "none", "mew": 0}
    axes.plot(*thin, marker="o", color=BLUE, ms=6.5, alpha=alpha, **style)
    axes.plot([costs[n] for n in low], [y.low] * len(low), marker="v", color=GREY, ms=7, **style)
    axes.plot(*zip(*path, strict=True), marker="o", color=RED, ms=8.5, **style)
    entries = [("Pareto front", RED, "o")]
    entries += [("other rows", BLUE, "o")] if rest else []
    entries += [("95 % interval over the seeds", SOFT, "|")] if shown else []
    entries += [("below the axis", GREY, "v")] if low else []
    return entries


def _thinned(axes: "Axes", points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Points less those that would lie on another to the pixel."""
    if not points:
        return [], []
    pixels = np.round(axes.transData.transform(points) / 3).astype(int)
    kept = dict(zip(map(tuple, pixels.tolist()), points, strict=True))
    return [x for x, _ in kept.values()], [y for _, y in kept.values()]


def _write_names(
    sheet: Sheet,
    box: tuple[float, float, float, float],
    x: Axis,
    y: Axis,
    costs: Sequence[float],
    accuracies: Sequence[float],
    named: dict[int, str],
) -> None:
    left, top, width, height = box
    across = np.log(np.array(costs) / x.low) / np.log(x.high / x.low)
    down = (y.high - np.array(accuracies)) / (y.high - y.low)
    places = np.stack([left + width * across, top + height * np.clip(down, 0, 1)], axis=1)
    texts = {n: fitted(text, WIDEST_NAME, TICK) for n, text in named.items()}
    others = np.delete(places, list(texts), axis=0)
    points = [tuple(places[n]) for n in texts]
    found = place(points, [width_of(text, TICK) for text in texts.values()], others, box)
    for (n, text), at in zip(texts.items(), found, strict=True):
        if at is None:
            continue
        if at.line:
            end = min(max(places[n][0], at.left), at.left + width_of(text, TICK))
            sheet.line(tuple(places[n]), (end, at.middle), GREY)
        sheet.write(at.left, at.middle, text, TICK)
