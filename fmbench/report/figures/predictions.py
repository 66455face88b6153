"""What a model predicted: the confusion matrix of its best row, and the most confident mistakes."""

import math
from collections.abc import Callable, Sequence, Sized
from typing import Any, TypeVar

import numpy as np

from fmbench.core.errors import one_line
from fmbench.records.predictions import read_labels, read_mistakes, read_predictions
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.table.columns import Row
from fmbench.report.table.formats import count, percent
from fmbench.report.table.rows import class_names

# More cannot be told apart in a table as wide as a page.
MOST_CLASSES = 256
# Of more classes the names would not fit beside the cells, or the numbers into them.
MOST_WRITTEN, MOST_NUMBERED = 50, 12
LONGEST_CLASS = 14

MOST_IMAGES, COLUMNS = 24, 8
# Inches: of an image, and of its place with the text above it.
SIDE, PLACE = 0.94, (style.WIDTH / COLUMNS, 1.55)
MOST_SAID = 5  # mistakes in words

Found = TypeVar("Found", bound=Sized)


def _best(rows: Sequence[Row], read: Callable[[Row], Found | None]) -> tuple[Row, Found | None]:
    """The first of the rows, the best first, that something can be read of; and that."""
    asked = ((row, read(row)) for row in rows[: style.MOST_ASKED])
    return next(
        ((row, found) for row, found in asked if found is not None and len(found)), ({}, None)
    )


def confusion(row: Row, budget: style.Budget) -> tuple[np.ndarray, int] | None:
    """The (true, predicted) counts of a row, summed over its seeds, and how many those are.

    None where no seed has both its predictions and their labels, or the budget is spent.
    """
    counts = np.zeros((MOST_CLASSES, MOST_CLASSES), dtype=np.int64)
    seeds = 0
    for folder in row["folders"]:
        if budget.predictions <= 0:
            break
        predicted, labels = read_predictions(folder), read_labels(folder)
        budget.predictions -= max(len(one) for one in (predicted, labels, ()) if one is not None)
        if predicted is None or labels is None or len(predicted) != len(labels) or not len(labels):
            continue
        if max(predicted.max(), labels.max()) < MOST_CLASSES:
            places = labels.astype(np.int64) * MOST_CLASSES + predicted
            counts += np.bincount(places, minlength=counts.size).reshape(counts.shape)
            seeds += 1
    if not seeds:
        return None
    classes = max(2, 1 + int(np.argwhere(counts).max()))
    return counts[:classes, :classes], seeds


def confusion_figure(
    model: str, rows: Sequence[Row], data: str, name: str, budget: style.Budget
) -> Figure | None:
    """The confusion matrix of a model's best row with predictions; None where none has any."""
    row, found = _best(rows, lambda row: confusion(row, budget))
    if found is None:
        return None
    counts, seeds = found
    names = [one_line(text, LONGEST_CLASS) for text in class_names(row, len(counts))]
    # A class that nobody predicted and no image has is there all the same.
    counts = np.pad(counts, (0, len(names) - len(counts)))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    caption = (
        f"The best row with predictions ({style.recipe(row)}) on the test images, n = {seeds}, in"
        " percent of each true class. The diagonal is the recall. The redder, the more mistakes."
    )
    right = percent(float(np.trace(counts)) / int(counts.sum()))
    alt = f"Of {count(int(counts.sum()))} predictions {right} % are right."
    wrong = np.argwhere(counts * (1 - np.eye(len(names), dtype=int)) > 0).tolist()
    wrong.sort(key=lambda pair: -shares[tuple(pair)])
    most = [f"{names[a]} as {names[b]} {100 * shares[a, b]:.1f} %" for a, b in wrong[:MOST_SAID]]
    mistaken = f" Most frequent mistakes: {'; '.join(most)}." if most else ""
    alt += mistaken
    if len(names) > MOST_WRITTEN:
        caption += f" Classes are numbered from 0.{mistaken}"
    title = f"{one_line(model, style.LONGEST)}: confusion matrix"
    with style.drawing(name, 5.5) as figure:
        _matrix(figure.subplots(), shares, names)
        return style.saved(figure, name, data, title, caption, alt)


def _matrix(axes: "style.Axes", shares: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    few = len(names) <= MOST_NUMBERED
    wrong = shares * (1 - np.eye(len(names)))
    seen = (wrong / (wrong.max() or 1)) ** 0.6  # rare mistakes too
    # By opacity, on light and on dark paper; no cell is too red for the number on it.
    ends = [to_rgba(style.RED, alpha) for alpha in (0, 0.72)]
    reds = LinearSegmentedColormap.from_list("mistakes", ends)
    lines = 2 if few else 0.5 if len(names) <= MOST_WRITTEN else 0
    axes.pcolormesh(seen, cmap=reds, vmin=0, vmax=1, edgecolors=style.PAPER, lw=lines)
    axes.grid(visible=False)
    axes.set(xlabel="predicted class", ylabel="true class", ylim=(len(names), 0))
    if len(names) <= MOST_WRITTEN:
        middles = np.arange(len(names)) + 0.5
        turned: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(middles, names, rotation=30 if few else 90, **turned)
        axes.set_yticks(middles, names)
        axes.tick_params(labelsize=10 if few else 6)
    for true, predicted in np.argwhere(shares > 0).tolist() if few else ():
        share = shares[true, predicted]
        said = f"{100 * share:.1f}" if share >= 0.0005 else "<0.1"
        axes.text(
            predicted + 0.5, true + 0.5, said, ha="center", va="center", fontsize=style.SMALL,
            in_layout=False,  # to measure a hundred numbers takes long
            color=style.SOFT if share < 0.005 else style.INK,  # one looks for what is not rare
            weight="bold" if true == predicted else "normal",
        )  # fmt: skip


def mistakes(rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """The most confident mistakes of the best row that kept them, in its first seed."""
    row, found = _best(rows, lambda row: read_mistakes(row["folders"][0]))
    if found is None:
        return None
    found = found[:MOST_IMAGES]
    classes = class_names(row, 1 + int(max(found["label"].max(), found["predicted"].max())))
    said = [
        (classes[one["label"]], classes[one["predicted"]], _percent(float(one["confidence"])))
        for one in found
    ]
    of = f"{style.recipe(row)}; seed {row['run_seeds'][0]}"
    caption = (
        f"Test images that the best row that kept its mistakes ({of}) got wrong, the most confident"
        " first: true class, predicted class, and the probability that the model gave to it."
    )
    first = "; ".join(f"{label} as {other}, {sure}" for label, other, sure in said[:MOST_SAID])
    alt = f"{len(said)} test images that {style.model_of(row)} got wrong. The first: {first}."
    title = f"{style.model_of(row)}: its most confident mistakes"
    lines = math.ceil(len(found) / COLUMNS)
    with style.drawing(name, PLACE[1] * lines) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for place, (image, texts) in enumerate(zip(found["image"], said, strict=True)):
            line, column = divmod(place, COLUMNS)
            left, bottom = PLACE[0] * (column + 0.09), PLACE[1] * (line + 1) - 0.08
            edges = (left, left + SIDE, bottom, bottom - SIDE)
            # Red, green and blue: matplotlib's grey scale is off by one at every fourth grey.
            shades = np.atleast_3d(image) if image.ndim == 2 else image.transpose(1, 2, 0)
            shades = shades.repeat(3 // shades.shape[2], axis=2)
            axes.imshow(shades, interpolation="none", extent=edges, aspect="auto")
            label, predicted, sure = (one_line(text, LONGEST_CLASS) for text in texts)
            text = f"{label}\n\u2192 {predicted}\n{sure}"
            axes.text(left, edges[3] - 0.08, text, fontsize=style.SMALL)
        axes.set(xlim=(0, style.WIDTH), ylim=(PLACE[1] * lines, 0))
        return style.saved(figure, name, data, title, caption, alt)


def _percent(share: float) -> str:
    """Never rounded up to certain: 99.9 %."""
    return "100 %" if share == 1 else f"{math.floor(1000 * share) / 10:.1f} %"
