"""The mistakes that a net was surest of, as images."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from fmbench.grid import MARGIN, SOFT
from fmbench.records.predictions import read_mistakes
from fmbench.report.figure import Figure
from fmbench.report.figures.evidence import MOST_ASKED
from fmbench.report.figures.names import class_names, net, recipe
from fmbench.report.figures.sheet import TICK, WIDTH, Sheet, drawing, fitted
from fmbench.report.table.columns import Row
from fmbench.report.table.formats import MISSING

MOST_IMAGES, COLUMNS = 24, 6
ZOOM = 4  # page pixels for a pixel of an image, both ways
BETWEEN, BELOW = 8, 12  # images, in their pixels; below them are two lines
SIDE = 28


def mistakes(rows: Sequence[Row], data: str, name: Callable[[str], str]) -> Figure | None:
    """The surest mistakes of a section's best row that kept them, in its first seed.

    Args:
        rows: Of the section, the best first.
        data: The data set.
        name: Gives the name of the files for a net.
    """
    for row in rows[:MOST_ASKED]:
        found = read_mistakes(row["folders"][0]) if row["folders"] else None
        if found is not None and len(found):
            which = "the best row" if row is rows[0] else "the best row that kept its mistakes"
            net_name = name(row["model"] or MISSING)
            return _figure(row, found[:MOST_IMAGES], data, net_name, which)
    return None


def _figure(row: Row, found: np.ndarray, data: str, name: str, which: str) -> Figure:
    classes = class_names(data, 1 + int(max(found["label"].max(), found["predicted"].max())))
    lines = math.ceil(len(found) / COLUMNS)
    height = 2 * MARGIN + ZOOM * lines * (SIDE + BELOW) - 8
    title = f"{net(row)}: the mistakes it was surest of"
    said = [
        (classes[one["label"]], classes[one["predicted"]], _confidence(float(one["confidence"])))
        for one in found
    ]
    with drawing(name, height) as sheet:
        _images(sheet, found["image"])
        for number, (label, predicted, confidence) in enumerate(said):
            line, column = divmod(number, COLUMNS)
            left = MARGIN + ZOOM * column * (SIDE + BETWEEN)
            top = MARGIN + ZOOM * (line * (SIDE + BELOW) + SIDE)
            room = ZOOM * (SIDE + BETWEEN) - 6
            sheet.write(left, top + 13, fitted(label, room, TICK), TICK, color=SOFT)
            answer = fitted(f"\u2192 {predicted}, {confidence}", room, TICK)
            sheet.write(left, top + 30, answer, TICK)
        png, svg = sheet.saved(title)
    seed = f"seed {row['seeds'][0]}" if row["seeds"] else "the first seed"
    caption = (
        f"Test images that {which} ({recipe(row)}; {seed}) got wrong, the surest first: the "
        "right class, what it was taken for, and the probability that the net gave to that."
    )
    first = "; ".join(f"{label} taken for {other}, {sure}" for label, other, sure in said[:5])
    alt = f"{len(said)} test images that {net(row)} got wrong. The surest: {first}."
    return Figure(name, data, title, caption, alt, png, svg)


def _confidence(share: float) -> str:
    """In percent, never rounded up to certain: 99.9 %."""
    if not 0 <= share <= 1:
        return MISSING
    return "100 %" if share == 1 else f"{math.floor(1000 * share) / 10:.1f} %"


def _images(sheet: Sheet, images: np.ndarray) -> None:
    """All images in one, each pixel once, and nothing between them."""
    lines = math.ceil(len(images) / COLUMNS)
    canvas = np.zeros(
        (lines * (SIDE + BELOW) - BELOW, COLUMNS * (SIDE + BETWEEN) - BETWEEN, 4), dtype=np.uint8
    )
    for number, image in enumerate(images):
        line, column = divmod(number, COLUMNS)
        place = (
            slice(line * (SIDE + BELOW), line * (SIDE + BELOW) + SIDE),
            slice(column * (SIDE + BETWEEN), column * (SIDE + BETWEEN) + SIDE),
        )
        canvas[place] = np.dstack([image, image, image, np.full_like(image, 255)])
    height, width = canvas.shape[:2]
    axes = sheet.bare((MARGIN, MARGIN, ZOOM * width, ZOOM * height))
    # Of the SVG an image in its own pixels: "none" is what matplotlib calls that.
    axes.imshow(canvas, interpolation="none", aspect="auto")


assert 2 * MARGIN + ZOOM * (COLUMNS * (SIDE + BETWEEN) - BETWEEN) <= WIDTH
