"""Curves: loss and accuracy by epoch, a colour for each row of a model."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmbench.core.errors import one_line
from fmbench.report.figure import Figure
from fmbench.report.figures import evidence, style
from fmbench.report.figures.names import apart, recipe
from fmbench.report.table.columns import ACCURACY, METRICS, Row
from fmbench.report.table.formats import percent

# Of more epochs than this only the last has a marker.
MOST_MARKERS = 12
# The first epochs of a run, one of so many, leave no room for what sets curves apart.
CUT = 10

DASHES = (0, (3.2, 1.8))
TRAINING, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class _Line:
    """A row that is drawn, and the histories of its runs."""

    row: Row
    marks: dict[str, str]
    runs: list[evidence.History]

    def curve(self, of: str, value: str) -> evidence.Curve | None:
        """Its loss or accuracy on a part of the data."""
        return evidence.curve(self.runs, f"{of}_{value}")

    @property
    def epochs(self) -> int:
        """The last of its curves of training; 0 where there is none, and nothing to draw."""
        found = self.curve(TRAINING, "loss") or self.curve(TRAINING, "accuracy")
        return int(found.epochs[-1]) if found else 0


def curves(
    model: str, rows: Sequence[Row], data: str, name: str, budget: evidence.Budget | None = None
) -> Figure | None:
    """The curves of a model's rows; None where no run of theirs has a history of two epochs."""
    budget = budget or evidence.Budget()
    lines: list[_Line] = []
    for row in rows[: evidence.MOST_ASKED]:
        if len(lines) < len(style.SERIES):
            place = len(lines)
            marks = {"color": style.SERIES[place], "marker": style.MARKERS[place]}
            line = _Line(row, marks, evidence.histories(row, budget))
            lines += [line] if line.epochs else []
    if not lines:
        return None
    # One kind of images beside those of training, to compare: what most rows were evaluated on.
    evaluated = {
        of: sum(line.curve(of, "accuracy") is not None for line in lines)
        for of in (VALIDATION, TEST)
    }
    most = max(evaluated, key=lambda of: evaluated[of])
    solid = most if evaluated[most] else None
    names = apart([line.row for line in lines]) if lines[1:] else [recipe(lines[0].row)]
    title = f"{one_line(model, style.LONGEST)}: loss and accuracy by epoch"
    with style.drawing(name, 3.75 + 0.25 * len(lines)) as figure:
        for axes, value in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            _panel(axes, lines, solid, value)
        said = [style.entry(solid, ls="-")] if solid else []
        said.append(style.entry("training", ls=DASHES))
        if any(len(line.runs) > 1 for line in lines):
            said.append(style.entry("range of the seeds", ls="-", lw=8, alpha=style.BAND))
        style.legend(figure, said, "upper left")
        entries = [
            style.entry(f"{text}: {_accuracy(line.row)}", ls="-", **line.marks)
            for line, text in zip(lines, names, strict=True)
        ]
        style.legend(figure, entries)
        png, svg = style.saved(figure, title)
    caption, alt = _caption(lines, len(rows), solid), _alt(model, lines, names, solid)
    return Figure(name, data, title, caption, alt, png, svg)


def _panel(axes: "style.Axes", lines: Sequence[_Line], solid: str | None, value: str) -> None:
    from matplotlib.ticker import MaxNLocator

    factor = 100 if value == "accuracy" else 1
    seen = []
    for line, of in itertools.product(lines, filter(None, (TRAINING, solid))):
        found = line.curve(of, value)
        if found is None:
            continue
        mean, low, high = (factor * part for part in (found.mean, found.low, found.high))
        look: dict[str, Any] = {"ls": DASHES, "lw": 1.4, "color": line.marks["color"]}
        if of == solid:
            every = 1 if len(mean) <= MOST_MARKERS else [-1]
            look = {"lw": 1.8, "ms": 5, "markevery": every, **line.marks}
        axes.plot(found.epochs, mean, **look)
        if found.seeds > 1 and of == (solid or TRAINING):
            band = {"color": look["color"], "alpha": style.BAND, "lw": 0}
            axes.fill_between(found.epochs, low, high, **band)
        seen += [part[len(part) // CUT :] for part in (low, high)]
    if seen:
        ends = np.concatenate(seen)
        edge = 0.05 * float(np.ptp(ends)) or 0.05 * abs(float(ends[0])) or 1.0
        axes.set_ylim(ends.min() - edge, ends.max() + edge)
    axes.set(title="Loss" if value == "loss" else "Accuracy (%)", xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _accuracy(row: Row) -> str:
    said = METRICS["test_accuracy"].with_spread(*(row[key] for key in ACCURACY))
    return f"{said} % on test, n = {row['n']}"


def _caption(lines: Sequence[_Line], rows: int, solid: str | None) -> str:
    several = any(len(line.runs) > 1 for line in lines)
    said = ["Mean over the seeds of each row, and their range." if several else "One seed a row."]
    said.append(f"Dashed: training. Solid: {solid}." if solid else "Dashed: training.")
    longest = max(line.epochs for line in lines)
    if longest >= CUT:
        said.append("The first tenth of the epochs may lie outside.")
    if longest > evidence.MOST_POINTS:
        said.append(f"Of long runs {evidence.MOST_POINTS} epochs are drawn.")
    if solid and any(line.curve(solid, "accuracy") is None for line in lines):
        said.append(f"Rows without a solid line were not evaluated on {solid} images each epoch.")
    if any(len(line.runs) < line.row["n"] for line in lines):
        said.append("Seeds without a history are left out.")
    if rows > len(lines):
        said.append(f"The {len(lines)} best of {rows:,} rows that have a history.")
    return " ".join(said)


def _alt(model: str, lines: Sequence[_Line], names: Sequence[str], solid: str | None) -> str:
    of = solid or TRAINING
    ends = [
        f"{text}: {percent(float(found.mean[-1]))} %"
        for line, text in zip(lines, names, strict=True)
        if (found := line.curve(of, "accuracy")) is not None
    ]
    rows = "1 row" if len(lines) == 1 else f"{len(lines)} rows"
    said = f"Loss and accuracy by epoch of {rows} of {one_line(model, style.LONGEST)}."
    kind = {VALIDATION: "Validation", TEST: "Test"}.get(of, "Training")
    return f"{said} {kind} accuracy at the end: {'; '.join(ends)}." if ends else said
