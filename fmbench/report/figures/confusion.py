"""The confusion matrix of a model's best row."""

from collections.abc import Sequence

import numpy as np

from fmbench.core.errors import one_line
from fmbench.report.figure import Figure
from fmbench.report.figures import evidence, style
from fmbench.report.figures.names import class_names, recipe
from fmbench.report.table.columns import Row
from fmbench.report.table.formats import count, percent

# Of more classes the numbers would not fit into the cells.
MOST_NUMBERED = 12
MOST_SAID = 3
LONGEST_CLASS = 20


def confusion_figure(
    model: str, rows: Sequence[Row], data: str, name: str, budget: evidence.Budget | None = None
) -> Figure | None:
    """The confusion matrix of a model's best row with predictions; None where none has any."""
    budget = budget or evidence.Budget()
    asked = ((row, evidence.confusion(row, budget)) for row in rows[: evidence.MOST_ASKED])
    found = next(((row, made) for row, made in asked if made is not None), None)
    if found is None:
        return None
    row, (counts, seeds) = found
    names = [one_line(text, LONGEST_CLASS) for text in class_names(data, len(counts))]
    # A class that nobody predicted and no image has is there all the same.
    counts = np.pad(counts, (0, len(names) - len(counts)))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    title = f"{one_line(model, style.LONGEST)}: confusion matrix"
    with style.drawing(name, 5.5) as figure:
        _draw(figure.subplots(), shares, names)
        png, svg = style.saved(figure, title)
    which = "The best row" if row is rows[0] else "The best row with predictions"
    caption = (
        f"{which} ({recipe(row)}) on the test images, n = {seeds}, in percent of each true class."
        " The diagonal is the recall. The redder, the more mistakes."
    )
    return Figure(name, data, title, caption, _alt(counts, shares, names), png, svg)


def _draw(axes: "style.Axes", shares: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    few = len(names) <= MOST_NUMBERED
    wrong = shares * (1 - np.eye(len(names)))
    seen = (wrong / (wrong.max() or 1)) ** 0.6  # rare mistakes too
    # By opacity, on light and on dark paper; no cell is too red for the number on it.
    ends = [to_rgba(style.RED, alpha) for alpha in (0, 0.72)]
    reds = LinearSegmentedColormap.from_list("mistakes", ends)
    axes.pcolormesh(seen, cmap=reds, vmin=0, vmax=1, edgecolors=style.PAPER, lw=2 if few else 0.5)
    axes.grid(visible=False)
    axes.set(xlabel="predicted class", ylabel="true class", ylim=(len(names), 0))
    middles = np.arange(len(names)) + 0.5
    turned = {"rotation": 30 if few else 90, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(middles, names, **turned)
    axes.set_yticks(middles, names)
    axes.tick_params(labelsize=10 if few else 6)
    for true, predicted in np.argwhere(shares > 0).tolist() if few else ():
        share = shares[true, predicted]
        said = f"{100 * share:.1f}" if share >= 0.0005 else "<0.1"
        axes.text(
            predicted + 0.5, true + 0.5, said, ha="center", va="center", fontsize=style.SMALL,
            color=style.SOFT if share < 0.005 else style.INK,  # one looks for what is not rare
            weight="bold" if true == predicted else "normal",
        )  # fmt: skip


def _alt(counts: np.ndarray, shares: np.ndarray, names: Sequence[str]) -> str:
    right = percent(float(np.trace(counts)) / int(counts.sum()))
    said = f"Of {count(int(counts.sum()))} predictions {right} % are right."
    wrong = np.argwhere(counts * (1 - np.eye(len(names), dtype=int)) > 0).tolist()
    wrong.sort(key=lambda pair: -shares[tuple(pair)])
    most = [f"{names[a]} as {names[b]} {100 * shares[a, b]:.1f} %" for a, b in wrong[:MOST_SAID]]
    return f"{said} Most frequent mistakes: {'; '.join(most)}." if most else said
