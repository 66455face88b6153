"""The mistakes that a model was most confident of, as images."""

import math
from collections.abc import Sequence

import numpy as np

from fmbench.core.errors import one_line
from fmbench.records.predictions import read_mistakes
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.figures.evidence import MOST_ASKED
from fmbench.report.figures.names import class_names, model_of, recipe
from fmbench.report.table.columns import Row

MOST_IMAGES, COLUMNS, MOST_SAID = 24, 8, 5
LONGEST_CLASS = 14


def mistakes(rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """The most confident mistakes of a section's best row that kept them, in its first seed."""
    for row in rows[:MOST_ASKED]:
        found = read_mistakes(row["folders"][0]) if row["folders"] else None
        if found is not None and len(found):
            which = "the best row" if row is rows[0] else "the best row that kept its mistakes"
            return _figure(row, found[:MOST_IMAGES], data, name, which)
    return None


def _figure(row: Row, found: np.ndarray, data: str, name: str, which: str) -> Figure:
    classes = class_names(data, 1 + int(max(found["label"].max(), found["predicted"].max())))
    said = [
        (classes[one["label"]], classes[one["predicted"]], _percent(float(one["confidence"])))
        for one in found
    ]
    title = f"{model_of(row)}: its most confident mistakes"
    lines = math.ceil(len(found) / COLUMNS)
    with style.drawing(name, 1.55 * lines) as figure:
        panes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
        for axes in panes:
            axes.set_axis_off()
        for axes, image, texts in zip(panes, found["image"], said, strict=False):
            # Red, green and blue: matplotlib's grey scale is off by one at every fourth grey.
            axes.imshow(image[..., None].repeat(3, axis=-1), interpolation="none")
            label, predicted, sure = (one_line(text, LONGEST_CLASS) for text in texts)
            text = f"{label}\n\u2192 {predicted}\n{sure}"
            axes.set_title(text, fontsize=style.SMALL, weight="normal")
        png, svg = style.saved(figure, title)
    seed = f"seed {row['seeds'][0]}" if row["seeds"] else "the first seed"
    caption = (
        f"Test images that {which} ({recipe(row)}; {seed}) got wrong, the most confident first:"
        " true class, predicted class, and the probability that the model gave to it."
    )
    first = "; ".join(f"{label} as {other}, {sure}" for label, other, sure in said[:MOST_SAID])
    alt = f"{len(said)} test images that {model_of(row)} got wrong. The first: {first}."
    return Figure(name, data, title, caption, alt, png, svg)


def _percent(share: float) -> str:
    """Never rounded up to certain: 99.9 %."""
    return "100 %" if share == 1 else f"{math.floor(1000 * share) / 10:.1f} %"
