"""What a row predicted: its confusion matrix, its mistakes, and what one of two rows has right."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fmbench.core.errors import one_line
from fmbench.records.predictions import (
    mistake_type,
    read_labels,
    read_mistakes,
    read_predictions,
)
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
    row: Row, said: str, data: str, name: str, budget: style.Budget
) -> Figure | None:
    """The confusion matrix of a row; None where it has no predictions."""
    found = confusion(row, budget)
    if found is None:
        return None
    counts, seeds = found
    names = [one_line(text, LONGEST_CLASS) for text in class_names(row, len(counts))]
    # A class that nobody predicted and no image has is there all the same.
    counts = np.pad(counts, (0, len(names) - len(counts)))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    caption = (
        f"Row {row['number']} ({style.recipe(row)}) on the test images, n = {seeds}, in"
        " percent of each true class. The diagonal is the recall. The darker, the more mistakes."
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
    title = f"{said}: confusion matrix"
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


def mistakes(row: Row, said: str, data: str, name: str, _budget: object = None) -> Figure | None:
    """The most confident mistakes of a row's first seed; None where it did not keep them."""
    found = read_mistakes(row["folders"][0])
    if found is None or not len(found):
        return None
    found = found[:MOST_IMAGES]
    texts = _said(row, found)
    of = f"{style.recipe(row)}; seed {row['run_seeds'][0]}"
    caption = (
        f"Test images that row {row['number']} ({of}) got wrong, the most confident first: true"
        " class, predicted class, and the probability that the model gave to it."
    )
    first = "; ".join(f"{label} as {other}, {sure}" for label, other, sure in texts[:MOST_SAID])
    alt = f"{len(texts)} test images that {said} got wrong. The first: {first}."
    title = f"{said}: its most confident mistakes"
    with style.drawing(name, PLACE[1] * math.ceil(len(found) / COLUMNS)) as figure:
        _pictures(figure.add_axes((0, 0, 1, 1)), found["image"], texts)
        return style.saved(figure, name, data, title, caption, alt)


def contrast(
    rows: tuple[Row, Row], names: tuple[str, str], answers: tuple[np.ndarray, np.ndarray], name: str
) -> Figure | None:
    """What most seeds of A have right and most of B wrong, and the other way round.

    Of the mistakes that the runs of either kept, the most confident first.

    Args:
        rows: A and B.
        names: What they are called.
        answers: (N,) each, the share of the seeds that are right about each test image.
        name: Of the figure's files.

    Returns:
        None where neither kept such mistakes.
    """
    parts = []
    for wrong, right, letters in ((1, 0, "AB"), (0, 1, "BA")):
        found = _mistaken(rows[wrong], answers[right], answers[wrong])
        more = np.sum((answers[right] > 0.5) & (answers[wrong] < 0.5))
        parts.append((letters, found, _said(rows[wrong], found), int(more)))
    if not any(len(found) for _, found, _, _ in parts):
        return None
    a, b = (one_line(text, style.LONGEST) for text in names)
    title = "What one of two rows has right and the other wrong"
    caption = (
        f"A is {a}, B is {b}. Test images that most seeds of one have right and most of the other"
        " wrong, of the mistakes that its runs kept, the most confident first: true class, what the"
        " other predicted, and the probability that it gave to that."
    )
    counts = [
        f"{letters[0]} right, {letters[1]} wrong: {count(more)} images, of which {len(found)} are"
        " shown"
        for letters, found, _, more in parts
    ]
    alt = f"{title}. {'; '.join(counts)}."
    caption += f" {'; '.join(counts)}."
    parts = [part for part in parts if len(part[1])]
    lines = [math.ceil(len(found) / COLUMNS) for _, found, *_ in parts]
    with style.drawing(name, PLACE[1] * sum(lines) + 0.5 * len(parts)) as figure:
        panes: Any = figure.subfigures(len(parts), 1, height_ratios=lines, squeeze=False)
        for pane, (letters, found, texts, _) in zip(panes.flat, parts, strict=True):
            said = f"{letters[0]} right, {letters[1]} wrong"
            pane.suptitle(said, x=0.01, ha="left", fontsize=11, weight="bold")
            axes = pane.subplots()
            _pictures(axes, found["image"], texts)
            axes.set_aspect("equal", anchor="NW")
        return style.saved(figure, name, "", title, caption, alt)


def _mistaken(row: Row, right: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The kept mistakes of a row where most of its runs are wrong and most of another right."""
    best: dict[int, np.ndarray] = {}
    kind = None
    for folder in row["folders"]:
        found = read_mistakes(folder)
        if found is None or (kind is not None and found.dtype != kind):
            continue
        kind = found.dtype
        for one in found:
            place = int(one["place"])
            # Of another run's file nothing is shown: the row would be right there.
            if place < len(right) and right[place] > 0.5 > own[place]:
                best.setdefault(place, one)
                if one["confidence"] > best[place]["confidence"]:
                    best[place] = one
    kept = sorted(best.values(), key=lambda one: (-one["confidence"], one["place"]))
    shown = mistake_type("u1", (28, 28)) if kind is None else kind
    return np.array(kept[: 2 * COLUMNS], dtype=shown)


def _said(row: Row, found: np.ndarray) -> list[tuple[str, str, str]]:
    """Of each mistake the true class, the predicted one, and its probability."""
    if not len(found):
        return []
    classes = class_names(row, 1 + int(max(found["label"].max(), found["predicted"].max())))
    return [
        (classes[one["label"]], classes[one["predicted"]], _percent(float(one["confidence"])))
        for one in found
    ]


def _pictures(axes: "style.Axes", images: np.ndarray, said: Sequence[tuple[str, str, str]]) -> None:
    """Mistakes side by side: (N, H, W) or (N, C, H, W) images, each with its texts above it."""
    lines = max(1, math.ceil(len(images) / COLUMNS))
    axes.set_axis_off()
    for place, (image, texts) in enumerate(zip(images, said, strict=True)):
        line, column = divmod(place, COLUMNS)
        left, bottom = PLACE[0] * (column + 0.09), PLACE[1] * (line + 1) - 0.08
        edges = (left, left + SIDE, bottom, bottom - SIDE)
        # Red, green and blue: matplotlib's grey scale is off by one at every fourth grey.
        shades = np.atleast_3d(image) if image.ndim == 2 else image.transpose(1, 2, 0)
        shades = shades.repeat(3 // shades.shape[2], axis=2)
        axes.imshow(shades, interpolation="none", extent=edges, aspect="auto")
        label, predicted, sure = (one_line(text, LONGEST_CLASS) for text in texts)
        text = f"{label}\n\u2192 {predicted}\n{sure}"
        axes.text(left, edges[3] - 0.08, text, fontsize=style.SMALL, in_layout=False)
    axes.set(xlim=(0, style.WIDTH), ylim=(PLACE[1] * lines, 0))


def _percent(share: float) -> str:
    """Never rounded up to certain: 99.9 %."""
    return "100 %" if share == 1 else f"{math.floor(1000 * share) / 10:.1f} %"


def contact_sheet(images: np.ndarray, said: Sequence[tuple[str, str, float]], name: str) -> bytes:
    """A PNG of images side by side, each with its label, another class, and its probability.

    Args:
        images: (N, C, H, W) uint8.
        said: The texts of each.
        name: Of the drawing.
    """
    texts = [(label, other, _percent(share)) for label, other, share in said]
    with style.drawing(name, PLACE[1] * math.ceil(len(images) / COLUMNS)) as figure:
        shown = images[:, 0] if images.shape[1] == 1 else images
        _pictures(figure.add_axes((0, 0, 1, 1)), shown, texts)
        return style.saved(figure, name, "", name, "", "").png
