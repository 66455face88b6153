"""What the batch size does, where rows differ in it alone."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fmbench.core.errors import one_line
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.figures.rows import recipe
from fmbench.report.table import formats
from fmbench.report.table.columns import Row
from fmbench.report.table.describe import settings_of

# Each has its whole config looked at.
MOST_ROWS = 1_000
MOST_TICKS = 5


def batch_size(
    model: str, rows: Sequence[Row], data: str, name: str, _budget: object = None
) -> Figure | None:
    """Accuracy, training time and images/s by batch size; None where no two rows compare."""
    series = alike(rows)
    if len(series) < 2:
        return None
    others = recipe(series[0]).partition(", ")[2]
    fewest, most = (end(row["n"] for row in series) for end in (min, max))
    n = f"n = {most}" if fewest == most else f"n = {fewest} to {most}"
    caption = f"Rows that differ in their batch size alone ({others}). "
    caption += f"Means over {n} seeds, with the 95 % interval." if most > 1 else "One seed a row."
    said = [
        f"batch size {row['batch_size']}: {formats.percent(row['test_accuracy'])} %"
        f", {formats.duration(row['seconds_train'])}"
        f", {formats.rate(row['images_per_second'])} images/s"
        for row in series
    ]
    alt = f"Test accuracy, training time and speed by batch size. {'; '.join(said)}."
    title = f"{one_line(model, style.LONGEST)}: batch size"
    sizes = [row["batch_size"] for row in series]
    unit, seconds = style.time_unit([row["seconds_train"] or 0.0 for row in series])
    with style.drawing(name, 3) as figure:
        accuracy, time, speed = figure.subplots(1, 3)
        accuracies, bars = style.accuracy_axis(accuracy, series)
        accuracy.vlines(sizes, *bars.T, color=style.BLUE, lw=1.6, alpha=0.6)
        _panel(accuracy, "Test accuracy (%)", sizes, accuracies)
        times = style.column(series, "seconds_train") / seconds
        speeds = style.column(series, "images_per_second")
        _panel(time, f"Training time ({unit})", sizes, times)
        _panel(speed, "Training images/s", sizes, speeds)
        speed.yaxis.set_major_formatter("{x:,g}")
        for axes, values in ((time, times), (speed, speeds)):
            axes.set_ylim(0, 1.1 * np.nanmax([0.1, *values]))
        return style.saved(figure, name, data, title, caption, alt)


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


def _panel(axes: "style.Axes", title: str, sizes: Sequence[int], values: style.Numbers) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.plot(sizes, values, "o-", color=style.BLUE)
    axes.set(title=title, xlabel="batch size", xscale="log")
    axes.xaxis.set_major_locator(FixedLocator(sizes, nbins=MOST_TICKS))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
