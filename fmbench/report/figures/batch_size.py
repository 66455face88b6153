"""What the batch size does, where rows differ in it alone."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from fmbench.core.errors import one_line
from fmbench.grid import MARGIN
from fmbench.report.figure import Figure
from fmbench.report.figures.axis import Axis, log_axis, plain_axis, span_of
from fmbench.report.figures.evidence import interval
from fmbench.report.figures.names import recipe
from fmbench.report.figures.sheet import (
    BLUE,
    HEADING,
    LABELS,
    RIGHT,
    TICK,
    WIDTH,
    Sheet,
    drawing,
    width_of,
)
from fmbench.report.table import formats
from fmbench.report.table.columns import Row
from fmbench.report.table.describe import settings_of

PANEL, ROOM = 200, 64  # height of a panel; before each, for its numbers

# Each has its whole config looked at.
MOST_ROWS = 1_000

UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


def batch_size(net: str, rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """Accuracy, training time and images/s by batch size; None where no two rows compare.

    Args:
        net: Its name.
        rows: Of it, the best first.
        data: The data set.
        name: Of the files.
    """
    series = alike(rows)
    if len(series) < 2:
        return None
    height = MARGIN + HEADING + PANEL + LABELS + MARGIN - 8
    title = f"{one_line(net, 60)}: batch size"
    with drawing(name, height) as sheet:
        _draw(sheet, series)
        png, svg = sheet.saved(title)
    others = recipe(series[0]).partition(", ")[2]
    seeds = sorted({row["n"] for row in series})
    n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    caption = f"Rows that differ in their batch size alone ({others}); means over n = {n} seeds"
    caption += ", the bars 95 % intervals." if any(map(interval, series)) else "."
    said = [
        f"batch size {row['batch_size']}: {formats.percent(row['test_accuracy'])} %"
        f", {formats.duration(row['seconds_train'])}, {formats.rate(row['images_per_second'])}"
        " images/s"
        for row in series
    ]
    alt = f"Test accuracy, training time and speed by batch size. {'; '.join(said)}."
    return Figure(name, data, title, caption, alt, png, svg)


def alike(rows: Sequence[Row]) -> list[Row]:
    """The most rows that differ in nothing but the batch size, by batch size.

    Where two such series are as long, the one with the better row.
    """
    series: dict[tuple[object, ...], dict[int, Row]] = defaultdict(dict)
    for row in rows[:MOST_ROWS]:
        said = settings_of(row)
        said.pop("batch_size", None)
        chosen = (row["split"], row["augmentation"], row["optimizer"], row["learning_rate"])
        key = (*chosen, row["epochs"], tuple(sorted(said.items())))
        if row["batch_size"]:
            series[key].setdefault(row["batch_size"], row)
    longest = max(series.values(), key=len, default={})
    return [longest[size] for size in sorted(longest)]


def _draw(sheet: Sheet, series: Sequence[Row]) -> None:
    accuracies = [100 * row["test_accuracy"] for row in series]
    seconds = [row["seconds_train"] for row in series]
    unit, size = next((u for u in UNITS if max(s or 0 for s in seconds) >= 2 * u[1]), UNITS[-1])
    times = [None if value is None else value / size for value in seconds]
    speeds = [row["images_per_second"] for row in series]
    _panel(sheet, 0, series, accuracies, _around(series, accuracies))
    _panel(sheet, 1, series, times, _from_zero(times, f"Training time ({unit})"))
    _panel(sheet, 2, series, speeds, _from_zero(speeds, "Training images/s", formats.count))


def _panel(
    sheet: Sheet, place: int, series: Sequence[Row], values: Sequence[float | None], y: Axis
) -> None:
    room = (WIDTH - RIGHT) / 3
    left = place * room + ROOM
    sizes = [float(row["batch_size"]) for row in series]
    x = log_axis(sizes, "batch size", show=lambda size: f"{size:.0f}", places=[sizes])
    x = replace(x, ticks=_apart(x, room - ROOM))
    axes = sheet.axes((left, MARGIN + HEADING, room - ROOM, PANEL), x, y)
    sheet.heading(MARGIN, y.label, left=left - ROOM + MARGIN)
    known = [(at, value) for at, value in zip(sizes, values, strict=True) if value is not None]
    axes.plot(
        [at for at, _ in known], [value for _, value in known],
        color=BLUE, lw=2, marker="o", ms=7, mew=0,
    )  # fmt: skip
    for row, at in zip(series, sizes, strict=True):
        ends = interval(row)
        if place == 0 and ends is not None:
            axes.plot([at, at], ends, color=BLUE, lw=1.6, alpha=0.6)


def _apart(axis: Axis, room: float) -> tuple[tuple[float, str], ...]:
    """The ticks of a logarithmic axis, without the texts that would run into others."""
    kept, end = [], -math.inf
    for at, text in axis.ticks:
        middle = room * math.log(at / axis.low) / math.log(axis.high / axis.low)
        wide = width_of(text, TICK)
        fits = middle - wide / 2 > end + 6
        end = middle + wide / 2 if fits else end
        kept.append((at, text if fits else ""))
    return tuple(kept)


def _around(series: Sequence[Row], accuracies: Sequence[float]) -> Axis:
    ends = [end for row in series for end in interval(row) or ()]
    low, high = min(accuracies), max(accuracies)
    span = span_of(accuracies)
    # An interval of two seeds may reach anywhere.
    low = min([low, *(max(end, low - 2 * span) for end in ends)])
    high = max([high, *(min(end, high + 2 * span) for end in ends)])
    return plain_axis(low - 0.1 * span, high + 0.1 * span, "Test accuracy (%)")


def _from_zero(
    values: Sequence[float | None], label: str, show: Callable[[float], str] | None = None
) -> Axis:
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    return plain_axis(0, 1.1 * most, label, show=show)
