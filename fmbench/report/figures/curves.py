"""Curves: loss and accuracy by epoch, a colour for each row of a model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fmbench.core.errors import one_line
from fmbench.records.reader import counted_history
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.table.columns import ACCURACY, METRICS, Row
from fmbench.report.table.formats import percent

MOST_ROWS = 6
#: Epochs of a curve: more make a large SVG, and look the same.
MOST_POINTS = 250
# Of more epochs than this only the last has a marker.
MOST_MARKERS = 12
# The first epochs of a run, one of so many, leave no room for what sets curves apart.
CUT = 6

DASHES = (0, (3.2, 1.8))
#: What is drawn beside training.
EVALUATED = ("validation", "test")
KEYS = [f"{of}_{value}" for of in ("train", *EVALUATED) for value in ("loss", "accuracy")]

History = Sequence[Mapping[str, float]]


class Curve(NamedTuple):
    """A value by epoch, counted from 1: mean, least and greatest over the seeds of a row."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


class Line(NamedTuple):
    """A row that is drawn: its histories, and its curves by the key of their value."""

    row: Row
    look: dict[str, str]
    runs: list[History]
    curves: dict[str, Curve]


def histories(row: Row, budget: style.Budget) -> list[History]:
    """The histories of a row's runs that have one, as far as the budget goes."""
    found: list[History] = []
    for folder in row["folders"]:
        if budget.epochs > 0:
            history, lines = counted_history(folder)
            budget.epochs -= lines
            found += [history] if history else []
    return found


def curve(runs: Sequence[History], key: str) -> Curve | None:
    """The curve of one of a history's values; None where fewer than two epochs have it.

    A seed that was evaluated less than half as often as another is left out; what is drawn are the
    epochs that all others have, so that a mean is one of the same seeds everywhere.
    """
    known = [
        {int(line["epoch"]): line[key] for line in run if key in line and "epoch" in line}
        for run in runs
    ]
    most = max(map(len, known), default=0)
    known = [values for values in known if 2 * len(values) > most]
    shared = sorted(set.intersection(*map(set, known))) if known else []
    if len(shared) < 2:
        return None
    chosen = np.linspace(0, len(shared) - 1, min(len(shared), MOST_POINTS)).astype(int)
    table = np.array([[values[shared[place]] for place in chosen] for values in known])
    epochs = np.array(shared)[chosen] + 1
    return Curve(epochs, table.mean(0), table.min(0), table.max(0), len(known))


def curves(
    model: str, rows: Sequence[Row], data: str, name: str, budget: style.Budget
) -> Figure | None:
    """The curves of a model's rows; None where no run of theirs has a history of two epochs."""
    lines: list[Line] = []
    for row in rows[: style.MOST_ASKED]:
        runs = histories(row, budget)
        found = {key: one for key in KEYS if (one := curve(runs, key)) is not None}
        if found.keys() & {"train_loss", "train_accuracy"}:
            lines.append(Line(row, style.LOOKS[len(lines)], runs, found))
        if len(lines) == MOST_ROWS:
            break
    if not lines:
        return None
    # One kind of images beside those of training, to compare: what most rows were evaluated on.
    known = {of: sum(f"{of}_accuracy" in line.curves for line in lines) for of in EVALUATED}
    most = max(known, key=lambda of: known[of])
    solid = most if known[most] else None
    names = style.apart([line.row for line in lines]) if lines[1:] else [style.recipe(lines[0].row)]
    model = one_line(model, style.LONGEST)
    ends = [
        f"{text}: {percent(float(line.curves[key].mean[-1]))} %"
        for line, text in zip(lines, names, strict=True)
        if (key := f"{solid or 'train'}_accuracy") in line.curves
    ]
    alt = f"Loss and accuracy by epoch of {len(lines)} row{'s' * bool(lines[1:])} of {model}."
    if ends:
        of = (solid or "training").capitalize()
        alt += f" {of} accuracy at the end: {'; '.join(ends)}."
    several = any(len(line.runs) > 1 for line in lines)
    without = any(len(line.runs) < line.row["n"] for line in lines)
    with style.drawing(name, 3.75 + 0.25 * len(lines)) as figure:
        for axes, value in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            _panel(axes, lines, solid, value)
        entries = [style.entry(solid, ls="-")] if solid else []
        entries.append(style.entry("training", ls=DASHES))
        if several:
            entries.append(style.entry("range of the seeds", ls="-", lw=8, alpha=style.BAND))
        style.legend(figure, entries, "upper")
        entries = [
            style.entry(f"{text}: {accuracy} % on test, n = {line.row['n']}", ls="-", **line.look)
            for line, text in zip(lines, names, strict=True)
            for accuracy in [METRICS["test_accuracy"].with_spread(*map(line.row.get, ACCURACY))]
        ]
        style.legend(figure, entries)
        longest = max(int(one.epochs[-1]) for line in lines for one in line.curves.values())
        sentences = {
            "Mean over the seeds of each row, and their range.": several,
            "One seed a row.": not several,
            "Dashed: training.": True,
            f"Solid: {solid}.": solid,
            "The first epochs may lie outside.": longest >= CUT,
            f"Of long runs {MOST_POINTS} epochs are drawn.": longest > MOST_POINTS,
            "Seeds without a history are left out.": without,
            f"Rows without a solid line were not evaluated on {solid} images each epoch.": solid
            and any(f"{solid}_accuracy" not in line.curves for line in lines),
            f"The {len(lines)} best of {len(rows):,} rows that have a history.": len(rows)
            > len(lines),
        }
        caption = " ".join(sentence for sentence, holds in sentences.items() if holds)
        title = f"{model}: loss and accuracy by epoch"
        return style.saved(figure, name, data, title, caption, alt)


def _panel(axes: "style.Axes", lines: Sequence[Line], solid: str | None, value: str) -> None:
    from matplotlib.ticker import MaxNLocator

    factor = 100 if value == "accuracy" else 1
    seen = []
    drawn = [
        (line.look, of, line.curves[f"{of}_{value}"])
        for line in lines
        for of in ("train", solid)
        if f"{of}_{value}" in line.curves
    ]
    for marks, of, found in drawn:
        colour = marks["color"]
        mean, low, high = (factor * part for part in (found.mean, found.low, found.high))
        look: dict[str, Any] = {"ls": DASHES, "lw": 1.4, "color": colour}
        if of == solid:
            every = 1 if len(mean) <= MOST_MARKERS else [-1]
            look = {"lw": 1.8, "ms": 5, "markevery": every, **marks}
        axes.plot(found.epochs, mean, **look)
        if found.seeds > 1 and of == (solid or "train"):
            axes.fill_between(found.epochs, low, high, color=colour, alpha=style.BAND, lw=0)
        seen += [part[len(part) // CUT :] for part in (low, high)]
    if seen:
        ends = np.concatenate(seen)
        edge = 0.05 * float(np.ptp(ends)) or 0.05 * abs(float(ends[0])) or 1.0
        axes.set_ylim(ends.min() - edge, ends.max() + edge)
    axes.set(title="Loss" if value == "loss" else "Accuracy (%)", xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
