"""Which class was taken for which."""

from collections.abc import Sequence

import numpy as np

from fmbench.core.errors import one_line
from fmbench.grid import MARGIN, SOFT
from fmbench.report.figure import Figure
from fmbench.report.figures.evidence import MOST_ASKED, Budget, confusion
from fmbench.report.figures.names import class_names, recipe
from fmbench.report.figures.sheet import (
    BLUE,
    PALE,
    RED,
    RIGHT,
    TEXT,
    TICK,
    WIDTH,
    Sheet,
    drawing,
    fitted,
)  # fmt: skip
from fmbench.report.table.columns import Row
from fmbench.report.table.formats import count, percent

NAMES, RECALL = 100, 108  # the rooms at the left and at the right of the cells
TOP, BOTTOM = 40, 62  # above them and below
CELL = 38  # height

# Of more classes the numbers would not fit into the cells.
MOST_NUMBERED = 12
STRONGEST = 0.72  # of a mistake's colour: the number on it must be readable
MOST_SAID = 3


def confusion_figure(
    net: str, rows: Sequence[Row], data: str, name: str, budget: Budget | None = None
) -> Figure | None:
    """The confusion matrix of a net's best row that has its answers; None where none has.

    Args:
        net: Its name.
        rows: Of it, the best first.
        data: The data set.
        name: Of the files.
        budget: Of the report.
    """
    asked = ((row, confusion(row, budget)) for row in rows[:MOST_ASKED])
    found = next(((row, made) for row, made in asked if made is not None), None)
    if found is None:
        return None
    row, (counts, seeds) = found
    names = class_names(data, len(counts))
    # A class that nobody predicted and no image has is there all the same.
    whole = np.zeros((len(names), len(names)), dtype=np.int64)
    whole[: len(counts), : len(counts)] = counts
    sizes = whole.sum(1, keepdims=True)
    shares = whole / np.maximum(sizes, 1)
    cell = CELL if len(names) <= MOST_NUMBERED else max(10, CELL * MOST_NUMBERED // len(names))
    title = f"{one_line(net, 60)}: what was taken for what"
    with drawing(name, MARGIN + TOP + cell * len(names) + BOTTOM + MARGIN) as sheet:
        _draw(sheet, shares, sizes[:, 0], names, cell)
        png, svg = sheet.saved(title)
    which = "The best row" if row is rows[0] else "The best row that kept its answers"
    caption = (
        f"{which} ({recipe(row)}) on the test images, in percent of each class, n = {seeds}: a "
        "row of cells is the right class, a column what the net took it for. The redder, the more "
        "mistakes; recall is the share of a class that was recognised."
    )
    return Figure(name, data, title, caption, _alt(whole, shares, names), png, svg)


def _draw(
    sheet: Sheet, shares: np.ndarray, sizes: np.ndarray, names: Sequence[str], cell: int
) -> None:
    left, top = MARGIN + NAMES, MARGIN + TOP
    width = (WIDTH - RIGHT - RECALL - left) / len(names)
    numbered = len(names) <= MOST_NUMBERED
    wrong = shares * (1 - np.eye(len(names)))
    most = float(wrong.max()) or 1.0
    sheet.write(left - 10, MARGIN + 20, "right class", color=SOFT, ha="right")
    middle = left + width * len(names) / 2
    bottom = top + cell * len(names)
    sheet.write(middle, bottom + BOTTOM - 16, "taken for", color=SOFT, ha="center")
    sheet.write(WIDTH - RIGHT, MARGIN + 20, "recall (%)", color=SOFT, ha="right")
    for place, said in enumerate(names):
        down = top + (place + 0.5) * cell
        size = TEXT if numbered else max(7, cell - 2)
        sheet.write(left - 10, down, fitted(said, NAMES, size), size, ha="right")
        across = left + (place + 0.5) * width
        if numbered:
            sheet.write(across, bottom + 16, fitted(said, width + 8, TICK), TICK, ha="center")
        _recall(sheet, down, cell, shares[place, place] if sizes[place] else None)
        for other in range(len(names)):
            share = float(shares[place, other])
            box = (left + other * width + 1, top + place * cell + 1, width - 2, cell - 2)
            if place == other:
                sheet.bar(box, PALE)
            elif share > 0:
                sheet.bar(box, RED, STRONGEST * (share / most) ** 0.6)
            if numbered and share > 0:
                number = f"{100 * share:.1f}" if share >= 0.0005 else "<0.1"
                # What is rare is not what one looks for.
                colour = SOFT if share < 0.005 else None
                options = {"color": colour} if colour else {}
                at = left + (other + 0.5) * width
                sheet.write(at, down, number, TICK, ha="center", **options)


def _recall(sheet: Sheet, middle: float, cell: int, share: float | None) -> None:
    if share is None:
        return
    left, full = WIDTH - RIGHT - RECALL + 16, RECALL - 16 - 44
    thick = min(10, cell - 2)
    sheet.bar((left, middle - thick / 2, full, thick), PALE)
    sheet.bar((left, middle - thick / 2, full * share, thick), BLUE)
    if cell >= TICK:
        sheet.write(WIDTH - RIGHT, middle, f"{100 * share:.1f}", TICK, ha="right")


def _alt(counts: np.ndarray, shares: np.ndarray, names: Sequence[str]) -> str:
    answers = int(counts.sum())
    said = f"Of {count(answers)} answers {percent(float(np.trace(counts) / answers))} % are right"
    pairs = [
        (float(shares[a, b]), names[a], names[b])
        for a in range(len(names))
        for b in range(len(names))
        if a != b and counts[a, b]
    ]
    pairs.sort(key=lambda pair: -pair[0])
    most = "; ".join(f"{a} for {b} {100 * share:.1f} %" for share, a, b in pairs[:MOST_SAID])
    return f"{said}. Most often mistaken: {most}." if most else f"{said}."
