"""Curves: loss and accuracy by epoch, a colour for each row of a net."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fmbench.core.errors import one_line
from fmbench.grid import MARGIN, SOFT
from fmbench.report.figure import Figure
from fmbench.report.figures.axis import Axis, plain_axis, value_axis
from fmbench.report.figures.evidence import (
    MOST_ASKED,
    Budget,
    Curve,
    History,
    curve,
    histories,
)
from fmbench.report.figures.names import apart, recipe
from fmbench.report.figures.sheet import (
    BAND,
    HEADING,
    LABELS,
    LINE,
    MARKERS,
    RIGHT,
    SERIES,
    TEXT,
    WIDTH,
    Box,
    Sheet,
    drawing,
    fitted,
)  # fmt: skip
from fmbench.report.table.columns import ACCURACY, Row
from fmbench.report.table.formats import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL = 280  # height
LEFT, BETWEEN = 62, 66  # before the first panel; between the two, for the numbers of the second
FIGURES, SEEDS = 180, 44  # the room of the numbers at the right of the legend, of n among them

MOST_ROWS = len(SERIES)
# Of more epochs than this only the last has a marker; of more than that not every one is drawn.
MOST_MARKERS, MOST_EPOCHS = 12, 250

# The first epochs would leave no room for what sets curves apart. All of the solid lines is drawn,
# and of training so much more; of a long run so many times the distance from the best value to the
# worst but a quarter.
MORE = 1.3
LONG, REACH = 10, 2.5

VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class _Line:
    """A row that is drawn."""

    row: Row
    colour: str
    marker: str
    runs: list[History]

    def curve(self, of: str, value: str) -> Curve | None:
        """Its curve on a part of the data: train, validation or test."""
        return curve(self.runs, f"{of}_{value}")


def curves(
    net: str, rows: Sequence[Row], data: str, name: str, budget: Budget | None = None
) -> Figure | None:
    """The curves of a net's rows; None where no run of theirs has a history of two epochs.

    Args:
        net: Its name.
        rows: Of it, the best first.
        data: The data set.
        name: Of the files.
        budget: Of the report.
    """
    lines: list[_Line] = []
    for row in rows[:MOST_ASKED]:
        if len(lines) == MOST_ROWS:
            break
        runs = histories(row, budget)
        line = _Line(row, SERIES[len(lines)], MARKERS[len(lines)], runs)
        if _longest(line) is not None:
            lines.append(line)
    if not lines:
        return None
    looked = _looked_at(lines)
    names = _names(lines)
    height = MARGIN + HEADING + PANEL + LABELS + LINE * (len(lines) + 1) + MARGIN
    with drawing(name, height) as sheet:
        width = (WIDTH - LEFT - BETWEEN - RIGHT) / 2
        for place, value in enumerate(("loss", "accuracy")):
            left = LEFT + place * (width + BETWEEN)
            _panel(sheet, (left, MARGIN + HEADING, width, PANEL), lines, looked, value)
        _legend(sheet, height - MARGIN - LINE * (len(lines) + 1), lines, names, looked)
        title = f"{one_line(net, 60)}: loss and accuracy by epoch"
        png, svg = sheet.saved(title)
    caption = _caption(lines, len(rows), looked)
    return Figure(name, data, title, caption, _alt(net, lines, names, looked), png, svg)


def _looked_at(lines: Sequence[_Line]) -> str | None:
    """The images that are drawn beside those of training: one kind for all rows, to compare."""
    known = {
        of: sum(line.curve(of, "accuracy") is not None for line in lines)
        for of in (VALIDATION, TEST)
    }
    most = max(known.values())
    return next((of for of in (VALIDATION, TEST) if known[of] == most), None) if most else None


def _names(lines: Sequence[_Line]) -> list[str]:
    if len(lines) == 1:
        return [recipe(lines[0].row)]
    return apart([line.row for line in lines])


def _panel(
    sheet: Sheet,
    box: Box,
    lines: Sequence[_Line],
    looked: str | None,
    value: str,
) -> None:
    factor = 100 if value == "accuracy" else 1
    drawn = [
        (line, of, found)
        for line in lines
        for of in ("train", *([looked] if looked else []))
        if (found := line.curve(of, value)) is not None
    ]
    if not drawn:
        return
    last = max(int(found.epochs[-1]) for _, _, found in drawn)
    x = value_axis([1, last], label="epoch", whole=True)
    training = [found for _, of, found in drawn if of == "train"]
    solid = [found for _, of, found in drawn if of != "train"]
    axes = sheet.axes(box, x, _height(solid, training, value, factor))
    for line, of, found in drawn:
        _line(axes, line, found, factor, training=of == "train", band=of != "train" or not solid)
    heading = "Loss" if value == "loss" else "Accuracy (%)"
    sheet.heading(box[1] - HEADING, heading, left=box[0] - LEFT + MARGIN)


def _line(
    axes: "Axes", line: _Line, found: Curve, factor: int, *, training: bool, band: bool
) -> None:
    last = len(found.epochs) - 1
    shown = np.unique([*range(0, last, _every(found)), last])
    epochs = found.epochs[shown]
    style: dict[str, Any] = {"ls": (0, (3.2, 1.8)), "lw": 1.6}
    if not training:
        every = 1 if len(epochs) <= MOST_MARKERS else [-1]
        style = {"lw": 2.2, "marker": line.marker, "ms": 6, "mew": 0, "markevery": every}
    axes.plot(epochs, factor * found.mean[shown], color=line.colour, **style)
    if found.seeds > 1 and band:
        low, high = factor * found.low[shown], factor * found.high[shown]
        axes.fill_between(epochs, low, high, color=line.colour, alpha=BAND, lw=0)


def _longest(line: _Line) -> Curve | None:
    return line.curve("train", "loss") or line.curve("train", "accuracy")


def _every(found: Curve) -> int:
    return math.ceil(len(found.epochs) / MOST_EPOCHS)


def _height(solid: Sequence[Curve], training: Sequence[Curve], value: str, factor: int) -> Axis:
    """The axis of a panel."""
    # Turned over, an accuracy is like a loss: its best is the least.
    turn = factor if value == "loss" else -factor
    means = [turn * one.mean for one in (*solid, *training)]
    ends = [turn * end for one in (*solid, *training) for end in (one.low, one.high)]
    best, worst = float(min(map(np.min, ends))), float(max(map(np.max, ends)))
    if solid:
        worst = min(
            worst, best + MORE * (max(float(np.max(turn * one.mean)) for one in solid) - best)
        )
    if max(len(one.epochs) for one in (*solid, *training)) > LONG:
        most = float(np.quantile(np.concatenate(means), 0.75))
        worst = min(worst, best + REACH * (most - best))
    low, high = sorted((best * turn / abs(turn), worst * turn / abs(turn)))
    edge = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return plain_axis(low - edge, high + edge)


def _legend(
    sheet: Sheet, top: float, lines: Sequence[_Line], names: Sequence[str], looked: str | None
) -> None:
    entries = [(looked, SOFT, "-")] if looked else []
    entries.append(("training", SOFT, "--"))
    if any(len(line.runs) > 1 for line in lines):
        entries.append(("least to greatest of the seeds", SOFT, "band"))
    sheet.entries(top, *entries)
    middle, head = top + LINE / 2, "test accuracy (%)"
    sheet.write(WIDTH - RIGHT - SEEDS, middle, head, color=SOFT, ha="right")
    sheet.write(WIDTH - RIGHT, middle, "n", color=SOFT, ha="right")
    for number, (line, said) in enumerate(zip(lines, names, strict=True), 1):
        middle = top + (number + 0.5) * LINE
        sheet.mark(MARGIN + 13, middle, line.colour, f"-{line.marker}")
        room = WIDTH - RIGHT - FIGURES - MARGIN - 33
        sheet.write(MARGIN + 33, middle, fitted(said, room, TEXT))
        sheet.write(WIDTH - RIGHT - SEEDS, middle, _accuracy(line.row), ha="right")
        sheet.write(WIDTH - RIGHT, middle, str(line.row["n"]), ha="right")


def _accuracy(row: Row) -> str:
    mean, deviation = (row[key] for key in ACCURACY)
    return percent(mean) if deviation is None else f"{percent(mean)} ± {percent(deviation)}"


def _caption(lines: Sequence[_Line], rows: int, looked: str | None) -> str:
    several = any(line.row["n"] > 1 for line in lines)
    said = "Mean over the seeds of each row" if several else "One seed a row"
    if any(len(line.runs) > 1 for line in lines):
        said += ", the band from the least to the greatest of them"
    said += "; training dashed" + (f", {looked} solid." if looked else ".")
    said += " What lies far from the end of the curves may be cut off."
    if looked and any(line.curve(looked, "accuracy") is None for line in lines):
        said += f" Rows without a solid line were not looked at on {looked} images each epoch."
    every = max(_every(found) for line in lines if (found := _longest(line)) is not None)
    if every > 1:
        said += f" Of long runs one epoch in {every} is drawn, and the last."
    part = [line for line in lines if len(line.runs) < line.row["n"]]
    if part:
        said += " Some seeds left no history, and are not in the curves."
    if rows > len(lines):
        said += f" Shown are the {len(lines)} best of {rows:,} rows that have a history."
    return said


def _alt(net: str, lines: Sequence[_Line], names: Sequence[str], looked: str | None) -> str:
    ends = []
    for line, said in zip(lines, names, strict=True):
        of = looked or "train"
        found = line.curve(of, "accuracy")
        if found is not None:
            ends.append(f"{said}: {percent(float(found.mean[-1]))} %")
    kind = {VALIDATION: "Validation", TEST: "Test"}.get(looked or "", "Training")
    rows = "1 row" if len(lines) == 1 else f"{len(lines)} rows"
    said = f"Loss and accuracy by epoch of {rows} of {one_line(net, 60)}"
    return f"{said}. {kind} accuracy at the end: {'; '.join(ends)}." if ends else f"{said}."
