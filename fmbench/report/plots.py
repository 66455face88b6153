"""A search as one picture: its history, the Pareto front, slices and importances.

A PNG of panels below each other, for a page about 900 pixels wide. Sizes are pixels of that page,
from the top left corner.
"""

import io
import logging
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from fmbench.grid import CHARACTER, DENSITY, FONT, INCH, INK, LINE, MARGIN, SOFT, TEXT, TITLE
from fmbench.report.axis import Axis, limits, parameter_axis, value_axis
from fmbench.report.escape import one_line
from fmbench.report.search import (
    counts,
    importances,
    objective_heading,
    ranking,
)
from fmbench.trials import FAILED, MAXIMIZE, PRUNED, Objective, Search, Trial

WIDTH = 880
LEFT, RIGHT = 76, 24  # beside axes
HEADING, LABELS, GAP = 30, 46, 18  # above axes; below them; between panels
HISTORY, FRONT, SLICE, BAR = 220, 260, 170, 22  # heights
SLANTED = 46  # more below axes whose names are written slanted
COLUMNS, SLICE_GAP = 3, 22
MOST_SLICES, MOST_BARS = 12, 12
BAR_NAMES, BAR_VALUES = 220, 60

LETTER = 6.7  # as wide as one is in such words, where none may run into the next

# Colours that the colour-blind tell apart, of Okabe and Ito (2008).
BLUE, ORANGE, RED, GREY, PALE = "#0072B2", "#E69F00", "#D55E00", "#8a8a8a", "#e2e2e2"
BELOW_TITLE = MARGIN + TITLE + 10


def draw(search: Search) -> bytes:
    """The search as a PNG.

    Args:
        search: Of any size; a trial that is still running is not drawn.
    """
    complete = sorted(ranking(search), key=lambda trial: trial.number)
    shown = slices(search, complete)
    lines = textwrap.wrap(_subtitle(search), int((WIDTH - 2 * MARGIN) / CHARACTER))
    top = BELOW_TITLE + LINE * len(lines) + GAP
    heights = _heights(search, complete, shown)
    height = top + sum(heights.values()) + GAP * (len(heights) - 1) + MARGIN

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of its own cache
    # It warns too of every letter that its font lacks, and draws a box.
    with matplotlib.style.context("default"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(WIDTH / INCH, height / INCH), dpi=INCH * DENSITY)
        FigureCanvasAgg(figure)
        sheet = _Sheet(figure, height)
        title = one_line(f"Search: {search.study}", 70)
        sheet.write(MARGIN, MARGIN + TITLE / 2, title, TITLE, fontweight="bold")
        for number, line in enumerate(lines):
            sheet.write(MARGIN, BELOW_TITLE + (number + 0.5) * LINE, line, TEXT, color=SOFT)
        for panel, room in heights.items():
            if panel == "history":
                _history(sheet, top, search, complete)
            elif panel == "front":
                _front(sheet, top, search, complete)
            elif panel == "slices":
                _slices(sheet, top, search, complete, shown)
            else:
                _importances(sheet, top, importances(search)[:MOST_BARS])
            top += room + GAP
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def slices(search: Search, complete: Sequence[Trial]) -> list[str]:
    """The parameters to show, the most important first."""
    known = dict(importances(search))
    keys = dict.fromkeys(key for trial in complete for key in trial.parameters)
    return sorted(keys, key=lambda key: -known.get(key, 0.0))


def _subtitle(search: Search) -> str:
    pruner = "no pruner" if search.pruner == "none" else f"pruner {one_line(search.pruner, 40)}"
    return f"{one_line(search.sampler, 40)}, {pruner}: {counts(search)}."


def _heights(search: Search, complete: Sequence[Trial], shown: Sequence[str]) -> dict[str, int]:
    """The panels that there is something for, and how high each is."""
    heights = {"history": HEADING + HISTORY + LABELS}
    if complete and len(search.objectives) > 1:
        heights["front"] = HEADING + FRONT + LABELS
    if shown:
        heights["slices"] = HEADING + sum(_slice_rows(complete, shown[:MOST_SLICES]))
    if search.importances:
        heights["importances"] = HEADING + BAR * min(len(search.importances), MOST_BARS)
    return heights


@dataclass(frozen=True)
class _Sheet:
    """A figure measured in pixels of the page, from its top left corner."""

    figure: Figure
    height: int

    def write(self, x: float, y: float, text: str, size: float, **options: Any) -> None:
        """Write one line, its middle at a height."""
        style: dict[str, Any] = {
            "fontfamily": FONT, "fontsize": size * 72 / INCH, "color": INK, "va": "center",
        }  # fmt: skip
        place = (x / WIDTH, 1 - y / self.height)
        self.figure.text(*place, text, parse_math=False, **(style | options))

    def axes(self, box: tuple[float, float, float, float], x: Axis, y: Axis) -> Axes:
        """Axes with few lines and their own labels, in a box: left, top, width, height."""
        left, top, width, height = box
        place = (
            left / WIDTH,
            1 - (top + height) / self.height,
            width / WIDTH,
            height / self.height,
        )
        axes = self.figure.add_axes(place)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xscale("log" if x.log else "linear")
        axes.set_yscale("log" if y.log else "linear")
        axes.set_xlim(x.low, x.high)
        axes.set_ylim(y.low, y.high)
        # Ticks of our own: matplotlib's would read a name's dollar signs as formulas.
        axes.set_xticks([], minor=True)
        axes.set_yticks([], minor=True)
        axes.set_xticks([place for place, _ in x.ticks], [""] * len(x.ticks))
        axes.set_yticks([place for place, _ in y.ticks], [""] * len(y.ticks))
        axes.tick_params(length=0)
        axes.grid(visible=True, axis="both" if not x.names else "y", color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        style: dict[str, Any] = {
            "fontfamily": FONT, "fontsize": 10.5 * 72 / INCH, "color": SOFT, "parse_math": False,
        }  # fmt: skip
        slant: dict[str, Any] = {"ha": "center"}
        if x.slanted:
            slant = {"rotation": 32, "ha": "right", "rotation_mode": "anchor"}
        for at, text in x.ticks:
            where = {"transform": axes.get_xaxis_transform(), "va": "top"}
            axes.text(at, -8 / height, text, **(style | slant | where))
        for at, text in y.ticks if y.labelled else ():
            across = axes.get_yaxis_transform()
            axes.text(-6 / width, at, text, transform=across, ha="right", va="center", **style)
        label_top = top + height + (30 if not x.slanted else 30 + SLANTED)
        self.write(left + width / 2, label_top, x.label, TEXT, color=SOFT, ha="center")
        return axes

    def heading(self, top: float, text: str, *entries: tuple[str, str, str]) -> None:
        """A panel's heading, and at its right what the marks mean: text, colour, marker."""
        self.write(MARGIN, top + 8, text, 13, fontweight="bold")
        right = float(WIDTH - RIGHT)
        for said, colour, marker in reversed(entries):
            right -= LETTER * len(said)
            self.write(right, top + 8, said, TEXT, color=SOFT)
            self._mark(right - 14, top + 8, colour, marker)
            right -= 42

    def _mark(self, x: float, y: float, colour: str, marker: str) -> None:
        reach = 8 if marker == "-" else 0
        ends = [(x - reach) / WIDTH, (x + reach) / WIDTH], [1 - y / self.height] * 2
        if marker == "-":
            self.figure.add_artist(Line2D(*ends, color=colour, lw=2))
        else:
            mark = Line2D(*ends, color=colour, marker=marker, ms=6, mew=1.6, lw=0)
            self.figure.add_artist(mark)


def _history(sheet: _Sheet, top: float, search: Search, complete: Sequence[Trial]) -> None:
    objective = search.objectives[0]
    points = [(t.number, t.values[0]) for t in complete if t.values is not None]
    pruned = [
        (trial.number, value)
        for trial in search.trials
        if trial.state == PRUNED
        and (value := trial.last_report if trial.reports else (trial.values or (None,))[0])
        is not None
    ]
    failed = [trial.number for trial in search.trials if trial.state == FAILED]
    entries = [("complete", BLUE, "o"), ("best so far", ORANGE, "-")] if points else []
    entries += [("pruned, last report", GREY, "x")] if pruned else []
    entries += [("failed", RED, "|")] if failed else []

    last = max((trial.number for trial in search.trials), default=0)
    x = value_axis([0, last], label="trial", whole=True)
    y = value_axis([value for _, value in points + pruned], objective)
    axes = sheet.axes((LEFT, top + HEADING, WIDTH - LEFT - RIGHT, HISTORY), x, y)
    if not points and not pruned:
        text: dict[str, Any] = {
            "transform": axes.transAxes,
            "ha": "center",
            "va": "center",
            "color": SOFT,
        }
        axes.text(
            0.5,
            0.5,
            "no trial reported a value",
            fontfamily=FONT,
            fontsize=TEXT * 72 / INCH,
            **text,
        )
    beyond = _scatter(axes, y, pruned, color=GREY, marker="x", ms=5, mew=1.3)
    beyond |= _scatter(axes, y, points, color=BLUE, marker="o", ms=5, mew=0, alpha=0.8)
    for number in failed:
        axes.plot(number, 0.02, "|", color=RED, ms=9, mew=2, transform=axes.get_xaxis_transform())
    best: list[float] = []
    for _, value in points:
        better = max if objective.direction == MAXIMIZE else min
        best.append(better(best[-1], value) if best else value)
    if points:
        numbers = [number for number, _ in points]
        path = [y.scaled(value) for value in best]
        axes.plot([*numbers, last], [*path, path[-1]], drawstyle="steps-post", color=ORANGE, lw=2)
    if beyond:
        entries.append(("beyond the axis", SOFT, y.arrow))
    sheet.heading(top, f"History: {_label(objective)}", *entries)


def _front(sheet: _Sheet, top: float, search: Search, complete: Sequence[Trial]) -> None:
    first, *others = search.objectives
    room = (WIDTH - LEFT - RIGHT - (len(others) - 1) * SLICE_GAP) / len(others)
    y_values = [trial.values[0] for trial in complete if trial.values is not None]
    beyond = False
    for place, other in enumerate(others, 1):
        x_values = [trial.values[place] for trial in complete if trial.values is not None]
        x = value_axis(x_values, other, label=_label(other), may_log=True)
        y = value_axis(y_values, first, labelled=place == 1)
        left = LEFT + (place - 1) * (room + SLICE_GAP)
        axes = sheet.axes((left, top + HEADING, room, FRONT), x, y)
        pairs = [(x.placed(value), of) for value, of in zip(x_values, y_values, strict=True)]
        on_front = [trial.number in search.best for trial in complete]
        rest = [pair for pair, on in zip(pairs, on_front, strict=True) if not on]
        front = sorted(pair for pair, on in zip(pairs, on_front, strict=True) if on)
        beyond |= _scatter(axes, y, rest, color=GREY, marker="o", ms=5, mew=0, alpha=0.7)
        if len(others) == 1:  # of three objectives no two make a line
            axes.plot(
                [at for at, _ in front], [y.placed(value) for _, value in front],
                drawstyle="steps-post" if other.sign < 0 else "steps-pre", color=ORANGE, lw=1.5,
            )  # fmt: skip
        beyond |= _scatter(axes, y, front, color=RED, marker="o", ms=7, mew=0)
    entries = [("Pareto front", RED, "o"), ("other trials", GREY, "o")]
    entries += [("beyond the axis", SOFT, y.arrow)] if beyond else []
    sheet.heading(top, f"Pareto front: {_label(first)}", *entries)


def _slices(
    sheet: _Sheet, top: float, search: Search, complete: Sequence[Trial], keys: Sequence[str]
) -> None:
    objective = search.objectives[0]
    shown = keys[:MOST_SLICES]
    values = [trial.values[0] for trial in complete if trial.values is not None]
    # One range for all, so that heights compare.
    low_high = limits(values, objective)
    room = (WIDTH - LEFT - RIGHT - (COLUMNS - 1) * SLICE_GAP) / COLUMNS
    rows = _slice_rows(complete, shown)
    beyond = False
    for number, key in enumerate(shown):
        row, column = divmod(number, COLUMNS)
        x = _slice_axis(complete, key)
        y = value_axis(values, objective, labelled=column == 0, between=low_high)
        down = top + HEADING + sum(rows[:row])
        axes = sheet.axes((LEFT + column * (room + SLICE_GAP), down, room, SLICE), x, y)
        points = [
            (x.placed(trial.parameters[key], trial.number), trial.values[0], trial.number)
            for trial in complete
            if key in trial.parameters and trial.values is not None
        ]
        best = [(at, value) for at, value, trial in points if trial in search.best]
        rest = [(at, value) for at, value, trial in points if trial not in search.best]
        beyond |= _scatter(axes, y, rest, color=BLUE, marker="o", ms=5, mew=0, alpha=0.6)
        beyond |= _scatter(axes, y, best, color=RED, marker="o", ms=7, mew=0)
    several = len(search.objectives) > 1
    entries = [("on the Pareto front" if several else "best", RED, "o")] if search.best else []
    entries += [("beyond the axis", SOFT, y.arrow)] if beyond else []
    title = f"Slices: {_label(objective)} by parameter"
    if len(keys) > len(shown):
        title += f" (the first {len(shown)} of {len(keys)})"
    sheet.heading(top, title, *entries)


def _slice_rows(complete: Sequence[Trial], keys: Sequence[str]) -> list[int]:
    """How high each row of slices is, what is written below them included."""
    slanted = [_slice_axis(complete, key).slanted for key in keys]
    starts = range(0, len(keys), COLUMNS)
    return [SLICE + LABELS + SLANTED * any(slanted[at : at + COLUMNS]) for at in starts]


def _label(objective: Objective) -> str:
    """The heading of an objective's axis: training time (s)."""
    return objective_heading(objective) + " (s)" * (objective.name == "train_seconds")


def _slice_axis(complete: Sequence[Trial], key: str) -> Axis:
    room = (WIDTH - LEFT - RIGHT - (COLUMNS - 1) * SLICE_GAP) / COLUMNS
    tried = [trial.parameters[key] for trial in complete if key in trial.parameters]
    return parameter_axis(tried, one_line(key, 34), room)


def _importances(sheet: _Sheet, top: float, bars: Sequence[tuple[str, float]]) -> None:
    full = WIDTH - MARGIN - BAR_NAMES - BAR_VALUES - RIGHT
    for number, (name, share) in enumerate(bars):
        middle = top + HEADING + (number + 0.5) * BAR
        left = MARGIN + BAR_NAMES
        sheet.write(left - 8, middle, one_line(name, 32), TEXT, color=SOFT, ha="right")
        length = max(full * share, 1)
        corner = (left / WIDTH, 1 - (middle + 7) / sheet.height)
        size = (length / WIDTH, 14 / sheet.height)
        sheet.figure.add_artist(Rectangle(corner, *size, color=BLUE, lw=0))
        sheet.write(left + length + 8, middle, f"{share:.2f}", TEXT)
    sheet.heading(top, "Importances: share of what moves the objective")


def _scatter(axes: Axes, y: Axis, points: Sequence[tuple[float, float]], **style: Any) -> bool:
    """Draw points, those beyond the axis as arrows at its end; whether there were any."""
    inside = [(at, y.scaled(value)) for at, value in points if not y.beyond(value)]
    beyond = [(at, y.placed(value)) for at, value in points if y.beyond(value)]
    axes.plot([at for at, _ in inside], [to for _, to in inside], lw=0, **style)
    arrow = {"marker": y.arrow, "mew": 0, "ms": 6}
    axes.plot([at for at, _ in beyond], [to for _, to in beyond], lw=0, **(style | arrow))
    return bool(beyond)
