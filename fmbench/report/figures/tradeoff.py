"""Accuracy against what it costs: parameters, or training time on one hardware."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from fmbench.core.errors import one_line
from fmbench.grid import MARGIN
from fmbench.report.figure import Figure
from fmbench.report.figures.axis import log_axis
from fmbench.report.figures.names import net
from fmbench.report.figures.scatter import Points, accuracy_axis, draw_points, write_names
from fmbench.report.figures.sheet import HEADING, LABELS, LEFT, LINE, RIGHT, WIDTH, drawing
from fmbench.report.table import formats
from fmbench.report.table.columns import Row

HEIGHT = 380
MOST_HARDWARE = 3
LONGEST_HARDWARE = 60
MOST_SAID = 8

# Records may come from strangers: beyond these the ends of a logarithmic axis are no numbers.
_LEAST, _MOST = 1e-6, 1e18

MINUTE, HOUR, DAY = 60, 3600, 86_400
_TIMES = (
    *(0.001, 0.01, 0.1, 1, 10, MINUTE, 10 * MINUTE, HOUR, 10 * HOUR, DAY, 10 * DAY, 100 * DAY),
)
_FINE_TIMES = (
    *(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, MINUTE, 3 * MINUTE, 10 * MINUTE, 30 * MINUTE),
    *(HOUR, 3 * HOUR, 10 * HOUR, DAY, 3 * DAY, 10 * DAY, 30 * DAY, 100 * DAY),
)
_FINEST_TIMES = tuple(
    unit * number
    for unit, numbers in (
        (0.1, (0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 3, 5, 7)),
        (1, (1, 2, 3, 5, 7, 10, 15, 20, 30, 40)),
        (MINUTE, (1, 2, 3, 5, 7, 10, 15, 20, 30, 40)),
        (HOUR, (1, 2, 3, 5, 7, 10, 15)),
        (DAY, (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)),
    )
    for number in numbers
)


@dataclass(frozen=True)
class Cost:
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
    places: Sequence[Sequence[float]] = ()


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


PARAMETERS = Cost("parameters", "parameters", "parameters", _size)
TIME = Cost(
    "seconds_train", "training time", "training time", _time, (_TIMES, _FINE_TIMES, _FINEST_TIMES)
)


def accuracy_parameters(rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """Test accuracy against parameters; None where there is only one size of net."""
    return _figure(PARAMETERS, rows, data, name)


def accuracy_time(rows: Sequence[Row], data: str) -> Iterator[Callable[[str], Figure | None]]:
    """Test accuracy against training time, a figure for each hardware: those with most rows.

    Yields:
        What draws one, given its name; None where there is only one time.
    """
    hardware = [formats.hardware(row["device"], row["precision"]) for row in rows]
    for where, number in Counter(hardware).most_common(MOST_HARDWARE):
        part = [row for row, name in zip(rows, hardware, strict=True) if name == where]
        said = f" Rows of {one_line(where, LONGEST_HARDWARE)} alone"
        others = len(rows) - number
        said += f"; {others:,} of other hardware are not compared." if others else "."
        yield partial(_figure, TIME, part, data, where=where, said=said)


def _figure(
    cost: Cost, rows: Sequence[Row], data: str, name: str, *, where: str = "", said: str = ""
) -> Figure | None:
    rows = [row for row in rows if row[cost.key] is not None and _LEAST < row[cost.key] < _MOST]
    points = Points(rows, [float(row[cost.key]) for row in rows])
    if len(set(points.costs)) < 2:
        return None
    x = log_axis(points.costs, cost.label, show=cost.show, places=cost.places)
    y = accuracy_axis(points)
    height = MARGIN + HEADING + HEIGHT + LABELS + LINE + MARGIN
    box = (LEFT, MARGIN + HEADING, WIDTH - LEFT - RIGHT, HEIGHT)
    title = f"Test accuracy against {cost.words}"
    title += f": {one_line(where, LONGEST_HARDWARE)}" if where else ""
    with drawing(name, height) as sheet:
        sheet.heading(MARGIN, "Test accuracy (%)")
        entries = draw_points(sheet.axes(box, x, y), y, points)
        write_names(sheet, box, x, y, points)
        sheet.entries(height - MARGIN - LINE, *entries)
        png, svg = sheet.saved(title)
    caption = "One point a row: its mean over the seeds"
    caption += ", with the 95 % interval where it has several." if points.intervals else "."
    caption += f" No other row beats one on the Pareto front in both accuracy and {cost.words}."
    caption += said
    if len(points.names) < len(rows):
        caption += f" {len(rows):,} rows; names stand at the front and at the best of each net."
    ends = "; ".join(
        f"{net(rows[n])} {points.accuracies[n]:.2f} % with {_said(cost, points.costs[n])}"
        for n in points.front[:MOST_SAID]
    )
    alt = f"Test accuracy against {cost.words} of {len(rows):,} rows. Pareto front: {ends}."
    return Figure(name, data, title, caption, alt, png, svg)


def _said(cost: Cost, value: float) -> str:
    return formats.duration(value) if cost is TIME else f"{_size(value)} parameters"
